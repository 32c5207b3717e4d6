"""How many latent positions a run has: the tokens of a transformer.

A U-Net has no tokens; its latents are counted as if they came in patches of 2, as those of nearly
all transformers do.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

import torch
from torch import nn


def positions(denoiser: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> int:
    """Latent positions of one sample that the denoiser is called with: of [B, C, H, W] or
    [B, C, F, H, W] the patches, of [B, tokens, C] the tokens; 0 where its config doesn't tell.

    Latents may come as a list of samples without a batch dimension (Z-Image).
    """
    config: Any = getattr(denoiser, "config", {})
    latents = next((x for x in (*args, *kwargs.values()) if isinstance(x, torch.Tensor | list)), 0)
    if isinstance(latents, list):
        latents = latents[0][None] if latents and isinstance(latents[0], torch.Tensor) else 0
    channels = config.get("in_channels") or config.get("in_visual_dim")
    if not isinstance(latents, torch.Tensor) or not isinstance(channels, int):
        return 0
    if latents.ndim == 3:
        return int(latents.shape[1])
    return max(1, latents[0].numel() // (channels * _patch(config)))


def _patch(config: Mapping[str, Any]) -> int:
    """Latent pixels of one token."""
    size = config.get("patch_size") or next(iter(config.get("all_patch_size") or ()), 2)
    if isinstance(size, int):
        return size * size * int(config.get("patch_size_t") or 1)
    return prod(size)
