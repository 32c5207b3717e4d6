"""Forecasting the denoised sample between computed steps, and correcting the way there.

At a computed step the model's output says where the sample is headed: x₀. Between computed steps
x₀ is forecast, and the output that the scheduler is given follows from it and the sample at
hand. That keeps the stiff part of the flow, the pull towards x₀, exact, as exponential integrators
do (DPM-Solver++, 2211.01095), where an extrapolated velocity overshoots.

The next computed step says where x₀ really went. How x₀ moves depends on the model: where the
last two gaps came out as a smoother way would have it, the next one is forecast by that; where the
trend was reversed, x₀ is held. If x₀ went the way that was forecast, the steps since the last
computed one are taken again with x₀ interpolated between the two: a corrector without another call
of the model (its idea is UniPC's, 2302.04867). The scheduler itself takes them, so this works for
any that is deterministic.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from typing import Any

import torch

from spectrum.forecast import Forecaster, Hold, Kriging
from spectrum.history import FeatureHistory
from spectrum.locate import tensors_of
from spectrum.methods import Loop, kept
from spectrum.samplers import denoised_coefficients
from spectrum.schedule import Plan


@dataclass
class Checked:
    """What a computed step says of the forecasts before it."""

    error: float | None = None  # ‖forecast − x₀‖ / ‖x₀‖
    trend: float | None = None  # least-squares share of the forecast change that came true


@dataclass
class Trajectory:
    """The way of one scheduler's sample through one run."""

    forecaster: Forecaster
    loop: Loop
    plan: Plan
    history: FeatureHistory | None = None
    trusted: bool = True
    smooth: list[bool] = field(default_factory=list)  # of each gap, whether it was so
    step: int = -1  # the last one taken
    _calls: list[inspect.BoundArguments] = field(default_factory=list)  # since the last computed
    _start: torch.Tensor | None = None  # the sample at the last computed step
    _state: dict[str, Any] = field(default_factory=dict)  # the scheduler's, before it

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
            keeps = kept(self.forecaster, self.loop)
            self.history = FeatureHistory(self.plan.features_kept(keeps) or 1, torch.float32)
        self.history.append(step, denoised)
        self._calls, self._start = [call], sample.clone()
        self._state, self.step = _state_of(scheduler), step
        return checked

    def is_finite(self, step: int) -> bool:
        """Whether the forecast for a step can be used."""
        return self.history is None or bool(torch.isfinite(self._weighted(self._used, step)).all())

    def forecast(self, scheduler: Any, step: int, call: inspect.BoundArguments) -> bool:
        """Put the forecast output into the call of `step`; False where it is not finite."""
        assert self.history is not None
        given = call.arguments
        a, b = _coefficients(scheduler, given["timestep"])
        denoised = self._weighted(self._used, step)
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
        which nothing was forecast, only where everything is."""
        if not isinstance(self.forecaster, Kriging):
            return False
        if checked.trend is None:
            return self.loop.correct_above == float("-inf")
        return self.trusted and checked.trend > self.loop.correct_above

    @property
    def _trend(self) -> Forecaster:
        """What forecasts where the trend is trusted."""
        usual = self.forecaster
        adapts = self.loop.adapts and len(self.smooth) > 1 and all(self.smooth[-2:])
        return usual.smoother if adapts and isinstance(usual, Kriging) else usual

    @property
    def _used(self) -> Forecaster:
        return self._trend if self.trusted else Hold()

    @property
    def nbytes(self) -> int:
        return self.history.nbytes if self.history else 0

    def _weighted(self, forecaster: Forecaster, step: int) -> torch.Tensor:
        assert self.history is not None
        weights = forecaster.weights(self.history.steps, step, self.plan.num_steps)
        return self.history.forecast(weights.tolist())

    def _check(self, step: int, denoised: torch.Tensor) -> Checked:
        """How well the last gap was forecast, and whether the next forecasts trust the trend."""
        if self.history is None:
            return Checked()
        held = self._weighted(Hold(), step)
        trend, change = self._weighted(self._trend, step).sub_(held), denoised - held
        miss = change - trend if self.trusted else change
        error = float(torch.linalg.vector_norm(miss) / torch.linalg.vector_norm(denoised))
        if len(self.history.steps) < 2:
            return Checked(error)
        if len(self.history.steps) > 2 and isinstance(self.forecaster, Kriging):
            usual, smoother = (
                float(torch.linalg.vector_norm(self._weighted(forecaster, step).sub_(denoised)))
                for forecaster in (self.forecaster, self.forecaster.smoother)
            )
            self.smooth.append(smoother < usual)
        share = float((trend * change).sum() / (trend * trend).sum().clamp_min(1e-30))
        self.trusted = share > self.loop.trust
        return Checked(error, share)

    def _again(self, scheduler: Any, step: int, denoised: torch.Tensor) -> torch.Tensor:
        """The sample at `step`, had x₀ gone from the last computed one to this one."""
        assert self.history is not None
        assert self._start is not None
        assert isinstance(self.forecaster, Kriging)
        last = self.history.steps[-1]
        weights = [0.0] * (len(self.history.steps) - 1) + [1.0]
        begun, sample = self.history.forecast(weights), self._start
        vars(scheduler).update(_copied(self._state))
        cls: Any = type(scheduler).__mro__[1]  # not the one that reports to the cache
        for index, call in enumerate(self._calls):
            given = call.arguments
            a, b = _coefficients(scheduler, given["timestep"])
            share = self.forecaster.between(last, step, last + index, self.plan.num_steps)
            target = torch.lerp(begun, denoised, share)
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
