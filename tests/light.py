"""A worker for a fleet that imports no torch: it is started, and dies, in a second."""

import os
import signal
import time

from spectrum.batch.manifest import Record
from spectrum.batch.store import FolderError
from spectrum.batch.watch import Ended
from spectrum.errors import DeviceError, UsageError


class Light:
    """What it does with a job is the job's prompt."""

    def __init__(self, store, watch):
        self.store, self.watch = store, watch

    def attempt(self, job):
        claim = self.store.claim(job.id)
        if claim is None:
            return None
        with claim:
            if record := self.store.ended(job.id):
                return Ended(job, record, now=False)
            self.watch.begin(job)
            prompt = job.request.prompt
            record = Record(id=job.id, index=job.index, status="done", notes=[str(os.getpid())])
            if prompt == "broken device":
                self.store.record(record.model_copy(update={"status": "failed", "error": prompt}))
                raise DeviceError(prompt)
            record = self.store.put(claim, record, job.name, lambda path: self._make(path, prompt))
            if prompt == "done and dead":
                os.kill(os.getpid(), signal.SIGKILL)
            return Ended(job, record, now=True)

    def _make(self, path, prompt):
        path.write_text(prompt)
        if prompt == "deadly":
            os.kill(os.getpid(), signal.SIGKILL)
        if prompt == "full":
            raise FolderError("out: No space left on device")
        if prompt.startswith("slow"):
            time.sleep(60)


def begin(device, store, watch):
    assert device == "cpu"
    return Light(store, watch)


def nowhere(store, watch):
    raise UsageError("no device here")
