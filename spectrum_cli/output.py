"""Where words go: data to stdout, everything else to stderr, one line an error."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Iterable
from functools import cache
from typing import TYPE_CHECKING, Any

from spectrum.errors import SpectrumError
from spectrum_cli.flags import with_flags

if TYPE_CHECKING:
    from rich.console import Console


# What a terminal obeys, or turns around, instead of showing it, and what no encoding takes.
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    """The text with every control character as JSON escapes it; for all that others wrote."""
    return _UNPRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


@cache
def console() -> Console:
    """The console on stderr, for progress, hints and summaries."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, soft_wrap=True)


def say(text: str, style: str | None = None) -> None:
    """A line on stderr, never wrapped, with nothing in it read as markup or obeyed."""
    console().print(printable(text), style=style, markup=False)


def error(text: str) -> None:
    """One line that says what is wrong and what to do, arguments as flags."""
    sys.stderr.write(f"spectrum: {printable(' '.join(with_flags(text).split()))}\n")


def reason(problem: Exception) -> str:
    """A line for what can go wrong anywhere: disk, or a defect of ours."""
    if isinstance(problem, OSError):
        return f"{problem.filename or 'a file'}: {problem.strerror or problem}"
    text = str(problem)
    return text if isinstance(problem, SpectrumError) else f"{type(problem).__name__}: {text}"


def emit(text: str) -> None:
    """Lines of data on stdout, with nothing in them that a terminal would obey."""
    _put("\n".join(map(printable, text.split("\n"))))


def emit_as_it_is(text: str) -> None:
    """What programs read letter by letter, such as a path; on a terminal it is data as all else."""
    if sys.stdout.isatty():
        emit(text)
    else:
        _put(text)


def emit_json(document: dict[str, Any], indent: int | None = None) -> None:
    emit(json.dumps(document, ensure_ascii=False, indent=indent))


def _put(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def terminal_width() -> int | None:
    """Of the terminal that shows stdout; None: there is none."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def columns(tables: Iterable[list[list[str]]], width: int | None) -> list[str]:
    """The first of these tables (rows of cells) that is not wider than that, or else the last."""
    for rows in tables:
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        if width is None or sum(widths) + 2 * (len(widths) - 1) <= width:
            break
    return [
        "  ".join(cell.ljust(wide) for cell, wide in zip(cells, widths, strict=True)).rstrip()
        for cells in rows
    ]


def on_one_terminal() -> bool:
    """Whether what is said and what is data are seen together."""
    return sys.stdout.isatty() and console().is_terminal


def human_bytes(count: int) -> str:
    size = float(count)
    for unit in ("bytes", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if size >= 100 or unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"


def human_seconds(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds:.2f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
