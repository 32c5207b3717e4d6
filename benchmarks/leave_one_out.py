"""What the law of the scale is worth on a model that had no say in it.

    python benchmarks/leave_one_out.py outputs/quality

Models that predict a velocity and those that predict the noise have laws of their own. The
candidates are S = c · guidance^e for 64 positions. `quality.py --scale` has measured `spectrum@X`
at some X; a law takes the nearest of them, and is left out where that is further than a factor of
1.2 on any model. Each model in turn, with all guidances that it ran under (`--guidance`), is given
the law that is best on all others of its kind: the mean over models of the mean over cells of its
PSNR, in dB below the best candidate of that cell. What the model then gains over its own best rival
is told for each cell that has rivals (paired, ± the standard error over prompts).
"""

from __future__ import annotations

import argparse
import re
import statistics
from collections.abc import Iterator, Sequence
from itertools import product
from math import log
from pathlib import Path
from typing import NamedTuple

from contenders import OURS
from models import AT_GUIDANCE
from tables import (
    PREDICTS_NOISE,
    Sheet,
    best_rival,
    gains,
    header,
    read_sheets,
    row,
    spread,
    standard_error,
)

CONSTANTS = (2.0, 2.83, 4.0, 5.66, 6.0, 8.0, 11.3, 16.0, 22.6, 32.0, 45.0, 64.0, 90.0)
EXPONENTS = (0.0, 0.125, 0.25, 0.5, 0.75)
NEAR = 1.2


class Cell(NamedTuple):
    """One column of a sheet."""

    match: float
    steps: int
    count: int
    guidance: float
    column: dict[str, list[float]]

    def __str__(self) -> str:
        levels = "own" if self.match == 1 else f"/ {self.match:g}"
        return f"g {self.guidance:g}, {self.count} of {self.steps}, levels {levels}"


class Law(NamedTuple):
    """S of 64 positions = constant · guidance^exponent."""

    constant: float
    exponent: float

    def __str__(self) -> str:
        return f"{self.constant:g} · g^{self.exponent:g}" if self.exponent else f"{self.constant:g}"

    def nearest(self, cell: Cell) -> str | None:
        """The contender at its scale; None where none was measured near it."""
        sought = self.constant * cell.guidance**self.exponent
        away = {name: abs(log(scale_of(name) / sought)) for name in cell.column if is_ours(name)}
        name = min(away, key=lambda name: away[name])
        return name if away[name] <= log(NEAR) else None


Models = dict[str, list[Cell]]


def cells_of(sheets: Sequence[Sheet]) -> Models:
    """Those that have candidates, by model."""
    found: Models = {}
    for sheet in sheets:
        guidance = re.search(r"guidance ([\d.]+)", sheet.conditions)
        for count in sheet.counts() if guidance else ():
            column = sheet.column(count)
            cell = Cell(sheet.match, sheet.steps, count, float(guidance[1]), column)
            if sum(map(is_ours, column)) > 1:
                found.setdefault(sheet.model.split(AT_GUIDANCE)[0], []).append(cell)
    return found


def is_ours(name: str) -> bool:
    return name.startswith(f"{OURS}@")


def scale_of(name: str) -> float:
    return float(name.removeprefix(f"{OURS}@"))


def laws_of(models: Models) -> list[Law]:
    """Those that were measured in every cell, the simpler ones first: they win a draw."""
    cells = [cell for several in models.values() for cell in several]
    laws = [Law(constant, exponent) for exponent, constant in product(EXPONENTS, CONSTANTS)]
    return [law for law in laws if all(law.nearest(cell) for cell in cells)]


def gain(cell: Cell, law: Law) -> list[float]:
    """Of each prompt, over the best rival.  # [prompts]"""
    return gains(cell.column, law.nearest(cell))


def mean_gain(cells: Sequence[Cell], law: Law) -> float:
    return statistics.fmean(statistics.fmean(gain(cell, law)) for cell in with_rivals(cells))


def with_rivals(cells: Sequence[Cell]) -> list[Cell]:
    return [cell for cell in cells if best_rival(cell.column)]


def shortfall(cells: Sequence[Cell], law: Law) -> float:
    """dB below the best candidate of a cell, on average."""

    def below(cell: Cell) -> float:
        means = {name: statistics.fmean(cell.column[name]) for name in filter(is_ours, cell.column)}
        return max(means.values()) - means[law.nearest(cell)]

    return statistics.fmean(map(below, cells))


def chosen(models: Models, laws: Sequence[Law], left_out: str | None) -> Law:
    """The law that is best on all models but one."""
    others = [cells for model, cells in models.items() if model != left_out]
    return min(laws, key=lambda law: statistics.fmean(shortfall(cells, law) for cells in others))


def laws_table(models: Models, laws: Sequence[Law]) -> Iterator[str]:
    """How far each law is below the best candidates of each model, over all cells."""
    yield from header(["S", *models, "*mean*"])
    for law in laws:
        means = [shortfall(cells, law) for cells in models.values()]
        yield row([str(law), *(f"{mean:.2f}" for mean in (*means, statistics.fmean(means)))])


def held_out_table(models: Models, laws: Sequence[Law]) -> Iterator[str]:
    """For each cell of each left-out model: PSNR, the best rival, and the gain over it."""
    yield from header(["left out", "law", "computed", "dB", "gain, dB", "best rival"])
    for model, cells in models.items():
        law = chosen(models, laws, model)
        for cell in with_rivals(cells):
            decibels, gained = spread(cell.column[law.nearest(cell)]), spread(gain(cell, law))
            rival = best_rival(cell.column)
            yield row([model, str(law), str(cell), decibels, gained, f"`{rival}`"])


def verdict(models: Models, laws: Sequence[Law]) -> Iterator[str]:
    """Mean over models, the worst of them, and cells that are surely lost."""
    means, lost = {}, []
    for model, cells in models.items():
        law = chosen(models, laws, model)
        means[model] = mean_gain(cells, law)
        for cell in with_rivals(cells):
            found = gain(cell, law)
            if statistics.fmean(found) < -standard_error(found):
                lost.append(f"{model}, {cell}: {spread(found)} dB ({best_rival(cell.column)})")
    worst = min(means, key=lambda model: means[model])
    yield f"- mean over {len(means)} left-out models: {spread(list(means.values()))} dB"
    yield f"- the worst model: {worst}, {means[worst]:.1f} dB"
    yield f"- with no model left out: {chosen(models, laws, None)}"
    yield f"- more than one standard error below the best rival: {len(lost)} cells"
    yield from (f"  - {line}" for line in lost)


def report(models: Models, kind: str) -> Iterator[str]:
    """All of it for the models of one kind, or that there are too few."""
    laws = laws_of(models) if models else []
    if len(models) < 2 or not laws or not all(map(with_rivals, models.values())):
        yield f"Of models that predict {kind} two are needed with rivals and the same candidates."
        return
    yield from [f"# Leave one model out: those that predict {kind}", ""]
    yield from [*verdict(models, laws), "", *held_out_table(models, laws), ""]
    yield from ["dB below the best candidate of each cell, by law:", "", *laws_table(models, laws)]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="--out of quality.py")
    parser.add_argument("--out", type=Path, help="Markdown, besides standard output")
    options = parser.parse_args()
    sheets = read_sheets(options.folder)
    noise = [sheet for sheet in sheets if PREDICTS_NOISE in sheet.conditions]
    others = [sheet for sheet in sheets if sheet not in noise]
    lines = [*report(cells_of(others), "a velocity"), "", *report(cells_of(noise), "the noise")]
    text = "\n".join(lines) + "\n"
    if options.out:
        options.out.write_text(text, encoding="utf-8")
    print(text, end="")


if __name__ == "__main__":
    main()
