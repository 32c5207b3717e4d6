"""Where a generation is written: decided, and refused, before anything is loaded."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from spectrum.errors import SpectrumError, UsageError

if TYPE_CHECKING:
    from spectrum.pipeline.request import Request


@dataclass(frozen=True)
class Target:
    """A file, or the folder of numbered frames of a video; `asked` is the name that was taken."""

    path: Path
    asked: Path
    is_folder: bool = False


def targets(
    request: Request, seeds: list[int], output: str | None, force: bool, usual: str | None = None
) -> list[Target]:
    """One target a seed; a name that was not asked for gives way to what is there already.

    usual: the name where none is asked for; None: one from model, prompt and seed.
    Raises UsageError for a wrong ending, or a file that was asked for and is there, SpectrumError
    for a bad folder.
    """
    folder, stem, ending = _split(request, output)
    asked_for = stem is not None
    if usual and not asked_for:
        stem, ending = Path(usual).stem, Path(usual).suffix
    if not folder.is_dir():
        raise SpectrumError(f"{folder}: no such folder; create it with `mkdir -p '{folder}'`")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise SpectrumError(f"{folder}: can't be written to; choose another place with --output")
    is_folder = ending.lower() == ".png" and request.frames > 1
    taken: set[Path] = set()
    found = []
    for seed in seeds:
        name = stem or f"{request.preset.name}-{slug(request.prompt)}-{seed}"
        if stem and len(seeds) > 1:
            name = f"{stem}-{seed}"
        asked = folder / (name if is_folder else name + ending)
        fixed = force or asked_for
        path = asked if fixed else next(p for p in _names(asked) if p not in taken)
        if asked_for and not force and os.path.lexists(path):
            raise UsageError(
                f"{path} exists already; --force replaces it, or give another --output"
            )
        if path.exists() and path.is_dir() != is_folder:
            kind = "a folder" if path.is_dir() else "a file"
            raise UsageError(f"{path} is {kind} already; choose another name with --output")
        taken.add(path)
        found.append(Target(path, asked, is_folder))
    return found


def slug(prompt: str) -> str:
    """The prompt's first words as a part of a file name, 48 characters at most."""
    words = re.sub(r"[\W_]+", "-", prompt.lower()).strip("-")
    return words if len(words) <= 48 else words[:48].rsplit("-", 1)[0]


def _split(request: Request, output: str | None) -> tuple[Path, str | None, str]:
    """Folder, stem (None: from model, prompt and seed) and ending."""
    video = request.preset.video is not None
    default = ".mp4" if video and request.frames > 1 else ".png"
    if output is None:
        return Path(), None, default
    path = Path(output)
    if output.endswith(("/", os.sep)) or path.is_dir():
        return path, None, default
    allowed = (".mp4", ".png") if video else (".png",)
    if path.suffix.lower() not in allowed:
        raise UsageError(
            f"{output}: {request.preset.name} writes {' or '.join(allowed)};"
            f" try --output {path.with_suffix(default)}, or an existing folder"
        )
    return path.parent, path.stem, path.suffix


def _names(path: Path) -> Iterator[Path]:
    """The free ones among name, name-2, name-3, ..."""
    for number in count(1):
        candidate = path if number == 1 else path.with_name(f"{path.stem}-{number}{path.suffix}")
        if not os.path.lexists(candidate):
            yield candidate
