"""Making jobs, one after another, with one model in memory: what a process of a batch does."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from spectrum.batch.claims import Claim
from spectrum.batch.jobs import Job, check_call, grouped
from spectrum.batch.manifest import Record
from spectrum.batch.store import FolderError, LostClaim, Store, job_document
from spectrum.batch.together import calls, shape_of
from spectrum.batch.watch import Ended, Watch
from spectrum.errors import DeviceError, SpectrumError, out_of_memory
from spectrum.pipeline.generate import Generation, generate, generate_together, metadata
from spectrum.pipeline.media import encode

PAUSE = 0.5  # seconds between two looks at what another process is making
_LONGEST = 1000  # characters of an error


@dataclass(frozen=True)
class Model:
    """A pipeline that is ready, and where it runs."""

    pipe: Any
    device: torch.device


class ModelError(SpectrumError):
    """A model can't be had, now; the next process may have more luck."""


@dataclass
class Worker:
    """Makes jobs in a folder. It keeps the pipeline of the last one.

    `load` makes a job's pipeline; what it raises fails the jobs of this model, now and not for
    ever. With `together` above 1, up to so many jobs that can share a call of the pipeline do.
    """

    store: Store
    load: Callable[[Job], Model]
    watch: Watch = field(default_factory=Watch)
    together: int = 1
    _key: object = None
    _model: Model | None = None
    _broken: dict[object, str] = field(default_factory=dict)
    _alone: set[object] = field(default_factory=set)  # shapes whose calls fail with several jobs

    def run(self, jobs: Iterable[Job]) -> Generator[Ended, None, None]:
        """Make what is not made, models one after another, and say of each job how it ended.

        What other processes are making is waited for, and made here if they die.
        """
        left = grouped(jobs)
        while left:
            known = set()
            for call in calls(left, self.together):
                for ended in self._attempt(call):
                    known.add(ended.job.id)
                    yield ended
            left = [job for job in left if job.id not in known]
            if left:
                self.watch.waiting(len(left))
                time.sleep(PAUSE)
                self.store.refresh()

    def attempt(self, job: Job) -> Ended | None:
        """Make the job, unless it has ended; None if another process is making it.

        An error is the job's, which is recorded as failed. Raises FolderError and DeviceError for
        what the next job would meet too.
        """
        found = list(self._attempt([job]))
        return found[0] if found else None

    def _attempt(self, jobs: list[Job]) -> Iterator[Ended]:
        """The same for jobs that share a call; those are left out that others are making."""
        if len(jobs) > 1 and shape_of(jobs[0]) in self._alone:
            for job in jobs:
                yield from self._attempt([job])
            return
        ours: list[tuple[Job, Claim]] = []
        with ExitStack() as held:
            for job in jobs:
                record = self.store.ended(job.id)
                if record is None and (claim := self.store.claim(job.id)):
                    held.enter_context(claim)
                    record = self.store.ended(job.id)
                    if record is None:
                        ours.append((job, claim))
                if record:
                    yield Ended(job, record, now=False)
            if ours:
                yield from self._make(ours)

    def _make(self, ours: list[tuple[Job, Claim]], note: str | None = None) -> Iterator[Ended]:
        """Claimed jobs, in one call; where that fails, one by one."""
        jobs = [job for job, _ in ours]
        self.watch.begin(jobs[0], len(jobs) - 1)
        try:
            made = self._sample(jobs)
        except ModelError as error:
            for job in jobs:
                failed = self.store.failure(job.id, job.index, str(error))
                yield Ended(job, failed, now=True)
            return
        except Exception as error:
            if len(jobs) == 1 or _is_of_device(error):
                yield from [self._failure(job, error) for job in jobs]
            else:
                yield from self._make_singly(ours, reason(error))
            return
        self.watch.stage("write")
        for (job, claim), one in zip(ours, made, strict=True):
            if ended := self._keep(claim, job, one, note):
                yield ended

    def _make_singly(self, ours: list[tuple[Job, Claim]], why: str) -> Iterator[Ended]:
        """If all come out so, it was not one of them that failed the call: the next jobs of this
        shape are not tried together again."""
        note = f"made by itself, as a call for {len(ours)} jobs failed: {why}"
        statuses = set()
        for one in ours:
            for ended in self._make([one], note):
                statuses.add(ended.record.status)
                yield ended
        if statuses == {"done"}:
            self._alone.add(shape_of(ours[0][0]))

    def _sample(self, jobs: list[Job]) -> list[Generation]:
        for job in jobs:
            check_call(job.request)
        model = self._load(jobs[0])
        self.watch.stage("encode")
        if len(jobs) == 1:
            return [generate(model.pipe, jobs[0].request, jobs[0].seed, self.watch.on_step)]
        requests, seeds = [job.request for job in jobs], [job.seed for job in jobs]
        return generate_together(model.pipe, requests, seeds, self.watch.on_step)

    def _keep(self, claim: Claim, job: Job, made: Generation, note: str | None) -> Ended | None:
        """The output in its place; None if another process has taken the job meanwhile."""
        report, seconds = made.report, made.encode_seconds + made.denoise_seconds
        record = Record(
            id=job.id,
            index=job.index,
            status="done",
            seconds=round(seconds + made.decode_seconds, 3),
            computed_steps=report.computed_steps,
            estimated_speedup=report.estimated_speedup and round(report.estimated_speedup, 3),
            notes=[*made.notes(Path(job.name).suffix), *([note] if note else ())] or None,
            attempt=self.store.attempt(job.id),
        )
        try:
            assert self._model is not None
            document = {
                **metadata(job.request, job.seed, made, self._model.device, job.options),
                "job": job_document(record),
            }
            write = partial(_encode, made, job, document)
            return Ended(job, self.store.put(claim, record, job.name, write), now=True)
        except FolderError:
            raise
        except LostClaim:
            return None
        except Exception as error:
            return self._failure(job, error)

    def _failure(self, job: Job, error: Exception) -> Ended:
        """Recorded. Raises DeviceError."""
        failed = self.store.failure(job.id, job.index, reason(error))
        self.store.record(failed)
        if _is_of_device(error):
            raise DeviceError(f"the device has failed: {failed.error}") from error
        return Ended(job, failed, now=True)

    def _load(self, job: Job) -> Model:
        """The job's model. Raises ModelError."""
        if job.model in self._broken:
            raise ModelError(self._broken[job.model])
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
                self._broken[job.model] = reason(error)
                raise ModelError(self._broken[job.model]) from error
        return self._model


def _is_of_device(error: Exception) -> bool:
    return isinstance(error, getattr(torch, "AcceleratorError", ()))


def _encode(made: Generation, job: Job, document: dict[str, Any], path: Path) -> None:
    ending = Path(job.name).suffix
    encode(path, ending, made.frames, document, job.request.fps, made.audio, made.sample_rate)


def reason(error: Exception) -> str:
    """One line that says what is wrong."""
    if told := out_of_memory(error):
        return told
    text = " ".join(str(error).split())[:_LONGEST]
    return text if isinstance(error, SpectrumError) else f"{type(error).__name__}: {text}"
