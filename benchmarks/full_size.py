"""Speed of the denoising loop at full size, against the published method and diffusers' caches.

    python benchmarks/full_size.py                            # on a large GPU; again to go on
    python benchmarks/full_size.py --models flux.1-dev sdxl --minutes 10
    python benchmarks/full_size.py --scale small              # ratios on a CPU, in minutes

The real pipelines of five models sample with random weights (`big_models`). Contenders run in
pairs: a few plain steps, all of which cost the same, before and after each run. Its whole call of
the pipeline is set against as many plain steps; the ideal is steps over computed steps. Of several
pairs the median counts. On a GPU the device's events tell the time. On a CPU it is processor time,
so that others on the machine count less: good for ratios.

full_size.json in --out is written after every pair, with full_size.md, the table; what is there for
the same device, versions and options is not run again.
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import sys
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import date
from importlib.metadata import version
from pathlib import Path
from statistics import fmean, median
from typing import Any, get_args

import diffusers
import torch
from big_models import SEED, Model, Scale, build, configs
from full_size_table import Row, table

from spectrum.compare.caches import Calls, cached, check_class, taylorseer_config
from spectrum.engine import SpectralCache
from spectrum.errors import SpectrumError
from spectrum.pipeline.loading import choose_device
from spectrum.pipeline.preset import Dtype
from spectrum.schedule import ExplicitSchedule, WindowSchedule
from spectrum.timeline import Timeline

ALPHAS = (0.75, 3.0)  # growth of the published windows: 14 and 10 of 50 steps are computed


@dataclass(frozen=True)
class Contender:
    """A way to sample that computes `steps`; by default the plain one."""

    name: str
    steps: tuple[int, ...]
    arguments: dict[str, Any] | None = None  # of SpectralCache
    cache: str | None = None  # of diffusers


def contenders(num_steps: int) -> list[Contender]:
    """The published method with two schedules, ours with as many computed steps as each, and
    diffusers' caches with as many as the first."""
    found: dict[str, Contender] = {}
    for alpha in ALPHAS:
        schedule = WindowSchedule(alpha=alpha)
        steps = tuple(schedule.computed_steps(Timeline.flow(num_steps)))
        ours = f"spectrum, {len(steps)} computed"
        found[ours] = Contender(ours, steps, {"speedup": num_steps / len(steps)})
        published = f"published, α = {alpha:g}"
        arguments = {"method": "published", "schedule": schedule}
        found[published] = Contender(published, steps, arguments)
        if alpha == ALPHAS[0]:
            found |= {
                name: Contender(name, steps, cache=name)
                for name in ("TaylorSeer", "FirstBlockCache", "MagCache")
            }
    return list(found.values())


# -- the clock -----------------------------------------------------------------------------------


@dataclass
class Clock:
    """Marks the beginning of a run, the end of each step, and the end of all."""

    device: torch.device
    marks: list[Any] = field(default_factory=list)
    calls: Calls | None = None  # of the last block, under a cache of diffusers
    counts: list[int] = field(default_factory=list)  # of these at the end of each step

    def mark(self) -> None:
        if self.device.type == "cpu":
            self.marks.append(time.process_time())
        else:
            event = torch.Event(self.device, enable_timing=True)
            event.record()
            self.marks.append(event)

    def step_ended(self, *_: Any) -> dict[str, Any]:
        """The pipeline's callback."""
        self.mark()
        self.counts.append(self.calls.count if self.calls else 0)
        return {}

    @property
    def now(self) -> int:
        """The step under way."""
        return len(self.counts)

    def seconds(self) -> list[float]:
        """Between marks; the first has the pipeline's preparations in it."""
        if self.device.type == "cpu":
            return [b - a for a, b in zip(self.marks, self.marks[1:], strict=False)]
        self.marks[-1].synchronize()
        return [a.elapsed_time(b) / 1000 for a, b in zip(self.marks, self.marks[1:], strict=False)]


@dataclass(frozen=True)
class BySteps:
    """In the place of FirstBlockCache's threshold: the step decides, not the measured difference,
    which means nothing with random weights. What measuring costs is paid all the same."""

    steps: tuple[int, ...]
    clock: Clock

    def __lt__(self, difference: float) -> bool:
        return self.clock.now in self.steps


# -- one run -------------------------------------------------------------------------------------


def sample(model: Model, num_steps: int, clock: Clock) -> None:
    """Raises SpectrumError where the latents are no numbers."""
    if clock.device.type == "cuda":
        torch.cuda.synchronize(clock.device)
        torch.cuda.reset_peak_memory_stats(clock.device)
    clock.mark()
    latents = model.pipe(
        **model.arguments, num_inference_steps=num_steps, output_type="latent", return_dict=False,
        generator=torch.Generator().manual_seed(SEED), callback_on_step_end=clock.step_ended,
    )[0]  # fmt: skip
    clock.mark()
    if not torch.isfinite(latents).all():
        raise SpectrumError("the latents are not finite")


def run(model: Model, contender: Contender, num_steps: int, device: torch.device) -> Row:
    """Sample once, and what that took."""
    clock, stored = Clock(device), None
    if contender.arguments is not None:
        with SpectralCache(model.pipe, **contender.arguments) as cache:
            sample(model, num_steps, clock)
        computed, stored = cache.report.computed_steps, cache.report.stored_bytes
    elif contender.cache is not None:
        with _diffusers(model, contender, num_steps, clock) as calls:
            clock.calls = calls
            sample(model, num_steps, clock)
        before = [0, *clock.counts]
        computed = [n for n, count in enumerate(clock.counts) if count > before[n]]
    else:
        sample(model, num_steps, clock)
        computed = list(range(num_steps))
    return _figures(clock, num_steps, computed, stored)


def _figures(clock: Clock, num_steps: int, computed: Sequence[int], stored: int | None) -> Row:
    seconds = clock.seconds()
    forecast = [seconds[n] for n in range(num_steps) if n not in computed]
    peak = None
    if clock.device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(clock.device)
    return {
        "computed_steps": list(computed),
        "seconds": sum(seconds),
        "computed_step_seconds": median(seconds[n] for n in computed if n > 0),
        "forecast_step_seconds": median(forecast) if forecast else None,
        "peak_bytes": peak,
        "stored_bytes": stored,
    }


def _diffusers(
    model: Model, contender: Contender, num_steps: int, clock: Clock
) -> AbstractContextManager[Calls]:
    """diffusers' cache, made to compute the contender's steps; TaylorSeer, as many of its own."""
    steps = contender.steps
    check_class(model.pipe, "taylorseer" if contender.cache == "TaylorSeer" else "firstblock")
    if contender.cache == "TaylorSeer":
        config = taylorseer_config(num_steps, 0, len(steps))
    elif contender.cache == "FirstBlockCache":
        config = diffusers.FirstBlockCacheConfig(threshold=BySteps(steps, clock))
    else:  # skips while the product of ratios is 1, up to the limit
        ratios = [1e6 if n in steps else 1.0 for n in range(num_steps)]
        config = diffusers.MagCacheConfig(
            threshold=0.5, max_skip_steps=num_steps, retention_ratio=0.0,
            num_inference_steps=num_steps, mag_ratios=ratios,
        )  # fmt: skip
    return cached(model.pipe, config)


# -- pairs of them ---------------------------------------------------------------------------------


def pair(model: Model, contender: Contender, options: argparse.Namespace) -> Row:
    """The contender's run between two plain ones, as machines get hotter or busier; or the reason
    why there is none."""
    around = []
    try:
        around.append(run(model, Contender("plain", ()), options.plain_steps, options.device))
        made = run(model, contender, options.steps, options.device)
        around.append(run(model, Contender("plain", ()), options.plain_steps, options.device))
    except torch.OutOfMemoryError:
        return {"reason": "out of memory"}
    except (SpectrumError, ValueError, AttributeError, TypeError) as error:
        if contender.cache is None:
            raise
        return {"reason": " ".join(str(error).split())}
    return {"plain_step_seconds": fmean(r["computed_step_seconds"] for r in around), **made}


def warm_up(model: Model, device: torch.device) -> None:
    """Kernels are chosen, blocks and heads are found; two steps of each, left out."""
    sample(model, 2, Clock(device))
    first = {"schedule": ExplicitSchedule((0,)), "target": "feature"}
    with SpectralCache(model.pipe, **first):
        sample(model, 2, Clock(device))


def _tidy(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def asked(name: str, options: argparse.Namespace) -> list[Row]:
    """The rows of a model, all contenders once before any of them twice."""
    kind = {"model": name, "scale": options.scale, "steps": options.steps, "on": options.on}
    return [
        {**kind, "contender": contender.name, "pair": pair}
        for pair in range(options.pairs)
        for contender in contenders(options.steps)
    ]


def conditions(device: torch.device, dtype: str) -> str:
    """What figures can be compared on."""
    threads = torch.get_num_threads()
    name = f"CPU ({platform.machine()}), {threads} thread{'s' * (threads > 1)}"
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    return f"{name}, {dtype}, torch {torch.__version__}, diffusers {version('diffusers')}"


# -- in and out ---------------------------------------------------------------------------------


def save(rows: Sequence[Row], folder: Path) -> None:
    """Whole or not at all."""
    for name, text in (
        ("full_size.json", json.dumps(rows, ensure_ascii=False, indent=1)),
        ("full_size.md", "\n".join(table(rows))),
    ):
        partial = folder / f".{name}.partial"
        partial.write_text(text.rstrip() + "\n", encoding="utf-8")
        partial.replace(folder / name)


def key(row: Row) -> tuple[Any, ...]:
    return tuple(row[name] for name in ("model", "scale", "steps", "on", "contender", "pair"))


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=configs(), default=list(configs()))
    parser.add_argument("--scale", choices=get_args(Scale), default="full")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument(
        "--plain-steps", type=int, default=4, help="before and after each; the first left out"
    )
    parser.add_argument("--pairs", type=int, default=1, help="of each contender, in all")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="then start no more")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", choices=get_args(Dtype), default="bfloat16")
    parser.add_argument("--out", type=Path, default=Path("outputs/full_size"))
    options = parser.parse_args(arguments)
    options.device = choose_device(options.device)
    options.on = conditions(options.device, options.dtype)
    options.until = time.monotonic() + 60 * options.minutes
    return options


def measure(name: str, rows: list[Row], options: argparse.Namespace) -> None:
    """Run what the rows of a model lack, and add it to them."""
    done = {key(row) for row in rows}
    todo = [row for row in asked(name, options) if key(row) not in done]
    if not todo or time.monotonic() > options.until:
        return
    try:
        model = build(name, options.scale, options.device, getattr(torch, options.dtype))
    except torch.OutOfMemoryError:
        print(f"{name}: too large for {options.on}", file=sys.stderr)
        return
    everyone = {contender.name: contender for contender in contenders(options.steps)}
    warm_up(model, options.device)
    for row in todo:
        if time.monotonic() > options.until:
            return
        made = pair(model, everyone[row["contender"]], options)
        rows.append(row | made | {"date": date.today().isoformat()})
        save(rows, options.out)
        took = f"{made['seconds']:.2f} s" if "seconds" in made else made["reason"]
        print(f"{name}, {row['contender']}: {took}", file=sys.stderr, flush=True)
        _tidy(options.device)


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    file = options.out / "full_size.json"
    rows: list[Row] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else []
    for name in options.models:
        measure(name, rows, options)
        _tidy(options.device)
    print("\n".join(table(rows)))


if __name__ == "__main__":
    main()
