"""A plain run for each prompt, every rival against it, and a folder with all that came out."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any, Protocol

import torch

from spectrum import __version__
from spectrum.compare.figures import PLAIN, Outcome, Outcomes, methods
from spectrum.compare.folder import Folder
from spectrum.compare.metrics import likeness
from spectrum.compare.rivals import Case, Rival, why_left_out
from spectrum.compare.running import check, make, prepared
from spectrum.compare.sheet import AMPLIFY
from spectrum.errors import SpectrumError
from spectrum.pipeline.folders import write_folder
from spectrum.pipeline.generate import Generation, generate, machine, metadata
from spectrum.pipeline.loading import Options
from spectrum.pipeline.request import Request
from spectrum.report import Report, Step

# Of result.json. Raised when a key changes its meaning.
SCHEMA = 1

PACE_STEPS = 3  # plain ones, timed before and after each run

_PACKAGES = ("spectrum-diffusion", "torch", "diffusers", "transformers", "torchmetrics")


class Watcher(Protocol):
    """Told what goes on."""

    def begin(self, case: Case, name: str) -> None:
        """A run begins, of a rival or of "plain"."""

    def step(self, report: Report, step: Step | None) -> None:
        """Denoising begins, or a step has ended: see `spectrum.SpectralCache`."""

    def end(self, case: Case, name: str, outcome: Outcome | str) -> None:
        """A run has ended, with figures or with the reason why there are none."""


class _Nobody:
    def begin(self, case: Case, name: str) -> None: ...

    def step(self, report: Report, step: Step | None) -> None: ...

    def end(self, case: Case, name: str, outcome: Outcome | str) -> None: ...


class _Enough(Exception):
    """So many steps are enough."""


@dataclass
class Comparison:
    """All runs. `plain` is the request of the plain ones, but for the prompt, which is each case's.

    Memory holds the frames of one case at a time.
    """

    pipe: Any
    plain: Request
    rivals: list[Rival]
    cases: Sequence[Case]
    speedup: float
    device: torch.device
    options: Options
    watcher: Watcher = field(default_factory=_Nobody)
    outcomes: list[Outcomes] = field(default_factory=list)  # of each case
    result: dict[str, Any] = field(default_factory=dict)  # once all is measured
    _shape: tuple[int, ...] = ()  # F, H, W

    @property
    def fps(self) -> int | None:
        """None for pictures."""
        return self.plain.fps if self.plain.frames > 1 else None

    @property
    def runs(self) -> int:
        """How many there will be, without those that look for a cache's threshold."""
        return len(self.cases) * (1 + sum(rival.request is not None for rival in self.rivals))

    @property
    def budget(self) -> int:
        """Steps of those that compute as many as the methods do: the most that one computed."""
        done = self.outcomes[0]
        names = [rival.name for rival in self.rivals if rival.kind == "method"]
        computed = [int(done[name].computed) for name in names if name in done]
        return max(computed, default=max(1, int(self.plain.steps / self.speedup + 1e-9)))

    def write(self, path: Path, replace: bool = False) -> Path:
        """Run, and write the folder: see `spectrum.pipeline.folders`; where it is.

        What is in its result.json is in `result` then. A rival that fails is left out, with the
        reason; raises SpectrumError where a plain run or every rival fails. A file that can't be
        written is left out too: `result["missing"]` names it. Raises OSError where the folder
        itself can't be written; if everything was measured by then, `result` has it.
        """

        def fill(partial: Path) -> None:
            folder = Folder(partial, self.fps)
            self._warm_up()
            for case in self.cases:
                self._run(case, folder)
            self.result = self.document()
            folder.finish(self.result)

        check(self.pipe, self.rivals)
        return write_folder(path, fill, replace)

    def _warm_up(self) -> None:
        """The plain run comes first, and would pay for what a process does once."""
        case = self.cases[0]
        short = replace(self.plain, prompt=case.prompt, steps=min(2, self.plain.steps))
        generate(self.pipe, short, case.seed)

    def _run(self, case: Case, folder: Folder) -> None:
        """The plain run and all rivals at one case."""
        self.outcomes.append({})
        self.watcher.begin(case, PLAIN)
        reference = self._make(Rival(PLAIN, "method", self.plain), case, folder, None)
        self.watcher.end(case, PLAIN, self.outcomes[-1][PLAIN])
        self._shape = reference.frames.shape[:3]
        films = {PLAIN: reference.frames}
        for place, rival in enumerate(self.rivals):
            if rival.request is not None:
                made = self._try(place, case, folder, reference)
                if made is not None:
                    films[rival.name] = made.frames
        if len(films) == 1:
            reasons = "; ".join(f"{rival.name}: {rival.reason}" for rival in self.rivals)
            raise SpectrumError(f"there is nothing to compare: {reasons}")
        captioned = [(self._caption(name), film) for name, film in films.items()]
        folder.add_overview(f"{case.prompt}   (seed {case.seed})", captioned)

    def _try(
        self, place: int, case: Case, folder: Folder, reference: Generation
    ) -> Generation | None:
        """One rival's run; None where it fails so that it is left out."""
        rival = self.rivals[place]
        self.watcher.begin(case, rival.name)
        try:
            if len(self.outcomes) == 1:
                rival = self.rivals[place] = prepared(
                    self.pipe, rival, case.prompt, case.seed, self.budget, self.watcher.step
                )
            made = self._make(rival, case, folder, reference)
        except Exception as error:
            reason = why_left_out(rival, error)
            self._leave_out(place, reason)
            self.watcher.end(case, rival.name, reason)
            return None
        self.watcher.end(case, rival.name, self.outcomes[-1][rival.name])
        return made

    def _make(
        self, rival: Rival, case: Case, folder: Folder, reference: Generation | None
    ) -> Generation:
        """One run, written, and measured against the reference if there is one."""
        before = self._plain_step(case) if reference is not None else 0.0
        made, computed = make(self.pipe, rival, case.prompt, case.seed, self.watcher.step)
        beside = made.report.denoise_seconds / made.report.num_steps
        if reference is not None:
            beside = (before + self._plain_step(case)) / 2
        number, whole = len(self.outcomes), not folder.missing
        file = folder.add(number, rival.name, made.frames, self._metadata(rival, case, made))
        near, apart = None, None
        if reference is not None:
            near = likeness(made.pixels, reference.pixels)
            apart = folder.add_difference(number, rival.name, made.frames, reference.frames)
        notes = tuple(made.report.notes)
        if whole and folder.problem:
            notes = (*notes, f"{folder.problem}; measuring goes on")
        self.outcomes[-1][rival.name] = Outcome(
            computed, made.encode_seconds, made.denoise_seconds, made.decode_seconds,
            file, apart, near, beside, notes,
        )  # fmt: skip
        return made

    def _plain_step(self, case: Case) -> float:
        """Seconds that a step takes now without any rival: a machine is not always equally fast,
        so that each run is measured by plain steps right beside it."""
        seconds: list[float] = []

        def count(_report: Report, step: Step | None) -> None:
            if step is not None:
                seconds.append(step.seconds)
            if len(seconds) >= PACE_STEPS:
                raise _Enough

        with suppress(_Enough):
            generate(self.pipe, replace(self.plain, prompt=case.prompt), case.seed, count)
        return median(seconds)

    def _leave_out(self, place: int, reason: str) -> None:
        """Of the cases before as well: means over fewer would not compare."""
        rival = self.rivals[place]
        self.rivals[place] = replace(rival, request=None, reason=reason)
        for outcomes in self.outcomes:
            outcomes.pop(rival.name, None)

    def _metadata(self, rival: Rival, case: Case, made: Generation) -> dict[str, Any]:
        """All it takes to make the file again; no command of ours does with diffusers' caches."""
        assert rival.request is not None
        if rival.config is None:
            request = replace(rival.request, prompt=case.prompt)
            return metadata(request, case.seed, made, self.device, self.options)
        cache = repr(rival.config)
        return {"generator": f"spectrum {__version__}", **asdict(case), "diffusers_cache": cache}

    def _caption(self, name: str) -> str:
        near = self.outcomes[-1][name].likeness
        return f"{name}   {near.psnr:.1f} dB" if near else name

    def document(self) -> dict[str, Any]:
        """All figures, the best method first. PSNR and gain are in dB, times in seconds."""
        plain, (frames, height, width) = self.plain, self._shape
        return {
            "schema": SCHEMA,
            "generator": f"spectrum {__version__}",
            "model": plain.preset.name,
            "pipeline": plain.pipeline,
            "scheduler": type(self.pipe.scheduler).__name__,
            "media": "image" if self.fps is None else "video",
            "cases": [asdict(case) for case in self.cases],
            "negative_prompt": plain.negative_prompt,
            "width": width,
            "height": height,
            "frames": frames,
            "fps": self.fps,
            "steps": plain.steps,
            "guidance": plain.guidance,
            "speedup": self.speedup,
            "plain": {"runs": [outcomes[PLAIN].document() for outcomes in self.outcomes]},
            "methods": methods(self.rivals, self.outcomes),
            "plain_step_seconds": self._pace(),
            "difference_times": AMPLIFY,
            "device": str(self.device),
            "machine": machine(self.device),
            "threads": torch.get_num_threads(),
            "dtype": self.options.dtype,
            "versions": {
                "python": platform.python_version(),
                **{package: version(package) for package in _PACKAGES},
            },
        }

    def _pace(self) -> dict[str, float]:
        """Of plain steps beside all runs: far apart where the clock is not to be trusted."""
        steps = [one.plain_step for outcomes in self.outcomes for one in outcomes.values()]
        return {"least": min(steps), "most": max(steps)}
