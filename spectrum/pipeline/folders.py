"""Folders put in their place whole; one that is there gives way only if all in it is ours.

A folder of ours holds a file, `.spectrum-files`, with the names of all that we wrote into it: no
other file is ever removed. It is made under a hidden name, locked, as `spectrum.pipeline.files` has
it for single files. One that it is to replace is renamed to `.spectrum-RANDOM.old` first and
removed last: after a kill between the two, the next run there puts the new one in its place.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from spectrum.errors import UsageError
from spectrum.pipeline.files import PARTIAL, hidden, lock, numbered, sync, uninterrupted, unowned
from spectrum.pipeline.foreign import parse_json

MARKER = ".spectrum-files"
_OLD = re.compile(r"\.spectrum-([0-9a-f]{16})\.old")
_LONGEST = 2**22  # bytes of a marker
_ROOM = 2**16  # bytes of one under way, so that on a full disk there is room for its list of files
_TAKEN = (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR, errno.EISDIR)


def write_folder(path: Path, make: Callable[[Path], object], replace: bool = False) -> Path:
    """Have a folder filled, and give it its name or, where that is taken, the next free one: which
    one.

    make: writes into the empty folder that it is given.
    replace: a folder of ours that has the name gives way to it; see `check_replaceable`.
    """
    if replace and path.is_symlink() and path.is_dir():
        path = path.resolve()  # the link stays
    remove_dead_folders(path.parent)
    with _under_way(path) as partial:
        make(partial)
        _mark(partial, path.name, sorted(_files(partial) - {MARKER}))
        return _place(partial, path, replace)


def check_replaceable(path: Path) -> None:
    """Raise UsageError for a folder that holds anything that we did not write."""
    ours = _marked(path)
    if ours is None and any(path.iterdir()):
        raise UsageError(f"{path} was not made by spectrum, so it is not replaced; move it away")
    if others := sorted(_files(path) - {*(ours or ()), MARKER}):
        told = ", ".join(others[:3]) + ", …" * (len(others) > 3)
        raise UsageError(f"{path} holds files that are not ours, so it is not replaced: {told}")


def remove_dead_folders(folder: Path) -> None:
    """Remove what processes that are dead have left under way in a folder, and finish what they
    were replacing."""
    with suppress(OSError):
        names = [path.name for path in folder.iterdir()]
        for old in filter(None, map(_OLD.fullmatch, names)):
            with suppress(OSError):
                _finish(folder / old[0], folder / f".spectrum-{old[1]}.partial")
        for path in (folder / name for name in names if PARTIAL.fullmatch(name)):
            if path.is_dir():
                with suppress(OSError), unowned(path, os.O_RDONLY) as free:
                    if free and (path / MARKER).is_file():
                        shutil.rmtree(path, ignore_errors=True)


@contextmanager
def _under_way(path: Path) -> Iterator[Path]:
    """A new folder that nobody knows; gone at the end, if it is there still."""
    partial = hidden(path.parent)
    partial.mkdir()
    handle = None
    try:
        if os.name != "nt":
            handle = os.open(partial, os.O_RDONLY)
            lock(handle)
        _mark(partial, path.name, None)
        yield partial
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        if handle is not None:
            os.close(handle)


def _place(partial: Path, path: Path, replace: bool) -> Path:
    """Give a whole folder its name, or the next that is free: which one."""
    with uninterrupted():
        if replace and path.is_dir() and not path.is_symlink():
            with suppress(UsageError):  # filled meanwhile
                check_replaceable(path)
                _swap(partial, path)
                return path
        return _named(partial, path)


def _named(partial: Path, path: Path) -> Path:
    for candidate in numbered(path, is_folder=True):
        if os.path.lexists(candidate):
            continue
        try:  # the system replaces no file by a folder, and no folder but an empty one
            os.rename(partial, candidate)
            return candidate
        except OSError as error:
            if error.errno not in _TAKEN:
                raise
    raise AssertionError("there is always a free name")


def _swap(partial: Path, path: Path) -> None:
    old = partial.with_suffix(".old")
    os.rename(path, old)
    try:
        os.rename(partial, path)
    except OSError:
        os.rename(old, path)
        raise
    _remove_ours(old, path)


def _finish(old: Path, partial: Path) -> None:
    """What was killed between the two renames, or after them."""
    if not partial.is_dir():  # the new one is in its place
        _remove_ours(old, old.with_name("replaced"))
        return
    with unowned(partial, os.O_RDONLY) as free:
        name = _marker(partial).get("name")
        if free and isinstance(name, str) and name == Path(name).name:
            path = old.with_name(name)
            _named(partial, path)
            _remove_ours(old, path)


def _remove_ours(folder: Path, path: Path) -> None:
    """Remove our files and what is empty then; where others are left, it gets a free name."""
    ours = _marked(folder)
    for root, _, names in os.walk(folder, topdown=False):
        for name in names:
            file = Path(root, name)
            if file.relative_to(folder).as_posix() in (ours or ()):
                file.unlink(missing_ok=True)
        if Path(root) == folder and ours is not None:
            (folder / MARKER).unlink(missing_ok=True)
        with suppress(OSError):
            os.rmdir(root)
    if folder.is_dir() and ours is not None:
        _named(folder, path)


# -- what is ours --------------------------------------------------------------------------------


def _mark(folder: Path, name: str, files: list[str] | None) -> None:
    marker = folder / MARKER
    text = json.dumps({"spectrum": "wrote these, and removes no others", "name": name,
                       "files": files}, indent=0)  # fmt: skip
    marker.write_text(text.ljust(0 if files else _ROOM) + "\n", encoding="utf-8")
    sync(marker)


def _marked(folder: Path) -> set[str] | None:
    """The files that we wrote into it; None where it is no folder of ours."""
    files = _marker(folder).get("files")
    return {file for file in files if isinstance(file, str)} if isinstance(files, list) else None


def _marker(folder: Path) -> dict[str, Any]:
    path = folder / MARKER
    try:
        if path.is_symlink() or not path.is_file() or path.stat().st_size > _LONGEST:
            return {}
        found = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _files(folder: Path) -> set[str]:
    """All that is in it but folders that hold something, by its path within."""
    found = set()
    for root, folders, names in os.walk(folder):
        links = [name for name in folders if Path(root, name).is_symlink()]
        empty = [] if folders or names or Path(root) == folder else [""]
        for name in (*names, *links, *empty):
            found.add(Path(root, name).relative_to(folder).as_posix())
    return found
