"""Who makes which job: claims on names in a folder that processes and machines share.

A claim is a file, NAME.1, created exclusively and locked by the operating system for as long as
its owner lives; the lock dies with the owner. Where such a lock tells nothing (the owner is on
another machine, or the file system has no locks) the owner touches the file every few seconds, and
a file that stays untouched for longer than a lease is nobody's. A claim that is nobody's is not
removed, which two could do at once: the next number is created, exclusively again, and the highest
number is the owner.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from spectrum.pipeline.files import lock
from spectrum.pipeline.foreign import parse_json

LEASE, BEAT = 60.0, 10.0  # seconds


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """While this file is locked, as far as the file system can."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o666)
    try:
        lock(handle, wait=True)
        yield
    finally:
        os.close(handle)


def _kernel() -> str | None:
    """What is the same for all processes whose locks see each other; None where nobody tells."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None


@dataclass
class Claim:
    """A name that is ours until it is released, at the end of a `with` at the latest."""

    path: Path
    handle: int
    claims: Claims
    before: list[Path] = field(default_factory=list)  # files of owners that are dead

    @property
    def holds(self) -> bool:
        """False if others took the name since: this process stood still for longer than a lease."""
        return self.claims.newest(self.path.stem) == self.path

    @property
    def is_inherited(self) -> bool:
        """Whether an owner before died with it."""
        return bool(self.before)

    def release(self) -> None:
        """Leave the name to others."""
        self.claims.release(self)

    def abandon(self) -> None:
        """Leave it as if this process had died: who takes it next, inherits it."""
        self.claims.release(self, keep=True)

    def __enter__(self) -> Claim:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.release()


@dataclass
class Claims:
    """The claims in one folder, and the thread that keeps those of this process alive."""

    folder: Path
    lease: float = LEASE
    beat: float = BEAT
    _held: dict[Path, Claim] = field(default_factory=dict)
    _seen: dict[Path, tuple[int, float]] = field(default_factory=dict)  # touched, noticed
    _heart: threading.Thread | None = None
    _guard: threading.Lock = field(default_factory=threading.Lock)

    def names(self) -> set[str]:
        """All that somebody claims, or claimed when he died."""
        return {path.stem for path in self.folder.iterdir() if _number(path)}

    def newest(self, name: str) -> Path | None:
        """The file whose owner has the name, if he lives."""
        return max(self._files(name), key=_number, default=None)

    def take(self, name: str) -> Claim | None:
        """The name, at once; None if somebody else has it."""
        before = self._files(name)
        if not all(map(self._is_abandoned, before)):
            return None
        path = self.folder / f"{name}.{max(map(_number, before), default=0) + 1}"
        handle = self._create(path)
        if handle is None:
            return None
        claim = self._held[path] = Claim(path, handle, self)
        self._start_heart()
        others = [other for other in self._files(name) if other != path]
        if not all(map(self._is_abandoned, others)):
            claim.release()  # both were fast, and one of them at least sees the other
            return None
        claim.before = others
        return claim

    def release(self, claim: Claim, keep: bool = False) -> None:
        """Let the claim go; its file, and those of the dead before it, are removed or kept."""
        if self._held.pop(claim.path, None) is None:
            return
        os.close(claim.handle)
        for path in () if keep else (*claim.before, claim.path):
            path.unlink(missing_ok=True)

    def sweep(self) -> None:
        """Remove what is left of claims that were never finished, by owners that are dead."""
        for entry in self.folder.iterdir():
            if entry.name.startswith(".") and self._is_abandoned(entry):
                entry.unlink(missing_ok=True)

    # -- files -----------------------------------------------------------------------------------

    def _files(self, name: str) -> list[Path]:
        return [path for path in self.folder.iterdir() if path.stem == name and _number(path)]

    def _create(self, path: Path) -> int | None:
        """The open and locked file; None if it is there already. It appears with its content."""
        hidden = self.folder / f".{secrets.token_hex(8)}"
        handle = self._open_new(hidden)
        try:
            os.link(hidden, path)
        except FileExistsError:
            os.close(handle)
            return None
        except OSError:  # no links here
            os.close(handle)
            try:
                return self._open_new(path)
            except FileExistsError:
                return None
        finally:
            hidden.unlink(missing_ok=True)
        return handle

    def _open_new(self, path: Path) -> int:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        owner = {"kernel": _kernel() if lock(handle) else None, "host": socket.gethostname()}
        os.write(handle, json.dumps({**owner, "pid": os.getpid()}).encode())
        return handle

    def _is_abandoned(self, path: Path) -> bool:
        if path in self._held:
            return False
        try:
            handle = os.open(path, os.O_RDWR)
        except FileNotFoundError:
            return True
        try:
            kernel = _owner(handle).get("kernel")
            if kernel is not None and kernel == _kernel():
                free = lock(handle)
                if free is not None:
                    return free
            return self._is_untouched(path, os.fstat(handle).st_mtime_ns)
        finally:
            os.close(handle)

    def _is_untouched(self, path: Path, touched: int) -> bool:
        """For a whole lease while we looked: clocks of other machines are not asked."""
        now = time.monotonic()
        seen, since = self._seen.get(path, (-1, now))
        if seen != touched:
            since = now
        self._seen[path] = (touched, since)
        return now - since > self.lease

    # -- heart -----------------------------------------------------------------------------------

    def _start_heart(self) -> None:
        with self._guard:
            if self._heart is None:
                self._heart = threading.Thread(target=self._beat, daemon=True)
                self._heart.start()

    def _beat(self) -> None:
        while True:
            time.sleep(self.beat)
            with self._guard:
                if not self._held:
                    self._heart = None
                    return
            for path in list(self._held):
                with contextlib.suppress(OSError):  # released meanwhile, or the disk is away
                    os.utime(path)


def _number(path: Path) -> int:
    """Of a claim's file; 0 for another."""
    number = path.suffix[1:]
    return int(number) if number.isdecimal() else 0


def _owner(handle: int) -> dict[str, Any]:
    try:
        found = parse_json(os.read(handle, 4096) or b"{}")
    except (ValueError, OSError):
        return {}
    return found if isinstance(found, dict) else {}
