"""What a run did: one record a step, and the figures that follow from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol


class Interval(Protocol):
    """A time that a device takes, known when the device has got so far."""

    @property
    def seconds(self) -> float:
        """Waits for the device."""


@dataclass(frozen=True)
class Step:
    """One solver step that has ended.

    `error` is, for a computed step with at least two computed before it, the relative error
    ‖forecast − feature‖ / ‖feature‖ that the forecast would have made there (the largest of the
    guidance branches, or of the samples of a batch): how far to trust the steps that were forecast.
    `trend`, where the output is forecast, is the share of the forecast change that came true (the
    smallest of a batch). `note` says why a step that the plan would have forecast was computed.
    """

    index: int
    computed: bool
    took: float | Interval
    error: float | None = None
    note: str | None = None
    trend: float | None = None
    calls: int = 0  # of denoisers: guidance branches, times the stages of the solver

    @property
    def seconds(self) -> float:
        """On the device, from the first call of a denoiser to the end of the scheduler's step."""
        return self.took if isinstance(self.took, float) else self.took.seconds


@dataclass
class Report:
    """One run of the pipeline under the cache."""

    num_steps: int
    planned_steps: Sequence[int]
    steps: list[Step] = field(default_factory=list)
    stored_bytes: int = 0  # all that is kept of earlier steps, at its fullest
    adaptive: bool = False  # planned_steps grows as the run goes
    caution: str | None = None  # why the plan is not the one that was asked for
    scale: float | None = None  # S of the run's size (`spectrum.timeline`)

    @property
    def computed_steps(self) -> list[int]:
        return [step.index for step in self.steps if step.computed]

    @property
    def forecast_steps(self) -> list[int]:
        return [step.index for step in self.steps if not step.computed]

    @property
    def notes(self) -> list[str]:
        """What did not go as asked or planned, a sentence each."""
        notes = [f"step {step.index}: {step.note}" for step in self.steps if step.note]
        return [self.caution, *notes] if self.caution else notes

    @property
    def finished(self) -> bool:
        return len(self.steps) >= self.num_steps

    @property
    def denoise_seconds(self) -> float:
        return sum(step.seconds for step in self.steps)

    @property
    def planned_speedup(self) -> float:
        """Steps over planned computed steps: what it would be if forecasts took no time."""
        return self.num_steps / len(self.planned_steps)

    @property
    def estimated_speedup(self) -> float | None:
        """Mean computed step × steps, over the time all steps took; None before the first.

        No plain run is timed for it: a computed step keeps and checks more than a plain one, so
        this is a few per cent too much.
        """
        computed = [step.seconds for step in self.steps if step.computed]
        if not computed or not self.denoise_seconds:
            return None
        return sum(computed) / len(computed) * len(self.steps) / self.denoise_seconds


def joined(reports: Sequence[Report]) -> Report:
    """Of all runs of one call, as one: their steps are counted on from run to run. Most pipelines
    take one run; some have one for each chunk of a film."""
    if len(reports) == 1:
        return reports[0]
    whole = replace(reports[-1], num_steps=0, planned_steps=[], steps=[])
    for report in reports:
        before = whole.num_steps
        whole.num_steps += report.num_steps
        planned = [before + step for step in report.planned_steps]
        whole.planned_steps = [*whole.planned_steps, *planned]
        whole.steps += [replace(step, index=before + step.index) for step in report.steps]
        whole.stored_bytes = max(whole.stored_bytes, report.stored_bytes)
        whole.caution = whole.caution or report.caution
    return whole
