"""Which solver steps are computed.

Steps are numbered from 0. Step 0 is always computed, as a forecast needs something to start from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from math import floor
from typing import Protocol, runtime_checkable

import numpy as np

from spectrum.errors import UsageError
from spectrum.gaussian import Prior, expected_miss, gap_errors
from spectrum.timeline import Timeline

LONG = 120  # steps; the planning of longer runs is simplified


@runtime_checkable
class Schedule(Protocol):
    """What chooses the computed steps of a run."""

    def computed_steps(self, timeline: Timeline) -> list[int]:
        """The computed steps of a run, ascending, 0 among them."""


@runtime_checkable
class Adaptive(Schedule, Protocol):
    """A schedule most of whose steps are found on the way; `computed_steps` are those that are
    computed whatever is measured."""

    def next_step(self, computed: Sequence[int], error: float | None, timeline: Timeline) -> int:
        """The next computed step, after those; `error` was measured at the last of them."""


def _with_last(steps: Sequence[int], num_steps: int, protect_last: int) -> list[int]:
    return sorted({*steps, *range(max(0, num_steps - protect_last), num_steps)})


@dataclass(frozen=True)
class WindowSchedule:
    """The published family (arXiv 2603.01623): a warm-up, then windows that grow by α.

    The first `warmup` steps are computed; after them every ⌊window⌋-th, where the window grows by
    `alpha` with each computed step. `protect_last` computes that many steps at the end besides
    (0 as published): nothing corrects an error that a forecast makes there.
    """

    warmup: int = 5
    window: float = 2
    alpha: float = 0.75
    protect_last: int = 0

    def computed_steps(self, timeline: Timeline) -> list[int]:
        num_steps = timeline.num_steps
        computed = list(range(min(max(1, self.warmup), num_steps)))
        window, forecasts = float(self.window), 0
        for step in range(len(computed), num_steps):
            if (forecasts + 1) % floor(window) == 0:
                computed.append(step)
                window, forecasts = round(window + self.alpha, 3), 0
            else:
                forecasts += 1
        return _with_last(computed, num_steps, self.protect_last)


@dataclass(frozen=True)
class EvenSchedule:
    """`count` computed steps: the first `warmup`, the last `protect_last`, the rest evenly between.

    Raises UsageError where `count` is less than the warm-up and the protected end.
    """

    count: int
    warmup: int = 1
    protect_last: int = 1

    def computed_steps(self, timeline: Timeline) -> list[int]:
        num_steps = timeline.num_steps
        if self.count >= num_steps:
            return list(range(num_steps))
        warmup = max(1, self.warmup)
        between = self.count - warmup - self.protect_last
        if between < 0:
            raise UsageError(
                f"too few computed steps: {self.count}, for {warmup} at the start"
                f" and {self.protect_last} at the end"
            )
        first, end = warmup - 1, num_steps - self.protect_last
        gap = (end - first) / (between + 1)
        inner = [first + round(gap * k) for k in range(1, between + 1)]
        return _with_last([*range(warmup), *inner], num_steps, self.protect_last)


@dataclass(frozen=True)
class LeastError:
    """The `count` computed steps that leave the least expected error, by dynamic programming.

    What is expected of x₀ at the run's noise levels is the prior's to say, at the timeline's scale
    if none is given. The errors of all gaps of forecasts are added up, as far as they are left at
    the end. That makes for short gaps at the end, where a step moves the sample far towards x₀, and
    at the start, where x₀ is undecided, and for long ones between. Where the run goes on with
    another denoiser, the step after these is a computed one.
    """

    count: int
    prior: Prior | None = None

    def computed_steps(self, timeline: Timeline) -> list[int]:
        num_steps = timeline.num_steps
        if self.count >= num_steps:
            return list(range(num_steps))
        if num_steps > LONG:
            return self._stretched(timeline)
        prior = self.prior or Prior(scale=timeline.scale)
        return list(_least_error(self.count, timeline.levels, num_steps, prior))

    def _stretched(self, timeline: Timeline) -> list[int]:
        """For a long run: as for a shorter one of the same levels, stretched."""
        num_steps = timeline.num_steps
        some = [round(n) for n in np.linspace(0, num_steps - 1, LONG)]
        fewer = replace(self, count=min(self.count, LONG // 2))
        levels = tuple(timeline.levels[n] for n in some)
        short = replace(timeline, levels=levels, goes_on=False)
        at = [some[n] for n in fewer.computed_steps(short)]
        steps = np.interp(np.linspace(0, 1, self.count), np.linspace(0, 1, len(at)), at)
        return _apart([round(step) for step in steps], num_steps)


@lru_cache(maxsize=64)
def _least_error(
    count: int, levels: tuple[float, ...], num_steps: int, prior: Prior
) -> tuple[int, ...]:
    end = num_steps
    # Of the gap from step a to b, with p computed before a; p = num_steps for none.  # [a, b, p]
    errors = np.full((num_steps, num_steps + 1, num_steps + 1), np.inf)
    for a in range(num_steps):
        found = gap_errors(prior, levels, a).T[: num_steps - a]
        errors[a, a + 1 :, :a], errors[a, a + 1 :, -1] = found[:, :-1], found[:, -1]
    sums = np.full((num_steps, num_steps + 1), np.inf)  # the least error up to a, after p  # [a, p]
    sums[0, -1] = 0.0
    befores = []
    for _ in range(count):
        totals = sums[:, None] + errors
        befores.append(totals.argmin(-1))  # [a, b]
        least = np.take_along_axis(totals, befores[-1][..., None], -1)[..., 0]
        sums = np.hstack([least[:, :-1].T, np.full((num_steps, 1), np.inf)])
    steps = [int(least[:, end].argmin())]
    for before in reversed(befores[1:]):
        steps.append(int(before[steps[-1], end]))
        end = steps[-2]
    return tuple(reversed(steps))


def _apart(steps: list[int], num_steps: int) -> list[int]:
    """The steps moved so that none comes twice."""
    apart: list[int] = []
    for k, step in enumerate(steps):
        first = apart[-1] + 1 if apart else 0
        apart.append(min(max(step, first), num_steps - len(steps) + k))
    return apart


@dataclass(frozen=True)
class AdaptiveSchedule:
    """As few computed steps as keep the sample's error after each gap of forecasts at `tolerance`.

    The error is relative to ‖x₀‖. How it grows with the gap is the prior's to say, and its size is
    measured: at a computed step ‖forecast − x₀‖ / ‖x₀‖, over what the prior expected of it, is the
    scale of what it expects of the next gap. Steps 0, 1 and the last are always computed, a gap is
    at most twice the one before and one more, as the scale may change, and at most one step where
    fresh noise enters.
    """

    tolerance: float

    def computed_steps(self, timeline: Timeline) -> list[int]:
        num_steps = timeline.num_steps
        return sorted({0, min(1, num_steps - 1), num_steps - 1})

    def next_step(self, computed: Sequence[int], error: float | None, timeline: Timeline) -> int:
        last = computed[-1]
        if error is None or len(computed) < 2:
            return last + 1
        levels, prior = timeline.levels, Prior(scale=timeline.scale)
        before, gap = computed[-2], last - computed[-2]
        expected = expected_miss(prior.covariance(levels), computed[-3:])
        errors = gap_errors(prior, levels, last)[before] ** 0.5 * error / expected
        within = errors[: 2 * gap + 1] <= self.tolerance
        found = last + (len(within) if within.all() else max(1, int(within.argmin())))
        return min(found, last + 2) if timeline.stochastic else found


@dataclass(frozen=True)
class ExplicitSchedule:
    """Just these steps."""

    steps: tuple[int, ...]

    def computed_steps(self, timeline: Timeline) -> list[int]:
        return sorted(set(self.steps))
