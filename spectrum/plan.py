"""From a budget to a plan: which steps of a run are computed."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import floor
from typing import Literal

from spectrum.errors import UsageError
from spectrum.schedule import (
    Adaptive,
    EvenSchedule,
    ExplicitSchedule,
    LeastError,
    Schedule,
    WindowSchedule,
)
from spectrum.timeline import Timeline
from spectrum.words import counted

Family = Literal["window", "even", "least"]

NOISY_SPEEDUP = 2.0  # where noise enters at every step: what is forecast is never near


@dataclass(frozen=True)
class Plan:
    """The computed steps of one run, and what they come from. It is asked at every step, so that
    what takes time to tell is told once."""

    computed_steps: tuple[int, ...]
    schedule: Schedule
    timeline: Timeline

    @property
    def num_steps(self) -> int:
        return self.timeline.num_steps

    @property
    def handover(self) -> int:
        return self.timeline.handover

    @cached_property
    def adaptive(self) -> bool:
        """Whether most computed steps are found on the way."""
        return isinstance(self.schedule, Adaptive)

    @property
    def speedup(self) -> float:
        """Steps over computed steps: the speedup if a forecast step took no time."""
        return self.num_steps / len(self.computed_steps)

    @cached_property
    def forecast_steps(self) -> list[int]:
        return sorted(set(range(self.num_steps)) - set(self.computed_steps))

    def next_step(self, computed: Sequence[int], error: float | None) -> int | None:
        """The next computed step, where the schedule finds it on the way; None elsewhere."""
        if not self.adaptive:
            return None
        assert isinstance(self.schedule, Adaptive)
        return self.schedule.next_step(computed, error, self.timeline)

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
        if self.adaptive:
            return len(mine) if keeps is None else keeps
        stored = sum(s < last for s in self.computed_steps if s in mine)
        return stored if keeps is None else min(stored, keeps)

    def _denoiser_steps(self, step: int) -> range:
        if step < self.handover:
            return range(self.handover)
        return range(self.handover, self.num_steps)


def as_schedule(given: Schedule | Iterable[int] | None) -> Schedule | None:
    """Numbers of steps as a schedule of just these. Raises UsageError for what is neither."""
    if given is None or isinstance(given, Schedule):
        return given
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise UsageError(
            f"schedule takes the numbers of the computed steps, as (0, 5, 10), not {given!r}"
        )
    return ExplicitSchedule(tuple(given.tolist() if hasattr(given, "tolist") else given))


def make_plan(schedule: Schedule, timeline: Timeline) -> Plan:
    """The plan of a given schedule; the step at which a denoiser takes over is computed too.

    Raises UsageError for steps that are none of the run's, or without step 0.
    """
    steps = set(schedule.computed_steps(timeline))
    if wrong := sorted(steps - set(range(timeline.num_steps)), key=str):
        raise UsageError(
            f"a run of {counted(timeline.num_steps, 'step')} has none with number {wrong[0]};"
            f" a schedule names whole numbers from 0 to {timeline.num_steps - 1}"
        )
    if 0 not in steps:
        raise UsageError("a schedule has to compute step 0: nothing can be forecast before it")
    return Plan(tuple(sorted(int(s) for s in {*steps, timeline.handover})), schedule, timeline)


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

    def plan(self, timeline: Timeline, speedup: float) -> Plan:
        """Compute at most ⌊num_steps / speedup⌋ steps, so that `speedup` is reached or passed;
        where fresh noise enters at every step, half of them at the least.

        Where a second denoiser takes over, each of the two has computed steps in proportion to its
        own, and a warm-up. Raises UsageError for a speedup below 1, or one that the run is too
        short for; it names the largest possible.
        """
        num_steps, handover = timeline.num_steps, timeline.handover
        if num_steps < 1:
            raise UsageError(f"a run needs at least 1 step, not {num_steps}")
        if not speedup >= 1:
            raise UsageError(f"a speedup is at least 1 (1 computes every step), not {speedup:g}")
        if timeline.stochastic:
            speedup = min(speedup, NOISY_SPEEDUP)
        budget = floor(num_steps / speedup + 1e-9)
        if budget >= num_steps:
            return make_plan(ExplicitSchedule(tuple(range(num_steps))), timeline)
        parts = self._parts(num_steps, handover)
        fewest = [planner._fewest(steps) for planner, steps in parts]
        if budget < sum(fewest):
            raise UsageError(
                f"speedup {speedup:g} leaves {budget} of {num_steps} to compute, at least"
                f" {sum(fewest)} are needed; the largest speedup for {counted(num_steps, 'step')}"
                f" is {self.largest_speedup(num_steps, handover):g}"
            )
        if len(parts) == 1:
            return make_plan(self._schedule(timeline, budget), timeline)
        first = round(budget * handover / num_steps)
        first = min(max(first, fewest[0], budget - (num_steps - handover)), budget - fewest[1])
        first = min(first, handover)
        early, late = timeline.parts()
        steps = parts[0][0]._schedule(early, first).computed_steps(early)
        after = parts[1][0]._schedule(late, budget - first).computed_steps(late)
        explicit = ExplicitSchedule((*steps, *(handover + step for step in after)))
        return make_plan(explicit, timeline)

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

    def _schedule(self, timeline: Timeline, budget: int) -> Schedule:
        """The member of the family that spends the budget."""
        if budget >= timeline.num_steps:
            return ExplicitSchedule(tuple(range(timeline.num_steps)))
        if self.family == "least":
            return LeastError(budget)
        if self.family != "window":
            return EvenSchedule(budget, self.warmup, self.protect_last)
        dense = WindowSchedule(self.warmup, self.window, 0.0, self.protect_last)
        if len(dense.computed_steps(timeline)) < budget:
            dense = replace(dense, window=1)  # even α = 0 would leave part of the budget unused
        return _solve_alpha(dense, timeline, budget)

    def _fewest(self, num_steps: int) -> int:
        if self.family == "least":
            return min(2, num_steps)
        if self.family != "window":
            return min(max(1, self.warmup) + self.protect_last, num_steps)
        sparse = WindowSchedule(self.warmup, self.window, float(num_steps), self.protect_last)
        return len(sparse.computed_steps(Timeline.flow(num_steps)))


def _solve_alpha(schedule: WindowSchedule, timeline: Timeline, budget: int) -> WindowSchedule:
    """The middle of the range of α that computes the most steps within the budget.

    Any α of the range spends the same; the smallest would leave a long stretch of forecasts at the
    end. At 50 steps the middle gives the published schedules of 14 and of 10 computed steps.
    """

    def at(thousandths: int) -> WindowSchedule:
        return replace(schedule, alpha=thousandths / 1000)

    def count(thousandths: int) -> int:
        return len(at(thousandths).computed_steps(timeline))

    # The count falls as α grows, but for rounding: `low` and `middle` are checked for that reason.
    alphas = range(1000 * timeline.num_steps)
    low = bisect_left(alphas, -budget, key=lambda a: -count(a))
    while count(low) > budget:
        low += 1
    high = bisect_left(alphas, 1 - count(low), key=lambda a: -count(a))
    middle = int(round((low + high - 1) / 2, -1))
    return at(middle if count(middle) == count(low) else low)
