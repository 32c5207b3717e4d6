"""What the cache has to know of a diffusers scheduler: its steps, whether it adds noise, and how
the denoised sample follows from the model's output.

Everything is read into plain numbers before the first step, and no scheduler is changed by it.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch

from spectrum.timeline import USUAL_SHIFT, Timeline, adds_noise, flow_levels


class Coefficients(NamedTuple):
    """How x₀ follows from a sample α x₀ + σ ε and what the model says of it: x₀ = `sample` · sample
    + `output` · model_output. Where the sample is moved by d, x₀ moves by about `response` · d:
    d/α in y = x/α, and 1/(2 + ρ) of that (`spectrum.closed_loop`)."""

    sample: float
    output: float | torch.Tensor  # where each token has its own, [B, N, 1]
    response: float


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
        adds_noise(type(scheduler).__name__)
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


def denoised_coefficients(scheduler: Any) -> tuple[Coefficients | None, ...] | None:
    """How x₀ follows at each of the scheduler's timesteps; None where that is unknown.

    With sample = α x₀ + σ ε: for ε-prediction x₀ = (x − σ ε) / α, for v-prediction α x − σ v
    (Salimans & Ho, 2202.00512), for a flow's velocity ε − x₀ it is x − σ v. No number for single
    steps: where α is 0, or the prediction an unknown one.
    """
    name, config = type(scheduler).__name__, scheduler.config
    if hasattr(scheduler, "precondition_outputs"):
        return None  # EDM's: Cosmos 1 takes a step twice, of each guidance branch and of both
    if name.startswith("FlowMatch"):
        if config.get("stochastic_sampling") or not hasattr(scheduler, "sigmas"):
            return None
        sigmas = scheduler.sigmas.tolist()
        # Mochi counts sigmas upwards: x₀ is where they end, and at times they stop before (Cosmos)
        end, exploding = float(bool(config.get("invert_sigmas"))), _explodes(sigmas)
        noise = [(end - sigma, abs(end - sigma)) for sigma in sigmas[:-1]]
        return tuple(
            Coefficients(1.0, b, _response(1.0 if exploding else 1 - share, share))
            for b, share in noise
        )
    prediction = str(config.get("prediction_type", ""))
    if name in _VARIANCE_EXPLODING:
        return tuple(_exploding(prediction, sigma) for sigma in scheduler.sigmas.tolist())
    if hasattr(scheduler, "_sigma_to_alpha_sigma_t"):
        pairs = [scheduler._sigma_to_alpha_sigma_t(sigma) for sigma in scheduler.sigmas.cpu()]
        return tuple(_by_prediction(prediction, float(alpha), float(s)) for alpha, s in pairs)
    if name.startswith(("DDIM", "CogVideoXDDIM")):
        kept = scheduler.alphas_cumprod.cpu()
        squares = [float(kept[int(t)]) for t in scheduler.timesteps.tolist()]
        return tuple(_by_prediction(prediction, a**0.5, (1 - a) ** 0.5) for a in squares)
    return None


def _explodes(sigmas: Sequence[float]) -> bool:
    """Whether samples are x₀ + σ·noise although the model says a flow's velocity (Cosmos 2)."""
    return max(sigmas) > 1 + 1e-3


def of_tokens(known: Coefficients, scheduler: Any, call: Mapping[str, Any]) -> Coefficients:
    """The coefficients of this call of `step`, where it may say how noisy each token is: it takes
    the velocity with the other sign then (LTX with conditions). One without noise is x₀ itself."""
    times = call.get("per_token_timesteps")
    if times is None:
        return known
    levels = times.float() / scheduler.config.num_train_timesteps
    return known._replace(output=levels[..., None].clamp_min(1e-4))


def _response(alpha: float, sigma: float) -> float:
    return 1 / (2 * alpha + sigma)


def _by_prediction(prediction: str, alpha: float, sigma: float) -> Coefficients | None:
    response = _response(alpha, sigma)
    return {
        "epsilon": Coefficients(1 / alpha, -sigma / alpha, response) if alpha else None,
        "v_prediction": Coefficients(alpha, -sigma, response),
        "flow_prediction": Coefficients(1.0, -sigma, response),
    }.get(prediction)


def _exploding(prediction: str, sigma: float) -> Coefficients | None:
    if prediction == "v_prediction":
        a = 1 / (sigma**2 + 1)
        return Coefficients(a, -sigma * a**0.5, _response(1.0, sigma))
    return _by_prediction(prediction, 1.0, sigma)


def place(scheduler: Any, timestep: Any, taken: int, to_come: int) -> int:
    """Where the scheduler is in its list of timesteps, as its own `step` will find it.

    `taken` and `to_come` are the numbers of its steps in this run; DDIM does not count them. Only
    looked up: where a pipeline leaves out the first steps, the place that is found before would
    stay for the first that it takes.
    """
    for index in (getattr(scheduler, "step_index", None), getattr(scheduler, "begin_index", None)):
        if index is not None:
            return int(index)
    if hasattr(scheduler, "index_for_timestep"):
        if isinstance(timestep, torch.Tensor):
            timestep = timestep.to(scheduler.timesteps.device)
        return int(scheduler.index_for_timestep(timestep))
    return max(0, len(scheduler.timesteps) - to_come) + taken


def noise_levels(scheduler: Any) -> tuple[float, ...] | None:
    """σ / (α + σ) at each of the scheduler's steps, falling from about 1; None where unknown."""
    name, config = type(scheduler).__name__, scheduler.config
    stages = stages_per_step(scheduler)
    if hasattr(scheduler, "sigmas"):
        count = len(scheduler.timesteps)
        sigmas = scheduler.sigmas[:count].tolist()[::stages]
        if name.startswith("FlowMatch"):
            if _explodes(sigmas):
                return tuple(sigma / (1 + sigma) for sigma in sigmas)
            return tuple(1 - s if config.get("invert_sigmas") else s for s in sigmas)
        if name in _VARIANCE_EXPLODING or hasattr(scheduler, "precondition_outputs"):
            unit = config.get("sigma_data", 1.0)  # of EDM's, how large x₀ is
            return tuple(sigma / (unit + sigma) for sigma in sigmas)
        if hasattr(scheduler, "_sigma_to_alpha_sigma_t"):
            pairs = [scheduler._sigma_to_alpha_sigma_t(torch.tensor(s)) for s in sigmas]
            return tuple(float(sigma) / float(alpha + sigma) for alpha, sigma in pairs)
    if hasattr(scheduler, "alphas_cumprod") and hasattr(scheduler, "timesteps"):
        squares = [float(scheduler.alphas_cumprod[int(t)]) for t in scheduler.timesteps.tolist()]
        pairs = [(a**0.5, (1 - a) ** 0.5) for a in squares]
        return tuple(sigma / (alpha + sigma) for alpha, sigma in pairs)
    return None


def handover_step(pipe: Any, num_steps: int) -> int:
    """The step at which the second of two denoisers takes over; 0 where none does.

    Wan2.2: `transformer` is called while t ≥ boundary_ratio · num_train_timesteps.
    """
    ratio = getattr(pipe.config, "boundary_ratio", None)
    if ratio is None or getattr(pipe, "transformer_2", None) is None:
        return 0
    boundary = ratio * pipe.scheduler.config.num_train_timesteps
    stages = stages_per_step(pipe.scheduler)
    steps = pipe.scheduler.timesteps[-num_steps * stages :][::stages].tolist()
    before = sum(t >= boundary for t in steps)
    return before if before < num_steps else 0


def read_timeline(pipe: Any, num_steps: int, scale: float) -> Timeline:
    """The run that a pipeline is about to take, its scheduler's timesteps being set; `scale` is S.

    Image-to-image leaves out the first steps. Where the noise levels are unknown, they are taken
    for those of a flow.
    """
    levels = noise_levels(pipe.scheduler) or ()
    known = len(levels) >= num_steps
    return Timeline(
        levels[-num_steps:] if known else flow_levels(num_steps, USUAL_SHIFT),
        scale,
        handover_step(pipe, num_steps),
        is_stochastic(pipe.scheduler),
    )
