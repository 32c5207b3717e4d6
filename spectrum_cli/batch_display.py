"""What a user sees of a batch: how far it is, and the steps of the job under way."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spectrum.batch.watch import Ended, Look, Watch
from spectrum.words import counted
from spectrum_cli.flags import with_flags
from spectrum_cli.output import console, emit_as_it_is, emit_json, error, human_seconds, say
from spectrum_cli.progress import Progress

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.live import Live

    from spectrum.batch.jobs import Job
    from spectrum.report import Report, Step


@dataclass
class Times:
    """What the jobs that are left will take, by what those of their shape took."""

    left: Counter[object]  # jobs, by shape
    _took: dict[object, tuple[float, int]] = field(default_factory=dict)  # seconds, jobs

    def ended(self, job: Job, seconds: float | None) -> None:
        """A job has ended, and took so long if it was made here and now."""
        shape = _shape(job)
        self.left[shape] -= 1
        if seconds is not None:
            before, count = self._took.get(shape, (0.0, 0))
            self._took[shape] = before + seconds, count + 1

    @property
    def seconds(self) -> float | None:
        """A job of a new shape takes what one took on average. None where none was made."""
        every, jobs = map(sum, zip(*self._took.values(), strict=True)) if self._took else (0.0, 0)
        if not jobs or self.left.total() <= 0:  # a stream's are not counted beforehand
            return None
        total = 0.0
        for shape, count in self.left.items():
            seconds, made = self._took.get(shape, (every, jobs))
            total += count * seconds / made
        return total


def _shape(job: Job) -> tuple[object, ...]:
    request = job.request
    sizes = (request.width, request.height, request.frames)
    return (request.preset.name, *sizes, request.steps, request.speedup)


class Display(Watch):
    """Paths, or objects with `as_json`, on standard output as jobs end; on standard error a line
    for each, and while one is under way its steps.

    `jobs` is None for a stream, which is answered for jobs that were made before, too.
    """

    def __init__(
        self, folder: Path, jobs: Sequence[Job] | None, quiet: bool, as_json: bool
    ) -> None:
        self._folder, self._quiet, self._as_json = folder, quiet, as_json
        self._total = None if jobs is None else len(jobs)
        self._times = Times(Counter(map(_shape, jobs or ())))
        self.done = self.failed = self.made = self.before = self.wrong = 0
        self._began = self._job_began = time.perf_counter()
        self._together = 1  # jobs in the call under way
        self._each: float | None = None  # seconds of one of them, once the first has ended
        self._progress: Progress | None = None  # of what was begun last
        self._under_way: dict[str, Progress] = {}  # all, by the job's id
        self._pause = ""  # why there is no job under way
        self._live: Live | None = None

    def __enter__(self) -> Display:
        return self

    def __exit__(self, *_: object) -> None:
        self._hide()

    # -- what is under way -----------------------------------------------------------------------

    @contextmanager
    def starting(self) -> Iterator[None]:
        """While what is heavy is imported."""
        self._pause = "starting"
        self._show()
        try:
            yield
        finally:
            self._hide()
            self._pause = ""

    def begin(self, job: Job, more: int = 0) -> None:
        title = f"{job.request.preset.name}  {job.request.prompt}  seed {job.seed}"
        title = f"{more + 1} in one call: {title} …" if more else title
        self._progress = self._under_way[job.id] = Progress(title, quiet=True)
        self._together, self._each, self._pause = more + 1, None, ""
        self._job_began = time.perf_counter()
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
        self._end(job)
        if died and not self._quiet:
            say(f"line {job.line}: the process that was making it died")
        if self._under_way:
            self._show()

    def _end(self, job: Job) -> None:
        self._under_way.pop(job.id, None)
        self._progress = next(reversed(self._under_way.values()), None)

    def waiting(self, count: int) -> None:
        text = f"waiting for {count} that other processes are making"
        if not self._pause and not self._is_drawn and not self._quiet:
            say(text)
        self._progress, self._pause = None, text
        self._under_way.clear()
        self._show()

    @property
    def at_work(self) -> int:
        """How many calls are under way."""
        return len(self._under_way)

    @property
    def _is_drawn(self) -> bool:
        return not self._quiet and console().is_terminal and not console().is_dumb_terminal

    def _show(self) -> None:
        if self._live is None and self._is_drawn:
            from rich.live import Live

            self._live = Live(
                self, console=console(), refresh_per_second=10, transient=True,
                redirect_stdout=False,
            )  # fmt: skip
            self._live.start(refresh=True)  # imports let no other thread draw for seconds

    def _hide(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.text import Text

        yield Text(self.state(), style="bold", no_wrap=True, overflow="ellipsis")
        for progress in list(self._under_way.values()):
            progress.brief = len(self._under_way) > 1
            yield progress
        if not self._under_way:
            elapsed = human_seconds(time.perf_counter() - self._job_began)
            yield Text(f"{self._pause}  {elapsed}", no_wrap=True, overflow="ellipsis")

    def state(self) -> str:
        """How far the batch is."""
        of = "" if self._total is None else f" of {self._total}"
        text = f"{self.done}{of} done" + f", {self.failed} failed" * bool(self.failed)
        left = self._times.seconds
        if left is None:
            return text
        under_way = self._seconds() if self._live else 0.0
        return f"{text}, about {human_seconds(max(0.0, left - under_way))} left"

    def _seconds(self) -> float:
        """Of the job under way, without what loading its model took."""
        loading = self._progress.seconds.get("load", 0.0) if self._progress else 0.0
        return max(0.0, time.perf_counter() - self._job_began - loading)

    # -- a job that has ended --------------------------------------------------------------------

    def ended(self, ended: Ended) -> None:
        """Count the job, and tell of it."""
        self._hide()
        record = ended.record
        failed = record.status == "failed"
        self.failed, self.done = self.failed + failed, self.done + (not failed)
        self.made += ended.now and not failed
        if self._each is None:
            self._each = self._seconds() / self._together
        self._times.ended(ended.job, self._each if ended.now and not failed else None)
        self._end(ended.job)
        self._job_began = time.perf_counter()
        if ended.now or self._total is None:  # or told by whoever made it
            self._tell(ended)
        if self._under_way:
            self._show()

    def _tell(self, ended: Ended) -> None:
        record = ended.record
        if record.status == "failed":
            error(f"line {ended.job.line}: {record.error}")
        elif not self._as_json:
            emit_as_it_is(str(self._folder / str(record.file)))
        if self._as_json:
            emit_json(self._document(ended))
        if ended.now and record.status == "done" and not self._quiet:
            self._say(ended)

    def ended_before(self, ended: Ended) -> None:
        """A job of a file was made, or had failed, before this process began."""
        self.ended(ended)
        self.before = self.done

    def refused(self, line: int, problem: str) -> None:
        """A line of a stream is no job."""
        self.wrong += 1
        error(f"line {line}: {problem}")
        if self._as_json:
            emit_json({"status": "failed", "line": line, "error": problem})

    def _say(self, ended: Ended) -> None:
        record = ended.record
        took = [human_seconds(record.seconds or 0.0)]
        if record.estimated_speedup and record.estimated_speedup > 1:
            took.append(f"about {record.estimated_speedup:.2f}× faster")
        stands_above = sys.stdout.isatty() and not self._as_json
        name = "  " if stands_above else f"{record.file}: "
        say(f"{name}{', '.join(took)}; {self.state()}")
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
        text, others = f"{self.made} made", self.done - self.made - self.before
        if self._total is None:
            self.before, others = others, 0
        if self.before:
            text += f", {self.before} made before"
        if others:
            text += f", {others} made by other processes"
        if self.failed:
            text += f", {self.failed} failed (--retry-failed tries them again)"
        if self.wrong:
            text += f", {counted(self.wrong, 'line was no job', 'lines were no jobs')}"
        seconds = human_seconds(time.perf_counter() - self._began)
        say(f"{text}; {seconds}; all in {self._folder}", style="bold")
        if repeated:
            are = "is" if repeated == 1 else "are"
            say(f"{repeated} asked for what another line had asked for, and {are} made once")
