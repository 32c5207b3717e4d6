"""Contact sheets: pictures and films with captions, laid out beside and below each other.

All functions take and give frames, [F, H, W, 3]; a picture is a film of one frame.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from spectrum.pipeline.media import Frames

AMPLIFY = 8  # of differences: a power of two, as the page doubles

_TILE = 320  # pixels, the most of a picture's longer side
_COLUMNS = 6
_STRIP_FRAMES = 8
_GAP = 8
_PAPER, _INK, _TITLE, _TEXT = (245, 245, 243), (30, 30, 30), 17, 13


def difference(frames: Frames, reference: Frames) -> Frames:
    """|a - b|, AMPLIFY times, up to white."""
    apart = np.abs(frames.astype(np.int16) - reference.astype(np.int16)) * AMPLIFY
    found: Frames = np.minimum(apart, 255).astype(np.uint8)
    return found


def contact(title: str, tiles: Sequence[tuple[str, Sequence[Frames]]]) -> Frames:
    """Captioned tiles, at most six in a row; a tile is a column of films of one length."""
    columns = [_captioned(caption, _below([_fit(x) for x in films])) for caption, films in tiles]
    wide = -(-len(columns) // -(-len(columns) // _COLUMNS))  # 7 are 4 and 3, not 6 and 1
    rows = [_beside(columns[start : start + wide]) for start in range(0, len(columns), wide)]
    return _titled(title, _below(rows))


def strip(title: str, tiles: Sequence[tuple[str, Frames]]) -> Frames:
    """One picture: of each film a row of its frames, evenly spaced from the first to the last."""
    rows = []
    for caption, film in tiles:
        count = min(_STRIP_FRAMES, len(film))
        picked = [round(k * (len(film) - 1) / max(1, count - 1)) for k in range(count)]
        rows.append(
            _captioned(caption, _beside([_fit(film[k : k + 1], _TILE // 2) for k in picked]))
        )
    return _titled(title, _below(rows))


def stacked(parts: Sequence[Frames]) -> Frames:
    """One below the other on paper, with a margin, at even sides (as h264 wants them)."""
    body = _below(parts, 3 * _GAP)
    _, height, width, _ = body.shape
    right, bottom = 2 * _GAP - (width % 2), 2 * _GAP - (height % 2)
    return _padded(body, 2 * _GAP, bottom, 2 * _GAP, right)


def _fit(film: Frames, side: int = _TILE) -> Frames:
    """Scaled down smoothly, or up by a whole number, to `side` pixels at the most."""
    from PIL import Image

    _, height, width, _ = film.shape
    longest = max(height, width)
    if longest <= side:
        times = side // longest
        return film.repeat(times, axis=1).repeat(times, axis=2)
    size = (max(1, width * side // longest), max(1, height * side // longest))
    scaled = [Image.fromarray(frame).resize(size, Image.Resampling.LANCZOS) for frame in film]
    return np.stack([np.asarray(frame) for frame in scaled])


def _captioned(text: str, film: Frames) -> Frames:
    return _below([_written(text, film.shape[2], _TEXT), film], 2)


def _titled(text: str, film: Frames) -> Frames:
    return _below([_written(text, film.shape[2], _TITLE), film])


def _written(text: str, width: int, size: int) -> Frames:
    """A line of text, cut where it is too long.  # [1, H, width, 3]"""
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(size)
    text = " ".join(text[: 10 * width].split())  # more than that is not seen
    if font.getlength(text) > width:
        lengths = range(len(text) + 1)
        over = bisect_left(lengths, True, key=lambda k: font.getlength(text[:k] + "…") > width)
        text = text[: max(0, over - 1)] + "…"
    image = Image.new("RGB", (width, size + 6), _PAPER)
    ImageDraw.Draw(image).text((0, 1), text, fill=_INK, font=font)
    return np.asarray(image)[None]


def _beside(films: Sequence[Frames], gap: int = _GAP) -> Frames:
    height = max(film.shape[1] for film in films)
    last = len(films) - 1
    padded = [
        _padded(film, 0, height - film.shape[1], 0, gap if k < last else 0)
        for k, film in enumerate(_of_one_length(films))
    ]
    return np.concatenate(padded, axis=2)


def _below(films: Sequence[Frames], gap: int = _GAP) -> Frames:
    width = max(film.shape[2] for film in films)
    last = len(films) - 1
    padded = [
        _padded(film, 0, gap if k < last else 0, 0, width - film.shape[2])
        for k, film in enumerate(_of_one_length(films))
    ]
    return np.concatenate(padded, axis=1)


def _of_one_length(films: Sequence[Frames]) -> list[Frames]:
    length = max(len(film) for film in films)
    return [film if len(film) == length else film.repeat(length, axis=0) for film in films]


def _padded(film: Frames, top: int, bottom: int, left: int, right: int) -> Frames:
    count, height, width, _ = film.shape
    paper: NDArray[np.uint8] = np.empty(
        (count, height + top + bottom, width + left + right, 3), np.uint8
    )
    paper[:] = _PAPER
    paper[:, top : top + height, left : left + width] = film
    return paper
