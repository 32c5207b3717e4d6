import math
import sys
from pathlib import Path

import pytest
import torch
from diffusers import (
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    UniPCMultistepScheduler,
)

sys.path.append(str(Path(__file__).parent.parent / "benchmarks"))

from matching import matched, solver

from spectrum.samplers import denoised_coefficients, noise_levels

# diffusers turns tensors into arrays in an old way.
pytestmark = pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")

FLOW = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0}
BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
SCHEDULERS = {
    "shift": (FlowMatchEulerDiscreteScheduler(shift=3.0), {}),
    "dynamic shift": (FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True), {"mu": 0.4675}),
    "flow UniPC": (UniPCMultistepScheduler(**FLOW), {}),
    "Euler": (EulerDiscreteScheduler(**BETAS, timestep_spacing="leading", steps_offset=1), {}),
    "DPM++": (DPMSolverMultistepScheduler(), {}),
}


def noise(scheduler):
    """σ/α of each step."""
    levels = torch.tensor(noise_levels(scheduler), dtype=torch.float64)
    return levels / (1 - levels)


@pytest.mark.parametrize("name", SCHEDULERS)
def test_matched_levels(name):
    scheduler, arguments = SCHEDULERS[name]
    own, same, lower = scheduler, matched(scheduler, 1), matched(scheduler, 8)
    for each in (own, same, lower):
        each.set_timesteps(20, **arguments)
    assert torch.equal(own.sigmas, same.sigmas)
    assert torch.equal(own.timesteps, same.timesteps)
    assert type(lower).__name__ == type(own).__name__
    assert lower.sigmas[0] == own.sigmas[0]
    assert lower.timesteps[0] == own.timesteps[0]
    torch.testing.assert_close(noise(lower)[1:], noise(own)[1:] / 8, rtol=1e-4, atol=1e-6)
    assert lower.sigmas[-1] == own.sigmas[-1] == 0
    assert denoised_coefficients(lower, lower.timesteps[0]) is not None


def test_matched_flow_is_shifted():
    lower = matched(FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True), 8)
    lower.set_timesteps(sigmas=[1.0, 0.75, 0.5, 0.25], mu=math.log(4.0))
    times, shift = torch.tensor([1.0, 0.75, 0.5, 0.25]), 4.0 / 8
    expected = shift * times / (1 + (shift - 1) * times)
    torch.testing.assert_close(lower.sigmas[:-1], expected)
    torch.testing.assert_close(lower.timesteps, 1000 * expected)


def test_matched_timesteps_are_those_of_the_sigmas():
    lower = matched(EulerDiscreteScheduler(**BETAS), 8)
    lower.set_timesteps(20)
    known = ((1 - lower.alphas_cumprod) / lower.alphas_cumprod).sqrt()
    for sigma, timestep in zip(lower.sigmas[1:-4], lower.timesteps[1:-3], strict=True):
        below, above = known[int(timestep)], known[int(timestep) + 1]
        assert below <= sigma * (1 + 1e-5)
        assert sigma <= above * (1 + 1e-5)


def test_matched_steps_run_to_the_end():
    lower = matched(SCHEDULERS["flow UniPC"][0], 8)
    lower.set_timesteps(6)
    goal, x = torch.full((1, 4), 0.5), torch.randn(1, 4)
    for timestep, sigma in zip(lower.timesteps, lower.sigmas, strict=False):
        x = lower.step((x - goal) / sigma, timestep, x).prev_sample
    torch.testing.assert_close(x, goal, rtol=0, atol=1e-3)


def test_other_solver_has_the_same_shift():
    own = FlowMatchEulerDiscreteScheduler(shift=3.0)
    assert solver(own, "unipc").config.flow_shift == 3.0
    assert type(solver(EulerDiscreteScheduler(**BETAS), "dpm++")) is DPMSolverMultistepScheduler
