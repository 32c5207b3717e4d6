"""`spectrum batch`: a file or a stream of jobs in, a folder of outputs out; to be gone on with."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spectrum_cli import machine, options, signals
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
    task = _Task(checker, output, device, fleet, retry_failed, quiet, as_json)
    source = _read(file)
    if isinstance(source, _Stream):
        if shard or fleet:
            flag = "--shard" if shard else "--gpus, --workers or --ray"
            raise _usage(f"{flag} is for a file, where jobs can be counted; leave it")
        task.stream(source)
    else:
        task.whole(source, share, Path(file).name)


def _layout(preset: Preset, weights: Path | None, **given: Any) -> Options:
    """How a model is laid out; a folder of weights has to be of every model that is asked for."""
    from spectrum.pipeline.weights import check_folder

    if weights is not None:
        check_folder(preset, weights)
    return machine.options(preset, weights, **given)


def _devices(
    gpus: int | None, workers: int | None, address: str | None, device: str
) -> Devices | None:
    """What to work on, if it is more than this process. Raises UsageError."""
    if gpus is None and workers is None and address is None:
        return None
    if gpus and workers:
        raise _usage("--gpus or --workers, not both")
    if device not in ("auto", "cpu" if workers else "cuda"):
        told = "--workers are of CPU cores" if workers else "--gpus and --ray choose the GPUs"
        raise _usage(f"--device {device}: {told}; leave it")
    from spectrum.batch.ray_session import Devices, import_ray

    import_ray()
    if gpus and not address:
        from torch.cuda import device_count

        if (have := device_count()) < gpus:
            raise _usage(f"--gpus {gpus}: torch sees {have} here; --workers takes cores instead")
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


def _nothing() -> Generator[Ended, None, None]:
    yield from ()


def _usage(text: str) -> Exception:
    from spectrum.errors import UsageError

    return UsageError(text)


# -- what comes in -------------------------------------------------------------------------------


@dataclass
class _Stream:
    """Lines as they come: plain ones, and JSON Lines."""

    lines: Iterator[bytes]

    def __iter__(self) -> Iterator[Raw | Problem]:
        from spectrum.batch.reading import Problem, decode, read_line
        from spectrum.errors import UsageError

        for number, line in enumerate(self.lines, 1):
            try:
                found = read_line(number, decode(line, "it"))
            except UsageError:
                found = Problem(number, "not text in UTF-8")
            if found:
                yield found


def _read(file: str) -> _Stream | list[Raw | Problem]:
    """All of a file; of standard input a stream, unless it begins like CSV or YAML."""
    from spectrum.batch.reading import decode, first_line, kind_of, read_jobs

    if file == "-":
        lines = iter(sys.stdin.buffer.readline, b"")
        before = list(_until_text(lines))
        head = before[-1].decode("utf-8", "replace").strip() if before else ""
        if (kind := kind_of("", head)) not in ("csv", "yaml"):
            return _Stream(chain(before, lines))
        return list(read_jobs(decode(b"".join([*before, *lines]), "-"), kind))
    try:
        data = Path(file).read_bytes()
    except (OSError, ValueError) as problem:
        reason = getattr(problem, "strerror", None) or problem
        raise _usage(f"{file}: can't be read: {reason}") from problem
    text = decode(data, file)
    return list(read_jobs(text, kind_of(Path(file).suffix, first_line(text))))


def _until_text(lines: Iterator[bytes]) -> Iterator[bytes]:
    """The lines up to the first that is not empty, and that one."""
    for line in lines:
        yield line
        if line.strip():
            return


# -- what is done --------------------------------------------------------------------------------


@dataclass
class _Task:
    """A checked command line; `whole` and `stream` are the two ways to do it."""

    checker: Checker
    folder: Path
    device: str
    fleet: Devices | None
    retry_failed: bool
    quiet: bool
    as_json: bool

    def whole(self, raws: list[Raw | Problem], share: tuple[int, int], file: str) -> None:
        """Check all, then make what is not made."""
        from spectrum.batch.jobs import JobErrors, check_jobs, in_shard
        from spectrum.batch.watch import Ended

        if not raws:
            raise _usage(f"{file}: there is no job in it; write a prompt a line")
        self.checker.names.digits = max(4, len(str(len(raws) * len(self.checker.sweep))))
        try:
            jobs = list(in_shard(check_jobs(raws, self.checker), share))
            store = self._store()
            records = [store.ended(job.id) for job in jobs]
            left = [job for job, record in zip(jobs, records, strict=True) if record is None]
            display = self._display(len(jobs))
            worker = self._worker(store, left, display) if left else None
        except JobErrors as problems:
            for problem in problems.problems:
                error(f"{file}, {problem}")
            raise SystemExit(2) from None
        for job, record in zip(jobs, records, strict=True):
            if record:
                display.ended(Ended(job, record, now=False))
        self._tell(display, worker.run(left) if worker else _nothing())

    def stream(self, raws: Iterable[Raw | Problem]) -> None:
        """Make each job when it comes."""
        display = self._display(None)
        worker = self._worker(self._store(), [], display)
        asked = self._asked(raws, display)
        self._tell(display, (ended for job in asked for ended in worker.run([job])))

    def _asked(self, raws: Iterable[Raw | Problem], display: Display) -> Iterator[Job]:
        from spectrum.batch.reading import Problem
        from spectrum.errors import SpectrumError

        for raw in raws:
            try:
                if isinstance(raw, Problem):
                    raise _usage(raw.text)
                jobs = [job for job, _ in self.checker.asked(raw)]
            except SpectrumError as problem:
                display.refused(raw.line, str(problem))
            else:
                yield from jobs

    def _store(self) -> Store:
        from spectrum.batch.store import Store

        return Store(self.folder, self.retry_failed)

    def _display(self, total: int | None) -> Display:
        from spectrum_cli.batch_display import Display

        return Display(self.folder, total, self.quiet, self.as_json)

    def _worker(self, store: Store, jobs: list[Job], display: Display) -> Worker | Fleet:
        """With all that is heavy imported, and these jobs' calls checked."""
        silence(self.quiet)
        from spectrum.batch.run import Worker, check_calls

        check_calls(jobs)
        if self.fleet is None:
            return Worker(store, partial(_load, self.device, self.quiet), display)
        from spectrum.batch.fleet import Fleet

        if not self.quiet:
            say("starting the workers")
        begin = partial(_begin, "cuda" if self.fleet.gpus else "cpu")
        return Fleet(store, begin, self.fleet, self.retry_failed, display)

    def _tell(self, display: Display, jobs: Generator[Ended, None, None]) -> None:
        """Of each job as it ends, and leave with the exit code."""
        try:
            with display, closing(jobs):
                for ended in jobs:
                    display.ended(ended)
        except KeyboardInterrupt:
            code = signals.taken() or 130
            self._how_to_go_on(display)
            raise SystemExit(code) from None
        display.summary(self.checker.repeated)
        if display.failed or display.wrong:
            raise SystemExit(1)

    def _how_to_go_on(self, display: Display) -> None:
        dropped = "jobs under way were" if self.fleet else "job under way was"
        error(
            f"interrupted; the {dropped} dropped, {display.state()};"
            f" to go on: {shlex.join(['spectrum', *sys.argv[1:]])}"
        )
