"""Listening to a pipeline: its denoiser calls, its scheduler's steps, and where its runs begin.

A step is what lies between two calls of `scheduler.step` (for Heun and its like, two of them make
a step). Timesteps are never read: in bfloat16 they collide.

Denoisers and scheduler are given dynamic subclasses meanwhile. Unlike a replaced `forward`, a
subclass stays where accelerate or diffusers put hooks in and take them out, and unlike a method on
the instance it survives the deep copies that pipelines make of schedulers before they denoise. All
other copies, and what is pickled, are of their own class.
"""

from __future__ import annotations

import functools
import inspect
import time
from copy import deepcopy
from inspect import BoundArguments
from typing import Any, Protocol
from weakref import ReferenceType, WeakKeyDictionary, ref

import torch
from torch import nn

from spectrum.caller import a_pipeline_denoises
from spectrum.denoiser import find_denoisers, first_tensor
from spectrum.errors import UsageError
from spectrum.report import Interval
from spectrum.schedulers import stages_per_step
from spectrum.target import Call

_OWN = "_class_without_spectrum"  # of a subclass, the class that it stands for

# Of denoisers and schedulers, by weak references, as a tap holds them; their subclasses hold it.
_tapped: WeakKeyDictionary[Any, ReferenceType[Tap]] = WeakKeyDictionary()


class Listener(Protocol):
    """What is called back, in this order."""

    def begin(self, call: Call, num_steps: int) -> None:
        """A run begins with this call of a denoiser."""

    def begin_step(self, step: int) -> None:
        """A step begins, before its first call of a denoiser."""

    def call(self, call: Call) -> Any:
        """A denoiser is called; what is returned is its output."""

    def stage(self, scheduler: Any, call: BoundArguments, taken: int) -> None:
        """`scheduler.step` is about to be called, the run's calls of it so far being `taken`."""

    def end_step(self, took: float | Interval) -> None:
        """A step has ended, with the last of its stages."""

    def stepped(self, scheduler: Any, sample: torch.Tensor) -> None:
        """`scheduler.step` has put out this sample."""


class Tap:
    """The subclasses of one pipeline's denoisers and scheduler, and the count of its steps."""

    def __init__(self, pipe: Any, denoisers: dict[str, nn.Module], listener: Listener) -> None:
        self.listener = listener
        self._pipe, self._denoisers = pipe, denoisers
        self._scheduler: Any = None
        self._own_bar: Any = None  # what the user has put in the place of the pipeline's method
        self._bar = False  # whether the pipeline has made its progress bar for this run
        self._made: ReferenceType[Any] | None = None  # the bar, which goes with the pipeline's call
        self._shown = False  # unless it is switched off
        self._shared = False  # whether the bar is that of several runs
        self._total: int | None = None  # steps, as the bar was told
        self._listed: int | None = None  # timesteps that it goes over
        self._num_steps: int | None = None  # of the run under way; None between runs
        self._step, self._stages = -1, 0
        self._runs = 0  # begun
        self._copies: WeakKeyDictionary[Any, int] = WeakKeyDictionary()  # runs begun before each
        self._under_way = False
        self._watch: _Watch = _HostWatch()

    @property
    def is_in(self) -> bool:
        return self._scheduler is not None

    def put_in(self) -> None:
        """Raises UsageError where a part has another cache already; nothing is changed then."""
        for part in (*self._denoisers.values(), self._pipe.scheduler):
            if part in _tapped or getattr(part, "is_cache_enabled", False):
                raise UsageError(
                    f"{type(part).__name__} is cached already, in this pipeline or one that shares"
                    " it; disable that cache first, or give this pipeline a part of its own"
                )
        try:
            for name, denoiser in self._denoisers.items():
                self._subclass_denoiser(name, denoiser)
            self._subclass_scheduler()
            self._listen_to_total()
        except BaseException:
            self.take_out()
            raise

    def take_out(self) -> None:
        """Put the pipeline back to what it was, however much of it was changed."""
        for denoiser in self._denoisers.values():
            self._restore_denoiser(denoiser)
        self._restore_scheduler()
        vars(self._pipe).pop("progress_bar", None)
        if self._own_bar is not None:
            self._pipe.progress_bar, self._own_bar = self._own_bar, None
        self._num_steps = None

    def _subclass_denoiser(self, name: str, denoiser: nn.Module) -> None:
        cls = getattr(type(denoiser), _OWN, type(denoiser))

        def call(this: nn.Module, *args: Any, **kwargs: Any) -> Any:
            if this is not denoiser:  # a copy, which is somebody else's
                return cls.__call__(this, *args, **kwargs)
            return self._called(
                Call(name, this, functools.partial(cls.__call__, this), args, kwargs)
            )

        denoiser.__class__ = _subclass(cls, __call__=call, __doc__=cls.__doc__)
        _tapped[denoiser] = ref(self)

    def _restore_denoiser(self, denoiser: nn.Module) -> None:
        if _tap_of(denoiser) is self:
            denoiser.__class__ = type(denoiser).__mro__[1]
            del _tapped[denoiser]

    def _follow_denoisers(self) -> None:
        """The user may have set others. Raises UsageError for one that can't be."""
        found = find_denoisers(self._pipe)
        for name, denoiser in found.items():
            before = self._denoisers.get(name)
            if denoiser is not before:
                if before is not None:
                    self._restore_denoiser(before)
                self._subclass_denoiser(name, denoiser)
                self._denoisers[name] = denoiser

    def _subclass_scheduler(self) -> None:
        scheduler = self._pipe.scheduler
        cls: Any = getattr(type(scheduler), _OWN, type(scheduler))  # of a copy
        signature = inspect.signature(cls.step)

        @functools.wraps(cls.step)
        def step(this: Any, *args: Any, **kwargs: Any) -> Any:
            if self._num_steps is None or self._is_foreign(this):
                return cls.step(this, *args, **kwargs)
            call = signature.bind(this, *args, **kwargs)
            self.listener.stage(this, call, self._stages)
            result = cls.step(*call.args, **call.kwargs)
            self._end_stage()
            self.listener.stepped(this, result[0])
            return result

        @functools.wraps(cls.set_timesteps)
        def set_timesteps(this: Any, *args: Any, **kwargs: Any) -> Any:
            if not self._is_foreign(this):
                self._num_steps, self._shared = None, self._bar_is_open()
                if not self._shared:
                    self._bar, self._total, self._listed = False, None, None
                self._follow_denoisers()
            return cls.set_timesteps(this, *args, **kwargs)

        def copied(this: Any, memo: dict[int, Any]) -> Any:
            made = memo[id(this)] = cls.__new__(cls)
            vars(made).update(deepcopy(vars(this), memo))
            made.__class__ = type(this)
            self._copies[made] = self._runs - self._has_ended  # the next run's, if this is over
            return made

        own = {"step": step, "set_timesteps": set_timesteps, "__deepcopy__": copied}
        if not hasattr(cls, "scale_model_input"):  # Bria asks for it where `type` is another
            own["scale_model_input"] = _unscaled
        scheduler.__class__ = _subclass(cls, **own)
        self._scheduler = scheduler
        _tapped[scheduler] = ref(self)

    def _is_foreign(self, scheduler: Any) -> bool:
        """Whether it is a copy that was made since the newest run began and before it ended, as
        callbacks do: a pipeline has made its own by then."""
        return self._copies.get(scheduler) == self._runs

    @property
    def _has_ended(self) -> bool:
        """Whether the newest run has taken its last step."""
        return (
            self._num_steps is not None
            and self._step >= self._num_steps - 1
            and not self._under_way
        )

    def _restore_scheduler(self) -> None:
        if self._scheduler is not None:
            self._scheduler.__class__ = type(self._scheduler).__mro__[1]
            del _tapped[self._scheduler]
            self._scheduler = None

    def _listen_to_total(self) -> None:
        """Some image-to-image pipelines tell nobody but their progress bar how long they run."""
        self._own_bar = vars(self._pipe).get("progress_bar")
        self._pipe.progress_bar = _Bar(self, self._pipe.progress_bar)

    def bar_is_made(self, bar: Any, total: int | None, listed: int | None) -> None:
        """The pipeline has made its progress bar, for so many steps or over so many timesteps, if
        that is told."""
        self._bar, self._shared, self._listed = True, False, listed
        self._total = self._total if total is None else total
        self._shown = not getattr(bar, "disable", True)
        try:
            self._made = ref(bar)
        except TypeError:  # the user's own, which may be anything
            self._made = None

    def _bar_is_open(self) -> bool:
        """Whether the pipeline still has it, and has not closed it, which switches it off."""
        bar = self._made() if self._made else None
        return bar is not None and (not self._shown or not bar.disable)

    def _count_steps(self) -> int:
        """How many steps the run will take. The scheduler's own list is the last resort, and right
        for a loop written by hand: it is too long for image-to-image, which leaves out the first
        steps. It is the most that one of several runs can take for which there is one bar."""
        each, longest = stages_per_step(self._pipe.scheduler), len(self._pipe.scheduler.timesteps)
        stages = int(getattr(self._pipe, "num_timesteps", 0) or 0) if self._bar else 0
        stages = self._listed or stages
        if not stages and self._total:
            stages = self._total * each
        if self._shared:
            stages = min(stages, longest)
        return -(-(stages or longest) // each)

    def _called(self, call: Call) -> Any:
        if self._pipe.scheduler is not self._scheduler:  # the user has set another one
            self._restore_scheduler()
            self._subclass_scheduler()
            self._num_steps = None
        latents = first_tensor(call.args, call.kwargs)
        if latents is None:
            raise UsageError(f"{type(call.denoiser).__name__} was called without any latents")
        denoises = a_pipeline_denoises()
        if denoises is False:  # GLM-Image stores what it needs of a picture to be edited
            return call.compute()
        if self._num_steps is None:
            self._step, self._stages, self._under_way = -1, 0, False
            if denoises and not self._bar:
                raise UsageError(
                    f"{type(call.denoiser).__name__} is called by another pipeline than the one"
                    " that the cache is on; put the cache on that one"
                )
            num_steps = self._count_steps()
            self.listener.begin(call, num_steps)
            self._num_steps = num_steps
            self._runs += 1
        if not self._under_way:
            self._step += 1
            self._under_way, self._watch = True, _watch(latents.device)
            self.listener.begin_step(self._step)
        return self.listener.call(call)

    def _end_stage(self) -> None:
        """A call of scheduler.step has ended, and with its last stage the step."""
        if not self._under_way or self._num_steps is None:
            return  # a second scheduler may step within one step
        self._stages += 1
        more = self._stages % stages_per_step(self._scheduler)
        if more and self._step < self._num_steps - 1:
            return
        self._under_way = False
        self.listener.end_step(self._watch.stop())


class _Bar:
    """In the place of a pipeline's `progress_bar`; a copied or pickled pipeline has its own."""

    def __init__(self, tap: Tap, made: Any) -> None:
        self._tap, self._made = tap, made

    def __call__(self, iterable: Any = None, total: int | None = None) -> Any:
        made = self._made(iterable, total) if iterable is None else self._made(iterable)
        self._tap.bar_is_made(made, total, len(iterable) if hasattr(iterable, "__len__") else None)
        return made

    def __reduce__(self) -> tuple[Any, ...]:
        return functools.partial, (self._made,)


def _subclass(cls: Any, **members: Any) -> Any:
    """One that nobody tells from its class by name, and that is pickled as of that."""

    def reduced(this: Any) -> tuple[Any, ...]:
        return object.__new__, (cls,), this.__getstate__()

    own = {"__module__": cls.__module__, "__reduce__": reduced, _OWN: cls}
    return type(cls.__name__, (cls,), {**own, **members})


def _unscaled(_scheduler: Any, sample: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
    """A scheduler's `scale_model_input`, of one that leaves the sample as it is."""
    return sample


def tap_on(pipe: Any) -> Tap | None:
    """The tap that is in a pipeline, if one is."""
    return _tap_of(pipe.scheduler)


def _tap_of(part: Any) -> Tap | None:
    found = _tapped.get(part)
    return found() if found else None


class _Watch(Protocol):
    """Runs from its making on."""

    def stop(self) -> float | Interval: ...


class _HostWatch:
    def __init__(self) -> None:
        self._began = time.perf_counter()

    def stop(self) -> float:
        return time.perf_counter() - self._began


class _DeviceWatch:
    """By events in the device's own queue, so that nobody waits for it to tell the time."""

    def __init__(self, device: torch.device) -> None:
        self._begin, self._end = (torch.Event(device, enable_timing=True) for _ in range(2))
        self._begin.record()

    def stop(self) -> Interval:
        self._end.record()
        return self

    @property
    def seconds(self) -> float:
        self._end.synchronize()
        return self._begin.elapsed_time(self._end) / 1000


def _watch(device: torch.device) -> _Watch:
    return _DeviceWatch(device) if device.type in ("cuda", "mps", "xpu") else _HostWatch()
