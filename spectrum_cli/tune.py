"""`spectrum tune`: the scale, steps, length and trust that suit a model, as a preset."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from spectrum.errors import SpectrumError, UsageError
from spectrum.words import counted
from spectrum_cli import machine, options, signals
from spectrum_cli.loaded import Loaded, find_model
from spectrum_cli.noise import silence
from spectrum_cli.output import emit, emit_json, error, human_seconds, say
from spectrum_cli.tune_progress import SearchDisplay

if TYPE_CHECKING:
    from spectrum.compare.rivals import Case
    from spectrum.pipeline.preset import Preset
    from spectrum.pipeline.request import Request
    from spectrum.tune.bench import Bench
    from spectrum.tune.search import Tuning

SEEDS_OF_EXAMPLE = 8
SPEEDUPS = "2.5,3.5,4.5,6"

# What no prompt holds on purpose, and no comment of a preset can hold; a tab is let pass.
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ufffe\uffff]")


def tune(
    model: options.ModelArgument = None,
    model_named: options.ModelToo = None,
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
    """Find by real runs the scale and the steps that suit a model, and write them as a preset.

    Without --prompts it runs the model's example, with 8 seeds. All runs are kept in a folder
    beside the preset: the same command goes on after an interrupt.
    """
    preset = find_model(options.the_model(model, model_named, "demo-image"), quiet)
    target = _target(preset, output, force)
    cases = _cases(preset, prompts, seed)
    asked = _speedups(speedups)
    request = _request(preset, cases[0], steps, width, height, frames, guidance, image)
    from spectrum.tune.budget import check_minutes
    from spectrum.tune.candidates import planned
    from spectrum.tune.settings import run_settings

    counts = {planned(request, speedup).count for speedup in asked}
    check_minutes(minutes, len(cases), len(counts))
    layout = machine.options(
        preset, weights, dtype, offload, quantize, vae_tiling, compile, attention
    )
    loaded = Loaded(request, device, layout, quiet)
    settings = run_settings(request, layout, loaded.device)
    silence(quiet)
    from spectrum.compare.plot import NO_PICTURE, can_draw
    from spectrum.tune.bench import Bench
    from spectrum.tune.presettext import preset_text
    from spectrum.tune.search import tune

    source = preset_text(preset)  # before the search: it may be edited meanwhile
    picture = target.with_suffix(".png") if can_draw() else None
    if picture is None and not quiet:
        say(f"note: {NO_PICTURE}")
    try:
        title = f"tune {preset.name}, {counted(len(cases), 'prompt')}"
        with SearchDisplay(title, quiet) as display:
            bench = Bench(
                lambda: loaded.pipe,
                request, cases, target.with_suffix(".tune"), settings, display, force,
            )  # fmt: skip
            tuning = tune(bench, asked, minutes)
    except KeyboardInterrupt:
        error("interrupted; all finished runs are kept, and the same command goes on from there")
        raise SystemExit(signals.taken() or 130) from None
    document = _write(target, picture, force, preset, source, settings, bench, tuning)
    if as_json:
        emit_json(document)
    else:
        _show(document, bench, tuning)
    if not quiet and not as_json:
        _say_what_was_done(document, bench)
    if document["output"] not in (None, str(target)):
        error(f"{target} was taken by something else meanwhile: this one is {document['output']}")
        raise typer.Exit(1 if output else 0)


def _write(
    target: Path,
    picture: Path | None,
    force: bool,
    preset: Preset,
    source: str,
    settings: dict[str, Any],
    bench: Bench,
    tuning: Tuning,
) -> dict[str, Any]:
    """The preset and its chart, if anything is better than the default; the document of all."""
    from spectrum.compare.plot import write_chart
    from spectrum.tune.presettext import tuned_yaml, write_preset
    from spectrum_cli.tune_summary import chart, document, record

    if not tuning.better:
        return document(bench, tuning, settings, None, None)
    found = document(bench, tuning, settings, target, picture)
    text = tuned_yaml(preset, tuning, record(found, bench), source)
    written = write_preset(target, text, replace=force)
    if picture is not None:
        picture = write_chart(picture, chart(bench, tuning), replace=force)
    return {**found, "output": str(written), "plot": str(picture) if picture else None}


def _show(document: dict[str, Any], bench: Bench, tuning: Tuning) -> None:
    from spectrum.compare.plot import text_chart
    from spectrum_cli.tune_summary import chart, summary

    for line in summary(tuning):
        emit(line)
    emit("")
    emit(text_chart(chart(bench, tuning), encoding=sys.stdout.encoding or "ascii"))
    emit("")
    emit(document["output"] or "nothing is surely better than the default: no preset is written")


def _say_what_was_done(document: dict[str, Any], bench: Bench) -> None:
    runs, seconds = bench.recorded, human_seconds(bench.recorded_seconds)
    folder = bench.store.folder
    say(f"{counted(runs, 'run')} in {seconds}, {bench.runs_done} of them now; all in {folder}/")
    if document["output"]:
        target, plot = document["output"], document["plot"]
        written = f"{target} and {Path(plot).name}" if plot else target
        say(f"wrote {written}; use it by --model {target}")


# -- what is asked -------------------------------------------------------------------------------


def _target(preset: Preset, output: Path | None, force: bool) -> Path:
    from spectrum_cli.paths import check_free

    target = output or Path(f"{preset.name}-tuned.yaml")
    if target.suffix not in (".yaml", ".yml"):
        raise UsageError(f"{target}: a preset is a .yaml; try -o {target.with_suffix('.yaml')}")
    if not os.path.isdir(target.parent):
        folder = target.parent
        raise SpectrumError(f"{folder}: no such folder; create it with `mkdir -p '{folder}'`")
    for path in (target, target.with_suffix(".png")):
        check_free(path, False, force)
    return target


def _cases(preset: Preset, prompts: Path | None, seed: int) -> list[Case]:
    """Consecutive seeds, over the prompts of the file or the preset's example."""
    from spectrum.compare.rivals import Case

    if prompts is None:
        return [Case(preset.example, seed + k) for k in range(SEEDS_OF_EXAMPLE)]
    try:
        lines = prompts.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as problem:
        raise UsageError(f"{prompts}: can't be read; give a text file, a prompt a line") from (
            problem
        )
    for number, line in enumerate(lines, 1):
        if found := CONTROL.search(line):
            raise UsageError(
                f"{prompts}: line {number} holds a control character, {found[0]!r}; remove it"
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
    from spectrum.tune.settings import untuned

    if preset.distilled:
        raise UsageError(
            f"{preset.name} is made for {counted(preset.steps, 'step')}, so there is nothing to"
            " skip and nothing to tune; take a model of many steps"
        )
    if image is not None and preset.image == "none":
        raise UsageError(f"{preset.name} makes pictures from prompts alone; leave --image")
    return resolve(
        untuned(preset), case.prompt, steps=steps, width=width, height=height, frames=frames,
        guidance=guidance, image=image, speedup=1.0,
    )  # fmt: skip
