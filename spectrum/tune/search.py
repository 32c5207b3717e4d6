"""What suits one model, found by real runs: its scale, and which steps to compute.

The scale comes first (`spectrum.tune.scale`). Then, for each speedup, steps: the plain runs tell
how x₀ moves with this model, and its covariance over the steps gives the expected error of every
schedule without running it. But the solver feeds every error back, which no recorded run shows. So
these schedules are only candidates, beside those of other priors: each is run, and its pictures are
compared with those of the plain run, prompt by prompt, as prompts differ by more than candidates
do.

The best of many looks better than it is on what it was chosen by: on demo-image 5.3 dB better than
the default on the four pictures of a search, 2.0 dB on others. So what is found is checked on the
same prompts with other seeds, and only the figures of this check are reported as its gain.

A search that goes on takes the same way again: its clock counts the seconds that recorded runs
took, not those that looking them up takes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from spectrum.compare.metrics import Spread
from spectrum.errors import UsageError
from spectrum.tune.bench import Bench
from spectrum.tune.budget import COMPARED, affordable, estimate, kept, limit_of, seen
from spectrum.tune.candidates import Choice, Fewer, Planned, grid, moved, planned, usual
from spectrum.tune.judging import gain_over, is_gain, mean
from spectrum.tune.scale import FittedScale, fit_scale
from spectrum.words import counted

# Standard errors that the gain of steps has to exceed in the check: chance alone passes one of them
# one time in six, and they are chosen from many.
_SURE = 2.0


@dataclass(frozen=True)
class Found:
    """The outcome for one number of computed steps. Decibels, one a prompt, of the check."""

    num_steps: int
    default: Choice
    scaled: Choice  # by the fitted scale; the default itself where that is no better
    best: Choice  # `scaled` itself where the check shows nothing surely better
    tuned_psnr: tuple[float, ...]  # of `best`
    scaled_psnr: tuple[float, ...]
    default_psnr: tuple[float, ...]
    fewer_psnr: tuple[float, ...]
    candidates: int  # how many were looked at
    search_gain: Spread  # over `scaled`, of what the search found, on what it was chosen by

    @property
    def count(self) -> int:
        return len(self.default.steps)

    @property
    def speedup(self) -> float:
        return self.num_steps / self.count

    @property
    def better(self) -> bool:
        """Whether its own steps are better than what the scale gives."""
        return self.best != self.scaled

    @property
    def gain(self) -> Spread:
        """Over the default."""
        return gain_over(self.default_psnr, self.tuned_psnr)

    @property
    def gain_over_scaled(self) -> Spread:
        return gain_over(self.scaled_psnr, self.tuned_psnr)

    @property
    def gain_over_fewer(self) -> Spread:
        return gain_over(self.fewer_psnr, self.tuned_psnr)


@dataclass(frozen=True)
class Tuning:
    """The fitted scale, and the outcome for each number of computed steps, fewest last."""

    scale: FittedScale
    found: tuple[Found, ...]

    @property
    def better(self) -> bool:
        """Whether anything is better than the default."""
        return self.scale.better or any(one.better for one in self.found)


def tune(
    bench: Bench, speedups: Iterable[float], minutes: float | None = None, limit: int | None = None
) -> Tuning:
    """Fit the scale for all speedups together, then look for steps for each.

    `minutes` bounds the whole, plain runs too; without it the full search is done, but for no
    longer than 10 minutes, or for 10 minutes times the seconds that a computed step takes (at most
    24 of them: 4 hours). `limit` bounds the candidates for steps.
    Raises UsageError where the time is too short for any search, and leaves nothing then.
    """
    counts = sorted({planned(bench.base, speedup).count for speedup in speedups}, reverse=True)
    bench.watch.phase("plain runs")
    for case in range(min(2, len(bench.cases))):
        bench.plain(case)
    estimated = estimate(bench, {count: _grid_size(bench, count, limit) for count in counts})
    try:
        until = limit_of(estimated, minutes)
    except UsageError:
        bench.store.discard()
        raise
    bench.watch.estimated(estimated.step_seconds, estimated.runs, estimated.seconds, until)
    for case in range(1, len(bench.cases)):
        bench.plain(case)
    scale = fit_scale(bench, counts)
    found = []
    for number, count in enumerate(counts):
        costs = [bench.run_seconds(other) for other in counts[number:]]
        share = max(0.0, until - bench.seconds) * costs[0] / sum(costs)
        share -= COMPARED * bench.size * costs[0]  # of the check
        found.append(_Search(bench, count, scale, bench.seconds + share).run(limit))
    return Tuning(scale, tuple(found))


def _grid_size(bench: Bench, count: int, limit: int | None) -> int:
    """How many candidates there are, with the steps that the preset's levels give."""
    plan = planned(bench.base, bench.base.run_steps / count)
    start = usual(plan.request(bench.base).plan.computed_steps, plan.scale)
    return len(grid(bench.base, start, bench.levels(), bench.observed())[:limit])


class _Search:
    """For one number of computed steps, until the bench's clock shows `until`."""

    def __init__(self, bench: Bench, count: int, scale: FittedScale, until: float) -> None:
        self.bench, self.until = bench, until
        self.default = bench.known(Planned(count, scale.default))
        self.start = bench.known(Planned(count, scale.chosen))
        self.name = f"{len(self.default.steps)} of {bench.base.run_steps}"
        self.looked_at: set[Choice] = set()

    def run(self, limit: int | None) -> Found:
        bench, count = self.bench, len(self.default.steps)
        candidates = grid(bench.base, self.start, bench.levels(), bench.observed())[:limit]
        candidates = candidates[
            : affordable(bench, count, len(candidates), self.until - bench.seconds)
        ]
        bench.watch.phase(f"{self.name}: {counted(len(candidates), 'candidate')}")
        best = self._moved(self._halved(candidates))
        search_gain = self._gain(best)
        bench.watch.phase(f"{self.name}: check, {search_gain.mean:+.2f} dB so far")
        default, scaled, tuned = (
            tuple(bench.qualities(what, bench.checked)) for what in (self.default, self.start, best)
        )
        fewer = tuple(bench.qualities(Fewer(count), bench.checked))
        if not is_gain(gain_over(scaled, tuned), _SURE):
            best, tuned = self.start, scaled
        return Found(
            bench.base.run_steps, self.default, self.start, best, tuned, scaled, default, fewer,
            len(self.looked_at), search_gain,
        )  # fmt: skip

    def _halved(self, candidates: list[Choice]) -> Choice:
        """The best of them: all are run on few prompts, few on all. The start stays in."""
        left, rounds = candidates or [self.start], seen(self.bench.size)
        keep = [*kept(len(left), self.bench.size)[1:], 1]
        for number, (cases, best) in enumerate(zip(rounds, keep, strict=True)):
            means: dict[Choice, float] = {}
            for choice in left:
                if self._over and means:  # runs took longer than expected
                    break
                self.looked_at.add(choice)
                means[choice] = mean(self.bench.qualities(choice, range(cases)))
            left = sorted(means, key=lambda choice: -means[choice])[:best]
            if number < len(rounds) - 1 and self.start not in left:
                left.append(self.start)
        return left[0]

    def _moved(self, best: Choice) -> Choice:
        """Single steps moved by 1 or 2 as long as that helps."""
        rejected = set[Choice]()
        helped = True
        while helped and not self._over:
            helped = False
            gain = self._gain(best)
            self.bench.watch.phase(f"{self.name}: moving steps, {gain.mean:+.2f} dB so far")
            for position in range(1, len(best.steps)):
                for offset in (-1, 1, -2, 2):
                    other = self._other(best, position, offset)
                    if other is None or other in rejected or self._over:
                        continue
                    if self._is_better(other, best):
                        best, helped = other, True
                    else:
                        rejected.add(other)
        return best

    def _other(self, best: Choice, position: int, offset: int) -> Choice | None:
        """With one step moved; None where that can't be."""
        base = self.bench.base
        if best.steps[position] in {0, base.preset.handover(base.run_steps)}:
            return None
        return moved(best, position, offset, base.run_steps)

    def _is_better(self, choice: Choice, best: Choice) -> bool:
        """On all prompts; it is given up as soon as it is behind on two or more."""
        self.looked_at.add(choice)
        ours: list[float] = []
        theirs: list[float] = []
        for case in self.bench.searched:
            ours.append(self.bench.quality(choice, case))
            theirs.append(self.bench.quality(best, case))
            if case and gain_over(theirs, ours).mean <= 0:
                return False
        return is_gain(gain_over(theirs, ours))

    def _gain(self, best: Choice) -> Spread:
        """Over the start, in the search."""
        bench = self.bench
        return gain_over(*(bench.qualities(what, bench.searched) for what in (self.start, best)))

    @property
    def _over(self) -> bool:
        return self.bench.seconds >= self.until
