"""Where a denoiser's blocks and head are, found by watching one computed forward."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from spectrum.errors import UsageError


@dataclass(frozen=True)
class Anatomy:
    """The parts of a denoiser that the hollow forward needs.

    `block_lists` are the names of the ModuleLists whose blocks run (FLUX: transformer_blocks,
    single_transformer_blocks); `head` is the name of the first module that runs after the last
    block, whose first argument is the feature that is forecast (FLUX, Wan: norm_out).
    """

    block_lists: tuple[str, ...]
    head: str


class Tracer:
    """Watches the direct children of a denoiser during one forward.

    Block lists are the top-level ModuleLists of which a member was called; the head is the first
    direct child called after the last block. `feature` is what the head was given.
    """

    def __init__(self, denoiser: nn.Module) -> None:
        self.feature: torch.Tensor | None = None
        self._name = type(denoiser).__name__
        self._block_lists: dict[str, None] = {}  # an ordered set
        self._head: str | None = None
        self._between: list[str] = []
        self._handles = []
        for name, child in denoiser.named_children():
            if isinstance(child, nn.ModuleList):
                for block in child:
                    hook = self._block_hook(name)
                    self._handles.append(block.register_forward_pre_hook(hook, with_kwargs=True))
            else:
                hook = self._child_hook(name)
                self._handles.append(child.register_forward_pre_hook(hook, with_kwargs=True))

    def _block_hook(self, name: str) -> Any:
        def hook(_block: nn.Module, _args: Any, _kwargs: Any) -> None:
            self._block_lists[name] = None
            if self._head is not None:
                self._between.append(self._head)
            self._head = self.feature = None

        return hook

    def _child_hook(self, name: str) -> Any:
        def hook(_child: nn.Module, args: Any, kwargs: Any) -> None:
            if self._block_lists and self._head is None:
                self._head, self.feature = name, first_tensor(args, kwargs)

        return hook

    def remove(self) -> None:
        for handle in self._handles:
            handle.remove()

    def anatomy(self) -> Anatomy:
        """What was seen. Raises UsageError with the reason for a denoiser that can't be carried."""
        problem = None
        if not self._block_lists:
            problem = "none of its blocks is in a list at the top level"
        elif self._between:
            problem = f"{self._between[0]} runs between its blocks"
        elif self._head is None or self.feature is None:
            problem = "nothing runs after its last block"
        if problem:
            raise UsageError(f"{self._name} can't be forecast: {problem}; use speedup 1")
        assert self._head is not None
        return Anatomy(tuple(self._block_lists), self._head)


def first_tensor(args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.Tensor | None:
    """The first tensor among the arguments: by convention of diffusers, the hidden states."""
    return next((x for x in (*args, *kwargs.values()) if isinstance(x, torch.Tensor)), None)
