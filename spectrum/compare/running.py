"""One run of a rival, whatever it is, and what has to be found before its first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple

from spectrum.compare.caches import (
    cached,
    check_class,
    firstblock_threshold,
    taylorseer_config,
)
from spectrum.compare.rivals import Rival
from spectrum.engine import Listener
from spectrum.pipeline.generate import Generation, generate
from spectrum.pipeline.request import Request
from spectrum.pipeline.sampler import set_scheduler
from spectrum.schedulers import stages_per_step


class Made(NamedTuple):
    """One generation, and how many of its steps were computed (a mean over guidance branches)."""

    generation: Generation
    computed: float


def check(pipe: Any, rivals: Sequence[Rival]) -> None:
    """Raise UsageError for a scheduler that this pipeline can't be given."""
    for rival in rivals:
        if rival.request is not None:
            with _scheduler(pipe, rival.request):
                pass


def prepared(
    pipe: Any, rival: Rival, prompt: str, seed: int, budget: int, on_step: Listener | None = None
) -> Rival:
    """With what needs the pipeline and the number of computed steps: steps, or a cache's config.

    Raises NotForThisClass, or what diffusers raises of a class that its cache does not know.
    """
    request = rival.request
    if request is None or rival.kind == "method":
        return rival
    if rival.kind == "fewer-steps":
        with _scheduler(pipe, request) as scheduler:
            calls = stages_per_step(scheduler)
        steps = max(1, budget * stages_per_step(pipe.scheduler) // calls)
        return replace(rival, request=replace(request, steps=steps))
    check_class(pipe, rival.kind)
    if rival.kind == "taylorseer":
        steps = request.run_steps
        return replace(
            rival, config=taylorseer_config(steps, request.preset.handover(steps), budget)
        )
    trial = replace(request, prompt=prompt)
    return replace(rival, config=_firstblock_config(pipe, trial, seed, budget, on_step))


def _firstblock_config(
    pipe: Any, request: Request, seed: int, budget: int, on_step: Listener | None
) -> Any:
    """Its threshold is found by running."""
    from diffusers import FirstBlockCacheConfig

    def computed(threshold: float) -> float:
        return _make_cached(pipe, FirstBlockCacheConfig(threshold), request, seed, on_step).computed

    return FirstBlockCacheConfig(firstblock_threshold(computed, budget))


def make(pipe: Any, rival: Rival, prompt: str, seed: int, on_step: Listener | None = None) -> Made:
    """Generate once, as a prepared rival does. The pipeline is left as it was."""
    assert rival.request is not None
    request = replace(rival.request, prompt=prompt)
    if rival.config is not None:
        return _make_cached(pipe, rival.config, request, seed, on_step)
    with _scheduler(pipe, request):
        made = generate(pipe, request, seed, on_step)
    return Made(made, len(made.report.computed_steps))


def _make_cached(
    pipe: Any, config: Any, request: Request, seed: int, on_step: Listener | None
) -> Made:
    """Generate under diffusers' cache; Spectrum computes every step and only keeps the time."""
    with cached(pipe, config) as calls:
        made = generate(pipe, request, seed, on_step)
    whole = sum(step.calls for step in made.report.steps)
    return Made(made, calls.count * made.report.num_steps / whole)


@contextmanager
def _scheduler(pipe: Any, request: Request) -> Iterator[Any]:
    """The pipeline's scheduler, or for a while the one that is asked for."""
    own = pipe.scheduler
    try:
        if request.scheduler is not None:
            set_scheduler(pipe, request.preset, request.scheduler)
        yield pipe.scheduler
    finally:
        pipe.scheduler = own
