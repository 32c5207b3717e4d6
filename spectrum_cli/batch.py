"""`spectrum batch`: a file or a stream of jobs in, a folder of outputs out; to be gone on with."""

from __future__ import annotations

import shlex
import sys
from collections import Counter
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spectrum.errors import SpectrumError, UsageError
from spectrum_cli import machine, options, signals
from spectrum_cli.batch_source import Stream, read
from spectrum_cli.flags import with_flags
from spectrum_cli.loaded import Loaded, find_model
from spectrum_cli.noise import silence
from spectrum_cli.output import error, say

if TYPE_CHECKING:
    from spectrum.batch.fleet import Fleet
    from spectrum.batch.jobs import Checker, Job
    from spectrum.batch.ray_session import Devices
    from spectrum.batch.reading import Problem, Raw
    from spectrum.batch.run import Model, Worker
    from spectrum.batch.store import Store
    from spectrum.batch.watch import Ended, Watch
    from spectrum.pipeline.loading import Options
    from spectrum.pipeline.preset import Preset
    from spectrum_cli.batch_display import Display

# Parameters of the command that are values of jobs too, for those that name none.
OF_JOBS = (
    "model", "negative_prompt", "width", "height", "frames", "fps", "steps", "guidance", "speedup",
    "method", "blend", "target", "quality", "image", "strength", "loras", "scheduler", "extras",
    "history",
)  # fmt: skip


def batch(
    file: options.Jobs,
    output: options.BatchFolder,
    model: options.Model = "demo-image",
    seed: options.JobSeed = 0,
    seeds: options.SeedRange = None,
    sweep: options.Sweep = None,
    name: options.Name = "{index}-{prompt:40}-{seed}",
    shard: options.Shard = None,
    retry_failed: options.RetryFailed = False,
    batch_size: options.BatchSize = 1,
    speedup: options.Speedup = None,
    steps: options.Steps = None,
    width: options.Width = None,
    height: options.Height = None,
    frames: options.Frames = None,
    fps: options.Fps = None,
    guidance: options.Guidance = None,
    negative_prompt: options.NegativePrompt = None,
    image: options.Image = None,
    strength: options.Strength = None,
    loras: options.Loras = None,
    extras: options.Extras = None,
    method: options.Method = None,
    target: options.Target = None,
    quality: options.Quality = None,
    blend: options.Blend = None,
    scheduler: options.Scheduler = None,
    weights: machine.Weights = None,
    device: machine.Device = "auto",
    dtype: machine.Dtype = None,
    offload: machine.Offload = "none",
    quantize: machine.Quantize = None,
    vae_tiling: machine.VaeTiling = None,
    compile: machine.Compile = False,
    attention: machine.Attention = None,
    history: machine.History = None,
    gpus: machine.Gpus = None,
    workers: machine.Workers = None,
    ray: machine.Ray = None,
    quiet: options.Quiet = False,
    as_json: options.JobJson = False,
) -> None:
    """Make a file of prompts into a folder, each model loaded once; the same command goes on after
    an interrupt, and many processes may share the folder.

    Each line may have its own model, seed, size and so on: see docs/batch.md.
    """
    given = locals()
    from spectrum.batch.jobs import Checker, parse_shard
    from spectrum.batch.names import Names
    from spectrum.batch.values import sweep as combinations
    from spectrum.batch.values import validated

    layout = partial(
        _layout, weights=weights, dtype=dtype, offload=offload, quantize=quantize,
        vae_tiling=vae_tiling, compile=compile, attention=attention,
    )  # fmt: skip
    layout(find_model(model, quiet))  # what is wrong with the flags is no line's fault
    fleet = _devices(gpus, workers, ray, device)
    checker = Checker(
        validated({key: given[key] for key in OF_JOBS if given[key] not in (None, [])}),
        partial(find_model, quiet=quiet),
        layout,
        combinations(seeds, sweep or ()),
        Names(name),
        seed,
    )
    share = parse_shard(shard) if shard else (1, 1)
    if fleet and batch_size > 1:
        raise UsageError(
            "--batch-size is for one process; leave it, or --gpus, --workers and --ray"
        )
    task = _Task(checker, output, device, fleet, retry_failed, batch_size, quiet, as_json)
    try:
        source = read(file)
        if isinstance(source, Stream):
            _check_of_stream(shard, batch_size, fleet)
            task.stream(source)
        else:
            task.whole(source, share, Path(file).name)
    except KeyboardInterrupt:
        code = signals.taken() or 130
        _how_to_go_on(task.display)
        raise SystemExit(code) from None


def _check_of_stream(shard: str | None, batch_size: int, fleet: Devices | None) -> None:
    if shard or fleet:
        flag = "--shard" if shard else "--gpus, --workers or --ray"
        raise UsageError(f"{flag} is for a file, where jobs can be counted; leave it")
    if batch_size > 1:
        raise UsageError("--batch-size is for a file: of a stream, each is made when it comes")


def _layout(preset: Preset, weights: Path | None, **given: Any) -> Options:
    """How a model is laid out; given weights have to be of every model that is asked for."""
    from spectrum.pipeline.weights import weights_folder

    if weights is not None:
        weights_folder(preset, weights)
    return machine.options(preset, weights, **given)


def _devices(
    gpus: int | None, workers: int | None, address: str | None, device: str
) -> Devices | None:
    """What to work on, if it is more than this process. Raises UsageError."""
    if gpus is None and workers is None and address is None:
        return None
    if gpus and workers:
        raise UsageError("--gpus or --workers, not both")
    if device not in ("auto", "cpu" if workers else "cuda"):
        told = "--workers are of CPU cores" if workers else "--gpus and --ray choose the GPUs"
        raise UsageError(f"--device {device}: {told}; leave it")
    from spectrum.batch.ray_session import Devices, import_ray

    import_ray()
    if gpus and not address:
        from torch.cuda import device_count

        if (have := device_count()) < gpus:
            raise UsageError(
                f"--gpus {gpus}: torch sees {have} here; --workers takes cores instead"
            )
    return Devices(workers or gpus, not workers, address)


def _begin(device: str, store: Store, watch: Watch) -> Worker:
    """A worker in a process of its own, where nobody reads what is said. Raises UsageError for a
    device that isn't there, and what torch does for one that doesn't work."""
    silence(quiet=True)
    import torch

    from spectrum.batch.run import Worker
    from spectrum.pipeline.loading import choose_device

    torch.zeros(1, device=choose_device(device))
    return Worker(store, partial(_load, device, True), watch)


def _load(device: str, quiet: bool, job: Job) -> Model:
    from spectrum.batch.run import Model

    loaded = Loaded(job.request, device, job.options, quiet)
    return Model(loaded.pipe, loaded.device)


# -- what is done --------------------------------------------------------------------------------


@dataclass
class _Task:
    """A checked command line; `whole` and `stream` are the two ways to do it."""

    checker: Checker
    folder: Path
    device: str
    fleet: Devices | None
    retry_failed: bool
    together: int
    quiet: bool
    as_json: bool
    display: Display | None = None  # of what was begun

    def whole(self, raws: list[Raw | Problem], share: tuple[int, int], file: str) -> None:
        """Check all, then make what is not made."""
        from spectrum.batch.jobs import JobErrors, check_calls, check_jobs, in_shard
        from spectrum.batch.watch import Ended

        if not raws:
            raise UsageError(f"{file}: there is no job in it; write a prompt a line")
        self.checker.names.digits = max(4, len(str(len(raws) * len(self.checker.sweep))))
        try:
            jobs = list(in_shard(check_jobs(raws, self.checker), share))
            check_calls(jobs, self.device)
            store, display = self._store(), self._display(jobs)
            left = []
            for job in jobs:
                if record := store.ended(job.id):
                    display.ended_before(Ended(job, record, now=False))
                else:
                    left.append(job)
            self._tell(display, self._made(store, left, display))
        except JobErrors as problems:
            for problem in problems.problems:
                error(f"{file}, {problem}")
            raise SystemExit(2) from None

    def stream(self, raws: Iterable[Raw | Problem]) -> None:
        """Make each job when it comes."""
        display = self._display(None)
        self._tell(display, self._answered(self._store(), raws, display))

    def _made(
        self, store: Store, jobs: list[Job], display: Display
    ) -> Generator[Ended, None, None]:
        if jobs:
            yield from self._worker(store, jobs, display).run(jobs)

    def _answered(
        self, store: Store, raws: Iterable[Raw | Problem], display: Display
    ) -> Generator[Ended, None, None]:
        worker = self._worker(store, [], display)
        for job in self._asked(raws, display):
            yield from worker.run([job])

    def _asked(self, raws: Iterable[Raw | Problem], display: Display) -> Iterator[Job]:
        from spectrum.batch.jobs import told
        from spectrum.batch.reading import Problem

        for raw in raws:
            try:
                if isinstance(raw, Problem):
                    raise UsageError(raw.text)
                jobs = [job for job, _ in self.checker.asked(raw)]
            except SpectrumError as problem:
                display.refused(raw.line, told(problem))
            else:
                yield from jobs

    def _store(self) -> Store:
        from spectrum.batch.store import Store

        return Store(self.folder, self.retry_failed)

    def _display(self, jobs: list[Job] | None) -> Display:
        from spectrum_cli.batch_display import Display

        self.display = Display(self.folder, jobs, self.quiet, self.as_json)
        return self.display

    def _worker(self, store: Store, jobs: list[Job], display: Display) -> Worker | Fleet:
        """With all that is heavy imported."""
        silence(self.quiet)
        with display.starting():
            from spectrum.batch.run import Worker
        if self.together > 1 and not self.quiet:
            _say_alone(jobs)
        if self.fleet is None:
            load = partial(_load, self.device, self.quiet)
            return Worker(store, load, display, self.together)
        from spectrum.batch.fleet import Fleet

        if not self.quiet:
            say("starting the workers")
        begin = partial(_begin, "cuda" if self.fleet.gpus else "cpu")
        return Fleet(store, begin, self.fleet, self.retry_failed, display)

    def _tell(self, display: Display, jobs: Generator[Ended, None, None]) -> None:
        """Of each job as it ends, and leave with the exit code."""
        with display, closing(jobs):
            for ended in jobs:
                display.ended(ended)
        display.summary(self.checker.repeated)
        if display.failed or display.wrong:
            raise SystemExit(1)


def _say_alone(jobs: Iterable[Job]) -> None:
    from spectrum.batch.together import why_alone

    for reason, count in Counter(map(why_alone, jobs)).items():
        if reason:
            say(with_flags(f"note: {count} made one at a time: {reason}"))


def _how_to_go_on(display: Display | None) -> None:
    count = display.at_work if display else 0
    dropped = ("", "the job under way was dropped, ")[count == 1]
    dropped = "the jobs under way were dropped, " if count > 1 else dropped
    state = display.state() if display else "nothing was begun"
    again = shlex.join(["spectrum", *sys.argv[1:]])
    error(f"interrupted; {dropped}{state}; to go on: {again}")
