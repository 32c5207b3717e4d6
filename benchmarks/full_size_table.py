"""What `full_size.py` measured, as Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import median
from typing import Any

from tables import header
from tables import row as line

Row = dict[str, Any]  # of one pair; without figures, but with a `reason`, where there is none
_COLUMNS = (
    "model", "", "computed", "computed step", "forecast step", "speedup", "of the ideal",
    "peak memory", "stored",
)  # fmt: skip


def table(rows: Sequence[Row]) -> Iterator[str]:
    """A table for each scale, device and number of steps; a line a contender, with the medians of
    its pairs."""
    for kind in dict.fromkeys(_kind(row) for row in rows):
        some = [row for row in rows if _kind(row) == kind]
        scale, steps, on = kind
        dates = sorted(row["date"] for row in some)
        days = dates[0] if dates[0] == dates[-1] else f"{dates[0]} to {dates[-1]}"
        pairs = max(row["pair"] for row in some) + 1
        yield f"{scale} size, {steps} steps, {pairs} pair{'s' * (pairs > 1)}; {on}; {days}"
        yield ""
        yield from header(_COLUMNS)
        measured = [row for row in some if "reason" not in row]
        for model, contender in dict.fromkeys((r["model"], r["contender"]) for r in measured):
            ours = [r for r in measured if (r["model"], r["contender"]) == (model, contender)]
            yield line([model, contender, *_cells(ours, steps)])
        yield ""
        yield from _reasons(some)


def _kind(row: Row) -> tuple[str, int, str]:
    return row["scale"], row["steps"], row["on"]


def _reasons(rows: Sequence[Row]) -> Iterator[str]:
    found: dict[tuple[str, str], list[str]] = {}
    for each in rows:
        if "reason" in each:
            found.setdefault((each["model"], each["reason"]), []).append(each["contender"])
    for (model, reason), names in found.items():
        yield f"- {model} without {', '.join(dict.fromkeys(names))}: {reason}"
    if found:
        yield ""


def _cells(rows: Sequence[Row], steps: int) -> list[str]:
    speedup = median(r["plain_step_seconds"] * steps / r["seconds"] for r in rows)
    computed = median(len(r["computed_steps"]) for r in rows)
    return [
        f"{computed:g}",
        _duration(rows, "computed_step_seconds"),
        _duration(rows, "forecast_step_seconds"),
        f"{speedup:.2f} of {steps / computed:.2f}",
        f"{speedup * computed / steps:.1%}",
        _mebibytes(rows, "peak_bytes"),
        _mebibytes(rows, "stored_bytes"),
    ]


def _duration(rows: Sequence[Row], name: str) -> str:
    seconds = median(row[name] for row in rows)
    return f"{seconds:.3g} s" if seconds >= 1 else f"{1000 * seconds:.3g} ms"


def _mebibytes(rows: Sequence[Row], name: str) -> str:
    count = max(row[name] or 0 for row in rows)
    if not count:
        return "–"
    return f"{count / 2**20:.2f} MiB" if count < 2**30 else f"{count / 2**30:.1f} GiB"
