"""What is asked of a model, checked against its preset before anything heavy is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from spectrum.errors import UsageError
from spectrum.methods import Method, get_method
from spectrum.preset import Preset
from spectrum.schedule import Plan


@dataclass(frozen=True)
class Request:
    """One prompt with every value settled. Build it by `resolve`."""

    preset: Preset
    prompt: str
    negative_prompt: str | None
    width: int
    height: int
    frames: int
    fps: int | None  # None: an image
    steps: int
    guidance: float
    speedup: float
    method: Method

    @property
    def plan(self) -> Plan:
        return self.method.planner.plan(self.steps, self.speedup)

    @property
    def branches(self) -> int:
        """Calls of the denoiser a step."""
        return self.preset.guidance.branches if self.guidance > 1 else 1

    def arguments(self) -> dict[str, Any]:
        """The keyword arguments of the pipeline's call, but for the generator."""
        arguments = {
            **self.preset.call,
            "prompt": self.prompt,
            "width": self.width,
            "height": self.height,
            "num_inference_steps": self.steps,
            self.preset.guidance.argument: self.guidance,
        }
        if self.negative_prompt is not None:
            arguments["negative_prompt"] = self.negative_prompt
        if self.preset.media == "video":
            arguments["num_frames"] = self.frames
        return arguments


def resolve(
    preset: Preset,
    prompt: str,
    *,
    negative_prompt: str | None = None,
    width: int | None = None,
    height: int | None = None,
    frames: int | None = None,
    fps: int | None = None,
    steps: int | None = None,
    guidance: float | None = None,
    speedup: float | None = None,
    method: str | None = None,
    blend: float | None = None,
) -> Request:
    """Fill what is None from the preset. Raises UsageError for what the model can't take."""
    if not prompt.strip():
        raise UsageError(f'the prompt is empty; try "{preset.example}"')
    if preset.video is None and (frames is not None or fps is not None):
        option = "--frames" if frames is not None else "--fps"
        raise UsageError(f"{preset.name} makes images, so {option} means nothing to it; leave it")
    scale = preset.guidance.scale if guidance is None else guidance
    if not 0 <= scale < float("inf"):
        raise UsageError(f"--guidance is 0 or more, not {scale:g}")
    if negative_prompt is not None:
        _check_negative(preset, scale)
    num_steps = _positive("steps", steps, preset.steps)
    if method is None:  # the preset's, with its blend unless another is asked for
        method, blend = preset.cache.method, preset.cache.blend if blend is None else blend
    chosen = get_method(method, blend)
    if speedup is None:  # the preset's, or as much of it as a run of few steps allows
        speedup = min(preset.cache.speedup, chosen.planner.largest_speedup(num_steps))
    request = Request(
        preset=preset,
        prompt=prompt.strip(),
        negative_prompt=preset.negative_prompt if negative_prompt is None else negative_prompt,
        width=_size(preset, "width", width, preset.size.width),
        height=_size(preset, "height", height, preset.size.height),
        frames=_frames(preset, frames),
        fps=_positive("fps", fps, preset.video.fps) if preset.video else None,
        steps=num_steps,
        guidance=scale,
        speedup=speedup,
        method=chosen,
    )
    _ = request.plan  # raises for a speedup that can't be had
    return request


def unknown_words(preset: Preset, prompt: str) -> list[str]:
    """The prompt's words that the model has never seen (none where it knows any language)."""
    if not preset.vocabulary:
        return []
    words = prompt.lower().replace(",", " ").replace(".", " ").split()
    return [word for word in dict.fromkeys(words) if word not in preset.vocabulary]


def _check_negative(preset: Preset, guidance: float) -> None:
    if preset.negative_prompt is None:
        raise UsageError(f"{preset.name} takes no negative prompt; leave --negative-prompt")
    if guidance <= 1:
        raise UsageError(
            f"a negative prompt needs --guidance above 1 (it is {guidance:g}); try --guidance 3"
        )


def _positive(name: str, value: int | None, default: int) -> int:
    if value is not None and value < 1:
        raise UsageError(f"--{name} is 1 or more, not {value}")
    return default if value is None else value


def _size(preset: Preset, name: str, value: int | None, default: int) -> int:
    multiple = preset.size.multiple
    value = default if value is None else value
    if value < multiple or value % multiple:
        raise UsageError(
            f"{preset.name} takes a {name} in multiples of {multiple}, not {value};"
            f" the nearest: {_nearest(value, multiple, multiple)}"
        )
    return value


def _frames(preset: Preset, value: int | None) -> int:
    if preset.video is None:
        return 1
    every = preset.video.every
    value = preset.video.frames if value is None else value
    if value < 1 or (value - 1) % every:
        raise UsageError(
            f"{preset.name} takes {every}·k + 1 frames, not {value};"
            f" the nearest: {_nearest(value - 1, every, 0, plus=1)}"
        )
    return value


def _nearest(value: int, multiple: int, least: int, plus: int = 0) -> str:
    below = max(least, value // multiple * multiple)
    candidates = [below] if below >= value else [below, below + multiple]
    return " and ".join(str(candidate + plus) for candidate in candidates)
