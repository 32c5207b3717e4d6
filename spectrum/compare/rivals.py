"""What a comparison sets against each other: methods, fewer steps, and diffusers' own caches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any, Literal, NamedTuple

from torch import nn

from spectrum.denoiser import find_denoisers
from spectrum.engine import Listener
from spectrum.errors import SpectrumError, UsageError
from spectrum.methods import METHODS
from spectrum.pipeline.generate import Generation, generate
from spectrum.pipeline.loading import set_scheduler
from spectrum.pipeline.request import Request
from spectrum.schedulers import stages_per_step

Kind = Literal["method", "fewer-steps", "taylorseer", "firstblock"]

FEWER_STEPS = "fewer-steps"
CACHES: dict[str, Kind] = {
    "diffusers-taylorseer": "taylorseer",
    "diffusers-firstblock": "firstblock",
}
DEFAULT_RIVALS = (*METHODS, "published:0.5", FEWER_STEPS, *CACHES)

# Runs that look for the threshold of diffusers' first-block cache, and between which thresholds.
SEARCH_RUNS = 6
_THRESHOLDS = (1e-3, 1.0)

# Where diffusers' caches look for blocks.
_BLOCK_LISTS = (
    "blocks", "transformer_blocks", "single_transformer_blocks", "visual_transformer_blocks",
    "temporal_transformer_blocks", "layers",
)  # fmt: skip


class NotForThisClass(SpectrumError):
    """diffusers' cache does not take this class of denoiser."""


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
    order: tuple[Kind, ...] = ("method", "fewer-steps", "taylorseer", "firstblock")
    return sorted(rivals, key=lambda rival: order.index(rival.kind))


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
            raise UsageError(f"{base} takes no {option!r}; give --method {base}")
        return Rival(name, CACHES[base], ask(speedup=1.0))
    try:
        blend = float(option) if option else None
    except ValueError:
        raise UsageError(
            f"{name}: what follows the colon is a blend between 0 and 1, such as published:0.5"
        ) from None
    return Rival(name, "method", ask(method=base, blend=blend, speedup=speedup))


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
    _check_class(pipe, rival.kind)
    if rival.kind == "taylorseer":
        return replace(rival, config=_taylorseer(request, budget))
    trial = replace(request, prompt=prompt)
    return replace(rival, config=_firstblock(pipe, trial, seed, budget, on_step))


def make(pipe: Any, rival: Rival, prompt: str, seed: int, on_step: Listener | None = None) -> Made:
    """Generate once, as a prepared rival does. The pipeline is left as it was."""
    assert rival.request is not None
    request = replace(rival.request, prompt=prompt)
    if rival.config is not None:
        return _make_cached(pipe, rival.config, request, seed, on_step)
    with _scheduler(pipe, request):
        made = generate(pipe, request, seed, on_step)
    return Made(made, len(made.report.computed_steps))


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


# -- diffusers' caches ---------------------------------------------------------------------------


def _taylorseer(request: Request, budget: int) -> Any:
    """The interval and the warm-up that compute `budget` steps, or as few more as can be.

    In "lite" mode, where blocks are skipped and the head's output is extrapolated: a step that is
    not computed takes next to no time, as one of ours. (The other mode extrapolates what attention
    puts out and computes all else in every step.) In float32, to its advantage.
    """
    import torch
    from diffusers import TaylorSeerCacheConfig

    steps, handover = request.run_steps, request.preset.handover(request.run_steps)
    parts = [part for part in (handover, steps - handover) if part]
    found: list[tuple[int, int, int, int]] = []
    for interval in range(2, steps + 1):
        for warmup in range(1, budget + 1):
            excess = sum(_taylorseer_steps(n, interval, warmup) for n in parts) - budget
            if excess >= 0:
                found.append((excess, abs(warmup - 3), interval, warmup))  # 3: its default
    if not found:
        raise NotForThisClass(f"no interval computes {budget} of {steps} steps")
    _, _, interval, warmup = min(found)
    return TaylorSeerCacheConfig(
        cache_interval=interval, disable_cache_before_step=warmup, max_order=1,
        taylor_factors_dtype=torch.float32, use_lite_mode=True,
    )  # fmt: skip


def _taylorseer_steps(num_steps: int, interval: int, warmup: int) -> int:
    """How many steps it computes, by its own rule."""
    return sum(s < warmup or (s - warmup - 1) % interval == 0 for s in range(num_steps))


def _firstblock(
    pipe: Any, request: Request, seed: int, budget: int, on_step: Listener | None
) -> Any:
    """The threshold that computes fewest steps, but not below `budget`, by bisection of its log."""
    from diffusers import FirstBlockCacheConfig

    low, high = _THRESHOLDS
    for _ in range(SEARCH_RUNS):
        middle = (low * high) ** 0.5
        made = _make_cached(pipe, FirstBlockCacheConfig(middle), request, seed, on_step)
        if made.computed >= budget:
            low = middle
        else:
            high = middle
        if made.computed == budget:
            break
    return FirstBlockCacheConfig(low)


def _make_cached(
    pipe: Any, config: Any, request: Request, seed: int, on_step: Listener | None
) -> Made:
    """Generate under diffusers' cache; Spectrum computes every step and only keeps the time."""
    with _cached(pipe, config) as calls:
        made = generate(pipe, request, seed, on_step)
    whole = sum(step.calls for step in made.report.steps)
    return Made(made, calls.count * made.report.num_steps / whole)


@dataclass
class _Calls:
    count: int = 0


@contextmanager
def _cached(pipe: Any, config: Any) -> Iterator[_Calls]:
    """The cache in every denoiser; counts how often their last blocks are really computed."""
    calls = _Calls()
    with ExitStack() as stack:
        for denoiser in find_denoisers(pipe).values():
            stack.enter_context(_counted(_last_block(denoiser), calls))
            stack.enter_context(_enabled(denoiser, config))
        yield calls


@contextmanager
def _enabled(denoiser: Any, config: Any) -> Iterator[None]:
    try:
        denoiser.enable_cache(config)
        denoiser._cache_config = None  # or SpectralCache would refuse to keep the time
        yield
    finally:
        denoiser._cache_config = config  # for the hooks of one that failed half-way, too
        denoiser.disable_cache()


@contextmanager
def _counted(block: Any, calls: _Calls) -> Iterator[None]:
    """Below the cache's own hooks, which replace `forward` and skip what they replaced."""
    forward, was_there = block.forward, "forward" in vars(block)

    def counting(*args: Any, **kwargs: Any) -> Any:
        calls.count += 1
        return forward(*args, **kwargs)

    block.forward = counting
    try:
        yield
    finally:
        if was_there:
            block.forward = forward
        else:
            del block.forward


def _check_class(pipe: Any, kind: Kind) -> None:
    from diffusers import CacheMixin

    for denoiser in find_denoisers(pipe).values():
        name = type(denoiser).__name__
        if not isinstance(denoiser, CacheMixin):
            raise NotForThisClass(f"{name} takes none of diffusers' caches")
        # The head that the "lite" mode looks for: without it, zeros would be decoded.
        if kind == "taylorseer" and not isinstance(getattr(denoiser, "proj_out", None), nn.Module):
            raise NotForThisClass(f"{name} has no head of the name that TaylorSeer looks for")
        _last_block(denoiser)


def _last_block(denoiser: nn.Module) -> nn.Module:
    lists = [
        child
        for name, child in denoiser.named_children()
        if isinstance(child, nn.ModuleList) and name in _BLOCK_LISTS and len(child)
    ]
    if not lists:
        raise NotForThisClass(f"{type(denoiser).__name__} has no list of blocks")
    return lists[-1][-1]
