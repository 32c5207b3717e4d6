"""What the cache has to know of a diffusers scheduler: its steps, whether it adds noise, and how
the denoised sample follows from the model's output."""

from __future__ import annotations

import inspect
from typing import Any

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
    """Whether fresh noise enters at every step, so that no feature follows from earlier ones."""
    config = scheduler.config
    return (
        any(part in type(scheduler).__name__ for part in _STOCHASTIC)
        or str(config.get("algorithm_type", "")).startswith("sde")
        or bool(config.get("stochastic_sampling", False))
    )


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


def _by_prediction(prediction: str, alpha: float, sigma: float) -> tuple[float, float] | None:
    return {
        "epsilon": (1 / alpha, -sigma / alpha) if alpha else None,
        "v_prediction": (alpha, -sigma),
        "flow_prediction": (1.0, -sigma),
    }.get(prediction)


def _index(scheduler: Any, timestep: Any) -> int:
    """The scheduler's place in its list of sigmas, found as its own `step` finds it."""
    if scheduler.step_index is None:
        scheduler._init_step_index(timestep)
    return int(scheduler.step_index)


def _sigma(scheduler: Any, timestep: Any) -> float:
    return float(scheduler.sigmas[_index(scheduler, timestep)])
