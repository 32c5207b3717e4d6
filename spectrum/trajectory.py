"""Forecasting the denoised sample between computed steps.

At a computed step the model's output says where the sample is headed: x₀. Between computed steps
x₀ is forecast, and the output that the scheduler is given follows from it and the sample at
hand. That keeps the stiff part of the flow, the pull towards x₀, exact, as exponential integrators
do (DPM-Solver++, 2211.01095), where an extrapolated velocity overshoots.

This is the open loop: nothing that is measured changes what comes. `spectrum.closed_loop` has the
one that is checked and corrected at each computed step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from inspect import BoundArguments
from typing import Any

import torch

from spectrum.forecast import Forecaster
from spectrum.history import FeatureHistory
from spectrum.parallel import own_norm
from spectrum.plan import Plan
from spectrum.schedulers import Coefficients
from spectrum.storage import Storage

_ON_DEVICE = Storage("device")  # x₀ is as large as the latents


@dataclass
class Checked:
    """What a computed step says of the forecasts before it, for each sample.  # [B] both"""

    errors: list[float] | None = None  # ‖forecast − x₀‖ / ‖x₀‖
    trends: list[float] | None = None  # least-squares share of the forecast change that came true


class Trajectory:
    """The way of one scheduler's samples, [B, ...], through one run, in an open loop."""

    def __init__(self, forecaster: Forecaster, plan: Plan) -> None:
        self.plan = plan
        self.history: FeatureHistory | None = None
        self.step = -1  # the last one taken
        self._forecaster = forecaster

    @property
    def keeps(self) -> int | None:
        """How many of the newest x₀ are stored; None means all of them."""
        return self._forecaster.keeps

    @property
    def nbytes(self) -> int:
        return self.history.nbytes if self.history else 0

    def compute(
        self, scheduler: Any, step: int, call: BoundArguments, coefficients: Coefficients
    ) -> Checked:
        """Take in a computed step, whose call of scheduler.step is about to be made."""
        (a, b, _), given = coefficients, call.arguments
        denoised = a * given["sample"].float() + b * given["model_output"].float()
        checked = Checked()
        if self.history is not None:
            checked = self.check(denoised, self.expected(step), [True] * len(denoised))
        self.store(step, denoised)
        return checked

    def store(self, step: int, denoised: torch.Tensor) -> None:
        """Remember x₀ at a computed step."""
        if self.history is None:
            count = self.plan.features_kept_at(step, self.keeps)
            self.history = FeatureHistory(count or 1, torch.float32, _ON_DEVICE, own_norm)
        self.history.append(step, denoised)
        self.step = step

    def forecast(
        self,
        step: int,
        call: BoundArguments,
        coefficients: Coefficients,
        moved: torch.Tensor | None = None,
    ) -> None:
        """Put the forecast output into the call of `step`; `moved` is by how much somebody has
        changed the sample, which x₀ follows."""
        (a, b, response), given = coefficients, call.arguments
        denoised, sample = self.expected(step), given["sample"]
        if moved is not None:
            denoised = denoised + response * moved.float()
        given["model_output"] = ((denoised - a * sample.float()) / b).to(
            given["model_output"].dtype
        )
        self.step = step

    def is_of(self, sample: torch.Tensor) -> bool:
        """Whether samples of this shape are what it has gone with so far."""
        return self.history is None or self.history.newest.shape == sample.shape

    def is_finite(self, step: int) -> bool:
        """Whether the forecast for a step is sure to be so."""
        if self.history is None:
            return True
        return all(self.history.fits(weights) for weights in self.rows(step))

    def expected(self, step: int) -> torch.Tensor:
        """The forecast of x₀ for `step`.  # [B, ...]"""
        assert self.history is not None
        return self.history.forecast_each(self.rows(step))

    def rows(self, step: int) -> list[list[float]]:
        """Weights on the stored x₀, of each sample its own.  # [B, K]"""
        assert self.history is not None
        return [self.weights(self._forecaster, step)] * len(self.history.newest)

    def weights(self, forecaster: Forecaster, step: int) -> list[float]:
        """A forecaster's weights on the stored x₀.  # [K]"""
        assert self.history is not None
        return list(forecaster.weights(self.history.steps, step, self.plan.timeline).tolist())

    def check(
        self, denoised: torch.Tensor, trend: torch.Tensor, trusted: Sequence[bool]
    ) -> Checked:
        """How well the last gap was forecast, the samples that are not trusted having been held."""
        assert self.history is not None
        held = self.history.newest
        forecast, change = trend - held, denoised - held
        miss = chosen(trusted, change - forecast, change)
        errors = (norms(miss) / norms(denoised)).tolist()
        if len(self.history.steps) < 2:
            return Checked(errors)
        squares = _sums(forecast * forecast).clamp_min(1e-30)
        return Checked(errors, (_sums(forecast * change) / squares).tolist())

    def release(self) -> None:
        """Give back the memory, after the last step."""
        self.history = None


def chosen(rows: Sequence[bool], ours: torch.Tensor, theirs: torch.Tensor) -> torch.Tensor:
    """Ours for the chosen samples, theirs for the others.  # [B, ...] all"""
    if all(rows) or not any(rows):
        return ours if all(rows) else theirs
    mask = torch.tensor(rows, device=ours.device)
    return torch.where(mask.view(-1, *[1] * (ours.ndim - 1)), ours, theirs)


def norms(batch: torch.Tensor) -> torch.Tensor:
    """Sample by sample, as rounding would depend on the neighbours otherwise.  # [B]"""
    return torch.stack([torch.linalg.vector_norm(one) for one in batch])


def _sums(batch: torch.Tensor) -> torch.Tensor:
    return torch.stack([one.sum() for one in batch])  # [B]
