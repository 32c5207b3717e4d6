"""The command in processes forked from one that has imported everything, and small or read-only
file systems that only such processes see."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

_HEAVY = (
    "diffusers.pipelines.flux.pipeline_flux",
    "imageio.plugins.pillow",
    "peft",
    "transformers.models.clip.tokenization_clip",
    "transformers.models.t5.tokenization_t5",
    "spectrum.batch.run",
    "spectrum_cli.batch_display",
    "spectrum_cli.main",
)


def warm_up() -> None:
    """Import all that a batch does. One thread: a process with more can't be forked safely."""
    import torch

    torch.set_num_threads(1)
    for name in _HEAVY:
        import_module(name)


class Run:
    """`spectrum ARGS` in a folder, begun in a process of its own."""

    def __init__(self, folder: Path, *args: str, before: Callable[[], object] = int) -> None:
        stem = folder.parent / f"{folder.name}.{time.monotonic_ns()}"
        self._out, self._err = Path(f"{stem}.out"), Path(f"{stem}.err")
        self.args, self.code = args, None
        self.pid = os.fork()
        if self.pid == 0:
            _become(folder, args, self._out, self._err, before)

    def poll(self) -> bool:
        """Whether it has ended."""
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.code = os.waitstatus_to_exitcode(status)
        return self.code is not None

    def wait(self) -> Run:
        """Until it has ended."""
        if self.code is None:
            self.code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self

    def end(self, number: int = signal.SIGKILL) -> int:
        """Send the signal; the exit code."""
        with suppress(ProcessLookupError):
            if not self.poll():
                os.kill(self.pid, number)
        return self.wait().code  # type: ignore[return-value]

    @property
    def err(self) -> str:
        if not self._err.exists():
            return ""  # it was killed before
        return self._err.read_text(errors="replace")

    def told(self, code: int, text: str) -> bool:
        """Whether it ended so, with words that say so, and no traceback."""
        return self.wait().code == code and text in self.err and "Traceback" not in self.err


def _become(folder: Path, args: tuple[str, ...], out: Path, err: Path, before: Any) -> None:
    try:
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):
            signal.signal(getattr(signal, name), signal.SIG_DFL)
        os.chdir(folder)
        for number, path in ((0, os.devnull), (1, out), (2, err)):
            flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC if number else os.O_RDONLY
            os.dup2(os.open(path, flags), number)
        sys.stdin, sys.stdout, sys.stderr = os.fdopen(0), os.fdopen(1, "w"), os.fdopen(2, "w")
        sys.argv = ["spectrum", *args]
        before()
        from spectrum_cli.__main__ import main

        main()
    except SystemExit as leave:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(int(leave.code or 0))
    finally:
        os._exit(99)


# -- disks -------------------------------------------------------------------------------------

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
