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

All of that is decided for each sample of a batch on its own (dimension 0 of the latents), so that
what becomes of one does not depend on its neighbours.
"""

from __future__ import annotations

import inspect
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from spectrum.forecast import Forecaster, Hold, Kriging
from spectrum.history import FeatureHistory
from spectrum.locate import tensors_of
from spectrum.methods import Loop, kept
from spectrum.schedule import AdaptiveSchedule, Plan
from spectrum.schedulers import denoised_coefficients


@dataclass
class Checked:
    """What a computed step says of the forecasts before it, for each sample.  # [B] both"""

    errors: list[float] | None = None  # ‖forecast − x₀‖ / ‖x₀‖
    trends: list[float] | None = None  # least-squares share of the forecast change that came true


@dataclass
class Trajectory:
    """The way of one scheduler's samples, [B, ...], through one run."""

    forecaster: Forecaster
    loop: Loop
    plan: Plan
    history: FeatureHistory | None = None
    trusted: list[bool] = field(default_factory=list)  # of each sample, whether the trend is
    smooth: list[list[bool]] = field(default_factory=list)  # of each gap and sample, if it was so
    step: int = -1  # the last one taken
    _expected: tuple[int, torch.Tensor] | None = None  # the step that is next, and its forecast
    _calls: list[_Call] = field(default_factory=list)  # since the last computed
    _start: torch.Tensor | None = None  # the samples at the last computed step
    _state: dict[str, Any] = field(default_factory=dict)  # the scheduler's, before it

    def compute(self, scheduler: Any, step: int, call: inspect.BoundArguments) -> Checked:
        """Take in a computed step, and put the corrected samples into the call of `step`."""
        given = call.arguments
        sample, output = given["sample"], given["model_output"]
        a, b = _coefficients(scheduler, given["timestep"])
        denoised = a * sample.float() + b * output.float()
        self.trusted = self.trusted or [True] * len(denoised)
        checked = self._check(step, denoised)
        corrected = self._corrected(checked)
        if self._calls and any(corrected):
            again = self._again(scheduler, step, denoised, corrected)
            towards = ((denoised - a * again.float()) / b).to(output.dtype)
            given["sample"] = sample = _chosen(corrected, again, sample)
            given["model_output"] = _chosen(corrected, towards, output)
        if self.history is None:
            count = capacity(self.plan, step, kept(self.forecaster, self.loop))
            self.history = FeatureHistory(count or 1, torch.float32)
        self.history.append(step, denoised)
        self.step, self._expected = step, None
        if self._corrects:
            self._calls, self._start = [_Call.of(call)], sample.clone()
            self._state = _copied(vars(scheduler))
        return checked

    def release(self) -> None:
        """Give back the memory, after the last step."""
        self.history = self._expected = self._start = None
        self._calls, self._state = [], {}

    def is_finite(self, step: int) -> bool:
        """Whether the forecast for a step can be used."""
        return self.history is None or bool(torch.isfinite(self._forecast(step)).all())

    def forecast(self, scheduler: Any, step: int, call: inspect.BoundArguments) -> bool:
        """Put the forecast output into the call of `step`; False where it is not finite."""
        assert self.history is not None
        given = call.arguments
        a, b = _coefficients(scheduler, given["timestep"])
        denoised, sample = self._forecast(step), given["sample"]
        output = ((denoised - a * sample.float()) / b).to(given["model_output"].dtype)
        if not torch.isfinite(output).all():
            return False
        given["model_output"] = output
        self.step, self._expected = step, None
        if self._corrects:
            self._calls.append(_Call.of(call))
        return True

    @property
    def _corrects(self) -> bool:
        """Whether the way since the last computed step may have to be taken again."""
        return isinstance(self.forecaster, Kriging) and self.loop.correct_above < float("inf")

    def _corrected(self, checked: Checked) -> list[bool]:
        """Of each sample, whether its way since the last computed step is to be taken again; the
        first gap, of which nothing was forecast, only where everything is."""
        if checked.trends is None or not self._corrects:
            everything = self._corrects and self.loop.correct_above == float("-inf")
            return [everything] * len(self.trusted)
        return [
            trusted and trend > self.loop.correct_above
            for trusted, trend in zip(self.trusted, checked.trends, strict=True)
        ]

    @property
    def _trend(self) -> list[Forecaster]:
        """What forecasts each sample where its trend is trusted."""
        usual = self.forecaster
        if not self.loop.adapts or len(self.smooth) < 2 or not isinstance(usual, Kriging):
            return [usual] * len(self.trusted)
        gaps = zip(*self.smooth[-2:], strict=True)
        return [usual.smoother if all(smooth) else usual for smooth in gaps]

    @property
    def _used(self) -> list[Forecaster]:
        pairs = zip(self._trend, self.trusted, strict=True)
        return [trend if trusted else Hold() for trend, trusted in pairs]

    @property
    def nbytes(self) -> int:
        """What is held: x₀, and, to take steps again, the samples at the last computed step and the
        scheduler's memory of them there."""
        stored = self.history.nbytes if self.history else 0
        if self._start is None:
            return stored
        held, shape = tensors_of([self._start, self._state]), self._start.shape
        return stored + sum(tensor.nbytes for tensor in held if tensor.shape == shape)

    def _forecast(self, step: int) -> torch.Tensor:
        """x₀ at a step that is next, worked out once."""
        if self._expected is None or self._expected[0] != step:
            self._expected = step, self._weighted(self._used, step)
        return self._expected[1]

    def _weighted(self, forecasters: Sequence[Forecaster], step: int) -> torch.Tensor:
        """x₀ at `step`, each sample's by its own of the forecasters.  # [B, ...]"""
        assert self.history is not None
        steps, num_steps = self.history.steps, self.plan.num_steps
        return self.history.forecast_each(
            [forecaster.weights(steps, step, num_steps).tolist() for forecaster in forecasters]
        )

    def _check(self, step: int, denoised: torch.Tensor) -> Checked:
        """How well the last gap was forecast, and whether the next forecasts trust the trend."""
        if self.history is None:
            return Checked()
        batch = len(denoised)
        held = self._weighted([Hold()] * batch, step)
        trend, change = self._weighted(self._trend, step).sub_(held), denoised - held
        miss = _chosen(self.trusted, change - trend, change)
        errors = (_norms(miss) / _norms(denoised)).tolist()
        if len(self.history.steps) < 2:
            return Checked(errors)
        if len(self.history.steps) > 2 and isinstance(self.forecaster, Kriging):
            usual, smoother = (
                _norms(self._weighted([forecaster] * batch, step).sub_(denoised))
                for forecaster in (self.forecaster, self.forecaster.smoother)
            )
            self.smooth.append((smoother < usual).tolist())
        shares = (_sums(trend * change) / _sums(trend * trend).clamp_min(1e-30)).tolist()
        self.trusted = [share > self.loop.trust for share in shares]
        return Checked(errors, shares)

    def _again(
        self, scheduler: Any, step: int, denoised: torch.Tensor, corrected: list[bool]
    ) -> torch.Tensor:
        """The samples at `step`, had x₀ gone from the last computed one to this one.

        Of those that are not corrected, the scheduler remembers what it did.
        """
        assert self.history is not None
        assert self._start is not None
        assert isinstance(self.forecaster, Kriging)
        last = self.history.steps[-1]
        begun, sample = self._weighted([Hold()] * len(denoised), step), self._start
        state = _copied(vars(scheduler))
        vars(scheduler).update(_copied(self._state))
        cls: Any = type(scheduler).__mro__[1]  # not the one that reports to the cache
        for index, call in enumerate(self._calls):
            a, b = _coefficients(scheduler, call.timestep)
            share = self.forecaster.between(last, step, last + index, self.plan.num_steps)
            target = torch.lerp(begun, denoised, share)
            output = ((target - a * sample.float()) / b).to(call.dtype)
            sample = next(tensors_of(call.repeat(cls, output, sample)))
        if not all(corrected):
            ours = vars(scheduler)
            ours.update({k: _merged(corrected, v, state.get(k), sample) for k, v in ours.items()})
        return sample


@dataclass(frozen=True)
class _Call:
    """A call of scheduler.step without its latents, which differ when it is repeated."""

    bound: inspect.BoundArguments
    dtype: torch.dtype  # of the output that it was given

    @classmethod
    def of(cls, call: inspect.BoundArguments) -> _Call:
        kept = OrderedDict(call.arguments, sample=None, model_output=None)
        dtype = call.arguments["model_output"].dtype
        return cls(inspect.BoundArguments(call.signature, kept), dtype)

    @property
    def timestep(self) -> Any:
        return self.bound.arguments["timestep"]

    def repeat(self, cls: Any, output: torch.Tensor, sample: torch.Tensor) -> Any:
        given = OrderedDict(self.bound.arguments, sample=sample, model_output=output)
        call = inspect.BoundArguments(self.bound.signature, given)
        return cls.step(*call.args, **call.kwargs)


def capacity(plan: Plan, step: int, keeps: int | None) -> int:
    """How many features, or x₀, are held at once for the denoiser that runs at `step` and a
    forecaster that looks at `keeps`."""
    if isinstance(plan.schedule, AdaptiveSchedule):  # most computed steps are found on the way
        return plan.num_steps if keeps is None else keeps
    return plan.features_kept_at(step, keeps)


def _coefficients(scheduler: Any, timestep: Any) -> tuple[float, float]:
    found = denoised_coefficients(scheduler, timestep)
    assert found is not None  # asked before the run began
    return found


def _copied(state: dict[str, Any]) -> dict[str, Any]:
    """Lists are written to by multistep schedulers; tensors are replaced."""
    return {k: list(v) if isinstance(v, list) else v for k, v in state.items()}


def _merged(chosen: list[bool], ours: Any, theirs: Any, sample: torch.Tensor) -> Any:
    """A value of a scheduler's state: ours for the chosen samples, theirs for the others."""
    if isinstance(ours, list) and isinstance(theirs, list):
        return [_merged(chosen, *pair, sample) for pair in zip(ours, theirs, strict=True)]
    if isinstance(ours, torch.Tensor) and ours.shape == sample.shape:
        return _chosen(chosen, ours, theirs)
    return ours  # no sample's own: both passes took the same steps


def _chosen(chosen: list[bool], ours: torch.Tensor, theirs: torch.Tensor) -> torch.Tensor:
    """Ours for the chosen samples, theirs for the others.  # [B, ...] all"""
    if all(chosen) or not any(chosen):
        return ours if all(chosen) else theirs
    rows = torch.tensor(chosen, device=ours.device)
    return torch.where(rows.view(-1, *[1] * (ours.ndim - 1)), ours, theirs)


def _norms(batch: torch.Tensor) -> torch.Tensor:
    """Sample by sample, as rounding would depend on the neighbours otherwise.  # [B]"""
    return torch.stack([torch.linalg.vector_norm(one) for one in batch])


def _sums(batch: torch.Tensor) -> torch.Tensor:
    return torch.stack([one.sum() for one in batch])  # [B]
