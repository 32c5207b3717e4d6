"""The spectral cache: at forecast steps a denoiser runs hollow, with its blocks taken out.

Three native torch hooks do the work. Before a call of the denoiser it is decided whether the call
is computed; if not, its block lists are swapped for empty ones. Before the head, the feature is
recorded (computed) or replaced by the forecast. After the call the lists are put back. Native
hooks stay where accelerate or diffusers replace `forward`.

A step is what lies between two calls of `scheduler.step`; the number of a denoiser call within
its step is its guidance branch. Timesteps are never read: in bfloat16 they collide.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any
from weakref import WeakSet

import torch
from torch import nn

from spectrum.errors import SpectrumError, UsageError
from spectrum.forecast import Forecaster
from spectrum.history import FeatureHistory
from spectrum.locate import Anatomy, Tracer, first_tensor
from spectrum.methods import DEFAULT_METHOD, Method, get_method
from spectrum.report import Report, Step
from spectrum.schedule import Plan, Schedule, make_plan

# Called when denoising begins (step None) and after each step.
Listener = Callable[[Report, Step | None], None]

# A guidance branch: number of the call within its step, shape and dtype of the latents.
_Branch = tuple[int, torch.Size, torch.dtype]

_cached_denoisers: WeakSet[nn.Module] = WeakSet()


@dataclass
class _Run:
    """The state of one run of the pipeline, gone when the next begins."""

    plan: Plan
    report: Report
    branches: dict[_Branch, FeatureHistory] = field(default_factory=dict)
    step: int = -1
    # of the step under way:
    under_way: bool = False
    calls: int = 0
    computed: bool = False
    began: float = 0.0
    errors: list[torch.Tensor] = field(default_factory=list)
    note: str | None = None
    device: torch.device | None = None

    def is_planned(self, step: int) -> bool:
        """Whether a step is computed by plan (as is one that the plan does not know)."""
        return step in self.plan.computed_steps or step >= self.plan.num_steps


@dataclass
class _Call:
    """The denoiser call under way."""

    branch: _Branch
    forecast: torch.Tensor | None  # None: computed
    tracer: Tracer | None = None
    blocks: dict[str, nn.Module | None] = field(default_factory=dict)  # those taken out


class SpectralCache:
    """Forecast most steps of a diffusers pipeline instead of computing them (arXiv 2603.01623).

    Use as a context manager, or by `enable()` and `disable()`; each call of the pipeline in
    between is a run of its own, with its own report.

    Args:
        pipe: a diffusers pipeline with one denoiser (`transformer` or `unet`).
        speedup: steps over computed steps, at the least. The default of 3.5 computes 14 of 50.
        method: of `spectrum.methods`, or its name; "published" is exactly the paper's.
        blend: for "published" and "affine", the share of the ridge against linear extrapolation.
        forecaster: instead of the method's, anything with `weights` and `keeps`.
        schedule: instead of a plan for `speedup`, anything with `computed_steps(num_steps)`.
        on_step: called as on_step(report, None) when denoising begins, and as
            on_step(report, step) after each step.

    Raises UsageError (a ValueError) for what can't be had; planning for the pipeline's number of
    steps happens when denoising begins.
    """

    def __init__(
        self,
        pipe: Any,
        speedup: float | None = None,
        *,
        method: str | Method = DEFAULT_METHOD,
        blend: float | None = None,
        forecaster: Forecaster | None = None,
        schedule: Schedule | None = None,
        on_step: Listener | None = None,
    ) -> None:
        if speedup is not None and schedule is not None:
            raise UsageError("give a speedup or a schedule, not both: either decides the plan")
        if blend is not None and (forecaster is not None or not isinstance(method, str)):
            raise UsageError("blend goes with a method by name; a forecaster has its own")
        self.reports: list[Report] = []
        self._pipe = pipe
        self._method = get_method(method, blend) if isinstance(method, str) else method
        self._forecaster = forecaster or self._method.forecaster
        self._speedup = 3.5 if speedup is None else speedup
        self._schedule = schedule
        self._on_step = on_step
        self._denoiser = _only_denoiser(pipe)
        self._anatomy: Anatomy | None = None
        self._handles: list[Any] = []
        self._scheduler: Any = None
        self._run: _Run | None = None
        self._call: _Call | None = None

    # -- from outside ----------------------------------------------------------------------------

    @property
    def report(self) -> Report:
        """The newest run's report. Raises SpectrumError before the first."""
        if not self.reports:
            raise SpectrumError("no report yet: the pipeline has not been called under this cache")
        return self.reports[-1]

    def enable(self) -> None:
        """Put the hooks in. Raises UsageError where another cache is on the denoiser already."""
        if self._handles:
            return
        denoiser = self._denoiser
        if denoiser in _cached_denoisers or getattr(denoiser, "is_cache_enabled", False):
            raise UsageError(
                f"{type(denoiser).__name__} is cached already; disable that cache first"
            )
        _cached_denoisers.add(denoiser)
        self._handles = [
            denoiser.register_forward_pre_hook(self._before_denoiser, with_kwargs=True),
            denoiser.register_forward_hook(self._after_denoiser, always_call=True),
        ]
        self._mark_scheduler()

    def disable(self) -> None:
        """Put the pipeline back to what it was. Harmless where nothing is enabled."""
        self._end_call()
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self._anatomy = None  # its hook on the head is gone
        self._unmark_scheduler()
        self._run = None
        _cached_denoisers.discard(self._denoiser)

    def __enter__(self) -> SpectralCache:
        self.enable()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.disable()

    # -- steps -----------------------------------------------------------------------------------

    def _mark_scheduler(self) -> None:
        """Give the scheduler a subclass that tells us of steps and of new runs.

        A subclass, not methods on the instance: pipelines deep-copy schedulers, and a copied
        bound method would step the original.
        """
        scheduler = self._pipe.scheduler
        cls = type(scheduler)

        @functools.wraps(cls.step)
        def step(this: Any, *args: Any, **kwargs: Any) -> Any:
            result = cls.step(this, *args, **kwargs)
            self._end_step()
            return result

        @functools.wraps(cls.set_timesteps)
        def set_timesteps(this: Any, *args: Any, **kwargs: Any) -> Any:
            self._run = None
            return cls.set_timesteps(this, *args, **kwargs)

        members = {"step": step, "set_timesteps": set_timesteps, "__module__": cls.__module__}
        scheduler.__class__ = type(cls.__name__, (cls,), members)
        self._scheduler = scheduler

    def _unmark_scheduler(self) -> None:
        if self._scheduler is not None:
            self._scheduler.__class__ = type(self._scheduler).__mro__[1]
            self._scheduler = None

    def _begin_run(self) -> _Run:
        num_steps = _num_steps(self._pipe)
        if self._schedule is not None:
            plan = make_plan(self._schedule, num_steps)
        else:
            plan = self._method.planner.plan(num_steps, self._speedup)
        run = _Run(plan, Report(num_steps, plan.computed_steps))
        self.reports.append(run.report)
        if self._on_step:
            self._on_step(run.report, None)
        return run

    def _begin_step(self) -> _Run:
        """The run, with its step begun if this is the step's first denoiser call."""
        if self._pipe.scheduler is not self._scheduler:  # the user has set another one
            self._unmark_scheduler()
            self._mark_scheduler()
            self._run = None
        if self._run is None:
            self._run = self._begin_run()
        run = self._run
        if not run.under_way:
            run.step += 1
            run.under_way, run.calls, run.computed, run.note = True, 0, False, None
            run.errors = []
            run.began = time.perf_counter()
        return run

    def _end_step(self) -> None:
        run = self._run
        if run is None or not run.under_way:  # a second scheduler may step within one step
            return
        run.under_way = False
        errors = [float(error) for error in run.errors]
        _synchronize(run.device)
        seconds = time.perf_counter() - run.began
        error = max(errors) if errors else None
        step = Step(run.step, run.computed, seconds, error, run.note)
        run.report.steps.append(step)
        if run.report.finished:
            run.branches.clear()  # the decoder needs the memory
        if self._on_step:
            self._on_step(run.report, step)

    # -- calls -----------------------------------------------------------------------------------

    def _before_denoiser(self, denoiser: nn.Module, args: Any, kwargs: Any) -> None:
        self._end_call()  # an interrupt may have left the last one open
        run = self._begin_step()
        latents = first_tensor(args, kwargs)
        if latents is None:
            raise UsageError(f"{type(denoiser).__name__} was called without any latents")
        run.device = latents.device
        branch = (run.calls, latents.shape, latents.dtype)
        run.calls += 1
        self._call = call = _Call(branch, self._forecast(run, branch))
        if call.forecast is None:
            run.computed = True
            if self._anatomy is None and run.step < run.plan.last_forecast:
                call.tracer = Tracer(denoiser)
        elif self._anatomy is not None:
            for name in self._anatomy.block_lists:
                call.blocks[name] = denoiser._modules[name]
                denoiser._modules[name] = nn.ModuleList()

    def _before_head(self, _head: nn.Module, args: Any, kwargs: Any) -> Any:
        call, run = self._call, self._run
        feature = first_tensor(args, kwargs)
        if call is None or run is None or feature is None:
            return None
        if call.forecast is None:
            self._record(run, call.branch, feature)
            return None
        forecast = call.forecast.to(feature.dtype)
        return (
            tuple(forecast if x is feature else x for x in args),
            {name: forecast if x is feature else x for name, x in kwargs.items()},
        )

    def _after_denoiser(self, denoiser: nn.Module, _args: Any, output: Any) -> None:
        call = self._call
        self._end_call()
        # This hook also runs after an exception in the forward; there is no output then.
        if call is None or call.tracer is None or output is None or self._run is None:
            return
        self._anatomy = call.tracer.anatomy()
        head = denoiser.get_submodule(self._anatomy.head)
        self._handles.append(head.register_forward_pre_hook(self._before_head, with_kwargs=True))
        assert call.tracer.feature is not None
        self._record(self._run, call.branch, call.tracer.feature)

    def _end_call(self) -> None:
        """Put the blocks back and take tracing hooks out, whatever happened in the call."""
        call, self._call = self._call, None
        if call is None:
            return
        self._denoiser._modules.update(call.blocks)
        if call.tracer:
            call.tracer.remove()

    def _forecast(self, run: _Run, branch: _Branch) -> torch.Tensor | None:
        """The forecast feature for this call; None where it is to be computed."""
        if run.is_planned(run.step):
            return None
        history = run.branches.get(branch)
        if history is None:
            run.note = "computed, as nothing was stored for this call of the denoiser"
            return None
        forecast = self._weighted_sum(run, history)
        if not torch.isfinite(forecast.to(history.dtype)).all():  # float16 overflows early
            run.note = "computed, as its forecast was not finite"
            return None
        return forecast

    def _record(self, run: _Run, branch: _Branch, feature: torch.Tensor) -> None:
        """Store a computed feature, and measure how well it would have been forecast."""
        history = run.branches.get(branch)
        if history is not None and len(run.report.computed_steps) >= 2:
            miss = self._weighted_sum(run, history).sub_(feature)
            size = torch.linalg.vector_norm(feature, dtype=torch.float32)
            run.errors.append(torch.linalg.vector_norm(miss) / size)
        if run.step > run.plan.last_forecast:
            return
        if history is None:
            capacity = run.plan.features_kept(self._forecaster.keeps)
            history = FeatureHistory(capacity, _storage_dtype(self._denoiser, feature))
            run.branches[branch] = history
        history.append(run.step, feature)
        run.report.stored_bytes = sum(h.nbytes for h in run.branches.values())

    def _weighted_sum(self, run: _Run, history: FeatureHistory) -> torch.Tensor:
        weights = self._forecaster.weights(history.steps, run.step, run.plan.num_steps)
        return history.forecast(weights.tolist())


def _only_denoiser(pipe: Any) -> nn.Module:
    """The pipeline's one denoiser. Raises UsageError where there is none, or a second."""
    denoisers = [
        module
        for name in ("transformer", "transformer_2", "unet")
        if isinstance(module := getattr(pipe, name, None), nn.Module)
    ]
    if len(denoisers) != 1:
        raise UsageError(
            f"{type(pipe).__name__} has {len(denoisers)} denoisers; Spectrum needs exactly one"
        )
    return denoisers[0]


def _num_steps(pipe: Any) -> int:
    """How many times the scheduler will step in this run (image-to-image skips the first few, so
    the scheduler's own list is the last resort)."""
    return int(getattr(pipe, "num_timesteps", 0) or len(pipe.scheduler.timesteps))


def _storage_dtype(denoiser: nn.Module, feature: torch.Tensor) -> torch.dtype:
    """The model's dtype; where that is a storage format of 8 bits or less, the feature's."""
    dtype = getattr(denoiser, "dtype", feature.dtype)
    return dtype if dtype in (torch.float32, torch.bfloat16, torch.float16) else feature.dtype


def _synchronize(device: torch.device | None) -> None:
    """Wait for the device, so that a step's seconds are its own."""
    if device is None:
        return
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
