"""From a preset to a pipeline on a device: the package's own weights, a folder, or the hub."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spectrum.errors import SpectrumError, UsageError
from spectrum.preset import Dtype, Preset

if TYPE_CHECKING:
    import torch


def choose_device(name: str = "auto") -> torch.device:
    """The named torch device; `auto` is cuda, else mps, else cpu. Raises UsageError if absent."""
    import torch

    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cuda", "mps", "cpu"):
        raise UsageError(f"no device {name!r}; there are auto, cuda, cuda:N, mps and cpu")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        have = torch.cuda.device_count()
        raise UsageError(f"{name}: this machine has {have or 'no'} CUDA device; try --device cpu")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise UsageError("mps: this machine has no Apple GPU; try --device cpu")
    return device


def load_pipeline(
    preset: Preset,
    device: torch.device,
    *,
    dtype: Dtype | None = None,
    weights: Path | None = None,
) -> Any:
    """The preset's diffusers pipeline, ready on `device`.

    `dtype` replaces the preset's, but not those that it gives single components. `weights` is a
    folder written by `save_pretrained`, taken instead of the hub. Safetensors only. Raises
    UsageError for a folder that can't be this model and SpectrumError for weights that can't be
    had.
    """
    folder = weights or preset.embedded_folder
    if folder is not None:
        check_folder(preset, folder)
    import diffusers
    import torch

    default = dtype or preset.dtype
    names = {"default": default, **preset.dtypes}
    dtypes = {component: getattr(torch, name) for component, name in names.items()}
    cls = getattr(diffusers, preset.pipeline, None)
    if cls is None:
        raise UsageError(f"{preset.path}: pipeline: diffusers has no {preset.pipeline}")
    try:
        pipe = cls.from_pretrained(folder or preset.weights, dtype=dtypes, use_safetensors=True)
    except Exception as error:
        # Whatever diffusers, transformers, safetensors and the hub raise: their kinds differ
        # between releases, the user's remedy does not.
        raise SpectrumError(_loading_failed(preset, folder, error)) from error
    if preset.scheduler is not None:
        scheduler = getattr(diffusers, preset.scheduler.name)
        pipe.scheduler = scheduler.from_config(pipe.scheduler.config, **preset.scheduler.settings)
    pipe.set_progress_bar_config(disable=True)
    return pipe.to(device)


def check_folder(preset: Preset, folder: Path) -> None:
    """Raise UsageError unless `folder` holds a whole pipeline of the preset's class."""
    index = folder / "model_index.json"
    if not index.is_file():
        raise UsageError(
            f"{folder}: no model_index.json in it; --weights takes a folder of a whole pipeline,"
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
            " give the --model that these weights belong to"
        )
    if missing := _missing_components(content, folder):
        raise UsageError(f"{folder}: {', '.join(missing)} missing; download the folder again")


def on_this_machine(preset: Preset) -> bool:
    """Whether the preset's weights can be loaded without the hub."""
    folder = preset.embedded_folder or _hub_folder(preset)
    index = folder / "model_index.json" if folder else None
    if folder is None or index is None or not index.is_file():
        return False
    return not _missing_components(json.loads(index.read_text(encoding="utf-8")), folder)


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


def _loading_failed(preset: Preset, folder: Path | None, error: Exception) -> str:
    reason = " ".join(str(error).split()) or type(error).__name__
    if folder is not None:
        return f"{folder}: the weights can't be loaded: {reason}"
    if on_this_machine(preset):
        return f"{preset.weights}: the weights on this machine can't be loaded: {reason}"
    license = ""
    if preset.gated:
        license = (
            f" (first accept its licence at https://huggingface.co/{preset.weights}"
            " and run `hf auth login`)"
        )
    return (
        f"{preset.name}: its weights are not on this machine and the hub gave none"
        f" ({type(error).__name__}); run `hf download {preset.weights}`{license},"
        " or point --weights at a folder that has them"
    )
