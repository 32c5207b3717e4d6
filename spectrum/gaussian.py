"""What is taken for granted of the denoised sample's way, before any of it is computed.

Were a picture Gaussian, a mode of it with variance v would be decided as the noise ρ = σ/α passes
√v. Along the flow y = x/α goes as √(v + ρ²), and x₀ as v/√(v + ρ²). So x₀'s speed in λ = log(α/σ),
v ρ²/(v + ρ²)^1.5, is largest near ρ = √v and falls on both sides; and of an error that is in y at
noise ρ, √(v/(v + ρ²)) is left at the end: what is undecided contracts, what is decided stays.

The largest mode is spread over the whole picture, so its v grows with the number of latent
positions, and its √v, the scale S, with the root of that number: structure is decided at the higher
noise the larger the picture (`spectrum.timeline`). Below S there are modes of all sizes, so speed
falls more slowly there than a single mode's. Measured on FLUX, Wan, SD3 and U-Net classes: speed
goes with ρ^0.7 below S, and what is left of an error with S/(S + ρ), within a factor of 2 or 3 from
λ = −5 to 5. Above S both fall as 1/ρ, so an error that is made there counts as 1/ρ²: here, as
ρ^-0.5 in the speed and ρ^-1.5 in what is left. How x₀ moves at one λ tells how it moves within
about 1 of it. So its velocity dx₀/dλ is taken to be that speed times an Ornstein-Uhlenbeck
process in λ. One thing more: where the first step leaps from pure noise to a ρ below S, what was to
be decided on the way is decided after the leap, within about 0.3 of λ, measured on a U-Net. The
rest follows by Gaussian regression: forecasts and corrections are conditional means, and the steps
to compute are those that leave the least expected error at the end
(`spectrum.schedule.LeastError`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from spectrum.timeline import UNIT_SCALE, Timeline

Array = NDArray[np.float64]

# The first step's λ is −∞ where a flow begins with pure noise; this far before the second is enough
# for it to say little of what comes (1 to 4 measured alike).
_START = 2.0
_NOISE = 1e-4  # of a known change, in its variance: near steps of a smooth way tell much the same
_POINTS = 1000  # of the quadrature over λ, at least one a step

# Of models whose x₀ goes a smooth way, without guidance most often: see `spectrum.denoised`.
SMOOTH_LENGTH = 2.0


@dataclass(frozen=True)
class Prior:
    """How x₀ is expected to move.

    `length` is how far its velocity stays alike, in λ; `scale` is S. Its speed goes with
    (ρ/(S + ρ))^power · (S/(S + ρ))^fall, and (S/(S + ρ))^contracts is left at the end of an error.
    `settle` is how far in λ a leap of the first step goes on to be made good. `smooth` makes the
    velocity one without kinks (Matérn 3/2).
    """

    length: float = 1.0
    scale: float = UNIT_SCALE
    power: float = 0.7
    fall: float = 0.5
    contracts: float = 1.5
    settle: float = 0.3
    smooth: bool = False

    def covariance(self, levels: tuple[float, ...]) -> Array:
        """Covariance of x₀ − x₀(first step) at the steps of these noise levels.  # [N, N]

        Its scale is arbitrary: weights and schedules do not depend on it.
        """
        return _covariance(self, levels)

    def speed(self, rho: Array) -> Array:
        """‖dx₀/dλ‖ at noise ρ = σ/α, but for a factor."""
        found: Array = (rho / (self.scale + rho)) ** self.power
        return found * (self.scale / (self.scale + rho)) ** self.fall

    def settling(self, ratios: Array, at: Array) -> Array:
        """The speed that a leap of the first step adds at λ = `at`; `ratios` are the steps' λ."""
        leap = 1 - np.exp(ratios[0] - ratios[1])
        undecided = (self.scale / (self.scale + np.exp(-ratios[1]))) ** 0.5  # a share of variance
        found: Array = leap * undecided * np.exp(-np.maximum(at - ratios[1], 0) / self.settle)
        return found

    def remains(self, level: Array) -> Array:
        """What is left at the end of an error that is 1 in the sample x/(α + σ) at a noise level
        σ/(α + σ): 1/α of it is in y, and (S/(S + ρ))^contracts of that remains."""
        rho = level / (1 - level)
        left: Array = (self.scale / (self.scale + rho)) ** self.contracts / (1 - level)
        return left


# What forecasts count on: that x₀ slows down, but not that it speeds up towards S, nor that it
# settles. With the fall they are up to 0.8 dB worse.
STEADY = Prior(fall=0.0, settle=0.0)


def log_ratios(levels: tuple[float, ...]) -> Array:
    """λ = log(α/σ) at noise levels σ/(α + σ), rising from step to step.  # [N]"""
    level = np.clip(np.asarray(levels, dtype=np.float64), 1e-5, 1 - 1e-7)
    ratios = np.log((1 - level) / level)
    if len(ratios) > 1:
        ratios[0] = max(ratios[0], ratios[1] - _START)
    rising: Array = np.maximum.accumulate(ratios) + 1e-6 * np.arange(len(ratios))
    return rising


@lru_cache(maxsize=32)
def _covariance(prior: Prior, levels: tuple[float, ...]) -> Array:
    ratios = log_ratios(levels)
    count = len(ratios) - 1
    if not count:
        return np.zeros((1, 1))
    points = max(1, _POINTS // count)
    middles = (np.arange(points) + 0.5) / points
    gaps = np.diff(ratios)  # [N-1]
    at = (ratios[:-1, None] + gaps[:, None] * middles).ravel()  # [(N-1)·points]
    speed = prior.speed(np.exp(-at))
    if prior.settle:
        speed = np.hypot(speed, prior.settling(ratios, at))
    speed *= np.repeat(gaps, points) / points
    apart = np.abs(at[:, None] - at) / prior.length
    alike = (1 + 3**0.5 * apart) * np.exp(-(3**0.5) * apart) if prior.smooth else np.exp(-apart)
    moves = speed[:, None] * alike * speed
    moves = moves.reshape(count, points, count, points).sum((1, 3))  # of x₀, step by step
    sums = np.zeros((count + 1, count + 1))
    sums[1:, 1:] = moves.cumsum(0).cumsum(1)
    return sums


def conditional_mean(covariance: Array, known: Sequence[int], step: int) -> Array:
    """Weights on x₀ at the known steps, the newest last, for what is expected at `step`.  # [K]

    They sum to 1: it is x₀'s changes since the newest that are regressed.
    """
    c, a, before = covariance, known[-1], np.asarray(known[:-1], dtype=np.int64)
    moved = c[np.ix_(before, before)] - c[before, a, None] - c[a, before] + c[a, a]
    sought = c[step, before] - c[step, a] - c[a, before] + c[a, a]
    weights = np.linalg.solve(moved + _NOISE * np.diag(np.diag(moved)), sought)
    return np.append(weights, 1 - weights.sum())


def share(covariance: Array, known: tuple[int, int], sought: tuple[int, int]) -> float:
    """How much of x₀'s change between two known steps is expected between two others."""
    (p, a), (b, j) = known, sought
    c = covariance
    return float((c[j, a] - c[j, p] - c[b, a] + c[b, p]) / (c[a, a] - 2 * c[a, p] + c[p, p]))


def expected_miss(covariance: Array, steps: Sequence[int]) -> float:
    """Expected ‖forecast − x₀‖ at the last of two or three computed steps, from those before."""
    *before, p, b = steps
    c = covariance
    square = c[b, b] - 2 * c[b, p] + c[p, p]
    if before:
        a = before[-1]
        told = share(c, (a, p), (p, b)) ** 2 * (c[p, p] - 2 * c[p, a] + c[a, a])
        square = max(square - told, 1e-6 * square)
    return float(square**0.5)


def gap_errors(prior: Prior, levels: tuple[float, ...], a: int) -> Array:
    """Expected squared errors that gaps of forecasts leave, of those that begin at step a.

    The row is the computed step before a; the last row is for none, where x₀ is held. The column is
    the step at which the gap ends, a + 1 first; the last is the end of the run, where the sample is
    the last x₀. In between a forecast weighs as much as an exact solver moves the sample
    towards x₀ there: σ_b (α/σ at the step's end − at its beginning); and of the gap's error counts
    what remains of it at the end of the run.  # [a + 1, N - a]
    """
    c, count = prior.covariance(levels), len(levels)
    level = np.clip(np.asarray(levels[a:]), 1e-5, 1 - 1e-7)
    moves = np.diff((1 - level) / level)
    ends = np.arange(1, count - a)
    weights = np.zeros((count - a, count - a))  # of the forecasts, for each end
    weights[:-1, :-1] = level[ends, None] * moves * (np.arange(count - a - 1) < ends[:, None])
    weights[:-1] *= prior.remains(level[ends, None])
    weights[-1, -1] = 1.0
    moved = c[a:, a:] - c[a:, a, None] - c[a, a:] + c[a, a]  # covariance of x₀ − x₀(a)
    held = ((weights @ moved) * weights).sum(1)
    before = np.arange(a)
    told = c[a:, a] - c[a:, before].T - c[a, a] + c[a, before, None]  # with the last change
    size = c[a, a] - 2 * c[a, before] + c[before, before]
    errors = held - (told @ weights.T) ** 2 / np.maximum(size, 1e-12)[:, None]
    found: Array = np.maximum(np.vstack([errors, held]), 0.0)
    return found


@dataclass(frozen=True)
class Kriging:
    """Gaussian regression on the `newest` computed steps, by the prior of this module.

    Of two: the newest plus a share of the last change, which follows from the noise levels of the
    steps and fades as the forecast goes far beyond what the last gap can tell.
    """

    prior: Prior = STEADY
    newest: int = 2

    @property
    def keeps(self) -> int | None:
        return self.newest

    @property
    def smoother(self) -> Kriging:
        """For a model whose x₀ moves without kinks: three steps tell its velocity's change too."""
        prior = replace(self.prior, length=SMOOTH_LENGTH, smooth=True)
        return replace(self, prior=prior, newest=3)

    def weights(self, known: Sequence[int], step: int, timeline: Timeline) -> Array:
        weights, newest = np.zeros(len(known)), known[-self.newest :]
        weights[-len(newest) :] = conditional_mean(self._covariance(timeline), newest, step)
        return weights

    def between(self, a: int, b: int, step: int, timeline: Timeline) -> float:
        """The share of the change from computed step a to b that has come about at `step`."""
        return share(self._covariance(timeline), (a, b), (a, step))

    def _covariance(self, timeline: Timeline) -> Array:
        return replace(self.prior, scale=timeline.scale).covariance(timeline.levels)


@dataclass(frozen=True)
class Loop:
    """How forecasts of the denoised sample are checked and corrected: see `spectrum.closed_loop`.

    `trust` is the share of the forecast change that must have come true over the last gap for the
    next one to be forecast; at a smaller share the steps are too long for this model, and x₀ is
    held, as in sampling with fewer steps. `correct_above` is the share from which the last gap is
    corrected. `adapts` lets the smoother of two forecasts take over where it was the better one.
    """

    gaussian: Kriging = field(default_factory=Kriging)
    trust: float = -0.5
    correct_above: float = 0.4
    adapts: bool = True

    @property
    def keeps(self) -> int | None:
        """How many of the newest x₀ are stored, for the smoother forecast too."""
        return self.gaussian.smoother.keeps if self.adapts else self.gaussian.keeps
