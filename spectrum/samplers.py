"""What the cache has to know of a diffusers scheduler: its steps, and whether it adds noise."""

from __future__ import annotations

from typing import Any

# Schedulers that draw fresh noise at every step, by a part of their name.
_STOCHASTIC = ("Ancestral", "SDE", "LCM", "TCD", "DDPM", "Consistency", "SASolver", "CogVideoXDPM")


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
