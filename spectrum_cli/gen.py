"""`spectrum gen`: a prompt in, a PNG or MP4 out."""

from __future__ import annotations

import random
import sys
import time
from contextlib import nullcontext
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from spectrum_cli import machine, options
from spectrum_cli.flags import with_flags
from spectrum_cli.loaded import Loaded, find_model
from spectrum_cli.output import emit_as_it_is, emit_json, on_one_terminal, say
from spectrum_cli.told import document, say_plan, say_written, summary

if TYPE_CHECKING:
    from spectrum.pipeline.generate import Generation
    from spectrum.pipeline.preview import Preview
    from spectrum.pipeline.request import Request
    from spectrum.report import Report, Step
    from spectrum_cli.paths import Target
    from spectrum_cli.progress import Progress


def gen(
    prompt: Annotated[str, typer.Argument(help="What to show; - reads it from standard input.")],
    model: options.Model = "demo-image",
    speedup: options.Speedup = None,
    steps: options.Steps = None,
    seed: options.Seed = None,
    width: options.Width = None,
    height: options.Height = None,
    frames: options.Frames = None,
    fps: options.Fps = None,
    guidance: options.Guidance = None,
    negative_prompt: options.NegativePrompt = None,
    output: options.OutputFile = None,
    force: options.Force = False,
    dry_run: options.DryRun = False,
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
    device: machine.Device = "auto",
    dtype: machine.Dtype = None,
    offload: machine.Offload = "none",
    quantize: machine.Quantize = None,
    vae_tiling: machine.VaeTiling = None,
    compile: machine.Compile = False,
    attention: machine.Attention = None,
    history: machine.History = None,
    progress: options.ProgressAs = "auto",
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    """Generate an image or a video; most of its steps are forecast, not computed."""
    began = time.perf_counter()
    from spectrum import methods
    from spectrum.pipeline.request import resolve

    progress = options.one_of("--progress", progress, Literal["auto", "json"])
    quiet = quiet or progress == "json"  # whose lines are for a program
    request = resolve(
        find_model(model, quiet), _read_prompt(prompt, quiet),
        negative_prompt=negative_prompt, width=width, height=height, frames=frames, fps=fps,
        steps=steps, guidance=guidance, speedup=speedup, method=method, blend=blend,
        target=options.one_of("--target", target, methods.Target), quality=quality, image=image,
        strength=strength, loras=loras or (), scheduler=scheduler, extras=extras or (),
        history=options.one_of("--history", history, methods.HistoryPlace),
    )  # fmt: skip
    layout = machine.options(
        request.preset, weights, dtype, offload, quantize, vae_tiling, compile, attention
    )
    seeds = seeds_from(seed, num_images)
    files = files_for(request, seeds, output, force, fps, as_json=as_json)
    loaded = Loaded(request, device, layout, quiet)
    if dry_run:
        say_plan(request, seeds, files, as_json, quiet)
        return
    made, files = make_all(loaded, seeds, files, as_json, preview, progress)
    total = time.perf_counter() - began
    if as_json:
        emit_json(document(loaded, seeds, files, made, total))
    if not quiet:
        summary(made, total)
    end(files)


def seeds_from(asked: str | None, count: int) -> list[int]:
    """Those that are asked for, as 7, 1-4 or 1-4,9; of one, as many as `count` from there on.

    Raises UsageError for what is no such list, and for several seeds with a count."""
    from spectrum.batch.values import each_of
    from spectrum.errors import UsageError
    from spectrum.pipeline import bounds

    if asked is None:
        asked = str(random.randrange(options.SEEDS))
    try:
        seeds = [int(seed) for seed in each_of("seed", asked)]
    except ValueError:
        seeds = [-1]
    if not all(0 <= seed < options.SEEDS for seed in seeds):
        raise UsageError(f"--seed is as 7, 1-4 or 1-4,9, each below {options.SEEDS}, not {asked!r}")
    if len(seeds) == 1:
        return [(seeds[0] + k) % options.SEEDS for k in range(count)]
    if count > 1:
        raise UsageError("--seed names several already; leave --num-images")
    if len(seeds) > bounds.IMAGES:
        raise UsageError(f"--seed names {len(seeds)} seeds; {bounds.IMAGES} is the most")
    return list(dict.fromkeys(seeds))


def files_for(
    request: Request, seeds: list[int], output: str | None, force: bool, fps: int | None,
    usual: str | None = None, as_json: bool = False,
) -> list[Target]:  # fmt: skip
    """Where each seed's goes, as `targets` has it. Raises UsageError and SpectrumError for what
    can't be written."""
    from spectrum.errors import UsageError
    from spectrum_cli.paths import targets

    files = targets(request, seeds, output, force, usual)
    if as_json and files[0].is_stdout:
        raise UsageError("--json and --output - both take standard output; leave one")
    if fps is not None and (files[0].is_folder or request.frames == 1):
        raise UsageError("--fps means nothing to PNG; leave it, or write an .mp4")
    return files


def make_all(
    loaded: Loaded, seeds: list[int], files: list[Target], as_json: bool, preview: int | None,
    progress: str = "auto",
) -> tuple[list[Generation], list[Target]]:  # fmt: skip
    """One after the other, each path on standard output as soon as it is written; and where they
    are.

    preview: after how many steps there is a new one; None: there is none.
    """
    from spectrum_cli.progress import JsonProgress, Progress

    display = JsonProgress if progress == "json" else Progress
    if preview is not None:
        _check_previews(files, preview, loaded.request.run_steps)
    if not loaded.quiet:
        _hint(loaded.request)
    made: list[Generation] = []
    written: list[Target] = []
    for seed, file in zip(seeds, files, strict=True):
        each = sum(one.seconds for one in made) / len(made) if made else None
        title = f"{loaded.request.preset.name}  {loaded.request.prompt}  seed {seed}"
        shown = display(title, loaded.quiet, len(made) + 1, len(seeds), each)
        one, file = _make(loaded, seed, file, preview, shown)
        made.append(one)
        written.append(file)
        if not (as_json or file.is_stdout) and (loaded.quiet or not on_one_terminal()):
            emit_as_it_is(str(file.path))
        if not loaded.quiet:
            say_written(loaded.request, seed, file, one)
    return made, written


def end(files: list[Target]) -> None:
    """Exit with 1 where a file is not where it was asked for."""
    if any(file.was_taken for file in files):
        raise typer.Exit(1)


def _check_previews(files: list[Target], every: int, steps: int) -> None:
    """Raise UsageError where there can be none."""
    from spectrum.errors import UsageError
    from spectrum.pipeline.preview import place_beside
    from spectrum.words import counted

    if every > steps:
        long = counted(steps, "step")
        raise UsageError(f"--preview {every} shows nothing: the run has {long}; give fewer")
    for file in files:
        if file.is_stdout:
            raise UsageError("--preview is a picture beside a file; leave it with --output -")
        place_beside(file.path)


def _make(
    loaded: Loaded, seed: int, file: Target, every: int | None, progress: Progress
) -> tuple[Generation, Target]:
    """One image or video, from noise to disk, under one progress display."""
    from spectrum_cli.saving import save

    request = loaded.request
    with progress:
        if not loaded.is_loaded:
            progress.stage("load")
        pipe = loaded.pipe
        from spectrum.pipeline.generate import generate, metadata

        progress.stage("encode")
        preview = _preview(loaded, file, every) if every is not None else None

        def on_step(report: Report, step: Step | None) -> None:
            progress.on_step(report, step)
            if preview:
                preview.on_step(report, step)

        with preview or nullcontext():
            made = generate(pipe, request, seed, on_step, preview.observe if preview else None)
            progress.stage("write")
            told = metadata(request, seed, made, loaded.device, loaded.options)
            file = save(file, made, request, told)
    return made, file


def _preview(loaded: Loaded, file: Target, every: int) -> Preview:
    from spectrum.pipeline.preview import Preview

    def tell(text: str) -> None:
        if not loaded.quiet:
            say(with_flags(text))

    size = (loaded.request.width, loaded.request.height)
    return Preview(loaded.pipe, file.path, every, size, tell)


def _read_prompt(prompt: str, quiet: bool) -> str:
    """From standard input where it is -: one, however many lines it has."""
    if prompt != "-":
        return prompt
    lines = [line for line in sys.stdin.read().splitlines() if line.strip()]
    if len(lines) > 1 and not quiet:
        say(f"{len(lines)} lines are one prompt here; `spectrum batch -` makes one of each")
    return " ".join(" ".join(lines).split())


def _hint(request: Request) -> None:
    from spectrum.pipeline.request import unknown_words

    if words := unknown_words(request.preset, request.prompt):
        name, example = request.preset.name, request.preset.example
        say(f'hint: {name} does not know {", ".join(words)}; it understands, say, "{example}"')
    if request.preset.distilled:
        say(f"{request.preset.name} is made for few steps: nothing to skip, every step is computed")
