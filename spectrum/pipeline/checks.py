"""Single values of a request, against what its preset takes. Each raises UsageError for a wrong one
and returns the preset's own where none is given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import isfinite
from pathlib import Path
from typing import Any

from spectrum.errors import UsageError
from spectrum.pipeline import bounds
from spectrum.pipeline.inputs import ImageFile, like, look_at
from spectrum.pipeline.preset import Preset
from spectrum.words import counted

STEP_LISTS = ("sigmas", "timesteps")  # arguments of pipelines that name their steps


def check_text(name: str, text: str) -> None:
    """Halves of surrogate pairs are what a shell's bytes become that are not UTF-8."""
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        raise UsageError(f"`{name}` is not text in UTF-8; convert it first")


def check_prompt(preset: Preset, prompt: str) -> None:
    """Something has to be asked for."""
    check_text("prompt", prompt)
    if not prompt.strip():
        raise UsageError(f'the prompt is empty; try "{preset.example}"')


def check_video(preset: Preset, frames: int | None, fps: int | None) -> None:
    """Neither is for a model of images."""
    if preset.video is None and (frames is not None or fps is not None):
        option = "frames" if frames is not None else "fps"
        raise UsageError(f"{preset.name} makes images, so `{option}` means nothing to it; leave it")


def count(name: str, value: int | None, default: int, most: int) -> int:
    """1 or more, up to `most`."""
    if value is not None and not 1 <= value <= most:
        raise UsageError(f"`{name}` is from 1 to {most:,}, not {value}")
    return default if value is None else value


def step_count(preset: Preset, value: int | None, extras: Mapping[str, Any]) -> int:
    """As many as there are noise levels or timesteps among the extras, where they are named."""
    for key in STEP_LISTS:
        if isinstance(named := extras.get(key), list):
            if value not in (None, len(named)):
                raise UsageError(
                    f"`extras` {key} names {counted(len(named), 'step')}, so leave `steps`"
                )
            value = len(named)
    return count("steps", value, preset.steps, bounds.STEPS)


def guidance_scale(preset: Preset, guidance: float | None) -> float | None:
    """None: the model takes none."""
    if preset.guidance is None:
        if guidance is not None:
            raise UsageError(f"{preset.name} takes no guidance; leave `guidance`")
        return None
    scale = preset.guidance.scale if guidance is None else guidance
    if not 0 <= scale <= bounds.GUIDANCE:
        raise UsageError(
            f"`guidance` is 0 or more, and at most {bounds.GUIDANCE:,g}, not {scale:g}"
        )
    return scale


def check_negative(preset: Preset, prompt: str | None, guidance: float | None) -> None:
    """A negative prompt does nothing without guidance."""
    if prompt is None:
        return
    check_text("negative_prompt", prompt)
    if preset.negative_prompt is None:
        raise UsageError(f"{preset.name} takes no negative prompt; leave `negative_prompt`")
    if guidance is not None and guidance <= 1:
        raise UsageError(
            f"`negative_prompt` needs `guidance` above 1 (it is {guidance:g}); try `guidance` 3"
        )


def check_extras(preset: Preset, extras: Mapping[str, Any]) -> None:
    """None of them is what another value is given by, nor a number that is none."""
    ours = {}
    if preset.guidance:
        ours[preset.guidance.argument] = "guidance"
    if preset.video and preset.video.fps_argument:
        ours[preset.video.fps_argument] = "fps"
    for key, value in extras.items():
        if key in ours:
            raise UsageError(f"`extras` {key}: use `{ours[key]}` for it")
        if not _finite(value):
            raise UsageError(f"`extras` {key}: not a finite number")


def _finite(value: Any) -> bool:
    if isinstance(value, list):
        return all(map(_finite, value))
    return not isinstance(value, float) or isfinite(value)


def image_of(preset: Preset, path: Path | None) -> ImageFile | None:
    """The picture, as it is in its file."""
    if path is None:
        return None
    if preset.image == "none" and preset.image_pipeline is None:
        raise UsageError(f"{preset.name} takes no image; leave `image`")
    return look_at(path)


def check_strength(strength: float | None, picture: ImageFile | None) -> None:
    """A share of the way from the image to noise."""
    if strength is None:
        return
    if picture is None:
        raise UsageError("`strength` says how far to leave an image; give one as `image`")
    if not 0 < strength <= 1:
        raise UsageError(f"`strength` is above 0 and at most 1, not {strength:g}")


def sizes(
    preset: Preset, width: int | None, height: int | None, picture: ImageFile | None
) -> tuple[int | None, int | None]:
    """Width and height; those of the image's proportions if only that is given."""
    if preset.size is None:
        for name, side in (("width", width), ("height", height)):
            count(name, side, 1, bounds.SIDE)
        return width, height
    usual = (preset.size.width, preset.size.height)
    if picture is not None and width is None and height is None:
        usual = like(picture, *usual, preset.size.multiple)
    multiple = preset.size.multiple
    return (
        _size(preset.name, "width", width, usual[0], multiple),
        _size(preset.name, "height", height, usual[1], multiple),
    )


def _size(model: str, name: str, value: int | None, default: int, multiple: int) -> int:
    value = default if value is None else value
    if value > bounds.SIDE:
        count(name, value, default, bounds.SIDE)  # raises
    if value < multiple or value % multiple:
        raise UsageError(
            f"{model} takes a {name} in multiples of {multiple}, not {value};"
            f" the nearest: {_nearest(value, multiple, multiple)}"
        )
    return value


def frame_count(preset: Preset, value: int | None) -> int:
    """1 for an image."""
    if preset.video is None:
        return 1
    every = preset.video.every
    value = count("frames", value, preset.video.frames, bounds.FRAMES)
    if (value - 1) % every:
        raise UsageError(
            f"{preset.name} takes {every}·k + 1 frames, not {value};"
            f" the nearest: {_nearest(value - 1, every, 0, plus=1)}"
        )
    return value


def at_size(
    preset: Preset, picture: ImageFile | None, width: int | None, height: int | None
) -> ImageFile | None:
    """The picture in the size that is made, unless the model looks at it in its own."""
    if picture is None or not width or not height or _edits(preset):
        return picture
    return replace(picture, size=(width, height))


def _edits(preset: Preset) -> bool:
    """Whether the image is looked at by the model, at its own size, and not started from."""
    return preset.media == "image" and preset.image != "none"


def _nearest(value: int, multiple: int, least: int, plus: int = 0) -> str:
    below = max(least, value // multiple * multiple)
    candidates = [below] if below >= value else [below, below + multiple]
    return " and ".join(str(candidate + plus) for candidate in candidates)
