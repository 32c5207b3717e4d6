"""Quality against computed steps: every method and rival against the plain run of the same seed.

    python benchmarks/quality.py                       # both embedded models, as in the README
    python benchmarks/quality.py --model FOLDER --file PROMPTS --guidance 7 --computed 10 14

Prompt k is sampled by itself with seed k. PSNR is of the decoded pictures in float, before they are
rounded, with a range of 1; for videos a mean over frames. Each figure is a mean over prompts ± its
standard error, each gain a mean of paired differences. Writes a table (Markdown), a plot (PNG) and
all figures (JSON) into --out, for each model, and resumes from the JSON.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import platform
import statistics
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from spectrum.errors import SpectrumError, UsageError
from spectrum.loading import Options, choose_device, load_pipeline
from spectrum.metrics import likeness
from spectrum.plot import Chart, Point, write_chart
from spectrum.preset import find_preset
from spectrum.request import resolve
from spectrum.rivals import DEFAULT_RIVALS, FEWER_STEPS, Rival, find_rivals, make, prepared

# Fewer steps with another solver, where the pipeline takes it.
SOLVERS = ("fewer-steps:unipc", "fewer-steps:dpm++")
PLOTTED = 6  # lines, the best at the middle of the range

Figures = dict[str, dict[str, list[float]]]  # computed steps, rival: dB of each prompt


def measure(
    pipe: Any, ask: Any, prompts: list[str], computed: list[int], names: list[str], file: Path
) -> Figures:
    """All runs that are not in the file yet; the file is written after every prompt."""
    figures: Figures = json.loads(file.read_text()) if file.exists() else {}
    plain_request = ask(speedup=1.0)
    steps = plain_request.run_steps
    plain = Rival("plain", "method", plain_request)
    for index, prompt in enumerate(prompts):
        wanted = [
            (count, rival)
            for count in computed
            for rival in rivals_of(pipe, names, ask, steps / count)
            if len(figures.setdefault(str(count), {}).setdefault(rival.name, [])) == index
        ]
        if not wanted:
            continue
        reference = make(pipe, plain, prompt, index).generation.pixels
        for count, rival in wanted:
            ready = prepared_once(pipe, rival, prompts[0], count)
            if ready is None:
                continue
            made = make(pipe, ready, prompt, index)
            if index == 0:
                print(f"{count:3d} {rival.name}: {made.computed:g} computed", flush=True)
            db = likeness(made.generation.pixels, reference).psnr
            figures[str(count)][rival.name].append(db)
        file.write_text(json.dumps(figures))
        print(f"prompt {index + 1} of {len(prompts)}", flush=True)
    return figures


@functools.cache
def rivals_of_names(names: tuple[str, ...], ask: Any, speedup: float) -> list[Rival]:
    return find_rivals(names, ask, speedup)


def rivals_of(pipe: Any, names: list[str], ask: Any, speedup: float) -> list[Rival]:
    """Those that can have this speedup with this pipeline."""
    found = []
    for name in names:
        try:
            found += [r for r in rivals_of_names((name,), ask, speedup) if r.name == name]
        except UsageError:
            continue  # fewer steps than its warm-up takes
    return found


_prepared: dict[tuple[str, int], Rival | None] = {}


def prepared_once(pipe: Any, rival: Rival, prompt: str, count: int) -> Rival | None:
    """The rival with its steps or its cache's threshold; None where this pipeline has none."""
    key = (rival.name, count)
    if key not in _prepared:
        try:
            _prepared[key] = prepared(pipe, rival, prompt, 0, count)
        except (SpectrumError, ValueError) as reason:
            print(f"{count:3d} {rival.name}: {reason}", flush=True)
            _prepared[key] = None
        else:
            try:
                make(pipe, _prepared[key], prompt, 0)
            except (SpectrumError, ValueError) as reason:
                print(f"{count:3d} {rival.name}: {reason}", flush=True)
                _prepared[key] = None
    return _prepared[key]


def mean(values: list[float]) -> str:
    error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0
    return f"{statistics.fmean(values):.1f} ± {error:.1f}"


def table(figures: Figures, computed: list[int]) -> list[str]:
    """Markdown: one row a rival, best first; the gain is over the best rival of each column."""
    names = {name for count in computed for name in figures[str(count)]}
    middle = figures[str(computed[len(computed) // 2])]

    def place(name: str) -> float:
        values = middle.get(name)
        return -statistics.fmean(values) if values else math.inf

    rows = ["| | " + " | ".join(f"{count} computed" for count in computed) + " |"]
    rows.append("|---" * (len(computed) + 1) + "|")
    for name in sorted(names, key=place):
        cells = [figures[str(count)].get(name) for count in computed]
        if any(cells):
            shown = [mean(cell) if cell else "" for cell in cells]
            rows.append(f"| `{name}` | " + " | ".join(shown) + " |")
    gains = []
    for count in computed:
        column = {n: v for n, v in figures[str(count)].items() if v}
        ours = column.pop("spectrum", None)
        if ours is None or not column:
            gains.append("")
            continue
        best = max(column, key=lambda n: statistics.fmean(column[n]))
        gains.append(mean([a - b for a, b in zip(ours, column[best], strict=True)]) + f" ({best})")
    rows.append("| *`spectrum` over the best other* | " + " | ".join(gains) + " |")
    return rows


def plot(figures: Figures, computed: list[int], title: str) -> Chart:
    series: dict[str, list[Point]] = {}
    for name in {name: None for count in computed for name in figures[str(count)]}:
        points: list[Point] = []
        for count in computed:
            values = figures[str(count)].get(name)
            if values and len(values) > 1:
                error = statistics.stdev(values) / math.sqrt(len(values))
                points.append((count, statistics.fmean(values), error))
        if len(points) > 1:
            series[name] = points
    best = sorted(series, key=lambda n: -statistics.fmean(mean for _, mean, _ in series[n]))
    always = [n for n in ("spectrum", FEWER_STEPS, "published", "taylor1") if n in series]
    shown = [*always, *(n for n in best if n not in always)][:PLOTTED]
    return Chart(title, "computed steps", "PSNR, dB", {name: series[name] for name in shown})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", action="append", help="both embedded ones if not given")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--guidance", type=float)
    parser.add_argument("--computed", type=int, nargs="+", default=[7, 10, 14, 20])
    parser.add_argument("--prompts", type=int, default=32, help="how many of the file's prompts")
    parser.add_argument("--file", type=Path, help="one prompt a line")
    parser.add_argument("--method", action="append", help="a rival; all if not given")
    parser.add_argument("--out", type=Path, default=Path("outputs/quality"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    for model in options.model or ["demo-image", "demo-video"]:
        benchmark(model, options)


def benchmark(model: str, options: argparse.Namespace) -> None:
    """One model's figures, table and plot."""
    _prepared.clear()
    preset = find_preset(model)
    file = options.file or Path(__file__).parent / "prompts" / f"{preset.name}.txt"
    prompts = file.read_text(encoding="utf-8").splitlines()[: options.prompts]
    ask = functools.partial(
        resolve, preset, prompts[0], steps=options.steps, guidance=options.guidance
    )
    request = ask(speedup=1.0)
    pipe = load_pipeline(request, choose_device(options.device), Options(weights=options.weights))
    options.out.mkdir(parents=True, exist_ok=True)
    stem = options.out / preset.name
    names = options.method or [*DEFAULT_RIVALS, *SOLVERS]
    figures = measure(pipe, ask, prompts, options.computed, names, stem.with_suffix(".json"))
    conditions = (
        f"{preset.name}, {request.steps} steps, guidance {request.guidance or 0:g},"
        f" {len(prompts)} prompts; torch {torch.__version__}, diffusers {version('diffusers')},"
        f" {torch.get_num_threads()} thread, {platform.machine()}"
    )
    rows = [conditions, "", *table(figures, options.computed)]
    stem.with_suffix(".md").write_text("\n".join(rows) + "\n", encoding="utf-8")
    title = f"{preset.name}: PSNR against the plain run of {request.steps} steps"
    write_chart(stem.with_suffix(".png"), plot(figures, options.computed, title))
    print("\n".join(rows))


if __name__ == "__main__":
    main()
