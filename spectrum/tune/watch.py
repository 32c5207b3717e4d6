"""What is told of a search under way; without torch, so that a user interface starts quickly."""

from __future__ import annotations

from spectrum.report import Report, Step


class Watch:
    """Says nothing; a user interface overrides what it wants."""

    def estimated(self, step: float, runs: int, whole: float, limit: float) -> None:
        """Before the search: seconds of a computed step, about how many runs and seconds the full
        search takes, and how many seconds it will go on at most."""

    def phase(self, text: str) -> None:
        """Something new begins."""

    def ran(self, runs: int, seconds: float) -> None:
        """A run has ended, or was found among the recorded ones: the number so far."""

    def on_step(self, report: Report, step: Step | None) -> None:
        """Every step of every run: see `spectrum.SpectralCache`."""
