"""What Spectrum finds in a pipeline: its denoisers, their blocks and heads, and what it stores."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch

from spectrum.engine import SpectralCache
from spectrum.pipeline.generate import call_arguments
from spectrum.pipeline.request import Request
from spectrum.report import Report, Step
from spectrum.schedule import ExplicitSchedule
from spectrum.schedulers import is_stochastic, stages_per_step


@dataclass(frozen=True)
class Found:
    """One denoiser, as seen in the first step of a run."""

    name: str
    kind: str  # its class
    blocks: dict[str, int]  # by list, how many
    heads: list[str]
    parameters: int


@dataclass(frozen=True)
class Inspection:
    """Everything that one computed step shows."""

    pipeline: str
    scheduler: str
    stages_per_step: int
    stochastic: bool
    denoisers: list[Found]
    calls: int  # of denoisers, in the step
    feature_bytes: int  # stored for each computed step, all branches together
    steps: int


class _Seen(Exception):
    """The first step has ended; nothing after it is needed."""


def inspect_pipeline(pipe: Any, request: Request, seed: int = 0) -> Inspection:
    """Compute one step of the request and tell what was seen.

    Raises UsageError for a denoiser that can't be carried, with the reason.
    """

    def stop(_report: Report, step: Step | None) -> None:
        if step is not None:
            raise _Seen

    arguments = call_arguments(type(pipe), request)
    cache = SpectralCache(pipe, schedule=ExplicitSchedule((0,)), target="feature", on_step=stop)
    denoisers = cache.denoisers
    with suppress(_Seen), cache:
        pipe(
            **arguments,
            generator=torch.Generator().manual_seed(seed),
            output_type="np",
            return_dict=False,
        )
    found = [
        Found(
            name,
            type(denoisers[name]).__name__,
            {part: _count(denoisers[name], part) for part in anatomy.blocks},
            list(anatomy.heads),
            sum(p.numel() for p in denoisers[name].parameters()),
        )
        for name, anatomy in cache.anatomies.items()
    ]
    return Inspection(
        type(pipe).__name__,
        type(pipe.scheduler).__name__,
        stages_per_step(pipe.scheduler),
        is_stochastic(pipe.scheduler),
        found,
        cache.report.steps[0].calls,
        cache.report.stored_bytes,
        cache.report.num_steps,
    )


def _count(denoiser: torch.nn.Module, part: str) -> int:
    module = getattr(denoiser, part)
    return len(module) if isinstance(module, torch.nn.ModuleList) else 1
