"""A denoiser that several processes share, each with a part of the tokens (diffusers' context
parallelism). What is decided by a feature is decided by the whole of it, or one process would
compute a step that another forecasts, and wait for it for ever.

The denoised sample needs none of this: what the denoiser puts out is gathered, bit by bit the same
in every process.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import nn

Norm = Callable[[torch.Tensor, float], torch.Tensor]  # of a tensor, of order 2 or infinity


def own_norm(tensor: torch.Tensor, order: float) -> torch.Tensor:
    """Of all that there is, in float32."""
    found: torch.Tensor = torch.linalg.vector_norm(tensor, order, dtype=torch.float32)
    return found


def norm_for(denoiser: nn.Module) -> Norm:
    """The norm of a denoiser's features, of which this process may have a part: the norm of the
    parts' norms."""
    config = getattr(getattr(denoiser, "_parallel_config", None), "context_parallel_config", None)
    if config is None:
        return own_norm
    group = config._flattened_mesh.get_group()

    def norm(tensor: torch.Tensor, order: float) -> torch.Tensor:
        own = own_norm(tensor, order)
        parts = [torch.empty_like(own) for _ in range(group.size())]
        dist.all_gather(parts, own, group)
        return own_norm(torch.stack(parts), order)

    return norm
