"""How near pictures are to a reference: PSNR, SSIM and, where its weights are here, LPIPS.

The figures are computed in float32 on pictures in [0, 1] before they are rounded to 8 bits, which
would put two nearly equal pictures 56 dB apart; to the eye all above 50 dB or so are the same. Of a
video each is the mean over its frames.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from spectrum.errors import UsageError
from spectrum.pipeline.media import Pixels

# Decibels of equal pictures, whose error has no logarithm: a mean squared error of 1e-12.
PSNR_LIMIT = 120.0

# Frames at a time: SSIM holds five filtered copies of each.
_BATCH = 8

# AlexNet as torchvision downloads it, and the smallest picture that it takes.
_LPIPS_WEIGHTS, _LPIPS_PIXELS = "alexnet-owt-7be5be79.pth", 32


@dataclass(frozen=True)
class Likeness:
    """One picture or video against its reference."""

    psnr: float  # dB, range 1, at most PSNR_LIMIT
    ssim: float  # 1: equal
    lpips: float | None  # 0: equal; None where it can't be had


@dataclass(frozen=True)
class Spread:
    """A mean and its standard error, which takes two values."""

    mean: float
    error: float | None


def likeness(frames: Pixels, reference: Pixels) -> Likeness:
    """Means over the frames. Raises UsageError where the shapes differ.  # [F, H, W, 3] both"""
    from torchmetrics.functional.image import structural_similarity_index_measure

    if frames.shape != reference.shape:
        raise UsageError(
            f"`frames` of {frames.shape} can't be compared to `reference` of {reference.shape}"
        )
    ssim, lpips = [], []
    network = _lpips() if has_lpips() and min(frames.shape[1:3]) >= _LPIPS_PIXELS else None
    for start in range(0, len(frames), _BATCH):
        ours, theirs = (_channels_first(x[start : start + _BATCH]) for x in (frames, reference))
        similar = structural_similarity_index_measure(
            ours, theirs, data_range=1.0, reduction="none"
        )
        assert isinstance(similar, torch.Tensor)
        ssim += similar.reshape(-1).tolist()  # of one frame it is a number without a dimension
        if network is not None:
            with torch.inference_mode():
                lpips += [
                    float(network(a[None], b[None])) for a, b in zip(ours, theirs, strict=True)
                ]
            network.reset()
    return Likeness(psnr(frames, reference), _mean(ssim), _mean(lpips) if lpips else None)


def psnr(frames: Pixels, reference: Pixels) -> float:
    """Decibels of range 1, at most PSNR_LIMIT, the mean over the frames.  # [F, H, W, 3] both"""
    from torchmetrics.functional.image import peak_signal_noise_ratio

    ours, theirs = _channels_first(frames), _channels_first(reference)
    decibels = peak_signal_noise_ratio(
        ours, theirs, data_range=1.0, reduction="none", dim=(1, 2, 3)
    )
    return float(decibels.clamp(max=PSNR_LIMIT).mean())


def spread(values: Sequence[float]) -> Spread:
    """Mean and standard error of at least one value."""
    mean, count = _mean(values), len(values)
    if count < 2:
        return Spread(mean, None)
    variance = sum((value - mean) ** 2 for value in values) / (count - 1)
    return Spread(mean, math.sqrt(variance / count))


def has_lpips() -> bool:
    """Whether LPIPS can be computed without a download: torchvision and its AlexNet are here."""
    weights = Path(torch.hub.get_dir()) / "checkpoints" / _LPIPS_WEIGHTS
    return weights.is_file() and _has_torchvision()


@cache
def _has_torchvision() -> bool:
    try:
        import_module("torchvision")
    except Exception:  # one that was built for another torch raises what it likes
        return False
    return True


@cache
def _lpips() -> Any:
    from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

    return LearnedPerceptualImagePatchSimilarity(net_type="alex", normalize=True)


def _channels_first(frames: Pixels) -> torch.Tensor:
    """[F, H, W, 3] to [F, 3, H, W]."""
    return torch.from_numpy(frames).permute(0, 3, 1, 2).float()


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
