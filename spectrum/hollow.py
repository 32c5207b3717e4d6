"""A hollow forward: a denoiser without its blocks, its heads fed with given features.

Everything around the blocks runs as always: embedders, the head with this step's modulation,
unpatchify. Native torch hooks only; they stay where accelerate or diffusers replace `forward`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from spectrum.anatomy import Anatomy
from spectrum.denoiser import first_tensor

# What ControlNets and adapters add to the blocks. Without blocks it has no place to go, and some
# denoisers refuse what is left of it (HunyuanDiT).
_RESIDUALS = (
    "down_block_additional_residuals",
    "mid_block_additional_residual",
    "down_intrablock_additional_residuals",
    "controlnet_block_samples",
)


class _TakenOut(nn.ModuleList):
    """Iterates as an empty list, but still indexes: some lists hold more than blocks (HiDream)."""

    def __iter__(self) -> Iterator[nn.Module]:
        return iter(())

    def __len__(self) -> int:
        return 0

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):  # looped over as the whole is (MotifVideo)
            return _TakenOut(list(self._modules.values())[index])
        return self._modules[str(range(len(self._modules))[index])]


class _PassThrough(nn.Module):
    """In the place of a U-Net's middle block, which is one module."""

    def forward(self, *args: Any, **kwargs: Any) -> torch.Tensor | None:
        return first_tensor(args, kwargs)


@contextmanager
def hollow(
    denoiser: nn.Module, anatomy: Anatomy, features: Sequence[torch.Tensor]
) -> Iterator[None]:
    """Within the block the denoiser runs without blocks; head k is given features[k]."""
    taken = {name: denoiser.get_submodule(name) for name in anatomy.blocks}
    handles = []
    try:
        for name, part in taken.items():
            empty = _TakenOut(part) if isinstance(part, nn.ModuleList) else _PassThrough()
            denoiser._modules[name] = empty
        for head, feature in zip(anatomy.heads, features, strict=True):
            module = denoiser.get_submodule(head)
            handles.append(module.register_forward_pre_hook(_replace(feature), with_kwargs=True))
        yield
    finally:
        denoiser._modules.update(taken)
        for handle in handles:
            handle.remove()


@contextmanager
def recorded(denoiser: nn.Module, anatomy: Anatomy) -> Iterator[list[torch.Tensor]]:
    """Within the block, what the heads are given is put into the list.  # one tensor a head"""
    features: list[torch.Tensor] = []

    def record(_head: nn.Module, args: Any, kwargs: Any) -> None:
        feature = first_tensor(args, kwargs)
        assert feature is not None  # the tracer saw one there
        features.append(feature)

    handles = [
        denoiser.get_submodule(head).register_forward_pre_hook(record, with_kwargs=True)
        for head in anatomy.heads
    ]
    try:
        yield features
    finally:
        for handle in handles:
            handle.remove()


def without_residuals(kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a call, less what is added to the blocks."""
    return {name: None if name in _RESIDUALS else value for name, value in kwargs.items()}


def _replace(feature: torch.Tensor) -> Any:
    """A pre-hook that puts `feature` in the place of the first tensor argument."""

    def replace(_head: nn.Module, args: Any, kwargs: Any) -> Any:
        given = first_tensor(args, kwargs)
        if given is None:
            return None
        new = feature.to(given.dtype)
        return (
            tuple(new if x is given else x for x in args),
            {name: new if x is given else x for name, x in kwargs.items()},
        )

    return replace
