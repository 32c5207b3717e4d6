"""`spectrum tune`: the steps, the length and the trust that suit a model, as a preset."""

from __future__ import annotations

import hashlib
import platform
import sys
import textwrap
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spectrum.errors import SpectrumError, UsageError
from spectrum_cli import machine, options
from spectrum_cli.loaded import Loaded, find_model
from spectrum_cli.output import console, emit, emit_json, error, human_seconds, say

if TYPE_CHECKING:
    import torch
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.live import Live

    from spectrum.compare.metrics import Spread
    from spectrum.compare.plot import Chart
    from spectrum.pipeline.loading import Options
    from spectrum.pipeline.preset import Preset
    from spectrum.pipeline.request import Request
    from spectrum.report import Report, Step
    from spectrum.tune.tuning import Bench, Case, Estimate, Found

SEEDS_OF_EXAMPLE = 8
SPEEDUPS = "2.5,3.5,4.5,6"
EVERY = 30.0  # seconds between lines where there is no terminal


def tune(
    model: options.ModelArgument = "demo-image",
    prompts: options.Prompts = None,
    speedups: options.Speedups = SPEEDUPS,
    steps: options.Steps = None,
    minutes: options.Minutes = None,
    output: options.OutputPreset = None,
    force: options.Force = False,
    seed: options.FirstSeed = 0,
    width: options.Width = None,
    height: options.Height = None,
    frames: options.Frames = None,
    guidance: options.Guidance = None,
    image: options.Image = None,
    weights: machine.Weights = None,
    device: machine.Device = "auto",
    dtype: machine.Dtype = None,
    offload: machine.Offload = "none",
    quantize: machine.Quantize = None,
    vae_tiling: machine.VaeTiling = None,
    compile: machine.Compile = False,
    attention: machine.Attention = None,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    """Find by real runs which steps of a model to compute, and write them as a preset.

    Without --prompts it runs the model's example, with 8 seeds. All runs are kept in a folder
    beside the preset: the same command goes on after an interrupt.
    """
    preset = find_model(model, quiet)
    target = _target(preset, output, force)
    cases = _cases(preset, prompts, seed)
    asked = _speedups(speedups)
    request = _request(preset, cases[0], steps, width, height, frames, guidance, image)
    from spectrum.compare.plot import NO_PICTURE, can_draw, text_chart, write_chart
    from spectrum.tune.tuning import (
        Bench,
        default_choice,
        preset_text,
        tune,
        tuned_yaml,
        write_preset,
    )
    from spectrum_cli.noise import silence

    source = preset_text(preset)  # before the search: it may be edited meanwhile
    for speedup in asked:
        default_choice(request, speedup)
    layout = machine.options(
        preset, weights, dtype, offload, quantize, vae_tiling, compile, attention
    )
    loaded = Loaded(request, device, layout, quiet)
    settings = _settings(request, layout, loaded.device)
    silence(quiet)
    picture = target.with_suffix(".png") if can_draw() else None
    if picture is None and not quiet:
        say(f"note: {NO_PICTURE}")
    watch = _watch(f"tune {preset.name}, {len(cases)} prompts", quiet)
    try:
        with watch:
            bench = Bench(
                lambda: loaded.pipe,
                request, cases, target.with_suffix(".tune"), settings, watch, restart=force,
            )  # fmt: skip
            found = tune(bench, asked, minutes)
    except KeyboardInterrupt:
        error("interrupted; all finished runs are kept, and the same command goes on from there")
        raise SystemExit(130) from None
    document = _document(target, picture, request, cases, settings, bench, found)
    write_preset(target, tuned_yaml(preset, found, _record(document, bench), source))
    chart = _chart(request, found)
    if picture is not None:
        write_chart(picture, chart)
    if as_json:
        emit_json(document)
        return
    for line in _table(found):
        emit(line)
    emit("")
    emit(text_chart(chart, encoding=sys.stdout.encoding or "ascii"))
    emit("")
    emit(str(target))
    if not quiet:
        runs, seconds = bench.recorded, human_seconds(bench.recorded_seconds)
        say(f"{runs} runs in {seconds}, {bench.runs_done} of them now; all in {bench.folder}/")
        written = f"{target} and {picture.name}" if picture else str(target)
        say(f"wrote {written}; use it by --model {target}")


# -- what is asked -------------------------------------------------------------------------------


def _target(preset: Preset, output: Path | None, force: bool) -> Path:
    target = output or Path(f"{preset.name}-tuned.yaml")
    if target.suffix not in (".yaml", ".yml"):
        raise UsageError(f"{target}: a preset is a .yaml; try -o {target.with_suffix('.yaml')}")
    if not target.parent.is_dir():
        folder = target.parent
        raise SpectrumError(f"{folder}: no such folder; create it with `mkdir -p '{folder}'`")
    for path in (target, target.with_suffix(".png")):
        if path.exists() and not force:
            raise UsageError(f"{path} exists already; --force overwrites it, or choose another -o")
    return target


def _cases(preset: Preset, prompts: Path | None, seed: int) -> list[Case]:
    """Consecutive seeds, over the prompts of the file or the preset's example."""
    from spectrum.tune.tuning import Case

    if prompts is None:
        return [Case(preset.example, seed + k) for k in range(SEEDS_OF_EXAMPLE)]
    try:
        lines = prompts.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as problem:
        raise UsageError(f"{prompts}: can't be read; give a text file, a prompt a line") from (
            problem
        )
    texts = [line.strip() for line in lines if line.strip()]
    if not texts:
        raise UsageError(f"{prompts}: no prompt in it; write one a line")
    return [Case(text, seed + k) for k, text in enumerate(texts)]


def _speedups(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(
            f"--speedups are numbers with commas between them, such as {SPEEDUPS}, not {text!r}"
        ) from None


def _request(
    preset: Preset,
    case: Case,
    steps: int | None,
    width: int | None,
    height: int | None,
    frames: int | None,
    guidance: float | None,
    image: Path | None,
) -> Request:
    from spectrum.pipeline.request import resolve
    from spectrum.tune.tuning import untuned

    if preset.distilled:
        raise UsageError(
            f"{preset.name} is made for {preset.steps} steps, so there is nothing to skip and"
            " nothing to tune; take a model of many steps"
        )
    if image is not None and preset.image == "none":
        raise UsageError(f"{preset.name} makes pictures from prompts alone; leave --image")
    return resolve(
        untuned(preset), case.prompt, steps=steps, width=width, height=height, frames=frames,
        guidance=guidance, image=image, speedup=1.0,
    )  # fmt: skip


def _settings(request: Request, options: Options, device: torch.device) -> dict[str, Any]:
    """All that a run's pictures depend on, but for prompt and seed."""
    from spectrum.pipeline.weights import weights_folder
    from spectrum.tune.tuning import weights_mark

    preset, folder = request.preset, weights_folder(request.preset, options.weights)
    picture = request.image_path
    return {
        "model": preset.name,
        "pipeline": request.pipeline,
        "weights": str(folder.resolve()) if folder else preset.weights,
        "weights_mark": weights_mark(folder) if folder else None,
        "steps": request.steps,
        "guidance": request.guidance,
        "negative_prompt": request.negative_prompt,
        "width": request.width,
        "height": request.height,
        "frames": request.frames,
        "image": hashlib.sha256(picture.read_bytes()).hexdigest() if picture else None,
        "scheduler": preset.scheduler.model_dump() if preset.scheduler else None,
        "call": preset.call,
        "dtype": options.dtype,
        **options.pixels,
        "device": _device_name(device),
        "versions": _versions(),
    }


def _device_name(device: torch.device) -> str:
    import torch

    if device.type == "cuda":
        return f"{device.type} ({torch.cuda.get_device_name(device)})"
    return f"{device.type} ({platform.machine()})"


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    from spectrum import __version__

    return {
        "spectrum": __version__,
        **{name: version(name) for name in ("torch", "diffusers", "transformers")},
    }


# -- what comes out ------------------------------------------------------------------------------


def _document(
    target: Path,
    picture: Path | None,
    request: Request,
    cases: Sequence[Case],
    settings: dict[str, Any],
    bench: Bench,
    found: Sequence[Found],
) -> dict[str, Any]:
    """The object that --json prints. PSNR in dB, one a prompt; gains prompt by prompt.

    All are of the check, with seeds that the search did not see, but for `search_gain`.
    """
    from spectrum.pipeline.preset import trust_word

    return {
        "output": str(target),
        "plot": str(picture) if picture else None,
        "model": request.preset.name,
        "date": date.today().isoformat(),
        "settings": settings,
        "prompts": [{"prompt": case.prompt, "seed": case.seed} for case in cases],
        "check_seeds": [bench.cases[k].seed for k in bench.checked],
        "runs": bench.recorded,
        "runs_now": bench.runs_done,
        "seconds": bench.recorded_seconds,
        "results": [
            {
                "computed": one.count,
                "speedup": one.speedup,
                "steps": list(one.best.steps),
                "length": one.best.length,
                "trust": trust_word(one.best.trust),
                "better_than_default": one.better,
                "candidates": one.candidates,
                "search_gain": _spread_of(one.search_gain),
                "default_steps": list(one.default.steps),
                "psnr": {
                    name: {**_spread(values), "each": list(values)}
                    for name, values in _lines(one).items()
                },
                "gain_over_default": _spread_of(one.gain),
                "gain_over_fewer_steps": _spread_of(one.gain_over_fewer),
            }
            for one in found
        ],
    }


def _lines(one: Found) -> dict[str, tuple[float, ...]]:
    return {
        "tuned": one.tuned_psnr,
        "default": one.default_psnr,
        "fewer_steps": one.fewer_psnr,
    }


def _spread(values: Sequence[float]) -> dict[str, float | None]:
    from spectrum.compare.metrics import spread

    return _spread_of(spread(values))


def _spread_of(spread: Spread) -> dict[str, float | None]:
    return {"mean": spread.mean, "standard_error": spread.error}


def _record(document: dict[str, Any], bench: Bench) -> list[str]:
    """What the preset says of its making."""
    settings = document["settings"]
    versions = ", ".join(f"{name} {version}" for name, version in settings["versions"].items())
    size = f"{settings['width']}×{settings['height']}, " if settings["width"] else ""
    length = f"{settings['frames']} frames, " if settings["frames"] > 1 else ""
    guidance = "" if settings["guidance"] is None else f", guidance {settings['guidance']:g}"
    text = (
        f"Tuned by `spectrum tune` on {document['date']}: {versions}; {settings['device']},"
        f" {settings['dtype']}; {size}{length}{settings['steps']} steps{guidance};"
        f" {document['runs']} runs in {human_seconds(document['seconds'])}. Gains are paired means"
        " ± standard errors of PSNR in a check: the same prompts with other seeds than the search"
        " saw. Prompts, with the seeds of search and check:"
    )
    searched, checked = ([bench.cases[k] for k in part] for part in (bench.searched, bench.checked))
    if len({case.prompt for case in searched}) == 1:
        seeds = " and ".join(f"{part[0].seed} to {part[-1].seed}" for part in (searched, checked))
        shown = [f"{seeds}: {searched[0].prompt}"]
    else:
        pairs = zip(searched, checked, strict=True)
        shown = [f"{one.seed}, {other.seed}: {one.prompt}" for one, other in pairs]
    return [*textwrap.wrap(text, 96), *(f"  {line}" for line in shown)]


def _chart(request: Request, found: Sequence[Found]) -> Chart:
    from spectrum.compare.metrics import spread
    from spectrum.compare.plot import Chart

    names = {"tuned": "tuned", "default": "default", "fewer_steps": "fewer steps"}
    series = {
        shown: [
            (one.speedup, spread(_lines(one)[name]).mean, spread(_lines(one)[name]).error)
            for one in found
        ]
        for name, shown in names.items()
    }
    prompts = len(found[0].tuned_psnr)
    return Chart(
        f"{request.preset.name}, {request.steps} steps, {prompts} prompts",
        "speedup (steps over computed steps)",
        "PSNR against the plain run, dB",
        series,
    )


def _table(found: Sequence[Found]) -> list[str]:
    """Columns: steps, PSNR in dB, and the gain prompt by prompt."""
    from spectrum.compare.metrics import spread
    from spectrum.tune.tuning import spread_text

    rows: list[tuple[str, ...]] = [
        ("computed", "speedup", "tuned", "default", "fewer steps", "gain over the default")
    ]
    for one in found:
        quality = [spread_text(spread(values), "") for values in _lines(one).values()]
        gain = spread_text(one.gain) if one.better else "none: the default stays"
        rows.append((f"{one.count} of {one.num_steps}", f"{one.speedup:.2f}×", *quality, gain))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


# -- progress ------------------------------------------------------------------------------------


def _watch(title: str, quiet: bool) -> Any:
    """Made here, as its base needs torch, which `--help` does not."""
    from rich.text import Text

    from spectrum.tune.tuning import Watch

    class Display(Watch):
        """Phase, runs and time, redrawn in place on a terminal; plain lines where there is none."""

        def __init__(self) -> None:
            self.text = "load"
            self.limit = self.seconds = 0.0
            self.runs = 0
            self.report: Report | None = None
            self.said = time.monotonic()
            self.live: Live | None = None

        def __enter__(self) -> Display:
            if not quiet and console().is_terminal and not console().is_dumb_terminal:
                from rich.live import Live

                self.live = Live(self, console=console(), refresh_per_second=4, transient=True)
                self.live.start()
            return self

        def __exit__(self, *_: object) -> None:
            if self.live is not None:
                self.live.stop()

        def estimated(self, estimate: Estimate, limit: float) -> None:
            self.limit = limit
            if not quiet:
                say(
                    f"a computed step takes {human_seconds(estimate.step_seconds)}; the full search"
                    f" is about {estimate.runs} runs, {human_seconds(estimate.seconds)}; it ends"
                    f" after {human_seconds(limit)} at the latest (--minutes)"
                )

        def phase(self, text: str) -> None:
            self.text = text
            self._line()

        def ran(self, bench: Bench) -> None:
            self.seconds, self.runs = bench.seconds, len(bench.asked)
            if time.monotonic() - self.said > EVERY:
                self._line()

        def _line(self) -> None:
            self.said = time.monotonic()
            if not quiet and self.live is None:
                say(f"{self.text}; {self.runs} runs, {human_seconds(self.seconds)}")

        def on_step(self, report: Report, step: Step | None) -> None:
            self.report = report

        def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
            yield Text(title, style="bold", no_wrap=True, overflow="ellipsis")
            line = Text(self.text)
            if self.report is not None:
                line.append(f"  step {len(self.report.steps)}/{self.report.num_steps}", "dim")
            yield line
            time_ = Text(f"{self.runs} runs  {human_seconds(self.seconds)}", style="cyan")
            if self.limit:
                time_.append(f" of at most {human_seconds(self.limit)}", "dim")
            yield time_

    return Display()
