"""What `spectrum batch` is given: all of a file, or lines of standard input as they come."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from spectrum.errors import UsageError

if TYPE_CHECKING:
    from spectrum.batch.reading import Problem, Raw


@dataclass
class Stream:
    """Lines as they come: plain ones, and JSON Lines."""

    lines: Iterator[bytes]

    def __iter__(self) -> Iterator[Raw | Problem]:
        from spectrum.batch.reading import Problem, decode, read_line

        for number, line in enumerate(self.lines, 1):
            try:
                found = read_line(number, decode(line, "it"))
            except UsageError:
                found = Problem(number, "not text in UTF-8")
            if found:
                yield found


def read(file: str) -> Stream | list[Raw | Problem]:
    """All of a file; of standard input a stream, unless it begins like CSV or YAML."""
    from spectrum.batch.reading import decode, first_line, kind_of, read_jobs

    if file == "-":
        lines = iter(sys.stdin.buffer.readline, b"")
        before = list(_until_text(lines))
        head = before[-1].decode("utf-8", "replace").strip() if before else ""
        if (kind := kind_of("", head)) not in ("csv", "yaml"):
            return Stream(chain(before, lines))
        return list(read_jobs(decode(b"".join([*before, *lines]), "-"), kind))
    try:
        data = Path(file).read_bytes()
    except (OSError, ValueError) as problem:
        reason = getattr(problem, "strerror", None) or problem
        raise UsageError(f"{file}: can't be read: {reason}") from problem
    text = decode(data, file)
    return list(read_jobs(text, kind_of(Path(file).suffix, first_line(text))))


def _until_text(lines: Iterator[bytes]) -> Iterator[bytes]:
    """The lines up to the first that is not empty, and that one."""
    for line in lines:
        yield line
        if line.strip():
            return
