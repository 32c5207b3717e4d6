"""The denoisers of published models at their own size or smaller, with random weights.

Speed does not depend on the weights' values. Configurations are those that the models' repositories
on the hub publish, written out in `full_size_configs.json`, each with its source; sizes of pictures
and guidance are the presets'. Text encoders and decoders are left out: prompts are random
embeddings, and what comes out are latents.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import diffusers
import torch
from torch import Tensor, nn

from spectrum.pipeline.catalog import find_preset

Scale = Literal["full", "small", "tiny"]
CONFIGS = Path(__file__).parent / "full_size_configs.json"
SEED = 0


@dataclass(frozen=True)
class Model:
    """A pipeline, and the arguments of its call but for the number of steps."""

    name: str
    pipe: Any
    denoiser: nn.Module
    arguments: dict[str, Any]


@cache
def configs() -> dict[str, dict[str, Any]]:
    """By the preset's name."""
    found: dict[str, dict[str, Any]] = json.loads(CONFIGS.read_text(encoding="utf-8"))
    return found


def build(
    name: str, scale: Scale, device: torch.device, dtype: torch.dtype, **changes: Any
) -> Model:
    """A model at a scale, made on the device; `changes` are of the denoiser's configuration."""
    entry, preset = configs()[name], find_preset(name)
    torch.manual_seed(SEED)
    denoiser = make_denoiser(name, scale, device, dtype, **changes)
    scheduler = getattr(diffusers, entry["scheduler"])(**entry["scheduler_config"])
    cls = getattr(diffusers, preset.pipeline)
    missing = {
        key: None
        for key, parameter in inspect.signature(cls).parameters.items()
        if parameter.default is inspect.Parameter.empty
    }
    pipe = cls(**missing | {entry["component"]: denoiser, "scheduler": scheduler})
    pipe.set_progress_bar_config(disable=True)
    arguments = _sizes(name, scale) | _prompt(name, scale, device, dtype)
    return Model(name, pipe, denoiser, arguments)


def make_denoiser(
    name: str, scale: Scale, device: torch.device, dtype: torch.dtype, **changes: Any
) -> nn.Module:
    """As `from_pretrained` leaves it, but for the values: those that diffusers begins with, small
    enough to stay finite through all blocks."""
    entry = configs()[name]
    cls: Any = getattr(diffusers, entry["class"])
    config = entry["config"] | entry["scales"].get(scale, {}).get("config", {}) | changes
    with _made_in(dtype), device:
        denoiser: nn.Module = cls(**config)
    kept = set(getattr(denoiser, "_keep_in_fp32_modules", None) or ())
    for part, weight in denoiser.named_parameters():
        if kept & set(part.split(".")):
            weight.data = weight.data.float()
    return denoiser.eval().requires_grad_(False)


@contextmanager
def _made_in(dtype: torch.dtype) -> Iterator[None]:
    usual = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(usual)


def _sizes(name: str, scale: Scale) -> dict[str, Any]:
    """Of the picture or film, and its guidance."""
    preset, smaller = find_preset(name), configs()[name]["scales"].get(scale, {})
    assert preset.size is not None
    assert preset.guidance is not None
    sizes = {
        "width": smaller.get("width", preset.size.width),
        "height": smaller.get("height", preset.size.height),
        preset.guidance.argument: preset.guidance.scale,
    }
    if preset.video is not None:
        sizes["num_frames"] = smaller.get("frames", preset.video.frames)
    return sizes


def _prompt(name: str, scale: Scale, device: torch.device, dtype: torch.dtype) -> dict[str, Tensor]:
    """Random embeddings of one prompt.  # [1, tokens, D]; pooled ones [1, D]"""
    entry = configs()[name]
    tokens = entry["scales"].get(scale, {}).get("tokens", entry["tokens"])
    shapes = {key: (1, tokens, width) for key, width in entry["embeds"].items()}
    shapes |= {key: (1, width) for key, width in entry["pooled"].items()}
    prompt = {key: torch.randn(shape, device=device, dtype=dtype) for key, shape in shapes.items()}
    if "mask" in entry:
        prompt[entry["mask"]] = torch.ones(1, tokens, device=device, dtype=dtype)
    return prompt
