"""`spectrum show`: what a file says of how it was made."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from spectrum_cli.output import emit_json, say

# Keys that are an option's name and value. Offloading is left out: it decides no pixel.
VALUES = (
    "speedup", "steps", "seed", "width", "height", "frames", "fps", "guidance", "method", "blend",
    "target", "quality", "image", "strength", "scheduler", "weights", "device", "dtype",
    "quantize", "attention",
)  # fmt: skip


def show(
    file: Annotated[Path, typer.Argument(help="A PNG or MP4 that spectrum wrote.")],
) -> None:
    """Print how a file was made, as JSON, and the command that makes it again."""
    from spectrum.pipeline.media import read_metadata

    document = read_metadata(file)
    emit_json(document, indent=2)
    say(f"again: {command(document)}")


def command(document: dict[str, Any]) -> str:
    """The command line that makes the same file again; earlier versions wrote fewer keys."""
    words = ["spectrum", "gen", "--model", document["model"]]
    skipped = _skipped(document)
    for option in VALUES:
        if document.get(option) is not None and option not in skipped:
            words += [f"--{option}", str(document[option])]
    if document["negative_prompt"] is not None and "negative_prompt" not in skipped:
        words += ["--negative-prompt", document["negative_prompt"]]
    for lora in document.get("loras", []):
        words += ["--lora", lora]
    for key, value in document.get("extras", {}).items():
        words += ["--set", f"{key}={json.dumps(value)}"]
    if (tiling := document.get("vae_tiling")) is not None:
        words.append("--vae-tiling" if tiling else "--no-vae-tiling")
    if document.get("compile"):
        words.append("--compile")
    return shlex.join([*words, document["prompt"]])


def _skipped(document: dict[str, Any]) -> set[str]:
    """What is in the document, but that `gen` would find by itself, or refuse."""
    skipped = set()
    if document.get("quality") is not None:
        skipped.add("speedup")  # it was found on the way
    if document["fps"] is None:
        skipped.add("frames")
    if document["frames"] == 1:
        skipped.add("fps")  # that makes a PNG
    if document["guidance"] is not None and document["guidance"] <= 1:
        skipped.add("negative_prompt")
    if document.get("weights") == _own_weights(document["model"]):
        skipped.add("weights")
    return skipped


def _own_weights(model: str) -> str:
    """Those of the preset, if it is here; a model without one is its own weights."""
    from spectrum.pipeline.catalog import preset_paths
    from spectrum.pipeline.preset import read_preset

    path = preset_paths().get(model, Path(model))
    return read_preset(path).weights if path.is_file() else model
