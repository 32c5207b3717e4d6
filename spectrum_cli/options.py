"""Options that several commands share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

if TYPE_CHECKING:
    from spectrum.pipeline.preset import Preset

MODEL_HELP = "A name that `spectrum models` lists, a preset's YAML file, a folder or a hub id."


def complete_model(incomplete: str) -> list[str]:
    from spectrum.pipeline.catalog import preset_paths

    return [name for name in preset_paths() if name.startswith(incomplete)]


def _complete_method(incomplete: str) -> list[str]:
    from spectrum.methods import METHODS

    return [name for name in METHODS if name.startswith(incomplete)]


Model = Annotated[
    str,
    typer.Option(
        "--model", "-m", autocompletion=complete_model,
        help=MODEL_HELP,
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


def one_of(option: str, value: str, literal: Any) -> Any:
    """The value, if it is one of the literal's. Raises UsageError, with all of them, if not."""
    from spectrum.errors import UsageError

    if value not in get_args(literal):
        raise UsageError(f"no {option} {value!r}; there are {', '.join(get_args(literal))}")
    return value


def find_model(name: str, quiet: bool = False) -> Preset:
    """The preset of that name; for a folder or a hub id, one that its pipeline's class gives."""
    from spectrum.pipeline.catalog import find_preset, preset_paths

    if name not in preset_paths() and not name.endswith((".yaml", ".yml")):
        from spectrum_cli.noise import silence

        silence(quiet)  # diffusers has to be imported
    return find_preset(name)
