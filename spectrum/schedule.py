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

Family = Literal["window", "even", "level"]


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
class PowerSchedule:
    """`count` computed steps, 0 and the last among them, at (N − 1)·(k / (count − 1))^power.

    A power above 1 is denser at the start, where the denoised sample changes fastest: on the
    models measured its change over a step falls by a factor of 10 to 100 from start to end.
    """

    count: int
    power: float = 1.3

    def computed_steps(self, num_steps: int) -> list[int]:
        if self.count >= num_steps:
            return list(range(num_steps))
        if self.count == 1:
            return [0]
        shares = [k / (self.count - 1) for k in range(self.count)]
        steps = [round((num_steps - 1) * share**self.power) for share in shares]
        for k in range(1, self.count):  # no step twice
            steps[k] = max(steps[k], steps[k - 1] + 1)
        return steps


@dataclass(frozen=True)
class LevelSchedule:
    """`count` computed steps, evenly spaced in noise level as a flow of shift `shift` passes it.

    `levels` are the noise levels σ / (α + σ) of all steps, falling. Which steps are worth computing
    follows from them and not from the steps' numbers: schedulers space the same levels differently.
    Level σ is passed at time 1 − σ / (s − (s − 1) σ). On demo-video (guidance, sampled at shift 3)
    s = 2.5 was 1.4 to 2.5 dB better than 1.8 at 10 to 20 computed steps; on demo-image (none, 1.6)
    as good at 10 and 1.3 to 2.2 dB worse at 14 and 20.
    """

    count: int
    levels: tuple[float, ...]
    shift: float = 2.5

    def computed_steps(self, num_steps: int) -> list[int]:
        if self.count >= num_steps:
            return list(range(num_steps))
        if self.count == 1:
            return [0]
        s = self.shift
        times = [1 - level / (s - (s - 1) * level) for level in self.levels[:num_steps]]
        gap = (times[-1] - times[0]) / (self.count - 1)
        steps: list[int] = []
        for k in range(self.count):
            wanted = times[0] + k * gap
            nearest = min(range(num_steps), key=lambda n: abs(times[n] - wanted))
            first = steps[-1] + 1 if steps else 0  # no step twice, and room for those to come
            steps.append(min(max(nearest, first), num_steps - self.count + k))
        return steps


def flow_levels(num_steps: int, shift: float) -> tuple[float, ...]:
    """Noise levels of a flow whose sigmas fall evenly from 1 before σ' = sσ / (1 + (s − 1)σ)."""
    times = [1 - step / num_steps for step in range(num_steps)]
    return tuple(shift * t / (1 + (shift - 1) * t) for t in times)


@dataclass(frozen=True)
class AdaptiveSchedule:
    """As few computed steps as keep the forecast's error near `tolerance`.

    The error that is measured at a computed step, ‖forecast − computed‖ / ‖computed‖, decides how
    far away the next is, as in ODE solvers with step size control: with an error that grows like
    gap^1.5 (between holding, 1, and a straight line, 2) the gap is scaled by
    (tolerance / error)^(1 / 1.5), by 2 at the most. Steps 0, 1 and the last are computed always.
    """

    tolerance: float
    order: float = 1.5

    def computed_steps(self, num_steps: int) -> list[int]:
        """Those that are computed whatever is measured."""
        return sorted({0, min(1, num_steps - 1), num_steps - 1})

    def next_step(self, step: int, gap: int, error: float | None) -> int:
        """The next computed step, after `step` was computed `gap` steps after the one before."""
        if error is None:
            return step + max(1, gap)
        scale = (self.tolerance / max(error, 1e-9)) ** (1 / self.order)
        return step + max(1, int(gap * min(scale, 2.0)))


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
    spaced steps. Both compute the first `warmup` and the last `protect_last` steps. The "level"
    family spaces them by noise level; where less than one step in six is computed it is even.
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
    ) -> Plan:
        """Compute at most ⌊num_steps / speedup⌋ steps, so that `speedup` is reached or passed.

        At step `handover`, if it is not 0, a second denoiser takes over (Wan2.2): each of the two
        has computed steps in proportion to its own, and a warm-up. `levels` are the noise levels of
        the steps, which the "level" family needs (a flow of shift 3 if not given). Raises
        UsageError for a speedup below 1, or one that the run is too short for; it names the largest
        possible.
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
            return make_plan(self._schedule(num_steps, budget, levels), num_steps)
        first = round(budget * handover / num_steps)
        first = min(max(first, fewest[0], budget - (num_steps - handover)), budget - fewest[1])
        first = min(first, handover)
        (early, _), (late, rest) = parts
        steps = early._schedule(handover, first, levels[:handover]).computed_steps(handover)
        after = late._schedule(rest, budget - first, levels[handover:]).computed_steps(rest)
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

    def _schedule(self, num_steps: int, budget: int, levels: tuple[float, ...]) -> Schedule:
        """The member of the family that spends the budget."""
        if budget >= num_steps:
            return ExplicitSchedule(tuple(range(num_steps)))
        if self.family == "level" and 6 * budget >= num_steps:
            return LevelSchedule(budget, levels)
        if self.family != "window":
            return EvenSchedule(budget, self.warmup, self.protect_last)
        dense = WindowSchedule(self.warmup, self.window, 0.0, self.protect_last)
        if len(dense.computed_steps(num_steps)) < budget:
            dense = replace(dense, window=1)  # even α = 0 would leave part of the budget unused
        return _solve_alpha(dense, num_steps, budget)

    def _fewest(self, num_steps: int) -> int:
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
