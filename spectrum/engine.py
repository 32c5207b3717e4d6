"""The spectral cache: at forecast steps the denoiser runs hollow, or not at all.

Either its hidden feature is forecast for each guidance branch, as published, and the denoiser runs
without its blocks; or what the scheduler is given is forecast, after guidance and all else that
the pipeline does, and the denoiser is not called.

A step is what lies between two calls of `scheduler.step` (for Heun and its like, two of them make
a step); the number of a denoiser call within its step is its guidance branch. Timesteps are never
read: in bfloat16 they collide.

Denoisers and scheduler are given dynamic subclasses while the cache is enabled. Unlike a replaced
`forward`, a subclass stays where accelerate or diffusers put hooks in and take them out, and
unlike a method on the instance it survives the deep copies that pipelines make of schedulers.
"""

from __future__ import annotations

import functools
import inspect
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary, WeakSet

import torch
from torch import nn

from spectrum.denoised import Checked, Trajectory, capacity
from spectrum.errors import SpectrumError, UsageError
from spectrum.forecast import Forecaster, Kriging
from spectrum.gaussian import Prior
from spectrum.history import FeatureHistory
from spectrum.hollow import hollow, recorded, without_residuals
from spectrum.locate import Anatomy, Tracer, cannot_carry, first_tensor, tensors_of
from spectrum.methods import DEFAULT_METHOD, OPEN, Method, Target, get_method
from spectrum.report import Report, Step
from spectrum.schedule import AdaptiveSchedule, Plan, Schedule, make_plan
from spectrum.schedulers import (
    asks_for_noise,
    denoised_coefficients,
    is_stochastic,
    noise_levels,
    stages_per_step,
    takes_output,
)
from spectrum.size import positions

# Called when denoising begins (step None) and after each step.
Listener = Callable[[Report, Step | None], None]

# Called with the number of a computed step and the x₀ that the sampler is at there.
Observer = Callable[[int, torch.Tensor], None]

# Components of a pipeline that are called once or more a step. Two of them take over from each
# other (Wan2.2) or are both called in every step.
DENOISERS = ("transformer", "transformer_2", "unconditional_transformer", "unet")

# Between a hollow call that replays the computed feature and the computed call itself; the two
# are bitwise equal where the same kernels run. Wrong blocks or heads are off by the whole output.
_REPLAY_TOLERANCE = 1e-2

_cached_denoisers: WeakSet[nn.Module] = WeakSet()
_known_anatomies: WeakKeyDictionary[nn.Module, Anatomy] = WeakKeyDictionary()


class _Branch(NamedTuple):
    """A guidance branch: which denoiser, the number of its call within the step, and latents."""

    denoiser: str
    call: int
    shapes: tuple[torch.Size, ...]
    dtype: torch.dtype


@dataclass
class _Run:
    """The state of one run of the pipeline, gone when the next begins."""

    plan: Plan
    report: Report
    target: Target
    forecaster: Forecaster
    prior: Prior
    stochastic: bool  # fresh noise enters at every step
    branches: dict[_Branch, list[FeatureHistory]] = field(default_factory=dict)
    outputs: dict[_Branch, Any] = field(default_factory=dict)  # the newest computed
    # One for each scheduler (LTX-2 has a second for its sound) and each stage of its steps.
    trajectories: dict[tuple[int, int], Trajectory] = field(default_factory=dict)
    stages: int = 0  # calls of scheduler.step
    step: int = -1
    next: int = -1  # the next computed step, where it is decided on the way
    observed: int = -1  # the last step whose x₀ was shown to the observer
    # of the step under way:
    under_way: bool = False
    calls: int = 0
    computed: bool = False
    began: float = 0.0
    errors: list[torch.Tensor] = field(default_factory=list)
    trend: float | None = None
    note: str | None = None
    device: torch.device | None = None

    def is_planned(self, step: int) -> bool:
        """Whether a step is computed by plan (as is one that the plan does not know)."""
        return step in self.plan.computed_steps or step == self.next or step >= self.plan.num_steps

    def adapt(self, error: float | None) -> None:
        """Choose the next computed step by the error at this one, if the schedule is adaptive.

        Of a batch, which shares its steps, it is the largest error: the one thing here in which a
        sample depends on its neighbours.
        """
        schedule = self.plan.schedule
        if isinstance(schedule, AdaptiveSchedule):
            computed = [*self.report.computed_steps, self.step]
            self.next = schedule.next_step(computed, error, self.plan.num_steps)
            if self.stochastic:
                self.next = min(self.next, self.step + 2)
            planned = {*self.report.planned_steps, self.step, self.next}
            self.report.planned_steps = sorted(s for s in planned if s < self.plan.num_steps)


class SpectralCache:
    """Forecast most steps of a diffusers pipeline instead of computing them (arXiv 2603.01623).

    Use as a context manager, or by `enable()` and `disable()`; each call of the pipeline in
    between is a run of its own, with its own report.

    Args:
        pipe: a diffusers pipeline with a `transformer` or `unet`; Wan2.2's two transformers each
            have their own history and share of the computed steps.
        speedup: steps over computed steps, at the least. The default of 3.5 computes 14 of 50.
        method: of `spectrum.methods`, or its name; "published" is exactly the paper's.
        blend: for "published" and "affine", the share of the ridge against linear extrapolation.
        forecaster: instead of the method's, anything with `weights` and `keeps`; of the feature,
            if no target is given.
        schedule: instead of a plan for `speedup`, anything with `computed_steps(num_steps)`.
        target: instead of the method's, what is forecast: "feature" or "output".
        on_step: called as on_step(report, None) when denoising begins, and as
            on_step(report, step) after each step.
        observe: called as observe(step, x₀) at each computed step, where the output is the target
            and the scheduler is one whose x₀ is known.

    Raises UsageError (a ValueError) for what can't be had; planning for the pipeline's number of
    steps happens when denoising begins, and a denoiser whose blocks and head can't be told apart
    is refused at its first call.
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
        target: Target | None = None,
        on_step: Listener | None = None,
        observe: Observer | None = None,
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
        own = "feature" if forecaster else self._method.target
        self._target: Target = target or own
        self._loop = OPEN if forecaster else self._method.loop
        self._on_step = on_step
        self._observe = observe
        self.denoisers = find_denoisers(pipe)
        self._scheduler: Any = None
        self._total: int | None = None  # steps, as the pipeline's progress bar was told
        self._run: _Run | None = None

    # -- from outside ----------------------------------------------------------------------------

    @property
    def report(self) -> Report:
        """The newest run's report. Raises SpectrumError before the first."""
        if not self.reports:
            raise SpectrumError("no report yet: the pipeline has not been called under this cache")
        return self.reports[-1]

    @property
    def anatomies(self) -> dict[str, Anatomy]:
        """Blocks and heads of each denoiser that has been called under a cache."""
        found = {name: _known_anatomies.get(d) for name, d in self.denoisers.items()}
        return {name: anatomy for name, anatomy in found.items() if anatomy}

    @property
    def enabled(self) -> bool:
        return self._scheduler is not None

    def enable(self) -> None:
        """Put the subclasses in. Raises UsageError where a denoiser has another cache already."""
        if self.enabled:
            return
        for denoiser in self.denoisers.values():
            if denoiser in _cached_denoisers or getattr(denoiser, "is_cache_enabled", False):
                raise UsageError(
                    f"{type(denoiser).__name__} is cached already; disable that cache first"
                )
        for name, denoiser in self.denoisers.items():
            _cached_denoisers.add(denoiser)
            self._subclass_denoiser(name, denoiser)
        self._subclass_scheduler()
        self._listen_to_total()

    def disable(self) -> None:
        """Put the pipeline back to what it was. Harmless where nothing is enabled."""
        if not self.enabled:
            return
        for denoiser in self.denoisers.values():
            denoiser.__class__ = type(denoiser).__mro__[1]
            _cached_denoisers.discard(denoiser)
        self._restore_scheduler()
        del self._pipe.progress_bar
        self._run = None

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

    # -- the pipeline's parts, made to report to us ----------------------------------------------

    def _subclass_denoiser(self, name: str, denoiser: nn.Module) -> None:
        cls = type(denoiser)

        def call(this: nn.Module, *args: Any, **kwargs: Any) -> Any:
            forward = functools.partial(cls.__call__, this)
            return self._denoise(name, this, forward, args, kwargs)

        members = {"__call__": call, "__module__": cls.__module__, "__doc__": cls.__doc__}
        denoiser.__class__ = type(cls.__name__, (cls,), members)

    def _subclass_scheduler(self) -> None:
        scheduler = self._pipe.scheduler
        cls = type(scheduler)

        @functools.wraps(cls.step)
        def step(this: Any, *args: Any, **kwargs: Any) -> Any:
            if self._run is not None and not self._run.stages:
                self._look_for_noise(self._run, this, cls, args, kwargs)
            if self._run is not None and self._run.target == "output":
                args, kwargs = self._with_forecast(self._run, this, cls, args, kwargs)
            result = cls.step(this, *args, **kwargs)
            self._end_stage()
            self._release(this)
            return result

        @functools.wraps(cls.set_timesteps)
        def set_timesteps(this: Any, *args: Any, **kwargs: Any) -> Any:
            self._run = self._total = None
            return cls.set_timesteps(this, *args, **kwargs)

        members = {"step": step, "set_timesteps": set_timesteps, "__module__": cls.__module__}
        scheduler.__class__ = type(cls.__name__, (cls,), members)
        self._scheduler = scheduler

    def _restore_scheduler(self) -> None:
        self._scheduler.__class__ = type(self._scheduler).__mro__[1]
        self._scheduler = None

    def _listen_to_total(self) -> None:
        """Some image-to-image pipelines tell nobody but their progress bar how long they run."""
        progress_bar = self._pipe.progress_bar

        @functools.wraps(progress_bar)
        def listen(iterable: Any = None, total: int | None = None) -> Any:
            if total is not None:
                self._total = total
            return progress_bar(iterable, total) if iterable is None else progress_bar(iterable)

        self._pipe.progress_bar = listen

    def _num_steps(self) -> int:
        """How many steps the run will take. The scheduler's own list is the last resort: it is
        too long for image-to-image, which leaves out the first steps."""
        stages = int(getattr(self._pipe, "num_timesteps", 0) or 0)
        if not stages and self._total:
            return self._total
        stages = stages or len(self._pipe.scheduler.timesteps)
        return -(-stages // stages_per_step(self._pipe.scheduler))

    # -- steps -----------------------------------------------------------------------------------

    def _begin_run(self, size: int) -> _Run:
        num_steps, stochastic = self._num_steps(), is_stochastic(self._scheduler)
        prior = self._method.prior(size, guidance_of(self._pipe))
        plan = self._make_plan(num_steps, prior, stochastic)
        forecaster = self._forecaster
        if isinstance(forecaster, Kriging):
            forecaster = forecaster.at(self._levels(num_steps), prior.scale)
        report = Report(num_steps, plan.computed_steps)
        report.adaptive = isinstance(plan.schedule, AdaptiveSchedule)
        run = _Run(plan, report, self._target, forecaster, prior, stochastic)
        if run.target == "output" and not self._knows_scheduler():
            run.target = "feature"
            run.report.caution = (
                f"the denoised sample can't be told from what {type(self._scheduler).__name__} is"
                " given, so the hidden feature is forecast instead"
            )
        self._warn_of_noise(run)
        self.reports.append(run.report)
        if self._on_step:
            self._on_step(run.report, None)
        return run

    def _knows_scheduler(self) -> bool:
        """Whether forecasts of the output can be handed to this scheduler."""
        scheduler = self._scheduler
        if not takes_output(scheduler):
            return False
        return denoised_coefficients(scheduler, scheduler.timesteps[0]) is not None

    def _levels(self, num_steps: int) -> tuple[float, ...] | None:
        """Noise levels of the run's steps, where they are known."""
        levels = noise_levels(self._scheduler)
        return levels[-num_steps:] if levels is not None and len(levels) >= num_steps else None

    def _make_plan(self, num_steps: int, prior: Prior, stochastic: bool) -> Plan:
        """No speedup above 2 where noise enters at every step: what is forecast is never near."""
        handover, levels = handover_step(self._pipe, num_steps), self._levels(num_steps)
        if isinstance(self._schedule, AdaptiveSchedule):
            return make_plan(self._schedule.at(levels, prior), num_steps, handover)
        if self._schedule is not None:
            return make_plan(self._schedule, num_steps, handover)
        speedup = min(self._speedup, 2.0) if stochastic else self._speedup
        return self._method.planner.plan(num_steps, speedup, handover, levels, prior)

    def _warn_of_noise(self, run: _Run) -> None:
        """Say that the plan is a careful one, unless it was given or asked for."""
        asked = self._speedup <= 2 if self._schedule is None else not run.report.adaptive
        if run.stochastic and not asked:
            run.report.caution = (
                f"{type(self._scheduler).__name__} adds fresh noise at every step, which no"
                " forecast foresees: at most every other step is forecast, and the result is"
                " another one than without Spectrum"
            )

    def _look_for_noise(self, run: _Run, scheduler: Any, cls: Any, args: Any, kwargs: Any) -> None:
        """Plan anew where the first call of scheduler.step asks for noise (DDIM's eta): only step
        0 has been taken, which every plan computes."""
        call = inspect.signature(cls.step).bind(scheduler, *args, **kwargs)
        if run.stochastic or not asks_for_noise(call.arguments):
            return
        run.stochastic = True
        run.plan = self._make_plan(run.plan.num_steps, run.prior, stochastic=True)
        run.report.planned_steps = run.plan.computed_steps
        for history in (h for histories in run.branches.values() for h in histories):
            history.capacity = capacity(run.plan, 0, run.forecaster.keeps)
        self._warn_of_noise(run)

    def _begin_step(self, size: Callable[[], int]) -> _Run:
        """The run, with its step begun if this is the step's first denoiser call."""
        if self._pipe.scheduler is not self._scheduler:  # the user has set another one
            self._restore_scheduler()
            self._subclass_scheduler()
            self._run = None
        if self._run is None:
            self._run = self._begin_run(size())
        run = self._run
        if not run.under_way:
            run.step += 1
            run.under_way, run.calls, run.computed, run.note = True, 0, False, None
            run.errors, run.trend = [], None
            run.began = time.perf_counter()
            if run.step and run.step == run.plan.handover:
                self._forget(run)  # the first denoiser is not called again
        return run

    def _end_stage(self) -> None:
        """A call of scheduler.step has ended, and with its last stage the step."""
        run = self._run
        if run is None or not run.under_way:  # a second scheduler may step within one step
            return
        run.stages += 1
        if run.stages % stages_per_step(self._scheduler) and run.step < run.plan.num_steps - 1:
            return
        run.under_way = False
        errors = [float(error) for error in run.errors]
        _synchronize(run.device)
        seconds = time.perf_counter() - run.began
        error = max(errors) if errors else None
        if run.computed:
            run.adapt(error)
        step = Step(run.step, run.computed, seconds, error, run.note, run.trend, run.calls)
        run.report.steps.append(step)
        if run.report.finished:
            run.branches.clear()  # the decoder needs the memory
            run.outputs.clear()
        if self._on_step:
            self._on_step(run.report, step)

    def _release(self, scheduler: Any) -> None:
        """Give back the memory of a scheduler that has taken the last step; LTX-2's second one
        takes it after the first."""
        run = self._run
        if run is not None and run.report.finished:
            for (owner, _), trajectory in run.trajectories.items():
                if owner == id(scheduler):
                    trajectory.release()

    # -- calls -----------------------------------------------------------------------------------

    def _denoise(self, name: str, denoiser: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        """One call of a denoiser: computed and recorded, or hollow with forecast features."""
        run = self._begin_step(lambda: positions(denoiser, args, kwargs))
        latents = first_tensor(args, kwargs)
        if latents is None:
            raise UsageError(f"{type(denoiser).__name__} was called without any latents")
        run.device = latents.device
        branch = _Branch(name, run.calls, _shapes(args, kwargs), latents.dtype)
        run.calls += 1
        if run.target == "output":
            return self._output(run, branch, forward, args, kwargs)
        forecasts = self._forecast(run, branch)
        anatomy = _known_anatomies.get(denoiser)
        if forecasts is not None and anatomy is not None:
            with hollow(denoiser, anatomy, forecasts):
                return forward(*args, **without_residuals(kwargs))
        run.computed = True
        if anatomy is None and run.plan.forecast_steps:
            output, features = _trace(denoiser, forward, args, kwargs)
        elif anatomy is not None:
            with recorded(denoiser, anatomy) as features:
                output = forward(*args, **kwargs)
        else:
            return forward(*args, **kwargs)
        self._record(run, branch, denoiser, features)
        return output

    def _forecast(self, run: _Run, branch: _Branch) -> list[torch.Tensor] | None:
        """The forecast features for this call; None where it is to be computed."""
        if run.is_planned(run.step):
            return None
        histories = run.branches.get(branch)
        if histories is None:
            run.note = "computed, as nothing was stored for this call of the denoiser"
            return None
        forecasts = [self._weighted_sum(run, history) for history in histories]
        for forecast, history in zip(forecasts, histories, strict=True):
            if not torch.isfinite(forecast.to(history.dtype)).all():  # float16 overflows early
                run.note = "computed, as its forecast was not finite"
                return None
        return forecasts

    def _output(self, run: _Run, branch: _Branch, forward: Any, args: Any, kwargs: Any) -> Any:
        """The denoiser's output; at forecast steps just one of the right shape, as the scheduler
        will be given another."""
        if run.calls == 1:
            if run.is_planned(run.step):
                run.computed = True
            elif branch not in run.outputs:
                run.note = "computed, as nothing was stored for this call of the denoiser"
                run.computed = True
            elif not all(t.is_finite(run.step) for t in run.trajectories.values()):
                run.note = "computed, as its forecast was not finite"
                run.computed = True
        if not run.computed and branch in run.outputs:
            return run.outputs[branch]
        output = forward(*args, **kwargs)
        if run.plan.forecast_steps:
            run.outputs[branch] = output
        return output

    def _with_forecast(
        self, run: _Run, scheduler: Any, cls: Any, args: Any, kwargs: Any
    ) -> tuple[Any, Any]:
        """The arguments of scheduler.step: at forecast steps with the forecast output; at computed
        ones, which are recorded, with the corrected sample."""
        stage = run.stages % stages_per_step(scheduler)
        key = (id(scheduler), stage)
        trajectory = run.trajectories.get(key)
        if trajectory is not None and trajectory.step == run.step:
            return args, kwargs  # further calls within a step have nothing to forecast
        if self._observe and run.computed and run.step > run.observed:
            run.observed = run.step
            given = inspect.signature(cls.step).bind(scheduler, *args, **kwargs).arguments
            a, b = denoised_coefficients(scheduler, given["timestep"]) or (0.0, 1.0)
            self._observe(run.step, a * given["sample"].float() + b * given["model_output"].float())
        if not run.plan.forecast_steps or (run.computed and self._is_over(run)):
            return args, kwargs
        call = inspect.signature(cls.step).bind(scheduler, *args, **kwargs)
        if trajectory is None:
            loop = self._loop
            if stages_per_step(scheduler) > 1 or run.stochastic:
                loop = replace(
                    loop, correct_above=float("inf")
                )  # a stage's way back is not its own
            trajectory = Trajectory(run.forecaster, loop, run.plan)
            run.trajectories[key] = trajectory
        if run.computed or trajectory.history is None:
            checked = trajectory.compute(scheduler, run.step, call)
            self._note(run, checked)
        elif not trajectory.forecast(scheduler, run.step, call):
            raise SpectrumError(
                f"the forecast for step {run.step} is not finite; try --method hold or --speedup 1"
            )
        return call.args[1:], call.kwargs

    def _is_over(self, run: _Run) -> bool:
        """Whether a computed step has no forecast before it to correct, and none after it."""
        last = run.plan.last_forecast(run.step)
        return run.step > last + 1

    def _note(self, run: _Run, checked: Checked) -> None:
        if checked.errors is not None:
            run.errors.append(torch.tensor(checked.errors).max())
        if checked.trends is not None and run.trend is None:
            run.trend = float(torch.tensor(checked.trends, dtype=torch.float64).min())
        stored = sum(trajectory.nbytes for trajectory in run.trajectories.values())
        stored += sum(output.nbytes for output in tensors_of(run.outputs))
        run.report.stored_bytes = max(run.report.stored_bytes, stored)

    def _forget(self, run: _Run) -> None:
        run.branches.clear()
        run.outputs.clear()
        run.trajectories.clear()

    def _record(
        self, run: _Run, branch: _Branch, denoiser: nn.Module, features: list[torch.Tensor]
    ) -> None:
        """Store computed features, and measure how well they would have been forecast."""
        histories = run.branches.get(branch)
        if histories is not None and len(run.report.computed_steps) >= 2:
            for history, feature in zip(histories, features, strict=True):
                miss = self._weighted_sum(run, history).sub_(feature)
                size = torch.linalg.vector_norm(feature, dtype=torch.float32)
                run.errors.append(torch.linalg.vector_norm(miss) / size)
        if run.step > run.plan.last_forecast(run.step):
            return
        if histories is None:
            count = capacity(run.plan, run.step, run.forecaster.keeps)
            histories = [
                FeatureHistory(count, _storage_dtype(denoiser, feature)) for feature in features
            ]
            run.branches[branch] = histories
        for history, feature in zip(histories, features, strict=True):
            history.append(run.step, feature)
        stored = sum(h.nbytes for histories in run.branches.values() for h in histories)
        run.report.stored_bytes = max(run.report.stored_bytes, stored)

    def _weighted_sum(self, run: _Run, history: FeatureHistory) -> torch.Tensor:
        weights = run.forecaster.weights(history.steps, run.step, run.plan.num_steps)
        return history.forecast(weights.tolist())


def find_denoisers(pipe: Any) -> dict[str, nn.Module]:
    """The pipeline's denoisers by name. Raises UsageError where there is none that we can carry."""
    found = {
        name: module
        for name in DENOISERS
        if isinstance(module := getattr(pipe, name, None), nn.Module)
    }
    if not found:
        raise UsageError(
            f"{type(pipe).__name__} has no denoiser that Spectrum knows ({', '.join(DENOISERS)})"
        )
    for name, module in found.items():
        if hasattr(module, "_orig_mod"):
            raise UsageError(
                f"the {name} is compiled as a whole, so no block can be skipped;"
                f" use pipe.{name}.compile_repeated_blocks() instead of torch.compile"
            )
    return found


def guidance_of(pipe: Any) -> float | None:
    """The guidance scale of the call under way, where the pipeline remembers it; None elsewhere."""
    scale = getattr(pipe, "_guidance_scale", None)
    embedded = getattr(getattr(pipe, "transformer", None), "config", {}).get("guidance_embeds")
    if embedded is False or not isinstance(scale, int | float):  # False: it is not listened to
        return None
    return float(scale)


def handover_step(pipe: Any, num_steps: int) -> int:
    """The step at which the second of two denoisers takes over; 0 where none does.

    Wan2.2: `transformer` is called while t ≥ boundary_ratio · num_train_timesteps.
    """
    ratio = getattr(pipe.config, "boundary_ratio", None)
    if ratio is None or getattr(pipe, "transformer_2", None) is None:
        return 0
    boundary = ratio * pipe.scheduler.config.num_train_timesteps
    stages = stages_per_step(pipe.scheduler)
    steps = pipe.scheduler.timesteps[-num_steps * stages :][::stages]
    before = sum(float(t) >= boundary for t in steps)
    return before if before < num_steps else 0


def _trace(
    denoiser: nn.Module, forward: Any, args: Any, kwargs: Any
) -> tuple[Any, list[torch.Tensor]]:
    """A denoiser's first computed call: finds its parts, and tries them by a replay.

    Raises UsageError where the parts can't be found, or where the hollow forward with just
    the features that were computed does not put out what the computed forward did.
    """
    with Tracer(denoiser) as tracer:
        output = forward(*args, **kwargs)
    anatomy = tracer.anatomy()
    try:
        with Tracer(denoiser) as still, hollow(denoiser, anatomy, tracer.features):
            replayed = forward(*args, **without_residuals(kwargs))
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


def _shapes(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[torch.Size, ...]:
    """Of the latents: a tensor, or a list of one for each sample (Z-Image)."""
    for value in (*args, *kwargs.values()):
        if shapes := tuple(x.shape for x in tensors_of(value)):
            return shapes
    return ()


def _agree(output: Any, replayed: Any) -> bool:
    """Whether a replay put out the same tensors."""
    ours, theirs = list(tensors_of(replayed)), list(tensors_of(output))
    if not theirs or [x.shape for x in ours] != [x.shape for x in theirs]:
        return False
    return all(
        float((a.float() - b.float()).norm()) <= _REPLAY_TOLERANCE * float(b.float().norm())
        for a, b in zip(ours, theirs, strict=True)
    )


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
