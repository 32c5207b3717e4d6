"""What a user sees while a model works: stages, and a mark for every solver step."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from spectrum.words import counted
from spectrum_cli.output import console, human_seconds, printable, say

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.live import Live
    from rich.text import Text

    from spectrum.report import Report, Step

EVERY = 30.0  # seconds between lines where there is no terminal
STAGES = ("load", "encode", "denoise", "decode", "write")
COMPUTED, FORECAST = "bold cyan", "yellow"
ROWS = 4  # of marks, at most


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
    number: int = 1  # of several, one after another
    count: int = 1
    each: float | None = None  # seconds, of those that are made
    brief: bool = False  # the title and the marks alone
    seconds: dict[str, float] = field(default_factory=dict)  # of ended stages
    _stage: str | None = None
    _began: float = 0.0
    _began_at: float | None = None
    _said: float = 0.0
    _denoising: Denoising | None = None
    _live: Live | None = None

    @property
    def _drawn(self) -> bool:
        return not self.quiet and console().is_terminal and not console().is_dumb_terminal

    def __enter__(self) -> Progress:
        self._began_at = time.perf_counter()
        if self.count > 1 and not self.quiet and not self._drawn:
            say(f"{self.number} of {self.count}:")
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
            self._said = self._began
            if not self.quiet and not self._drawn:
                planned = f"{len(report.planned_steps)} of them computed"
                planned = "computed where needed" if report.adaptive else planned
                say(f"denoise: {counted(report.num_steps, 'step')}, {planned}")
        elif not (self.quiet or self._drawn or report.finished):
            self._say_where()
        if report.finished:
            self.stage("decode")

    def _say_where(self) -> None:
        """Now and then, for a log of a long run."""
        if self._denoising and time.perf_counter() - self._said > EVERY:
            self._said = time.perf_counter()
            figures = _figures(self._denoising, False, self._left_for_all())
            say("  ".join(part.plain for part in figures))

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

        of = f"{self.number}/{self.count}  " if self.count > 1 else ""
        title = Text(of + printable(self.title), style="bold", no_wrap=True)
        title.truncate(options.max_width, overflow="ellipsis")
        yield title
        if not self.brief:
            yield from _side_by_side(self._stages(), options.max_width)
        if self._denoising is not None:
            report = self._denoising.report
            yield from _rows_of_marks(report, marks(options.encoding), options.max_width)
        if self._denoising is not None and not self.brief:
            ended = "denoise" in self.seconds
            figures = _figures(self._denoising, ended, self._left_for_all())
            yield from _side_by_side(figures, options.max_width)

    def _left_for_all(self) -> float | None:
        """Seconds; None for a single one, and during the first of several."""
        if self.each is None:
            return None
        began = self._began_at if self._began_at is not None else time.perf_counter()
        this = max(0.0, self.each - (time.perf_counter() - began))
        return this + (self.count - self.number) * self.each

    def _stages(self) -> Iterator[Text]:
        from rich.text import Text

        for name in STAGES:
            if name in self.seconds:
                yield Text(f"{name} {human_seconds(self.seconds[name])}", style="green")
            elif name == self._stage:
                elapsed = time.perf_counter() - self._began
                yield Text(f"{name} {human_seconds(elapsed)}…", style="bold")
            else:
                yield Text(name, style="dim")


class JsonProgress(Progress):
    """An object a line on standard error for each stage that begins and each step that ends."""

    def stage(self, name: str) -> None:
        super().stage(name)
        self._tell(stage=name)

    def on_step(self, report: Report, step: Step | None) -> None:
        if step is not None:  # before the stage that follows the last one
            self._tell(
                stage="denoise", step=step.index, steps=report.num_steps, computed=step.computed,
                seconds=step.seconds, left=self._denoising and self._denoising.remaining,
            )  # fmt: skip
        super().on_step(report, step)

    def _tell(self, **what: object) -> None:
        sys.stderr.write(json.dumps({"image": self.number, "images": self.count, **what}) + "\n")
        sys.stderr.flush()


def _rows_of_marks(report: Report, mark: Marks, width: int) -> Iterator[Text]:
    """A mark a step, in as many rows as a terminal has room for; of more steps, each mark stands
    for several, and is a computed one's if any of them is."""
    from rich.text import Text

    per = -(-report.num_steps // (ROWS * width))
    done = [step.computed for step in report.steps]
    row = Text()
    for first in range(0, report.num_steps, per):
        part = done[first : first + per]
        if not part:
            row.append(mark.pending, style="dim")
        elif any(part):
            row.append(mark.computed, style=COMPUTED)
        else:
            row.append(mark.forecast, style=FORECAST)
        if len(row) == width:
            yield row
            row = Text()
    if per > 1:
        row.append(f" {per} steps a mark", style="dim")
    if row:
        yield row


def _figures(run: Denoising, ended: bool, left_for_all: float | None) -> Iterator[Text]:
    from rich.text import Text

    report = run.report
    yield Text(f"{len(report.steps)}/{report.num_steps}")
    yield Text(f"{len(report.computed_steps)} computed", style=COMPUTED)
    yield Text(f"{len(report.forecast_steps)} forecast", style=FORECAST)
    yield Text(human_seconds(report.denoise_seconds if ended else run.elapsed))
    if not ended and left_for_all is not None:
        yield Text(f"{human_seconds(left_for_all)} left for all")
    elif not ended and run.remaining is not None:
        yield Text(f"{human_seconds(run.remaining)} left")
    if run.saved:
        yield Text(f"{human_seconds(run.saved)} saved", style="green")


def _side_by_side(parts: Iterable[Text], width: int) -> Iterator[Text]:
    """In as many lines as that takes."""
    from rich.text import Text

    line = Text()
    for part in parts:
        if line and len(line) + 2 + len(part) > width:
            yield line
            line = Text()
        line = Text("  ").join([line, part]) if line else part
    yield line
