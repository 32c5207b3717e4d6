"""What runs in the process of each device of a fleet (`spectrum.batch.fleet`)."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from spectrum import __version__
from spectrum.batch.jobs import Job
from spectrum.batch.manifest import Record
from spectrum.batch.store import Store
from spectrum.batch.watch import Ended, Look, Watch
from spectrum.errors import DeviceError, SpectrumError
from spectrum.report import Report, Step


class Maker(Protocol):
    """What `spectrum.batch.run.Worker` is to an actor."""

    def attempt(self, job: Job) -> Ended | None: ...


# Makes an actor's worker, in the actor's process. What it raises is wrong with the machine.
Begin = Callable[[Store, Watch], Maker]


class _Noted(Watch):
    """Keeps the newest of what is told, for another thread to look at."""

    def __init__(self) -> None:
        self.look = Look()

    def begin(self, job: Job, more: int = 0) -> None:
        self.look = Look()

    def stage(self, name: str) -> None:
        self.look = replace(self.look, stage=name)

    def on_step(self, report: Report, step: Step | None) -> None:
        self.look = Look("decode" if report.finished else "denoise", report)


class Hand:
    """One worker in a process of its own; an actor of Ray's.

    What is wrong with the machine or the folder is returned, not raised: Ray would wrap it.
    """

    def __init__(self, folder: str, begin: Begin, retry_failed: bool, cwd: str) -> None:
        self._folder, self._begin, self._retry_failed = Path(folder), begin, retry_failed
        self._cwd = cwd
        self._watch = _Noted()
        self._worker: Maker | None = None

    def ready(self, version: str) -> SpectrumError | None:
        """Open the folder and try the device; what is wrong, if anything is."""
        if self._worker is not None:
            return None
        host = socket.gethostname()
        if version != __version__:
            return SpectrumError(f"{host} has Spectrum {__version__}, not {version}")
        if not (self._folder / ".spectrum").is_dir():  # or it would be made here
            return SpectrumError(f"{host} doesn't see {self._folder}; use a folder that is shared")
        with suppress(OSError):
            os.chdir(self._cwd)  # what jobs name is found from there
        try:
            self._worker = self._begin(Store(self._folder, self._retry_failed), self._watch)
        except SpectrumError as error:
            return type(error)(f"{host}: {error}")
        return None

    def make(self, job: Job) -> tuple[Record, bool] | SpectrumError | None:
        """How the job ended, and whether now; an error of the folder's; None if another process is
        making it."""
        assert self._worker is not None
        try:
            ended = self._worker.attempt(job)
        except DeviceError:
            os._exit(1)  # the job is recorded; a new process may find the device well again
        except SpectrumError as error:
            return error
        return (ended.record, ended.now) if ended else None

    def look(self) -> Look:
        """How far it is; asked while it works."""
        look = self._watch.look
        if look.report is None:
            return look
        steps = [replace(step, took=step.seconds) for step in list(look.report.steps)]
        return replace(look, report=replace(look.report, steps=steps))
