"""How the cost of a forecast step grows with tokens, channels and stored features.

    python benchmarks/growth.py --out docs/speed-growth.png

A FLUX of two blocks (`big_models`) samples with its first steps computed and all others forecast;
the figure is the median of these. From a base of 1,024 tokens, 512 channels and 8 stored features
one of the three is changed at a time. On a CPU the time is processor time.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
from big_models import build
from full_size import Clock, conditions, sample
from tables import header, row

from spectrum.compare.plot import Chart, write_chart
from spectrum.engine import SpectralCache
from spectrum.methods import get_method
from spectrum.pipeline.loading import choose_device
from spectrum.schedule import ExplicitSchedule

BASE = {"tokens": 1024, "channels": 512, "stored": 8}
TIMES = (0.25, 1.0, 2.25, 4.0)  # squares, so that pictures of so many tokens are square
HEAD = 64  # channels of an attention head
FORECAST = 16  # steps
SERIES = (("feature", "tokens"), ("feature", "channels"), ("feature", "stored"),
          ("denoised", "tokens"), ("denoised", "channels"))  # fmt: skip


def seconds(target: str, size: dict[str, int], device: torch.device) -> float:
    """Of a forecast step."""
    heads = size["channels"] // HEAD
    axes = (HEAD // 8, 7 * HEAD // 16, 7 * HEAD // 16)
    model = build(
        "flux.1-dev", "tiny", device, torch.bfloat16, num_single_layers=1,
        num_attention_heads=heads, attention_head_dim=HEAD, axes_dims_rope=axes,
    )  # fmt: skip
    side = 16 * round(size["tokens"] ** 0.5)
    model.arguments.update(width=side, height=side)
    settings: dict[str, Any] = {"target": target}
    if target == "feature":
        settings["forecaster"] = get_method("published").forecaster  # keeps all
    first, found = size["stored"], []
    schedule = ExplicitSchedule(tuple(range(first)))
    for _ in range(2):  # the first finds blocks and heads
        clock = Clock(device)
        with SpectralCache(model.pipe, schedule=schedule, **settings):
            sample(model, first + FORECAST, clock)
        found = clock.seconds()[first : first + FORECAST]
    return median(found)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--times", type=float, nargs="+", default=TIMES, help="the base")
    parser.add_argument("--out", type=Path, default=Path("growth.png"), help="the chart")
    options = parser.parse_args(arguments)
    device = choose_device(options.device)
    lines = header(["a forecast step, ms", *(f"× {times:g}" for times in options.times)])
    series = {}
    for target, what in SERIES:
        sizes = [BASE | {what: round(BASE[what] * times)} for times in options.times]
        cost = [1000 * seconds(target, size, device) for size in sizes]
        name = f"{target}: {what}"
        series[name] = [(x, y, None) for x, y in zip(options.times, cost, strict=True)]
        lines.append(row([name, *(f"{each:.2f}" for each in cost)]))
    base = ", ".join(f"{count:,} {what}" for what, count in BASE.items())
    title = "A forecast step, by what grows"
    write_chart(
        options.out, Chart(title, f"times the base of {base}", "milliseconds", series), replace=True
    )
    print(conditions(device, "bfloat16"), f"base: {base}", "", *lines, sep="\n")


if __name__ == "__main__":
    main()
