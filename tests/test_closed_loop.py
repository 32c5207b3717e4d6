"""Forecasts of the denoised sample: what the schedulers are given, and the way back."""

from inspect import signature

import numpy as np
import pytest
import torch
from diffusers import (
    CogVideoXDDIMScheduler,
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    UniPCMultistepScheduler,
)

from spectrum import SpectralCache
from spectrum.closed_loop import Trajectory
from spectrum.forecast import Extrapolation, Hold
from spectrum.methods import OPEN, Loop, Method
from spectrum.samplers import denoised_coefficients
from spectrum.schedule import AdaptiveSchedule, ExplicitSchedule, Planner, make_plan

STEPS = 12
SOME = ExplicitSchedule((0, 3, 7, 11))
CALL = {"height": 16, "width": 16, "max_sequence_length": 12}
FLOW = {"prediction_type": "flow_prediction", "use_flow_sigmas": True}
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def sample(pipe, call=CALL, steps=STEPS, **more):
    return pipe(
        prompt="red cat", num_inference_steps=steps, generator=torch.Generator().manual_seed(7),
        output_type="latent", return_dict=False, **{**call, **more},
    )[0]  # fmt: skip


# -- x₀ from what the scheduler is given ---------------------------------------------------------


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize(
    "kind",
    [EulerDiscreteScheduler, DDIMScheduler, CogVideoXDDIMScheduler, DPMSolverMultistepScheduler,
     UniPCMultistepScheduler],
)  # fmt: skip
def test_the_denoised_sample_is_the_schedulers_own(kind, prediction):
    unclipped = {"clip_sample": False} if "DDIM" in kind.__name__ else {}
    scheduler = kind(prediction_type=prediction, **unclipped)
    scheduler.set_timesteps(8)
    generator = torch.Generator().manual_seed(0)
    sample, output = torch.randn(2, 1, 4, generator=generator)
    for timestep in scheduler.timesteps:
        if hasattr(scheduler, "scale_model_input"):
            scheduler.scale_model_input(sample, timestep)
        a, b = denoised_coefficients(scheduler, timestep)
        if hasattr(scheduler, "convert_model_output"):
            expected = scheduler.convert_model_output(output, sample=sample)
            result = scheduler.step(output, timestep, sample)
        else:
            result = scheduler.step(output, timestep, sample)
            expected = result.pred_original_sample
        # float32 tables lose digits where alpha is small
        assert torch.allclose(a * sample + b * output, expected, rtol=1e-3, atol=1e-4)
        sample = result.prev_sample


@pytest.mark.parametrize("invert", [False, True])
def test_a_flow_ends_where_its_sigmas_do(invert):
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0, invert_sigmas=invert)
    scheduler.set_timesteps(8)
    velocity, start = torch.tensor([[0.7, -2.0]]), torch.tensor([[1.0, 1.0]])
    sample = start
    a, b = denoised_coefficients(scheduler, scheduler.timesteps[0])
    denoised = a * start + b * velocity
    for timestep in scheduler.timesteps:  # along a straight line x₀ stays where it is
        a, b = denoised_coefficients(scheduler, timestep)
        assert torch.allclose(a * sample + b * velocity, denoised, atol=1e-5)
        sample = scheduler.step(velocity, timestep, sample).prev_sample
    assert torch.allclose(sample, denoised, atol=1e-5)


def test_schedulers_that_are_not_understood():
    stochastic = FlowMatchEulerDiscreteScheduler(stochastic_sampling=True)
    assert denoised_coefficients(stochastic, None) is None


# -- in the pipeline -----------------------------------------------------------------------------


def test_forecasting_the_truth_is_the_plain_run(flux, monkeypatch):
    """Up to rounding, as the output is worked out from x₀ and the sample."""
    plain, truth = sample(flux), []
    compute = Trajectory.compute

    def recording(self, scheduler, step, call):
        a, b = denoised_coefficients(scheduler, call.arguments["timestep"])
        truth.append(a * call.arguments["sample"] + b * call.arguments["model_output"])
        return compute(self, scheduler, step, call)

    monkeypatch.setattr(Trajectory, "compute", recording)
    with SpectralCache(
        flux, schedule=ExplicitSchedule((*range(10), 11)), target="output", method="hold"
    ):
        sample(flux)
    monkeypatch.setattr(Trajectory, "compute", compute)
    monkeypatch.setattr(Trajectory, "_weighted", lambda self, _, step: truth[min(step, 10)].clone())
    with SpectralCache(
        flux, schedule=ExplicitSchedule((0, 10, 11)), target="output", method="hold"
    ) as cache:
        fast = sample(flux)
    assert cache.report.forecast_steps == list(range(1, 10))
    assert torch.allclose(fast, plain, atol=1e-4 * float(plain.abs().max()))


def test_the_denoiser_is_not_called_at_forecast_steps(wan):
    calls = []
    handle = wan.transformer.register_forward_hook(lambda *_: calls.append(1))
    call = {"height": 16, "width": 32, "num_frames": 5, "max_sequence_length": 12}
    with SpectralCache(wan, schedule=SOME) as cache:
        sample(wan, call)
    handle.remove()
    assert cache.report.computed_steps == [0, 3, 7, 11]
    assert len(calls) == 2 * 4  # two guidance branches
    size = 4 * 16 * 2 * 2 * 4
    assert cache.report.stored_bytes == 2 * size


def test_holding_the_denoised_sample_is_sampling_with_fewer_steps(flux):
    """For a flow and Euler's method: along a straight line x₀ and velocity are constant."""
    sigmas = np.linspace(1.0, 1 / 12, 12)
    flux_call = {**CALL, "sigmas": list(sigmas[::3])}
    few = sample(flux, flux_call, steps=4)
    schedule = ExplicitSchedule((0, 3, 6, 9))
    with SpectralCache(flux, schedule=schedule, method="hold", target="output"):
        held = sample(flux, {**CALL, "sigmas": list(sigmas)})
    assert torch.allclose(held, few, atol=1e-4 * float(few.abs().max()))


def way(scheduler, loop, computed):
    """The samples at the computed steps of a model whose x₀ moves evenly with the step."""
    scheduler.set_timesteps(STEPS)
    kind = type(scheduler)
    scheduler.__class__ = type(kind.__name__, (kind,), {})  # as the cache does
    plan = make_plan(ExplicitSchedule(computed), STEPS)
    trajectory = Trajectory(Extrapolation(order=1, damping=0.5), loop, plan)
    sample, at_computed = torch.ones(1, 4), {}
    for index, timestep in enumerate(scheduler.timesteps):
        call = signature(kind.step).bind(scheduler, torch.zeros(1, 4), timestep, sample)
        if index in computed:
            a, b = denoised_coefficients(scheduler, timestep)
            denoised = torch.full((1, 4), 0.1 * index)
            call.arguments["model_output"] = (denoised - a * sample) / b
            trajectory.compute(scheduler, index, call)
            at_computed[index] = call.arguments["sample"]
        else:
            assert trajectory.forecast(scheduler, index, call)
        sample = kind.step(*call.args, **call.kwargs).prev_sample
    return at_computed


@pytest.mark.parametrize(
    "build",
    [
        lambda: FlowMatchEulerDiscreteScheduler(shift=3.0),
        lambda: UniPCMultistepScheduler(**FLOW, flow_shift=3.0),
        lambda: DPMSolverMultistepScheduler(**FLOW, flow_shift=3.0),
        lambda: DDIMScheduler(clip_sample=False),
        EulerDiscreteScheduler,
    ],
)
def test_the_corrector_takes_the_steps_again_along_a_straight_line(build):
    """So where x₀ does move evenly the sample is what it would be with every step computed; with
    a multistep solver, too, whose memory is rewound."""
    exact = way(build(), OPEN, tuple(range(STEPS)))
    corrected = way(build(), Loop(correct_above=float("-inf")), (0, 4, 8, 11))
    uncorrected = way(build(), OPEN, (0, 4, 8, 11))
    scale = float(torch.stack(list(exact.values())).abs().max())
    for step in (4, 8, 11):
        assert torch.allclose(corrected[step], exact[step], atol=1e-4 * scale)
        assert not torch.allclose(uncorrected[step], exact[step], atol=1e-3 * scale)


def test_a_trend_that_does_not_come_true_is_not_trusted(flux):
    with SpectralCache(flux, schedule=SOME, method="spectrum") as cache:
        trusting = sample(flux)
    assert [s.index for s in cache.report.steps if s.trend is not None] == [7, 11]
    never = Loop(trust=float("inf"), cautious_above=0.0, cautious_trust=float("inf"))
    method = Method("never", Extrapolation(1, 0.5), Planner("level"), "output", never)
    with SpectralCache(flux, schedule=SOME, method=method):
        distrusting = sample(flux)
    with SpectralCache(flux, schedule=SOME, forecaster=Hold(), method="hold", target="output"):
        held = sample(flux)
    assert torch.equal(distrusting, held)
    assert not torch.equal(trusting, held)


def test_a_forecast_that_is_not_finite_is_computed_instead(flux):
    class Broken(Hold):
        def weights(self, computed_steps, step, num_steps):
            weights = super().weights(computed_steps, step, num_steps)
            return weights * (float("inf") if step == 5 else 1)

    with SpectralCache(flux, schedule=SOME, forecaster=Broken(), target="output") as cache:
        assert torch.isfinite(sample(flux)).all()
    assert cache.report.computed_steps == [0, 3, 5, 7, 11]
    assert cache.report.notes == ["step 5: computed, as its forecast was not finite"]


@pytest.mark.parametrize("tolerance", [0.5, 0.02])
def test_an_adaptive_schedule_computes_more_for_less_error(flux, tolerance):
    with SpectralCache(flux, schedule=AdaptiveSchedule(tolerance)) as cache:
        sample(flux, steps=24)
    report = cache.report
    assert {0, 1, 23} <= set(report.computed_steps)
    assert list(report.planned_steps) == report.computed_steps
    count = len(report.computed_steps)
    assert count < 16 if tolerance == 0.5 else count > 12
