"""More than one device: a worker on each, as plain actors of Ray, and the driver of them all.

The folder's protocol is that of one process (`spectrum.batch.store`): an actor claims a job as any
process does, so other processes may share the folder, and the death of an actor or of the driver
loses nothing. Each actor keeps its model and has one job at a time. When one dies the driver looks
at the folder, and gives the job to another; Ray starts the actor again, and repeats nothing.
"""

from __future__ import annotations

import os
import time
from collections import Counter, deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import Any

from spectrum import __version__
from spectrum.batch.hand import Begin, Hand
from spectrum.batch.jobs import Job, grouped
from spectrum.batch.ray_session import Devices, session
from spectrum.batch.store import Store
from spectrum.batch.watch import Ended, Watch
from spectrum.errors import SpectrumError
from spectrum.pipeline.files import uninterrupted

DEATHS = 2  # of workers, until a job is set aside
PAUSE = 0.5  # seconds between two looks at what other processes are making, or at a dead actor
_LOOK = 1.0  # seconds between two looks at how far the actors are
_PATIENCE = 5.0  # seconds for the actors to be gone


@dataclass
class _Actor:
    handle: Any
    asked: Any = None  # the call under way: `ready`, or `make` if there is a job
    looking: Any = None  # the call of `look` under way
    job: Job | None = None
    model: object = None  # that it has loaded
    again: float | None = None  # when to ask once more whether it is ready

    @property
    def is_idle(self) -> bool:
        return self.asked is None and self.again is None


class _Queue:
    """Jobs by model, so that an actor goes on with the model that it has."""

    def __init__(self, jobs: Iterable[Job]) -> None:
        self._by_model: dict[object, deque[Job]] = {}
        for job in jobs:
            self.add(job)

    def __bool__(self) -> bool:
        return bool(self._by_model)

    def add(self, job: Job) -> None:
        self._by_model.setdefault(job.model, deque()).append(job)

    def next(self, own: object, others: Iterable[object]) -> Job:
        """Of an actor's own model; else of one that no other has; else of any."""
        left, taken = list(self._by_model), set(others)
        free = next((model for model in left if model not in taken), left[0])
        model = own if own in self._by_model else free
        jobs = self._by_model[model]
        job = jobs.popleft()
        if not jobs:
            del self._by_model[model]
        return job


@dataclass
class Fleet:
    """Makes jobs in a folder with a worker on each of some devices. `begin` is sent to them."""

    store: Store
    begin: Begin
    devices: Devices
    retry_failed: bool = False
    watch: Watch = field(default_factory=Watch)
    _actors: list[_Actor] = field(default_factory=list)
    _queue: _Queue = field(default_factory=lambda: _Queue(()))
    _waiting: list[Job] = field(default_factory=list)  # for what other processes are making
    _deaths: Counter[str] = field(default_factory=Counter)  # of workers, by the job's id
    _told: int = 0  # how many of them, as the watch knows
    _looked: float = 0.0

    def run(self, jobs: Sequence[Job]) -> Generator[Ended, None, None]:
        """Make what is not made, and say of each job how it ended, as they end.

        Raises UsageError for devices that are not there, SpectrumError where none is of use, and
        FolderError. Whatever ends it, the actors are gone then, and so is what they had under way.
        """
        self._queue = _Queue(grouped(jobs))
        with ExitStack() as stack:
            ray, count = stack.enter_context(session(self.devices))
            stack.callback(self._dismiss, ray)
            self._muster(ray, min(count, len(jobs)))
            while self._queue or self._waiting or any(actor.job for actor in self._actors):
                yield from self._give()
                yield from self._take(ray)
                self._wait_for_others()

    # -- giving ----------------------------------------------------------------------------------

    def _muster(self, ray: Any, count: int) -> None:
        hand = ray.remote(
            num_cpus=1,
            num_gpus=1 if self.devices.gpus else 0,
            max_restarts=-1,
            max_task_retries=0,
            concurrency_groups={"look": 1},
        )(Hand)
        for _ in range(count):
            handle = hand.remote(
                str(self.store.folder.absolute()), self.begin, self.retry_failed, os.getcwd()
            )
            self._actors.append(_Actor(handle, handle.ready.remote(__version__)))

    def _give(self) -> Iterator[Ended]:
        """A job to every actor that has none."""
        for actor in self._actors:
            while actor.is_idle and self._queue:
                job = self._queue.next(actor.model, [other.model for other in self._actors])
                record = self.store.ended(job.id)
                if record:
                    yield Ended(job, record, now=False)
                elif self._deaths[job.id] >= DEATHS:
                    yield from self._set_aside(job)
                else:
                    actor.job, actor.model = job, job.model
                    actor.asked = actor.handle.make.remote(job)
                    self.watch.begin(job)

    def _set_aside(self, job: Job) -> Iterator[Ended]:
        """Record a job as failed that kills its workers."""
        claim = self.store.claim(job.id)
        if claim is None:
            self._waiting.append(job)
            return
        with claim:
            record = self.store.ended(job.id)
            now = record is None
            if record is None:
                record = self.store.failure(
                    job.id,
                    job.index,
                    f"the process that was making it died, {DEATHS} times: it was killed,"
                    " perhaps for its memory, or it crashed",
                )
                self.store.record(record)
        yield Ended(job, record, now)

    def _wait_for_others(self) -> None:
        if self._waiting and not self._queue and not any(actor.job for actor in self._actors):
            if len(self._waiting) != self._told:
                self._told = len(self._waiting)
                self.watch.waiting(self._told)
            time.sleep(PAUSE)
            self.store.refresh()
            for job in self._waiting:
                self._queue.add(job)
            self._waiting = []

    # -- taking ----------------------------------------------------------------------------------

    def _take(self, ray: Any) -> Iterator[Ended]:
        """What the actors answer, within a short time."""
        self._ask(time.monotonic())
        calls = [call for actor in self._actors for call in (actor.asked, actor.looking) if call]
        if not calls:
            time.sleep(PAUSE if any(actor.again for actor in self._actors) else 0)
            return
        answered = set(ray.wait(calls, num_returns=1, timeout=PAUSE)[0])
        for actor in list(self._actors):
            if actor.looking in answered:
                self._seen(ray, actor)
            if actor.asked in answered:
                yield from self._answered(ray, actor)

    def _ask(self, now: float) -> None:
        """Those that died whether they are up again, and those at work how far they are."""
        for actor in self._actors:
            if actor.again is not None and now >= actor.again:
                actor.again = None
                actor.asked = actor.handle.ready.remote(__version__)
        if now - self._looked >= _LOOK:
            self._looked = now
            for actor in self._actors:
                if actor.job and not actor.looking:
                    look = actor.handle.look.options(concurrency_group="look")
                    actor.looking = look.remote()

    def _seen(self, ray: Any, actor: _Actor) -> None:
        call, actor.looking = actor.looking, None
        with suppress(ray.exceptions.RayError):  # the call of `make` tells of it
            look = ray.get(call)
            if actor.job:
                self.watch.seen(actor.job, look)

    def _answered(self, ray: Any, actor: _Actor) -> Iterator[Ended]:
        call, actor.asked = actor.asked, None
        job, actor.job = actor.job, None
        try:
            answer = ray.get(call)
        except ray.exceptions.RayTaskError as error:
            raise SpectrumError(f"a worker failed: {_line(error)}") from error
        except ray.exceptions.RayError as error:  # dead, or out of reach
            if job:
                yield from self._lost(job)
            if isinstance(error, ray.exceptions.ActorDiedError):  # and is not started again
                self._give_up(ray, actor, SpectrumError(_line(error)))
            actor.model, actor.again = None, time.monotonic() + PAUSE
        else:
            if job is None:
                if answer:
                    self._give_up(ray, actor, answer)
            elif isinstance(answer, SpectrumError):
                raise answer
            elif answer is None:
                self.watch.lost(job, died=False)
                self._waiting.append(job)
            else:
                record, now = answer
                self.store.records[job.id] = record
                yield Ended(job, record, now)

    def _give_up(self, ray: Any, actor: _Actor, trouble: SpectrumError) -> None:
        """Go on without an actor that is of no use. Raises why, if none is left."""
        self._actors.remove(actor)
        ray.kill(actor.handle, no_restart=True)
        if not self._actors:
            raise trouble

    def _lost(self, job: Job) -> Iterator[Ended]:
        """An actor died with this job, or just after it."""
        self.store.refresh()
        if record := self.store.ended(job.id):
            yield Ended(job, record, now=True)
        else:
            self.watch.lost(job, died=True)
            self._deaths[job.id] += 1
            self._queue.add(job)

    # -- ending ----------------------------------------------------------------------------------

    def _dismiss(self, ray: Any) -> None:
        """End the actors, and remove what those of this machine had under way when they are gone:
        an interrupt that comes meanwhile waits."""
        left = {actor.job.id for actor in self._actors if actor.job}
        with uninterrupted():
            for actor in self._actors:
                ray.kill(actor.handle, no_restart=True)
            until = time.monotonic() + _PATIENCE
            while left & self.store.claims.names() and time.monotonic() < until:
                time.sleep(0.05)
                self.store.recover()


def _line(error: Exception) -> str:
    """What Ray says last is the cause, below whole tracebacks."""
    return str(error).strip().splitlines()[-1][:500]
