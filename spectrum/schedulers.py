"""What the cache has to know of a diffusers scheduler: its steps, whether it adds noise, and how
the denoised sample follows from the model's output."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch

# Schedulers that draw fresh noise at every step, by a part of their name.
_STOCHASTIC = ("Ancestral", "SDE", "LCM", "TCD", "DDPM", "Consistency", "SASolver", "CogVideoXDPM")

# Schedulers whose samples are x₀ + σ·noise, without a scale on x₀ (Karras et al., 2206.00364).
_VARIANCE_EXPLODING = (
    "EulerDiscreteScheduler",
    "HeunDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "LMSDiscreteScheduler",
)


def stages_per_step(scheduler: Any) -> int:
    """How many calls of `scheduler.step` make one solver step: 2 for Heun and KDPM2."""
    return int(getattr(scheduler, "order", 1))


def is_stochastic(scheduler: Any) -> bool:
    """Whether fresh noise enters at every step, so that no feature follows from earlier ones.

    `asks_for_noise` tells of schedulers that leave it to each call of `step`.
    """
    # `from_config` keeps what only the scheduler that the config comes from can use
    taken = inspect.signature(type(scheduler).__init__).parameters
    config = {key: value for key, value in scheduler.config.items() if key in taken}
    return (
        any(part in type(scheduler).__name__ for part in _STOCHASTIC)
        or str(config.get("algorithm_type", "")).startswith("sde")
        or bool(config.get("stochastic_sampling", False))
    )


def asks_for_noise(call: Mapping[str, Any]) -> bool:
    """Whether these arguments of `step` ask for fresh noise: DDIM's `eta`, Euler's `s_churn`."""
    return any((call.get(name) or 0) > 0 for name in ("eta", "s_churn"))


def takes_output(scheduler: Any) -> bool:
    """Whether `step` takes the model's output and the sample by their usual names."""
    taken = inspect.signature(type(scheduler).step).parameters
    return {"model_output", "sample", "timestep"} <= set(taken)


def denoised_coefficients(scheduler: Any, timestep: Any) -> tuple[float, float] | None:
    """(a, b) such that x₀ = a · sample + b · model_output at this step; None where unknown.

    With sample = α x₀ + σ ε: for ε-prediction x₀ = (x − σ ε) / α, for v-prediction α x − σ v
    (Salimans & Ho, 2202.00512), for a flow's velocity ε − x₀ it is x − σ v.
    """
    name, config = type(scheduler).__name__, scheduler.config
    if name.startswith("FlowMatch"):
        if config.get("stochastic_sampling") or not hasattr(scheduler, "sigmas"):
            return None
        # Mochi counts sigmas upwards: x₀ is where they end, be that 0 or 1.
        return 1.0, float(scheduler.sigmas[-1]) - _sigma(scheduler, timestep)
    prediction = str(config.get("prediction_type", ""))
    if name in _VARIANCE_EXPLODING:
        sigma = _sigma(scheduler, timestep)
        if prediction == "v_prediction":
            return 1 / (sigma**2 + 1), -sigma / (sigma**2 + 1) ** 0.5
        return _by_prediction(prediction, 1.0, sigma)
    if hasattr(scheduler, "_sigma_to_alpha_sigma_t"):
        alpha, sigma = scheduler._sigma_to_alpha_sigma_t(
            scheduler.sigmas[_index(scheduler, timestep)]
        )
        return _by_prediction(prediction, float(alpha), float(sigma))
    if name.startswith(("DDIM", "CogVideoXDDIM")):
        square = float(scheduler.alphas_cumprod[int(timestep)])
        return _by_prediction(prediction, square**0.5, (1 - square) ** 0.5)
    return None


def noise_levels(scheduler: Any) -> tuple[float, ...] | None:
    """σ / (α + σ) at each of the scheduler's steps, falling from about 1; None where unknown."""
    name, config = type(scheduler).__name__, scheduler.config
    stages = stages_per_step(scheduler)
    if hasattr(scheduler, "sigmas"):
        count = len(scheduler.timesteps)
        sigmas = [float(sigma) for sigma in scheduler.sigmas[:count]][::stages]
        if name.startswith("FlowMatch"):
            return tuple(1 - s if config.get("invert_sigmas") else s for s in sigmas)
        if name in _VARIANCE_EXPLODING:
            return tuple(sigma / (1 + sigma) for sigma in sigmas)
        if hasattr(scheduler, "_sigma_to_alpha_sigma_t"):
            pairs = [scheduler._sigma_to_alpha_sigma_t(torch.tensor(s)) for s in sigmas]
            return tuple(float(sigma) / float(alpha + sigma) for alpha, sigma in pairs)
    if hasattr(scheduler, "alphas_cumprod") and hasattr(scheduler, "timesteps"):
        squares = [float(scheduler.alphas_cumprod[int(t)]) for t in scheduler.timesteps]
        pairs = [(a**0.5, (1 - a) ** 0.5) for a in squares]
        return tuple(sigma / (alpha + sigma) for alpha, sigma in pairs)
    return None


def _by_prediction(prediction: str, alpha: float, sigma: float) -> tuple[float, float] | None:
    return {
        "epsilon": (1 / alpha, -sigma / alpha) if alpha else None,
        "v_prediction": (alpha, -sigma),
        "flow_prediction": (1.0, -sigma),
    }.get(prediction)


def _index(scheduler: Any, timestep: Any) -> int:
    """The scheduler's place in its list of sigmas, found as its own `step` will find it.

    Only looked up: where a pipeline leaves out the first steps, the place that is found before
    would stay for the first that it takes.
    """
    for place in (scheduler.step_index, scheduler.begin_index):
        if place is not None:
            return int(place)
    if isinstance(timestep, torch.Tensor):
        timestep = timestep.to(scheduler.timesteps.device)
    return int(scheduler.index_for_timestep(timestep))


def _sigma(scheduler: Any, timestep: Any) -> float:
    return float(scheduler.sigmas[_index(scheduler, timestep)])
