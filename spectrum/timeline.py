"""The steps of a run in plain numbers: all that forecasters, schedules and plans have to know."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

USUAL_SHIFT = 3.0  # of a flow whose levels are not known

# Schedulers of diffusers that draw fresh noise at every step, by a part of their name.
_NOISY = (
    "Ancestral", "SDE", "LCM", "TCD", "DDPM", "Consistency", "SASolver", "SCM", "CogVideoXDPM",
    "CosineDPM",
)  # fmt: skip

# S of a picture of 64 latent positions, which are the tokens of a transformer, whatever the
# guidance: see docs/quality.md.
UNIT_SCALE = 6.0
# What a model that predicts the noise gets wrong is multiplied by ρ in its x₀, which so goes on
# moving far above where structure is decided.
NOISE_SCALE = 45.0
UNIT_POSITIONS = 64


def unit_scale(predicts_noise: bool) -> float:
    """S of 64 latent positions, of a model that predicts the noise, or else a velocity or x₀."""
    return NOISE_SCALE if predicts_noise else UNIT_SCALE


def scale_of(positions: float, unit: float = UNIT_SCALE) -> float:
    """S, the noise σ/α at which the largest structure of so many latent positions is decided."""
    return float(unit * (positions / UNIT_POSITIONS) ** 0.5)


def predicts_noise(scheduler: str, config: Mapping[str, Any]) -> bool:
    """Whether the model that a scheduler of this class is for predicts the noise ε, and not a
    flow's velocity, v, x₀, or with EDM something between."""
    other = scheduler.startswith(("FlowMatch", "EDM", "CosineDPM")) or config.get("use_flow_sigmas")
    return not other and config.get("prediction_type") == "epsilon"


def flow_levels(num_steps: int, shift: float) -> tuple[float, ...]:
    """Noise levels of a flow whose sigmas fall evenly from 1 before σ' = sσ / (1 + (s − 1)σ)."""
    times = [1 - step / num_steps for step in range(num_steps)]
    return tuple(shift * t / (1 + (shift - 1) * t) for t in times)


def adds_noise(scheduler: str) -> bool:
    """Whether a scheduler draws fresh noise at every step, whatever its settings, by its class."""
    return any(part in scheduler for part in _NOISY)


@dataclass(frozen=True)
class Timeline:
    """What is known of a run before its first step, read once from a scheduler or a preset.

    `levels` are the noise levels σ/(α + σ) of its steps, falling. `scale` is S, the noise σ/α at
    which the largest structure is decided (`spectrum.gaussian`). At step `handover`, if it is not
    0, a second denoiser takes over (Wan2.2). `stochastic`: fresh noise enters at every step.
    With `goes_on` the last level is that of a step after these, which another denoiser computes.
    """

    levels: tuple[float, ...]
    scale: float = UNIT_SCALE
    handover: int = 0
    stochastic: bool = False
    goes_on: bool = False

    @classmethod
    def flow(cls, num_steps: int, shift: float = USUAL_SHIFT) -> Timeline:
        """That of a rectified flow with this shift."""
        return cls(flow_levels(num_steps, shift))

    @property
    def num_steps(self) -> int:
        return len(self.levels) - self.goes_on

    def parts(self) -> list[Timeline]:
        """A timeline for each denoiser: one, or two where a second takes over."""
        at = self.handover
        if not 0 < at < self.num_steps:
            return [self]
        early = replace(self, levels=self.levels[: at + 1], handover=0, goes_on=True)
        return [early, replace(self, levels=self.levels[at:], handover=0)]
