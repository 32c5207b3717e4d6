"""Which jobs can be sampled in one call of their pipeline, and stay what they are alone."""

from __future__ import annotations

from collections.abc import Iterable

from spectrum.batch.jobs import Job
from spectrum.pipeline.inputs import ImageFile
from spectrum.schedule import AdaptiveSchedule

# Pipelines that keep the samples of a call apart, also where their prompts differ in length:
# tests/test_matrix.py looks at each. Some let a prompt see what fills up its neighbour's.
APART = frozenset(
    {
        "AnimateDiffPipeline",
        "AuraFlowPipeline",
        "ChromaPipeline",
        "CogVideoXPipeline",
        "CogView4Pipeline",
        "Flux2KleinPipeline",
        "Flux2Pipeline",
        "FluxPipeline",
        "HiDreamImagePipeline",
        "HunyuanVideoPipeline",
        "LTX2Pipeline",
        "LTXPipeline",
        "Lumina2Pipeline",
        "MochiPipeline",
        "PixArtSigmaPipeline",
        "QwenImagePipeline",
        "SanaPipeline",
        "SkyReelsV2Pipeline",
        "StableDiffusion3Pipeline",
        "StableDiffusionPipeline",
        "StableDiffusionXLPipeline",
        "WanPipeline",
        "ZImagePipeline",
    }
)


def why_alone(job: Job) -> str | None:
    """Why a job can share a call with no other; None if it can."""
    request = job.request
    extras = request.extras.values()
    if request.image is not None or any(isinstance(value, ImageFile) for value in extras):
        return "they have an image"
    if isinstance(request.schedule, AdaptiveSchedule):
        return "`quality` finds the steps of each"
    if request.pipeline not in APART:
        return f"{request.pipeline} is not known to keep the samples of a call apart"
    return None


def shape_of(job: Job) -> tuple[object, ...]:
    """What jobs that share a call agree in: all but prompts and seed."""
    request = job.request
    sizes = (request.width, request.height, request.frames, request.fps, request.steps)
    settings = (request.guidance, request.speedup, request.strength, repr(request.extras))
    method = (repr(request.method), repr(request.schedule), request.negative_prompt is None)
    return (*job.model, *sizes, *settings, *method)


def calls(jobs: Iterable[Job], size: int) -> list[list[Job]]:
    """The same jobs, at most so many that can share a call together; in the order in which the
    first of their kind come."""
    alike: dict[tuple[object, ...], list[Job]] = {}
    for job in jobs:
        key = (job.id,) if size == 1 or why_alone(job) else shape_of(job)
        alike.setdefault(key, []).append(job)
    return [group[k : k + size] for group in alike.values() for k in range(0, len(group), size)]
