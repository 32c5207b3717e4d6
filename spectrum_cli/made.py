"""Which file is meant, of those that spectrum wrote."""

from __future__ import annotations

import os
import re
from itertools import islice
from pathlib import Path

from spectrum.errors import UsageError


def find(text: str) -> Path:
    """The file itself, that of a manifest's line, or the first of a folder of frames."""
    path = Path(text)
    line = re.fullmatch(r"(.+\.jsonl):(\d{1,9})", text, re.S)
    if line and not os.path.exists(path):
        path = _of_line(Path(line[1]), int(line[2]))
    if not os.path.isdir(path):
        return path
    if frames := frames_of(path):
        return frames[0]
    if (path / "manifest.jsonl").is_file():
        raise UsageError(f"{path} is a batch's folder; give a file of it, or its manifest.jsonl:1")
    if (path / "pictures").is_dir():
        raise UsageError(f"{path} is a comparison's folder; give a file of {path / 'pictures'}")
    raise UsageError(f"{path} is no folder of numbered frames; give one, or a file")


def frames_of(folder: Path) -> list[Path]:
    """The numbered frames in a folder, in their order."""
    return sorted(path for path in folder.iterdir() if re.fullmatch(r"\d{4}\.png", path.name))


def _of_line(manifest: Path, number: int) -> Path:
    from spectrum.pipeline.foreign import parse_json

    where = f"{manifest}:{number}"
    try:
        with manifest.open(encoding="utf-8", errors="replace") as stream:
            text = next(islice(stream, max(0, number - 1), number), "")
    except OSError as error:
        raise UsageError(f"{manifest}: can't be read: {error.strerror or error}") from error
    try:
        line = parse_json(text) if number else None
    except ValueError:
        line = None
    if not isinstance(line, dict):
        raise UsageError(f"{where}: no such line, or it is no JSON object; lines count from 1")
    name = line.get("file")
    if not isinstance(name, str) or not name:
        raise UsageError(f"{where}: this line has no file; give one whose job was done")
    if Path(name).is_absolute() or ".." in re.split(r"[\\/]", name):
        raise UsageError(f"{where}: its file {name[:200]} is outside the manifest's folder")
    return manifest.parent / name
