"""What was made, to disk: under its name or, where that fails, under another one, as it took long
to make."""

from __future__ import annotations

import sys
import tempfile
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spectrum.errors import SpectrumError
from spectrum_cli.output import error, reason

if TYPE_CHECKING:
    from spectrum.pipeline.generate import Generation
    from spectrum.pipeline.request import Request
    from spectrum_cli.paths import Target


def save(file: Target, made: Generation, request: Request, document: dict[str, Any]) -> Target:
    """Write it; where it is now, which is said if the user's own name was taken meanwhile.

    Raises SpectrumError where it can't be written, with the place where it was kept instead.
    """
    try:
        file = replace(file, path=_write(file, made, request, document))
    except BrokenPipeError:  # who reads standard output has gone
        raise
    except Exception as problem:
        kept = _keep(file.path.parent, made, document)
        told = f"{file.path} could not be written: {reason(problem)}"
        raise SpectrumError(f"{told}; it was saved as {kept}" if kept else told) from problem
    if file.was_taken:
        error(f"{file.asked} was taken by something else meanwhile: this one is {file.path}")
    return file


def _write(file: Target, made: Generation, request: Request, document: dict[str, Any]) -> Path:
    from spectrum.pipeline.files import write
    from spectrum.pipeline.media import encode, write_frames

    def make(partial: Path) -> None:
        ending = file.path.suffix.lower()
        encode(
            partial, ending, made.frames, document, request.fps, made.audio, made.sample_rate
        )  # fmt: skip

    if file.is_folder:
        return write_frames(file.path, made.frames, document, file.replace)
    if not file.is_stdout:
        return write(file.path, make, file.replace)
    with tempfile.TemporaryDirectory() as folder:
        make(partial := Path(folder, "out"))
        sys.stdout.buffer.write(partial.read_bytes())
        sys.stdout.flush()
    return file.path


def _keep(folder: Path, made: Generation, document: dict[str, Any]) -> Path | None:
    """As PNGs under a name that no file system refuses, there or else among temporary files."""
    from spectrum.pipeline.media import write_frames, write_png

    for place in (folder, None):
        with suppress(Exception):  # the next place may do
            path = (place or Path(tempfile.gettempdir())) / "spectrum-saved"
            if len(made.frames) > 1:
                return write_frames(path, made.frames, document)
            return write_png(path.with_suffix(".png"), made.frames[0], document)
    return None
