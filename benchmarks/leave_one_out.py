"""What a constant is worth on a model that had no say in it.

    python benchmarks/leave_one_out.py outputs/quality

Of the candidates `spectrum@X` that `quality.py --scale` measured, each model in turn is given the
one that gains most on all others: the mean over models of the mean over regimes and numbers of
computed steps of the gain, in dB, over the best rival of that cell. What the model then gains over
its own best rival is told for each cell (paired, ± the standard error over prompts).
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from contenders import OURS
from tables import Sheet, best_rival, gains, header, read_sheets, row, spread, standard_error


class Cell(NamedTuple):
    """One column of a sheet."""

    match: float
    steps: int
    count: int
    column: dict[str, list[float]]

    def __str__(self) -> str:
        return f"{self.count} of {self.steps}, levels / {self.match:g}"


Models = dict[str, list[Cell]]


def cells_of(sheets: Sequence[Sheet]) -> Models:
    """Those that have a rival and candidates, by model."""
    found: Models = {}
    for sheet in sheets:
        for count in sheet.counts():
            cell = Cell(sheet.match, sheet.steps, count, sheet.column(count))
            if best_rival(cell.column) and any(is_candidate(name) for name in cell.column):
                found.setdefault(sheet.model, []).append(cell)
    return found


def is_candidate(name: str) -> bool:
    return name.startswith(f"{OURS}@")


def candidates_of(models: Models) -> list[str]:
    """The candidates that every cell has, the smallest first."""
    columns = [set(cell.column) for cells in models.values() for cell in cells]
    common = [name for name in set.intersection(*columns) if is_candidate(name)]
    return sorted(common, key=lambda name: float(name.removeprefix(f"{OURS}@")))


def mean_gain(cells: Sequence[Cell], candidate: str) -> float:
    return statistics.fmean(statistics.fmean(gains(cell.column, candidate)) for cell in cells)


def chosen(models: Models, candidates: Sequence[str], left_out: str | None) -> str:
    """The candidate that is best on all models but one."""
    others = [cells for model, cells in models.items() if model != left_out]
    return max(candidates, key=lambda c: statistics.fmean(mean_gain(cells, c) for cells in others))


def candidates_table(models: Models, candidates: Sequence[str]) -> Iterator[str]:
    """Mean gain of each candidate on each model, over all cells."""
    yield from header(["", *(f"`{name}`" for name in candidates)])
    for model, cells in models.items():
        yield row([model, *(f"{mean_gain(cells, name):.2f}" for name in candidates)])
    means = [[mean_gain(cells, name) for cells in models.values()] for name in candidates]
    yield row(["*mean*", *(f"{statistics.fmean(values):.2f}" for values in means)])


def held_out_table(models: Models, candidates: Sequence[str]) -> Iterator[str]:
    """For each cell of each left-out model: PSNR, the best rival, and the gain over it."""
    yield from header(["left out", "chosen", "computed", "dB", "gain, dB", "best rival"])
    for model, cells in models.items():
        name = chosen(models, candidates, model)
        for cell in cells:
            rival = best_rival(cell.column)
            gained = spread(gains(cell.column, name))
            decibels = spread(cell.column[name])
            yield row([model, f"`{name}`", str(cell), decibels, gained, f"`{rival}`"])


def verdict(models: Models, candidates: Sequence[str]) -> Iterator[str]:
    """Mean over models, the worst of them, and cells that are surely lost."""
    means, lost = {}, []
    for model, cells in models.items():
        name = chosen(models, candidates, model)
        means[model] = mean_gain(cells, name)
        for cell in cells:
            found = gains(cell.column, name)
            gained = statistics.fmean(found)
            if gained < -standard_error(found):
                lost.append(f"{model}, {cell}: {spread(found)} dB ({best_rival(cell.column)})")
    worst = min(means, key=lambda model: means[model])
    yield f"- mean over {len(means)} left-out models: {spread(list(means.values()))} dB"
    yield f"- the worst model: {worst}, {means[worst]:.1f} dB"
    yield f"- with no model left out: `{chosen(models, candidates, None)}`"
    yield f"- more than one standard error below the best rival: {len(lost)} cells"
    yield from (f"  - {line}" for line in lost)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="--out of quality.py")
    parser.add_argument("--out", type=Path, help="Markdown, besides standard output")
    options = parser.parse_args()
    models = cells_of(read_sheets(options.folder))
    candidates = candidates_of(models) if models else []
    if len(models) < 2 or not candidates:
        raise SystemExit("two models with the same candidates are needed: quality.py --scale ...")
    lines = [
        "# Leave one model out", "", *verdict(models, candidates), "",
        *held_out_table(models, candidates), "",
        "Mean gain of every candidate, over the best rival of each cell, dB:", "",
        *candidates_table(models, candidates),
    ]  # fmt: skip
    text = "\n".join(lines) + "\n"
    if options.out:
        options.out.write_text(text, encoding="utf-8")
    print(text, end="")


if __name__ == "__main__":
    main()
