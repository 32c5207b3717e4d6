"""What is asked of a model, checked against its preset before anything heavy is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spectrum.errors import UsageError
from spectrum.methods import (
    DEFAULT_METHOD,
    METHODS,
    HistoryPlace,
    Method,
    Target,
    get_method,
    tuned_method,
)
from spectrum.pipeline import bounds, checks, known
from spectrum.pipeline.inputs import ImageFile, Lora, parse_extras, parse_lora
from spectrum.pipeline.preset import Preset
from spectrum.pipeline.sampler import scheduler_name
from spectrum.plan import Plan
from spectrum.schedule import AdaptiveSchedule, ExplicitSchedule, Schedule
from spectrum.timeline import Timeline, adds_noise, unit_scale
from spectrum.words import counted

if TYPE_CHECKING:
    from PIL.Image import Image

# Relative errors of forecasts that are let pass.
QUALITIES = {"draft": 0.05, "good": 0.02, "high": 0.01}


@dataclass(frozen=True)
class Request:
    """One prompt with every value settled. Build it by `resolve`.

    Width, height and guidance are None where the pipeline's own default holds.
    """

    preset: Preset
    prompt: str
    negative_prompt: str | None
    width: int | None
    height: int | None
    frames: int
    fps: int | None  # None: an image
    steps: int
    guidance: float | None
    speedup: float
    method: Method
    schedule: Schedule | None = None  # instead of the method's, as tuned
    image: Image | ImageFile | None = None
    image_path: Path | None = None
    strength: float | None = None
    loras: tuple[Lora, ...] = ()
    scheduler: str | None = None
    extras: dict[str, Any] = field(default_factory=dict)
    history: HistoryPlace = "auto"  # where features are kept

    @property
    def pipeline(self) -> str:
        """The class: another one where the model's own takes no image."""
        if self.image is not None and self.preset.image == "none":
            assert self.preset.image_pipeline is not None
            return self.preset.image_pipeline
        return self.preset.pipeline

    @property
    def run_steps(self) -> int:
        """Steps that are run: image-to-image leaves out the first ones."""
        strength = self.strength
        if strength is None and self.image is not None:  # the pipeline's own
            taken = known.pipeline_parameters(self.pipeline) or {}
            strength = taken["strength"].default if "strength" in taken else None
        if not isinstance(strength, float):
            return self.steps
        return max(1, self.steps - int(max(self.steps - self.steps * strength, 0)))

    @property
    def plan(self) -> Plan:
        """As the run will plan it from its scheduler, as far as the preset tells."""
        return self.method.plan(self.timeline, self.speedup, self.schedule)

    @property
    def timeline(self) -> Timeline:
        """What the preset tells of the run."""
        return Timeline(
            self.preset.levels(self.steps)[-self.run_steps :],
            self.method.run_scale(self.positions),
            self.preset.handover(self.run_steps),
            adds_noise(scheduler_name(self.preset, self.scheduler)),
        )

    @property
    def positions(self) -> int:
        """Latent positions of one sample; 0 where the preset doesn't tell."""
        return self.preset.positions(self.width or 0, self.height or 0, self.frames)

    @property
    def branches(self) -> int:
        """Samples a step through the denoiser for one picture."""
        guidance = self.preset.guidance
        return guidance.branches if guidance and (self.guidance or 0) > 1 else 1

    def history_bytes(self, dtype: str) -> int:
        """What the stored features take; 0 where their size is unknown, and of the denoised
        sample, whose history is no more than about ten latents."""
        if self.method.target == "denoised":
            return 0
        kept = self.plan.features_kept(self.method.keeps)
        size = self.preset.feature_bytes(self.width or 0, self.height or 0, self.frames, dtype)
        return kept * size * self.branches

    def arguments(self) -> dict[str, Any]:
        """The keyword arguments of the pipeline's call, but for the generator; images as the
        files that they come from."""
        preset = self.preset
        arguments: dict[str, Any] = {
            **preset.call, "prompt": self.prompt, "num_inference_steps": self.steps,
        }  # fmt: skip
        if preset.guidance and self.guidance is not None:
            arguments[preset.guidance.argument] = self.guidance
        if preset.video:
            arguments[preset.video.frames_argument] = self.frames
        if preset.video and preset.video.fps_argument:
            arguments[preset.video.fps_argument] = self.fps
        optional = {
            "width": self.width,
            "height": self.height,
            "negative_prompt": self.negative_prompt,
            "image": self.image,
            "strength": self.strength,
        }
        given = {name: value for name, value in optional.items() if value is not None}
        return {**arguments, **given, **self.extras}


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
    target: Target | None = None,
    quality: str | None = None,
    image: Path | None = None,
    strength: float | None = None,
    loras: Sequence[str] = (),
    scheduler: str | None = None,
    extras: Sequence[str] = (),
    history: HistoryPlace | None = None,
    usual_speedup: float | None = None,
) -> Request:
    """Fill what is None from the preset. Raises UsageError for what the model can't take.

    usual_speedup: in the place of the preset's, where none is asked for.
    """
    checks.check_prompt(preset, prompt)
    checks.check_video(preset, frames, fps)
    scale = checks.guidance_scale(preset, guidance)
    checks.check_negative(preset, negative_prompt, scale)
    given = parse_extras(extras)
    checks.check_extras(preset, given)
    picture = checks.image_of(preset, image)
    checks.check_strength(strength, picture)
    wide, high = checks.sizes(preset, width, height, picture)
    request = Request(
        preset=preset,
        prompt=prompt.strip(),
        negative_prompt=preset.negative_prompt if negative_prompt is None else negative_prompt,
        width=wide,
        height=high,
        frames=checks.frame_count(preset, frames),
        fps=checks.count("fps", fps, preset.video.fps, bounds.FPS) if preset.video else None,
        steps=checks.step_count(preset, steps, given),
        guidance=scale,
        speedup=1.0,
        method=_method(preset, method, blend, target),
        image=checks.at_size(preset, picture, wide, high),
        image_path=image,
        strength=strength,
        loras=tuple(parse_lora(text) for text in loras),
        scheduler=scheduler,
        extras=given,
        history=history or "auto",
    )
    request = replace(request, speedup=_speedup(request, speedup, usual_speedup))
    _ = request.plan  # raises for a speedup that can't be had
    return _as_tuned(request) if quality is None else _adaptive(request, quality, speedup)


def _method(preset: Preset, name: str | None, blend: float | None, target: Target | None) -> Method:
    if name is None:  # the preset's, with its blend unless another is asked for
        name, blend = preset.cache.method, preset.cache.blend if blend is None else blend
    method = get_method(name, blend)
    scale = preset.cache.scale
    if scale is None and preset.predicts_noise is not None:
        scale = unit_scale(preset.predicts_noise)
    return replace(method, target=target or method.target, scale=scale)


def _speedup(request: Request, asked: float | None, usual: float | None) -> float:
    """The usual if none is asked for, or as much of it as a run of few steps allows."""
    preset, steps = request.preset, request.run_steps
    if preset.distilled:
        if asked is not None and asked != 1:
            raise UsageError(
                f"{preset.name} is made for {counted(preset.steps, 'step')}, so there is nothing"
                " to skip; leave `speedup`"
            )
        return 1.0
    if asked is not None:
        return asked
    largest = request.method.planner.largest_speedup(steps, preset.handover(steps))
    return min(usual or preset.cache.speedup, largest)


def _as_tuned(request: Request) -> Request:
    """With what calibration found for this many computed steps, if it looked at it."""
    usual = replace(METHODS[DEFAULT_METHOD], scale=request.method.scale)
    if request.method != usual or request.scheduler is not None:
        return request  # it was found with the model's own scheduler
    count = len(request.plan.computed_steps)
    for tuned in request.preset.cache.tuned:
        same = (tuned.num_steps, len(tuned.steps)) == (request.run_steps, count)
        if same and count < tuned.num_steps:
            method = replace(tuned_method(tuned.length, tuned.trust), scale=request.method.scale)
            return replace(request, method=method, schedule=ExplicitSchedule(tuple(tuned.steps)))
    return request


def _adaptive(request: Request, quality: str, speedup: float | None) -> Request:
    """With as few computed steps as the quality takes."""
    preset = request.preset
    if speedup is not None:
        raise UsageError("`quality` finds the speedup by itself; give it or `speedup`")
    if preset.distilled:
        raise UsageError(
            f"{preset.name} is made for {counted(preset.steps, 'step')}, so there is nothing to"
            " skip; leave `quality`"
        )
    return replace(request, schedule=AdaptiveSchedule(_tolerance(quality)))


def _tolerance(quality: str) -> float:
    """A level's tolerance, or the number itself: a relative error of forecasts."""
    if quality in QUALITIES:
        return QUALITIES[quality]
    try:
        tolerance = float(quality)
    except ValueError:
        tolerance = 0.0
    if not 0 < tolerance < 1:
        raise UsageError(
            f"`quality` is {', '.join(QUALITIES)} or an error between 0 and 1, not {quality!r}"
        )
    return tolerance


def unknown_words(preset: Preset, prompt: str) -> list[str]:
    """The prompt's words that the model has never seen (none where it knows any language)."""
    if not preset.vocabulary:
        return []
    words = prompt.lower().replace(",", " ").replace(".", " ").split()
    return [word for word in dict.fromkeys(words) if word not in preset.vocabulary]
