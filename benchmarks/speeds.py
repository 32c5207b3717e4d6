"""How fast x₀ moves at which noise: where a model decides structure, and whether size moves that.

    python benchmarks/speeds.py build/sizes/*

A plain run of 50 steps at the model's own noise levels. The speed is ‖Δx₀‖/Δλ between two steps,
with λ = log(α/σ), in shares of the whole way from the first x₀ to the last, summed over prompts;
means in bands of ρ = σ/α. The law of `spectrum.gaussian` has (ρ/(S + ρ))^0.7 (S/(S + ρ))^0.5 for
it: S is that of the least squares in the logarithm, beside what the law says of the model's size.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import diffusers
import numpy as np
import torch
from influence import recorded
from models import load_model
from tables import header, row

from spectrum.gaussian import Array, Prior, log_ratios

BANDS = (64, 32, 22.6, 16, 11.3, 8, 5.66, 4, 2.83, 2, 1.41, 1, 0.7, 0.5, 0.25, 0.1)


def speeds(levels: tuple[float, ...], moves: Array) -> tuple[Array, Array]:
    """ρ in the middle of each gap between steps but the first, and the speed there.

    moves: x₀'s change products, step by step.  # [N - 1, N - 1]
    """
    ratios = log_ratios(levels)
    found = np.sqrt(np.diag(moves)) / np.diff(ratios) / np.sqrt(moves.sum())
    middles = np.exp(-(ratios[:-1] + ratios[1:]) / 2)
    return middles[1:], found[1:]


def banded(rho: Array, speed: Array, bands: Sequence[float]) -> list[float | None]:
    """The mean speed between each two."""
    inside = [speed[(rho < high) & (rho >= low)] for high, low in pairwise(bands)]
    return [float(values.mean()) if len(values) else None for values in inside]


def fitted(rho: Array, speed: Array) -> float:
    """S of the law's speed that is nearest to these, but for a factor."""
    some = (rho < BANDS[0]) & (rho > BANDS[-1])
    scales = np.geomspace(0.5, 500, 200)
    laws = [np.log(Prior(scale=float(scale)).speed(rho[some])) for scale in scales]
    misses = [float(np.std(np.log(speed[some]) - law)) for law in laws]
    return float(scales[int(np.argmin(misses))])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("models", nargs="+", help="embedded ones, or folders as of quality.py")
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--steps", type=int, default=50)
    options = parser.parse_args()
    torch.set_num_threads(1)
    diffusers.logging.set_verbosity_error()
    bands = [f"{band:g}" for band in BANDS[:-1]]
    print("\n".join(header(["ρ below", *bands, "S", "by the law"])))
    for source in options.models:
        model = load_model(source, options.prompts, options.prompts)
        timeline, observed = recorded(model, 1, options.steps)
        found = speeds(timeline.levels, observed.moves)
        cells = ["" if v is None else f"{v:.2f}" for v in banded(*found, BANDS)]
        scales = [f"{fitted(*found):.1f}", f"{timeline.scale:.1f}"]
        print(row([Path(source).name, *cells, *scales]), flush=True)


if __name__ == "__main__":
    main()
