"""Small and read-only file systems in memory, which only one process and its children see."""

from __future__ import annotations

import ctypes
import json
import os
from collections.abc import Callable
from pathlib import Path

_NEW_MOUNTS, _NEW_USER = 0x00020000, 0x10000000
_READ_ONLY, _REMOUNT, _RECURSIVE, _PRIVATE = 1, 32, 16384, 1 << 18


class Disk:
    """Mounts of this process. Raises OSError where they are not allowed."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        if self._libc.unshare(_NEW_MOUNTS) and self._libc.unshare(_NEW_MOUNTS | _NEW_USER):
            raise OSError(ctypes.get_errno(), "unshare")
        self._call(None, Path("/"), None, _RECURSIVE | _PRIVATE, "")

    def mount(self, path: Path, options: str) -> None:
        """An empty file system at the path."""
        self._call(b"tmpfs", path, b"tmpfs", 0, options)

    def remount(self, path: Path, options: str, read_only: bool = False) -> None:
        """The same one with other options."""
        self._call(b"tmpfs", path, b"tmpfs", _REMOUNT | read_only * _READ_ONLY, options)

    def _call(
        self, source: bytes | None, path: Path, kind: bytes | None, flags: int, options: str
    ) -> None:
        if self._libc.mount(source, bytes(path), kind, flags, options.encode()):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(path))


def scenario(tried: Callable[[Disk], list[str]]) -> list[str] | None:
    """What it returns, in a process of its own; None where no file system can be mounted."""
    reading, writing = os.pipe()
    if (pid := os.fork()) == 0:
        found: list[str] | None = ["the scenario itself failed"]
        try:
            found = tried(Disk())
        except (OSError, AttributeError) as error:
            found = None if getattr(error, "filename", "") in (None, "/") else [str(error)]
        finally:
            os.write(writing, json.dumps(found).encode()[:60_000])
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        text = pipe.read()
    os.waitpid(pid, 0)
    found = json.loads(text)
    return found if found is None else [str(one) for one in found]
