"""The formats of outputs, by their endings; each holds the document of how it was made.

PNG, WebP and WebM hold it whatever its length, GIF too; JPEG less than 64 kB of it.
"""

from __future__ import annotations

import json
import math
from bisect import bisect_right
from itertools import accumulate, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from spectrum.errors import SpectrumError, UsageError

if TYPE_CHECKING:
    from PIL.Image import Image

    from spectrum.pipeline.request import Request

Frames = NDArray[np.uint8]  # [F, H, W, 3]

PILLOWS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP", ".gif": "GIF"}
FFMPEGS = {".mp4": "mp4", ".webm": "webm"}

STILLS = (".png", ".jpg", ".jpeg", ".webp")
FILMS = (".mp4", ".webm", ".gif", ".webp")
_UNITS = {"GIF": 100, "WEBP": 1000}  # in a second, of what the time of a frame is counted in
_GIF_FPS = 50  # shorter times are not kept by what shows a GIF

_DESCRIPTION = 0x010E  # the tag of EXIF for it
_QUALITY = {"JPEG": 95, "WEBP": 95}
_LONGEST_OF_JPEG = 65000  # bytes
_REST = 4000  # at most, of what a document says that no request decides: the machine, say
_NO_ROOM = "a JPEG has no room for a prompt and settings of this length; write a .png or .webp"


def endings(video: bool, frames: int) -> tuple[str, ...]:
    """Of the files that a model's pictures can be written to, the usual one first.

    video: it is a model of films, whose single frame may be either.
    """
    if not video:
        return STILLS
    return FILMS if frames > 1 else tuple(dict.fromkeys((*STILLS, *FILMS)))


def check(ending: str, request: Request) -> None:
    """Raise UsageError for what this format is known not to hold: more frames a second than a GIF
    is shown at, a document longer than a JPEG has room for."""
    format = PILLOWS.get(ending.lower())
    if format == "GIF" and request.frames > 1 and (request.fps or 1) > _GIF_FPS:
        raise UsageError(
            f"a GIF shows {_GIF_FPS} frames a second at most, not {request.fps}; give `fps`"
            f" {_GIF_FPS}, or write an .mp4, .webm or .webp"
        )
    if format == "JPEG" and _length(request) > _LONGEST_OF_JPEG:
        raise UsageError(_NO_ROOM)


def _length(request: Request) -> int:
    """Of the document that a file will have, at most."""
    said = [request.prompt, request.negative_prompt, request.loras, request.extras]
    places = [request.image_path, request.preset.path, request.preset.weights]
    steps = len(str(request.steps)) + 2  # a number's letters, of which each may be computed
    return len(json.dumps(storable([said, places]))) + request.steps * steps + _REST


def frame_times(frames: int, fps: int, units: int) -> list[int]:
    """How long each is shown, in so many units a second, rounded so that none is off by more than
    half a unit at its beginning."""
    begins = [round(number * units / fps) for number in range(frames + 1)]
    return [after - before for before, after in pairwise(begins)]


def _milliseconds(frames: int, fps: int, format: str) -> list[int]:
    """How long each frame is shown in this format."""
    units = _UNITS[format]
    return [time * 1000 // units for time in frame_times(frames, fps, units)]


def pictures_shown(
    durations: list[int], format: str, frames: int, fps: int | None
) -> list[int] | None:
    """Which picture of a file is shown as each frame, as equal neighbours are written as one that
    lasts longer; None where they are not those of so many frames.

    durations: of each picture, in ms.
    """
    if len(durations) in (1, frames):  # of a single picture no time is kept
        return [number % len(durations) for number in range(frames)]
    if len(durations) > frames or fps is None or format not in _UNITS:
        return None
    *begins, end = accumulate(_milliseconds(frames, fps, format), initial=0)
    *shown, last = accumulate(durations, initial=0)
    return [bisect_right(shown, begin) - 1 for begin in begins] if last == end else None


def encode_with_pillow(
    path: Path, format: str, frames: Frames, metadata: dict[str, Any], fps: int | None
) -> None:
    """Write one picture, or a film of several.  # [F, H, W, 3]"""
    from PIL import Image

    text = json.dumps(storable(metadata))  # in ASCII, as EXIF has it
    options: dict[str, Any] = {}
    pictures = [Image.fromarray(frame) for frame in frames]
    if format == "GIF":
        options["comment"] = text.encode()
    else:
        if format == "JPEG" and len(text) > _LONGEST_OF_JPEG:
            raise SpectrumError(_NO_ROOM)
        exif = Image.Exif()
        exif[_DESCRIPTION] = text
        options |= {"exif": exif, "quality": _QUALITY[format]}
    if len(frames) > 1:
        options |= {"save_all": True, "append_images": pictures[1:], "loop": 0}
        options["duration"] = _milliseconds(len(frames), fps or 1, format)
    with path.open("wb") as file:
        pictures[0].save(file, format, **options)


def text_of(picture: Image, key: str) -> str | None:
    """The document in a picture of any of these formats, if there is one."""
    text = picture.info.get(key) if picture.format == "PNG" else picture.info.get("comment")
    if text is None and picture.format != "PNG":
        text = picture.getexif().get(_DESCRIPTION)
    if isinstance(text, bytes):
        text = text.decode("utf-8", "replace")
    return None if text is None else str(text)


def storable(value: Any, deepest: int = 32) -> Any:
    """What JSON can hold stays as it is; everything else is the word for it."""
    if isinstance(value, dict) and deepest:
        return {str(key): storable(part, deepest - 1) for key, part in value.items()}
    if isinstance(value, (list, tuple)) and deepest:
        return [storable(part, deepest - 1) for part in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if value is None or isinstance(value, int):
        return value
    return str(value).encode("utf-8", "replace").decode()  # half pairs have no encoding
