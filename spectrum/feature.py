"""The hidden feature as target, as published: at forecast steps the denoiser runs without its
blocks, its heads fed with features forecast for each guidance branch."""

from __future__ import annotations

from inspect import BoundArguments
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import nn

from spectrum.anatomy import Anatomy, Tracer, cannot_carry
from spectrum.denoiser import first_tensor, storage_dtype, tensors_of
from spectrum.forecast import Forecaster
from spectrum.history import FeatureHistory
from spectrum.hollow import hollow, recorded, without_residuals
from spectrum.parallel import norm_for
from spectrum.plan import Plan
from spectrum.storage import Storage
from spectrum.target import Call, Current

# Between a hollow call that replays the computed feature and the computed call itself; the two
# are bitwise equal where the same kernels run. Wrong blocks or heads are off by the whole output.
_REPLAY_TOLERANCE = 1e-2

NOTHING_STORED = "computed, as nothing was stored for this call of the denoiser"
NOT_FINITE = "computed, as its forecast was not finite"

_known_anatomies: WeakKeyDictionary[nn.Module, Anatomy] = WeakKeyDictionary()


class Branch(NamedTuple):
    """A guidance branch: which denoiser, the number of its call within the step, and latents.

    `modes` are the words among the arguments: what a denoiser is told by them may leave tokens out
    of its feature (Qwen-Image 2.1, whose first step is the only one to have the prompt's).
    """

    denoiser: str
    call: int
    shapes: tuple[torch.Size, ...]
    dtype: torch.dtype
    modes: tuple[str, ...] = ()


def branch_of(now: Current, call: Call) -> Branch:
    """The guidance branch of a call, by its place in the step and its latents: a tensor, or a list
    of one for each sample (Z-Image)."""
    latents = first_tensor(call.args, call.kwargs)
    assert latents is not None  # asked when the call came in
    values = (*call.args, *call.kwargs.values())
    shapes = next(found for v in values if (found := tuple(x.shape for x in tensors_of(v))))
    return Branch(call.name, now.calls, shapes, latents.dtype)


class FeatureTarget:
    """Histories of features, one for each guidance branch and head."""

    def __init__(self, forecaster: Forecaster, plan: Plan, storage: Storage) -> None:
        self.plan = plan
        self._forecaster, self._storage = forecaster, storage
        self._branches: dict[Branch, list[FeatureHistory]] = {}

    @property
    def nbytes(self) -> int:
        return sum(h.nbytes for histories in self._branches.values() for h in histories)

    def call(self, now: Current, call: Call) -> Any:
        words = (x for x in (*call.args, *call.kwargs.values()) if isinstance(x, str))
        branch = branch_of(now, call)._replace(modes=tuple(words))
        forecasts = self._forecasts(now, branch)
        anatomy = anatomy_of(call.denoiser)
        if forecasts is not None and anatomy is not None:
            with hollow(call.denoiser, anatomy, forecasts):
                return call.forward(*call.args, **without_residuals(call.kwargs))
        now.computed = True
        if anatomy is None and not self.plan.forecast_steps:
            return call.compute()
        if anatomy is None:
            output, features = _trace(call)
        else:
            with recorded(call.denoiser, anatomy) as features:
                output = call.compute()
        self._record(now, branch, call.denoiser, features)
        return output

    def step(self, now: Current, scheduler: Any, call: BoundArguments, taken: int) -> None:
        """The scheduler is given what the hollow denoiser put out."""

    def forget(self) -> None:
        self._branches.clear()

    def stepped(self, scheduler: Any, sample: torch.Tensor, finished: bool) -> None:
        if finished:
            self._branches.clear()

    def _forecasts(self, now: Current, branch: Branch) -> list[torch.Tensor] | None:
        """The forecast features for this call; None where it is to be computed."""
        if now.planned:
            return None
        histories = self._branches.get(branch)
        if histories is None:
            now.note = NOTHING_STORED
            return None
        weights = [self._weights(now, history) for history in histories]
        if not all(h.fits(w) for h, w in zip(histories, weights, strict=True)):
            now.note = NOT_FINITE  # float16 overflows early
            return None
        return [h.forecast(w) for h, w in zip(histories, weights, strict=True)]

    def _weights(self, now: Current, history: FeatureHistory) -> list[float]:
        found = self._forecaster.weights(history.steps, now.index, self.plan.timeline)
        return list(found.tolist())

    def _record(
        self, now: Current, branch: Branch, denoiser: nn.Module, features: list[torch.Tensor]
    ) -> None:
        """Store computed features, and measure how well they would have been forecast."""
        histories, norm = self._branches.get(branch), norm_for(denoiser)
        if histories is not None and now.computed_before >= 2:
            for history, feature in zip(histories, features, strict=True):
                miss = history.forecast(self._weights(now, history)).sub_(feature)
                now.errors.append(norm(miss, 2) / norm(feature, 2))
        if now.index > self.plan.last_forecast(now.index):
            return
        count = self.plan.features_kept_at(now.index, self._forecaster.keeps)
        if histories is None:
            kept = [(count, storage_dtype(denoiser, x), self._storage, norm) for x in features]
            histories = [FeatureHistory(*each) for each in kept]
            self._branches[branch] = histories
        for history, feature in zip(histories, features, strict=True):
            history.capacity = count  # the plan may have changed after step 0
            history.append(now.index, feature)


def anatomy_of(denoiser: nn.Module) -> Anatomy | None:
    """Blocks and heads of a denoiser that has been called with its feature as target."""
    return _known_anatomies.get(denoiser)


def _trace(call: Call) -> tuple[Any, list[torch.Tensor]]:
    """A denoiser's first computed call: finds its parts, and tries them by a replay.

    Raises UsageError where the parts can't be found, or where the hollow forward with just
    the features that were computed does not put out what the computed forward did.
    """
    denoiser = call.denoiser
    with Tracer(denoiser) as tracer:
        output = call.compute()
    anatomy = tracer.anatomy()
    try:
        with Tracer(denoiser) as still, hollow(denoiser, anatomy, tracer.features):
            replayed = call.forward(*call.args, **without_residuals(call.kwargs))
    except Exception as error:
        reason = f"without its blocks it fails ({type(error).__name__}: {error})"
        raise cannot_carry(denoiser, " ".join(reason.split())) from error
    if not _agree(output, replayed):
        raise cannot_carry(
            denoiser, f"its output is not decided by what enters {' and '.join(anatomy.heads)}"
        )
    # A list that is not looped over but indexed holds something else (HiDream's captions).
    blocks = tuple(name for name in anatomy.blocks if name not in still.blocks)
    _known_anatomies[denoiser] = Anatomy(blocks, anatomy.heads)
    return output, tracer.features


def _agree(output: Any, replayed: Any) -> bool:
    """Whether a replay put out the same tensors."""
    ours, theirs = list(tensors_of(replayed)), list(tensors_of(output))
    if not theirs or [x.shape for x in ours] != [x.shape for x in theirs]:
        return False
    return all(
        float((a.float() - b.float()).norm()) <= _REPLAY_TOLERANCE * float(b.float().norm())
        for a, b in zip(ours, theirs, strict=True)
    )
