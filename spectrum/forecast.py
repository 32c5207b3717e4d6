"""The forecast's mathematics: step numbers in, one weight per computed step out (no torch).

Every forecaster here is linear: the forecast feature is Σ_k w_k · h(s_k) over the computed steps
s_1 < ... < s_K, and the weights depend on the steps only, never on the features. So K numbers in
float64 stand for the whole fit, and applying them is one weighted sum.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import factorial
from typing import Protocol

import numpy as np
from numpy.polynomial.chebyshev import chebvander
from numpy.typing import NDArray

from spectrum.timeline import Timeline

Weights = NDArray[np.float64]


class Forecaster(Protocol):
    """What a forecast needs: `weights`, and how many of the newest features it looks at."""

    @property
    def keeps(self) -> int | None:
        """Number of newest computed features with a weight; None means all of them."""

    def weights(self, known: Sequence[int], step: int, timeline: Timeline) -> Weights:
        """One float64 weight for each of the known steps, oldest first.  # [K]"""


@dataclass(frozen=True)
class ChebyshevRidge:
    """Ridge regression on Chebyshev polynomials of time (arXiv 2603.01623).

    With Φ the polynomials T_0..T_M at the computed steps and φ those at the forecast step, the
    weights are φᵀ(ΦᵀΦ + λI)⁻¹Φᵀ. The constant T_0 is penalised too, as published, so they sum to
    less than 1. `blend` is the share of this fit; the rest is first-order extrapolation (1 is the
    paper, 0.5 what its authors recommend since). Time is τ = 2·step/N − 1, with N the run's own
    number of steps, or `axis` (the authors' code takes 50 for every run).
    """

    degree: int = 4  # M
    ridge: float = 0.1  # λ
    blend: float = 1.0
    axis: int | None = None
    penalise_constant = True

    @property
    def keeps(self) -> int | None:
        return None

    def weights(self, known: Sequence[int], step: int, timeline: Timeline) -> Weights:
        times = np.array([*known, step], dtype=np.float64)
        design = chebvander(2.0 * times / (self.axis or timeline.num_steps) - 1.0, self.degree)
        phi, target = design[:-1], design[-1]  # [K, M+1], [M+1]
        penalty = self.ridge * np.eye(self.degree + 1)
        penalty[0, 0] *= self.penalise_constant
        fit: Weights = target @ np.linalg.solve(phi.T @ phi + penalty, phi.T)
        linear = Extrapolation(order=1).weights(known, step, timeline)
        return self.blend * fit + (1.0 - self.blend) * linear


@dataclass(frozen=True)
class AffineRidge(ChebyshevRidge):
    """`ChebyshevRidge` with T_0 free of penalty: the weights sum to 1.

    A feature that does not change is then forecast exactly, and adding a constant to all features
    adds it to the forecast (the published form shrinks both, by 4 to 35 % at α = 3).
    """

    penalise_constant = False


@dataclass(frozen=True)
class Extrapolation:
    """The polynomial through the newest order + 1 features, at their true spacing (Lagrange).

    Of fewer features it takes the highest order they allow. `damping` scales the departure from
    the newest feature: 1 is the polynomial itself, 0 holds.
    """

    order: int = 1
    damping: float = 1.0

    @property
    def keeps(self) -> int | None:
        return self.order + 1

    def weights(self, known: Sequence[int], step: int, timeline: Timeline) -> Weights:
        del timeline
        weights = np.zeros(len(known))
        nodes = np.asarray(known[-(self.order + 1) :], dtype=np.float64)
        for k, node in enumerate(nodes):
            others = np.delete(nodes, k)
            weights[k - len(nodes)] = self.damping * np.prod((step - others) / (node - others))
        weights[-1] += 1.0 - self.damping
        return weights


@dataclass(frozen=True)
class TaylorSeer:
    """Taylor series with backward differences for derivatives (TaylorSeer, arXiv 2503.06923).

    The k-th difference is the change of the (k−1)-th between the two newest computed steps, over
    their true distance. Order 1 is linear extrapolation; higher orders differ from
    `Extrapolation`, whose polynomial passes through the older features too.
    """

    order: int = 1

    @property
    def keeps(self) -> int | None:
        return self.order + 1

    def weights(self, known: Sequence[int], step: int, timeline: Timeline) -> Weights:
        del timeline
        steps = np.asarray(known, dtype=np.float64)
        difference = np.eye(len(steps))  # row j: weights of the k-th difference at step j
        weights = np.zeros(len(steps))
        for k in range(min(self.order, len(steps) - 1) + 1):
            weights += (step - steps[-1]) ** k / factorial(k) * difference[-1]
            gaps = np.diff(steps)[len(steps) - len(difference) :, None]
            difference = np.diff(difference, axis=0) / gaps
        return weights


@dataclass(frozen=True)
class Hold:
    """The newest computed feature, unchanged: what every forecast has to beat."""

    @property
    def keeps(self) -> int | None:
        return 1

    def weights(self, known: Sequence[int], step: int, timeline: Timeline) -> Weights:
        del step, timeline
        weights = np.zeros(len(known))
        weights[-1] = 1.0
        return weights
