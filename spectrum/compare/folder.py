"""The folder that a comparison leaves: pictures, overviews, result.json and a page."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from spectrum import __version__
from spectrum.compare.page import page
from spectrum.compare.sheet import AMPLIFY, contact, difference, stacked, strip
from spectrum.pipeline.media import Frames, write_mp4, write_png

_PICTURES, _RESULT, _PAGE = "pictures", "result.json", "index.html"
_SHEET, _STRIP, _FILM = "sheet.png", "strip.png", "side-by-side.mp4"

# Cases in side-by-side.mp4, the first ones: more would take much memory and little be seen.
_FILMED = 4


class Folder:
    """Files of a comparison under way, of films or (where `fps` is None) of pictures.

    Memory holds small frames of each case, for the overviews.
    """

    def __init__(self, path: Path, fps: int | None) -> None:
        self._path, self._fps = path, fps
        (path / _PICTURES).mkdir()
        self._sheets: list[Frames] = []
        self._strips: list[Frames] = []
        self._films: list[Frames] = []

    def add(self, case: int, name: str, frames: Frames, metadata: dict[str, Any]) -> str:
        """Write one run's frames; their path in the folder.  # [F, H, W, 3]"""
        ending = "png" if self._fps is None else "mp4"
        file = f"{_PICTURES}/{case}-{name.replace(':', '-')}.{ending}"  # Windows takes no colon
        if self._fps is None:
            write_png(self._path / file, frames[0], metadata)
        else:
            write_mp4(self._path / file, frames, self._fps, metadata)
        return file

    def add_difference(self, case: int, name: str, frames: Frames, reference: Frames) -> str:
        """Write |frames - reference|, amplified; its path in the folder."""
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
        """Write the overviews, the result and the page."""
        about = {"generator": document["generator"], "comparison_of": document["model"]}
        write_png(self._path / _SHEET, stacked(self._sheets)[0], about)
        if self._fps is not None:
            write_png(self._path / _STRIP, stacked(self._strips)[0], about)
            write_mp4(self._path / _FILM, stacked(self._films), self._fps, about)
        text = json.dumps(document, ensure_ascii=False, indent=1)
        (self._path / _RESULT).write_text(text + "\n", encoding="utf-8")
        (self._path / _PAGE).write_text(page(document, self._path), encoding="utf-8")


def files(video: bool) -> list[str]:
    """What is in the folder beside the pictures."""
    return [_SHEET, *([_STRIP, _FILM] if video else []), _RESULT, _PAGE]
