"""What a batch tells while it works."""

from __future__ import annotations

from dataclasses import dataclass

from spectrum.batch.jobs import Job
from spectrum.batch.manifest import Record
from spectrum.report import Report, Step


@dataclass(frozen=True)
class Ended:
    """A job that has ended: made or failed `now`, in this process, or found so."""

    job: Job
    record: Record
    now: bool


class Watch:
    """What is told of the job under way. This one tells nobody."""

    def begin(self, job: Job, more: int = 0) -> None:
        """A job is ours, and is being made, with so many more in the same call."""

    def stage(self, name: str) -> None:
        """One of load, encode and write; `on_step` tells the others."""

    def on_step(self, report: Report, step: Step | None) -> None:
        """As `spectrum.SpectralCache` tells its listener."""

    def waiting(self, count: int) -> None:
        """Nothing is left but what other processes are making."""
