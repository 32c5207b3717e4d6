"""Weights in one file, as most are passed on: a denoiser alone, which may be in the few bits of
GGUF, or all that was trained of a Stable Diffusion. What the file lacks is loaded from where the
model's weights are otherwise."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spectrum.errors import SpectrumError, UsageError
from spectrum.pipeline.foreign import parse_json
from spectrum.pipeline.preset import Preset

if TYPE_CHECKING:
    import torch

FILES = (".safetensors", ".gguf")

# Names in checkpoints of Stable Diffusion's authors: text encoders, which are trained along with
# the U-Net; and the scales of ComfyUI's own 8 bits, without which the weights mean nothing.
_TRAINED_ALONG = ("conditioner.", "cond_stage_model.")
_SCALES = (".scale_weight", ".weight_scale", ".comfy_quant", "scaled_fp8")


def is_file(weights: Path | None) -> bool:
    return weights is not None and os.path.isfile(weights)


def check_file(preset: Preset, file: Path) -> None:
    """Raise UsageError, by the file's name and header, for one that can't be loaded for the
    preset."""
    if file.suffix not in FILES:
        raise UsageError(
            f"{file}: `weights` takes a folder, or a file in .safetensors or .gguf; others can run"
            " code"
        )
    if "transformer_2" in preset.parameters:
        raise UsageError(
            f"{preset.name} has two denoisers, and {file.name} holds one; give a folder of both as"
            " `weights`"
        )
    if is_gguf(file):
        _check_gguf(file)
        return
    names = shapes_in(file)
    if not names:
        raise UsageError(f"{file}: no weights in .safetensors, or cut off; download it again")
    if all("lora" in name.lower() for name in names):
        raise UsageError(f"{file}: a LoRA, which changes a model's weights; give it as `loras`")
    if any(name.endswith(_SCALES) for name in names):
        raise UsageError(
            f"{file}: 8 bits with scales that only ComfyUI reads; take the same model in bfloat16,"
            " in plain fp8 or in .gguf"
        )


def _check_gguf(file: Path) -> None:
    with file.open("rb") as opened:
        if opened.read(4) != b"GGUF":
            raise UsageError(f"{file}: not in GGUF; download it again")
    if find_spec("gguf") is None:
        raise UsageError(f"{file}: needs gguf; `pip install 'spectrum-diffusion[gguf]'`")


def is_gguf(file: Path | None) -> bool:
    return file is not None and file.suffix == ".gguf"


def shapes_in(path: Path) -> dict[str, list[int]] | None:
    """Name and shape of each tensor in a safetensors file, by its header; None for one that can't
    be read."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = parse_json(file.read(length)) if length < path.stat().st_size else {}
        return {name: t["shape"] for name, t in header.items() if name != "__metadata__"}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def holds_all(file: Path) -> bool:
    """Whether it is a checkpoint of a Stable Diffusion with text encoders and autoencoder."""
    return any(name.startswith(_TRAINED_ALONG) for name in shapes_in(file) or ())


def load_denoiser(file: Path, cls: Any, place: str, settings: dict[str, Any]) -> dict[str, Any]:
    """The denoiser that a file holds, by its component's name, as `cls.from_pretrained` takes it.

    place: folder or hub id of the whole pipeline, whose configuration of the denoiser is taken.
    settings: those of `cls.from_pretrained`. Raises UsageError and SpectrumError.
    """
    import diffusers

    from spectrum.denoiser import DENOISERS

    offline = settings["local_files_only"]
    index = cls.load_config(place, local_files_only=offline)
    names = [name for name in DENOISERS if (index.get(name) or [None])[0]]
    if len(names) != 1:
        raise UsageError(f"{file}: {place} has not one denoiser but {len(names)}; give a folder")
    (name,) = names
    kind: Any = getattr(diffusers, index[name][1], None)
    if not hasattr(kind, "from_single_file"):
        raise UsageError(
            f"{file}: diffusers loads no {index[name][1]} from one file; give a folder as `weights`"
        )
    dtype = settings["dtype"].get(name, settings["dtype"]["default"])
    more = {"quantization_config": bits} if (bits := _bits(file, name, dtype, settings)) else {}
    try:
        denoiser = kind.from_single_file(
            str(file), config=place, subfolder=name, dtype=dtype, local_files_only=offline, **more
        )
    except Exception as error:  # each class has a converter of its own, which raise what they like
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise SpectrumError(
            f"{file}: can't be loaded into {kind.__name__} (is it for another model?): {reason}"
        ) from error
    if missing := [key for key, value in denoiser.state_dict().items() if value.is_meta]:
        named = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if missing[3:] else "")
        raise SpectrumError(
            f"{file}: weights of {kind.__name__} are missing (is it for another model?): {named}"
        )
    return {name: denoiser}


def load_all(file: Path, cls: Any, place: str, settings: dict[str, Any]) -> Any:
    """A pipeline of which all that was trained is in the file. As `load_denoiser`."""
    if settings.get("quantization_config"):
        raise UsageError(f"{file}: `quantize` is for a denoiser's file, or a folder; leave it")
    if not hasattr(cls, "from_single_file"):
        raise UsageError(f"{file}: diffusers loads no {cls.__name__} from one file; give a folder")
    dtypes = dict(settings["dtype"])
    try:
        pipe = cls.from_single_file(
            str(file), config=place, dtype=dtypes.pop("default"),
            local_files_only=settings["local_files_only"],
        )  # fmt: skip
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise SpectrumError(
            f"{file}: can't be loaded into {cls.__name__} (is it for another model?): {reason}"
        ) from error
    for name, dtype in dtypes.items():
        getattr(pipe, name).to(dtype)
    return pipe


def _bits(file: Path, name: str, dtype: torch.dtype, settings: dict[str, Any]) -> Any:
    """How its weights are stored: as GGUF has it, or as `quantize` asks for."""
    from diffusers import GGUFQuantizationConfig

    if is_gguf(file):
        return GGUFQuantizationConfig(compute_dtype=dtype)
    asked = settings.get("quantization_config")
    return asked.quant_mapping.get(name) if asked else None
