"""What is left at the end of an error that is made on the way, and what plans could gain by it.

    python benchmarks/influence.py --zoo build/zoo

Of a run with a single gap, in which x₀ is held, the picture's squared error is set against that of
the sample where the gap ends, as recorded x₀ has it: dB, relative to gaps that end with the run
(mean over them). The law of `spectrum.gaussian` has (S/(S + ρ))³ for it. Then, with the
recorded moves and the measured influence in place of the law, how far plans are from the best one:
those of the law, and of other scales.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import diffusers
import numpy as np
import torch
from contenders import Contender, candidate, run, sample_plainly
from matching import matched
from models import Model, load_model, zoo_folders
from quality import EMBEDDED, conditions
from tables import header, row

from spectrum.engine import SpectralCache
from spectrum.gaussian import Array, Loop, Prior, gap_errors
from spectrum.schedule import ExplicitSchedule, LeastError
from spectrum.timeline import Timeline
from spectrum.tune.moves import Moves, Observed

STEPS = 20
COUNTS = (4, 6, 8)
GAPS = (
    (0, 2), (1, 4), (2, 5), (4, 7), (6, 9), (8, 11), (10, 13), (12, 15), (14, 17), (16, 19),
    (16, 20), (17, 20), (18, 20),
)  # fmt: skip
HELD = Loop(trust=float("inf"), correct_above=float("inf"))


@dataclass(frozen=True, eq=False)
class Influenced(Observed):
    """Recorded moves, and for `remains` what was measured, in amplitude, at these ρ, rising."""

    rhos: Array = field(default_factory=lambda: np.ones(1))
    left: Array = field(default_factory=lambda: np.ones(1))

    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def remains(self, level: Array) -> Array:
        rho = np.maximum(level / (1 - level), 1e-6)
        found: Array = np.exp(np.interp(np.log(rho), np.log(self.rhos), np.log(self.left)))
        return found / (1 - level)


class Everything:
    """A schedule that computes every step, and keeps what it is told of the run."""

    timeline: Timeline

    def computed_steps(self, timeline: Timeline) -> list[int]:
        self.timeline = timeline
        return list(range(timeline.num_steps))


def recorded(model: Model, match: float, steps: int = STEPS) -> tuple[Timeline, Observed]:
    """What is known of a run beforehand, and how x₀ moves in it."""
    moves, everything = Moves(), Everything()
    method = candidate(model.unit_scale)["method"]
    model.pipe.scheduler = matched(model.scheduler, match)
    with SpectralCache(model.pipe, method=method, schedule=everything, observe=moves.add):
        model.sample(steps)
    products = moves.products()
    assert products
    return everything.timeline, Observed(moves=np.array(products))


def error_at_end(observed: Observed, timeline: Timeline, gap: tuple[int, int]) -> float:
    """Squared, of y = x/α, where a gap of held x₀ ends."""
    (a, b), levels = gap, timeline.levels
    unweighted = Influenced(moves=observed.moves)
    return float(gap_errors(unweighted, levels, a)[-1, b - a - 1])


def influences(model: Model, match: float, observed: Observed, timeline: Timeline) -> Array:
    """dB of each gap, relative to those that end with the run.  # [gaps]"""
    plain, found = sample_plainly(model, match, STEPS), []
    held = candidate(model.unit_scale)["method"]
    for a, b in GAPS:
        computed = tuple(step for step in range(STEPS) if not a < step < b)
        cache = {
            "method": replace(held, loop=HELD),
            "schedule": ExplicitSchedule(computed),
        }
        made, _ = run(model, Contender("", cache), match, STEPS, len(computed))
        error = float((made.double() - plain.double()).square().sum())
        found.append(10 * np.log10(error / error_at_end(observed, timeline, (a, b))))
    ends = [value for value, gap in zip(found, GAPS, strict=True) if gap[1] == STEPS]
    return np.array(found) - np.mean(ends)


def regrets(truth: Influenced, timeline: Timeline) -> Iterator[float]:
    """dB by which plans' expected errors are above the least, a mean over COUNTS."""
    S = timeline.scale
    priors = [Prior(scale=S * factor) for factor in (0.25, 0.5, 1, 2, 4)]
    for prior in priors:
        yield float(np.mean([_regret(truth, timeline, prior, count) for count in COUNTS]))


def _regret(truth: Influenced, timeline: Timeline, prior: Prior, count: int) -> float:
    ours, best = (LeastError(count, p).computed_steps(timeline) for p in (prior, truth))
    return 10 * np.log10(_expected(truth, timeline, ours) / _expected(truth, timeline, best))


def _expected(truth: Prior, timeline: Timeline, steps: Sequence[int]) -> float:
    ends, before = [*steps[1:], timeline.num_steps], [-1, *steps[:-1]]
    gaps = zip(steps, ends, before, strict=True)
    return sum(float(gap_errors(truth, timeline.levels, a)[p, b - a - 1]) for a, b, p in gaps)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", action="append", help="an embedded one, or a zoo folder")
    parser.add_argument("--zoo", type=Path, help="all models of this folder, besides --model")
    parser.add_argument("--match", type=float, nargs="+", default=[1, 8], help="levels / this")
    parser.add_argument("--prompts", type=int, default=8)
    options = parser.parse_args()
    torch.set_num_threads(1)
    diffusers.logging.set_verbosity_error()
    sources = options.model or ([] if options.zoo else EMBEDDED)
    for source in [*sources, *(zoo_folders(options.zoo) if options.zoo else [])]:
        model = load_model(source, options.prompts, options.prompts)
        print(f"\n{model.name}: {conditions(model)}, {STEPS} steps")
        for match in options.match:
            report(model, match)


def report(model: Model, match: float) -> None:
    timeline, observed = recorded(model, match)
    decibels = influences(model, match, observed, timeline)
    within = [k for k, gap in enumerate(GAPS) if gap[1] < STEPS][::-1]
    levels = np.array([timeline.levels[GAPS[k][1]] for k in within])
    rhos, left = levels / (1 - levels), decibels[within]
    law = 20 * np.log10(timeline.scale / (timeline.scale + rhos))
    print(f"\nlevels / {match:g}, S = {timeline.scale:.1f}\n")
    print("\n".join(header(["ρ", *(f"{rho:.2g}" for rho in rhos)])))
    print(row(["left, dB", *(f"{value:.0f}" for value in left)]))
    print(row(["law", *(f"{value:.0f}" for value in law)]))
    truth = Influenced(moves=observed.moves, rhos=rhos, left=10 ** (left / 20))
    far = " / ".join(f"{value:.1f}" for value in regrets(truth, timeline))
    print(f"\nplans with S × 1/4, 1/2, 1, 2, 4 above the best, dB: {far}", flush=True)


if __name__ == "__main__":
    main()
