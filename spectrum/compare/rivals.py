"""What a comparison sets against each other: methods, fewer steps, and diffusers' own caches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Literal

from spectrum.compare.caches import CACHES, CacheKind, NotForThisClass
from spectrum.errors import SpectrumError, UsageError
from spectrum.methods import METHODS
from spectrum.pipeline.request import Request

FEWER_STEPS = "fewer-steps"
DEFAULT_RIVALS = (*METHODS, "published:0.5", FEWER_STEPS, *CACHES)

Kind = Literal["method", "fewer-steps"] | CacheKind
_ORDER: tuple[Kind, ...] = ("method", "fewer-steps", *CACHES.values())  # the costly search last


@dataclass(frozen=True)
class Case:
    """A prompt and the seed of its noise, which all that is compared starts from."""

    prompt: str
    seed: int


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
