"""Quality of small models, at noise levels where they stand for large ones, against every rival.

    python benchmarks/quality.py                            # both embedded models
    python benchmarks/quality.py --zoo build/zoo --scale 2 4 8 --steps 20 28 50

Prompt k is sampled with seed k, all prompts of a batch at once. PSNR is of the decoded pictures in
float with a range of 1, against the plain run of as many steps at the same noise levels; of videos
a mean over frames. `--match 8` takes the noise levels of a picture with 8 times the side, see
`matching`. Each figure is a mean over prompts ± its standard error; gains are paired.

For each model, regime and number of steps: figures (JSON) and a chart (PNG) in --out, and all of it
in tables.md; figures are written after every contender, and what is there is not run again.
`spectrum@2` is the default method with a scale of 2 for 64 positions.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from fnmatch import fnmatch
from importlib.metadata import version
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import diffusers
import torch
from contenders import Contender, contenders, run, sample_plainly
from models import Model, load_model, psnr, zoo_folders
from tables import (
    PREDICTS_NOISE,
    Sheet,
    cells_table,
    chart,
    open_sheet,
    read_sheets,
    sheet_table,
    summary,
)

from spectrum.compare.plot import NO_PICTURE, can_draw, write_chart
from spectrum.errors import SpectrumError

EMBEDDED = ["demo-image", "demo-video"]


def measure(model: Model, sheet: Sheet, options: argparse.Namespace) -> None:
    """All runs of one model and regime that are not in the sheet yet."""
    sheet.conditions = conditions(model)
    plain = None
    for share in options.computed:
        count = round(sheet.steps * share / 50)
        column = sheet.column(count)
        everyone = contenders(
            model, sheet.steps, count, options.scale, options.feature_lines, options.caches
        )
        for contender in everyone:
            if len(column.get(contender.name, [])) >= model.count or not wanted(contender, options):
                continue
            if plain is None:
                plain = sample_plainly(model, sheet.match, sheet.steps)
            began = time.perf_counter()
            try:
                made, computed = run(model, contender, sheet.match, sheet.steps, count)
            except (SpectrumError, ValueError) as reason:
                print(f"{sheet.stem} {count} {contender.name}: {reason}", flush=True)
                continue
            column[contender.name] = psnr(made, plain)
            sheet.save(options.out)
            seconds = time.perf_counter() - began
            report(sheet, count, contender, computed, seconds)


def wanted(contender: Contender, options: argparse.Namespace) -> bool:
    return not options.only or any(fnmatch(contender.name, pattern) for pattern in options.only)


def report(sheet: Sheet, count: int, contender: Contender, computed: float, seconds: float) -> None:
    values = sheet.column(count)[contender.name]
    other = "" if computed == count else f", but {computed:g} computed"
    mean = sum(values) / len(values)
    print(
        f"{sheet.stem} {count} {contender.name}: {mean:.1f} dB, {seconds:.1f} s{other}", flush=True
    )


def conditions(model: Model) -> str:
    kind = PREDICTS_NOISE if model.predicts_noise else "predicts a velocity"
    return (
        f"{type(model.pipe).__name__}, {type(model.scheduler).__name__}, {kind}, guidance"
        f" {model.guidance:g}, {model.count} prompts; torch {torch.__version__},"
        f" diffusers {version('diffusers')}, {torch.get_num_threads()} thread, {platform.machine()}"
    )


def write(sheet: Sheet, folder: Path) -> None:
    """The table, on standard output, and the chart."""
    print("\n" + "\n".join(_titled(sheet)), flush=True)
    if can_draw():
        write_chart(folder / f"{sheet.stem}.png", chart(sheet), replace=True)


def write_tables(folder: Path) -> None:
    """All that is in the folder, of this run and of others: `tables.md`."""
    sheets = read_sheets(folder)
    lines = ["# dB of `spectrum` over the best rival", "", *summary(sheets), ""]
    lines += ["# Every cell", "", *cells_table(sheets), "", "# Every contender", ""]
    for sheet in sheets:
        lines += [*_titled(sheet), ""]
    (folder / "tables.md").write_text("\n".join(lines), encoding="utf-8")


def _titled(sheet: Sheet) -> list[str]:
    return [f"{sheet.title}; {sheet.conditions}", "", *sheet_table(sheet)]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", action="append", help="an embedded one, or a zoo folder")
    parser.add_argument("--zoo", type=Path, help="all models of this folder, besides --model")
    parser.add_argument("--match", type=float, nargs="+", default=[1, 8], help="levels / this")
    parser.add_argument("--steps", type=int, nargs="+", default=[50])
    parser.add_argument(
        "--computed", type=int, nargs="+", default=[7, 10, 14, 20], help="of 50, or that share"
    )
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--batch", type=int, default=16, help="prompts sampled at once")
    parser.add_argument("--scale", type=float, nargs="*", default=[], help="of spectrum@SCALE")
    parser.add_argument("--guidance", type=float, help="instead of each model's own")
    parser.add_argument("--only", nargs="+", help="contenders by name, with * for any part of it")
    parser.add_argument("--feature-lines", action="store_true", help="of schedules that were found")
    parser.add_argument("--caches", action="store_true", help="diffusers' own, which are slow")
    parser.add_argument("--out", type=Path, default=Path("outputs/quality"))
    options = parser.parse_args()
    if not can_draw():
        print(f"note: {NO_PICTURE}", file=sys.stderr)
    torch.set_num_threads(1)
    diffusers.logging.set_verbosity_error()  # other solvers ignore parts of a config
    options.out.mkdir(parents=True, exist_ok=True)
    sources = options.model or ([] if options.zoo else EMBEDDED)
    for source in [*sources, *(zoo_folders(options.zoo) if options.zoo else [])]:
        model = load_model(source, options.prompts, options.batch, options.guidance)
        for match in options.match:
            for steps in options.steps:
                sheet = open_sheet(options.out, model.name, match, steps)
                measure(model, sheet, options)
                write(sheet, options.out)
    write_tables(options.out)
    print("\n".join(summary(read_sheets(options.out))))


if __name__ == "__main__":
    main()
