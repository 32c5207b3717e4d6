"""Where a generation is written: decided, and refused, before anything is loaded."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from spectrum.errors import SpectrumError, UsageError

if TYPE_CHECKING:
    from spectrum.pipeline.request import Request

STDOUT = "-"


@dataclass(frozen=True)
class Target:
    """A file, or the folder of numbered frames of a video, and where it is in the end.

    asked: the name that it was to have before others took that.
    by_user: it is not one that we thought out.
    replace: what is there gives way.
    is_stdout: the path says by its ending what goes to standard output.
    """

    path: Path
    asked: Path
    is_folder: bool = False
    by_user: bool = False
    replace: bool = False
    is_stdout: bool = False

    @property
    def was_taken(self) -> bool:
        """While the run went on: a name by the user is free at its start."""
        return self.by_user and self.path != self.asked


def targets(
    request: Request, seeds: list[int], output: str | None, force: bool, usual: str | None = None
) -> list[Target]:
    """One target a seed; a name that was not asked for gives way to what is there already.

    usual: the name where none is asked for; None: one from model, prompt and seed.
    Raises UsageError for a wrong ending, or a file that was asked for and is there, SpectrumError
    for a bad folder.
    """
    if output == STDOUT:
        return [_stdout(request, seeds)]
    from spectrum.pipeline.formats import check

    folder, stem, ending = _split(request, output)
    asked_for = stem is not None
    if usual and not asked_for:
        stem, ending = Path(usual).stem, Path(usual).suffix
    check(ending, request)
    if not os.path.isdir(folder):
        if "{" in str(folder):
            raise UsageError(f"{folder}: no such folder; fields are filled in in names alone")
        raise SpectrumError(f"{folder}: no such folder; create it with `mkdir -p '{folder}'`")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise SpectrumError(f"{folder}: can't be written to; choose another place with --output")
    is_folder = ending.lower() == ".png" and request.frames > 1
    taken: set[Path] = set()
    found = []
    for name in _stems(request, seeds, stem):
        asked = folder / (name if is_folder else name + ending)
        fixed = force or asked_for
        path = asked if fixed else next(p for p in _free(asked, is_folder) if p not in taken)
        check_free(path, is_folder, force)
        taken.add(path)
        found.append(Target(path, asked, is_folder, asked_for, force))
    return found


def check_free(path: Path, is_folder: bool, force: bool) -> None:
    """Raise UsageError for what can't be written, or must not be."""
    from spectrum.pipeline.folders import check_replaceable

    try:
        path.lstat()
    except FileNotFoundError:
        return
    except OSError as error:  # too long for the file system, say
        raise UsageError(f"{path}: {error.strerror}; choose another --output") from error
    if path.is_dir() != is_folder and (is_folder or not path.is_symlink()):
        kind = "a folder" if path.is_dir() else "a file"
        raise UsageError(f"{path} is {kind} already; choose another name with --output")
    if not force:
        raise UsageError(f"{path} exists already; --force replaces it, or give another --output")
    if is_folder:
        check_replaceable(path)


def slug(prompt: str) -> str:
    """The prompt's first words as a part of a file name, 48 characters at most."""
    words = re.sub(r"[\W_]+", "-", prompt.lower()).strip("-")
    return words if len(words) <= 48 else words[:48].rsplit("-", 1)[0]


def _stems(request: Request, seeds: list[int], stem: str | None) -> list[str]:
    """One a seed, no two alike: with the fields of `batch --name` filled in, or the seed behind."""
    from spectrum.batch.names import MOST_BYTES, check_fields, cut, fill, values_of

    if stem is None:
        stems = [f"{request.preset.name}-{slug(request.prompt)}-{seed}" for seed in seeds]
        return [cut(stem, MOST_BYTES) for stem in stems]
    stems = [stem] * len(seeds)
    if check_fields(stem, "output"):
        digits = len(str(len(seeds)))
        stems = [
            fill(stem, values_of(request, seed, number), digits)
            for number, seed in enumerate(seeds, 1)
        ]
    if len(set(stems)) < len(seeds):
        stems = [f"{stem}-{seed}" for stem, seed in zip(stems, seeds, strict=True)]
    return stems


def _default_ending(request: Request) -> str:
    from spectrum.pipeline.formats import endings

    return endings(request.preset.video is not None, request.frames)[0]


def _stdout(request: Request, seeds: list[int]) -> Target:
    if len(seeds) > 1:
        raise UsageError("--output - takes one picture or film; leave --num-images")
    if sys.stdout.isatty():
        raise UsageError("--output - is for a pipe or a file, not for a terminal; add `> FILE`")
    path = Path(f"standard output{_default_ending(request)}")
    return Target(path, path, is_stdout=True)


def _split(request: Request, output: str | None) -> tuple[Path, str | None, str]:
    """Folder, stem (None: from model, prompt and seed) and ending."""
    from spectrum.pipeline.formats import endings

    default = _default_ending(request)
    if output is None:
        return Path(), None, default
    path = Path(output)
    if output.endswith(("/", os.sep)) or os.path.isdir(output):  # also of a name too long
        return path, None, default
    allowed = endings(request.preset.video is not None, request.frames)
    if request.frames > 1:
        allowed = (*allowed, ".png")  # a folder of them
    if path.suffix.lower() not in allowed:
        told = ", ".join(allowed)
        raise UsageError(
            f"{output}: {request.preset.name} writes {told};"
            f" try --output {path.with_suffix(default)}, or an existing folder"
        )
    return path.parent, path.stem, path.suffix


def _free(path: Path, is_folder: bool) -> Iterator[Path]:
    """The free ones among name, name-2, name-3, ..."""
    from spectrum.pipeline.files import numbered

    return (name for name in numbered(path, is_folder) if not os.path.lexists(name))
