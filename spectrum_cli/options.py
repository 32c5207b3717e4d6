"""Options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer


def complete_model(incomplete: str) -> list[str]:
    from spectrum.preset import preset_paths

    return [name for name in preset_paths() if name.startswith(incomplete)]


def _complete_method(incomplete: str) -> list[str]:
    from spectrum.methods import METHODS

    return [name for name in METHODS if name.startswith(incomplete)]


Model = Annotated[
    str,
    typer.Option(
        "--model", "-m", autocompletion=complete_model,
        help="A name that `spectrum models` lists, or a preset's YAML file.",
    ),
]  # fmt: skip
Speedup = Annotated[
    float | None,
    typer.Option("--speedup", "-s", help="Steps over computed steps; 1 turns Spectrum off."),
]
Steps = Annotated[int | None, typer.Option(help="Solver steps, computed and forecast.")]
Method = Annotated[
    str | None,
    typer.Option(
        autocompletion=_complete_method,
        help="How steps are chosen and forecast: spectrum, published (the paper's), affine,"
        " taylor1, taylor2 or hold.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")]
