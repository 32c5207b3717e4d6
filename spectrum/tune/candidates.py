"""What can be tried for a model: another scale, other steps, length and trust, fewer steps."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from spectrum.errors import UsageError
from spectrum.gaussian import Array, Kriging, Prior
from spectrum.methods import DEFAULT_METHOD, METHODS, tuned_method
from spectrum.pipeline.preset import ALWAYS
from spectrum.pipeline.request import Request
from spectrum.schedule import LONG, ExplicitSchedule, LeastError
from spectrum.timeline import Timeline, unit_scale
from spectrum.tune.moves import Observed

# The grid: what the scale S is multiplied by, and the power that speed goes with, for the priors
# that schedules follow from; the length of the prior that forecasts follow from; and the share of a
# forecast change above which the next is trusted.
SCALES = (0.25, 0.5, 1.0, 2.0, 4.0)
POWERS = (0.7, 1.0)
LENGTHS = (0.5, 1.0, 2.0, 4.0)
TRUSTS = (ALWAYS, -0.5, 0.0)


@dataclass(frozen=True)
class Planned:
    """The default method with so many computed steps and this S of 64 latent positions.

    Which steps these are depends on the pipeline's noise levels, so only its run tells.
    """

    count: int
    scale: float

    @property
    def key(self) -> str:
        return f"{self.count} steps computed, scale {self.scale:g}"

    def request(self, base: Request) -> Request:
        method = replace(METHODS[DEFAULT_METHOD], scale=self.scale)
        return replace(base, method=method, speedup=base.run_steps / self.count, schedule=None)


@dataclass(frozen=True)
class Choice:
    """Which steps are computed, and how far what is forecast between them, with this S, is
    trusted."""

    steps: tuple[int, ...]
    length: float
    trust: float
    scale: float

    @property
    def key(self) -> str:
        steps = ",".join(map(str, self.steps))
        return f"{steps} length {self.length:g} trust {self.trust:g} scale {self.scale:g}"

    @property
    def is_usual(self) -> bool:
        """Whether length and trust are the default's."""
        return self == usual(self.steps, self.scale)

    def request(self, base: Request) -> Request:
        method = replace(tuned_method(self.length, self.trust), scale=self.scale)
        return replace(base, method=method, schedule=ExplicitSchedule(self.steps))


@dataclass(frozen=True)
class Fewer:
    """Step reduction: the pipeline as it is with so many steps."""

    count: int

    @property
    def key(self) -> str:
        return f"{self.count} steps, all computed"

    def request(self, base: Request) -> Request:
        return replace(base, steps=self.count, speedup=1.0, schedule=None)


Candidate = Planned | Choice | Fewer


def law(base: Request) -> float:
    """The default's S of 64 latent positions."""
    return unit_scale(bool(base.preset.predicts_noise))


def planned(base: Request, speedup: float) -> Planned:
    """What the default does at this speedup. Raises UsageError where there is none."""
    if not speedup > 1:
        raise UsageError(f"a speedup to tune for is above 1, not {speedup:g}; at 1 all is computed")
    method = replace(METHODS[DEFAULT_METHOD], scale=law(base))
    plan = replace(base, method=method, speedup=speedup, schedule=None).plan
    return Planned(len(plan.computed_steps), law(base))


def usual(steps: Sequence[int], scale: float) -> Choice:
    """These steps, with what the default makes of them."""
    method = METHODS[DEFAULT_METHOD]
    assert isinstance(method.forecaster, Kriging)
    assert method.loop is not None
    return Choice(tuple(steps), method.forecaster.prior.length, method.loop.trust, scale)


def grid(
    base: Request, start: Choice, levels: tuple[float, ...], observed: Array | None
) -> list[Choice]:
    """The start, then what differs from it in one respect, then the rest in no order."""
    priors = [replace(p, power=power) for p in scaled(base, start.scale) for power in POWERS]
    if observed is not None and base.run_steps <= LONG:
        priors += [Observed(scale=p.scale, moves=observed) for p in scaled(base, start.scale)]
    placements = [_placed(base, start.steps, prior, levels) for prior in priors]
    kinds = [(length, trust) for trust in TRUSTS for length in LENGTHS]
    everything = [
        Choice(steps, *kind, start.scale)
        for steps in dict.fromkeys([start.steps, *placements])
        for kind in kinds
    ]
    random.Random(0).shuffle(everything)
    everything.sort(key=lambda choice: min(2, _differs(choice, start)))
    return list(dict.fromkeys([start, *everything]))


def _differs(choice: Choice, start: Choice) -> int:
    """In how many respects."""
    names = ("steps", "length", "trust")
    return sum(getattr(choice, name) != getattr(start, name) for name in names)


def scaled(base: Request, scale: float) -> list[Prior]:
    """The default's prior for pictures of this size, with S larger and smaller."""
    own = replace(base.method, scale=scale).run_scale(base.positions)
    return [Prior(scale=own * factor) for factor in SCALES]


def _placed(
    base: Request, steps: Sequence[int], prior: Prior, levels: tuple[float, ...]
) -> tuple[int, ...]:
    """As many steps as these where the prior says, for each denoiser its own."""
    num_steps, handover = base.run_steps, base.preset.handover(base.run_steps)
    chosen: list[int] = []
    for first, end in ((0, handover), (handover, num_steps)):
        count = sum(first <= step < end for step in steps)
        if count:
            part = slice(first, end + 1)  # the first denoiser's run goes on where it ends
            mine = prior.part(part) if isinstance(prior, Observed) else prior
            timeline = Timeline(levels[part], goes_on=len(levels) > end)
            found = LeastError(count, mine).computed_steps(timeline)
            chosen += [first + step for step in found]
    return tuple(chosen)


def moved(choice: Choice, position: int, offset: int, num_steps: int) -> Choice | None:
    """With one step elsewhere; None where another one stands, or past it."""
    steps = [*choice.steps, num_steps]
    steps[position] += offset
    if not steps[position - 1] < steps[position] < steps[position + 1]:
        return None
    steps.pop()
    return replace(choice, steps=tuple(steps))
