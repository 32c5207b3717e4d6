"""The file protocol of a batch: one folder, any number of processes and machines.

    DIR/NAME.png, NAME.mp4      outputs, whole, each with its job's id among its metadata
    DIR/manifest.jsonl          how each job ended (`spectrum.batch.manifest`)
    DIR/.spectrum/claims/       who makes what at the moment (`spectrum.batch.claims`)
    DIR/.ID.RANDOM.partial      outputs under way

A job is done if the manifest names its file and the file is there. Whoever makes a job claims its
id, looks whether it is done by now, writes the output beside its place, puts it there without
overwriting, adds the line, and releases the claim. A kill between any two of these loses nothing:
an output without a line is found by its metadata, an output under way by its owner's death.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from spectrum.batch.claims import BEAT, LEASE, Claim, Claims
from spectrum.batch.manifest import Manifest, Record
from spectrum.errors import SpectrumError, UsageError
from spectrum.pipeline.files import place, sync, uninterrupted
from spectrum.pipeline.formats import FFMPEGS, PILLOWS
from spectrum.pipeline.media import read_metadata

ENDINGS = (*PILLOWS, *FFMPEGS)
_PARTIAL = re.compile(r"\.([0-9a-f]{16,64})\.[0-9a-f]+\.partial")
# Wrong with the folder, not with a job: whatever is made next would meet the same.
_OF_THE_FOLDER = {
    getattr(errno, name, None)
    for name in ("ENOSPC", "EDQUOT", "EROFS", "EIO", "ESTALE", "EACCES", "EPERM")
}


class FolderError(SpectrumError):
    """The folder can't be written to: full, read-only or gone. What was made before is kept."""


class LostClaim(SpectrumError):
    """This process stood still for so long that another one has taken the job."""


@contextmanager
def _in_folder(folder: Path) -> Iterator[None]:
    """Raise FolderError for what is wrong with the folder."""
    try:
        yield
    except OSError as error:
        if error.errno not in _OF_THE_FOLDER and folder.is_dir():
            raise
        raise _folder_error(folder, error.strerror) from error
    except SpectrumError as error:  # ffmpeg tells it in words
        if (full := os.strerror(errno.ENOSPC)) not in str(error):
            raise
        raise _folder_error(folder, full) from error


def _folder_error(folder: Path, reason: str | None) -> FolderError:
    return FolderError(f"{folder}: {reason}; mend that, and the same command goes on")


class Store:
    """A folder of outputs, opened: made if need be, cleaned of what the dead left, and read.

    `records` holds how each job ended last, by its id; `refresh` takes in what other processes
    added. With `retry_failed`, jobs that have failed by now are as if they had not ended. Raises
    FolderError where the folder can't be written to.
    """

    def __init__(
        self, folder: Path, retry_failed: bool = False, lease: float = LEASE, beat: float = BEAT
    ) -> None:
        self.folder, own = folder, folder / ".spectrum"
        self.records: dict[str, Record] = {}
        self._retried: dict[str, Record] = {}
        self._manifest = Manifest(folder, own / "lock")
        self.claims = Claims(own / "claims", lease, beat)
        if folder.exists() and not folder.is_dir():
            raise UsageError(f"{folder} is a file; give a folder as `output`")
        with _in_folder(folder):
            self.claims.folder.mkdir(parents=True, exist_ok=True)
            self.refresh()
            self._retried = dict(self.records) if retry_failed else {}
            self.recover()

    def refresh(self) -> None:
        """Read what the manifest says by now."""
        for record in self._manifest.read():
            self.records[record.id] = record

    def ended(self, id: str) -> Record | None:
        """How a job ended, as far as `records` knows; None if it is to be made, as it also is
        where its output is gone."""
        record = self.records.get(id)
        if record is None or record.status == "failed":
            return None if record is self._retried.get(id) else record
        try:
            found = os.stat(self.folder / record.file) if record.file else None
        except OSError:
            return None
        whole = found and found.st_size and record.bytes in (None, found.st_size)
        return record if whole else None

    def claim(self, id: str) -> Claim | None:
        """Take a job; None if another process has it. Raises FolderError.

        Afterwards `records` is as new as the claim: look again whether the job has ended.
        """
        with _in_folder(self.folder):
            claim = self.claims.take(id)
            if claim is None:
                return None
            self.refresh()
            if claim.is_inherited and self.ended(id) is None:
                self.rescan()  # the owner before may have died with the output in place
        return claim

    def put(
        self, claim: Claim, record: Record, name: str, encode: Callable[[Path], None]
    ) -> Record:
        """Have the output of a claimed job written, put it in its place whole, under the name or
        the next that is free, and add the record with its file to the manifest.

        Raises what `encode` does, FolderError, and LostClaim.
        """
        partial = self.folder / f".{record.id}.{secrets.token_hex(8)}.partial"
        try:
            with _in_folder(self.folder):
                os.close(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
                encode(partial)
                sync(partial)
                if not claim.holds:
                    raise LostClaim(f"{name}: another process has taken this job")
                with uninterrupted():
                    return self._keep(claim, record, place(partial, self.folder / name))
        finally:
            with suppress(OSError):
                partial.unlink()

    def _keep(self, claim: Claim, record: Record, path: Path) -> Record:
        """The record, written with its file, or else left for those to find who inherit."""
        try:
            sync(self.folder)
            record = record.model_copy(update={"file": path.name, "bytes": path.stat().st_size})
            self.record(record)
        except BaseException:
            claim.abandon()
            raise
        return record

    def attempt(self, id: str) -> int:
        """The number of an attempt at a job, from 1, after those that are recorded."""
        before = self.records.get(id)
        return before.attempt + 1 if before else 1

    def failure(self, id: str, index: int, error: str) -> Record:
        """Of an attempt that failed; not recorded yet."""
        return Record(id=id, index=index, status="failed", error=error, attempt=self.attempt(id))

    def record(self, record: Record) -> None:
        """Add a line to the manifest. Raises FolderError."""
        with _in_folder(self.folder):
            self._manifest.append(record)
        self.records[record.id] = record

    def rescan(self) -> None:
        """Take in outputs that the manifest does not name, by what they say of themselves: those of
        a process that died between the two, or all of them if the manifest is gone."""
        named = {record.file for record in self.records.values()}
        for path in sorted(self.folder.iterdir()):
            if path.suffix.lower() not in ENDINGS or path.name in named or path.name[0] == ".":
                continue
            found = _record_in(path)
            if found and self.ended(found.id) is None:
                self.record(found)

    def recover(self) -> None:
        """Take over what the dead had claimed: remove their outputs under way, and take in those
        in place before anybody else can claim these jobs."""
        self.claims.sweep()
        partials: dict[str, list[Path]] = {id: [] for id in self.claims.names()}
        for path in self.folder.iterdir():
            if found := _PARTIAL.fullmatch(path.name):
                partials.setdefault(found[1], []).append(path)
        with ExitStack() as claimed:
            for id, paths in partials.items():
                if claim := self.claims.take(id):
                    claimed.enter_context(claim)
                    for path in paths:
                        path.unlink(missing_ok=True)
            self.rescan()

    # -- files -----------------------------------------------------------------------------------


def _record_in(path: Path) -> Record | None:
    """What an output says of its job; None for a file that is none of ours, or not whole."""
    try:
        document = read_metadata(path)
        return Record.model_validate(
            {
                **document["job"],
                "computed_steps": document.get("computed_steps"),
                "status": "done",
                "file": path.name,
                "bytes": path.stat().st_size,
            }
        )
    except (UsageError, OSError, KeyError, TypeError, ValidationError):
        return None


def job_document(record: Record) -> dict[str, Any]:
    """What an output says of its job, so that the manifest can be written again from it."""
    return record.model_dump(include={"id", "index", "seconds", "estimated_speedup", "attempt"})
