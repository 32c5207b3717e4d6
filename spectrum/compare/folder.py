"""The folder that a comparison leaves: pictures, overviews, result.json and a page.

What can't be written, as where the disk is full, is left out and told: measuring goes on, for it is
the figures that took long.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from spectrum import __version__
from spectrum.compare.page import page
from spectrum.compare.sheet import AMPLIFY, contact, difference, stacked, strip
from spectrum.errors import SpectrumError
from spectrum.pipeline.files import write
from spectrum.pipeline.media import Frames, encode_mp4, encode_png

_PICTURES, _RESULT, _PAGE = "pictures", "result.json", "index.html"
_SHEET, _STRIP, _FILM = "sheet.png", "strip.png", "side-by-side.mp4"

# Cases in side-by-side.mp4, the first ones: more would take much memory and little be seen.
_FILMED = 4
# Bytes of result.json that are taken at the start, so that a disk which fills up meanwhile has room
# for the figures. A run takes about 500.
_ROOM = 2**18


class Folder:
    """Files of a comparison under way, of films or (where `fps` is None) of pictures.

    Memory holds small frames of each case, for the overviews. `missing` are files that could not be
    written, and `problem` says why the first could not.
    """

    def __init__(self, path: Path, fps: int | None) -> None:
        self._path, self._fps = path, fps
        self.missing: list[str] = []
        self.problem: str | None = None
        (path / _PICTURES).mkdir()
        (path / _RESULT).write_text(" " * _ROOM, encoding="utf-8")
        self._sheets: list[Frames] = []
        self._strips: list[Frames] = []
        self._films: list[Frames] = []

    def add(self, case: int, name: str, frames: Frames, metadata: dict[str, Any]) -> str | None:
        """Write one run's frames; their path in the folder, None if that failed.  # [F, H, W, 3]"""
        ending = "png" if self._fps is None else "mp4"
        file = f"{_PICTURES}/{case}-{name.replace(':', '-')}.{ending}"  # Windows takes no colon
        return self._media(file, frames, metadata, self._fps)

    def add_difference(self, case: int, name: str, frames: Frames, reference: Frames) -> str | None:
        """Write |frames - reference|, amplified; its path in the folder, None if that failed."""
        about = {"generator": f"spectrum {__version__}", "difference_times": AMPLIFY}
        return self.add(case, f"{name}-difference", difference(frames, reference), about)

    def add_overview(self, title: str, films: Sequence[tuple[str, Frames]]) -> None:
        """Of one case: captioned frames, the plain run's first."""
        reference = films[0][1]
        middle = len(reference) // 2
        here = slice(middle, middle + 1)
        pairs = [
            (caption, [film[here], difference(film[here], reference[here])])
            for caption, film in films
        ]
        self._sheets.append(contact(title, pairs))
        if self._fps is not None:
            self._strips.append(strip(title, films))
            if len(self._films) < _FILMED:
                self._films.append(contact(title, [(caption, [film]) for caption, film in films]))

    def finish(self, document: dict[str, Any]) -> None:
        """Write the overviews, the page where no file is missing, and the result, which is told
        what is there and what is not. Raises OSError if that can't be written."""
        about = {"generator": document["generator"], "comparison_of": document["model"]}
        self._media(_SHEET, stacked(self._sheets), about)
        if self._fps is not None:
            self._media(_STRIP, stacked(self._strips), about)
            self._media(_FILM, stacked(self._films), about, self._fps)
        if self.missing:
            self.missing.append(_PAGE)
        else:
            self._put(
                _PAGE, lambda file: file.write_text(page(document, self._path), encoding="utf-8")
            )
        there = [_SHEET, *([_STRIP, _FILM] if self._fps is not None else []), _RESULT, _PAGE]
        document["files"] = [file for file in there if file not in self.missing]
        document["missing"], document["problem"] = self.missing, self.problem
        text = json.dumps(document, ensure_ascii=False, indent=1)
        (self._path / _RESULT).write_text(text + "\n", encoding="utf-8")

    def _media(
        self, file: str, frames: Frames, about: dict[str, Any], fps: int | None = None
    ) -> str | None:
        """Write a film or, where there is no `fps`, its first frame."""
        if fps is None:
            return self._put(file, lambda partial: encode_png(partial, frames[0], about))
        return self._put(file, lambda partial: encode_mp4(partial, frames, fps, about))

    def _put(self, file: str, make: Callable[[Path], object]) -> str | None:
        """Write a file, whole or not at all; its path in the folder, None if that failed."""
        try:
            write(self._path / file, make)
        except (OSError, SpectrumError) as error:
            self.missing.append(file)
            reason = error.strerror if isinstance(error, OSError) else str(error)
            self.problem = self.problem or f"{file} could not be written: {reason or error}"
            return None
        return file
