"""What a comparison sets against each other: methods, fewer steps, and diffusers' own caches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any, Literal, NamedTuple

from spectrum.compare.caches import (
    CACHES,
    CacheKind,
    NotForThisClass,
    cached,
    check_class,
    firstblock_threshold,
    taylorseer_config,
)
from spectrum.engine import Listener
from spectrum.errors import SpectrumError, UsageError
from spectrum.methods import METHODS
from spectrum.pipeline.generate import Generation, generate
from spectrum.pipeline.loading import set_scheduler
from spectrum.pipeline.request import Request
from spectrum.schedulers import stages_per_step

FEWER_STEPS = "fewer-steps"
DEFAULT_RIVALS = (*METHODS, "published:0.5", FEWER_STEPS, *CACHES)

Kind = Literal["method", "fewer-steps"] | CacheKind
_ORDER: tuple[Kind, ...] = ("method", "fewer-steps", *CACHES.values())  # the costly search last


class Made(NamedTuple):
    """One generation, and how many of its steps were computed (a mean over guidance branches)."""

    generation: Generation
    computed: float


@dataclass(frozen=True)
class Rival:
    """One way to generate. `request` is None where it can't be had, and `reason` says why.

    `config` is that of diffusers' cache, once it is found.
    """

    name: str
    kind: Kind
    request: Request | None
    config: Any = None
    reason: str | None = None

    @property
    def is_cache(self) -> bool:
        return self.kind in CACHES.values()


# -- which ---------------------------------------------------------------------------------------


def find_rivals(names: Sequence[str], ask: Callable[..., Request], speedup: float) -> list[Rival]:
    """The rivals of these names, all of them if there are none; fewer steps are always there.

    `ask` is `resolve` (`spectrum.pipeline.request`) with all arguments but the method, blend,
    speedup and scheduler. A name is NAME[:BLEND], fewer-steps[:SCHEDULER] or one of `CACHES`.
    Raises UsageError for one that is unknown, or that can't have this speedup; by default that one
    stays out, unless no method can.
    """
    rivals = []
    for name in dict.fromkeys(names or DEFAULT_RIVALS):
        try:
            rivals.append(_rival(name, ask, speedup))
        except UsageError as error:
            if names:
                raise
            rivals.append(Rival(name, "method", None, reason=str(error)))
            if all(rival.request is None for rival in rivals) and len(rivals) == len(METHODS):
                raise  # no method can
    if all(rival.name != FEWER_STEPS for rival in rivals):
        rivals.append(_rival(FEWER_STEPS, ask, speedup))
    return sorted(rivals, key=lambda rival: _ORDER.index(rival.kind))


def _rival(name: str, ask: Callable[..., Request], speedup: float) -> Rival:
    base, _, option = name.partition(":")
    known = [*METHODS, FEWER_STEPS, *CACHES]
    if base not in known:
        nearest = get_close_matches(base, known, n=1, cutoff=0)[0]
        raise UsageError(
            f"no method {name!r}; did you mean {nearest!r}? There are: {', '.join(known)}"
        )
    if base == FEWER_STEPS:
        return Rival(name, "fewer-steps", ask(speedup=1.0, scheduler=option or None))
    if base in CACHES:
        if option:
            raise UsageError(f"{base} takes no {option!r}; give `method` {base}")
        return Rival(name, CACHES[base], ask(speedup=1.0))
    return Rival(name, "method", ask(method=base, blend=_blend(name, option), speedup=speedup))


def _blend(name: str, option: str) -> float | None:
    try:
        return float(option) if option else None
    except ValueError:
        raise UsageError(
            f"{name}: what follows the colon is a blend between 0 and 1, such as published:0.5"
        ) from None


def check(pipe: Any, rivals: Sequence[Rival]) -> None:
    """Raise UsageError for a scheduler that this pipeline can't be given."""
    for rival in rivals:
        if rival.request is not None:
            with _scheduler(pipe, rival.request):
                pass


def why_left_out(rival: Rival, error: Exception) -> str:
    """In a line. Raises the error where it is none that leaves a rival out."""
    reason = " ".join(str(error).split()) or type(error).__name__
    if rival.is_cache and isinstance(error, (NotForThisClass, ValueError)):
        return f"not for this class: {reason}"
    if isinstance(error, SpectrumError):
        return reason
    if rival.is_cache or (rival.request and rival.request.scheduler):  # code of others
        return f"failed: {type(error).__name__}: {reason}"
    raise error


# -- running -------------------------------------------------------------------------------------


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
