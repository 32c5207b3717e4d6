"""What a user adds to a prompt: an image, LoRAs, and further arguments of the pipeline."""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spectrum.errors import UsageError
from spectrum.pipeline.foreign import read_yaml

if TYPE_CHECKING:
    from PIL.Image import Image

# Arguments of pipelines that are ours under another name, or the same.
ARGUMENTS = {
    "prompt": "prompt",
    "negative_prompt": "negative_prompt",
    "width": "width",
    "height": "height",
    "num_frames": "frames",
    "frames": "frames",
    "video_length": "frames",
    "num_inference_steps": "steps",
    "image": "image",
    "strength": "strength",
    "generator": "seed",
    "num_images_per_prompt": "num_images",
    "num_videos_per_prompt": "num_images",
    "output_type": "output",
}
_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
_ORIENTATION = 0x0112  # a tag of EXIF; from 5 on the sides are exchanged
_OURS = ("return_dict", "latents", "callback", "callback_on_step_end", "callback_steps")


@dataclass(frozen=True)
class Lora:
    """A low-rank adaptation: a file, a folder or an id on the hub, and how much of it."""

    source: str
    scale: float = 1.0

    def __str__(self) -> str:
        return f"{self.source}:{self.scale!r}".removesuffix(".0")


def parse_lora(text: str) -> Lora:
    """`PATH_OR_ID[:SCALE]`. Raises UsageError for a file that isn't there or can't be a LoRA."""
    source, colon, scale = text.rpartition(":")
    lora = Lora(text)
    if colon:
        try:
            lora = Lora(source, float(scale))
        except ValueError:
            lora = Lora(text)  # a colon of the path
    if not isfinite(lora.scale):
        raise UsageError(f"`loras` {text}: a scale is a finite number, such as 0.8")
    path = Path(lora.source)
    if os.path.isfile(path) and path.suffix != ".safetensors":
        raise UsageError(f"`loras` {path}: only .safetensors is read, as other files can run code")
    looks_local = path.suffix or path.is_absolute() or lora.source.count("/") != 1
    if not os.path.exists(path) and looks_local:
        raise UsageError(f"`loras` {lora.source}: no such file, and not an id such as org/name")
    return lora


@dataclass(frozen=True)
class ImageFile:
    """A picture that is looked at when a request is made, and read when it is run: a batch of
    many holds none of them. Of another size than the file's, it is scaled and cropped to it."""

    path: Path
    size: tuple[int, int]  # width, height

    def __str__(self) -> str:
        return str(self.path)

    def read(self) -> Image:
        """Upright, as RGB. Raises UsageError for a file that can't be read."""
        with _opened(self.path) as opened:
            from PIL import ImageOps

            opened.load()
            picture = ImageOps.exif_transpose(opened).convert("RGB")
        return picture if picture.size == self.size else fitted(picture, *self.size)


def look_at(path: Path) -> ImageFile:
    """The upright size, from the file's head. Raises UsageError for what is no picture."""
    with _opened(path) as opened:
        wide, high = opened.size
        # A PNG's would read all of it, unless the head has told already.
        told = opened.format != "PNG" or "exif" in opened.info
        turned = told and opened.getexif().get(_ORIENTATION, 1) >= 5
    return ImageFile(path, (high, wide) if turned else (wide, high))


@contextmanager
def _opened(path: Path) -> Iterator[Image]:
    from PIL import Image, UnidentifiedImageError

    if re.match(r"\w+:/", str(path)):
        raise UsageError(f"{path.name}: no address is fetched; download it, and give the file")
    if os.path.exists(path) and not os.path.isfile(path):
        raise UsageError(f"{path}: not a regular file")
    try:
        with Image.open(path, formats=_FORMATS) as opened:
            yield opened
    except FileNotFoundError as error:
        raise UsageError(f"{path}: no such file") from error
    except UnidentifiedImageError as error:
        raise UsageError(f"{path}: not an image; {', '.join(_FORMATS)} are read") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"{path}: the image can't be read: {reason}") from error


def fitted(image: Image, width: int, height: int) -> Image:
    """Scaled to cover the size and cropped about the middle, so that nothing is stretched."""
    from PIL import Image, ImageOps

    return ImageOps.fit(image, (width, height), Image.Resampling.LANCZOS)


def like(image: Image | ImageFile, width: int, height: int, multiple: int) -> tuple[int, int]:
    """Width and height of about the same area as given, in the image's proportions."""
    ratio = (image.size[0] / image.size[1]) ** 0.5
    area = (width * height) ** 0.5
    wide, high = (max(multiple, round(side / multiple) * multiple) for side in
                  (area * ratio, area / ratio))  # fmt: skip
    return wide, high


def parse_extras(texts: Sequence[str]) -> dict[str, Any]:
    """`key=value` pairs, values as in YAML. Raises UsageError for what isn't one, or has a flag."""
    extras: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key.isidentifier():
            raise UsageError(f"`extras` {text}: not of the form key=value")
        if key in ARGUMENTS:
            raise UsageError(f"`extras` {key}: use `{ARGUMENTS[key]}` for it")
        if key in _OURS:
            raise UsageError(f"`extras` {key}: set by Spectrum itself; leave it")
        extras[key] = read_yaml(value, f"`extras` {text}")
        if isinstance(extras[key], str):
            extras[key] = _number_or_image(key, extras[key])
    return extras


def _number_or_image(key: str, value: str) -> Any:
    try:
        return float(value)  # YAML takes 1e-1 for a string
    except ValueError:
        return look_at(Path(value)) if "image" in key else value


def check_arguments(
    pipeline: str, taken: dict[str, inspect.Parameter], given: Collection[str], model: str
) -> None:
    """Raise UsageError for an argument that the pipeline's call doesn't take, or lacks."""
    for name in given:
        if name in taken:
            continue
        if name in ARGUMENTS:
            raise UsageError(f"{model} ({pipeline}) takes no `{ARGUMENTS[name]}`; leave it")
        nearest = get_close_matches(name, taken, n=1, cutoff=0.5)
        guess = f"; did you mean {nearest[0]}?" if nearest else ""
        raise UsageError(f"{model} ({pipeline}) takes no argument {name!r}{guess}")
    for name, parameter in taken.items():
        required = parameter.default is parameter.empty and parameter.kind != parameter.VAR_KEYWORD
        if required and name not in given:
            raise UsageError(f"{model} ({pipeline}) needs `extras` {name}=VALUE")
