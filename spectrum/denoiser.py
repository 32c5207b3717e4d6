"""A pipeline's denoisers, and what can be told from how they are called."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import prod
from typing import Any

import torch
from torch import nn

from spectrum.errors import UsageError
from spectrum.timeline import predicts_noise

# Components of a pipeline that are called once or more a step. Two of them take over from each
# other (Wan2.2) or are both called in every step.
DENOISERS = ("transformer", "transformer_2", "unconditional_transformer", "unet")


def find_denoisers(pipe: Any) -> dict[str, nn.Module]:
    """The pipeline's denoisers by name. Raises UsageError where there is none that we can carry."""
    found = {
        name: module
        for name in DENOISERS
        if isinstance(module := getattr(pipe, name, None), nn.Module)
    }
    if not found:
        raise UsageError(
            f"{type(pipe).__name__} has no denoiser that Spectrum knows ({', '.join(DENOISERS)})"
        )
    for name, module in found.items():
        if hasattr(module, "_orig_mod"):
            raise UsageError(
                f"the {name} is compiled as a whole, so no block can be skipped;"
                f" use pipe.{name}.compile_repeated_blocks() instead of torch.compile"
            )
    return found


def is_epsilon(pipe: Any) -> bool:
    """Whether its model predicts the noise, as its scheduler tells."""
    return predicts_noise(type(pipe.scheduler).__name__, pipe.scheduler.config)


def positions(denoiser: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> int:
    """Latent positions of one sample that the denoiser is called with: of [B, C, H, W] or
    [B, C, F, H, W] the patches, of [B, tokens, C] the tokens; 0 where its config doesn't tell.

    Latents may come as a list of samples without a batch dimension (Z-Image). A U-Net's are counted
    as if they came in patches of 2, as those of nearly all transformers do.
    """
    config: Any = getattr(denoiser, "config", {})
    latents = next((x for x in (*args, *kwargs.values()) if isinstance(x, torch.Tensor | list)), 0)
    if isinstance(latents, list):
        latents = latents[0][None] if latents and isinstance(latents[0], torch.Tensor) else 0
    channels = config.get("in_channels") or config.get("in_visual_dim")
    if not isinstance(latents, torch.Tensor) or not isinstance(channels, int):
        return 0
    if config.get("visual_cond"):  # Kandinsky: conditions beside the latents, and a mask
        channels = 2 * channels + 1
    if latents.ndim == 3:
        return int(latents.shape[1])
    return max(1, latents[0].numel() // (channels * _patch(config)))


def tokens_of(denoiser: nn.Module, sample: Any) -> int:
    """Tokens of a sample [B, tokens, C] that goes to the denoiser as it is; 0 for one that is laid
    out otherwise."""
    packed = isinstance(sample, torch.Tensor) and sample.ndim == 3
    channels = getattr(denoiser, "config", {}).get("in_channels")
    return int(sample.shape[1]) if packed and sample.shape[2] == channels else 0


def _patch(config: Mapping[str, Any]) -> int:
    """Latent pixels of one token."""
    size = config.get("patch_size") or next(iter(config.get("all_patch_size") or ()), 2)
    if isinstance(size, int):
        return size * size * int(config.get("patch_size_t") or 1)
    return prod(size)


def storage_dtype(denoiser: nn.Module, feature: torch.Tensor) -> torch.dtype:
    """The model's dtype; where that is a storage format of 8 bits or less, the feature's."""
    dtype = getattr(denoiser, "dtype", feature.dtype)
    return dtype if dtype in (torch.float32, torch.bfloat16, torch.float16) else feature.dtype


def tensors_of(value: Any) -> Iterator[torch.Tensor]:
    """All tensors in a nest of tuples, lists and mappings, in order."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from tensors_of(item)
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from tensors_of(item)


def first_tensor(args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.Tensor | None:
    """The first tensor among the arguments: by convention of diffusers, the hidden states."""
    return next(tensors_of([*args, *kwargs.values()]), None)
