"""Methods by name: a forecaster and the family of schedules that goes with it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Literal

from spectrum.errors import UsageError
from spectrum.forecast import (
    AffineRidge,
    ChebyshevRidge,
    Extrapolation,
    Forecaster,
    Hold,
    TaylorSeer,
)
from spectrum.gaussian import STEADY, Kriging, Loop
from spectrum.plan import Plan, Planner, make_plan
from spectrum.schedule import Schedule
from spectrum.timeline import UNIT_POSITIONS, Timeline, scale_of, unit_scale

DEFAULT_METHOD = "spectrum"

# What is forecast: the hidden feature before the head, as published, or the denoised sample, by way
# of what the scheduler is given, which needs no part of the denoiser and little memory.
Target = Literal["feature", "denoised"]

# Where features are kept. auto: on their own device, until its memory is full.
HistoryPlace = Literal["auto", "device", "host"]


@dataclass(frozen=True)
class Method:
    """How to forecast, and how the planner spends the computed steps."""

    name: str
    forecaster: Forecaster
    planner: Planner
    target: Target = "feature"
    loop: Loop | None = None  # closes the loop where the denoised sample is forecast
    scale: float | None = None  # S of 64 latent positions; None: by what the model predicts

    @property
    def keeps(self) -> int | None:
        """How many of the newest features, or of x₀, are stored; None means all of them."""
        if self.loop is not None and self.target == "denoised":
            return self.loop.keeps
        return self.forecaster.keeps

    def run_scale(self, positions: int, predicts_noise: bool = False) -> float:
        """S of a run with so many latent positions, 0 where their number is unknown."""
        unit = unit_scale(predicts_noise) if self.scale is None else self.scale
        return scale_of(positions or UNIT_POSITIONS, unit)

    def plan(self, timeline: Timeline, speedup: float, schedule: Schedule | None = None) -> Plan:
        """The plan of a run: by the schedule, if one is given, or by the method's own planner.

        Raises UsageError for a speedup that can't be had.
        """
        if schedule is not None:
            return make_plan(schedule, timeline)
        return self.planner.plan(timeline, speedup)


_ALL = (
    # The denoised sample by Gaussian regression, corrected at each computed step; computed are the
    # steps that leave the least expected error. What is measured in the run decides on trust.
    Method(
        "spectrum",
        Kriging(),
        Planner("least", warmup=1),
        target="denoised",
        loop=Loop(),
    ),
    # First-order extrapolation of the feature between evenly spaced computed steps, with the last.
    Method(
        "even",
        Extrapolation(order=1),
        # A second step computed at once would give the first long forecasts a slope over one
        # step: 13 dB worse than this on demo-image.
        Planner("even", warmup=1, protect_last=1),
    ),
    # The paper: Chebyshev ridge, five warm-up steps, growing windows, no protected end.
    Method(
        "published",
        ChebyshevRidge(axis=50),
        Planner("window", warmup=5, protect_last=0),
    ),
    # The paper's schedule and ridge, but weights that sum to 1 and a computed last step.
    Method(
        "affine",
        AffineRidge(),
        Planner("window", warmup=5, protect_last=1),
    ),
    # TaylorSeer of order 1 on evenly spaced computed steps.
    Method(
        "taylor1",
        TaylorSeer(order=1),
        Planner("even", warmup=1, protect_last=0),
    ),
    # TaylorSeer of order 2 on evenly spaced computed steps.
    Method(
        "taylor2",
        TaylorSeer(order=2),
        Planner("even", warmup=1, protect_last=0),
    ),
    # Repeat the newest computed feature on evenly spaced computed steps.
    Method(
        "hold",
        Hold(),
        Planner("even", warmup=1, protect_last=1),
    ),
)

METHODS = {method.name: method for method in _ALL}


def tuned_method(length: float, trust: float) -> Method:
    """The default method with what calibration found for a model."""
    gaussian = Kriging(replace(STEADY, length=length))
    loop = Loop(gaussian, trust=trust)
    return replace(METHODS[DEFAULT_METHOD], forecaster=gaussian, loop=loop)


def get_method(name: str, blend: float | None = None) -> Method:
    """The method of that name; `blend` is the ridge's share against first-order extrapolation.

    Raises UsageError for an unknown name, and for a blend where there is no ridge to blend.
    """
    method = METHODS.get(name)
    if method is None:
        nearest = get_close_matches(name, METHODS, n=1, cutoff=0)[0]
        raise UsageError(
            f"no method {name!r}; did you mean {nearest!r}? There are: {', '.join(METHODS)}"
        )
    if blend is None:
        return method
    if not isinstance(method.forecaster, ChebyshevRidge):
        raise UsageError(
            f"method {name!r} has no ridge to blend; blend goes with 'published' and 'affine'"
        )
    if not 0 <= blend <= 1:
        raise UsageError(f"blend is a share between 0 and 1, not {blend:g}")
    return replace(method, forecaster=replace(method.forecaster, blend=blend))
