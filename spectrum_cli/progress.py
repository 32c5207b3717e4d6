"""What a user sees while a model works: stages, and a mark for every solver step."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from spectrum_cli.output import console, human_seconds, printable, say

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.live import Live
    from rich.text import Text

    from spectrum.report import Report, Step

STAGES = ("load", "encode", "denoise", "decode", "write")
COMPUTED, FORECAST = "bold cyan", "yellow"


@dataclass(frozen=True)
class Marks:
    """A mark a step; computed and forecast differ in shape too, for those without colours."""

    computed: str
    forecast: str
    pending: str


def marks(encoding: str) -> Marks:
    return Marks("●", "○", "·") if encoding.lower().startswith("utf") else Marks("#", "o", ".")


@dataclass
class Denoising:
    """Progress of one run, in figures."""

    report: Report
    began: float

    @property
    def elapsed(self) -> float:
        return time.perf_counter() - self.began

    def _mean(self, computed: bool) -> float | None:
        seconds = [step.seconds for step in self.report.steps if step.computed is computed]
        return sum(seconds) / len(seconds) if seconds else None

    @property
    def remaining(self) -> float | None:
        """By the plan: so many computed and so many forecast steps are still to come."""
        mean = self._mean(computed=True)
        if mean is None:
            return None
        left = range(len(self.report.steps), self.report.num_steps)
        computed = sum(step in self.report.planned_steps for step in left)
        return mean * computed + (self._mean(computed=False) or 0.0) * (len(left) - computed)

    @property
    def saved(self) -> float:
        """Against computing the steps that were forecast."""
        mean = self._mean(computed=True) or 0.0
        forecast = [step.seconds for step in self.report.steps if not step.computed]
        return max(0.0, mean * len(forecast) - sum(forecast))


@dataclass
class Progress:
    """Stages and steps on a terminal, redrawn in place; plain lines where there is none."""

    title: str
    quiet: bool = False
    brief: bool = False  # the title and the marks alone
    seconds: dict[str, float] = field(default_factory=dict)  # of ended stages
    _stage: str | None = None
    _began: float = 0.0
    _denoising: Denoising | None = None
    _live: Live | None = None

    @property
    def _drawn(self) -> bool:
        return not self.quiet and console().is_terminal and not console().is_dumb_terminal

    def __enter__(self) -> Progress:
        if self._drawn:
            from rich.live import Live

            self._live = Live(self, console=console(), refresh_per_second=10)
            self._live.start()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self._end_stage()
        if self._live is not None:
            self._live.stop()

    def stage(self, name: str) -> None:
        """Begin a stage, and end the one before."""
        self._end_stage()
        self._stage, self._began = name, time.perf_counter()

    def on_step(self, report: Report, step: Step | None) -> None:
        """The cache's listener: see `spectrum.SpectralCache`."""
        if step is None:
            self.stage("denoise")
            self._denoising = Denoising(report, self._began)
            if not self.quiet and not self._drawn:
                planned = f"{len(report.planned_steps)} of them computed"
                planned = "computed where needed" if report.adaptive else planned
                say(f"denoise: {report.num_steps} steps, {planned}")
        if report.finished:
            self.stage("decode")

    def follow(self, stage: str, report: Report | None) -> None:
        """The same of a run in another process, of which a copy comes now and then."""
        if stage != self._stage:
            self.stage(stage)
        if report and self._denoising is None:
            self._denoising = Denoising(report, self._began)
        elif report and self._denoising:
            self._denoising.report = report

    def _end_stage(self) -> None:
        stage, self._stage = self._stage, None
        if stage is None:
            return
        self.seconds[stage] = time.perf_counter() - self._began
        if not self.quiet and not self._drawn:
            say(f"{stage}: {human_seconds(self.seconds[stage])}")

    # -- drawing ---------------------------------------------------------------------------------

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.text import Text

        title = Text(printable(self.title), style="bold", no_wrap=True)
        title.truncate(options.max_width, overflow="ellipsis")
        yield title
        if not self.brief:
            yield self._stages()
        if self._denoising is not None:
            yield _row_of_marks(self._denoising.report, marks(options.encoding))
        if self._denoising is not None and not self.brief:
            yield _figures(self._denoising, "denoise" in self.seconds)

    def _stages(self) -> Text:
        from rich.text import Text

        line = Text()
        for name in STAGES:
            if name in self.seconds:
                line.append(f"{name} {human_seconds(self.seconds[name])}", style="green")
            elif name == self._stage:
                elapsed = time.perf_counter() - self._began
                line.append(f"{name} {human_seconds(elapsed)}…", style="bold")
            else:
                line.append(name, style="dim")
            line.append("  ")
        return line


def _row_of_marks(report: Report, mark: Marks) -> Text:
    from rich.text import Text

    row = Text(overflow="fold")
    for step in report.steps:
        if step.computed:
            row.append(mark.computed, style=COMPUTED)
        else:
            row.append(mark.forecast, style=FORECAST)
    row.append(mark.pending * (report.num_steps - len(report.steps)), style="dim")
    return row


def _figures(run: Denoising, ended: bool) -> Text:
    from rich.text import Text

    report = run.report
    computed, forecast = len(report.computed_steps), len(report.forecast_steps)
    line = Text(f"{len(report.steps)}/{report.num_steps}  ")
    line.append(f"{computed} computed", style=COMPUTED)
    line.append("  ")
    line.append(f"{forecast} forecast", style=FORECAST)
    if ended:
        line.append(f"  {human_seconds(report.denoise_seconds)}")
    else:
        line.append(f"  {human_seconds(run.elapsed)}")
        if run.remaining is not None:
            line.append(f"  {human_seconds(run.remaining)} left")
    if run.saved:
        line.append(f"  {human_seconds(run.saved)} saved", style="green")
    return line
