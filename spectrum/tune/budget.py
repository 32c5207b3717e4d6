"""What a search takes in runs and seconds, and how many candidates its time is enough for."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from spectrum.errors import UsageError
from spectrum.tune.candidates import SCALES

if TYPE_CHECKING:
    from spectrum.tune.bench import Bench

_FEW = 5  # candidates that are run on all prompts
_FEWEST = 4  # candidates without which a search is none
_FASTEST = 0.02  # seconds of a run that no machine stays below
_GRID_SHARE = 0.6  # of a search's time; the rest is for moving steps
FINE_SCALES = 3  # that are run on all prompts, besides the default's
COMPARED = 2  # in the check of steps: the winner, and fewer steps
_CHECKED = 2 + COMPARED  # with that of the scale: the default, and what the search found


@dataclass(frozen=True)
class Estimate:
    """What a search takes, by the first plain runs."""

    step_seconds: float  # of a computed step
    other_seconds: float  # of a run: the prompt, the decoder
    runs: int  # of the full search, about
    seconds: float  # of the full search, plain runs among it
    least_seconds: float  # less than this is no search


def estimate(bench: Bench, sizes: Mapping[int, int]) -> Estimate:
    """After the first two plain runs. `sizes` has how many candidates there are for each number of
    computed steps."""
    step, other = bench.timing()
    cases = bench.size
    runs = len(bench.cases)
    seconds = least = runs * bench.run_seconds(bench.base.run_steps)
    for count, size in sizes.items():
        moves = 4 * max(0, count - 2) * min(3, cases)  # most are given up after two prompts
        fewest = scale_runs(cases) + _CHECKED * cases
        all_runs = fewest + grid_runs(size, cases) + moves
        runs += all_runs
        seconds += all_runs * bench.run_seconds(count)
        least += fewest * bench.run_seconds(count)
    return Estimate(step, other, runs, seconds, least)


def check_minutes(minutes: float | None, cases: int, counts: int) -> None:
    """Raise UsageError where no machine could do any search of so many prompts and numbers of
    computed steps; before a model is loaded."""
    runs = 2 * cases + counts * (scale_runs(cases) + _CHECKED * cases)
    if minutes is not None and 60 * minutes < runs * _FASTEST:
        raise UsageError(
            f"`minutes` {minutes:g} is too short for any search, which takes {runs} runs at least;"
            " give more, or fewer prompts or `speedups`"
        )


def limit_of(estimated: Estimate, minutes: float | None) -> float:
    """Seconds for the whole. Raises UsageError where that is too short for any search."""
    if minutes is None:
        longest = 600 * min(max(estimated.step_seconds, 1.0), 24.0)
        return max(estimated.least_seconds, min(1.2 * estimated.seconds, longest))
    if 60 * minutes < estimated.least_seconds:
        least = math.ceil(estimated.least_seconds / 6) / 10
        raise UsageError(
            f"`minutes` {minutes:g} is too short for any search: give {least:g} or more, or fewer"
            " prompts or `speedups`"
        )
    return 60 * minutes


def affordable(bench: Bench, count: int, size: int, seconds: float) -> int:
    """Of so many candidates, those that the grid's share of the time is enough for; 0 where that is
    too little for any search of steps."""
    runs = _GRID_SHARE * seconds / max(bench.run_seconds(count), 1e-9)
    fits = (k for k in range(size, _FEWEST - 1, -1) if grid_runs(k, bench.size) <= runs)
    return next(fits, 0)


def scale_runs(cases: int) -> int:
    """Runs that fitting the scale takes at one speedup, without its check."""
    few = seen(cases)[0]
    return len(SCALES) * few + (FINE_SCALES + 1) * cases - 2 * few


def grid_runs(size: int, cases: int) -> int:
    """Runs that halving this many candidates takes."""
    rounds = zip(kept(size, cases), seen(cases), [0, *seen(cases)], strict=False)
    return sum(left * (now - before) for left, now, before in rounds)


def seen(cases: int) -> list[int]:
    """Prompts that candidates have been run on after each round."""
    return [few for few in (2, 4) if few < cases] + [cases]


def kept(size: int, cases: int) -> list[int]:
    """Candidates in each round."""
    return [size, min(size, max(_FEW, math.ceil(size / 3))), min(size, _FEW)][: len(seen(cases))]
