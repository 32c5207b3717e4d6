"""Forecasting the denoised sample between computed steps, and correcting the way there.

At a computed step the model's output says where the sample is headed: x₀. Between computed steps
x₀ is extrapolated, and the output that the scheduler is given follows from it and the sample at
hand. That keeps the stiff part of the flow, the pull towards x₀, exact, as exponential integrators
do (DPM-Solver++, 2211.01095), where an extrapolated velocity overshoots.

The next computed step says where x₀ really went. If it went the way of its trend, the steps since
the last computed one are taken again with x₀ interpolated between the two: a corrector without
another call of the model (its idea is UniPC's, 2302.04867). The scheduler itself takes them, so
this works for any that is deterministic.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from typing import Any

import torch

from spectrum.forecast import Forecaster, Hold
from spectrum.history import FeatureHistory
from spectrum.locate import tensors_of
from spectrum.methods import Loop
from spectrum.samplers import denoised_coefficients
from spectrum.schedule import Plan


@dataclass
class Checked:
    """What a computed step says of the forecasts before it."""

    error: float | None = None  # ‖forecast − x₀‖ / ‖x₀‖
    trend: float | None = None  # least-squares share of the trend that came true


@dataclass
class Trajectory:
    """The way of one scheduler's sample through one run."""

    forecaster: Forecaster
    loop: Loop
    plan: Plan
    history: FeatureHistory | None = None
    trusted: bool = True
    step: int = -1  # the last one taken
    _calls: list[inspect.BoundArguments] = field(default_factory=list)  # since the last computed
    _start: torch.Tensor | None = None  # the sample at the last computed step
    _state: dict[str, Any] = field(default_factory=dict)  # the scheduler's, before it

    def __post_init__(self) -> None:
        self.trusted = not self._cautious

    def compute(self, scheduler: Any, step: int, call: inspect.BoundArguments) -> Checked:
        """Take in a computed step, and put the corrected sample into the call of `step`."""
        given = call.arguments
        sample, output = given["sample"], given["model_output"]
        a, b = _coefficients(scheduler, given["timestep"])
        denoised = a * sample.float() + b * output.float()
        checked = self._check(step, denoised)
        if self._calls and self._corrects(checked):
            sample = self._again(scheduler, step, denoised)
            given["sample"] = sample
            given["model_output"] = ((denoised - a * sample.float()) / b).to(output.dtype)
        if self.history is None:
            self.history = FeatureHistory(
                self.plan.features_kept(self.forecaster.keeps) or 1, torch.float32
            )
        self.history.append(step, denoised)
        self._calls, self._start = [call], sample.clone()
        self._state, self.step = _state_of(scheduler), step
        return checked

    def is_finite(self, step: int) -> bool:
        """Whether the forecast for a step can be used."""
        chosen = self.forecaster if self.trusted else Hold()
        return self.history is None or bool(torch.isfinite(self._weighted(chosen, step)).all())

    def forecast(self, scheduler: Any, step: int, call: inspect.BoundArguments) -> bool:
        """Put the forecast output into the call of `step`; False where it is not finite."""
        assert self.history is not None
        given = call.arguments
        a, b = _coefficients(scheduler, given["timestep"])
        chosen = self.forecaster if self.trusted else Hold()
        denoised = self._weighted(chosen, step)
        sample = given["sample"]
        output = ((denoised - a * sample.float()) / b).to(given["model_output"].dtype)
        if not torch.isfinite(output).all():
            return False
        given["model_output"] = output
        self._calls.append(call)
        self.step = step
        return True

    def _corrects(self, checked: Checked) -> bool:
        """Whether the way since the last computed step is to be taken again; the first gap, of
        which no trend tells, only where everything is."""
        if checked.trend is None:
            return self.loop.correct_above == float("-inf")
        return self.trusted and checked.trend > self.loop.correct_above

    @property
    def _cautious(self) -> bool:
        return self.plan.speedup > self.loop.cautious_above

    @property
    def nbytes(self) -> int:
        return self.history.nbytes if self.history else 0

    def _weighted(self, forecaster: Forecaster, step: int) -> torch.Tensor:
        assert self.history is not None
        weights = forecaster.weights(self.history.steps, step, self.plan.num_steps)
        return self.history.forecast(weights.tolist())

    def _check(self, step: int, denoised: torch.Tensor) -> Checked:
        """How well the last gap was forecast, and whether the next forecasts trust the trend."""
        if self.history is None or len(self.history.steps) < 2:
            return Checked()
        before, last = self.history.steps[-2:]
        held = self._weighted(Hold(), step)
        slope = [0.0] * (len(self.history.steps) - 2)
        slope += [-(step - last) / (last - before), (step - last) / (last - before)]
        trend, change = self.history.forecast(slope), denoised - held
        share = float((trend * change).sum() / (trend * trend).sum().clamp_min(1e-30))
        chosen = self.forecaster if self.trusted else Hold()
        miss = self._weighted(chosen, step).sub_(denoised)
        error = float(torch.linalg.vector_norm(miss) / torch.linalg.vector_norm(denoised))
        loop = self.loop
        self.trusted = share > (loop.cautious_trust if self._cautious else loop.trust)
        return Checked(error, share)

    def _again(self, scheduler: Any, step: int, denoised: torch.Tensor) -> torch.Tensor:
        """The sample at `step`, if x₀ had gone straight from the last computed one to this one."""
        assert self.history is not None
        assert self._start is not None
        last = self.history.steps[-1]
        weights = [0.0] * (len(self.history.steps) - 1) + [1.0]
        begun, sample = self.history.forecast(weights), self._start
        vars(scheduler).update(_copied(self._state))
        cls: Any = type(scheduler).__mro__[1]  # not the one that reports to the cache
        for index, call in enumerate(self._calls):
            given = call.arguments
            a, b = _coefficients(scheduler, given["timestep"])
            target = torch.lerp(begun, denoised, index / (step - last))
            given["model_output"] = ((target - a * sample.float()) / b).to(
                given["model_output"].dtype
            )
            given["sample"] = sample
            result = cls.step(*call.args, **call.kwargs)
            sample = next(tensors_of(result))
        return sample


def _coefficients(scheduler: Any, timestep: Any) -> tuple[float, float]:
    found = denoised_coefficients(scheduler, timestep)
    assert found is not None  # asked before the run began
    return found


def _state_of(scheduler: Any) -> dict[str, Any]:
    return _copied(vars(scheduler))


def _copied(state: dict[str, Any]) -> dict[str, Any]:
    """Lists are written to by multistep schedulers; tensors are replaced."""
    return {k: list(v) if isinstance(v, list) else v for k, v in state.items()}
