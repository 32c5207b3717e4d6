"""Making jobs, one after another, with one model in memory: what a process of a batch does."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from spectrum.batch.claims import Claim
from spectrum.batch.jobs import Job, JobErrors, grouped
from spectrum.batch.manifest import Record
from spectrum.batch.store import FolderError, LostClaim, Store, job_document
from spectrum.batch.watch import Ended, Watch
from spectrum.errors import DeviceError, SpectrumError
from spectrum.pipeline.discover import pipeline_class
from spectrum.pipeline.generate import Generation, call_arguments, generate, metadata
from spectrum.pipeline.media import encode_mp4, encode_png
from spectrum.pipeline.request import Request

PAUSE = 0.5  # seconds between two looks at what another process is making
_LONGEST = 1000  # characters of an error


@dataclass(frozen=True)
class Model:
    """A pipeline that is ready, and where it runs."""

    pipe: Any
    device: torch.device


@dataclass
class Worker:
    """Makes jobs in a folder. It keeps the pipeline of the last one.

    `load` makes a job's pipeline; what it raises fails the jobs of this model, now and not for
    ever.
    """

    store: Store
    load: Callable[[Job], Model]
    watch: Watch = field(default_factory=Watch)
    _key: object = None
    _model: Model | None = None
    _broken: dict[object, str] = field(default_factory=dict)

    def run(self, jobs: Iterable[Job]) -> Generator[Ended, None, None]:
        """Make what is not made, models one after another, and say of each job how it ended.

        What other processes are making is waited for, and made here if they die.
        """
        left = grouped(jobs)
        while left:
            others = []
            for job in left:
                record = self.store.ended(job.id)
                ended = Ended(job, record, now=False) if record else self.attempt(job)
                if ended:
                    yield ended
                else:
                    others.append(job)
            left = others
            if left:
                self.watch.waiting(len(left))
                time.sleep(PAUSE)
                self.store.refresh()

    def attempt(self, job: Job) -> Ended | None:
        """Make the job, unless it has ended; None if another process is making it.

        An error is the job's, which is recorded as failed. Raises FolderError and DeviceError for
        what the next job would meet too.
        """
        claim = self.store.claim(job.id)
        if claim is None:
            return None
        with claim:
            if record := self.store.ended(job.id):
                return Ended(job, record, now=False)
            self.watch.begin(job)
            try:
                check_call(job.request)
                model = self._load(job)
                if isinstance(model, str):
                    return Ended(job, self._failed(job, model), now=True)
                return Ended(job, self._make(claim, job, model), now=True)
            except FolderError:
                raise
            except LostClaim:
                return None
            except Exception as error:
                failed = self._failed(job, reason(error))
                self.store.record(failed)
                if isinstance(error, getattr(torch, "AcceleratorError", ())):
                    raise DeviceError(f"the device has failed: {failed.error}") from error
                return Ended(job, failed, now=True)

    def _make(self, claim: Claim, job: Job, model: Model) -> Record:
        began = time.perf_counter()
        self.watch.stage("encode")
        made = generate(model.pipe, job.request, job.seed, self.watch.on_step)
        report = made.report
        record = Record(
            id=job.id,
            index=job.index,
            status="done",
            seconds=round(time.perf_counter() - began, 3),
            computed_steps=report.computed_steps,
            measured_speedup=report.measured_speedup and round(report.measured_speedup, 3),
            notes=report.notes or None,
            attempt=self._attempts(job) + 1,
        )
        self.watch.stage("write")
        document = {
            **metadata(job.request, job.seed, made, model.device, job.options),
            "job": job_document(record),
        }
        return self.store.put(claim, record, job.name, partial(_encode, made, job, document))

    def _failed(self, job: Job, error: str) -> Record:
        attempt = self._attempts(job) + 1
        return Record(id=job.id, index=job.index, status="failed", error=error, attempt=attempt)

    def _attempts(self, job: Job) -> int:
        before = self.store.records.get(job.id)
        return before.attempt if before else 0

    def _load(self, job: Job) -> Model | str:
        """The job's model, or why it can't be had."""
        if job.model in self._broken:
            return self._broken[job.model]
        if self._model is None or self._key != job.model:
            if self._model is not None:
                self._model = None
                gc.collect()
                if torch.cuda.is_available():
                    torch.cuda.empty_cache()
            self.watch.stage("load")
            try:
                self._key, self._model = job.model, self.load(job)
            except Exception as error:  # whatever it is, the next job of the model would meet it
                return self._broken.setdefault(job.model, reason(error))
        return self._model


def _encode(made: Generation, job: Job, document: dict[str, Any], path: Path) -> None:
    if job.name.endswith(".mp4"):
        assert job.request.fps is not None
        encode_mp4(
            path, made.frames, job.request.fps, document, made.audio, made.sample_rate
        )  # fmt: skip
    else:
        encode_png(path, made.frames[0], document)


def reason(error: Exception) -> str:
    """One line that says what is wrong."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return "out of memory: try a smaller `width` and `height`, or fewer `frames`"
    text = " ".join(str(error).split())[:_LONGEST]
    return text if isinstance(error, SpectrumError) else f"{type(error).__name__}: {text}"


def check_call(request: Request) -> None:
    """Raise UsageError for an argument that the pipeline's call does not take; no image is read."""
    stand_in = request.image and Image.new("RGB", (8, 8))
    extras = dict.fromkeys(request.extras)
    cls = pipeline_class(request.pipeline, request.preset.path)
    call_arguments(cls, replace(request, image=stand_in, extras=extras))


def check_calls(jobs: Iterable[Job]) -> None:
    """The same for all of them at once. Raises JobErrors."""
    wrong = JobErrors()
    for job in jobs:
        try:
            check_call(job.request)
        except SpectrumError as error:
            wrong.add(job.line, str(error))
    wrong.raise_any()
