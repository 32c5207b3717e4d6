"""How x₀ moved in plain runs: recorded step by step, and as a prior instead of the default's."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from spectrum.gaussian import Array, Prior

if TYPE_CHECKING:
    import torch


class Moves:
    """Inner products of what x₀ moves by from one step to the next; an `observe` of a call, of
    whose runs (chunks of a film) the first is looked at."""

    def __init__(self) -> None:
        self._step = -1  # the last that was looked at
        self._is_over = False
        self._last: torch.Tensor | None = None
        self._moves: list[torch.Tensor] = []
        self._products: list[list[float]] = []

    def add(self, step: int, denoised: torch.Tensor) -> None:
        self._is_over = self._is_over or step <= self._step
        if self._is_over:
            return
        self._step, denoised = step, denoised.cpu()
        if self._last is not None:
            move = (denoised - self._last).flatten()
            self._moves.append(move)
            self._products.append([float(move @ other) for other in self._moves])
        self._last = denoised

    def products(self) -> list[list[float]] | None:
        """Symmetric; None where x₀ was not shown, or did not move.  # [N - 1, N - 1]"""
        lower = self._products
        if not lower or not any(row[-1] for row in lower):
            return None
        count = len(lower)
        return [[lower[max(i, k)][min(i, k)] for k in range(count)] for i in range(count)]


def mean_moves(runs: Iterable[dict[str, Any]], num_steps: int) -> Array | None:
    """The mean covariance of x₀'s moves, each recorded run's of trace 1; None where it is not
    known.  # [N - 1, N - 1]"""
    moves = [np.array(run["moves"]) for run in runs if run.get("moves")]
    if not moves or any(len(one) != num_steps - 1 for one in moves):
        return None
    mean: Array = np.mean([one / np.trace(one) for one in moves], axis=0)
    return mean


@dataclass(frozen=True, eq=False)
class Observed(Prior):
    """What plain runs showed, instead of a prior."""

    moves: Array = field(default_factory=lambda: np.zeros((0, 0)))  # [N - 1, N - 1]

    __eq__ = object.__eq__  # plans are remembered by it
    __hash__ = object.__hash__

    def covariance(self, levels: tuple[float, ...]) -> Array:
        sums = np.zeros((len(levels), len(levels)))
        sums[1:, 1:] = self.moves.cumsum(0).cumsum(1)
        return sums

    def part(self, steps: slice) -> Observed:
        """Of a run of these steps alone."""
        inner = slice(steps.start, steps.stop - 1)
        return replace(self, moves=self.moves[inner, inner])
