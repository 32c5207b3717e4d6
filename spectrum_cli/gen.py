"""`spectrum gen`: a prompt in, a PNG or MP4 out."""

from __future__ import annotations

import random
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spectrum_cli.options import Json, Method, Model, Speedup, Steps, find_model, one_of
from spectrum_cli.output import emit, emit_json, human_bytes, human_seconds, say

if TYPE_CHECKING:
    from spectrum.pipeline.fit import Expectation
    from spectrum.pipeline.generate import Generation
    from spectrum.pipeline.loading import Options
    from spectrum.pipeline.request import Request
    from spectrum_cli.paths import Target

SEEDS = 2**32
INPUTS, SAMPLING, MACHINE = "Inputs", "Sampling", "Machine"


def gen(
    prompt: Annotated[str, typer.Argument(help="What to show; - reads it from standard input.")],
    model: Model = "demo-image",
    speedup: Speedup = None,
    steps: Steps = None,
    seed: Annotated[
        int | None,
        typer.Option(
            min=0, max=SEEDS - 1, help="Of the noise; random, and reported, if not given."
        ),
    ] = None,
    width: Annotated[int | None, typer.Option(help="Pixels.")] = None,
    height: Annotated[int | None, typer.Option(help="Pixels.")] = None,
    frames: Annotated[int | None, typer.Option(help="Length of a video.")] = None,
    fps: Annotated[int | None, typer.Option(help="Frames a second of a video.")] = None,
    guidance: Annotated[float | None, typer.Option(help="Guidance scale.")] = None,
    negative_prompt: Annotated[str | None, typer.Option(help="What not to show.")] = None,
    output: Annotated[
        str | None, typer.Option("--output", "-o", help="File (.png, .mp4) or existing folder.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
    num_images: Annotated[
        int, typer.Option("--num-images", "-n", min=1, help="How many, with consecutive seeds.")
    ] = 1,
    image: Annotated[
        Path | None,
        typer.Option(help="To edit, to animate or to start from.", rich_help_panel=INPUTS),
    ] = None,
    strength: Annotated[
        float | None,
        typer.Option(help="How far to leave the image; 1 ignores it.", rich_help_panel=INPUTS),
    ] = None,
    lora: Annotated[
        list[str] | None,
        typer.Option(metavar="PATH_OR_ID[:SCALE]", help="Repeatable.", rich_help_panel=INPUTS),
    ] = None,
    extra: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            rich_help_panel=INPUTS,
            help="Any other argument of the model's pipeline; repeatable.",
        ),
    ] = None,
    method: Method = None,
    target: Annotated[
        str | None,
        typer.Option(
            help="What is forecast: feature or denoised; the method's if not given.",
            rich_help_panel=SAMPLING,
        ),
    ] = None,
    quality: Annotated[
        str | None,
        typer.Option(
            help="draft, good, high or an error: compute as few steps as that takes.",
            rich_help_panel=SAMPLING,
        ),
    ] = None,
    blend: Annotated[
        float | None,
        typer.Option(
            help="Of published and affine: ridge against straight line.", rich_help_panel=SAMPLING
        ),
    ] = None,
    scheduler: Annotated[
        str | None,
        typer.Option(
            help="euler, heun, unipc, dpm++ ... or a class of diffusers.", rich_help_panel=SAMPLING
        ),
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option(help="Folder to load from instead of the hub.", rich_help_panel=MACHINE),
    ] = None,
    device: Annotated[
        str, typer.Option(help="auto, cuda, cuda:N, mps or cpu.", rich_help_panel=MACHINE)
    ] = "auto",
    dtype: Annotated[
        str | None, typer.Option(help="float32, bfloat16 or float16.", rich_help_panel=MACHINE)
    ] = None,
    offload: Annotated[
        str,
        typer.Option(
            help="Keep weights in memory, not on the GPU: none, model, group or sequential.",
            rich_help_panel=MACHINE,
        ),
    ] = "none",
    quantize: Annotated[
        str | None,
        typer.Option(help="Weights as int8, fp8 or int4 (torchao).", rich_help_panel=MACHINE),
    ] = None,
    vae_tiling: Annotated[
        bool | None,
        typer.Option(
            "--vae-tiling/--no-vae-tiling",
            help="Decode in tiles; the preset's if not given.",
            rich_help_panel=MACHINE,
        ),
    ] = None,
    compile: Annotated[
        bool, typer.Option("--compile", help="Compile the blocks.", rich_help_panel=MACHINE)
    ] = False,
    attention: Annotated[
        str | None,
        typer.Option(help="A backend of diffusers, such as flash.", rich_help_panel=MACHINE),
    ] = None,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Nothing on standard error but errors.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Generate an image or a video; most of its steps are forecast, not computed."""
    began = time.perf_counter()
    from spectrum.errors import UsageError
    from spectrum.methods import Target
    from spectrum.pipeline.loading import Offload, Options, Quantize
    from spectrum.pipeline.preset import check_dtype
    from spectrum.pipeline.request import resolve
    from spectrum_cli.paths import targets

    request = resolve(
        find_model(model, quiet), _read_prompt(prompt),
        negative_prompt=negative_prompt, width=width, height=height, frames=frames, fps=fps,
        steps=steps, guidance=guidance, speedup=speedup, method=method, blend=blend,
        target=one_of("--target", target, Target) if target else None, quality=quality,
        image=image, strength=strength, loras=lora or (), scheduler=scheduler, extras=extra or (),
    )  # fmt: skip
    options = Options(
        dtype=check_dtype(dtype or request.preset.dtype),
        weights=weights,
        offload=one_of("--offload", offload, Offload),
        quantize=one_of("--quantize", quantize, Quantize) if quantize else None,
        vae_tiling=vae_tiling,
        compile=compile,
        attention=attention,
    )
    first = random.randrange(SEEDS) if seed is None else seed
    seeds = [(first + k) % SEEDS for k in range(num_images)]
    files = targets(request, seeds, output, force)
    if fps is not None and files[0].path.suffix != ".mp4":
        raise UsageError("--fps means nothing to PNG; leave it, or write an .mp4")
    loader = _Loader(request, device, options, quiet)
    if not quiet:
        _hint(request)
    made = []
    for seed_, file in zip(seeds, files, strict=True):
        made.append(_make(loader, seed_, file, quiet))
        if not as_json:
            emit(str(file.path))
    total = time.perf_counter() - began
    if as_json:
        emit_json(_document(loader, seeds, files, made, total))
    if not quiet:
        _summary(request, seeds, files, made, total)


class _Loader:
    """The model of all images of one command, loaded when the first needs it."""

    def __init__(self, request: Request, device: str, options: Options, quiet: bool) -> None:
        self.request, self.options = request, options
        self.seconds = 0.0
        self.pipe: Any = None
        self.device: Any = None
        self._device_name, self._quiet = device, quiet

    def load(self) -> None:
        began = time.perf_counter()
        from spectrum_cli.noise import silence

        silence(self._quiet)
        from spectrum.pipeline.discover import pipeline_class
        from spectrum.pipeline.fit import expect
        from spectrum.pipeline.generate import call_arguments
        from spectrum.pipeline.loading import choose_device, load_pipeline

        self.device = choose_device(self._device_name)
        request = self.request
        call_arguments(pipeline_class(request.pipeline, request.preset.path), request)
        if not self._quiet:
            _say_memory(expect(request, self.device, self.options))
        self.pipe = load_pipeline(request, self.device, self.options)
        self.seconds = time.perf_counter() - began


def _say_memory(expected: Expectation) -> None:
    if sum(expected.weights.values()) + expected.history > 2**30:
        weights = human_bytes(sum(expected.weights.values()))
        say(f"memory: weights {weights}, history {human_bytes(expected.history)}, and activations")
    if not expected.fits:
        say(
            f"warning: {human_bytes(expected.on_device)} on a device that has"
            f" {human_bytes(expected.available)} free; {expected.advice()}"
        )


def _make(loader: _Loader, seed: int, file: Target, quiet: bool) -> Generation:
    """One image or video, from noise to disk, under one progress display."""
    from spectrum_cli.progress import Progress

    request = loader.request
    with Progress(f"{request.preset.name}  {request.prompt}  seed {seed}", quiet) as progress:
        if loader.pipe is None:
            progress.stage("load")
            loader.load()
        from spectrum.pipeline.generate import generate, metadata

        progress.stage("encode")
        made = generate(loader.pipe, request, seed, progress.on_step)
        progress.stage("write")
        _write(file, made, request, metadata(
            request, seed, made, str(loader.device), loader.options.dtype or request.preset.dtype
        ))  # fmt: skip
    return made


def _write(file: Target, made: Generation, request: Request, document: dict[str, Any]) -> None:
    from spectrum.pipeline.media import write_frames, write_mp4, write_png

    if file.is_folder:
        write_frames(file.path, made.frames, document)
    elif file.path.suffix.lower() == ".mp4":
        assert request.fps is not None  # only a video's path ends so
        write_mp4(file.path, made.frames, request.fps, document)
    else:
        write_png(file.path, made.frames[0], document)


def _read_prompt(prompt: str) -> str:
    return " ".join(sys.stdin.read().split()) if prompt == "-" else prompt


def _hint(request: Request) -> None:
    from spectrum.pipeline.request import unknown_words

    if words := unknown_words(request.preset, request.prompt):
        name, example = request.preset.name, request.preset.example
        say(f'hint: {name} does not know {", ".join(words)}; it understands, say, "{example}"')
    if request.preset.distilled:
        say(f"{request.preset.name} is made for few steps: nothing to skip, every step is computed")


def _document(
    loader: _Loader, seeds: list[int], files: list[Target], made: list[Generation], total: float
) -> dict[str, Any]:
    """The object that --json prints. Seconds are sums over all images."""
    from spectrum import __version__
    from spectrum.pipeline.generate import peak_memory_bytes

    request, report = loader.request, made[0].report
    measured = [m.report.measured_speedup or 1.0 for m in made]
    return {
        "outputs": [str(file.path) for file in files],
        "model": request.preset.name,
        "prompt": request.prompt,
        "seeds": seeds,
        "steps": request.steps,
        "computed_steps": report.computed_steps,
        "forecast_steps": report.forecast_steps,
        "forecast_errors": {str(s.index): s.error for s in report.steps if s.error is not None},
        "notes": [note for m in made for note in m.report.notes],
        "speedup": {
            "requested": None if report.adaptive else request.speedup,
            "planned": report.planned_speedup,
            "denoise_measured": sum(measured) / len(measured),
        },
        "seconds": {
            "load": loader.seconds,
            "encode": sum(m.encode_seconds for m in made),
            "denoise": sum(m.denoise_seconds for m in made),
            "decode": sum(m.decode_seconds for m in made),
            "total": total,
        },
        "peak_memory_bytes": peak_memory_bytes(loader.device),
        "version": __version__,
    }


def _summary(
    request: Request, seeds: list[int], files: list[Target], made: list[Generation], total: float
) -> None:
    for seed, file, one in zip(seeds, files, made, strict=True):
        frames, height, width = one.frames.shape[:3]
        size = f"{width}×{height}"
        if request.fps:
            size += f", {frames} frames at {request.fps} fps"
        if file.path != file.asked:
            say(f"{file.asked.name} exists already and was kept; --force overwrites it")
        report = one.report
        say(f"wrote {file.path}  ({size}, seed {seed})", style="bold")
        for note in report.notes:
            say(f"note: {note}")
        say(
            f"{len(report.computed_steps)} of {report.num_steps} steps computed,"
            f" {len(report.forecast_steps)} forecast;"
            f" denoised in {human_seconds(one.denoise_seconds)}"
        )
        if report.forecast_steps:
            say(
                f"speedup of denoising: {report.planned_speedup:.2f}× planned,"
                f" {report.measured_speedup or 1:.2f}× measured{_errors(one)}"
            )
    say(f"{human_seconds(total)} in all")


def _errors(made: Generation) -> str:
    errors = [step.error for step in made.report.steps if step.error is not None]
    if not errors:
        return ""
    return f"; forecasts off by {100 * sum(errors) / len(errors):.1f} % where checked"
