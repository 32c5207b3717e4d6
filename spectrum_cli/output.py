"""Where words go: data to stdout, everything else to stderr, one line an error."""

from __future__ import annotations

import json
import sys
from functools import cache
from typing import TYPE_CHECKING, Any

from spectrum_cli.flags import with_flags

if TYPE_CHECKING:
    from rich.console import Console


@cache
def console() -> Console:
    """The console on stderr, for progress, hints and summaries."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, soft_wrap=True)


def say(text: str, style: str | None = None) -> None:
    """A line on stderr, never wrapped, with nothing in it read as markup."""
    console().print(text, style=style, markup=False)


def error(text: str) -> None:
    """One line that says what is wrong and what to do, arguments as flags."""
    sys.stderr.write(f"spectrum: {' '.join(with_flags(text).split())}\n")


def emit(text: str) -> None:
    """A line of data on stdout."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def emit_json(document: dict[str, Any], indent: int | None = None) -> None:
    emit(json.dumps(document, ensure_ascii=False, indent=indent))


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
