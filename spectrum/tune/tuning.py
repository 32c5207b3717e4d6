"""Which steps to compute for one model, and how to forecast between them: found by real runs.

The plain runs tell how x₀ moves with this model: its covariance over the steps gives the expected
error of every schedule without running it, and so the best by that measure, as the default's prior
does. But the solver feeds every error back, which no recorded run shows. So these schedules are
only candidates, beside those of other priors: each is run, and its pictures are compared with those
of the plain run, prompt by prompt, as prompts differ by more than candidates do.

The best of many looks better than it is on what it was chosen by: on demo-image 5.3 dB better than
the default on the four pictures of a search, 2.0 dB on others. So what is found is checked on the
same prompts with other seeds, and only the figures of this check are reported as its gain.

Every run is written down at once. A search that goes on takes the same way again: its clock counts
the seconds that recorded runs took, not those that looking them up takes.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import random
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from numpy.typing import NDArray

from spectrum.compare.metrics import PSNR_LIMIT, Spread, spread
from spectrum.denoised import Observer
from spectrum.errors import SpectrumError, UsageError
from spectrum.gaussian import Array, Kriging, Prior
from spectrum.methods import DEFAULT_METHOD, METHODS, Method, tuned_method
from spectrum.pipeline.generate import generate
from spectrum.pipeline.media import Pixels
from spectrum.pipeline.preset import ALWAYS, Cache, Preset, Tuned, read_preset, trust_word
from spectrum.pipeline.request import Request
from spectrum.report import Report, Step
from spectrum.schedule import LONG, ExplicitSchedule, LeastError
from spectrum.schedulers import noise_levels, stages_per_step
from spectrum.timeline import Timeline

SCHEMA = 2  # of results.json

# The grid: what the size's own scale S is multiplied by, and the power that speed goes with, for
# the priors that schedules follow from; the length of the prior that forecasts follow from; and the
# share of a forecast change above which the next is trusted.
SCALES = (0.25, 0.5, 1.0, 2.0, 4.0)
POWERS = (0.7, 1.0)
LENGTHS = (0.5, 1.0, 2.0, 4.0)
TRUSTS = (ALWAYS, -0.5, 0.0)

_FEW = 5  # candidates that are run on all prompts
_FEWEST = 4  # candidates without which a search is none
_GRID_SHARE = 0.6  # of a search's time; the rest is for moving steps
# Standard errors that the gain has to exceed in the check: chance alone passes one of them one
# time in six, and the default's word is better than that.
_SURE = 2.0
_COMPARED = 3  # in the check: the winner, the default, fewer steps
_PLAIN = "plain"


def usual_method(base: Request) -> Method:
    """The default, for this guidance."""
    return replace(METHODS[DEFAULT_METHOD], scale=base.method.scale)


@dataclass(frozen=True)
class Case:
    """One calibration prompt."""

    prompt: str
    seed: int


@dataclass(frozen=True)
class Choice:
    """Which steps are computed, and how far what is forecast between them is trusted.

    `usual` is the default method as it is. Its steps depend on the pipeline's noise levels, so
    before it has run they are a guess.
    """

    steps: tuple[int, ...]
    length: float
    trust: float
    usual: bool = False

    @property
    def key(self) -> str:
        if self.usual:
            return f"default, {len(self.steps)} steps computed"
        steps = ",".join(map(str, self.steps))
        return f"{steps} length {self.length:g} trust {self.trust:g}"

    def request(self, base: Request) -> Request:
        if self.usual:
            speedup = base.run_steps / len(self.steps)
            return replace(base, method=usual_method(base), speedup=speedup, schedule=None)
        method = tuned_method(self.length, self.trust)
        return replace(base, method=method, schedule=ExplicitSchedule(self.steps))


@dataclass(frozen=True)
class Fewer:
    """Step reduction: the pipeline as it is with so many steps."""

    count: int

    @property
    def key(self) -> str:
        return f"{self.count} steps, all computed"

    def request(self, base: Request) -> Request:
        return replace(base, steps=self.count, speedup=1.0, schedule=None)


@dataclass(frozen=True)
class Estimate:
    """What a search takes, by the first plain run."""

    step_seconds: float  # of a computed step
    other_seconds: float  # of a run: the prompt, the decoder
    runs: int  # of the full search, about
    seconds: float  # of the full search, plain runs among it
    least_seconds: float  # less than this is no search


@dataclass(frozen=True)
class Found:
    """The outcome for one number of computed steps. Decibels, one a prompt, of the check."""

    num_steps: int
    default: Choice
    best: Choice  # the default itself where the check shows nothing surely better
    tuned_psnr: tuple[float, ...]  # of `best`
    default_psnr: tuple[float, ...]
    fewer_psnr: tuple[float, ...]
    candidates: int  # how many were looked at
    search_gain: Spread  # of what the search found, on what it was chosen by: flattering

    @property
    def count(self) -> int:
        return len(self.default.steps)

    @property
    def speedup(self) -> float:
        return self.num_steps / self.count

    @property
    def better(self) -> bool:
        return self.best != self.default

    @property
    def gain(self) -> Spread:
        return _gain(self.tuned_psnr, self.default_psnr)

    @property
    def gain_over_fewer(self) -> Spread:
        return _gain(self.tuned_psnr, self.fewer_psnr)


class Watch:
    """What is told of a search under way; a user interface overrides what it wants."""

    def estimated(self, estimate: Estimate, limit: float) -> None:
        """Before the search; `limit` in seconds is how long it will go on."""

    def phase(self, text: str) -> None:
        """Something new begins."""

    def ran(self, bench: Bench) -> None:
        """A run has ended, or was found among the recorded ones."""

    def on_step(self, report: Report, step: Step | None) -> None:
        """Every step of every run: see `spectrum.SpectralCache`."""


class Bench:
    """Runs of the calibration prompts, each done once and kept in a folder.

    Each prompt is there twice: with its own seed for the search, and with another for the check.
    `load` gives the pipeline when the first run needs it. `settings` is all that the results
    depend on besides. Raises UsageError where the folder holds results of other settings, unless
    `restart` says to remove them.
    """

    def __init__(
        self,
        load: Callable[[], Any],
        base: Request,
        cases: Sequence[Case],
        folder: Path,
        settings: dict[str, Any],
        watch: Watch | None = None,
        restart: bool = False,
    ) -> None:
        others = [
            replace(case, seed=max(c.seed for c in cases) + 1 + k) for k, case in enumerate(cases)
        ]
        self.base, self.cases, self.folder = base, [*cases, *others], folder
        self.size = len(cases)
        self.searched, self.checked = range(self.size), range(self.size, 2 * self.size)
        self.watch = watch or Watch()
        self.seconds = 0.0  # of the runs that were asked for, recorded ones too
        self.asked: set[str] = set()
        self.runs_done = 0  # here, not recorded before
        self._load, self._pipe = load, None
        self._path = folder / "results.json"
        settings = {**settings, "cases": [asdict(case) for case in self.cases]}
        self._state = self._read(json.loads(json.dumps(settings)), restart)

    def plain(self, case: int) -> Pixels:
        """The frames of the plain run.  # [F, H, W, 3]"""
        path, key = self.folder / f"plain-{case:03d}.npy", f"{_PLAIN} #{case}"
        if key not in self._runs or not path.is_file():
            gram = _Gram()
            request = replace(self.base, speedup=1.0, schedule=None)
            made, seconds = self._generate(request, case, gram.add)
            _write_whole(path, _npy(made.pixels.astype(np.float16)))
            steps = [step.seconds for step in made.report.steps]
            self._record(
                key,
                {
                    "seconds": seconds,
                    "step_seconds": float(np.median(steps)),
                    "other_seconds": made.encode_seconds + made.decode_seconds,
                    "levels": noise_levels(self._pipe.scheduler) if self._pipe else None,
                    "moves": gram.moves(),
                },
            )
        self._ask(key)
        pixels: Pixels = np.load(path).astype(np.float32)
        return pixels

    def quality(self, what: Choice | Fewer, case: int) -> float:
        """PSNR in dB against the plain run; 0 where the run fails."""
        key = f"{what.key} #{case}"
        if key not in self._runs and (known := self._same(what, case)):
            self._record(key, known)
        if key not in self._runs:
            reference = self.plain(case)
            entry: dict[str, Any] = {}
            try:
                made, entry["seconds"] = self._generate(what.request(self.base), case)
                entry["psnr"] = psnr(made.pixels, reference)
                entry["steps"] = list(made.report.planned_steps)
                if _tells_all_trends(self._pipe):
                    checked = (step.trend for step in made.report.steps)
                    entry["trends"] = [trend for trend in checked if trend is not None]
            except UsageError:
                raise
            except SpectrumError as error:  # a forecast that is not finite
                entry.setdefault("seconds", 0.0)
                entry |= {"psnr": 0.0, "error": str(error)}
            self._record(key, entry)
        self._ask(key)
        return float(self._runs[key]["psnr"])

    def _same(self, what: Choice | Fewer, case: int) -> dict[str, Any] | None:
        """A recorded run that trusted and mistrusted the same trends, and so was the same run."""
        if isinstance(what, Fewer) or what.usual:
            return None
        for trust in TRUSTS:
            key = f"{replace(what, trust=trust).key} #{case}"
            run = self._runs.get(key, {})
            if "trends" in run and all((t > trust) == (t > what.trust) for t in run["trends"]):
                return {"psnr": run["psnr"], "trends": run["trends"], "seconds": 0.0, "as": key}
        return None

    def known_default(self, default: Choice) -> Choice:
        """The default with the steps that it really computes, by a run of the first prompt."""
        self.quality(default, 0)
        run = self._runs[f"{default.key} #0"]
        return replace(default, steps=tuple(run.get("steps", default.steps)), usual=False)

    def levels(self) -> tuple[float, ...]:
        """Noise levels of the steps, by the first plain run."""
        found = self._runs[f"{_PLAIN} #0"]["levels"] or self.base.preset.levels(self.base.run_steps)
        return tuple(found[-self.base.run_steps :])

    def observed(self) -> Array | None:
        """How x₀ moved in the plain runs of the search: the mean over prompts of the covariance of
        its moves from step to step, each prompt's of trace 1. None where it is not known.

        [N - 1, N - 1]
        """
        runs = [self._runs.get(f"{_PLAIN} #{case}", {}) for case in self.searched]
        moves = [np.array(run["moves"]) for run in runs if run.get("moves")]
        if not moves or any(len(one) != self.base.run_steps - 1 for one in moves):
            return None
        mean: Array = np.mean([one / np.trace(one) for one in moves], axis=0)
        return mean

    def qualities(self, what: Choice | Fewer, cases: Iterable[int]) -> list[float]:
        return [self.quality(what, case) for case in cases]

    def timing(self) -> tuple[float, float]:
        """Seconds of a computed step, and of a run besides its steps, by the first plain run."""
        run = self._runs[f"{_PLAIN} #0"]
        return float(run["step_seconds"]), float(run["other_seconds"])

    @property
    def recorded(self) -> int:
        """How many runs the folder holds, without those that are known to be like another."""
        return sum("as" not in run for run in self._runs.values())

    @property
    def recorded_seconds(self) -> float:
        return float(sum(run["seconds"] for run in self._runs.values()))

    @property
    def _runs(self) -> dict[str, Any]:
        runs: dict[str, Any] = self._state["runs"]
        return runs

    def _generate(
        self, request: Request, case: int, observe: Observer | None = None
    ) -> tuple[Any, float]:
        if self._pipe is None:
            self._pipe = self._load()
        began = time.perf_counter()
        one = self.cases[case]
        request = replace(request, prompt=one.prompt)
        made = generate(self._pipe, request, one.seed, self.watch.on_step, observe)
        self.runs_done += 1
        return made, time.perf_counter() - began

    def _ask(self, key: str) -> None:
        if key not in self.asked:
            self.asked.add(key)
            self.seconds += float(self._runs[key]["seconds"])
            self.watch.ran(self)

    def _record(self, key: str, entry: dict[str, Any]) -> None:
        self._runs[key] = entry
        _write_whole(self._path, json.dumps(self._state, indent=1).encode())

    def _read(self, settings: dict[str, Any], restart: bool) -> dict[str, Any]:
        fresh = {"schema": SCHEMA, "settings": settings, "runs": {}}
        if not self._path.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            return fresh
        try:
            state = json.loads(self._path.read_text(encoding="utf-8"))
            before, runs = state["settings"], state["runs"]
            if state["schema"] != SCHEMA or not isinstance(runs, dict):
                raise ValueError("another schema")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UsageError(f"{self._path}: not readable; remove {self.folder}") from error
        if before != settings and restart:
            for path in [self._path, *self.folder.glob("plain-*.npy")]:
                path.unlink()
            return fresh
        if before != settings:
            keys = sorted(k for k in {*before, *settings} if before.get(k) != settings.get(k))
            raise UsageError(
                f"{self.folder} holds results of other settings ({', '.join(keys)});"
                " --force starts over, another --output keeps them"
            )
        return dict(state)


def _tells_all_trends(pipe: Any) -> bool:
    """Whether reports hold every trend that was checked: there is one sample a step, and not a
    second for the sound, nor one for each of the solver's stages."""
    return not hasattr(pipe, "audio_vae") and stages_per_step(pipe.scheduler) == 1


def psnr(pixels: Pixels, reference: Pixels) -> float:
    """Decibels in float64 on values in [0, 1], the mean over frames.  # [F, H, W, 3] both"""
    difference = pixels.astype(np.float64) - reference
    errors = (difference**2).reshape(len(pixels), -1).mean(axis=1)
    floor = 10 ** (-PSNR_LIMIT / 10)
    return float((-10 * np.log10(np.maximum(errors, floor))).mean())


def default_choice(base: Request, speedup: float) -> Choice:
    """What the default method does at this speedup. Raises UsageError where there is none."""
    method = usual_method(base)
    if not speedup > 1:
        raise UsageError(f"a speedup to tune for is above 1, not {speedup:g}; at 1 all is computed")
    plan = replace(base, method=method, speedup=speedup, schedule=None).plan
    assert isinstance(method.forecaster, Kriging)
    length = method.forecaster.prior.length
    assert method.loop is not None
    return Choice(plan.computed_steps, length, method.loop.trust, usual=True)


def tune(
    bench: Bench, speedups: Iterable[float], minutes: float | None = None, grid: int | None = None
) -> list[Found]:
    """The best that was found for each speedup, fewest computed steps last.

    `minutes` bounds the whole, plain runs too; without it the full search is done, but for no
    longer than 10 minutes, or for 10 minutes times the seconds that a computed step takes (at most
    24 of them: 4 hours). `grid` bounds the candidates of the first round.
    Raises UsageError where the time is too short for any search.
    """
    choices = [default_choice(bench.base, speedup) for speedup in speedups]
    defaults = sorted({len(c.steps): c for c in choices}.values(), key=lambda c: -len(c.steps))
    bench.watch.phase("plain runs")
    bench.plain(0)
    estimated = estimate(bench, defaults, grid)
    limit = _limit(estimated, minutes)
    bench.watch.estimated(estimated, limit)
    for case in range(1, len(bench.cases)):
        bench.plain(case)
    found = []
    for number, default in enumerate(defaults):
        costs = [_run_seconds(bench, len(other.steps)) for other in defaults[number:]]
        share = max(0.0, limit - bench.seconds) * costs[0] / sum(costs)
        share -= _COMPARED * bench.size * costs[0]  # of the check
        found.append(_Search(bench, default, bench.seconds + share, grid).run())
    return found


def estimate(bench: Bench, defaults: Sequence[Choice], grid: int | None = None) -> Estimate:
    """After the first plain run."""
    step, other = bench.timing()
    cases, num_steps = bench.size, bench.base.run_steps
    runs = len(bench.cases)
    least = runs * (num_steps * step + other)
    seconds = least
    for default in defaults:
        count = len(default.steps)
        size = min(len(_grid(bench, default)), grid or 10**9)
        moves = 4 * max(0, count - 2) * min(3, cases)  # most are given up after two prompts
        compared = (1 + _COMPARED) * cases
        all_runs = _grid_runs(size, cases) + moves + compared
        runs += all_runs
        seconds += all_runs * _run_seconds(bench, count)
        least_runs = _grid_runs(min(size, _FEWEST), cases) + compared
        least += least_runs * _run_seconds(bench, count)
    return Estimate(step, other, runs, seconds, least)


def _limit(estimated: Estimate, minutes: float | None) -> float:
    """Seconds for the whole."""
    if minutes is None:
        longest = 600 * min(max(estimated.step_seconds, 1.0), 24.0)
        return max(estimated.least_seconds, min(1.2 * estimated.seconds, longest))
    if 60 * minutes < estimated.least_seconds:
        least = math.ceil(estimated.least_seconds / 6) / 10
        raise UsageError(
            f"--minutes {minutes:g} is too short for any search: give {least:g} or more, or fewer"
            " prompts or --speedups"
        )
    return 60 * minutes


def _run_seconds(bench: Bench, count: int) -> float:
    """About, for so many computed steps."""
    step, other = bench.timing()
    return count * step + other


def _grid_runs(size: int, cases: int) -> int:
    """Runs that halving this many candidates takes."""
    return sum(
        kept * (seen - before)
        for kept, seen, before in zip(
            _kept(size, cases), _seen(cases), [0, *_seen(cases)], strict=False
        )
    )


def _seen(cases: int) -> list[int]:
    """Prompts that candidates have been run on after each round."""
    return [seen for seen in (2, 4) if seen < cases] + [cases]


def _kept(size: int, cases: int) -> list[int]:
    """Candidates in each round."""
    return [size, min(size, max(_FEW, math.ceil(size / 3))), min(size, _FEW)][: len(_seen(cases))]


def _grid(bench: Bench, default: Choice) -> list[Choice]:
    """The default, then what differs from it in one respect, then the rest in no order."""
    near = replace(default, usual=False)
    levels, observed = bench.levels(), bench.observed()
    priors = [replace(prior, power=power) for prior in scaled(bench.base) for power in POWERS]
    if observed is not None and bench.base.run_steps <= LONG:
        priors += [_Observed(scale=p.scale, moves=observed) for p in scaled(bench.base)]
    placements = [placed(bench.base, near.steps, prior, levels) for prior in priors]
    kinds = [(length, trust) for trust in TRUSTS for length in LENGTHS]
    everything = [
        Choice(steps, *kind) for steps in dict.fromkeys([near.steps, *placements]) for kind in kinds
    ]
    random.Random(0).shuffle(everything)

    def differs(choice: Choice) -> int:
        return sum(
            getattr(choice, name) != getattr(near, name) for name in ("steps", "length", "trust")
        )

    everything.sort(key=lambda choice: min(2, differs(choice)))
    return list(dict.fromkeys([default, *everything]))


def scaled(base: Request) -> list[Prior]:
    """The default's prior for pictures of this size, with S larger and smaller."""
    return [Prior(scale=base.timeline.scale * factor) for factor in SCALES]


def placed(
    base: Request, steps: Sequence[int], prior: Prior, levels: tuple[float, ...]
) -> tuple[int, ...]:
    """As many steps as these where the prior says, for each denoiser its own."""
    num_steps, handover = base.run_steps, base.preset.handover(base.run_steps)
    chosen: list[int] = []
    for first, end in ((0, handover), (handover, num_steps)):
        count = sum(first <= step < end for step in steps)
        if count:
            part = slice(first, end + 1)  # the first denoiser's run goes on where it ends
            mine = prior.part(part) if isinstance(prior, _Observed) else prior
            timeline = Timeline(levels[part], goes_on=len(levels) > end)
            found = LeastError(count, mine).computed_steps(timeline)
            chosen += [first + step for step in found]
    return tuple(chosen)


@dataclass(frozen=True, eq=False)
class _Observed(Prior):
    """What plain runs showed, instead of a prior."""

    moves: Array = field(default_factory=lambda: np.zeros((0, 0)))  # [N - 1, N - 1]

    __eq__ = object.__eq__  # plans are remembered by it
    __hash__ = object.__hash__

    def covariance(self, levels: tuple[float, ...]) -> Array:
        sums = np.zeros((len(levels), len(levels)))
        sums[1:, 1:] = self.moves.cumsum(0).cumsum(1)
        return sums

    def part(self, steps: slice) -> _Observed:
        inner = slice(steps.start, steps.stop - 1)
        return replace(self, moves=self.moves[inner, inner])


class _Gram:
    """Inner products of what x₀ moves by from one step to the next."""

    def __init__(self) -> None:
        self._last: torch.Tensor | None = None
        self._moves: list[torch.Tensor] = []
        self._products: list[list[float]] = []

    def add(self, step: int, denoised: torch.Tensor) -> None:
        del step
        denoised = denoised.cpu()
        if self._last is not None:
            move = (denoised - self._last).flatten()
            self._moves.append(move)
            self._products.append([float(move @ other) for other in self._moves])
        self._last = denoised

    def moves(self) -> list[list[float]] | None:
        """Symmetric; None where x₀ was not shown, or did not move.  # [N - 1, N - 1]"""
        lower = self._products
        if not lower or not any(row[-1] for row in lower):
            return None
        count = len(lower)
        return [[lower[max(i, k)][min(i, k)] for k in range(count)] for i in range(count)]


class _Search:
    """For one number of computed steps, until the bench's clock shows `until`."""

    def __init__(self, bench: Bench, default: Choice, until: float, grid: int | None) -> None:
        self.bench, self.default, self.until = bench, default, until
        self.grid = grid
        self.cases = bench.size
        self.looked_at: set[Choice] = set()

    def run(self) -> Found:
        bench, num_steps = self.bench, self.bench.base.run_steps
        name = f"{len(self.default.steps)} of {num_steps}"
        bench.watch.phase(f"{name}: default")
        self.default = bench.known_default(self.default)
        usual = bench.qualities(self.default, bench.searched)
        candidates = _grid(bench, self.default)[: self._affordable()]
        bench.watch.phase(f"{name}: {len(candidates)} candidates")
        best = self._moved(self._halved(candidates), name)
        gain = _gain(bench.qualities(best, bench.searched), usual)
        bench.watch.phase(f"{name}: check with other seeds, {gain.mean:+.2f} dB so far")
        usual = bench.qualities(self.default, bench.checked)
        qualities = bench.qualities(best, bench.checked)
        fewer = bench.qualities(Fewer(len(self.default.steps)), bench.checked)
        if not _is_gain(qualities, usual, _SURE):
            best, qualities = self.default, usual
        return Found(
            num_steps, self.default, best, tuple(qualities), tuple(usual), tuple(fewer),
            len(self.looked_at), gain,
        )  # fmt: skip

    def _affordable(self) -> int:
        """Candidates that the grid's share of the time is enough for."""
        cost = _run_seconds(self.bench, len(self.default.steps))
        runs = _GRID_SHARE * (self.until - self.bench.seconds) / max(cost, 1e-9)
        size = min(len(_grid(self.bench, self.default)), self.grid or 10**9)
        while size > _FEWEST and _grid_runs(size, self.cases) > runs:
            size -= 1
        return size

    def _halved(self, candidates: list[Choice]) -> Choice:
        """The best of them: all are run on few prompts, few on all. The default stays in."""
        left, rounds = candidates, _seen(self.cases)
        keep = [*_kept(len(candidates), self.cases)[1:], 1]
        for number, (seen, kept) in enumerate(zip(rounds, keep, strict=True)):
            means: dict[Choice, float] = {}
            for choice in left:
                if self._over and means:  # runs took longer than expected
                    break
                self.looked_at.add(choice)
                means[choice] = _mean(self.bench.qualities(choice, range(seen)))
            ranked = sorted(means, key=lambda choice: -means[choice])
            left = ranked[:kept]
            if number < len(rounds) - 1 and self.default not in left:
                left.append(self.default)
        return left[0]

    def _moved(self, best: Choice, name: str) -> Choice:
        """Single steps moved by 1 or 2 as long as that helps."""
        fixed = {0, self.bench.base.preset.handover(self.bench.base.run_steps)}
        helped, rejected = True, set[Choice]()
        while helped and not self._over:
            helped = False
            both = (self.bench.qualities(one, self.bench.searched) for one in (best, self.default))
            gain = _gain(*both)
            self.bench.watch.phase(f"{name}: moving steps, {gain.mean:+.2f} dB so far")
            for position in range(1, len(best.steps)):
                for offset in (-1, 1, -2, 2):
                    if best.steps[position] in fixed or self._over:
                        continue
                    moved = _move(best, position, offset, self.bench.base.run_steps)
                    if moved is None or moved in rejected:
                        continue
                    if self._is_better(moved, best):
                        best, helped = moved, True
                    else:
                        rejected.add(moved)
        return best

    def _is_better(self, choice: Choice, best: Choice) -> bool:
        """On all prompts; it is given up as soon as it is behind on two or more."""
        self.looked_at.add(choice)
        ours: list[float] = []
        theirs: list[float] = []
        for case in range(self.cases):
            ours.append(self.bench.quality(choice, case))
            theirs.append(self.bench.quality(best, case))
            if case and _gain(ours, theirs).mean <= 0:
                return False
        return _is_gain(ours, theirs)

    @property
    def _over(self) -> bool:
        return self.bench.seconds >= self.until


def _move(choice: Choice, position: int, offset: int, num_steps: int) -> Choice | None:
    """With one step elsewhere; None where another one stands, or past it."""
    steps = [*choice.steps, num_steps]
    steps[position] += offset
    if not steps[position - 1] < steps[position] < steps[position + 1]:
        return None
    steps.pop()
    return replace(choice, steps=tuple(steps))


def _gain(ours: Sequence[float], theirs: Sequence[float]) -> Spread:
    """Prompt by prompt."""
    return spread([a - b for a, b in zip(ours, theirs, strict=True)])


def _is_gain(ours: Sequence[float], theirs: Sequence[float], errors: float = 1.0) -> bool:
    """Whether the mean gain exceeds so many standard errors (and a hundredth of a decibel)."""
    gain = _gain(ours, theirs)
    return gain.mean > max(errors * (gain.error or 0.0), 0.01)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


# -- settings ------------------------------------------------------------------------------------


def weights_mark(folder: Path) -> str:
    """Changes when a file in the folder does, by names, sizes and times."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            found = path.stat()
            mark = f"{path.relative_to(folder)} {found.st_size} {found.st_mtime_ns}"
            digest.update(mark.encode())
    return digest.hexdigest()[:16]


def untuned(preset: Preset) -> Preset:
    """The preset with the default method and nothing tuned, at its own speedup."""
    return preset.model_copy(update={"cache": Cache(speedup=preset.cache.speedup)})


# -- the preset ----------------------------------------------------------------------------------


def tuned_yaml(
    preset: Preset, found: Sequence[Found], record: Sequence[str], text: str | None = None
) -> str:
    """The preset's text with what was found as its section `cache`, after `record` as comments.

    Comments stay. A preset without a file is written out. What was tuned before for other numbers
    of steps is kept. `text` is `preset_text`, where it was taken before.
    """
    text = preset_text(preset) if text is None else text
    if preset.weights == "embedded":
        text = _with_value(text, "weights", f"embedded:{preset.name}")
    header = "".join(f"# {line}".rstrip() + "\n" for line in record)
    return header + "#\n" + _with_section(text, "cache", _cache_section(preset, found))


def write_preset(path: Path, text: str) -> None:
    """Whole, and only if it can be read again."""

    def check(partial: Path) -> None:
        read_preset(partial)

    _write_whole(path, text.encode(), check)


def preset_text(preset: Preset) -> str:
    """Its file's, or its values as YAML where it has none."""
    if preset.path != Path():
        return preset.path.read_text(encoding="utf-8")
    content = preset.model_dump(
        mode="json", by_alias=True, exclude_defaults=True, exclude={"name", "path"}
    )
    if Path(preset.weights).is_dir():
        content["weights"] = str(Path(preset.weights).resolve())
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)


def _cache_section(preset: Preset, found: Sequence[Found]) -> str:
    lines = ["cache:", f"  speedup: {preset.cache.speedup:g}", f"  method: {DEFAULT_METHOD}"]
    entries: list[str] = []
    for one in found:
        best = one.best
        entry = Tuned(
            num_steps=one.num_steps, steps=list(best.steps), length=best.length, trust=best.trust
        )
        entries += [_entry(entry), *(f"      # {line}" for line in _comments(one))]
    done = {(one.num_steps, one.count) for one in found}
    for entry in preset.cache.tuned:
        if (entry.num_steps, len(entry.steps)) not in done:
            entries += [_entry(entry), "      # as it was"]
    if any(line.lstrip().startswith("-") for line in entries):
        lines.append("  tuned:")
    return "\n".join([*lines, *entries]) + "\n"


def _entry(entry: Tuned) -> str:
    steps = ", ".join(map(str, entry.steps))
    return (
        f"    - {{num_steps: {entry.num_steps}, length: {entry.length:g},"
        f" trust: {_yaml_scalar(trust_word(entry.trust))},\n       steps: [{steps}]}}"
    )


def _yaml_scalar(value: float | str) -> str:
    return yaml.safe_dump(value).split("\n")[0]


def _comments(one: Found) -> list[str]:
    prompts = f"{len(one.tuned_psnr)} prompt{'s' if len(one.tuned_psnr) > 1 else ''}"
    head = f"{one.count} of {one.num_steps} computed, {_mean(one.tuned_psnr):.1f} dB"
    gain = f"{spread_text(one.gain)} over the default"
    if not one.better:
        gain = "the default, as nothing was surely better"
    return [f"{head}: {gain},", f"{spread_text(one.gain_over_fewer)} over fewer steps; {prompts}"]


def spread_text(gain: Spread, sign: str = "+") -> str:
    error = "" if gain.error is None else f" ± {gain.error:.2f}"
    return f"{gain.mean:{sign}.2f}{error} dB"


def _with_value(text: str, key: str, value: str) -> str:
    """The YAML text with another scalar at a key of its top."""
    for found, node in _top(text):
        if found.value == key:
            return text[: node.start_mark.index] + value + text[node.end_mark.index :]
    return text


def _with_section(text: str, key: str, section: str) -> str:
    """The YAML text with these lines instead of a key of its top, or at the end."""
    lines = text.splitlines(keepends=True)
    for found, node in _top(text):
        if found.value == key:
            first, end = found.start_mark.line, node.end_mark.line
            if node.end_mark.column:
                end += 1
            while end > first + 1 and not lines[end - 1].startswith((" ", "\t", "}")):
                end -= 1  # blank lines and comments belong to what follows
            return "".join([*lines[:first], section, *lines[end:]])
    return text + ("" if text.endswith("\n") else "\n") + section


def _top(text: str) -> list[tuple[Any, Any]]:
    node = yaml.compose(text, Loader=yaml.SafeLoader)
    assert isinstance(node, yaml.MappingNode)
    return list(node.value)


# -- files ---------------------------------------------------------------------------------------


def _npy(array: NDArray[Any]) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def _write_whole(path: Path, content: bytes, check: Callable[[Path], None] | None = None) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_bytes(content)
        if check:
            check(partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
