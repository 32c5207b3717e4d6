"""Who takes part at a number of computed steps, and how each of them is run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from matching import matched, solver
from models import Model
from torch import Tensor

from spectrum.compare.caches import (
    CACHES,
    cached,
    check_class,
    firstblock_threshold,
    taylorseer_config,
)
from spectrum.compare.rivals import FEWER_STEPS
from spectrum.engine import SpectralCache
from spectrum.forecast import Extrapolation, Hold
from spectrum.methods import DEFAULT_METHOD, get_method
from spectrum.schedule import ExplicitSchedule, LeastError
from spectrum.timeline import Timeline

OURS = "spectrum"
TO_THE_END = f"{OURS}-to-the-end"
PUBLISHED = "published"
METHODS = ("even", "hold", "taylor1", "taylor2")
SOLVERS = {
    "unipc": "UniPCMultistepScheduler",
    "dpm++": "DPMSolverMultistepScheduler",
    "euler": "EulerDiscreteScheduler",
}
DISTINCT = 4  # schedules found by search, for one number of computed steps
SCHEDULES = Path(__file__).parent / "real_schedules.json"


@dataclass(frozen=True)
class Contender:
    """One way to sample: under a SpectralCache, by fewer steps, or under diffusers' caches."""

    name: str
    cache: dict[str, Any] = field(default_factory=dict)  # arguments of SpectralCache
    fewer_steps: bool = False
    solver: str | None = None
    diffusers: str | None = None


@dataclass(frozen=True)
class ToTheEnd:
    """As `LeastError`, but that the last step is one of the computed, as where others search."""

    count: int

    def computed_steps(self, timeline: Timeline) -> list[int]:
        last = timeline.num_steps - 1
        before = LeastError(self.count - 1).computed_steps(replace(timeline, goes_on=True))
        return [*before, last]


def candidate(scale: float) -> dict[str, Any]:
    """SpectralCache's arguments for the default method, with this S of 64 positions."""
    return {"method": replace(get_method(DEFAULT_METHOD), scale=scale)}


def _on_published_steps(scale: float, steps: int, count: int) -> dict[str, Any]:
    """The default method with the published planner: what is left is the forecast's share."""
    method = replace(get_method(DEFAULT_METHOD), scale=scale)
    return {
        "method": replace(method, planner=get_method(PUBLISHED).planner),
        "speedup": steps / count,
    }


def contenders(
    model: Model, steps: int, count: int, scales: Sequence[float], feature_lines: bool, slow: bool
) -> list[Contender]:
    """All that fit the model; `slow` are diffusers' own caches."""
    speedup = {"speedup": steps / count}
    own = model.unit_scale  # as `spectrum gen` has it
    found = [Contender(OURS, candidate(own) | speedup)]
    found += [Contender(f"{OURS}@{scale:g}", candidate(scale) | speedup) for scale in scales]
    found.append(Contender(TO_THE_END, candidate(own) | {"schedule": ToTheEnd(count)}))
    found += _fewer_steps(model)
    found += [Contender(name, {"method": name} | speedup) for name in (PUBLISHED, *METHODS)]
    found.append(Contender(f"{PUBLISHED}:0.5", {"method": PUBLISHED, "blend": 0.5} | speedup))
    line = {"forecaster": Extrapolation(1), "method": PUBLISHED} | speedup
    found.append(Contender(f"{PUBLISHED}-steps:line", {**line, "target": "denoised"}))
    found.append(Contender(f"{PUBLISHED}-steps:feature-line", {**line, "target": "feature"}))
    found.append(Contender(f"{PUBLISHED}-steps:{OURS}", _on_published_steps(own, steps, count)))
    for name, plan in found_schedules(steps, count).items():
        schedule = {"schedule": ExplicitSchedule(plan)}
        straight = {"forecaster": Extrapolation(1), **schedule}
        held = {"forecaster": Hold(), "target": "feature", **schedule}
        found.append(Contender(f"{name}:hold", held))
        found.append(Contender(f"{name}:line", {**straight, "target": "denoised"}))
        if feature_lines:
            found.append(Contender(f"{name}:feature-line", {**straight, "target": "feature"}))
    if slow:
        found += [Contender(name, diffusers=kind) for name, kind in CACHES.items()]
    return found


def _fewer_steps(model: Model) -> list[Contender]:
    own = type(model.scheduler).__name__.replace("FlowMatch", "")
    found = [Contender(FEWER_STEPS, fewer_steps=True)]
    for name, cls in SOLVERS.items():
        if cls != own:
            found.append(Contender(f"{FEWER_STEPS}:{name}", fewer_steps=True, solver=name))
    return found


def found_schedules(steps: int, count: int) -> dict[str, tuple[int, ...]]:
    """Those that others found by search for real models, by name; a few of each model.

    Searches for the least error come first, as that is what is measured here.
    """
    rows = [
        row
        for row in json.loads(SCHEDULES.read_text(encoding="utf-8"))
        if row["of"] == steps and len(row["steps"]) == count
    ]
    places: dict[str, int] = {}
    for row in rows:
        row["place"] = places[row["model"]] = places.get(row["model"], -1) + 1
    rows.sort(key=lambda row: ("psnr" not in row["method"], row["place"]))
    found: dict[str, tuple[int, ...]] = {}
    for row in rows:
        plan = tuple(row["steps"])
        if plan not in found.values() and len(found) < DISTINCT:
            found[f"{row['model']} {_short(row['method'])} {count}"] = plan
    return found


def _short(method: str) -> str:
    """LeMiCa of "LeMiCa: lexicographic ...", dpcache of "GPH frozen table: dpcache"."""
    name, _, rest = method.partition(": ")
    return rest if name.startswith("GPH") else name


def run(
    model: Model, contender: Contender, match: float, steps: int, count: int
) -> tuple[Tensor, float]:
    """The pictures, and how many steps were computed.

    Raises SpectrumError or ValueError where the model or the number of steps can't be had so.
    """
    other = contender.solver and solver(model.scheduler, contender.solver)
    model.pipe.scheduler = matched(other or model.scheduler, match)
    if contender.diffusers:
        return _cached_by_diffusers(model, contender.diffusers, steps, count)
    if contender.fewer_steps:
        return model.sample(count), count
    with SpectralCache(model.pipe, **contender.cache) as cache:
        made = model.sample(steps)
    counts = [len(report.computed_steps) for report in cache.reports]
    return made, sum(counts) / len(counts)


def sample_plainly(model: Model, match: float, steps: int) -> Tensor:
    """What all contenders are measured against."""
    model.pipe.scheduler = matched(model.scheduler, match)
    return model.sample(steps)


def _cached_by_diffusers(model: Model, kind: Any, steps: int, count: int) -> tuple[Tensor, float]:
    """TaylorSeer by its interval, first-block by the threshold that computes `count` or a bit more:
    it decides for all prompts of a batch at once."""
    from diffusers import FirstBlockCacheConfig

    check_class(model.pipe, kind)
    if kind == "taylorseer":
        return _under(model, taylorseer_config(steps, 0, count), steps)
    made: dict[float, tuple[Tensor, float]] = {}

    def computed(threshold: float) -> float:
        made[threshold] = _under(model, FirstBlockCacheConfig(threshold), steps)
        return made[threshold][1]

    threshold = firstblock_threshold(computed, count)
    if threshold not in made:
        raise ValueError(f"no threshold computes {count} steps")
    return made[threshold]


def _under(model: Model, config: Any, steps: int) -> tuple[Tensor, float]:
    """Under a cache of diffusers; Spectrum computes every step and counts the calls."""
    with cached(model.pipe, config) as calls, SpectralCache(model.pipe, 1.0) as cache:
        made = model.sample(steps)
    whole = sum(step.calls for report in cache.reports for step in report.steps)
    return made, calls.count * steps / whole
