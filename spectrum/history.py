"""The feature history of one branch: what was computed, and the weighted sums that forecast."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, isnan

import torch
from torch import Tensor

from spectrum.errors import SpectrumError
from spectrum.parallel import Norm
from spectrum.storage import Storage


class FeatureHistory:
    """The newest `capacity` computed features of one denoiser call (a guidance branch).

    They are copied to the storage in `dtype` (the model's; a feature may arrive wider, as Wan's
    does, or as a view that keeps other tensors alive, as FLUX's does). At `capacity` the oldest
    feature makes room: its memory is used again.
    """

    def __init__(self, capacity: int, dtype: torch.dtype, storage: Storage, norm: Norm) -> None:
        self.capacity, self.dtype, self._storage, self._norm = capacity, dtype, storage, norm
        self._device = torch.device("cpu")  # where features come from
        self.steps: list[int] = []  # oldest first
        self._features: list[Tensor] = []  # of each of them
        self._peaks: list[float] = []  # of each the largest magnitude, by `norm`

    @property
    def nbytes(self) -> int:
        return sum(feature.nbytes for feature in self._features)

    @property
    def newest(self) -> Tensor:
        """The newest feature itself, not a copy."""
        return self._features[-1]

    def append(self, step: int, feature: Tensor) -> None:
        """Store a copy of the feature of a computed step, of any shape, the same each time. Raises
        SpectrumError for one with values that are no numbers."""
        if len(self.steps) == self.capacity:
            self.steps.pop(0)
            self._peaks.pop(0)
            kept = self._features.pop(0)
        else:
            kept = self._storage.room(feature, self.dtype)
        self._device = feature.device
        self._features = self._storage.placed([*self._features, kept])
        narrow = self._storage.keep(feature.detach(), self._features[-1])
        self._peaks.append(float(self._norm(narrow, inf)))
        self.steps.append(step)
        if isnan(self._peaks[-1]):
            raise SpectrumError(
                f"the model put out values at step {step} that are no numbers; try another `dtype`"
            )

    def fits(self, weights: Sequence[float]) -> bool:
        """Whether the forecast with these weights is sure to be finite in `dtype`, told by
        magnitudes that were read when the features were stored: no forecast is waited for."""
        largest = sum(abs(w) * peak for w, peak in zip(weights, self._peaks, strict=True) if w)
        return largest <= torch.finfo(self.dtype).max  # False for NaN

    def forecast(self, weights: Sequence[float]) -> Tensor:
        """Σ_k weights[k] · feature[k], accumulated in float32 and returned in it.

        A feature of weight 0 is not read, and one alone with weight 1 comes back exactly.
        """
        total = self._zeros(weights)
        self._add(total, self._features, weights)
        return total

    def forecast_each(self, rows: Sequence[Sequence[float]]) -> Tensor:
        """The same for each sample of the batch, which dimension 0 counts, by weights of its own.

        rows: [B, K]; one sample comes out just as `forecast` has it alone
        """
        total = self._zeros(rows[0])
        for n, weights in enumerate(rows):
            self._add(total[n], [feature[n] for feature in self._features], weights)
        return total

    def _zeros(self, weights: Sequence[float]) -> Tensor:
        if not self.steps or len(weights) != len(self.steps):
            raise ValueError(f"{len(weights)} weights for {len(self.steps)} stored features")
        return torch.zeros_like(self._features[0], dtype=torch.float32, device=self._device)

    def _add(self, total: Tensor, features: list[Tensor], weights: Sequence[float]) -> None:
        for weight, feature in zip(weights, features, strict=True):
            if weight != 0:
                total.add_(self._storage.fetch(feature, self._device), alpha=float(weight))
