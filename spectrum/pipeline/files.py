"""Files put in their place whole, on disk, and never over one that is there already.

A file is made under a hidden name beside its place, `.spectrum-RANDOM.partial`, which its process
keeps locked, so that others can tell, and remove, what the dead have left. Then it is linked to its
name: the system refuses that where the name is taken, and the next free one is tried.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

LONGEST_NAME = 255  # bytes, on all usual file systems
PARTIAL = re.compile(r"\.spectrum-([0-9a-f]{16})\.partial")

SIGNALS = [
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGALRM")  # the last repeats one of the others
    if hasattr(signal, name)
]
_YOUNG = 2.0  # seconds in which a new file may not be locked yet
_DEAD = 86400.0  # seconds after which one is nobody's where there are no locks
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS)


def write(path: Path, make: Callable[[Path], object], replace: bool = False) -> Path:
    """Have a file made, and give it its name or, where that is taken, the next free one: which one.

    make: writes into the empty file that it is given.
    replace: what has the name gives way to the file; a folder does not.
    """
    remove_dead(path.parent)
    with _under_way(path.parent) as partial:
        make(partial)
        sync(partial)
        return place(partial, path, replace)


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A temporary path in the same folder, which takes the place of `path`, a file of ours, at the
    end and is removed after any failure."""
    with _under_way(path.parent) as partial:
        yield partial
        os.replace(partial, path)


@contextmanager
def _under_way(folder: Path) -> Iterator[Path]:
    """A new and empty file of a name that nobody knows; gone at the end, if it is there still."""
    path = hidden(folder)
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)  # follows no link either
    try:
        lock(handle)
        yield path
    finally:
        os.close(handle)
        with suppress(OSError):
            path.unlink()


def hidden(folder: Path) -> Path:
    """A name for what is under way there."""
    return folder / f".spectrum-{secrets.token_hex(8)}.partial"


def place(partial: Path, path: Path, replace: bool = False) -> Path:
    """Give a whole file its name, or the next that is free: which one."""
    with uninterrupted():
        if replace:
            with suppress(IsADirectoryError, PermissionError):  # a folder, on Windows
                os.replace(partial, path)
                return path
        for candidate in numbered(path):
            if _linked(partial, candidate):
                return candidate
    raise AssertionError("there is always a free name")


def _linked(partial: Path, path: Path) -> bool:
    """Whether the file has that name now, and not another one."""
    try:
        os.link(partial, path)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno in _FULL:
            raise
    else:
        return True
    try:  # no links here: an empty file of ours keeps the name free of others
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
    except FileExistsError:
        return False
    os.replace(partial, path)
    return True


def numbered(path: Path, is_folder: bool = False) -> Iterator[Path]:
    """name, name-2, name-3, ... with the ending behind the number, none of them too long."""
    yield path
    stem, ending = (path.name, "") if is_folder else (path.stem, path.suffix)
    for number in count(2):
        behind = f"-{number}{ending}"
        room = LONGEST_NAME - len(os.fsencode(behind))
        yield path.with_name(os.fsencode(stem)[:room].decode("utf-8", "ignore") + behind)


def remove_dead(folder: Path) -> None:
    """Remove what processes that are dead have left under way in a folder."""
    with suppress(OSError):
        for path in folder.iterdir():
            if PARTIAL.fullmatch(path.name) and not path.is_dir():
                with suppress(OSError), unowned(path, os.O_RDWR) as free:
                    if free:
                        path.unlink()


@contextmanager
def unowned(path: Path, flags: int) -> Iterator[bool]:
    """Whether nobody keeps a file or folder locked any more; nobody will, in the block."""
    handle = os.open(path, flags | getattr(os, "O_NOFOLLOW", 0))
    try:
        free = lock(handle)
        age = time.time() - os.fstat(handle).st_mtime
        yield age > (_YOUNG if free else _DEAD) if free is not False else False
    finally:
        os.close(handle)


def lock(handle: int, wait: bool = False) -> bool | None:
    """Lock an open file for this process. False: another one has it. None: there are no locks."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def sync(path: Path) -> None:
    """See that a file's content, or a folder's names, are on disk."""
    if os.name == "nt" and path.is_dir():
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Signals wait until the end, where this thread would get them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    before = {
        int(number): signal.signal(number, lambda number, _: came.append(number))
        for number in SIGNALS
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)
        for number in came:
            signal.raise_signal(number)
