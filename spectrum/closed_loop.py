"""Forecasts of the denoised sample, checked and corrected at each computed step.

The next computed step says where x₀ really went. How x₀ moves depends on the model: where the
last two gaps came out as a smoother way would have it, the next one is forecast by that; where the
trend was reversed, x₀ is held. If x₀ went the way that was forecast, the steps since the last
computed one are taken again with x₀ interpolated between the two: a corrector without another call
of the model (its idea is UniPC's, 2302.04867). The scheduler itself takes them, so this works for
any that is deterministic. That moves the sample from where the model was called, and x₀ with it: a
mode of variance v follows by v/(v + ρ²) of the sample's move in y = x/α. Most wrong is what is just
being decided, v ≈ ρ², which follows by a half; where ρ is high nothing is, and x₀ stays. Taken
together it moves by about 1/(2 + ρ).

All of that is decided for each sample of a batch on its own (dimension 0 of the latents), so that
what becomes of one does not depend on its neighbours.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from inspect import BoundArguments
from typing import Any

import torch

from spectrum.denoiser import tensors_of
from spectrum.forecast import Forecaster, Hold
from spectrum.gaussian import Loop
from spectrum.plan import Plan
from spectrum.schedulers import Coefficients
from spectrum.trajectory import Checked, Trajectory, chosen, norms


class ClosedLoop(Trajectory):
    """The way of one scheduler's samples, [B, ...], through one run."""

    def __init__(self, loop: Loop, plan: Plan) -> None:
        super().__init__(loop.gaussian, plan)
        self.trusted: list[bool] = []  # of each sample, whether the trend is
        self.smooth: list[list[bool]] = []  # of each gap and sample, if it was so
        self._loop, self._gaussian = loop, loop.gaussian
        self._calls: list[_Taken] = []  # since the last computed
        self._start: torch.Tensor | None = None  # the samples at the last computed step
        self._state: dict[str, Any] = {}  # the scheduler's, before it

    @property
    def keeps(self) -> int | None:
        return self._loop.keeps

    @property
    def nbytes(self) -> int:
        """What is held: x₀, and, to take steps again, the samples at the last computed step and the
        scheduler's memory of them there."""
        if self._start is None:
            return super().nbytes
        held, shape = tensors_of([self._start, self._state]), self._start.shape
        return super().nbytes + sum(tensor.nbytes for tensor in held if tensor.shape == shape)

    def compute(
        self, scheduler: Any, step: int, call: BoundArguments, coefficients: Coefficients
    ) -> Checked:
        """Take in a computed step, and put the corrected samples into the call of `step`."""
        (a, b, response), given = coefficients, call.arguments
        sample, output = given["sample"], given["model_output"]
        denoised = a * sample.float() + b * output.float()
        self.trusted = self.trusted or [True] * len(denoised)
        checked = self._checked(step, denoised)
        corrected = self._corrected(checked)
        if self._calls and any(corrected):
            again = self._again(scheduler, step, denoised, corrected)
            moved = (again - sample).float()
            denoised = chosen(corrected, denoised + response * moved, denoised)
            towards = ((denoised - a * again.float()) / b).to(output.dtype)
            given["sample"] = sample = chosen(corrected, again, sample)
            given["model_output"] = chosen(corrected, towards, output)
        self.store(step, denoised)
        if self._corrects:
            self._calls, self._start = [_Taken.of(call, coefficients)], sample.clone()
            self._state = _copied(vars(scheduler))
        return checked

    def forecast(
        self,
        step: int,
        call: BoundArguments,
        coefficients: Coefficients,
        moved: torch.Tensor | None = None,
    ) -> None:
        super().forecast(step, call, coefficients, moved)
        if self._corrects:
            self._calls.append(_Taken.of(call, coefficients))

    def rows(self, step: int) -> list[list[float]]:
        """By what each sample is trusted to: the usual trend, the smoother one, or none."""
        held = self.weights(Hold(), step)
        usual = smoother = self.weights(self._gaussian, step)
        if any(self._goes_smoothly):
            smoother = self.weights(self._gaussian.smoother, step)
        pairs = zip(self.trusted, self._goes_smoothly, strict=True)
        return [(smoother if smooth else usual) if trust else held for trust, smooth in pairs]

    def release(self) -> None:
        super().release()
        self._calls, self._start, self._state = [], None, {}

    @property
    def _corrects(self) -> bool:
        """Whether the way since the last computed step may have to be taken again."""
        return self._loop.correct_above < float("inf")

    @property
    def _goes_smoothly(self) -> list[bool]:
        """Of each sample, whether its last two gaps came out as the smoother forecast had them."""
        if not self._loop.adapts or len(self.smooth) < 2:
            return [False] * len(self.trusted)
        return [all(gaps) for gaps in zip(*self.smooth[-2:], strict=True)]

    def _checked(self, step: int, denoised: torch.Tensor) -> Checked:
        """How well the last gap was forecast, and whether the next forecasts trust the trend."""
        if self.history is None:
            return Checked()
        usual = smoother = self._forecast(self._gaussian, step)
        compares = self._loop.adapts and len(self.history.steps) > 2
        if compares:
            smoother = self._forecast(self._gaussian.smoother, step)
        trend = chosen(self._goes_smoothly, smoother, usual)
        checked = self.check(denoised, trend, self.trusted)
        if compares:
            better = norms(smoother - denoised) < norms(usual - denoised)
            self.smooth.append(better.tolist())
        if checked.trends is not None:
            self.trusted = [share > self._loop.trust for share in checked.trends]
        return checked

    def _forecast(self, forecaster: Forecaster, step: int) -> torch.Tensor:
        """x₀ at `step` by one forecaster for all samples.  # [B, ...]"""
        assert self.history is not None
        return self.history.forecast_each([self.weights(forecaster, step)] * len(self.trusted))

    def _corrected(self, checked: Checked) -> list[bool]:
        """Of each sample, whether its way since the last computed step is to be taken again; the
        first gap, of which nothing was forecast, only where everything is."""
        if checked.trends is None or not self._corrects:
            everything = self._corrects and self._loop.correct_above == float("-inf")
            return [everything] * len(self.trusted)
        return [
            trusted and trend > self._loop.correct_above
            for trusted, trend in zip(self.trusted, checked.trends, strict=True)
        ]

    def _again(
        self, scheduler: Any, step: int, denoised: torch.Tensor, corrected: list[bool]
    ) -> torch.Tensor:
        """The samples at `step`, had x₀ gone from the last computed one to this one.

        Of those that are not corrected, the scheduler remembers what it did.
        """
        assert self.history is not None
        assert self._start is not None
        last, begun, sample = self.history.steps[-1], self.history.newest, self._start
        state = _copied(vars(scheduler))
        vars(scheduler).update(_copied(self._state))
        cls: Any = type(scheduler).__mro__[1]  # not the one that reports to the cache
        for index, taken in enumerate(self._calls):
            a, b, _ = taken.coefficients
            share = self._gaussian.between(last, step, last + index, self.plan.timeline)
            target = torch.lerp(begun, denoised, share)
            output = ((target - a * sample.float()) / b).to(taken.dtype)
            sample = next(tensors_of(taken.repeat(cls, output, sample)))
        if not all(corrected):
            ours = vars(scheduler)
            ours.update({k: _merged(corrected, v, state.get(k), sample) for k, v in ours.items()})
        return sample


@dataclass(frozen=True)
class _Taken:
    """A call of scheduler.step without its latents, which differ when it is repeated."""

    bound: BoundArguments
    coefficients: Coefficients
    dtype: torch.dtype  # of the output that it was given

    @classmethod
    def of(cls, call: BoundArguments, coefficients: Coefficients) -> _Taken:
        kept = OrderedDict(call.arguments, sample=None, model_output=None)
        dtype = call.arguments["model_output"].dtype
        return cls(BoundArguments(call.signature, kept), coefficients, dtype)

    def repeat(self, cls: Any, output: torch.Tensor, sample: torch.Tensor) -> Any:
        given = OrderedDict(self.bound.arguments, sample=sample, model_output=output)
        call = BoundArguments(self.bound.signature, given)
        return cls.step(*call.args, **call.kwargs)


def _copied(state: dict[str, Any]) -> dict[str, Any]:
    """Lists are written to by multistep schedulers; tensors are replaced."""
    return {k: list(v) if isinstance(v, list) else v for k, v in state.items()}


def _merged(rows: list[bool], ours: Any, theirs: Any, sample: torch.Tensor) -> Any:
    """A value of a scheduler's state: ours for the chosen samples, theirs for the others."""
    if isinstance(ours, list) and isinstance(theirs, list):
        return [_merged(rows, *pair, sample) for pair in zip(ours, theirs, strict=True)]
    if isinstance(ours, torch.Tensor) and ours.shape == sample.shape:
        return chosen(rows, ours, theirs)
    return ours  # no sample's own: both passes took the same steps
