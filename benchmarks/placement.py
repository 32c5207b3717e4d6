"""How far planned steps are from those that others published or found by search on real models.

    python benchmarks/placement.py

The schedules are in `real_schedules.json`, each with its source. The plans are those of
`spectrum plan` at the preset's own size. The distance of two schedules with as many computed steps
is the mean of |difference| of their steps, matched in order. No plan can be nearer than the median
of all schedules of that model and number of computed steps, which themselves are far apart.

Few were searched for, by their names, for the PSNR or LPIPS of the picture that comes out, and not
for a hidden residual: they come once more by themselves, with plans of other S for 64 positions.

All those schedules compute the run's last step: the searches begin and end with computed steps. A
plan of ours need not, as x₀ is forecast well there. So it is measured once more with its last step
computed and the others placed as well as can be; `quality.py` has it as `spectrum-to-the-end`.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations, compress
from typing import Any

from contenders import OURS, PUBLISHED, SCHEDULES, ToTheEnd
from tables import header, row

from spectrum.pipeline.catalog import find_preset
from spectrum.pipeline.request import resolve
from spectrum.plan import Plan
from spectrum.schedule import LeastError
from spectrum.timeline import UNIT_SCALE

PRESETS = {
    "FLUX.1-dev": "flux.1-dev",
    "FLUX.2-dev": "flux.2-dev",
    "FLUX.2-klein-base": "flux.2-klein-base",
    "Wan2.1 t2v 1.3B": "wan2.1-1.3b",
}
METHODS = (OURS, PUBLISHED, "even")
BY_PICTURE = ("psnr", "lpips")
SCALES = (2.0, 3.0, 4.0, 6.0, 8.0, 11.3, 16.0, 22.6)


def planned(preset: str, steps: int, count: int, method: str) -> Plan:
    request = resolve(
        find_preset(preset), "plan", steps=steps, speedup=steps / count, method=method
    )
    return request.plan


def distance(ours: Sequence[float], theirs: Sequence[float]) -> float:
    pairs = zip(sorted(ours), sorted(theirs), strict=True)
    return statistics.fmean(abs(a - b) for a, b in pairs)


def middle(schedules: Sequence[Sequence[int]]) -> list[float]:
    """The steps with the least mean distance from these."""
    return [statistics.median(steps) for steps in zip(*schedules, strict=True)]


def by_scale(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Mean distances of plans with S for 64 positions, from all and from those by the picture."""
    found = [[_at_scale(real, scale) for scale in SCALES] for real in rows]
    by_picture = [any(name in real["method"] for name in BY_PICTURE) for real in rows]
    searched = list(compress(found, by_picture))
    lines = header(["S for 64 positions", *(f"{scale:g}" for scale in SCALES)])
    for name, some in (("all", found), (f"{len(searched)} searched by the picture", searched)):
        lines.append(row([name, *(f"{statistics.fmean(c):.1f}" for c in zip(*some, strict=True))]))
    return lines


def _at_scale(real: dict[str, Any], scale: float) -> float:
    count = len(real["steps"])
    usual = planned(PRESETS[real["model"]], real["of"], count, OURS).timeline
    timeline = replace(usual, scale=usual.scale * scale / UNIT_SCALE)
    return distance(LeastError(count).computed_steps(timeline), real["steps"])


def main() -> None:
    rows = json.loads(SCHEDULES.read_text(encoding="utf-8"))
    alike: dict[tuple[str, int], list[list[int]]] = {}
    for real in rows:
        alike.setdefault((real["model"], len(real["steps"])), []).append(sorted(real["steps"]))
    apart = [distance(*pair) for several in alike.values() for pair in combinations(several, 2)]
    distances: dict[str, list[list[float]]] = {model: [] for model in PRESETS}
    for real in rows:
        preset, steps = PRESETS[real["model"]], real["steps"]
        count = len(steps)
        ours, *others = [planned(preset, real["of"], count, method) for method in METHODS]
        plans: list[Sequence[float]] = [ours.computed_steps]
        plans.append(ToTheEnd(count).computed_steps(ours.timeline))
        plans += [other.computed_steps for other in others]
        plans.append(middle(alike[real["model"], count]))
        distances[real["model"]].append([distance(plan, steps) for plan in plans])
    names = [f"`{OURS}`", "the same, last step computed", f"`{PUBLISHED}`", "`even`"]
    lines = header(["", "schedules", *names, "their median"])
    for model, found in distances.items():
        means = [f"{statistics.fmean(column):.1f}" for column in zip(*found, strict=True)]
        lines.append(row([model, str(len(found)), *means]))
    everything = [values for found in distances.values() for values in found]
    means = [f"{statistics.fmean(column):.1f}" for column in zip(*everything, strict=True)]
    lines.append(row(["*all schedules*", str(len(everything)), *means]))
    print("Mean distance, in steps, from schedules of real models:\n\n" + "\n".join(lines))
    print("\n" + "\n".join(by_scale(rows)))
    print(f"\nTwo of them of the same model and count: {statistics.fmean(apart):.1f}")


if __name__ == "__main__":
    main()
