"""Which solver steps are computed: two families of schedules, and the planner that picks one.

Steps are numbered from 0. Step 0 is always computed, as a forecast needs something to start from.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from math import floor
from typing import Literal, Protocol

import numpy as np

from spectrum.errors import UsageError
from spectrum.gaussian import PRIOR, Prior, expected_miss, flow_levels, gap_errors

Family = Literal["window", "even", "least"]

LONG = 120  # steps; the planning of longer runs is simplified


class Schedule(Protocol):
    def computed_steps(self, num_steps: int) -> list[int]:
        """The computed steps of a run of `num_steps`, ascending, 0 among them."""


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

    def computed_steps(self, num_steps: int) -> list[int]:
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

    def computed_steps(self, num_steps: int) -> list[int]:
        if self.count >= num_steps:
            return list(range(num_steps))
        warmup = max(1, self.warmup)
        between = self.count - warmup - self.protect_last
        if between < 0:
            raise UsageError(
                f"{self.count} computed steps are too few for {warmup} at the start"
                f" and {self.protect_last} at the end"
            )
        first, end = warmup - 1, num_steps - self.protect_last
        gap = (end - first) / (between + 1)
        inner = [first + round(gap * k) for k in range(1, between + 1)]
        return _with_last([*range(warmup), *inner], num_steps, self.protect_last)


@dataclass(frozen=True)
class LeastError:
    """The `count` computed steps that leave the least expected error, by dynamic programming.

    `levels` are the noise levels σ / (α + σ) of all steps, falling; what is expected of x₀ is the
    prior's. The errors of all gaps of forecasts are added up, each as it is in the sample at the
    gap's end. That makes for short gaps at the end, where a step moves the sample far towards x₀,
    and at the start, where x₀ is undecided, and for long ones between. With one more level than
    steps the run goes on there, with a computed step (of another denoiser).
    """

    count: int
    levels: tuple[float, ...]
    prior: Prior = PRIOR

    def computed_steps(self, num_steps: int) -> list[int]:
        if self.count >= num_steps:
            return list(range(num_steps))
        if num_steps > LONG:
            return self._stretched(self.levels[:num_steps])
        return list(_least_error(self.count, self.levels[: num_steps + 1], num_steps, self.prior))

    def _stretched(self, levels: tuple[float, ...]) -> list[int]:
        """For a long run: as for a shorter one of the same levels, stretched."""
        num_steps = len(levels)
        some = [round(n) for n in np.linspace(0, num_steps - 1, LONG)]
        fewer = min(self.count, LONG // 2)
        short = replace(self, count=fewer, levels=tuple(levels[n] for n in some))
        at = [some[n] for n in short.computed_steps(LONG)]
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
    scale of what it expects of the next gap. Steps 0, 1 and the last are always computed, and a gap
    is at most twice the one before and one more, as the scale may change.
    """

    tolerance: float
    levels: tuple[float, ...] | None = None
    prior: Prior = PRIOR

    def at(self, levels: tuple[float, ...] | None, prior: Prior) -> AdaptiveSchedule:
        """The same for a run with these noise levels."""
        return replace(self, levels=levels, prior=prior)

    def computed_steps(self, num_steps: int) -> list[int]:
        """Those that are computed whatever is measured."""
        return sorted({0, min(1, num_steps - 1), num_steps - 1})

    def next_step(self, computed: Sequence[int], error: float | None, num_steps: int) -> int:
        """The next computed step, after those; `error` was measured at the last of them."""
        last = computed[-1]
        if error is None or len(computed) < 2:
            return last + 1
        levels = self.levels or flow_levels(num_steps, 3.0)
        before, gap = computed[-2], last - computed[-2]
        expected = expected_miss(self.prior.covariance(levels), computed[-3:])
        errors = gap_errors(self.prior, levels, last)[before] ** 0.5 * error / expected
        within = errors[: 2 * gap + 1] <= self.tolerance
        return last + (len(within) if within.all() else max(1, int(within.argmin())))


@dataclass(frozen=True)
class ExplicitSchedule:
    """Just these steps. Raises UsageError where 0 is not among them or one is past the end."""

    steps: tuple[int, ...]

    def computed_steps(self, num_steps: int) -> list[int]:
        steps = sorted(set(self.steps))
        if not steps or steps[0] != 0:
            raise UsageError("a schedule has to compute step 0: nothing can be forecast before it")
        if steps[-1] >= num_steps:
            raise UsageError(f"the schedule computes step {steps[-1]} of a run of {num_steps}")
        return steps


@dataclass(frozen=True)
class Plan:
    """The computed steps of one run, and the schedule that they come from."""

    num_steps: int
    computed_steps: tuple[int, ...]
    schedule: Schedule
    handover: int = 0  # the step at which a second denoiser takes over; 0: there is none

    @property
    def speedup(self) -> float:
        """Steps over computed steps: the speedup if a forecast step took no time."""
        return self.num_steps / len(self.computed_steps)

    @property
    def forecast_steps(self) -> list[int]:
        return sorted(set(range(self.num_steps)) - set(self.computed_steps))

    def last_forecast(self, step: int) -> int:
        """The last forecast step of the denoiser that runs at `step`; -1 if there is none.

        What that denoiser computes later need not be stored.
        """
        mine = self._denoiser_steps(step)
        return max((s for s in self.forecast_steps if s in mine), default=-1)

    def features_kept(self, keeps: int | None) -> int:
        """How many features have to be held at once for a forecaster that looks at `keeps`."""
        return max(self.features_kept_at(step, keeps) for step in {0, self.handover})

    def features_kept_at(self, step: int, keeps: int | None) -> int:
        """The same for the denoiser that runs at `step`."""
        mine, last = self._denoiser_steps(step), self.last_forecast(step)
        stored = sum(s < last for s in self.computed_steps if s in mine)
        return stored if keeps is None else min(stored, keeps)

    def _denoiser_steps(self, step: int) -> range:
        if step < self.handover:
            return range(self.handover)
        return range(self.handover, self.num_steps)


@dataclass(frozen=True)
class Planner:
    """Turns "this many steps, this speedup" into a plan, within one family of schedules.

    In the published "window" family α is solved for; the "even" family spends the budget on evenly
    spaced steps. Both compute the first `warmup` and the last `protect_last` steps. The "least"
    family puts the steps where the least error is to be expected, two of them at least.
    """

    family: Family = "window"
    warmup: int = 5
    window: int = 2
    protect_last: int = 0

    def plan(
        self,
        num_steps: int,
        speedup: float,
        handover: int = 0,
        levels: tuple[float, ...] | None = None,
        prior: Prior = PRIOR,
    ) -> Plan:
        """Compute at most ⌊num_steps / speedup⌋ steps, so that `speedup` is reached or passed.

        At step `handover`, if it is not 0, a second denoiser takes over (Wan2.2): each of the two
        has computed steps in proportion to its own, and a warm-up. `levels` are the noise levels of
        the steps, which the "least" family needs (a flow of shift 3 if not given), as it does the
        `prior`. Raises UsageError for a speedup below 1, or one that the run is too short for; it
        names the largest possible.
        """
        if num_steps < 1:
            raise UsageError(f"a run needs at least 1 step, not {num_steps}")
        if not speedup >= 1:
            raise UsageError(f"a speedup is at least 1 (1 computes every step), not {speedup:g}")
        budget = floor(num_steps / speedup + 1e-9)
        if budget >= num_steps:
            return make_plan(ExplicitSchedule(tuple(range(num_steps))), num_steps, handover)
        levels = levels or flow_levels(num_steps, 3.0)
        parts = self._parts(num_steps, handover)
        fewest = [planner._fewest(steps) for planner, steps in parts]
        if budget < sum(fewest):
            raise UsageError(
                f"{num_steps} steps at speedup {speedup:g} leave {budget} to compute, at least"
                f" {sum(fewest)} are needed; the largest speedup for {num_steps} steps is"
                f" {self.largest_speedup(num_steps, handover):g}"
            )
        if len(parts) == 1:
            return make_plan(self._schedule(num_steps, budget, levels, prior), num_steps)
        first = round(budget * handover / num_steps)
        first = min(max(first, fewest[0], budget - (num_steps - handover)), budget - fewest[1])
        first = min(first, handover)
        (early, _), (late, rest) = parts
        steps = early._schedule(handover, first, levels[: handover + 1], prior).computed_steps(
            handover
        )
        after = late._schedule(rest, budget - first, levels[handover:], prior).computed_steps(rest)
        explicit = ExplicitSchedule((*steps, *(handover + step for step in after)))
        return make_plan(explicit, num_steps, handover)

    def largest_speedup(self, num_steps: int, handover: int = 0) -> float:
        """The largest that `plan` accepts, rounded down to hundredths."""
        fewest = sum(planner._fewest(steps) for planner, steps in self._parts(num_steps, handover))
        return floor(100 * num_steps / fewest) / 100

    def _parts(self, num_steps: int, handover: int) -> list[tuple[Planner, int]]:
        """A planner and a number of steps for each denoiser; the warm-up is shared out."""
        if not 0 < handover < num_steps:
            return [(self, num_steps)]
        share = min(max(1, round(self.warmup * handover / num_steps)), max(1, self.warmup - 1))
        early = replace(self, warmup=share, protect_last=0)
        late = replace(self, warmup=max(1, self.warmup - share))
        return [(early, handover), (late, num_steps - handover)]

    def _schedule(
        self, num_steps: int, budget: int, levels: tuple[float, ...], prior: Prior
    ) -> Schedule:
        """The member of the family that spends the budget."""
        if budget >= num_steps:
            return ExplicitSchedule(tuple(range(num_steps)))
        if self.family == "least":
            return LeastError(budget, levels, prior)
        if self.family != "window":
            return EvenSchedule(budget, self.warmup, self.protect_last)
        dense = WindowSchedule(self.warmup, self.window, 0.0, self.protect_last)
        if len(dense.computed_steps(num_steps)) < budget:
            dense = replace(dense, window=1)  # even α = 0 would leave part of the budget unused
        return _solve_alpha(dense, num_steps, budget)

    def _fewest(self, num_steps: int) -> int:
        if self.family == "least":
            return min(2, num_steps)
        if self.family != "window":
            return min(max(1, self.warmup) + self.protect_last, num_steps)
        sparse = WindowSchedule(self.warmup, self.window, float(num_steps), self.protect_last)
        return len(sparse.computed_steps(num_steps))


def make_plan(schedule: Schedule, num_steps: int, handover: int = 0) -> Plan:
    """The plan of a given schedule; the step at which a denoiser takes over is computed too."""
    steps = sorted({*schedule.computed_steps(num_steps), handover})
    return Plan(num_steps, tuple(steps), schedule, handover)


def _solve_alpha(schedule: WindowSchedule, num_steps: int, budget: int) -> WindowSchedule:
    """The middle of the range of α that computes the most steps within the budget.

    Any α of the range spends the same; the smallest would leave a long stretch of forecasts at the
    end. At 50 steps the middle gives the published schedules of 14 and of 10 computed steps.
    """

    def at(thousandths: int) -> WindowSchedule:
        return replace(schedule, alpha=thousandths / 1000)

    def count(thousandths: int) -> int:
        return len(at(thousandths).computed_steps(num_steps))

    # The count falls as α grows, but for rounding: `low` and `middle` are checked for that reason.
    alphas = range(1000 * num_steps)
    low = bisect_left(alphas, -budget, key=lambda a: -count(a))
    while count(low) > budget:
        low += 1
    high = bisect_left(alphas, 1 - count(low), key=lambda a: -count(a))
    middle = int(round((low + high - 1) / 2, -1))
    return at(middle if count(middle) == count(low) else low)
