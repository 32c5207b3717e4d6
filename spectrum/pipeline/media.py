"""Pictures and films to disk, whole or not at all, with what it takes to make them again."""

from __future__ import annotations

import json
import re
import subprocess
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from spectrum.errors import SpectrumError, UsageError
from spectrum.pipeline.files import sync, write
from spectrum.pipeline.folders import write_folder
from spectrum.pipeline.foreign import parse_json
from spectrum.pipeline.formats import (
    FFMPEGS,
    PILLOWS,
    encode_with_pillow,
    pictures_shown,
    storable,
    text_of,
)
from spectrum.pipeline.formats import Frames as Frames
from spectrum.pipeline.sound import Audio, write_wave

if TYPE_CHECKING:
    from PIL.Image import Image

Pixels = NDArray[np.float32]  # the same in [0, 1], before they are rounded

# Where the JSON document is kept: a PNG text chunk, and (the only tag that survives) the comment.
PNG_KEY = "spectrum"
_CODECS = {
    "mp4": "-c:v libx264 -crf 12 -c:a aac -movflags +faststart",
    "webm": "-c:v libvpx-vp9 -crf 18 -b:v 0 -row-mt 1 -c:a libopus",
}
_LONGEST = 2**22  # characters of it


def to_uint8(pictures: NDArray[np.floating[Any]]) -> Frames:
    """From [0, 1] to [0, 255], rounded.  # any shape"""
    frames: Frames = (np.clip(pictures, 0.0, 1.0) * 255.0).round().astype(np.uint8)
    return frames


def opaque(pictures: Pixels) -> Pixels:
    """Of pictures with transparency (Qwen-Image 2.1), what is seen in front of white; others as
    they are.  # [..., 3 or 4] to [..., 3], in [0, 1]"""
    if pictures.shape[-1] != 4:
        return pictures
    colours, alpha = pictures[..., :3], pictures[..., 3:]
    return colours * alpha + (1 - alpha)


def side_by_side(frames: Pixels) -> Pixels:
    """The pictures that a model of single ones made at once (Qwen-Image-Layered) as one.
    # [F, H, W, 3] to [1, H, F·W, 3]"""
    return np.concatenate(list(frames), axis=1)[None]


def write_png(path: Path, picture: Frames, metadata: dict[str, Any], replace: bool = False) -> Path:
    """Write one picture; where it is now: see `files.write`.  # [H, W, 3]"""
    return write(path, lambda partial: encode_png(partial, picture, metadata), replace)


def encode_png(path: Path, picture: Frames, metadata: dict[str, Any]) -> None:
    """The same straight into a file, whatever its name ends in."""
    from imageio.v3 import imwrite
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_itxt(PNG_KEY, _as_text(metadata))
    # In memory first: where the disk is full, imageio's own file would print a traceback.
    path.write_bytes(imwrite("<bytes>", picture, extension=".png", pnginfo=info))


def write_frames(
    folder: Path, frames: Frames, metadata: dict[str, Any], replace: bool = False
) -> Path:
    """Write numbered PNGs into a new folder; where it is now: see `folders.write_folder`.

    frames: # [F, H, W, 3]
    """

    def make(partial: Path) -> None:
        for number, frame in enumerate(frames):
            path = partial / f"{number:04d}.png"
            encode_png(path, frame, {**metadata, "frame": number})
            sync(path)

    return write_folder(folder, make, replace)


def write_mp4(
    path: Path,
    frames: Frames,
    fps: int,
    metadata: dict[str, Any],
    audio: Audio | None = None,
    sample_rate: int | None = None,
    replace: bool = False,
) -> Path:
    """Write h264 in yuv420p with bt709 colours, at the very size of the frames (which is even), and
    the sound, as far as the frames last, in AAC; where it is now: see `files.write`.

    frames: # [F, H, W, 3], audio: # [samples, channels]
    """

    def make(partial: Path) -> None:
        encode_mp4(partial, frames, fps, metadata, audio, sample_rate)

    return write(path, make, replace)


def encode_mp4(
    path: Path,
    frames: Frames,
    fps: int,
    metadata: dict[str, Any],
    audio: Audio | None = None,
    sample_rate: int | None = None,
    kind: str = "mp4",
) -> None:
    """The same straight into a file, whatever its name ends in; as WebM, VP9 with Opus."""
    from imageio_ffmpeg import get_ffmpeg_exe

    height, width = frames.shape[1:3]
    source = f"-f rawvideo -pix_fmt rgb24 -video_size {width}x{height} -framerate {fps} -i -"
    # The tags alone would not do: ffmpeg converts RGB by bt601 unless told.
    convert = "scale=in_range=full:out_range=tv:out_color_matrix=bt709"
    encode = f"{_CODECS[kind]} -pix_fmt yuv420p -map_metadata 1 -f {kind}"
    tags = "-colorspace bt709 -color_primaries bt709 -color_trc bt709 -color_range tv"
    with TemporaryDirectory() as scratch:
        comment = Path(scratch, "comment")  # an argument holds 128 kB at most
        comment.write_text(f";FFMETADATA1\ncomment={_escaped(_as_text(metadata))}\n", "utf-8")
        more = ["-f", "ffmetadata", "-i", f"file:{comment}"]
        if audio is not None and sample_rate is not None:
            heard = audio[: round(len(frames) / fps * sample_rate)]
            sound = Path(scratch, "sound.wav")
            write_wave(sound, heard, sample_rate)
            more += ["-i", f"file:{sound}"]
            encode += " -b:a 192k"
        command = [
            get_ffmpeg_exe(), *["-v", "error", "-nostdin", "-y"], *source.split(), *more,
            "-vf", convert, *encode.split(), *tags.split(), f"file:{path}",
        ]  # fmt: skip
        result = subprocess.run(command, input=frames.tobytes(), capture_output=True, check=False)
    if result.returncode:
        reason = result.stderr.decode("utf-8", "replace").strip().splitlines()
        raise SpectrumError(f"ffmpeg could not write it: {' '.join(reason[:1])}")


def encode(
    path: Path,
    ending: str,
    frames: Frames,
    metadata: dict[str, Any],
    fps: int | None = None,
    audio: Audio | None = None,
    sample_rate: int | None = None,
) -> None:
    """Write a picture or a film in the format that has this ending: see `formats`.

    frames: # [F, H, W, 3], audio: # [samples, channels], which only MP4 and WebM hold
    """
    if ending in FFMPEGS:
        assert fps is not None  # a film's request has it
        encode_mp4(path, frames, fps, metadata, audio, sample_rate, FFMPEGS[ending])
    elif ending == ".png":
        encode_png(path, frames[0], metadata)
    else:
        encode_with_pillow(path, PILLOWS[ending], frames, metadata, fps)


def read_metadata(path: Path) -> dict[str, Any]:
    """The document that was written with a file, as it stands there: `document.check` says whether
    it is sound. Raises UsageError where there is none."""
    if not path.is_file():
        raise UsageError(f"{path}: no such file; give a file that spectrum wrote")
    text = _picture_text(path) if path.suffix.lower() in PILLOWS else _film_comment(path)
    if len(text or "") > _LONGEST:
        raise UsageError(f"{path}: its metadata is too large for anything that spectrum wrote")
    try:
        metadata = parse_json(text or "")
    except ValueError:
        metadata = None
    if not isinstance(metadata, dict) or "schema" not in metadata:
        raise UsageError(f"{path}: spectrum did not write this file, or its metadata was removed")
    return metadata


def read_frames(path: Path, shape: tuple[int, int, int], fps: int | None = None) -> Frames | None:
    """The pictures of a file, decoded; None if they have not that shape.  # [F, H, W, 3]

    shape: F, H and W, as the file's document has them: no more than that is ever read.
    fps: of a film that may be a GIF or WebP, which hold equal frames as one that lasts longer.
    """
    count, height, width = shape
    if path.suffix.lower() in PILLOWS:
        with _opened(path) as picture:
            pictures = getattr(picture, "n_frames", 1)
            if pictures > count or (picture.height, picture.width) != (height, width):
                return None
            found, durations = [], []
            for frame in _frames_of(picture):
                found.append(np.asarray(frame.convert("RGB")))
                durations.append(int(frame.info.get("duration", 0)))
        shown = pictures_shown(durations, PILLOWS[path.suffix.lower()], count, fps)
        return None if shown is None else np.stack([found[number] for number in shown])
    size = count * height * width * 3
    raw = _ffmpeg(path, *f"-frames:v {count + 1} -f rawvideo -pix_fmt rgb24".split(), limit=size)
    return np.frombuffer(raw, np.uint8).reshape(*shape, 3) if len(raw) == size else None


def _as_text(metadata: dict[str, Any]) -> str:
    """In JSON, whatever is in it: a picture is not lost for what is said of it."""
    try:
        text = json.dumps(metadata, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        text = json.dumps(storable(metadata), ensure_ascii=False)
    return text.encode("utf-8", "replace").decode()


def _escaped(text: str) -> str:
    """As ffmetadata has it: = ; # \\ and line ends stand behind a backslash."""
    return re.sub(r"[=;#\\\n]", r"\\\g<0>", text)


@contextmanager
def _opened(path: Path) -> Iterator[Image]:
    """A picture, or some. Raises UsageError, also in the block, for what can't be read of it."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path, formats=[PILLOWS[path.suffix.lower()]]) as picture:
                yield picture
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UsageError(f"{path}: not a picture: {error}") from error


def _frames_of(picture: Image) -> Iterator[Image]:
    from PIL import ImageSequence

    return iter(ImageSequence.Iterator(picture))


def _picture_text(path: Path) -> str | None:
    with _opened(path) as picture:
        return text_of(picture, PNG_KEY)


def _ffmpeg(path: Path, *what: str, limit: int) -> bytes:
    """What ffmpeg makes of a film, and of nothing that is none or that it points to: one byte more
    than the limit at most."""
    from imageio_ffmpeg import get_ffmpeg_exe

    alone = ["-protocol_whitelist", "file,pipe", "-f", FFMPEGS.get(path.suffix.lower(), "mp4")]
    command = [get_ffmpeg_exe(), *["-v", "error", "-nostdin"], *alone]
    command += ["-i", f"file:{path}", *what, "-"]
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None
        raw = process.stdout.read(limit + 1)
        process.kill()
    return raw


def _film_comment(path: Path) -> str | None:
    text = _ffmpeg(path, "-f", "ffmetadata", limit=4 * _LONGEST).decode("utf-8", "replace")
    found = re.search(r"^(?:comment|COMMENT)=((?:[^\\\n]|\\.)*)", text, re.M | re.S)
    return re.sub(r"\\(.)", r"\1", found[1], flags=re.S) if found else None
