"""`spectrum show`: what a file says of how it was made."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spectrum_cli.made import find
from spectrum_cli.output import emit_json, printable, say

if TYPE_CHECKING:
    from spectrum.pipeline.document import Document

_FLAGS = {"loras": "--lora", "extras": "--set"}


def show(
    file: Annotated[
        str,
        typer.Argument(
            help="A file that spectrum wrote, a folder of frames, or manifest.jsonl:LINE."
        ),
    ],
) -> None:
    """Print how a file was made, as JSON, and the command that makes it again."""
    from spectrum.pipeline.document import check
    from spectrum.pipeline.media import read_metadata

    path = find(file)
    content = read_metadata(path)
    again = command(check(path, content))
    if again != printable(again):  # what can't be shown can't be typed
        again = shlex.join(["spectrum", "rerun", file])
    emit_json(content, indent=2)
    say(f"again: {again}")


def command(document: Document) -> str:
    """The command line that makes the same file again."""
    from spectrum.pipeline.document import extra_texts

    asked = document.asked(own_weights=_own_weights(document.model))
    for name in ("offload", "history"):  # they decide no pixel
        asked.pop(name, None)
    if not document.compile:
        asked.pop("compile")
    asked["extras"] = extra_texts(asked.get("extras", {}))
    prompt = asked.pop("prompt")
    words = ["spectrum", "gen"]
    for name, value in asked.items():
        words += _flag(_FLAGS.get(name, f"--{name.replace('_', '-')}"), value)
    return shlex.join([*words, *["--"] * prompt.startswith("-"), prompt])


def _flag(flag: str, value: Any) -> list[str]:
    if isinstance(value, bool):
        return [flag if value else f"--no-{flag.removeprefix('--')}"]
    values = value if isinstance(value, list) else [value]
    return [word for one in values for word in (flag, str(one))]


def _own_weights(model: str) -> str | None:
    """Those of the preset, if it is here; a model without one is its own weights."""
    from spectrum.errors import UsageError
    from spectrum.pipeline.catalog import preset_paths
    from spectrum.pipeline.preset import read_preset

    path = preset_paths().get(model, Path(model))
    if path.suffix not in (".yaml", ".yml") or not os.path.isfile(path):
        return model
    try:
        return read_preset(path).weights
    except UsageError:
        return None
