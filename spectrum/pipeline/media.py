"""Pictures and films to disk, whole or not at all, with what it takes to make them again."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spectrum.errors import SpectrumError, UsageError

Frames = NDArray[np.uint8]  # [F, H, W, 3]
Pixels = NDArray[np.float32]  # the same in [0, 1], before they are rounded

# Where the JSON document is kept: a PNG text chunk, and (the only tag that survives) the comment.
PNG_KEY = "spectrum"


def to_uint8(pictures: NDArray[np.floating[Any]]) -> Frames:
    """From [0, 1] to [0, 255], rounded.  # any shape"""
    frames: Frames = (np.clip(pictures, 0.0, 1.0) * 255.0).round().astype(np.uint8)
    return frames


def write_png(path: Path, picture: Frames, metadata: dict[str, Any]) -> None:
    """Write one picture.  # [H, W, 3]"""
    from imageio.v3 import imwrite
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_itxt(PNG_KEY, json.dumps(metadata, ensure_ascii=False))
    with whole(path) as partial:
        imwrite(partial, picture, extension=".png", pnginfo=info)


def write_frames(folder: Path, frames: Frames, metadata: dict[str, Any]) -> None:
    """Write numbered PNGs into a new folder; one there before must hold nothing but such.

    frames: # [F, H, W, 3]
    """
    if folder.exists() and any(not _is_frame(entry) for entry in folder.iterdir()):
        raise SpectrumError(f"{folder} holds other files than frames, so it is not replaced")
    partial = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    try:
        partial.mkdir()
        for number, frame in enumerate(frames):
            write_png(partial / f"{number:04d}.png", frame, {**metadata, "frame": number})
        if folder.exists():
            shutil.rmtree(folder)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def write_mp4(path: Path, frames: Frames, fps: int, metadata: dict[str, Any]) -> None:
    """Write h264 in yuv420p with bt709 colours, at the very size of the frames (which is even).

    frames: # [F, H, W, 3]
    """
    from imageio_ffmpeg import get_ffmpeg_exe

    height, width = frames.shape[1:3]
    comment = json.dumps(metadata, ensure_ascii=False)
    source = f"-f rawvideo -pix_fmt rgb24 -video_size {width}x{height} -framerate {fps} -i -"
    # The tags alone would not do: ffmpeg converts RGB by bt601 unless told.
    convert = "scale=in_range=full:out_range=tv:out_color_matrix=bt709"
    encode = "-c:v libx264 -crf 12 -pix_fmt yuv420p -movflags +faststart -f mp4"
    tags = "-colorspace bt709 -color_primaries bt709 -color_trc bt709 -color_range tv"
    with whole(path) as partial:
        command = [
            get_ffmpeg_exe(), *["-v", "error", "-nostdin", "-y"], *source.split(), "-vf", convert,
            *encode.split(), *tags.split(), "-metadata", f"comment={comment}", str(partial),
        ]  # fmt: skip
        result = subprocess.run(command, input=frames.tobytes(), capture_output=True, check=False)
        if result.returncode:
            reason = result.stderr.decode("utf-8", "replace").strip().splitlines()
            raise SpectrumError(f"{path}: ffmpeg could not write it: {' '.join(reason[:1])}")


def read_metadata(path: Path) -> dict[str, Any]:
    """The document that was written with a file. Raises UsageError where there is none."""
    if not path.is_file():
        raise UsageError(f"{path}: no such file; give a PNG or MP4 that spectrum wrote")
    text = _png_text(path) if path.suffix.lower() == ".png" else _mp4_comment(path)
    try:
        metadata = json.loads(text or "")
    except ValueError:
        metadata = None
    if not isinstance(metadata, dict) or "schema" not in metadata:
        raise UsageError(f"{path}: spectrum did not write this file, or its metadata was removed")
    return metadata


def _is_frame(path: Path) -> bool:
    return re.fullmatch(r"\d{4,}\.png", path.name) is not None


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A temporary path in the same folder, renamed at the end and removed after any failure."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _png_text(path: Path) -> str | None:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as picture:
            text = picture.info.get(PNG_KEY)
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise UsageError(f"{path}: not a picture: {error}") from error
    return None if text is None else str(text)


def _mp4_comment(path: Path) -> str | None:
    from imageio_ffmpeg import get_ffmpeg_exe

    command = [get_ffmpeg_exe(), "-v", "error", "-nostdin", "-i", str(path)]
    result = subprocess.run([*command, "-f", "ffmetadata", "-"], capture_output=True, check=False)
    # In ffmetadata, = ; # \ and line ends stand behind a backslash.
    found = re.search(
        r"^comment=((?:[^\\\n]|\\.)*)", result.stdout.decode("utf-8", "replace"), re.M | re.S
    )
    return re.sub(r"\\(.)", r"\1", found[1], flags=re.S) if found else None
