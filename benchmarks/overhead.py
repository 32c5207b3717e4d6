"""What a SpectralCache costs that forecasts nothing: `speedup=1` against the plain pipeline.

    python benchmarks/overhead.py --pairs 60

A FLUX with few and narrow layers (`big_models`) samples in 28 steps, plainly and under the cache by
turns, the order changing from pair to pair: a picture of 64 pixels a side, whose step takes so
little that the cost itself shows, and one of 768, whose step takes 20 ms or more. The figures are
medians of the pairs' differences and ratios, each with its standard error. On a CPU the time is
processor time.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import nullcontext
from statistics import median, stdev
from typing import Any

import torch
from big_models import Model, build
from full_size import Clock, conditions, sample

from spectrum.engine import SpectralCache
from spectrum.pipeline.loading import choose_device

STEPS = 28
PIXELS = (64, 768)
TARGETS = ("denoised", "feature")


def seconds(model: Model, target: str | None, device: torch.device) -> float:
    """Of one step: of a run under the cache, or of a plain one where the target is None."""
    settings: dict[str, Any] = {"target": target}
    clock = Clock(device)
    with SpectralCache(model.pipe, 1, **settings) if target else nullcontext():
        sample(model, STEPS, clock)
    return sum(clock.seconds()) / STEPS


def measure(
    model: Model, target: str, pairs: int, device: torch.device
) -> tuple[list[float], list[float]]:
    """Seconds a step of each pair, plain and under the cache; a first pair is left out."""
    plain, cached = [], []
    for number in range(pairs + 1):
        order = (None, target) if number % 2 else (target, None)
        found = {which: seconds(model, which, device) for which in order}
        plain.append(found[None])
        cached.append(found[target])
    return plain[1:], cached[1:]


def spread(values: Sequence[float], unit: float, digits: int) -> str:
    """Median ± its standard error, 1.25 times that of a mean."""
    error = 1.25 * stdev(values) / len(values) ** 0.5
    return f"{median(values) / unit:.{digits}f} ± {error / unit:.{digits}f}"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pairs", type=int, default=40)
    parser.add_argument("--pixels", type=int, nargs="+", default=PIXELS, help="a side")
    parser.add_argument("--device", default="auto")
    options = parser.parse_args(arguments)
    device = choose_device(options.device)
    model = build("flux.1-dev", "tiny", device, torch.bfloat16)
    print(f"{conditions(device, 'bfloat16')}; {options.pairs} pairs of {STEPS} steps")
    for pixels in options.pixels:
        model.arguments.update(width=pixels, height=pixels)
        for target in TARGETS:
            plain, cached = measure(model, target, options.pairs, device)
            differences = [b - a for a, b in zip(plain, cached, strict=True)]
            ratios = [b / a - 1 for a, b in zip(plain, cached, strict=True)]
            print(
                f"{pixels} pixels, {target}: plain step {median(plain) * 1000:.1f} ms, under the"
                f" cache {spread(differences, 1e-6, 0)} µs more, {spread(ratios, 0.01, 2)} %",
                flush=True,
            )


if __name__ == "__main__":
    main()
