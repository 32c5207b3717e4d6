"""`spectrum inspect`: what Spectrum finds in a model, and what it would store."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from spectrum.words import counted
from spectrum_cli import machine, options
from spectrum_cli.loaded import Loaded, find_model
from spectrum_cli.noise import silence
from spectrum_cli.output import emit, emit_json, human_bytes
from spectrum_cli.progress import Progress

if TYPE_CHECKING:
    from spectrum.pipeline.inspection import Inspection


def inspect(
    model: options.ModelArgument = None,
    model_named: options.ModelToo = None,
    image: options.Image = None,
    width: options.Width = None,
    height: options.Height = None,
    frames: options.Frames = None,
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
    """Load a model, compute one step, and print its denoisers, blocks, heads and memory."""
    from spectrum.pipeline.request import resolve

    preset = find_model(options.the_model(model, model_named, None), quiet)
    layout = machine.options(
        preset, weights, dtype, offload, quantize, vae_tiling, compile, attention
    )
    request = resolve(
        preset, preset.example, width=width, height=height, frames=frames, image=image, speedup=1
    )
    loaded = Loaded(request, device, layout, quiet)
    with Progress(f"inspect {preset.name}", quiet) as progress:
        progress.stage("load")
        pipe = loaded.pipe
        silence(quiet=True)  # nobody asks what the model makes of its example
        from spectrum.pipeline.inspection import inspect_pipeline

        progress.stage("denoise")
        found = inspect_pipeline(pipe, request)
    if as_json:
        emit_json(asdict(found))
    else:
        _show(found)


def _show(found: Inspection) -> None:
    emit(f"{found.pipeline}, {found.scheduler}")
    for denoiser in found.denoisers:
        emit(f"{denoiser.name}: {denoiser.kind}, {denoiser.parameters / 1e6:,.1f} M parameters")
        blocks = ", ".join(f"{name} ({count})" for name, count in denoiser.blocks.items())
        emit(f"  blocks, skipped at forecast steps: {blocks}")
        emit(f"  head, fed with the forecast: {', '.join(denoiser.heads)}")
    emit(f"{counted(found.calls, 'call')} of a denoiser a step")
    kept = human_bytes(found.feature_bytes)
    emit(f"{kept} stored for each computed step, where --method forecasts the feature")
    if found.stages_per_step > 1:
        emit(f"{found.stages_per_step} stages a step, which are computed or forecast together")
    if found.stochastic:
        emit("the scheduler adds noise at every step, so little can be forecast")
