"""What is told of a search under way; without torch, so that a user interface starts quickly."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from spectrum.report import Report, Step
    from spectrum.tune.bench import Bench
    from spectrum.tune.budget import Estimate


class Watch:
    """Says nothing; a user interface overrides what it wants."""

    def estimated(self, estimate: Estimate, limit: float) -> None:
        """Before the search; `limit` in seconds is how long it will go on."""

    def phase(self, text: str) -> None:
        """Something new begins."""

    def ran(self, bench: Bench) -> None:
        """A run has ended, or was found among the recorded ones."""

    def on_step(self, report: Report, step: Step | None) -> None:
        """Every step of every run: see `spectrum.SpectralCache`."""
