"""Where a model's weights are: the package, a folder, the hub's cache; and beside one of these, a
file that holds some of them (`spectrum.pipeline.onefile`)."""

from __future__ import annotations

import os
import re
from pathlib import Path
from threading import Thread
from typing import Any

from spectrum.errors import SpectrumError, UsageError
from spectrum.pipeline.foreign import parse_json, read_text
from spectrum.pipeline.onefile import FILES, check_file, is_file, shapes_in
from spectrum.pipeline.preset import Preset

_PATIENCE = 5  # seconds for the hub to say anything, unless HF_HUB_ETAG_TIMEOUT has others


def weights_folder(preset: Preset, weights: Path | None) -> Path | None:
    """The folder to load from, checked; None: the hub. Of a file, which is checked too, the folder
    that the rest is loaded from."""
    if weights is not None and is_file(weights):
        check_file(preset, weights)
        weights = None
    folder = weights or preset.embedded_folder
    if folder is None and os.path.isdir(preset.weights):
        folder = Path(preset.weights)
    if folder is not None:
        check_folder(preset, folder)
    return folder


def weights_here(preset: Preset, weights: Path | None) -> Path | None:
    """The same, or the folder in the hub's cache; None: they have yet to come from the hub."""
    return weights_folder(preset, weights) or _hub_folder(preset)


def check_folder(preset: Preset, folder: Path) -> None:
    """Raise UsageError unless `folder` holds a whole pipeline of the preset's class."""
    if re.match(r"\w+:/", str(folder)):
        one = folder.suffix in FILES
        raise UsageError(
            f"{folder.name}: `weights` takes what is on this machine, no address; "
            + ("get the file by `hf download`" if one else "give an id of the hub as `model`")
        )
    if not os.path.isfile(folder / "model_index.json"):
        if folder.suffix in FILES:
            raise UsageError(f"{folder}: no such file")
        raise UsageError(
            f"{folder}: no model_index.json in it; `weights` takes a folder of a whole pipeline,"
            " as save_pretrained writes it, or a file in .safetensors or .gguf"
        )
    found, components = read_index(folder / "model_index.json")
    if found != preset.pipeline:
        raise UsageError(
            f"{folder} holds a {found}, but {preset.name} is a {preset.pipeline};"
            " give the `model` that these weights belong to"
        )
    if missing := [name for name in components if not os.path.isdir(folder / name)]:
        raise UsageError(f"{folder}: {', '.join(missing)} missing; download the folder again")
    for name in components:
        files = list((folder / name).glob("*")) if os.path.isdir(folder / name) else []
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
    if folder is None or index is None or not os.path.isfile(index):
        return False
    try:
        return all(os.path.isdir(folder / name) for name in read_index(index)[1])
    except UsageError:
        return False


def component_names(preset: Preset, folder: Path | None) -> dict[str, str]:
    """The model's components and their classes, by its index; empty if that isn't here yet."""
    place = folder or _hub_folder(preset)
    if place is None:
        return dict.fromkeys(preset.parameters, "")
    return read_index(place / "model_index.json")[1]


def read_index(path: Path) -> tuple[str, dict[str, str]]:
    """A pipeline's class, and its components with their classes. Raises UsageError for a file that
    doesn't say that."""
    wrong = UsageError(f"{path}: not a pipeline's index; download it again")
    try:
        content = parse_json(read_text(path))
    except ValueError as error:
        raise wrong from error
    name = content.get("_class_name") if isinstance(content, dict) else None
    if isinstance(name, list):
        raise UsageError(f"{path}: the pipeline brings code of its own, which is not run")
    if not isinstance(name, str):
        raise wrong
    pairs = {k: v for k, v in content.items() if isinstance(v, list) and len(v) == 2}
    # of a library and a class; of numbers it is a setting (Krea 2), of nulls nothing
    found = {part: cls for part, (library, cls) in pairs.items() if isinstance(library, str)}
    if not all(isinstance(cls, str) and Path(part).name == part for part, cls in found.items()):
        raise wrong
    return name, found


def tensor_shapes(component: Path) -> dict[str, list[int]]:
    """Name and shape of each tensor in a folder's safetensors files, by their headers; variants of
    the same weights and files that can't be read left out: loading will say what is wrong."""
    shapes: dict[str, list[int]] = {}
    for path in sorted(component.glob("*.safetensors")):
        if ".fp16" not in path.name and ".bf16" not in path.name:
            shapes |= shapes_in(path) or {}
    return shapes


def check_complete(name: str, module: Any, folder: Path) -> None:
    """Raise SpectrumError if a component's files lack some of its weights: what loads it would
    make them up. Not told of files whose names are others than the component's own."""
    stored = tensor_shapes(folder / name).keys()
    own = module.state_dict(keep_vars=True)
    if not stored or stored - own.keys() or getattr(module, "hf_quantizer", None):
        return
    there = {own[key].data_ptr() for key in stored}  # tied weights are stored once
    missing = [key for key in own.keys() - stored if own[key].data_ptr() not in there]
    if missing:
        named = ", ".join(sorted(missing)[:3])
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise SpectrumError(
            f"{folder / name}: weights are missing: {named}{more}; download the folder again"
        )


# -- the hub -------------------------------------------------------------------------------------


def check_reachable(preset: Preset, weights: Path | None) -> None:
    """Raise SpectrumError where nothing of the weights is here and the hub can't be reached: to be
    told before what takes long to import."""
    if weights_here(preset, weights) is None and not hub_answers(preset.weights):
        raise SpectrumError(not_here(preset, "can't be reached"))


def hub_answers(model: str) -> bool:
    """Whether the hub, or the mirror of HF_ENDPOINT, says anything of a model within seconds.

    What downloads would try again for half a minute, and wait for ever for one that is silent.
    """
    from huggingface_hub import constants, errors, model_info

    if constants.HF_HUB_OFFLINE:
        return False
    by_user = "HF_HUB_ETAG_TIMEOUT" in os.environ
    seconds = constants.HF_HUB_ETAG_TIMEOUT if by_user else _PATIENCE
    answers: list[bool] = []

    def ask() -> None:
        try:
            model_info(model, timeout=seconds)
            answers.append(True)
        except errors.HfHubHTTPError:
            answers.append(True)  # if a refusal
        except Exception:  # whatever a network's libraries raise
            answers.append(False)

    # Looking up the address takes its own time, whatever time-out the request has.
    thread = Thread(target=ask, daemon=True)
    thread.start()
    thread.join(seconds)
    return answers == [True]


def not_here(preset: Preset, hub: str) -> str:
    """What to do where the weights are not on this machine and the hub has not given them.

    hub: what it did instead.
    """
    license = ""
    if preset.gated:
        license = (
            f" (first accept its licence at https://huggingface.co/{preset.weights}"
            " and run `hf auth login`)"
        )
    return (
        f"{preset.name}: its weights are not on this machine and the hub {hub}; run"
        f" `hf download {preset.weights}`{license}, or point `weights` at a folder that has them"
    )


def _hub_folder(preset: Preset) -> Path | None:
    """The model's folder in the hub's cache, if it was ever downloaded."""
    from huggingface_hub import try_to_load_from_cache

    index = try_to_load_from_cache(preset.weights, "model_index.json")
    return Path(index).parent if isinstance(index, str) else None
