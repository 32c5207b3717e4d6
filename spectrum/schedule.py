"""Which solver steps are computed: two families of schedules, and the planner that picks one.

Steps are numbered from 0. Step 0 is always computed, as a forecast needs something to start from.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import floor
from typing import Literal, Protocol

from spectrum.errors import UsageError

Family = Literal["window", "even"]


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

    @property
    def speedup(self) -> float:
        """Steps over computed steps: the speedup if a forecast step took no time."""
        return self.num_steps / len(self.computed_steps)

    @property
    def forecast_steps(self) -> list[int]:
        return sorted(set(range(self.num_steps)) - set(self.computed_steps))

    @property
    def last_forecast(self) -> int:
        """The last forecast step; -1 if there is none. What is computed later is not stored."""
        return max(self.forecast_steps, default=-1)

    def features_kept(self, keeps: int | None) -> int:
        """How many features have to be held at once for a forecaster that looks at `keeps`."""
        last = self.last_forecast
        stored = sum(step < last for step in self.computed_steps)
        return stored if keeps is None else min(stored, keeps)


@dataclass(frozen=True)
class Planner:
    """Turns "this many steps, this speedup" into a plan, within one family of schedules.

    In the published "window" family α is solved for; the "even" family spends the budget on evenly
    spaced steps. Both compute the first `warmup` and the last `protect_last` steps.
    """

    family: Family = "window"
    warmup: int = 5
    window: int = 2
    protect_last: int = 0

    def plan(self, num_steps: int, speedup: float) -> Plan:
        """Compute at most ⌊num_steps / speedup⌋ steps, so that `speedup` is reached or passed.

        Raises UsageError for a speedup below 1, or one that the run is too short for; it names
        the largest possible.
        """
        if num_steps < 1:
            raise UsageError(f"a run needs at least 1 step, not {num_steps}")
        if not speedup >= 1:
            raise UsageError(f"a speedup is at least 1 (1 computes every step), not {speedup:g}")
        budget = floor(num_steps / speedup + 1e-9)
        if budget >= num_steps:
            return make_plan(ExplicitSchedule(tuple(range(num_steps))), num_steps)
        fewest = self._fewest(num_steps)
        if budget < fewest:
            raise UsageError(
                f"{num_steps} steps at speedup {speedup:g} leave {budget} to compute, at least"
                f" {fewest} are needed; the largest speedup for {num_steps} steps is"
                f" {self.largest_speedup(num_steps):g}"
            )
        if self.family == "even":
            return make_plan(EvenSchedule(budget, self.warmup, self.protect_last), num_steps)
        dense = WindowSchedule(self.warmup, self.window, 0.0, self.protect_last)
        if len(dense.computed_steps(num_steps)) < budget:
            dense = replace(dense, window=1)  # even α = 0 would leave part of the budget unused
        return make_plan(_solve_alpha(dense, num_steps, budget), num_steps)

    def largest_speedup(self, num_steps: int) -> float:
        """The largest that `plan` accepts, rounded down to hundredths."""
        return floor(100 * num_steps / self._fewest(num_steps)) / 100

    def _fewest(self, num_steps: int) -> int:
        if self.family == "even":
            return min(max(1, self.warmup) + self.protect_last, num_steps)
        sparse = WindowSchedule(self.warmup, self.window, float(num_steps), self.protect_last)
        return len(sparse.computed_steps(num_steps))


def make_plan(schedule: Schedule, num_steps: int) -> Plan:
    """The plan of a given schedule."""
    return Plan(num_steps, tuple(schedule.computed_steps(num_steps)), schedule)


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
