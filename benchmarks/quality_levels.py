"""What a level of --quality means: computed steps and PSNR that come out, by model and regime.

    python benchmarks/quality_levels.py --zoo build/zoo

Each prompt by itself, as `spectrum gen` runs it (the prompts of a batch share their steps). Writes
a Markdown table to standard output.
"""

from __future__ import annotations

import argparse
import os
import statistics
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import diffusers
import torch
from contenders import candidate, sample_plainly
from matching import matched
from models import Model, load_model, psnr, zoo_folders

from spectrum.engine import SpectralCache
from spectrum.pipeline.request import QUALITIES
from spectrum.schedule import AdaptiveSchedule


def level(model: Model, match: float, steps: int, tolerance: float) -> tuple[list[float], float]:
    """dB of each prompt, and computed steps on average."""
    plain = sample_plainly(model, match, steps)
    model.pipe.scheduler = matched(model.scheduler, match)
    ours = candidate(model.unit_scale)  # as `spectrum gen` has it
    with SpectralCache(model.pipe, schedule=AdaptiveSchedule(tolerance), **ours) as cache:
        made = model.sample(steps)
    counts = [len(report.computed_steps) for report in cache.reports]
    return psnr(made, plain), statistics.fmean(counts)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", action="append", default=[])
    parser.add_argument("--zoo", type=Path, help="folder of the zoo's models")
    parser.add_argument("--match", type=float, nargs="+", default=[1.0, 8.0])
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--prompts", type=int, default=4)
    options = parser.parse_args()
    torch.set_num_threads(1)
    diffusers.logging.set_verbosity_error()
    sources = [*options.model, *(zoo_folders(options.zoo) if options.zoo else [])]
    print("| | levels | " + " | ".join(f"{k} ({v:g})" for k, v in QUALITIES.items()) + " |")
    print("|---" * (2 + len(QUALITIES)) + "|")
    for source in sources or ["demo-image", "demo-video"]:
        model = load_model(source, options.prompts, 1)
        for match in options.match:
            cells = []
            for tolerance in QUALITIES.values():
                decibels, computed = level(model, match, options.steps, tolerance)
                spread = f"{min(decibels):.0f} to {max(decibels):.0f}"
                mean = f"{computed:.1f} computed, {statistics.fmean(decibels):.1f} dB"
                cells.append(f"{mean} ({spread})")
            print(f"| {model.name} | / {match:g} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
