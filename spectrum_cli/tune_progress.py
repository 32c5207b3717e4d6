"""What is seen of a search under way: phase, runs and time."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from spectrum.tune.watch import Watch
from spectrum.words import counted
from spectrum_cli.output import console, human_seconds, printable, say

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.live import Live

    from spectrum.report import Report, Step

EVERY = 30.0  # seconds between lines where there is no terminal


class SearchDisplay(Watch):
    """Redrawn in place on a terminal, plain lines where there is none."""

    def __init__(self, title: str, quiet: bool) -> None:
        self.title, self.quiet = title, quiet
        self.text = "load"
        self.limit = self.seconds = 0.0
        self.runs = 0
        self.report: Report | None = None
        self.said = time.monotonic()
        self.live: Live | None = None

    def __enter__(self) -> SearchDisplay:
        if not self.quiet and console().is_terminal and not console().is_dumb_terminal:
            from rich.live import Live

            self.live = Live(self, console=console(), refresh_per_second=4, transient=True)
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.live is not None:
            self.live.stop()

    def estimated(self, step: float, runs: int, whole: float, limit: float) -> None:
        self.limit = limit
        if not self.quiet:
            say(
                f"a computed step takes {human_seconds(step)}; the full search"
                f" is about {runs} runs, {human_seconds(whole)}; it ends"
                f" after {human_seconds(limit)} at the latest (--minutes)"
            )

    def phase(self, text: str) -> None:
        self.text = text
        self._line()

    def ran(self, runs: int, seconds: float) -> None:
        self.runs, self.seconds = runs, seconds
        if time.monotonic() - self.said > EVERY:
            self._line()

    def on_step(self, report: Report, step: Step | None) -> None:
        del step
        self.report = report

    def _line(self) -> None:
        self.said = time.monotonic()
        if not self.quiet and self.live is None:
            say(f"{self.text}; {counted(self.runs, 'run')}, {human_seconds(self.seconds)}")

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.text import Text

        yield Text(printable(self.title), style="bold", no_wrap=True, overflow="ellipsis")
        line = Text(self.text)
        if self.report is not None:
            line.append(f"  step {len(self.report.steps)}/{self.report.num_steps}", "dim")
        yield line
        spent = Text(f"{counted(self.runs, 'run')}  {human_seconds(self.seconds)}", style="cyan")
        if self.limit:
            spent.append(f" of at most {human_seconds(self.limit)}", "dim")
        yield spent
