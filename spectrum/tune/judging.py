"""When something is better: PSNR prompt by prompt, as prompts differ by more than candidates do."""

from __future__ import annotations

from collections.abc import Sequence

from spectrum.compare.metrics import Spread, spread

_LEAST = 0.01  # dB: a gain that nobody can see is none, however sure it is


def gain_over(theirs: Sequence[float], ours: Sequence[float]) -> Spread:
    """The mean gain in dB, prompt by prompt, and its standard error."""
    return spread([a - b for a, b in zip(ours, theirs, strict=True)])


def is_gain(gain: Spread, errors: float = 1.0) -> bool:
    """Whether it exceeds so many standard errors (and a hundredth of a decibel)."""
    return gain.mean > max(errors * (gain.error or 0.0), _LEAST)


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def spread_text(gain: Spread, sign: str = "+") -> str:
    error = "" if gain.error is None else f" ± {gain.error:.2f}"
    return f"{gain.mean:{sign}.2f}{error} dB"
