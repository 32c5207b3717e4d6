"""Where a denoiser's blocks and heads are, found by watching one computed forward."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from spectrum.denoiser import first_tensor, tensors_of
from spectrum.errors import UsageError


@dataclass(frozen=True)
class Anatomy:
    """The parts of a denoiser that the hollow forward needs, by name.

    `blocks` are the lists whose blocks run (FLUX: transformer_blocks, single_transformer_blocks),
    and a U-Net's mid_block. `heads` are the modules that are given what the last block put out,
    as their first argument (FLUX, Wan: norm_out; U-Nets: conv_norm_out; LTX-2: norm_out and
    audio_norm_out).
    """

    blocks: tuple[str, ...]
    heads: tuple[str, ...]


class Tracer:
    """Watches the parts of a denoiser during one forward; a context manager.

    Block lists are the ModuleLists of which a member was called. The head is the first part called
    after the last block; another part called later is a second head if it was given a tensor that
    the last block itself put out. `features` is what the heads were given.
    """

    def __init__(self, denoiser: nn.Module) -> None:
        self.features: list[torch.Tensor] = []
        self._denoiser = denoiser
        self._blocks: dict[str, None] = {}  # an ordered set
        self._heads: list[str] = []
        self._last_block_output: list[torch.Tensor] = []
        self._handles: list[Any] = []

    def __enter__(self) -> Tracer:
        for name, child in self._denoiser.named_children():
            if isinstance(child, nn.ModuleList) or name == "mid_block":
                for block in child if isinstance(child, nn.ModuleList) else [child]:
                    self._handles.append(block.register_forward_hook(self._block_hook(name)))
            else:
                for part, module in _parts(name, child):
                    hook = self._part_hook(part)
                    handle = module.register_forward_pre_hook(hook, with_kwargs=True)
                    self._handles.append(handle)
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()
        self._last_block_output = []

    def _block_hook(self, name: str) -> Any:
        def hook(_block: nn.Module, _args: Any, output: Any) -> None:
            self._blocks[name] = None
            self._heads, self.features = [], []
            self._last_block_output = list(tensors_of(output))

        # or it would be compiled along with its block
        return torch.compiler.disable(hook)  # type: ignore[no-untyped-call]

    def _part_hook(self, name: str) -> Any:
        def hook(_part: nn.Module, args: Any, kwargs: Any) -> None:
            given = first_tensor(args, kwargs)
            if not self._blocks or given is None:
                return
            if not self._heads or (
                name not in self._heads
                and any(given is x for x in self._last_block_output)
                and all(given is not x for x in self.features)
            ):
                self._heads.append(name)
                self.features.append(given)

        return hook

    @property
    def blocks(self) -> tuple[str, ...]:
        """The block lists of which a member was called."""
        return tuple(self._blocks)

    def anatomy(self) -> Anatomy:
        """What was seen. Raises UsageError with the reason for a denoiser that can't be carried."""
        problem = None
        if not self._blocks:
            problem = "none of its blocks is in a list at the top level"
        elif not self._heads:
            problem = "nothing runs after its last block"
        if problem:
            raise cannot_carry(self._denoiser, problem)
        return Anatomy(tuple(self._blocks), tuple(self._heads))


def cannot_carry(denoiser: nn.Module, problem: str) -> UsageError:
    """The error for a denoiser whose hidden feature can't be forecast."""
    return UsageError(
        f"the feature of {type(denoiser).__name__} can't be forecast: {problem}; use speedup 1"
    )


def _parts(name: str, child: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """A direct child; or the members of a ModuleDict, which itself is never called (Z-Image)."""
    if isinstance(child, nn.ModuleDict):
        for key, member in child.items():
            yield f"{name}.{key}", member
    else:
        yield name, child
