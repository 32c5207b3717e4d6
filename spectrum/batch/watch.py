"""What a batch tells while it works."""

from __future__ import annotations

from dataclasses import dataclass

from spectrum.batch.jobs import Job
from spectrum.batch.manifest import Record
from spectrum.report import Report, Step


@dataclass(frozen=True)
class Look:
    """How far a job is that another process makes: the stage, and a copy of its report."""

    stage: str = "load"
    report: Report | None = None


@dataclass(frozen=True)
class Ended:
    """A job that has ended: made or failed `now`, in this process, or found so."""

    job: Job
    record: Record
    now: bool


class Watch:
    """What is told of the jobs under way. This one tells nobody."""

    def begin(self, job: Job, more: int = 0) -> None:
        """A job is ours, and is being made, with so many more in the same call."""

    def stage(self, name: str) -> None:
        """One of load, encode and write; `on_step` tells the others."""

    def on_step(self, report: Report, step: Step | None) -> None:
        """As `spectrum.SpectralCache` tells its listener."""

    def waiting(self, count: int) -> None:
        """Nothing is left but what other processes are making."""

    def seen(self, job: Job, look: Look) -> None:
        """How far one of our other processes is with its job; instead of `stage` and `on_step`."""

    def lost(self, job: Job, died: bool) -> None:
        """None of ours is making it any more: the process died, or it is another's job."""
