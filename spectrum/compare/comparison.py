"""A plain run for each prompt, every rival against it, and a folder with all that came out."""

from __future__ import annotations

import json
import os
import platform
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import torch

from spectrum import __version__
from spectrum.compare.metrics import Likeness, likeness, spread
from spectrum.compare.page import page
from spectrum.compare.rivals import FEWER_STEPS, NotForThisClass, Rival, check, make, prepared
from spectrum.compare.sheet import AMPLIFY, contact, difference, stacked, strip
from spectrum.errors import SpectrumError
from spectrum.pipeline.generate import Generation, generate, metadata
from spectrum.pipeline.media import Frames, write_mp4, write_png
from spectrum.pipeline.request import Request
from spectrum.report import Report, Step

# Of result.json. Raised when a key changes its meaning.
SCHEMA = 1

PLAIN = "plain"

# What is in the folder.
PICTURES = "pictures"
SHEET, STRIP, FILM = "sheet.png", "strip.png", "side-by-side.mp4"
RESULT, PAGE = "result.json", "index.html"

# Cases in side-by-side.mp4, the first ones: more would take much memory and little be seen.
_FILMED = 4


@dataclass(frozen=True)
class Case:
    """A prompt and the seed of its noise, which all rivals start from."""

    prompt: str
    seed: int


@dataclass(frozen=True)
class Outcome:
    """One run of one rival. `file` and `difference` are paths in the output folder."""

    computed: float  # steps, a mean over guidance branches
    encode_seconds: float
    denoise_seconds: float
    decode_seconds: float
    file: str
    difference: str | None  # None, as the likeness is, for the plain run itself
    likeness: Likeness | None
    notes: tuple[str, ...] = ()

    @property
    def seconds(self) -> float:
        return self.encode_seconds + self.denoise_seconds + self.decode_seconds


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


@dataclass
class Comparison:
    """All runs and their files. Memory holds the frames of one case, and small ones of the others.

    `plain` is the request of the plain runs, but for the prompt, which is each case's.
    """

    pipe: Any
    plain: Request
    rivals: list[Rival]
    cases: Sequence[Case]
    speedup: float
    device: torch.device
    dtype: str
    watcher: Watcher = field(default_factory=_Nobody)
    outcomes: list[dict[str, Outcome]] = field(default_factory=list)  # of each case, by name
    _shape: tuple[int, ...] = ()  # F, H, W
    _sheets: list[Frames] = field(default_factory=list)
    _strips: list[Frames] = field(default_factory=list)
    _films: list[Frames] = field(default_factory=list)

    @property
    def is_video(self) -> bool:
        return self.plain.fps is not None and self.plain.frames > 1

    @property
    def runs(self) -> int:
        """How many there will be, without those that look for a cache's threshold."""
        return len(self.cases) * (1 + sum(rival.request is not None for rival in self.rivals))

    @property
    def budget(self) -> int:
        """Steps of those that compute as many as the methods do: the most that one computed."""
        methods = [rival.name for rival in self.rivals if rival.kind == "method"]
        computed = [int(self.outcomes[0][name].computed) for name in methods
                    if name in self.outcomes[0]]  # fmt: skip
        return max(computed, default=max(1, int(self.plain.steps / self.speedup + 1e-9)))

    def write(self, folder: Path) -> dict[str, Any]:
        """Run, and write the folder whole or not at all; one that is there is replaced.

        Returns what is in its result.json. A rival that fails is left out, with the reason;
        raises SpectrumError where a plain run or every rival fails.
        """
        partial = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
        check(self.pipe, self.rivals)
        try:
            (partial / PICTURES).mkdir(parents=True)
            self._warm_up()
            for case in self.cases:
                self._run(case, partial)
            document = self.document()
            self._write_overviews(partial, document)
            text = json.dumps(document, ensure_ascii=False, indent=1)
            (partial / RESULT).write_text(text + "\n", encoding="utf-8")
            (partial / PAGE).write_text(page(document, partial), encoding="utf-8")
            if folder.exists():
                shutil.rmtree(folder)
            partial.rename(folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        return document

    # -- runs ------------------------------------------------------------------------------------

    def _warm_up(self) -> None:
        """The plain run comes first, and would pay for what a process does once."""
        case = self.cases[0]
        short = replace(self.plain, prompt=case.prompt, steps=min(2, self.plain.steps))
        generate(self.pipe, short, case.seed)

    def _run(self, case: Case, folder: Path) -> None:
        """All rivals at one case."""
        self.outcomes.append({})
        plain = Rival(PLAIN, "method", self.plain)
        self.watcher.begin(case, PLAIN)
        reference, outcome = self._make(plain, case, folder, None)
        self.watcher.end(case, PLAIN, outcome)
        self._shape = reference.frames.shape[:3]
        frames = {PLAIN: reference.frames}
        for place, rival in enumerate(self.rivals):
            if rival.request is None:
                continue
            self.watcher.begin(case, rival.name)
            try:
                if len(self.outcomes) == 1:
                    rival = self.rivals[place] = prepared(
                        self.pipe, rival, case.prompt, case.seed, self.budget, self.watcher.step
                    )
                film, outcome = self._make(rival, case, folder, reference)
            except Exception as error:
                reason = _reason(rival, error)
                self._lose(place, reason)
                self.watcher.end(case, rival.name, reason)
            else:
                frames[rival.name] = film.frames
                self.watcher.end(case, rival.name, outcome)
        if len(frames) == 1:
            reasons = "; ".join(f"{rival.name}: {rival.reason}" for rival in self.rivals)
            raise SpectrumError(f"there is nothing to compare: {reasons}")
        self._add_to_overviews(case, frames)

    def _make(
        self, rival: Rival, case: Case, folder: Path, reference: Generation | None
    ) -> tuple[Generation, Outcome]:
        """One run, written, and measured against the reference if there is one."""
        made, computed = make(self.pipe, rival, case.prompt, case.seed, self.watcher.step)
        file = self._file(rival.name)
        self._write(folder / file, made.frames, self._metadata(rival, case, made))
        near, apart = None, None
        if reference is not None:
            near = likeness(made.pixels, reference.pixels)
            apart = self._file(f"{rival.name}-difference")
            about = {"generator": f"spectrum {__version__}", "difference_times": AMPLIFY}
            self._write(folder / apart, difference(made.frames, reference.frames), about)
        outcome = Outcome(
            computed, made.encode_seconds, made.denoise_seconds, made.decode_seconds,
            file, apart, near, tuple(made.report.notes),
        )  # fmt: skip
        self.outcomes[-1][rival.name] = outcome
        return made, outcome

    def _lose(self, place: int, reason: str) -> None:
        """Leave a rival out, of the cases before as well: means over fewer would not compare."""
        rival = self.rivals[place]
        self.rivals[place] = replace(rival, request=None, reason=reason)
        for outcomes in self.outcomes:
            outcomes.pop(rival.name, None)

    def _file(self, name: str) -> str:
        """Windows takes no colon in a name."""
        ending = "mp4" if self.is_video else "png"
        return f"{PICTURES}/{len(self.outcomes)}-{name.replace(':', '-')}.{ending}"

    def _write(self, path: Path, frames: Frames, document: dict[str, Any]) -> None:
        if self.is_video:
            assert self.plain.fps is not None
            write_mp4(path, frames, self.plain.fps, document)
        else:
            write_png(path, frames[0], document)

    def _metadata(self, rival: Rival, case: Case, made: Generation) -> dict[str, Any]:
        """All it takes to make the file again; no command of ours does with diffusers' caches."""
        assert rival.request is not None
        if rival.config is None:
            request = replace(rival.request, prompt=case.prompt)
            return metadata(request, case.seed, made, str(self.device), self.dtype)
        cache = repr(rival.config)
        return {"generator": f"spectrum {__version__}", **asdict(case), "diffusers_cache": cache}

    # -- pictures of all of it -------------------------------------------------------------------

    def _add_to_overviews(self, case: Case, frames: dict[str, Frames]) -> None:
        title = f"{case.prompt}   (seed {case.seed})"
        reference = frames[PLAIN]
        captions = {name: _caption(name, self.outcomes[-1][name]) for name in frames}
        middle = len(reference) // 2
        pairs = []
        for name, film in frames.items():
            pair = [film[middle : middle + 1], difference(film, reference)[middle : middle + 1]]
            pairs.append((captions[name], pair))
        self._sheets.append(contact(title, pairs))
        films = [(captions[name], film) for name, film in frames.items()]
        if self.is_video:
            self._strips.append(strip(title, films))
        if self.is_video and len(self._films) < _FILMED:
            self._films.append(contact(title, [(caption, [film]) for caption, film in films]))

    def _write_overviews(self, folder: Path, document: dict[str, Any]) -> None:
        about = {"generator": document["generator"], "comparison_of": document["model"]}
        write_png(folder / SHEET, stacked(self._sheets)[0], about)
        if self.is_video:
            assert self.plain.fps is not None
            write_png(folder / STRIP, stacked(self._strips)[0], about)
            write_mp4(folder / FILM, stacked(self._films), self.plain.fps, about)

    # -- figures ---------------------------------------------------------------------------------

    def document(self) -> dict[str, Any]:
        """All figures, the best method first. PSNR and gain are in dB, times in seconds."""
        request = self.plain
        frames, height, width = self._shape
        packages = ("spectrum-diffusion", "torch", "diffusers", "transformers", "torchmetrics")
        methods = [self._method(rival) for rival in self.rivals]
        methods.sort(key=lambda m: -m["psnr"]["mean"] if m["psnr"] else float("inf"))
        return {
            "schema": SCHEMA,
            "generator": f"spectrum {__version__}",
            "model": request.preset.name,
            "pipeline": request.pipeline,
            "scheduler": type(self.pipe.scheduler).__name__,
            "media": "video" if self.is_video else "image",
            "cases": [asdict(case) for case in self.cases],
            "negative_prompt": request.negative_prompt,
            "width": width,
            "height": height,
            "frames": frames,
            "fps": request.fps if self.is_video else None,
            "steps": request.steps,
            "guidance": request.guidance,
            "speedup": self.speedup,
            "plain": {"runs": [_run(outcomes[PLAIN]) for outcomes in self.outcomes]},
            "methods": methods,
            "difference_times": AMPLIFY,
            "files": [SHEET, *([STRIP, FILM] if self.is_video else []), RESULT, PAGE],
            "device": str(self.device),
            "machine": machine(self.device),
            "threads": torch.get_num_threads(),
            "dtype": self.dtype,
            "versions": {
                "python": platform.python_version(),
                **{package: version(package) for package in packages},
            },
        }

    def _method(self, rival: Rival) -> dict[str, Any]:
        """One rival's figures over all cases; all None where it could not be had."""
        mine = [outcomes[rival.name] for outcomes in self.outcomes if rival.name in outcomes]
        plain = [outcomes[PLAIN] for outcomes in self.outcomes]
        near = _likenesses(self.outcomes, rival.name)
        fewer = _likenesses(self.outcomes, FEWER_STEPS)
        found: dict[str, Any] = {
            "name": rival.name,
            "unavailable": rival.reason,
            "cache": repr(rival.config) if rival.config is not None else None,
            "steps": rival.request.steps if rival.request else None,
            "computed_steps": None, "speedup": None, "psnr": None, "ssim": None, "lpips": None,
            "gain": None, "runs": [],
        }  # fmt: skip
        if not mine:
            return found
        psnr, ssim = [one.psnr for one in near], [one.ssim for one in near]
        lpips = [one.lpips for one in near if one.lpips is not None]
        denoise = [a.denoise_seconds / b.denoise_seconds for a, b in zip(plain, mine, strict=True)]
        whole = [a.seconds / b.seconds for a, b in zip(plain, mine, strict=True)]
        found["computed_steps"] = asdict(spread([one.computed for one in mine]))
        found["speedup"] = {"denoise": asdict(spread(denoise)), "whole": asdict(spread(whole))}
        found["psnr"] = {**asdict(spread(psnr)), "worst": min(psnr)}
        found["ssim"] = {**asdict(spread(ssim)), "worst": min(ssim)}
        if lpips:
            found["lpips"] = {**asdict(spread(lpips)), "worst": max(lpips)}
        if fewer and rival.name != FEWER_STEPS:
            found["gain"] = asdict(
                spread([a.psnr - b.psnr for a, b in zip(near, fewer, strict=True)])
            )
        found["runs"] = [_run(one) for one in mine]
        return found


def machine(device: torch.device) -> str:
    """The name of the GPU, or of the processor."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _likenesses(outcomes: Sequence[dict[str, Outcome]], name: str) -> list[Likeness]:
    """Of one rival at all cases; empty where it is left out."""
    mine = [one[name].likeness for one in outcomes if name in one]
    return [near for near in mine if near is not None]


def _run(outcome: Outcome) -> dict[str, Any]:
    return {
        "file": outcome.file,
        "difference": outcome.difference,
        "computed_steps": outcome.computed,
        "seconds": {
            "encode": outcome.encode_seconds,
            "denoise": outcome.denoise_seconds,
            "decode": outcome.decode_seconds,
        },
        "likeness": asdict(outcome.likeness) if outcome.likeness else None,
        "notes": list(outcome.notes),
    }


def _caption(name: str, outcome: Outcome) -> str:
    near = outcome.likeness
    return f"{name}   {near.psnr:.1f} dB" if near else name


def _reason(rival: Rival, error: Exception) -> str:
    """Why a rival is left out. Raises the error where it is none that leaves a rival out."""
    reason = " ".join(str(error).split()) or type(error).__name__
    cached = rival.kind in ("taylorseer", "firstblock")
    if cached and isinstance(error, (NotForThisClass, ValueError)):
        return f"not for this class: {reason}"
    if isinstance(error, SpectrumError):
        return reason
    if cached or (rival.request is not None and rival.request.scheduler):  # code of others
        return f"failed: {type(error).__name__}: {reason}"
    raise error
