"""Runs of the calibration prompts that are measured, each done once and kept in a folder."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from spectrum.compare.metrics import psnr
from spectrum.compare.rivals import Case
from spectrum.denoised import Observer
from spectrum.errors import SpectrumError, UsageError
from spectrum.gaussian import Array
from spectrum.pipeline.generate import Generation, generate
from spectrum.pipeline.media import Pixels
from spectrum.pipeline.request import Request
from spectrum.schedulers import noise_levels, stages_per_step
from spectrum.tune.candidates import TRUSTS, Candidate, Choice, Planned, usual
from spectrum.tune.moves import Moves, mean_moves
from spectrum.tune.store import Store
from spectrum.tune.watch import Watch


class Bench:
    """Runs of `cases` with the settings of `base`, compared with the plain runs.

    Each prompt is there twice: with its own seed for the search, and with another for the check.
    `load` gives the pipeline when the first run needs it. The folder and `settings` are those of
    `spectrum.tune.store.Store`, which raises UsageError.
    """

    def __init__(
        self,
        load: Callable[[], Any],
        base: Request,
        cases: Sequence[Case],
        folder: Path,
        settings: dict[str, Any],
        watch: Watch | None = None,
        force: bool = False,
    ) -> None:
        first = max(case.seed for case in cases) + 1
        others = [replace(case, seed=first + k) for k, case in enumerate(cases)]
        self.base, self.cases = base, [*cases, *others]
        self.size = len(cases)
        self.searched, self.checked = range(self.size), range(self.size, 2 * self.size)
        self.watch = watch or Watch()
        self.seconds = 0.0  # of the runs that were asked for, recorded ones too
        self.asked: set[str] = set()
        self.runs_done = 0  # here, not recorded before
        self._load, self._pipe = load, None
        settings = {**settings, "cases": [asdict(case) for case in self.cases]}
        self.store = Store(folder, settings, force)

    # -- runs ------------------------------------------------------------------------------------

    def plain(self, case: int) -> Pixels:
        """The frames of the plain run.  # [F, H, W, 3]"""
        key, pixels = _plain_key(case), self.store.frames(case)
        if key not in self.store.runs or pixels is None:
            moves = Moves()
            request = replace(self.base, speedup=1.0, schedule=None)
            made, seconds = self._generate(request, case, moves.add)
            self.store.keep_frames(case, made.pixels)
            entry = {
                "seconds": seconds,
                "step_seconds": float(np.median([step.seconds for step in made.report.steps])),
                "other_seconds": made.encode_seconds + made.decode_seconds,
                "levels": noise_levels(self._pipe.scheduler) if self._pipe else None,
                "moves": moves.products(),
            }
            self.store.record(key, entry)
            pixels = self.store.frames(case)
        self._ask(key)
        assert pixels is not None
        return pixels

    def quality(self, what: Candidate, case: int) -> float:
        """PSNR in dB against the plain run; 0 where the run fails."""
        key = f"{what.key} #{case}"
        if key not in self.store.runs:
            self.store.record(key, self._same(what, case) or self._measured(what, case))
        self._ask(key)
        return float(self.store.runs[key]["psnr"])

    def qualities(self, what: Candidate, cases: Iterable[int]) -> list[float]:
        return [self.quality(what, case) for case in cases]

    def _measured(self, what: Candidate, case: int) -> dict[str, Any]:
        reference = self.plain(case)
        try:
            made, seconds = self._generate(what.request(self.base), case)
        except UsageError:
            raise
        except SpectrumError as error:  # a forecast that is not finite
            return {"seconds": 0.0, "psnr": 0.0, "error": str(error)}
        entry: dict[str, Any] = {"seconds": seconds, "psnr": psnr(made.pixels, reference)}
        # a call may be several runs, whose steps are counted on
        entry["steps"] = [s for s in made.report.planned_steps if s < self.base.run_steps]
        if _tells_all_trends(self._pipe):
            checked = (step.trend for step in made.report.steps)
            entry["trends"] = [trend for trend in checked if trend is not None]
        return entry

    def _same(self, what: Candidate, case: int) -> dict[str, Any] | None:
        """A recorded run that computed the same steps, and trusted and mistrusted the same trends,
        and so was the same run."""
        if not isinstance(what, Choice):
            return None
        alike: list[tuple[Candidate, float]] = [(replace(what, trust=t), t) for t in TRUSTS]
        if what.is_usual:
            alike.append((Planned(len(what.steps), what.scale), what.trust))
        for other, trust in alike:
            key = f"{other.key} #{case}"
            run = self.store.runs.get(key, {})
            if "trends" not in run or run["steps"] != list(what.steps):
                continue
            if all((trend > trust) == (trend > what.trust) for trend in run["trends"]):
                return {**run, "seconds": 0.0, "as": key}
        return None

    def _generate(
        self, request: Request, case: int, observe: Observer | None = None
    ) -> tuple[Generation, float]:
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
            self.seconds += float(self.store.runs[key]["seconds"])
            self.watch.ran(len(self.asked), self.seconds)

    # -- what they tell --------------------------------------------------------------------------

    def known(self, plan: Planned) -> Choice:
        """With the steps that it really computes, by a run of the first prompt."""
        self.quality(plan, 0)
        run = self.store.runs[f"{plan.key} #0"]
        steps = run.get("steps") or plan.request(self.base).plan.computed_steps
        return usual(steps, plan.scale)

    def levels(self) -> tuple[float, ...]:
        """Noise levels of the steps, by the first plain run."""
        found = self.store.runs[_plain_key(0)]["levels"]
        return tuple(
            (found or self.base.preset.levels(self.base.run_steps))[-self.base.run_steps :]
        )

    def observed(self) -> Array | None:
        """How x₀ moved in the plain runs of the search: see `mean_moves`."""
        runs = [self.store.runs.get(_plain_key(case), {}) for case in self.searched]
        return mean_moves(runs, self.base.run_steps)

    def run_seconds(self, count: int) -> float:
        """About, for so many computed steps: see `timing`."""
        step, other = self.timing()
        return count * step + other

    def timing(self) -> tuple[float, float]:
        """Seconds of a computed step, and of a run besides its steps: the least of the first two
        plain runs, as the very first pays for what a process does once."""
        runs = [self.store.runs[key] for key in map(_plain_key, (0, 1)) if key in self.store.runs]
        steps, others = ([run[key] for run in runs] for key in ("step_seconds", "other_seconds"))
        return float(min(steps)), float(min(others))

    @property
    def recorded(self) -> int:
        """How many runs the folder holds, without those that are known to be like another."""
        return sum("as" not in run for run in self.store.runs.values())

    @property
    def recorded_seconds(self) -> float:
        return float(sum(run["seconds"] for run in self.store.runs.values()))


def _plain_key(case: int) -> str:
    return f"plain #{case}"


def _tells_all_trends(pipe: Any) -> bool:
    """Whether reports hold every trend that was checked: there is one sample a step, and not a
    second for the sound, nor one for each of the solver's stages."""
    return not hasattr(pipe, "audio_vae") and stages_per_step(pipe.scheduler) == 1
