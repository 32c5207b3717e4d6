"""Step counting under the solvers that people choose, and what is said of those that add noise."""

import functools

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchHeunDiscreteScheduler,
    HeunDiscreteScheduler,
    KDPM2DiscreteScheduler,
    UniPCMultistepScheduler,
    WanVideoToVideoPipeline,
)
from PIL import Image
from tiny_images import CASES

from spectrum import SpectralCache
from spectrum.forecast import ChebyshevRidge, Hold
from spectrum.methods import Method
from spectrum.plan import Planner
from spectrum.schedule import AdaptiveSchedule, ExplicitSchedule, LeastError
from spectrum.schedulers import denoised_coefficients, is_stochastic, noise_levels, place
from spectrum.trajectory import Trajectory

FeatureCache = functools.partial(SpectralCache, target="feature")
STEPS = 8
SOME = ExplicitSchedule((0, 3, 7))
FLOW = {"prediction_type": "flow_prediction", "use_flow_sigmas": True}
SAMPLERS = {
    "euler": ("sdxl", EulerDiscreteScheduler, {}, 1),
    "heun": ("sdxl", HeunDiscreteScheduler, {}, 2),
    "kdpm2": ("sdxl", KDPM2DiscreteScheduler, {}, 2),
    "dpm++": ("sdxl", DPMSolverMultistepScheduler, {}, 1),
    "unipc": ("sdxl", UniPCMultistepScheduler, {}, 1),
    "flow euler": ("sd3", FlowMatchEulerDiscreteScheduler, {}, 1),
    "flow heun": ("sd3", FlowMatchHeunDiscreteScheduler, {}, 2),
    "flow dpm++": ("sd3", DPMSolverMultistepScheduler, FLOW, 1),
    "flow unipc": ("sd3", UniPCMultistepScheduler, FLOW, 1),
}
pytestmark = [  # of the schedulers themselves, with numpy 2.4
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:__array_wrap__ must:DeprecationWarning"),
]


@pytest.fixture(scope="module")
def pipes():
    return {name: CASES[name].build() for name in ("sdxl", "sd3")}


def sample(pipe, call):
    return pipe(
        **call, num_inference_steps=STEPS, generator=torch.Generator().manual_seed(3),
        output_type="latent", return_dict=False,
    )[0]  # fmt: skip


@pytest.mark.parametrize("name", SAMPLERS)
def test_steps_are_those_of_the_solver(name, pipes):
    model, kind, settings, stages = SAMPLERS[name]
    pipe, call = pipes[model], CASES[model].call
    pipe.scheduler = kind.from_config(pipe.scheduler.config, **settings)
    plain = sample(pipe, call)
    with FeatureCache(pipe, speedup=1) as cache:
        assert torch.equal(sample(pipe, call), plain)
    assert cache.report.num_steps == STEPS
    # Heun ends on a single stage, as there is no sigma after the last to correct at.
    calls = [step.calls for step in cache.report.steps]
    assert calls[:-1] == [stages] * (STEPS - 1)
    assert calls[-1] in (1, stages)
    with FeatureCache(pipe, schedule=SOME, forecaster=Hold()) as cache:
        fast = sample(pipe, call)
    assert cache.report.finished
    assert cache.report.computed_steps == [0, 3, 7]
    assert torch.isfinite(fast).all()
    assert not torch.equal(fast, plain)
    assert not cache.report.notes
    assert torch.equal(sample(pipe, call), plain)


@pytest.mark.parametrize("name", SAMPLERS)
def test_plan_and_forecasts_follow_the_schedulers_levels(name, pipes, monkeypatch):
    model, kind, settings, _ = SAMPLERS[name]
    pipe, call = pipes[model], CASES[model].call
    pipe.scheduler = kind.from_config(pipe.scheduler.config, **settings)
    seen, timelines, forecast = [], set(), Trajectory.forecast

    def recording(self, *args):
        timelines.add(self.plan.timeline)
        return forecast(self, *args)

    monkeypatch.setattr(Trajectory, "forecast", recording)
    with SpectralCache(pipe, speedup=2, observe=lambda step, _: seen.append(step)) as cache:
        assert torch.isfinite(sample(pipe, call)).all()
    levels = noise_levels(pipe.scheduler)
    assert len(levels) == STEPS
    (timeline,) = timelines
    assert timeline.levels == levels
    planned = LeastError(4).computed_steps(timeline)
    assert cache.report.computed_steps == planned
    assert seen == planned  # once a step, with solvers of two stages too


@pytest.mark.parametrize("name", SAMPLERS)
def test_reading_a_scheduler_does_not_change_it(name, pipes):
    _, kind, settings, _ = SAMPLERS[name]
    scheduler = kind(**settings)
    scheduler.set_timesteps(STEPS)
    before = dict(vars(scheduler))
    for taken, timestep in enumerate(scheduler.timesteps):
        place(scheduler, timestep, taken, STEPS)
    denoised_coefficients(scheduler)
    noise_levels(scheduler)
    assert vars(scheduler).keys() == before.keys()
    assert all(vars(scheduler)[key] is value for key, value in before.items())
    later = scheduler.timesteps[3]
    scheduler._init_step_index(later)
    index = scheduler.step_index
    assert place(scheduler, None, 0, STEPS) == index
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_timesteps(STEPS)
        scheduler.set_begin_index(3)
        assert place(scheduler, later, 0, STEPS) == 3


def test_a_pipeline_that_leaves_out_the_first_steps_runs_plainly_at_speedup_1(wan):
    """It takes a slice of the timesteps, and its scheduler finds the first of them by itself."""
    parts = ("tokenizer", "text_encoder", "transformer", "vae", "scheduler")
    pipe = WanVideoToVideoPipeline(**{name: getattr(wan, name) for name in parts})
    pipe.set_progress_bar_config(disable=True)
    video = [Image.new("RGB", (32, 16), (50 * k, 99, 10)) for k in range(5)]
    call = {
        "video": video, "prompt": "red cat", "height": 16, "width": 32, "strength": 0.5,
        "max_sequence_length": 12, "guidance_scale": 1.0,
    }  # fmt: skip
    plain = sample(pipe, call)
    with SpectralCache(pipe, speedup=1) as cache:
        assert torch.equal(sample(pipe, call), plain)
    assert cache.report.computed_steps == list(range(STEPS // 2))
    with SpectralCache(pipe, speedup=2) as cache:
        fast = sample(pipe, call)
    assert len(cache.report.computed_steps) == 2
    assert (fast - plain).norm() < 0.2 * plain.norm()


@pytest.mark.parametrize(
    ("model", "kind", "settings"),
    [
        ("sdxl", EulerAncestralDiscreteScheduler, {}),
        ("sdxl", DPMSolverMultistepScheduler, {"algorithm_type": "sde-dpmsolver++"}),
        ("sd3", FlowMatchEulerDiscreteScheduler, {"stochastic_sampling": True}),
    ],
)
def test_a_sampler_that_adds_noise_gets_a_careful_plan_and_a_sentence(model, kind, settings, pipes):
    pipe, call = pipes[model], CASES[model].call
    pipe.scheduler = kind.from_config(pipe.scheduler.config, **settings)
    assert is_stochastic(pipe.scheduler)
    with FeatureCache(pipe, speedup=4, method="hold") as cache:
        sample(pipe, call)
    assert len(cache.report.computed_steps) == STEPS / 2
    assert "adds fresh noise" in cache.report.notes[0]


def test_what_a_config_has_from_another_scheduler_does_not_count():
    noisy = DPMSolverMultistepScheduler(algorithm_type="sde-dpmsolver++")
    assert is_stochastic(noisy)
    assert not is_stochastic(DDIMScheduler.from_config(noisy.config))
    assert not is_stochastic(EulerDiscreteScheduler.from_config(noisy.config))


@pytest.mark.parametrize("target", ["denoised", "feature"])
@pytest.mark.parametrize("method", ["spectrum", "hold"])
def test_noise_that_a_call_asks_for_gets_a_careful_plan(method, target, pipes, monkeypatch):
    """DDIM's eta: only the calls of its `step` tell."""
    pipe, call = pipes["sdxl"], CASES["sdxl"].call
    pipe.scheduler = DDIMScheduler(clip_sample=False)
    taken, step = [], DDIMScheduler.step

    def counting(self, *args, **kwargs):
        taken.append(1)
        return step(self, *args, **kwargs)

    monkeypatch.setattr(DDIMScheduler, "step", functools.wraps(step)(counting))
    for eta in (0.0, 0.5):
        taken.clear()
        with SpectralCache(pipe, 4, method=method, target=target) as cache:
            sample(pipe, {**call, "eta": eta})
        assert cache.report.computed_steps == list(cache.report.planned_steps)
        assert len(cache.report.computed_steps) == (STEPS / 2 if eta else STEPS / 4)
        assert [note for note in cache.report.notes if "adds fresh noise" in note] == (
            cache.report.notes if eta else []
        )
    assert cache.report.notes
    assert len(taken) == STEPS  # no step is taken again, with other noise


def test_a_careful_plan_stores_all_features_it_looks_at(pipes):
    pipe, call = pipes["sdxl"], CASES["sdxl"].call
    pipe.scheduler = DDIMScheduler(clip_sample=False)
    seen = set()

    class Watching(ChebyshevRidge):
        def weights(self, known, step, timeline):
            seen.add(len(known))
            return super().weights(known, step, timeline)

    method = Method("watching", Watching(), Planner("even", warmup=1))
    with FeatureCache(pipe, 4, method=method) as cache:
        sample(pipe, {**call, "eta": 0.5})
    assert max(seen) == len(cache.report.computed_steps) == STEPS / 2


def test_the_quality_of_a_sampler_that_adds_noise_is_careful_too(pipes):
    pipe, call = pipes["sdxl"], CASES["sdxl"].call
    pipe.scheduler = EulerAncestralDiscreteScheduler.from_config(pipe.scheduler.config)
    with SpectralCache(
        pipe, schedule=AdaptiveSchedule(10.0), method="hold", target="denoised"
    ) as c:
        sample(pipe, call)
    computed = c.report.computed_steps
    assert computed == [0, 1, 2, 4, 6, 7]
    assert "adds fresh noise" in c.report.notes[0]
