"""The options of every command that loads a model: from where, and how it is laid out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spectrum_cli.options import one_of

if TYPE_CHECKING:
    from spectrum.pipeline.loading import Options
    from spectrum.pipeline.preset import Preset

MACHINE = "Machine"

Weights = Annotated[
    Path | None,
    typer.Option(help="Folder to load from instead of the hub.", rich_help_panel=MACHINE),
]
Device = Annotated[
    str, typer.Option(help="auto, cuda, cuda:N, mps or cpu.", rich_help_panel=MACHINE)
]
Dtype = Annotated[
    str | None, typer.Option(help="float32, bfloat16 or float16.", rich_help_panel=MACHINE)
]
Offload = Annotated[
    str,
    typer.Option(
        help="Keep weights in memory, not on the GPU: none, model, group or sequential.",
        rich_help_panel=MACHINE,
    ),
]
Quantize = Annotated[
    str | None,
    typer.Option(help="Weights as int8, fp8 or int4 (torchao).", rich_help_panel=MACHINE),
]
VaeTiling = Annotated[
    bool | None,
    typer.Option(
        "--vae-tiling/--no-vae-tiling",
        help="Decode in tiles; the preset's if not given.",
        rich_help_panel=MACHINE,
    ),
]
Compile = Annotated[bool, typer.Option(help="Compile the blocks.", rich_help_panel=MACHINE)]
Attention = Annotated[
    str | None,
    typer.Option(help="A backend of diffusers, such as flash.", rich_help_panel=MACHINE),
]

Gpus = Annotated[
    int | None,
    typer.Option(
        min=1, metavar="N", help="Work on N GPUs at once, by Ray.", rich_help_panel=MACHINE
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        help="Work in N processes at once, a CPU core each, by Ray.",
        rich_help_panel=MACHINE,
    ),
]
Ray = Annotated[
    str | None,
    typer.Option(
        "--ray",
        metavar="ADDRESS",
        help="Of the cluster there (auto: the one of this machine); all its GPUs, unless told"
        " how many.",
        rich_help_panel=MACHINE,
    ),
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
        dtype=check_dtype(dtype or preset.dtype),
        weights=weights,
        offload=one_of("--offload", offload, loading.Offload),
        quantize=one_of("--quantize", quantize, loading.Quantize),
        vae_tiling=vae_tiling,
        compile=compile,
        attention=attention,
    )
