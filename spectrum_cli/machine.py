"""The options of every command that loads a model: from where, and how it is laid out."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from spectrum_cli.options import completing, one_of

if TYPE_CHECKING:
    from spectrum.pipeline.loading import Options
    from spectrum.pipeline.preset import Preset


def _dtypes() -> Iterable[str]:
    from spectrum.pipeline import preset

    return [*get_args(preset.Dtype), *preset.SHORT_DTYPES]


def _offloads() -> Iterable[str]:
    from spectrum.pipeline import loading

    return get_args(loading.Offload)


def _quantizations() -> Iterable[str]:
    from spectrum.pipeline import loading

    return get_args(loading.Quantize)


def _places() -> Iterable[str]:
    from spectrum import methods

    return get_args(methods.HistoryPlace)


def _backends() -> Iterable[str]:
    from spectrum.pipeline.known import attention_backends

    return attention_backends()


Weights = Annotated[
    Path | None,
    typer.Option(
        help="Folder to load from instead of the hub; or a file in .safetensors or .gguf, whose"
        " weights replace the model's."
    ),
]
Device = Annotated[str, typer.Option(help="auto, cuda, cuda:N, mps or cpu.")]
Dtype = Annotated[
    str | None,
    typer.Option(
        autocompletion=completing(_dtypes),
        help="float32, bfloat16 or float16; fp32, bf16 and fp16 are the same.",
    ),
]
Offload = Annotated[
    str,
    typer.Option(
        autocompletion=completing(_offloads),
        help="Keep weights in memory, not on the GPU: none, model, group or sequential.",
    ),
]
Quantize = Annotated[
    str | None,
    typer.Option(
        autocompletion=completing(_quantizations), help="Weights as int8, fp8 or int4 (torchao)."
    ),
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
    typer.Option(
        autocompletion=completing(_backends), help="A backend of diffusers, such as flash."
    ),
]
History = Annotated[
    str | None,
    typer.Option(
        autocompletion=completing(_places),
        help="Of methods that forecast features, where these are kept: device, host, or auto,"
        " which is the device until that is full.",
    ),
]

Gpus = Annotated[
    int | None,
    typer.Option(min=1, metavar="N", help="Work on N GPUs at once, by Ray."),
]
Workers = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        help="Work in N processes at once, a CPU core each, by Ray.",
    ),
]
Ray = Annotated[
    str | None,
    typer.Option(
        "--ray",
        metavar="ADDRESS",
        help="Of the cluster there (auto: the one of this machine); all its GPUs, unless told"
        " how many.",
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
        dtype=check_dtype(preset.dtype if dtype is None else dtype),
        weights=weights,
        offload=one_of("--offload", offload, loading.Offload),
        quantize=one_of("--quantize", quantize, loading.Quantize),
        vae_tiling=vae_tiling,
        compile=compile,
        attention=attention,
    )
