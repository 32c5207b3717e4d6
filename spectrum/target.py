"""What can be forecast: how the engine sees the feature (`spectrum.feature`) and the denoised
sample (`spectrum.denoised`). A new target is a class with these methods."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from inspect import BoundArguments
from typing import Any, Protocol

import torch
from torch import nn

from spectrum.plan import Plan


@dataclass
class Current:
    """The step under way."""

    index: int
    planned: bool  # computed by plan
    computed_before: int = 0  # how many steps were, before this one
    computed: bool = False
    calls: int = 0  # of denoisers so far, the one under way included
    note: str | None = None  # why it is computed though the plan would have it forecast
    trend: float | None = None
    errors: list[torch.Tensor] = field(default_factory=list)


@dataclass(frozen=True)
class Call:
    """A call of a denoiser: as it was made, and how to compute it."""

    name: str  # of the pipeline's component
    denoiser: nn.Module
    forward: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def compute(self) -> Any:
        return self.forward(*self.args, **self.kwargs)


class Target(Protocol):
    """One run's forecasts and what they follow from."""

    plan: Plan  # may be replaced after step 0

    @property
    def nbytes(self) -> int:
        """What is stored."""

    def call(self, now: Current, call: Call) -> Any:
        """The output of a denoiser's call, computed or forecast; says in `now` which."""

    def step(self, now: Current, scheduler: Any, call: BoundArguments, taken: int) -> None:
        """See a call of scheduler.step before it is made, the run's calls of it so far being
        `taken`; its arguments may be changed."""

    def forget(self) -> None:
        """A second denoiser takes over: what is stored is of no more use."""

    def stepped(self, scheduler: Any, sample: torch.Tensor, finished: bool) -> None:
        """This scheduler has put out a sample; if that is the last, the decoder needs the memory
        of what is stored."""
