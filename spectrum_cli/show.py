"""`spectrum show`: what a file says of how it was made."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from spectrum_cli.output import emit_json, say


def show(
    file: Annotated[Path, typer.Argument(help="A PNG or MP4 that spectrum wrote.")],
) -> None:
    """Print how a file was made, as JSON, and the command that makes it again."""
    from spectrum.pipeline.media import read_metadata

    document = read_metadata(file)
    emit_json(document, indent=2)
    say(f"again: {command(document)}")


def command(document: dict[str, Any]) -> str:
    """The command line that makes the same file again."""

    words = ["spectrum", "gen", "--model", document["model"]]
    options = ["speedup", "steps", "seed", "width", "height", "guidance", "method", "dtype"]
    options += ["image", "strength", "scheduler", "target", "quality"]
    if document.get("quality") is not None:
        options.remove("speedup")  # it was found on the way
    if document["fps"] is not None:
        options += ["frames", "fps"]
    if document["blend"] is not None:
        options.append("blend")
    if document["negative_prompt"] is not None and (document["guidance"] or 0) > 1:
        words += ["--negative-prompt", document["negative_prompt"]]
    for option in options:
        if document.get(option) is not None:  # files of earlier versions have fewer keys
            words += [f"--{option}", str(document[option])]
    for lora in document.get("loras", []):
        words += ["--lora", lora]
    for key, value in document.get("extras", {}).items():
        words += ["--set", f"{key}={json.dumps(value)}"]
    return shlex.join([*words, document["prompt"]])
