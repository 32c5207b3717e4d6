"""`spectrum models`: what there is, and whether its weights are here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from spectrum_cli.help import Command, Group
from spectrum_cli.options import Json, complete_model
from spectrum_cli.output import columns, emit, emit_as_it_is, emit_json, say, terminal_width

if TYPE_CHECKING:
    from spectrum.pipeline.preset import Preset

app = typer.Typer(cls=Group, invoke_without_command=True, no_args_is_help=False)


@app.callback()
def models(context: typer.Context, as_json: Json = False) -> None:
    """List the models: pipeline, size, defaults, and whether the weights are on this machine."""
    if context.invoked_subcommand is not None:
        return
    from spectrum.pipeline.catalog import read_presets

    presets, wrong = read_presets()
    rows = [_row(preset) for preset in presets]
    for problem in wrong:
        say(f"warning: {problem}")
    if as_json:
        emit_json({"models": rows})
        return
    for line in table(rows, terminal_width()):
        emit(line)


def table(rows: list[dict[str, Any]], width: int | None) -> list[str]:
    """In columns; on a terminal that is too narrow for all of them, in those that fit, whole."""
    lines = [["MODEL", "PIPELINE", "SIZE", "STEPS", "SPEEDUP", "METHOD", "WEIGHTS"]]
    for row in rows:
        here = "here" if row["on_this_machine"] else f"not here: {row['weights']}"
        lines.append(
            [row["name"], row["pipeline"], row["size"], str(row["steps"]),
             f"{row['speedup']:g}", row["method"], here]
        )  # fmt: skip
    short = [[*line[:6], line[6].partition(":")[0]] for line in lines]  # without where
    fewer = [[[line[k] for k in kept] for line in short] for kept in ((0, 2, 3, 4, 6), (0, 2, 6))]
    return columns([lines, *fewer, [line[:1] for line in lines]], width)


@app.command(cls=Command)
def show(
    name: Annotated[str, typer.Argument(autocompletion=complete_model, help="Of a model.")],
) -> None:
    """Print a model's preset as YAML, to read or to start your own from."""
    from spectrum.pipeline.catalog import find_preset

    preset = find_preset(name)
    emit(f"# {preset.path}")
    emit_as_it_is(preset.path.read_text(encoding="utf-8").rstrip())


def _row(preset: Preset) -> dict[str, Any]:
    from spectrum.pipeline.weights import on_this_machine

    size = f"{preset.size.width}×{preset.size.height}" if preset.size else ""
    if preset.video:
        size += f"×{preset.video.frames}"
    return {
        "name": preset.name,
        "summary": preset.summary,
        "pipeline": preset.pipeline,
        "media": preset.media,
        "size": size,
        "steps": preset.steps,
        "guidance": preset.guidance.scale if preset.guidance else None,
        "speedup": preset.cache.speedup,
        "method": preset.cache.method,
        "weights": preset.weights,
        "on_this_machine": on_this_machine(preset),
        "preset": str(preset.path),
    }
