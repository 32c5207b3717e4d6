"""`spectrum rerun`: the same output once more, from what its file says of itself."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spectrum_cli import machine, options, sameness
from spectrum_cli.gen import end, files_for, make_all, seeds_from
from spectrum_cli.loaded import Loaded, find_model
from spectrum_cli.made import find, frames_of
from spectrum_cli.output import emit_json, say
from spectrum_cli.told import document, summary

if TYPE_CHECKING:
    from spectrum.pipeline.document import Document
    from spectrum.pipeline.generate import Generation
    from spectrum.pipeline.loading import Options
    from spectrum.pipeline.preset import Preset
    from spectrum.pipeline.request import Request

_ASKED = (  # of `resolve`
    "negative_prompt", "width", "height", "frames", "fps", "steps", "guidance", "speedup",
    "method", "blend", "target", "quality", "strength", "scheduler", "history",
)  # fmt: skip
_LOADS = {
    "weights": "loads weights from",
    "image": "reads the image",
    "loras": "loads LoRA",
    "extras": "reads the image",
}


def rerun(
    context: typer.Context,
    file: Annotated[
        str, typer.Argument(help="A file or folder that spectrum wrote, or manifest.jsonl:LINE.")
    ],
    prompt: Annotated[str | None, typer.Option(help="Another one.")] = None,
    model: options.Model = "",
    speedup: options.Speedup = None,
    steps: options.Steps = None,
    seed: Annotated[
        str | None, typer.Option(metavar="N", help="Another one; several as 1-4,9.")
    ] = None,
    width: options.Width = None,
    height: options.Height = None,
    frames: options.Frames = None,
    fps: options.Fps = None,
    guidance: options.Guidance = None,
    negative_prompt: options.NegativePrompt = None,
    output: options.OutputFile = None,
    force: options.Force = False,
    preview: options.Preview = None,
    num_images: options.NumImages = 1,
    image: options.Image = None,
    strength: options.Strength = None,
    loras: options.Loras = None,
    extras: options.Extras = None,
    method: options.Method = None,
    target: options.Target = None,
    quality: options.Quality = None,
    blend: options.Blend = None,
    scheduler: options.Scheduler = None,
    weights: machine.Weights = None,
    device: machine.Device = "",
    dtype: machine.Dtype = None,
    offload: machine.Offload = "",
    quantize: machine.Quantize = None,
    vae_tiling: machine.VaeTiling = None,
    compile: machine.Compile = False,
    attention: machine.Attention = None,
    history: machine.History = None,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    """Make a file again from what it says of itself, and say whether it came out the same.

    Options replace single values; what a file names and is loaded for it is said beforehand.
    """
    began = time.perf_counter()
    from spectrum.pipeline.document import read_document

    path, whole = find(file), os.path.isdir(file)
    told = read_document(path)
    given = _given(context)
    loaded = Loaded(*_prepare(told, given, quiet), quiet)
    seeds = seeds_from(given.get("seed", str(told.seed)), num_images)
    usual = _usual_name(path, told)
    files = files_for(loaded.request, seeds, output, force, fps, usual, as_json)
    differences = _differences(told, loaded)
    for difference in differences if not quiet else ():
        say(difference)
    before = sameness.before(frames_of(path.parent) if whole else [path], told)
    made, files = make_all(loaded, seeds, files, as_json, preview)
    now = sameness.now(made[0], files[0], loaded.request.fps, told, path, whole)
    verdict = sameness.judge(before, now)
    again = path.parent if whole else path
    total = time.perf_counter() - began
    if as_json:
        more = {"again": str(again), "differences": differences, **verdict.document(whole)}
        emit_json({**document(loaded, seeds, files, made, total), **more})
    if not quiet:
        summary(made, total)
        what = "film" if whole or (told.frames > 1 and told.frame is None) else "picture"
        say(verdict.sentence(again, what, whole, _other_steps(told, given, made[0])))
    end(files)


def _usual_name(path: Path, told: Document) -> str:
    """After the file, and of its kind."""
    single = path.suffix.lower() != ".png" or told.frame is None
    name = f"{path.stem if single else path.absolute().parent.name}-again"
    return name + path.suffix.lower()


# -- what is asked for ---------------------------------------------------------------------------


def _given(context: typer.Context) -> dict[str, Any]:
    """The options that are on the command line, and that a document has a value for."""
    from spectrum.pipeline.document import VALUES

    return {
        name: value
        for name, value in context.params.items()
        if name in VALUES
        and getattr(context.get_parameter_source(name), "name", "") == "COMMANDLINE"
    }


def _prepare(told: Document, given: dict[str, Any], quiet: bool) -> tuple[Request, str, Options]:
    """The request, the device and how the model is laid out there.

    What the file names and is loaded for it is said before anything looks for it.
    """
    from spectrum.pipeline.catalog import preset_paths
    from spectrum.pipeline.checks import STEP_LISTS
    from spectrum.pipeline.document import check_places, extra_texts, places

    extras = given.pop("extras", [])
    replaced = {text.partition("=")[0] for text in extras}
    kept = {key: value for key, value in told.extras.items() if key not in replaced}
    told = told.model_copy(update={"extras": kept})

    def named() -> dict[str, Any]:
        return {name: value for name, value in asked.items() if name not in given}

    asked = told.asked(given)
    check_places(named())
    if not quiet and "model" in named() and told.model not in preset_paths():
        say(f"uses the model {told.model}, which the file names")
    preset = find_model(asked["model"], quiet)
    asked = told.asked(given, preset.weights)
    for name, place in places(named()) if not quiet else ():
        if name != "model":
            say(f"{_LOADS[name]} {place}, which the file names")
    texts = [*extra_texts(asked.get("extras", {})), *extras]
    device = _device(asked, given)
    for name in ("offload", "history") if device != told.device else ():
        if name not in given:
            asked.pop(name, None)
    if "steps" not in given and replaced.intersection(STEP_LISTS):
        asked.pop("steps", None)
    usual = None if "speedup" in given else asked.pop("speedup", None)
    return _request(preset, asked, texts, usual), device, _layout(preset, asked)


def _request(
    preset: Preset, asked: Mapping[str, Any], extras: list[str], usual_speedup: float | None
) -> Request:
    from spectrum import methods
    from spectrum.pipeline.request import resolve

    values = {name: asked.get(name) for name in _ASKED}
    values["target"] = options.one_of("--target", values["target"], methods.Target)
    values["history"] = options.one_of("--history", values["history"], methods.HistoryPlace)
    if values["quality"] is not None:
        values["quality"] = str(values["quality"])
    image = Path(asked["image"]) if "image" in asked else None
    return resolve(
        preset, asked["prompt"], **values, image=image, loras=asked.get("loras", ()),
        extras=extras, usual_speedup=usual_speedup,
    )  # fmt: skip


def _layout(preset: Preset, asked: Mapping[str, Any]) -> Options:
    return machine.options(
        preset, Path(asked["weights"]) if "weights" in asked else None, asked.get("dtype"),
        asked.get("offload", "none"), asked.get("quantize"), asked.get("vae_tiling"),
        asked.get("compile", False), asked.get("attention"),
    )  # fmt: skip


def _device(asked: Mapping[str, Any], given: Mapping[str, Any]) -> str:
    """The file's where this machine has it."""
    from spectrum.errors import UsageError
    from spectrum.pipeline.loading import choose_device

    name = str(asked.get("device", "auto"))
    if name in ("auto", "cpu") or "device" in given:
        return name  # every machine has it, or the user says so
    try:
        choose_device(name)
    except UsageError:
        return "auto"
    return name


# -- whether it came out the same ----------------------------------------------------------------


def _differences(told: Document, loaded: Loaded) -> list[str]:
    from spectrum.pipeline.catalog import reference
    from spectrum.pipeline.generate import conditions

    preset = loaded.request.preset
    now = conditions(preset, loaded.device, loaded.options)
    if reference(preset) != told.model:
        now["preset"] = told.preset  # of another model it means nothing
    return told.differences(now)


def _other_steps(told: Document, given: Mapping[str, Any], made: Generation) -> str:
    if set(given) - {"prompt", "seed"} or made.report.computed_steps == told.computed_steps:
        return ""
    return "; other steps were computed than then"
