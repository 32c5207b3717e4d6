"""`spectrum inspect`: what Spectrum finds in a model, and what it would store."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spectrum_cli.options import MODEL_HELP, Json, complete_model, find_model
from spectrum_cli.output import emit, emit_json, human_bytes

if TYPE_CHECKING:
    from spectrum.pipeline.inspection import Inspection


def inspect(
    model: Annotated[str, typer.Argument(autocompletion=complete_model, help=MODEL_HELP)],
    weights: Annotated[
        Path | None, typer.Option(help="Folder to load from instead of the hub.")
    ] = None,
    image: Annotated[Path | None, typer.Option(help="For a model that needs one.")] = None,
    width: Annotated[int | None, typer.Option(help="Pixels.")] = None,
    height: Annotated[int | None, typer.Option(help="Pixels.")] = None,
    frames: Annotated[int | None, typer.Option(help="Of a video.")] = None,
    device: Annotated[str, typer.Option(help="auto, cuda, cuda:N, mps or cpu.")] = "auto",
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16 or float16.")] = None,
    as_json: Json = False,
) -> None:
    """Load a model, compute one step, and print its denoisers, blocks, heads and memory."""
    from spectrum.pipeline.preset import check_dtype
    from spectrum.pipeline.request import resolve
    from spectrum_cli.noise import silence

    preset = find_model(model, quiet=True)
    request = resolve(
        preset, preset.example, width=width, height=height, frames=frames, image=image, speedup=1
    )
    silence(quiet=True)
    from spectrum.pipeline.inspection import inspect_pipeline
    from spectrum.pipeline.loading import Options, choose_device, load_pipeline

    options = Options(dtype=check_dtype(dtype or preset.dtype), weights=weights)
    found = inspect_pipeline(load_pipeline(request, choose_device(device), options), request)
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
    calls = "call" if found.calls == 1 else "calls"
    emit(f"{found.calls} {calls} of a denoiser a step")
    emit(f"{human_bytes(found.feature_bytes)} stored for each computed step")
    if found.stages_per_step > 1:
        emit(f"{found.stages_per_step} stages a step, which are computed or forecast together")
    if found.stochastic:
        emit("the scheduler adds noise at every step, so little can be forecast")
