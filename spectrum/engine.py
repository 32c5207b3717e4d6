"""The spectral cache: plan a run when it begins, let its target forecast, report its steps.

A pipeline under the cache is listened to (`spectrum.tap`). When its denoiser is first called, what
is known of the run is read (`spectrum.timeline`) and its steps are planned (`spectrum.plan`). From
then on every call of a denoiser and of the scheduler goes through the run's target: the hidden
feature of each guidance branch, as published (`spectrum.feature`), or the denoised sample
(`spectrum.denoised`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from inspect import BoundArguments
from typing import Any

from spectrum.anatomy import Anatomy
from spectrum.denoised import DenoisedTarget, Observer
from spectrum.denoiser import find_denoisers, is_epsilon, positions, tokens_of
from spectrum.errors import SpectrumError, UsageError
from spectrum.feature import FeatureTarget, anatomy_of
from spectrum.forecast import Forecaster
from spectrum.methods import DEFAULT_METHOD, HistoryPlace, Method, Target, get_method
from spectrum.plan import NOISY_SPEEDUP, Plan, as_schedule
from spectrum.report import Interval, Report, Step
from spectrum.schedule import Schedule
from spectrum.schedulers import asks_for_noise, read_timeline
from spectrum.storage import Storage
from spectrum.tap import Tap, tap_on
from spectrum.target import Call, Current
from spectrum.target import Target as RunningTarget

# Called when denoising begins (step None) and after each step.
Listener = Callable[[Report, Step | None], None]


@dataclass
class _Run:
    """One run of the pipeline, gone when the next begins."""

    plan: Plan
    target: RunningTarget
    report: Report
    now: Current
    next: int | None = None  # the next computed step, where it is found on the way

    def is_planned(self, step: int) -> bool:
        """Whether a step is computed by plan (as is one that the plan does not know)."""
        return step in self.plan.computed_steps or step == self.next or step >= self.plan.num_steps

    def adapt(self, error: float | None) -> None:
        """Choose the next computed step by the error at this one, if the schedule does that.

        Of a batch, which shares its steps, it is the largest error: the one thing here in which a
        sample depends on its neighbours.
        """
        computed = [*self.report.computed_steps, self.now.index]
        self.next = self.plan.next_step(computed, error)
        if self.next is not None:
            planned = {*self.report.planned_steps, self.now.index, self.next}
            self.report.planned_steps = sorted(s for s in planned if s < self.plan.num_steps)


class SpectralCache:
    """Forecast most steps of a diffusers pipeline instead of computing them (arXiv 2603.01623).

    Use as a context manager, or by `enable()` and `disable()`; each call of the pipeline in
    between is a run of its own, with its own report. Pipelines in different threads can each have
    a cache of their own at the same time; one pipeline can't be in two threads.

    Args:
        pipe: a diffusers pipeline with a `transformer` or `unet`; Wan2.2's two transformers each
            have their own history and share of the computed steps.
        speedup: steps over computed steps, at the least. The default of 3.5 computes 14 of 50.
        method: of `spectrum.methods`, or its name; "published" is exactly the paper's.
        blend: for "published" and "affine", the share of the ridge against linear extrapolation.
        forecaster: instead of the method's, anything with `weights` and `keeps`; of the feature,
            if no target is given.
        schedule: instead of a plan for `speedup`, the numbers of the steps to compute, or anything
            with `computed_steps(timeline)`.
        target: instead of the method's, what is forecast: "feature" or "denoised".
        on_step: called as on_step(report, None) when denoising begins, and as
            on_step(report, step) after each step.
        history: where features are kept (`spectrum.storage`): "auto", "device", "host"; x₀ stays.
        observe: called as observe(step, x₀) at each computed step, where the denoised sample is the
            target and the scheduler is one whose x₀ is known.

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
        schedule: Schedule | Sequence[int] | None = None,
        target: Target | None = None,
        on_step: Listener | None = None,
        history: HistoryPlace = "auto",
        observe: Observer | None = None,
    ) -> None:
        if speedup is not None and schedule is not None:
            raise UsageError("give a speedup or a schedule, not both: either decides the plan")
        if blend is not None and (forecaster is not None or not isinstance(method, str)):
            raise UsageError("blend goes with a method by name; a forecaster has its own")
        if target not in (None, "feature", "denoised"):
            raise UsageError(f"no target {target!r}; there are 'feature' and 'denoised'")
        chosen = get_method(method, blend) if isinstance(method, str) else method
        if forecaster is not None:
            chosen = replace(chosen, forecaster=forecaster, loop=None, target="feature")
        self._method = chosen if target is None else replace(chosen, target=target)
        self._speedup = 3.5 if speedup is None else speedup
        self._schedule = as_schedule(schedule)
        self._on_step, self._observe, self._storage = on_step, observe, Storage(history)
        self.denoisers = find_denoisers(pipe)
        self.reports: list[Report] = []
        self._pipe = pipe
        self._tap = Tap(pipe, self.denoisers, self)
        self._outer: list[bool] = []  # of each `with` under way, whether it was enabled before
        self._run: _Run | None = None

    @property
    def report(self) -> Report:
        """The newest run's report. Raises SpectrumError before the first."""
        if self.reports:
            return self.reports[-1]
        raise SpectrumError("no report yet: the pipeline has not been called under this cache")

    @property
    def anatomies(self) -> dict[str, Anatomy]:
        """Blocks and heads of each denoiser that has been called under a cache."""
        return {name: found for name, d in self.denoisers.items() if (found := anatomy_of(d))}

    @property
    def enabled(self) -> bool:
        return self._tap.is_in

    def enable(self) -> None:
        """Begin to listen. Raises UsageError where a denoiser has another cache already."""
        if not self.enabled:
            self._tap.put_in()

    def disable(self) -> None:
        """Put the pipeline back to what it was. Harmless where nothing is enabled."""
        if self.enabled:
            self._tap.take_out()
        self._run = None

    def __enter__(self) -> SpectralCache:
        self._outer.append(self.enabled)
        self.enable()
        return self

    def __exit__(self, *_: object) -> None:
        if not self._outer.pop():
            self.disable()

    # -- called back by the tap -------------------------------------------------------------------

    def begin(self, call: Call, num_steps: int) -> None:
        """Plan a run, which begins with this call."""
        size = positions(call.denoiser, call.args, call.kwargs)
        scale = self._method.run_scale(size, is_epsilon(self._pipe))
        timeline = read_timeline(self._pipe, num_steps, scale)
        plan = self._method.plan(timeline, self._speedup, self._schedule)
        report = Report(num_steps, plan.computed_steps, adaptive=plan.adaptive, scale=scale)
        self._run = _Run(plan, self._make_target(plan, report), report, Current(-1, planned=True))
        self._warn_of_noise(self._run)
        self.reports.append(report)
        if self._on_step:
            self._on_step(report, None)

    def begin_step(self, step: int) -> None:
        run = self._running
        run.now = Current(step, run.is_planned(step), len(run.report.computed_steps))
        if step and step == run.plan.handover:
            run.target.forget()  # the first denoiser is not called again

    def call(self, call: Call) -> Any:
        run = self._running
        run.now.calls += 1
        output = run.target.call(run.now, call)
        self._measure(run)
        return output

    def stage(self, scheduler: Any, call: BoundArguments, taken: int) -> None:
        run = self._running
        if not taken:
            self._plan_anew(run, call.arguments)
        run.target.step(run.now, scheduler, call, taken)
        self._measure(run)

    def end_step(self, took: float | Interval) -> None:
        run, now, report = self._running, self._running.now, self._running.report
        error = max(map(float, now.errors), default=None)
        if now.computed:
            run.adapt(error)
        step = Step(now.index, now.computed, took, error, now.note, now.trend, now.calls)
        report.steps.append(step)
        if self._on_step:
            self._on_step(report, step)

    def stepped(self, scheduler: Any, sample: Any) -> None:
        self._running.target.stepped(scheduler, sample, self._running.report.finished)

    @property
    def _running(self) -> _Run:
        assert self._run is not None  # the tap calls `begin` first
        return self._run

    def _make_target(self, plan: Plan, report: Report) -> RunningTarget:
        """As the method has it; the feature where a scheduler's x₀ is not known."""
        method, scheduler = self._method, self._pipe.scheduler
        if method.target == "denoised":
            if DenoisedTarget.knows(scheduler):
                return DenoisedTarget(method.forecaster, method.loop, plan, self._observe)
            report.caution = (
                f"the denoised sample can't be told from what {type(scheduler).__name__} is"
                " given, so the hidden feature is forecast instead"
            )
        return FeatureTarget(method.forecaster, plan, self._storage)

    def _plan_anew(self, run: _Run, given: Mapping[str, Any]) -> None:
        """For what only the first call of scheduler.step tells: that it asks for noise (DDIM), and
        the sample's size without images to edit. Step 0, which was taken, is in every plan."""
        known, noisy = run.plan.timeline, asks_for_noise(given)
        tokens = tokens_of(next(iter(self.denoisers.values())), given.get("sample"))
        scale = self._method.run_scale(tokens, is_epsilon(self._pipe)) if tokens else known.scale
        timeline = replace(known, scale=scale, stochastic=known.stochastic or noisy)
        if timeline != known:
            run.plan = run.target.plan = self._method.plan(timeline, self._speedup, self._schedule)
            run.report.planned_steps, run.report.scale = run.plan.computed_steps, scale
            self._warn_of_noise(run)

    def _warn_of_noise(self, run: _Run) -> None:
        """Say that the plan is a careful one, unless it was given or asked for."""
        careful = (
            self._speedup <= NOISY_SPEEDUP if self._schedule is None else not run.plan.adaptive
        )
        if run.plan.timeline.stochastic and not careful:
            run.report.caution = (
                f"{type(self._pipe.scheduler).__name__} adds fresh noise at every step, which no"
                " forecast foresees: at most half of the steps are forecast, and the result is"
                " another one than without Spectrum"
            )

    def _measure(self, run: _Run) -> None:
        if run.now.computed:
            run.report.stored_bytes = max(run.report.stored_bytes, run.target.nbytes)


def cache_of(pipe: Any) -> SpectralCache | None:
    """The cache that is enabled for a pipeline, for whoever has lost it; None where none is."""
    tap = tap_on(pipe)
    return tap.listener if tap and isinstance(tap.listener, SpectralCache) else None
