"""What a folder says of its jobs: JSON Lines that only grow, one line for each job that ended."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, AliasChoices, BaseModel, ConfigDict, Field, ValidationError

from spectrum.batch.claims import locked

MANIFEST = "manifest.jsonl"
_LONGEST = 2**20  # bytes of a line


def _is_name(name: str) -> str:
    if not name or "/" in name or "\\" in name or "\0" in name or name in (".", ".."):
        raise ValueError("a file's name in the folder is needed")
    return name


class Record(BaseModel):
    """One line: how a job ended."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    id: Annotated[str, Field(pattern="^[0-9a-f]{16,64}$")]
    index: int = 0
    status: Literal["done", "failed"]
    file: Annotated[str, AfterValidator(_is_name)] | None = None
    bytes: int | None = None  # of the file
    seconds: float | None = None  # from the prompt's encoding to the pictures
    computed_steps: list[int] | None = None
    estimated_speedup: float | None = Field(  # over all steps computed; see Report
        default=None, validation_alias=AliasChoices("estimated_speedup", "measured_speedup")
    )  # which is what it was called in folders of old
    notes: list[str] | None = None  # what did not go as planned
    error: str | None = None
    attempt: int = 1


class Manifest:
    """The lines of one folder. `read` gives those that came since it was last asked."""

    def __init__(self, folder: Path, lock: Path) -> None:
        self.path, self._lock = folder / MANIFEST, lock
        self._read = 0  # bytes

    def read(self) -> list[Record]:
        """Lines that are no records, as a torn one at the end, are passed over."""
        try:
            with self.path.open("rb") as file:
                if os.fstat(file.fileno()).st_size < self._read:
                    self._read = 0  # written anew by somebody
                file.seek(self._read)
                whole = file.read().rpartition(b"\n")[0]
        except FileNotFoundError:
            self._read = 0
            return []
        if whole:
            self._read += len(whole) + 1
        return [record for line in whole.split(b"\n") if (record := _record(line))]

    def append(self, record: Record) -> None:
        """Add a line in a single write. That of a failed job is on disk when this returns; an
        output, which is, says of itself what its line does. Raises OSError."""
        line = record.model_dump_json(exclude_none=True).encode() + b"\n"
        with locked(self._lock):
            handle = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
            try:
                size = _mend(handle)
                if os.write(handle, line) != len(line):
                    os.ftruncate(handle, size)
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
                if record.file is None:
                    os.fsync(handle)
            finally:
                os.close(handle)


def _record(line: bytes) -> Record | None:
    if not line.strip():
        return None
    try:
        return Record.model_validate_json(line)
    except ValidationError:
        return None


def _mend(handle: int) -> int:
    """End or cut off a last line without an end, which a power cut leaves; the file's size."""
    size = os.fstat(handle).st_size
    start = max(0, size - _LONGEST)
    os.lseek(handle, start, os.SEEK_SET)
    tail = os.read(handle, _LONGEST)
    torn = tail.rpartition(b"\n")[2]
    if not torn:
        return size
    if _record(torn):
        return size + os.write(handle, b"\n")
    os.ftruncate(handle, size - len(torn))
    return size - len(torn)
