"""The feature history of one branch: what was computed, and the weighted sum that forecasts."""

from __future__ import annotations

from collections.abc import Sequence

import torch


class FeatureHistory:
    """The newest `capacity` computed features of one denoiser call (a guidance branch).

    The buffer is allocated once, at the first feature, on its device and in `dtype` (the model's;
    a feature may arrive wider, as Wan's does, or as a view that keeps other tensors alive, as
    FLUX's does). When it is full the oldest feature makes room.
    """

    def __init__(self, capacity: int, dtype: torch.dtype) -> None:
        self.capacity = capacity
        self.dtype = dtype
        self.steps: list[int] = []  # oldest first
        self._slots: list[int] = []  # the buffer row of each of them
        self._buffer: torch.Tensor | None = None

    @property
    def nbytes(self) -> int:
        return 0 if self._buffer is None else self._buffer.nbytes

    def append(self, step: int, feature: torch.Tensor) -> None:
        """Store a copy of the feature of a computed step.  # any shape, the same each time"""
        if self._buffer is None:
            shape = (self.capacity, *feature.shape)
            self._buffer = torch.empty(shape, dtype=self.dtype, device=feature.device)
        if len(self.steps) == self.capacity:
            self.steps.pop(0)
            slot = self._slots.pop(0)
        else:
            slot = len(self.steps)
        self._buffer[slot].copy_(feature.detach())
        self.steps.append(step)
        self._slots.append(slot)

    def forecast(self, weights: Sequence[float]) -> torch.Tensor:
        """Σ_k weights[k] · feature[k], accumulated in float32 and returned in it.

        A feature of weight 0 is not read, and one alone with weight 1 comes back exactly.
        """
        if self._buffer is None or len(weights) != len(self.steps):
            raise ValueError(f"{len(weights)} weights for {len(self.steps)} stored features")
        total = torch.zeros(self._buffer.shape[1:], dtype=torch.float32, device=self._buffer.device)
        for weight, slot in zip(weights, self._slots, strict=True):
            if weight != 0:
                total.add_(self._buffer[slot], alpha=float(weight))
        return total
