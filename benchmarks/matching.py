"""A pipeline's own noise levels, or those at which a larger picture is sampled.

The same structure of a picture with r times the side is decided at r times the noise ρ = σ/α, as
there is r² as much of the picture to tell it from the noise. So a small model stands for a large
one if each of its steps is taken at ρ / r: for a flow that is the shift divided by r, whatever sets
it (config, FLUX's number of tokens); for noise predictors sigma / r. The first step stays where it
was, at the pure noise that every run starts from.
"""

from __future__ import annotations

import functools
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from spectrum.pipeline.sampler import set_scheduler


def solver(scheduler: Any, name: str) -> Any:
    """Another solver (of `spectrum.pipeline.loading`) for the same model and noise levels."""
    pipe = SimpleNamespace(scheduler=scheduler)
    no_preset: Any = SimpleNamespace(scheduler=None)
    set_scheduler(pipe, no_preset, name)
    return pipe.scheduler


def matched(scheduler: Any, ratio: float) -> Any:
    """A new scheduler of the same config, whose steps are at σ/α divided by `ratio`; at 1 its own.

    Raises ValueError for a class that doesn't keep sigmas.
    """
    cls = type(scheduler)
    if ratio == 1:
        return cls.from_config(scheduler.config)
    if not hasattr(scheduler, "sigmas") or scheduler.config.get("invert_sigmas"):
        raise ValueError(f"no way is known to give {cls.__name__} other noise levels")

    @functools.wraps(cls.set_timesteps)
    def set_timesteps(this: Any, *args: Any, **kwargs: Any) -> None:
        cls.set_timesteps(this, *args, **kwargs)
        _lower(this, ratio)

    members = {"set_timesteps": set_timesteps, "__module__": cls.__module__}
    return type(cls.__name__, (cls,), members).from_config(scheduler.config)


def is_flow(scheduler: Any) -> bool:
    """Whether its sigmas are those of (1 − σ) x₀ + σ ε."""
    flow_sigmas = scheduler.config.get("use_flow_sigmas")
    return type(scheduler).__name__.startswith("FlowMatch") or bool(flow_sigmas)


def _lower(scheduler: Any, ratio: float) -> None:
    """Divide σ/α after the first step, and tell the model so, in fractions of a timestep."""
    sigmas = scheduler.sigmas.double().numpy().copy()  # [N + 1]
    later, count = sigmas[1:], len(scheduler.timesteps)
    if is_flow(scheduler):
        sigmas[1:] = later / (later + ratio * (1 - later))
        timesteps = sigmas * scheduler.config.num_train_timesteps
    else:
        sigmas[1:] = later / ratio
        known = ((1 - scheduler.alphas_cumprod) / scheduler.alphas_cumprod).sqrt().numpy()
        timesteps = np.interp(np.log(np.maximum(sigmas, 1e-9)), np.log(known), range(len(known)))
    timesteps[0] = float(scheduler.timesteps[0])
    scheduler.sigmas = torch.from_numpy(sigmas).to(scheduler.sigmas.dtype)
    device = scheduler.timesteps.device
    scheduler.timesteps = torch.from_numpy(timesteps[:count]).to(device, torch.float32)
