"""Figures of a benchmark on disk, and what they say as Markdown and as a chart."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from contenders import OURS, PUBLISHED

from spectrum.compare.plot import Chart, Point
from spectrum.compare.rivals import FEWER_STEPS

PLOTTED = 6  # lines: these, then the best of the others
PREDICTS_NOISE = "predicts the noise"  # in a sheet's conditions
_ALWAYS = (OURS, FEWER_STEPS, PUBLISHED, "taylor1")

Column = dict[str, list[float]]  # a contender: dB of each prompt


@dataclass
class Sheet:
    """Figures of one model in one regime: computed steps, contender, dB of each prompt."""

    model: str
    match: float
    steps: int
    conditions: str = ""
    figures: dict[str, Column] = field(default_factory=dict)

    @property
    def stem(self) -> str:
        return f"{self.model}.match{self.match:g}.{self.steps}"

    @property
    def title(self) -> str:
        levels = "own noise levels" if self.match == 1 else f"noise levels / {self.match:g}"
        return f"{self.model}, {levels}, {self.steps} steps"

    def column(self, count: int) -> Column:
        return self.figures.setdefault(str(count), {})

    def counts(self) -> list[int]:
        return sorted(int(count) for count, column in self.figures.items() if column)

    def save(self, folder: Path) -> None:
        """Whole or not at all."""
        partial = folder / f".{self.stem}.partial"
        partial.write_text(json.dumps(vars(self)), encoding="utf-8")
        partial.replace(folder / f"{self.stem}.json")


def open_sheet(folder: Path, model: str, match: float, steps: int) -> Sheet:
    """With what is in the folder already."""
    sheet = Sheet(model, match, steps)
    file = folder / f"{sheet.stem}.json"
    return Sheet(**json.loads(file.read_text(encoding="utf-8"))) if file.exists() else sheet


def read_sheets(folder: Path) -> list[Sheet]:
    files = sorted(folder.glob("*.match*.json"))
    return [Sheet(**json.loads(file.read_text(encoding="utf-8"))) for file in files]


def is_ours(name: str) -> bool:
    """The default method, a candidate, or the default method on other steps."""
    return name.startswith(OURS) or name.endswith(f":{OURS}")


def best_rival(column: Column) -> str | None:
    """Of those that are not ours, the one with the highest mean."""
    rivals = [name for name in column if not is_ours(name)]
    return max(rivals, key=lambda name: statistics.fmean(column[name]), default=None)


def gains(column: Column, ours: str = OURS) -> list[float]:
    """dB over the best rival, of each prompt that both have; empty where one of them is missing."""
    best = best_rival(column)
    if best is None or ours not in column:
        return []
    return [a - b for a, b in zip(column[ours], column[best], strict=False)]


def standard_error(values: Sequence[float]) -> float:
    return statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0


def spread(values: Sequence[float]) -> str:
    if len(values) < 2:
        return "".join(f"{value:.1f}" for value in values)
    return f"{statistics.fmean(values):.1f} ± {standard_error(values):.1f}"


def row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def header(cells: Sequence[str]) -> list[str]:
    return [row(cells), "|" + "---|" * len(cells)]


def sheet_table(sheet: Sheet) -> Iterator[str]:
    """One row a contender, best first in the middle column."""
    counts = sheet.counts()
    if not counts:
        return
    columns = [sheet.column(count) for count in counts]
    middle = columns[len(columns) // 2]
    names = sorted(
        {name for column in columns for name in column},
        key=lambda name: (-statistics.fmean(middle.get(name, [0.0])), name),
    )
    yield from header(["", *(f"{count} computed" for count in counts)])
    for name in names:
        yield row([f"`{name}`", *(spread(column.get(name, [])) for column in columns)])
    shown = [f"{spread(gains(c))} ({best_rival(c)})" if gains(c) else "" for c in columns]
    if any(shown):
        yield row([f"*`{OURS}` over the best rival*", *shown])


def summary(sheets: Sequence[Sheet], ours: str = OURS) -> Iterator[str]:
    """dB over the best rival at as many computed steps: one row a model, a column each regime."""
    cells = {
        (sheet.model, sheet.steps, sheet.match, count): gains(sheet.column(count), ours)
        for sheet in sheets
        for count in sheet.counts()
    }
    columns = sorted({key[1:] for key, values in cells.items() if values})
    if not columns:
        return  # of `spectrum` at other scales alone
    titles = [f"{count} of {steps}, levels / {match:g}" for steps, match, count in columns]
    yield from header(["", *titles])
    models = sorted({sheet.model for sheet in sheets})
    for model in models:
        yield row([model, *(spread(cells.get((model, *column), [])) for column in columns)])
    means = [
        [statistics.fmean(cells[model, *c]) for model in models if cells.get((model, *c))]
        for c in columns
    ]
    yield row(["*mean of the models*", *(spread(values) for values in means)])


def cells_table(sheets: Sequence[Sheet]) -> Iterator[str]:
    """One row a model, regime and count: dB, and the gain over the best rival."""
    yield from header(["model", "computed, levels", "dB", "gain, dB", "best rival"])
    for sheet in sheets:
        levels = "own" if sheet.match == 1 else f"/ {sheet.match:g}"
        for count in sheet.counts():
            column = sheet.column(count)
            if found := gains(column):
                gain = f"{statistics.fmean(found):+.1f} ± {standard_error(found):.1f}"
                decibels = spread(column[OURS])
                computed = f"{count} of {sheet.steps}, {levels}"
                yield row([sheet.model, computed, decibels, gain, f"`{best_rival(column)}`"])


def chart(sheet: Sheet) -> Chart:
    """PSNR against computed steps, of the default method and its best rivals."""
    series: dict[str, list[Point]] = {}
    counts = sheet.counts()
    for count in counts:
        for name, values in sheet.column(count).items():
            if is_ours(name) and name != OURS:
                continue
            point = (count, statistics.fmean(values), standard_error(values))
            series.setdefault(name, []).append(point)
    if len(counts) > 1:  # schedules that were found are of one count
        series = {name: points for name, points in series.items() if len(points) > 1}
    best = sorted(series, key=lambda n: -statistics.fmean(mean for _, mean, _ in series[n]))
    always = [name for name in _ALWAYS if name in series]
    shown = [*always, *(name for name in best if name not in always)][:PLOTTED]
    lines = {name: series[name] for name in shown}
    return Chart(f"PSNR: {sheet.title}", "computed steps", "PSNR, dB", lines)
