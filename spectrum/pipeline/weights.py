"""Where a model's weights are: the package, a folder, or the hub's cache."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from spectrum.errors import UsageError
from spectrum.pipeline.preset import Preset


def weights_folder(preset: Preset, weights: Path | None) -> Path | None:
    """The folder to load from, checked; None: the hub."""
    folder = weights or preset.embedded_folder
    if folder is None and Path(preset.weights).is_dir():
        folder = Path(preset.weights)
    if folder is not None:
        check_folder(preset, folder)
    return folder


def check_folder(preset: Preset, folder: Path) -> None:
    """Raise UsageError unless `folder` holds a whole pipeline of the preset's class."""
    index = folder / "model_index.json"
    if not index.is_file():
        raise UsageError(
            f"{folder}: no model_index.json in it; `weights` takes a folder of a whole pipeline,"
            " as save_pretrained writes it"
        )
    try:
        content = json.loads(index.read_text(encoding="utf-8"))
        found = content["_class_name"]
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{index}: not a pipeline's index; download the folder again") from error
    if found != preset.pipeline:
        raise UsageError(
            f"{folder} holds a {found}, but {preset.name} is a {preset.pipeline};"
            " give the `model` that these weights belong to"
        )
    if missing := _missing_components(content, folder):
        raise UsageError(f"{folder}: {', '.join(missing)} missing; download the folder again")
    for name in content:
        files = list((folder / name).glob("*")) if (folder / name).is_dir() else []
        suffixes = {file.suffix for file in files}
        if suffixes & {".bin", ".ckpt", ".pt", ".pth"} and ".safetensors" not in suffixes:
            raise UsageError(
                f"{folder / name}: its weights are not in .safetensors, and other files can run"
                " code; load it where you trust it and save it by save_pretrained"
            )


def on_this_machine(preset: Preset) -> bool:
    """Whether the preset's weights can be loaded without the hub."""
    folder = preset.embedded_folder or _hub_folder(preset)
    index = folder / "model_index.json" if folder else None
    if folder is None or index is None or not index.is_file():
        return False
    return not _missing_components(json.loads(index.read_text(encoding="utf-8")), folder)


def component_names(preset: Preset, folder: Path | None) -> dict[str, str]:
    """The model's components and their classes, by its index; empty if that isn't here yet."""
    place = folder or _hub_folder(preset)
    if place is None:
        return dict.fromkeys(preset.parameters, "")
    index = json.loads((place / "model_index.json").read_text(encoding="utf-8"))
    return {
        name: entry[1]
        for name, entry in index.items()
        if isinstance(entry, list) and entry[0] is not None
    }


def _missing_components(index: dict[str, Any], folder: Path) -> list[str]:
    return [
        name
        for name, entry in index.items()
        if isinstance(entry, list) and entry[0] is not None and not (folder / name).is_dir()
    ]


def _hub_folder(preset: Preset) -> Path | None:
    """The model's folder in the hub's cache, if it was ever downloaded."""
    from huggingface_hub import try_to_load_from_cache

    index = try_to_load_from_cache(preset.weights, "model_index.json")
    return Path(index).parent if isinstance(index, str) else None
