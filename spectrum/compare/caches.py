"""diffusers' own caches: what suits them to a number of computed steps, and running under them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from spectrum.errors import SpectrumError

if TYPE_CHECKING:
    from torch import nn

CacheKind = Literal["taylorseer", "firstblock"]

CACHES: dict[str, CacheKind] = {
    "diffusers-taylorseer": "taylorseer",
    "diffusers-firstblock": "firstblock",
}

# Runs that look for the threshold of the first-block cache, and between which thresholds.
_SEARCH_RUNS = 6
_THRESHOLDS = (1e-3, 1.0)

# Where the caches look for blocks.
_BLOCK_LISTS = (
    "blocks", "transformer_blocks", "single_transformer_blocks", "visual_transformer_blocks",
    "temporal_transformer_blocks", "layers",
)  # fmt: skip


class NotForThisClass(SpectrumError):
    """diffusers' cache does not take this class of denoiser."""


@dataclass
class Calls:
    """How often the last blocks of a pipeline's denoisers were computed."""

    count: int = 0


def check_class(pipe: Any, kind: CacheKind) -> None:
    """Raise NotForThisClass where a denoiser is none that this cache takes."""
    from diffusers import CacheMixin
    from torch import nn

    from spectrum.denoiser import find_denoisers

    for denoiser in find_denoisers(pipe).values():
        name = type(denoiser).__name__
        if not isinstance(denoiser, CacheMixin):
            raise NotForThisClass(f"{name} takes none of diffusers' caches")
        # The head that the "lite" mode looks for: without it, zeros would be decoded.
        if kind == "taylorseer" and not isinstance(getattr(denoiser, "proj_out", None), nn.Module):
            raise NotForThisClass(f"{name} has no head of the name that TaylorSeer looks for")
        _last_block(denoiser)


# -- what to give them ---------------------------------------------------------------------------


def taylorseer_config(num_steps: int, handover: int, budget: int) -> Any:
    """The interval and the warm-up that compute `budget` steps, or as few more as can be.

    The second of two denoisers begins at step `handover`; 0 where there is one. Raises
    NotForThisClass where no interval computes so many.

    In "lite" mode, where blocks are skipped and the head's output is extrapolated: a step that is
    not computed takes next to no time, as one of ours. (The other mode extrapolates what attention
    puts out and computes all else in every step.) In float32, to its advantage.
    """
    import torch
    from diffusers import TaylorSeerCacheConfig

    parts = [part for part in (handover, num_steps - handover) if part]
    found: list[tuple[int, int, int, int]] = []
    for interval in range(2, num_steps + 1):
        for warmup in range(1, budget + 1):
            excess = sum(taylorseer_steps(part, interval, warmup) for part in parts) - budget
            if excess >= 0:
                found.append((excess, abs(warmup - 3), interval, warmup))  # 3: its default
    if not found:
        raise NotForThisClass(f"no interval computes {budget} of {num_steps} steps")
    _, _, interval, warmup = min(found)
    return TaylorSeerCacheConfig(
        cache_interval=interval, disable_cache_before_step=warmup, max_order=1,
        taylor_factors_dtype=torch.float32, use_lite_mode=True,
    )  # fmt: skip


def taylorseer_steps(num_steps: int, interval: int, warmup: int) -> int:
    """How many steps it computes, by its own rule."""
    return sum(s < warmup or (s - warmup - 1) % interval == 0 for s in range(num_steps))


def firstblock_threshold(computed: Callable[[float], float], budget: int) -> float:
    """The threshold that computes fewest steps, but not below `budget`, by bisection of its log.

    `computed` runs once with a threshold, and returns how many steps were computed.
    """
    low, high = _THRESHOLDS
    for _ in range(_SEARCH_RUNS):
        middle = (low * high) ** 0.5
        count = computed(middle)
        if count >= budget:
            low = middle
        else:
            high = middle
        if count == budget:
            break
    return low


# -- running under them --------------------------------------------------------------------------


@contextmanager
def cached(pipe: Any, config: Any) -> Iterator[Calls]:
    """The cache in every denoiser; counts how often their last blocks are really computed."""
    from spectrum.denoiser import find_denoisers

    calls = Calls()
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
def _counted(block: Any, calls: Calls) -> Iterator[None]:
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


def _last_block(denoiser: nn.Module) -> nn.Module:
    from torch import nn

    lists = [
        child
        for name, child in denoiser.named_children()
        if isinstance(child, nn.ModuleList) and name in _BLOCK_LISTS and len(child)
    ]
    if not lists:
        raise NotForThisClass(f"{type(denoiser).__name__} has no list of blocks")
    return lists[-1][-1]
