"""What a user sees of a batch: how far it is, and the steps of the jobs under way."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spectrum.batch.watch import Ended, Look, Watch
from spectrum_cli.flags import with_flags
from spectrum_cli.output import console, emit, emit_json, error, human_seconds, say
from spectrum_cli.progress import Progress

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.live import Live

    from spectrum.batch.jobs import Job
    from spectrum.report import Report, Step


class Display(Watch):
    """Paths, or objects with `as_json`, on standard output as jobs end; on standard error a line
    for each, and while one is under way its steps. `total` is None for a stream, which is answered
    for jobs that were made before, too."""

    def __init__(self, folder: Path, total: int | None, quiet: bool, as_json: bool) -> None:
        self._folder, self._total, self._quiet, self._as_json = folder, total, quiet, as_json
        self.done = self.failed = self.made = self.wrong = 0
        self._spent = 0.0  # seconds until jobs ended now, those of idleness left out
        self._began = self._since = time.perf_counter()  # `_since`: of what is not yet spent
        self._under_way: dict[str, Progress] = {}  # by the job's id
        self._progress: Progress | None = None  # of this process's own
        self._live: Live | None = None

    def __enter__(self) -> Display:
        return self

    def __exit__(self, *_: object) -> None:
        self._hide()

    # -- jobs under way --------------------------------------------------------------------------

    def begin(self, job: Job) -> None:
        title = f"{job.request.preset.name}  {job.request.prompt}  seed {job.seed}"
        if not self._under_way:
            self._since = time.perf_counter()
        self._progress = self._under_way[job.id] = Progress(title, quiet=True)
        self._show()

    def stage(self, name: str) -> None:
        if self._progress:
            self._progress.stage(name)

    def on_step(self, report: Report, step: Step | None) -> None:
        if self._progress:
            self._progress.on_step(report, step)

    def seen(self, job: Job, look: Look) -> None:
        if progress := self._under_way.get(job.id):
            progress.follow(look.stage, look.report)

    def lost(self, job: Job, died: bool) -> None:
        self._hide()
        self._under_way.pop(job.id, None)
        if died and not self._quiet:
            say(f"line {job.line}: the process that was making it died")
        self._show()

    def waiting(self, count: int) -> None:
        if not self._quiet and self._progress:
            say(f"waiting for {count} that other processes are making")
        self._progress = None
        self._under_way.clear()

    def _show(self) -> None:
        drawn = console().is_terminal and not console().is_dumb_terminal
        if self._quiet or not drawn or self._live or not self._under_way:
            return
        from rich.live import Live

        self._live = Live(
            self, console=console(), refresh_per_second=10, transient=True, redirect_stdout=False
        )
        self._live.start()

    def _hide(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.text import Text

        yield Text(self.state(), style="bold")
        for progress in list(self._under_way.values()):
            progress.brief = len(self._under_way) > 1
            yield progress

    def state(self) -> str:
        """How far the batch is."""
        of = "" if self._total is None else f" of {self._total}"
        text = f"{self.done}{of} done" + f", {self.failed} failed" * bool(self.failed)
        left = self._left()
        return text if left is None else f"{text}, about {human_seconds(left)} left"

    def _left(self) -> float | None:
        """By the time that each of the jobs took that ended now, several at once counted once."""
        ended = self.made + self.failed
        if self._total is None or not self._spent or not ended:
            return None
        left = self._total - self.done - self.failed
        under_way = time.perf_counter() - self._since if self._live else 0.0
        return max(0.0, left * self._spent / ended - under_way) if left else None

    # -- a job that has ended --------------------------------------------------------------------

    def ended(self, ended: Ended) -> None:
        """Count the job, and tell of it."""
        self._hide()
        self._under_way.pop(ended.job.id, None)
        failed = ended.record.status == "failed"
        self.failed, self.done = self.failed + failed, self.done + (not failed)
        if ended.now:
            self.made += not failed
            now = time.perf_counter()
            self._spent, self._since = self._spent + now - self._since, now
        if ended.now or self._total is None:  # or told by whoever made it
            self._tell(ended)
        self._show()

    def _tell(self, ended: Ended) -> None:
        record = ended.record
        if record.status == "failed":
            error(f"line {ended.job.line}: {record.error}")
        elif not self._as_json:
            emit(str(self._folder / str(record.file)))
        if self._as_json:
            emit_json(self._document(ended))
        if ended.now and record.status == "done" and not self._quiet:
            self._say(ended)

    def refused(self, line: int, problem: str) -> None:
        """A line of a stream is no job."""
        self.wrong += 1
        error(f"line {line}: {problem}")
        if self._as_json:
            emit_json({"status": "failed", "line": line, "error": problem})

    def _say(self, ended: Ended) -> None:
        record = ended.record
        took = [human_seconds(record.seconds or 0.0)]
        if record.measured_speedup and record.measured_speedup > 1:
            took.append(f"{record.measured_speedup:.2f}× measured")
        say(f"{record.file}: {', '.join(took)}; {self.state()}")
        for note in record.notes or ():
            say(f"  note: {with_flags(note)}")

    def _document(self, ended: Ended) -> dict[str, Any]:
        job, record = ended.job, ended.record.model_dump(exclude={"bytes", "file"})
        file = ended.record.file
        return {
            **record,
            "file": str(self._folder / file) if file else None,
            "line": job.line,
            "model": job.request.preset.name,
            "prompt": job.request.prompt,
            "seed": job.seed,
            "made_now": ended.now,
        }

    def summary(self, repeated: int = 0) -> None:
        """What there is now, and how to go on about what failed."""
        if self._quiet:
            return
        text = f"{self.made} made"
        if before := self.done - self.made:
            text += f", {before} made before"
        if self.failed:
            text += f", {self.failed} failed (--retry-failed tries them again)"
        if self.wrong:
            text += f", {self.wrong} lines were no jobs"
        seconds = human_seconds(time.perf_counter() - self._began)
        say(f"{text}; {seconds}; all in {self._folder}", style="bold")
        if repeated:
            say(f"{repeated} asked for what another line had asked for, and are made once")
