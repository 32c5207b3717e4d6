"""Pictures and films to disk, whole or not at all, with what it takes to make them again."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from spectrum.errors import SpectrumError, UsageError
from spectrum.pipeline.sound import Audio, wave_file

if TYPE_CHECKING:
    from PIL.Image import Image

Frames = NDArray[np.uint8]  # [F, H, W, 3]
Pixels = NDArray[np.float32]  # the same in [0, 1], before they are rounded

# Where the JSON document is kept: a PNG text chunk, and (the only tag that survives) the comment.
PNG_KEY = "spectrum"
_LONGEST = 2**22  # characters of it


def to_uint8(pictures: NDArray[np.floating[Any]]) -> Frames:
    """From [0, 1] to [0, 255], rounded.  # any shape"""
    frames: Frames = (np.clip(pictures, 0.0, 1.0) * 255.0).round().astype(np.uint8)
    return frames


def write_png(path: Path, picture: Frames, metadata: dict[str, Any]) -> None:
    """Write one picture.  # [H, W, 3]"""
    with whole(path) as partial:
        encode_png(partial, picture, metadata)


def encode_png(path: Path, picture: Frames, metadata: dict[str, Any]) -> None:
    """The same straight into a file, whatever its name ends in."""
    from imageio.v3 import imwrite
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_itxt(PNG_KEY, json.dumps(metadata, ensure_ascii=False))
    imwrite(path, picture, extension=".png", pnginfo=info)


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


def write_mp4(
    path: Path,
    frames: Frames,
    fps: int,
    metadata: dict[str, Any],
    audio: Audio | None = None,
    sample_rate: int | None = None,
) -> None:
    """Write h264 in yuv420p with bt709 colours, at the very size of the frames (which is even), and
    the sound, as far as the frames last, in AAC.

    frames: # [F, H, W, 3], audio: # [samples, channels]
    """
    with whole(path) as partial:
        encode_mp4(partial, frames, fps, metadata, audio, sample_rate)


def encode_mp4(
    path: Path,
    frames: Frames,
    fps: int,
    metadata: dict[str, Any],
    audio: Audio | None = None,
    sample_rate: int | None = None,
) -> None:
    """The same straight into a file, whatever its name ends in."""
    from imageio_ffmpeg import get_ffmpeg_exe

    height, width = frames.shape[1:3]
    comment = json.dumps(metadata, ensure_ascii=False)
    source = f"-f rawvideo -pix_fmt rgb24 -video_size {width}x{height} -framerate {fps} -i -"
    # The tags alone would not do: ffmpeg converts RGB by bt601 unless told.
    convert = "scale=in_range=full:out_range=tv:out_color_matrix=bt709"
    encode = "-c:v libx264 -crf 12 -pix_fmt yuv420p -movflags +faststart -f mp4"
    tags = "-colorspace bt709 -color_primaries bt709 -color_trc bt709 -color_range tv"
    with ExitStack() as stack:
        sound: list[str] = []
        if audio is not None and sample_rate is not None:
            heard = audio[: round(len(frames) / fps * sample_rate)]
            sound = ["-i", str(stack.enter_context(wave_file(heard, sample_rate)))]
            encode += " -c:a aac -b:a 192k"
        command = [
            get_ffmpeg_exe(), *["-v", "error", "-nostdin", "-y"], *source.split(), *sound,
            "-vf", convert, *encode.split(), *tags.split(), "-metadata", f"comment={comment}",
            str(path),
        ]  # fmt: skip
        result = subprocess.run(command, input=frames.tobytes(), capture_output=True, check=False)
    if result.returncode:
        reason = result.stderr.decode("utf-8", "replace").strip().splitlines()
        raise SpectrumError(f"ffmpeg could not write it: {' '.join(reason[:1])}")


def read_metadata(path: Path) -> dict[str, Any]:
    """The document that was written with a file, as it stands there: `document.check` says whether
    it is sound. Raises UsageError where there is none."""
    if not path.is_file():
        raise UsageError(f"{path}: no such file; give a PNG or MP4 that spectrum wrote")
    text = _png_text(path) if path.suffix.lower() == ".png" else _mp4_comment(path)
    if len(text or "") > _LONGEST:
        raise UsageError(f"{path}: its metadata is too large for anything that spectrum wrote")
    try:
        metadata = json.loads(text or "")
    except (ValueError, RecursionError):
        metadata = None
    if not isinstance(metadata, dict) or "schema" not in metadata:
        raise UsageError(f"{path}: spectrum did not write this file, or its metadata was removed")
    return metadata


def read_frames(path: Path, shape: tuple[int, int, int]) -> Frames | None:
    """The pictures of a PNG or MP4, decoded; None if they have not that shape.  # [F, H, W, 3]

    shape: F, H and W, as the file's document has them: no more than that is ever read.
    """
    count, height, width = shape
    if path.suffix.lower() == ".png":
        with _opened(path) as picture:
            if picture.size != (width, height):
                return None
            return np.asarray(picture.convert("RGB"))[None]
    size = count * height * width * 3
    raw = _ffmpeg(path, *f"-frames:v {count + 1} -f rawvideo -pix_fmt rgb24".split(), limit=size)
    return np.frombuffer(raw, np.uint8).reshape(*shape, 3) if len(raw) == size else None


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


@contextmanager
def _opened(path: Path) -> Iterator[Image]:
    """A PNG. Raises UsageError, also in the block, for what can't be read of it."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path, formats=["PNG"]) as picture:
                yield picture
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UsageError(f"{path}: not a picture: {error}") from error


def _png_text(path: Path) -> str | None:
    with _opened(path) as picture:
        text = picture.info.get(PNG_KEY)
    return None if text is None else str(text)


def _ffmpeg(path: Path, *what: str, limit: int) -> bytes:
    """What ffmpeg makes of an MP4, and of nothing that is none or that it points to: one byte more
    than the limit at most."""
    from imageio_ffmpeg import get_ffmpeg_exe

    alone = ["-protocol_whitelist", "file,pipe", "-f", "mp4"]
    command = [get_ffmpeg_exe(), *["-v", "error", "-nostdin"], *alone]
    command += ["-i", f"file:{path}", *what, "-"]
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None
        raw = process.stdout.read(limit + 1)
        process.kill()
    return raw


def _mp4_comment(path: Path) -> str | None:
    text = _ffmpeg(path, "-f", "ffmetadata", limit=4 * _LONGEST).decode("utf-8", "replace")
    # In ffmetadata, = ; # \ and line ends stand behind a backslash.
    found = re.search(r"^comment=((?:[^\\\n]|\\.)*)", text, re.M | re.S)
    return re.sub(r"\\(.)", r"\1", found[1], flags=re.S) if found else None
