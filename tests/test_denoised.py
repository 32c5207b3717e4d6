"""Forecasts of the denoised sample: what the schedulers are given, and the way back."""

import gc
from bisect import bisect_right
from copy import deepcopy
from inspect import signature

import numpy as np
import pytest
import torch
from diffusers import (
    CogVideoXDDIMScheduler,
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EDMDPMSolverMultistepScheduler,
    EDMEulerScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    UniPCMultistepScheduler,
)
from tiny_videos_more import CASES

from spectrum import SpectralCache
from spectrum.closed_loop import ClosedLoop
from spectrum.denoiser import tensors_of
from spectrum.forecast import Hold
from spectrum.gaussian import Kriging, Loop
from spectrum.methods import Method
from spectrum.plan import Planner, make_plan
from spectrum.schedule import AdaptiveSchedule, ExplicitSchedule
from spectrum.schedulers import (
    denoised_coefficients,
    noise_levels,
    of_tokens,
    place,
)
from spectrum.timeline import Timeline, adds_noise
from spectrum.trajectory import Trajectory

STEPS = 12
SOME = ExplicitSchedule((0, 3, 7, 11))
CALL = {"height": 16, "width": 16, "max_sequence_length": 12}
FLOW = {"prediction_type": "flow_prediction", "use_flow_sigmas": True}
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def sample(pipe, call=CALL, steps=STEPS, **more):
    return pipe(
        prompt="red cat", num_inference_steps=steps, generator=torch.Generator().manual_seed(7),
        return_dict=False, **{"output_type": "latent", **call, **more},
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
    known = deepcopy(scheduler)
    generator = torch.Generator().manual_seed(0)
    sample, output = torch.randn(2, 1, 4, generator=generator)
    for k, timestep in enumerate(scheduler.timesteps):
        if hasattr(scheduler, "scale_model_input"):
            scheduler.scale_model_input(sample, timestep)
        index = place(scheduler, timestep, taken=k, to_come=8)
        assert index == k
        a, b, response = denoised_coefficients(scheduler)[index]
        both = known.add_noise(torch.full((1,), 2.0), torch.ones(1), timestep.reshape(1))
        assert response == pytest.approx(1 / float(both), rel=1e-3)  # 1 / (2 α + σ)
        if hasattr(scheduler, "convert_model_output"):
            if scheduler.step_index is None:
                scheduler._init_step_index(timestep)
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
    a, b, _ = denoised_coefficients(scheduler)[0]
    denoised = a * start + b * velocity
    for k, timestep in enumerate(scheduler.timesteps):  # along a straight line x₀ stays as it is
        a, b, response = denoised_coefficients(scheduler)[k]
        assert torch.allclose(a * sample + b * velocity, denoised, atol=1e-5)
        alpha, sigma = 1 - abs(b), abs(b)
        assert response == pytest.approx(1 / (2 * alpha + sigma))
        sample = scheduler.step(velocity, timestep, sample).prev_sample
    assert torch.allclose(sample, denoised, atol=1e-5)


@pytest.mark.parametrize("share", [1.0, 0.4, 0.0])
def test_a_token_may_have_a_noise_level_of_its_own(share):
    """LTX with conditions: the scheduler takes the velocity with the other sign then."""
    scheduler = FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(8)
    sample, velocity = torch.randn(2, 1, 3, 2, generator=torch.Generator().manual_seed(0))
    expected = sample - share * velocity
    times = [*scheduler.timesteps.tolist(), 0.0]
    for k, known in enumerate(denoised_coefficients(scheduler)):
        call = {"per_token_timesteps": torch.full((1, 3), share * times[k])}
        assert of_tokens(known, scheduler, {}) is known
        a, b, response = of_tokens(known, scheduler, call)
        assert b.shape == (1, 3, 1)
        assert (b > 0).all()  # it is divided by
        assert response == known.response
        assert torch.allclose(a * sample - b * velocity, expected, atol=1e-3)
        sample = sample - share * (times[k] - times[k + 1]) / 1000 * velocity


def test_a_flow_may_be_sampled_with_all_the_noise_of_edm():
    """Cosmos 2: x₀ + σ·noise with σ from 80, and the last level twice."""
    scheduler = FlowMatchEulerDiscreteScheduler()
    sigmas = [80.0, 20.0, 2.0, 0.5, 0.002]
    scheduler.set_timesteps(sigmas=sigmas)
    scheduler.sigmas[-1] = scheduler.sigmas[-2]
    noise, denoised = torch.randn(2, 5, generator=torch.Generator().manual_seed(0))
    for sigma, (a, b, response) in zip(sigmas, denoised_coefficients(scheduler), strict=True):
        assert response == pytest.approx(1 / (2 + sigma))
        assert b
        assert torch.allclose(a * (denoised + sigma * noise) + b * noise, denoised, atol=1e-4)
    assert noise_levels(scheduler) == pytest.approx([s / (1 + s) for s in sigmas])


def test_schedulers_that_are_not_understood():
    stochastic = FlowMatchEulerDiscreteScheduler(stochastic_sampling=True)
    assert denoised_coefficients(stochastic) is None
    for kind in (EDMEulerScheduler, EDMDPMSolverMultistepScheduler):
        scheduler = kind(sigma_data=0.5)
        scheduler.set_timesteps(8)
        assert denoised_coefficients(scheduler) is None  # its output is scaled in and out
        sigmas = scheduler.sigmas[:-1].tolist()
        assert noise_levels(scheduler) == pytest.approx([s / (0.5 + s) for s in sigmas])
    assert adds_noise("CosineDPMSolverMultistepScheduler")  # Stable Audio


# -- in the pipeline -----------------------------------------------------------------------------


def test_forecasting_the_truth_is_the_plain_run(flux, monkeypatch):
    """Up to rounding, as the output is worked out from x₀ and the sample."""
    plain, truth = sample(flux), []
    compute = Trajectory.compute

    def recording(self, scheduler, step, call, coefficients):
        a, b, _ = coefficients
        truth.append(a * call.arguments["sample"] + b * call.arguments["model_output"])
        return compute(self, scheduler, step, call, coefficients)

    monkeypatch.setattr(Trajectory, "compute", recording)
    with SpectralCache(
        flux, schedule=ExplicitSchedule((*range(10), 11)), target="denoised", method="hold"
    ):
        sample(flux)
    monkeypatch.setattr(Trajectory, "compute", compute)
    monkeypatch.setattr(Trajectory, "expected", lambda self, step: truth[min(step, 10)].clone())
    with SpectralCache(
        flux, schedule=ExplicitSchedule((0, 10, 11)), target="denoised", method="hold"
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
    # x₀ three times, two branches' newest outputs, and, to take steps again, the sample and UniPC's
    # memory: the sample before, and two outputs
    assert cache.report.stored_bytes == (3 + 2 + 1 + 3) * size


def test_the_pipeline_whose_tokens_differ_in_noise_is_forecast_the_right_way():
    """With x₀ taken for its mirror image, 43 % of the energy was error."""
    case = CASES["ltx-condition"]
    pipe, call = case.build(), {"num_inference_steps": 6, "output_type": "latent", **case.call}

    def run():
        generator = torch.Generator().manual_seed(7)
        return pipe(**call, generator=generator, return_dict=False)[0]

    plain = run()
    with SpectralCache(pipe, schedule=(0, 1, 2)):
        fast = run()
    assert (fast - plain).square().mean() < 0.05 * plain.square().mean()


@pytest.mark.parametrize("in_place", [False, True])
def test_latents_that_a_callback_changes_stay_changed(flux, in_place):
    """At the next step the model is called, and x₀ from before is not gone back to."""

    def edit(pipe, step, timestep, kwargs):
        latents = kwargs["latents"]
        if step != 7:
            return {}
        return {"latents": latents.mul_(0.5) if in_place else latents.flip(1)}

    edited = {"callback_on_step_end": edit, "callback_on_step_end_tensor_inputs": ["latents"]}
    plain, untouched = sample(flux, steps=16, **edited), sample(flux, steps=16)
    with SpectralCache(flux, schedule=ExplicitSchedule((0, 3, 6, 11, 15))) as cache:
        fast = sample(flux, steps=16, **edited)
    assert cache.report.computed_steps == [0, 3, 6, 9, 11, 15]
    assert cache.report.notes == ["step 9: the latents were changed between two steps"]
    assert (fast - plain).norm() < 0.2 * (untouched - plain).norm()


def test_where_every_step_makes_new_latents_nothing_is_taken_for_an_edit(flux):
    def copied(pipe, step, timestep, kwargs):
        return {"latents": kwargs["latents"].clone()}

    own = {"callback_on_step_end": copied, "callback_on_step_end_tensor_inputs": ["latents"]}
    with SpectralCache(flux, schedule=SOME) as cache:
        copies = sample(flux, **own)
        assert cache.report.notes == []
        assert torch.equal(copies, sample(flux))


def test_where_nothing_is_taken_again_only_x0_is_stored(wan):
    call = {"height": 16, "width": 32, "num_frames": 5, "max_sequence_length": 12}
    with SpectralCache(wan, schedule=SOME, method="hold", target="denoised") as cache:
        sample(wan, call)
    assert cache.report.stored_bytes == (1 + 2) * 4 * 16 * 2 * 2 * 4


def test_nothing_is_held_while_the_picture_is_decoded(flux, monkeypatch):
    alive, decode = [], flux.vae.decode

    def counting(*args, **kwargs):
        gc.collect()
        tensors = [x for x in gc.get_objects() if issubclass(type(x), torch.Tensor)]
        alive.append(sum(x.numel() == 4 * 8 * 8 for x in tensors))
        return decode(*args, **kwargs)

    monkeypatch.setattr(flux.vae, "decode", counting)
    sample(flux, output_type="np")
    with SpectralCache(flux, schedule=SOME):
        sample(flux, output_type="np")
    assert alive[1] == alive[0]


def test_calls_are_kept_without_their_latents(flux, monkeypatch):
    held, forecast = [], ClosedLoop.forecast

    def recording(self, *args):
        done = forecast(self, *args)
        for call in self._calls:
            held.extend(x for x in tensors_of(call.bound.arguments) if x.numel() > 1)
        return done

    monkeypatch.setattr(ClosedLoop, "forecast", recording)
    with SpectralCache(flux, schedule=SOME):
        sample(flux)
    assert not held


def test_holding_the_denoised_sample_is_sampling_with_fewer_steps(flux):
    """For a flow and Euler's method: along a straight line x₀ and velocity are constant."""
    sigmas = np.linspace(1.0, 1 / 12, 12)
    flux_call = {**CALL, "sigmas": list(sigmas[::3])}
    few = sample(flux, flux_call, steps=4)
    schedule = ExplicitSchedule((0, 3, 6, 9))
    with SpectralCache(flux, schedule=schedule, method="hold", target="denoised"):
        held = sample(flux, {**CALL, "sigmas": list(sigmas)})
    assert torch.allclose(held, few, atol=1e-4 * float(few.abs().max()))


def begun(scheduler, loop, computed, num_steps=STEPS):
    """The trajectory of a scheduler's run, in a closed loop or (None) an open one."""
    scheduler.set_timesteps(num_steps)
    kind = type(scheduler)
    scheduler.__class__ = type(kind.__name__, (kind,), {})  # as the cache does
    plan = make_plan(ExplicitSchedule(computed), Timeline(noise_levels(scheduler)))
    return ClosedLoop(loop, plan) if loop else Trajectory(Kriging(), plan)


def calls(scheduler, width=1):
    """Of a run whose steps are taken by whoever loops over them: index, call, coefficients."""
    kind, table = type(scheduler).__mro__[1], denoised_coefficients(scheduler)
    sample = torch.ones(width, 4)
    for index, timestep in enumerate(scheduler.timesteps):
        call = signature(kind.step).bind(scheduler, torch.zeros_like(sample), timestep, sample)
        yield index, call, table[index]
        sample = kind.step(*call.args, **call.kwargs).prev_sample
    yield len(scheduler.timesteps), sample, None


def way(scheduler, loop, computed):
    """The samples at the computed steps of a model whose x₀ moves from one of COMPUTED to the next
    as regression expects it to."""
    trajectory, at_computed = begun(scheduler, loop, computed), {}
    for index, call, coefficients in calls(scheduler):
        if coefficients is None:
            continue
        if index in computed:
            a, b, _ = coefficients
            denoised = torch.full((1, 4), x0_at(trajectory.plan.timeline, index))
            call.arguments["model_output"] = (denoised - a * call.arguments["sample"]) / b
            still = coefficients._replace(response=0.0)  # wherever the sample is
            trajectory.compute(scheduler, index, call, still)
            at_computed[index] = call.arguments["sample"]
        else:
            trajectory.forecast(index, call, coefficients)
    return at_computed


COMPUTED, X0 = (0, 4, 8, 11), (0.2, -0.7, 1.1, 0.4)
ALWAYS = Loop(trust=float("-inf"), correct_above=float("-inf"))


def x0_at(timeline, step):
    k = min(bisect_right(COMPUTED, step), len(COMPUTED) - 1)
    share = Kriging().between(COMPUTED[k - 1], COMPUTED[k], step, timeline)
    return X0[k - 1] + share * (X0[k] - X0[k - 1])


SCHEDULERS = [
    lambda: FlowMatchEulerDiscreteScheduler(shift=3.0),
    lambda: UniPCMultistepScheduler(**FLOW, flow_shift=3.0),
    lambda: DPMSolverMultistepScheduler(**FLOW, flow_shift=3.0),
    lambda: DDIMScheduler(clip_sample=False),
    EulerDiscreteScheduler,
]


@pytest.mark.parametrize("build", SCHEDULERS)
def test_the_corrector_takes_the_steps_again_as_regression_expects_them(build):
    """So where x₀ does move like that the sample is what it would be with every step computed;
    with a multistep solver, too, whose memory is rewound."""
    exact = way(build(), None, tuple(range(STEPS)))
    corrected = way(build(), ALWAYS, COMPUTED)
    uncorrected = way(build(), None, COMPUTED)
    scale = float(torch.stack(list(exact.values())).abs().max())
    for step in COMPUTED[1:]:
        assert torch.allclose(corrected[step], exact[step], atol=1e-4 * scale)
        assert not torch.allclose(uncorrected[step], exact[step], atol=1e-3 * scale)


@pytest.mark.parametrize("build", SCHEDULERS)
def test_x0_goes_along_where_the_sample_is_corrected(build):
    """By a share of the way that the sample is moved."""
    scheduler = build()
    trajectory, corrected = begun(scheduler, ALWAYS, COMPUTED), []
    for index, call, coefficients in calls(scheduler):
        if coefficients is None or index not in COMPUTED:
            if coefficients:
                trajectory.forecast(index, call, coefficients)
            continue
        a, b, response = coefficients
        given, x0 = dict(call.arguments), X0[COMPUTED.index(index)]
        call.arguments["model_output"] = (x0 - a * given["sample"]) / b
        trajectory.compute(scheduler, index, call, coefficients)
        moved = call.arguments["sample"] - given["sample"]
        corrected.append(bool(moved.abs().min() > 1e-3))
        assert torch.allclose(trajectory.history.newest, x0 + response * moved, atol=1e-5)
        sample, output = call.arguments["sample"], call.arguments["model_output"]
        assert torch.allclose(a * sample + b * output, trajectory.history.newest, atol=1e-4)
    assert corrected == [False, True, True, True]


@pytest.mark.parametrize("build", SCHEDULERS)
def test_each_sample_of_a_batch_is_corrected_or_left_as_it_would_be_alone(build):
    """With a multistep solver, too, which remembers each sample's own way."""
    went_on, turned = (0.2, -0.7, -1.1, -0.8), (0.2, -0.7, -0.1, 0.3)

    def run(*ways):
        scheduler = build()
        trajectory, corrected = begun(scheduler, Loop(), COMPUTED), []
        for index, call, coefficients in calls(scheduler, len(ways)):
            if coefficients is None:
                return call, corrected  # the last sample
            if index in COMPUTED:
                (a, b, _), sample = coefficients, call.arguments["sample"]
                x0 = torch.tensor([way[COMPUTED.index(index)] for way in ways])[:, None]
                call.arguments["model_output"] = (x0 - a * sample) / b
                trajectory.compute(scheduler, index, call, coefficients)
                corrected.append((call.arguments["sample"] != sample).any(1).tolist())
            else:
                trajectory.forecast(index, call, coefficients)

    together, corrected = run(went_on, turned)
    (first, one), (second, other) = run(went_on), run(turned)
    assert torch.equal(together, torch.cat([first, second]))
    assert corrected == [[*pair[0], *pair[1]] for pair in zip(one, other, strict=True)]
    assert corrected[2:] == [[True, False], [False, True]]


@pytest.mark.parametrize(("adapts", "kinks"), [(True, False), (True, True), (False, False)])
def test_the_smoother_forecast_takes_over_after_two_gaps_that_it_told_better(adapts, kinks):
    computed = (0, 4, 8, 12, 16, 20, 24, 28, 31)
    scheduler, usual = FlowMatchEulerDiscreteScheduler(shift=3.0), Kriging()
    loop = Loop(trust=float("-inf"), correct_above=float("inf"), adapts=adapts)
    trajectory = begun(scheduler, loop, computed, 32)
    timeline = trajectory.plan.timeline
    level = np.array(timeline.levels)
    moves = level[:-1] * np.diff(np.log(1 / np.clip(level, 0, 0.95) - 1))
    moves *= np.sign(np.sin(np.arange(31) * np.pi / 8)) if kinks else np.arange(31) / 31
    way = np.append(0, np.cumsum(moves))
    used, misses = [], []
    for index, call, coefficients in calls(scheduler):
        if coefficients is None:
            break
        if index in computed:
            a, b, _ = coefficients
            call.arguments["model_output"] = (float(way[index]) - a * call.arguments["sample"]) / b
            known = [step for step in computed if step < index]
            if len(known) > 2:
                both = (usual, usual.smoother)
                told = [forecaster.weights(known, index, timeline) for forecaster in both]
                misses.append([abs(float(w @ way[known]) - way[index]) for w in told])
            trajectory.compute(scheduler, index, call, coefficients)
            used += trajectory._goes_smoothly
        else:
            trajectory.forecast(index, call, coefficients)
    better = [smoother < least for least, smoother in misses]  # at steps 12, 16, ...
    expected = [False] * 4 + [all(better[k : k + 2]) for k in range(len(better) - 1)]
    assert used == (expected if adapts else [False] * 9)
    assert any(expected) != kinks


@pytest.mark.parametrize("share", [0.3, 0.5])
def test_a_gap_is_corrected_from_its_share_on(share):
    """Of the first gap nothing was forecast; of the second 0.4 of the forecast change is to have
    come true."""
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    scheduler.set_timesteps(STEPS)
    told = Kriging().weights([0, 4], 8, Timeline(noise_levels(scheduler)))
    values = [0.2, -0.7]
    forecast = float(told @ values)
    values.append(values[1] + share * (forecast - values[1]))

    def run(loop):
        scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
        trajectory = begun(scheduler, loop, (0, 4, 8, 11))
        moved, trends = [], []
        for index, call, coefficients in calls(scheduler):
            if index in (0, 4, 8):
                (a, b, _), sample = coefficients, call.arguments["sample"]
                x0 = torch.full((1, 4), values[index // 4])
                call.arguments["model_output"] = (x0 - a * sample) / b
                trends.append(trajectory.compute(scheduler, index, call, coefficients).trends)
                moved.append(not torch.equal(call.arguments["sample"], sample))
            elif index < 8:
                trajectory.forecast(index, call, coefficients)
            else:
                return moved, trends, trajectory.trusted[0]

    moved, trends, trusted = run(Loop())
    assert trends[:2] == [None, None]
    assert trends[2] == [pytest.approx(share, abs=1e-4)]
    assert moved == [False, False, share > 0.4]
    assert trusted
    assert run(Loop(trust=0.4))[2] == (share > 0.4)
    assert run(Loop(trust=0.6, correct_above=0.1))[::2] == ([False, False, False], False)


@pytest.mark.parametrize("pair", [(0, 1), (3, 4)])
def test_a_trend_that_does_not_come_true_is_not_trusted(flux, pair):
    """The first that can be forecast is trusted unseen: here there is nothing to forecast then."""
    some = ExplicitSchedule((*{0, *pair}, pair[1] + 1, 7, 11))
    with SpectralCache(flux, schedule=some, method="spectrum") as cache:
        trusting = sample(flux)
    computed = cache.report.computed_steps
    assert [s.index for s in cache.report.steps if s.trend is not None] == computed[2:]
    method = Method("never", Kriging(), Planner("least"), "denoised", Loop(trust=float("inf")))
    with SpectralCache(flux, schedule=some, method=method):
        distrusting = sample(flux)
    with SpectralCache(flux, schedule=some, method="hold", target="denoised"):
        held = sample(flux)
    assert torch.equal(distrusting, held)
    assert not torch.equal(trusting, held)


def test_the_first_trend_is_trusted_unseen(flux):
    method = Method("never", Kriging(), Planner("least"), "denoised", Loop(trust=float("inf")))
    with SpectralCache(flux, schedule=SOME, method=method):
        distrusting = sample(flux)
    with SpectralCache(flux, schedule=SOME, method="hold", target="denoised"):
        held = sample(flux)
    assert not torch.equal(distrusting, held)


# -- watching ------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [{"speedup": 1}, {"schedule": SOME}, {"speedup": 3}])
def test_an_observer_sees_x0_at_every_computed_step(flux, how):
    """As Euler's formula has it: x − σ v, of what the model was given and gave."""
    seen, expected, given = {}, [], []

    def observe(step, denoised):
        assert step not in seen
        seen[step] = denoised.clone()

    def record(module, args, kwargs, output):
        given.append((kwargs["hidden_states"].clone(), output[0].clone()))

    handle = flux.transformer.register_forward_hook(record, with_kwargs=True)
    with SpectralCache(flux, method="spectrum", observe=observe, **how) as cache:
        latents = sample(flux)
    handle.remove()
    computed = cache.report.computed_steps
    assert list(seen) == computed == sorted(computed)
    assert len(given) == len(computed)
    sigmas = flux.scheduler.sigmas
    for step, (x, velocity) in zip(computed, given, strict=True):
        expected.append(x - sigmas[step] * velocity)
        assert seen[step].dtype == torch.float32
        assert torch.allclose(seen[step], expected[-1], atol=1e-5)
    if len(computed) == STEPS:  # the last step goes to x₀ itself
        assert torch.allclose(seen[STEPS - 1], latents, atol=1e-5)
        assert torch.equal(latents, sample(flux))
    else:
        assert 3 <= len(computed) <= 4


def test_an_observer_sees_nothing_where_x0_is_not_known(flux, monkeypatch):
    seen = []
    with SpectralCache(flux, schedule=SOME, target="feature", observe=lambda *_: seen.append(1)):
        sample(flux)
    noisy = FlowMatchEulerDiscreteScheduler.from_config(
        flux.scheduler.config, stochastic_sampling=True
    )
    monkeypatch.setattr(flux, "scheduler", noisy)
    with SpectralCache(flux, speedup=1, observe=lambda *_: seen.append(1)):
        sample(flux)
    assert not seen


def test_a_forecast_that_is_not_finite_is_computed_instead(flux):
    class Broken(Hold):
        def weights(self, known, step, timeline):
            weights = super().weights(known, step, timeline)
            return weights * (float("inf") if step in (5, 7) else 1)

    with SpectralCache(flux, schedule=SOME, forecaster=Broken(), target="denoised") as cache:
        assert torch.isfinite(sample(flux)).all()
    assert cache.report.computed_steps == [0, 3, 5, 7, 11]
    # step 7 is computed by plan
    assert cache.report.notes == ["step 5: computed, as its forecast was not finite"]


def test_an_adaptive_schedule_computes_more_for_less_error(flux):
    plain, counts, errors = sample(flux, steps=24), [], []
    for tolerance in (0.5, 0.01, 0.001):
        with SpectralCache(flux, schedule=AdaptiveSchedule(tolerance)) as cache:
            fast = sample(flux, steps=24)
        report = cache.report
        assert {0, 1, 23} <= set(report.computed_steps)
        assert list(report.planned_steps) == report.computed_steps
        counts.append(len(report.computed_steps))
        errors.append(float((fast - plain).norm() / plain.norm()))
    assert counts[0] < 8
    assert counts[0] < counts[1] < counts[2]
    assert counts[2] > 12
    assert errors[0] > errors[1] > errors[2]


def test_an_adaptive_schedule_stores_what_its_forecaster_looks_at(flux, monkeypatch):
    stored, compute = [], ClosedLoop.compute

    def recording(self, *args):
        checked = compute(self, *args)
        stored.append((len(self.history.steps), len(self.smooth)))
        return checked

    monkeypatch.setattr(ClosedLoop, "compute", recording)
    with SpectralCache(flux, schedule=AdaptiveSchedule(0.001)) as cache:
        sample(flux, steps=24)
    assert len(stored) == len(cache.report.computed_steps) > 4
    # three, and from the fourth on the smoother forecast is tried, which looks at them
    assert stored == [(min(k, 3), max(0, k - 3)) for k in range(1, len(stored) + 1)]
