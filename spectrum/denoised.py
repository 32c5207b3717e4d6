"""The denoised sample as target: at forecast steps the denoiser is not called at all.

What the scheduler is given is forecast, after guidance and all else that the pipeline does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from inspect import BoundArguments
from typing import Any

import torch

from spectrum.closed_loop import ClosedLoop
from spectrum.denoiser import tensors_of
from spectrum.feature import NOT_FINITE, NOTHING_STORED, Branch, branch_of
from spectrum.forecast import Forecaster
from spectrum.gaussian import Loop
from spectrum.handed import Handed
from spectrum.plan import Plan
from spectrum.schedulers import (
    Coefficients,
    denoised_coefficients,
    of_tokens,
    place,
    stages_per_step,
    takes_output,
)
from spectrum.target import Call, Current
from spectrum.trajectory import Trajectory

CHANGED = "the latents were changed between two steps"

# Called with the number of a computed step and the x₀ that the sampler is at there.
Observer = Callable[[int, torch.Tensor], None]


class DenoisedTarget:
    """A trajectory for each scheduler (LTX-2 has a second for its sound) and stage of its steps."""

    def __init__(
        self, forecaster: Forecaster, loop: Loop | None, plan: Plan, observe: Observer | None
    ) -> None:
        self.plan = plan
        self._forecaster, self._loop, self._observe = forecaster, loop, observe
        # The newest computed, by reference: a CUDA graph overwrites one when it computes the next,
        # which takes its place here. Nothing else that lasts longer than a call is.
        self._outputs: dict[Branch, Any] = {}
        self._trajectories: dict[tuple[int, int], Trajectory] = {}
        self._coefficients: dict[int, tuple[Coefficients | None, ...]] = {}  # by scheduler
        self._handed: dict[int, Handed] = {}  # by scheduler
        self._changed = False  # whether somebody has changed the sample since it was last computed
        self._observed = -1  # the last step whose x₀ was shown to the observer

    @staticmethod
    def knows(scheduler: Any) -> bool:
        """Whether forecasts of x₀ can be handed to this scheduler."""
        if not takes_output(scheduler):
            return False
        coefficients = denoised_coefficients(scheduler)
        return coefficients is not None and coefficients[0] is not None

    @property
    def nbytes(self) -> int:
        stored = sum(trajectory.nbytes for trajectory in self._trajectories.values())
        return stored + sum(output.nbytes for output in tensors_of(self._outputs))

    def call(self, now: Current, call: Call) -> Any:
        """At forecast steps just an output of the right shape: the scheduler is given another."""
        branch = branch_of(now, call)
        if now.calls == 1:
            now.note = None if now.planned else self._refuses(now.index, branch)
            now.computed = now.planned or now.note is not None
        if not now.computed and branch in self._outputs:
            return self._outputs[branch]
        output = call.compute()
        if self.plan.forecast_steps:
            self._outputs[branch] = output
        return output

    def step(self, now: Current, scheduler: Any, call: BoundArguments, taken: int) -> None:
        """At forecast steps the scheduler is given the forecast output; at computed ones, which
        are recorded, perhaps a corrected sample."""
        key = (id(scheduler), taken % stages_per_step(scheduler))
        trajectory = self._trajectories.get(key)
        if trajectory is not None and trajectory.step == now.index:
            return  # further calls within a step have nothing to forecast
        coefficients = of_tokens(
            self._at(scheduler, call.arguments["timestep"], taken), scheduler, call.arguments
        )
        if self._observe and now.computed and now.index > self._observed:
            self._observed = now.index
            (a, b, _), given = coefficients, call.arguments
            self._observe(
                now.index, a * given["sample"].float() + b * given["model_output"].float()
            )
        if not self.plan.forecast_steps or (now.computed and self._is_over(now.index)):
            return
        moved = (
            self._handed[key[0]].back(call.arguments["sample"]) if key[0] in self._handed else None
        )
        self._changed = self._changed or moved is not None
        if trajectory is None or (
            now.computed and (self._changed or not trajectory.is_of(call.arguments["sample"]))
        ):
            self._changed = False
            trajectory = self._trajectories[key] = self._begin(scheduler)
        if now.computed or trajectory.history is None:
            checked = trajectory.compute(scheduler, now.index, call, coefficients)
            if checked.errors is not None:
                now.errors.append(torch.tensor(checked.errors).max())
            if checked.trends is not None and now.trend is None:
                now.trend = float(torch.tensor(checked.trends, dtype=torch.float64).min())
        else:
            trajectory.forecast(now.index, call, coefficients, moved)

    def forget(self) -> None:
        self._outputs.clear()
        self._trajectories.clear()

    def stepped(self, scheduler: Any, sample: torch.Tensor, finished: bool) -> None:
        if not finished:
            self._handed.setdefault(id(scheduler), Handed()).out(sample)
            return
        self._outputs.clear()
        self._handed.clear()
        for (owner, _), trajectory in self._trajectories.items():
            if owner == id(scheduler):
                trajectory.release()

    def _begin(self, scheduler: Any) -> Trajectory:
        if self._loop is None:
            return Trajectory(self._forecaster, self.plan)
        loop = self._loop
        if stages_per_step(scheduler) > 1 or self.plan.timeline.stochastic:
            loop = replace(loop, correct_above=float("inf"))  # a stage's way back is not its own
        return ClosedLoop(loop, self.plan)

    def _refuses(self, step: int, branch: Branch) -> str | None:
        """Why a step that could be forecast has to be computed; None where it need not."""
        if branch not in self._outputs:
            return NOTHING_STORED
        if self._changed:
            return CHANGED
        if not all(t.is_finite(step) for t in self._trajectories.values()):
            return NOT_FINITE
        return None

    def _is_over(self, step: int) -> bool:
        """Whether a computed step has no forecast before it to correct, and none after it."""
        return step > self.plan.last_forecast(step) + 1

    def _at(self, scheduler: Any, timestep: Any, taken: int) -> Coefficients:
        """How x₀ follows from the sample and the output at this call of scheduler.step."""
        table = self._coefficients.get(id(scheduler))
        if table is None:
            table = denoised_coefficients(scheduler) or ()
            self._coefficients[id(scheduler)] = table
        to_come = self.plan.num_steps * stages_per_step(scheduler)
        found = table[place(scheduler, timestep, taken, to_come)]
        assert found is not None  # asked before the run began
        return found
