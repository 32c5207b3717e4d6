"""The options of every command that loads a model: from where, and how it is laid out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spectrum_cli.options import one_of

if TYPE_CHECKING:
    from spectrum.pipeline.loading import Options
    from spectrum.pipeline.preset import Preset

Weights = Annotated[
    Path | None,
    typer.Option(help="Folder to load from instead of the hub."),
]
Device = Annotated[str, typer.Option(help="auto, cuda, cuda:N, mps or cpu.")]
Dtype = Annotated[str | None, typer.Option(help="float32, bfloat16 or float16.")]
Offload = Annotated[
    str,
    typer.Option(help="Keep weights in memory, not on the GPU: none, model, group or sequential."),
]
Quantize = Annotated[
    str | None,
    typer.Option(help="Weights as int8, fp8 or int4 (torchao)."),
]
VaeTiling = Annotated[
    bool | None,
    typer.Option(
        "--vae-tiling/--no-vae-tiling", help="Decode in tiles; the preset's if not given."
    ),
]
Compile = Annotated[bool, typer.Option(help="Compile the blocks.")]
Attention = Annotated[
    str | None,
    typer.Option(help="A backend of diffusers, such as flash."),
]


def options(
    preset: Preset,
    weights: Path | None,
    dtype: str | None,
    offload: str,
    quantize: str | None,
    vae_tiling: bool | None,
    compile: bool,
    attention: str | None,
) -> Options:
    """As the library takes them. Raises UsageError for a name that is none."""
    from spectrum.pipeline import loading
    from spectrum.pipeline.preset import check_dtype

    return loading.Options(
        dtype=check_dtype(preset.dtype if dtype is None else dtype),
        weights=weights,
        offload=one_of("--offload", offload, loading.Offload),
        quantize=one_of("--quantize", quantize, loading.Quantize),
        vae_tiling=vae_tiling,
        compile=compile,
        attention=attention,
    )
