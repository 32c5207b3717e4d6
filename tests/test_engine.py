"""The cache on tiny pipelines of the real classes."""

import copy
import functools
import gc
import weakref

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, FluxTransformer2DModel

from spectrum import SpectralCache
from spectrum.anatomy import Tracer
from spectrum.errors import SpectrumError, UsageError
from spectrum.forecast import ChebyshevRidge, Hold
from spectrum.history import FeatureHistory
from spectrum.hollow import hollow
from spectrum.schedule import AdaptiveSchedule, ExplicitSchedule, WindowSchedule
from spectrum.timeline import Timeline

FeatureCache = functools.partial(SpectralCache, target="feature")
STEPS = 12
SOME = ExplicitSchedule((0, 1, 4, 8, 11))
ALL = ExplicitSchedule(tuple(range(STEPS)))
CALLS = {
    "flux": {"height": 16, "width": 16, "max_sequence_length": 12},
    "flux_cfg": {
        "height": 16, "width": 16, "max_sequence_length": 12,
        "negative_prompt": "blue", "true_cfg_scale": 3.0,
    },
    "wan": {"height": 16, "width": 32, "num_frames": 5, "max_sequence_length": 12},
}  # fmt: skip


def sample(pipe, call, prompt="red cat", steps=STEPS):
    generator = torch.Generator().manual_seed(7)
    return pipe(
        prompt=prompt, num_inference_steps=steps, generator=generator, output_type="latent",
        return_dict=False, **call,
    )[0]  # fmt: skip


@pytest.fixture(params=list(CALLS))
def case(request):
    pipe, call = request.getfixturevalue(request.param.split("_")[0]), CALLS[request.param]
    with FeatureCache(pipe, schedule=ExplicitSchedule((0,))):
        sample(pipe, call, steps=2)  # the first computed call of all replays itself
    return pipe, call


def record_head(pipe):
    """Every feature that reaches the head, and the number of block calls."""
    features, blocks = [], []

    def count(*_):
        blocks.append(1)

    transformer = pipe.transformer
    handles = [
        transformer.norm_out.register_forward_pre_hook(
            lambda _, args: features.append(args[0].clone())
        ),
        *(
            block.register_forward_pre_hook(count)
            for name, child in transformer.named_children()
            if isinstance(child, torch.nn.ModuleList)
            for block in child
        ),
    ]
    return features, blocks, handles


def remove(handles):
    for handle in handles:
        handle.remove()


def test_computing_every_step_is_the_plain_run(case):
    pipe, call = case
    plain = sample(pipe, call)
    with FeatureCache(pipe, schedule=ALL) as cache:
        assert torch.equal(sample(pipe, call), plain)
    assert cache.report.computed_steps == list(range(STEPS))
    with FeatureCache(pipe, speedup=1) as cache:
        assert torch.equal(sample(pipe, call), plain)
    assert cache.report.stored_bytes == 0


def test_replaying_the_features_with_all_blocks_skipped_is_the_plain_run(case, monkeypatch):
    pipe, call = case
    features, blocks, handles = record_head(pipe)
    plain = sample(pipe, call)
    remove(handles)
    blocks.clear()
    replay = iter(list(features))
    computed_calls = len(features) // STEPS
    cache = FeatureCache(pipe, schedule=ExplicitSchedule((0,)), forecaster=Hold())
    for _ in range(computed_calls):
        next(replay)
    monkeypatch.setattr(FeatureHistory, "forecast", lambda *_: next(replay).clone())
    _, blocks, handles = record_head(pipe)
    with cache:
        assert torch.equal(sample(pipe, call), plain)
    remove(handles)
    assert cache.report.forecast_steps == list(range(1, STEPS))
    assert next(replay, None) is None
    assert len(blocks) == computed_calls * n_blocks(pipe)


def n_blocks(pipe):
    children = pipe.transformer.children()
    return sum(len(child) for child in children if isinstance(child, torch.nn.ModuleList))


def test_forecast_steps_run_no_block(case):
    pipe, call = case
    features, blocks, handles = record_head(pipe)
    with FeatureCache(pipe, schedule=SOME) as cache:
        sample(pipe, call)
    remove(handles)
    calls_a_step = len(features) // STEPS
    assert len(features) == calls_a_step * STEPS
    assert len(blocks) == calls_a_step * len(cache.report.computed_steps) * n_blocks(pipe)


def test_leaving_the_block_restores_the_pipeline(case):
    pipe, call = case
    plain = sample(pipe, call)
    before = copy.copy(pipe.transformer._modules)
    kind = type(pipe.scheduler)
    with FeatureCache(pipe, schedule=SOME):
        assert not torch.equal(sample(pipe, call), plain)
        assert type(pipe.scheduler) is not kind
    assert torch.equal(sample(pipe, call), plain)
    assert pipe.transformer._modules == before
    assert not pipe.transformer._forward_pre_hooks
    assert not pipe.transformer._forward_hooks
    assert not pipe.transformer.norm_out._forward_pre_hooks
    assert type(pipe.scheduler) is kind


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("where", ["computed", "forecast"])
def test_an_exception_restores_the_pipeline(case, error, where):
    pipe, call = case
    plain = sample(pipe, call)
    before = copy.copy(pipe.transformer._modules)

    def fail(_module, _args):
        if not cache.reports or len(cache.report.steps) == {"computed": 4, "forecast": 5}[where]:
            raise error("stop")

    with FeatureCache(pipe, schedule=SOME) as cache:
        sample(pipe, call)  # so that there is a report
        handle = pipe.transformer.proj_out.register_forward_pre_hook(fail)
        with pytest.raises(error, match="stop"):
            sample(pipe, call)
        handle.remove()
        again = sample(pipe, call)  # the next run inside the block is a clean one
    assert [report.finished for report in cache.reports] == [True, False, True]
    assert torch.equal(sample(pipe, call), plain)
    assert pipe.transformer._modules == before
    with FeatureCache(pipe, schedule=SOME):
        assert torch.equal(sample(pipe, call), again)


def test_guidance_branches_keep_their_own_history(wan):
    schedule = ExplicitSchedule((0, 5, 9))
    held = []
    with FeatureCache(wan, schedule=schedule, forecaster=Hold()) as cache:
        sample(wan, CALLS["wan"])
        handle = wan.transformer.norm_out.register_forward_hook(
            lambda _, args, _output: held.append(args[0].clone())
        )
        sample(wan, CALLS["wan"])
        handle.remove()
    cond, uncond = held[::2], held[1::2]
    assert not torch.equal(cond[0], uncond[0])
    for step in range(STEPS):
        newest = max(s for s in cache.report.computed_steps if s <= step)
        assert torch.equal(cond[step], cond[newest])
        assert torch.equal(uncond[step], uncond[newest])


def test_runs_in_one_block_are_independent(case):
    pipe, call = case
    with FeatureCache(pipe, schedule=SOME) as cache:
        first = sample(pipe, call)
        sample(pipe, call, prompt="other words", steps=12)
        third = sample(pipe, call)
    assert torch.equal(first, third)
    assert len(cache.reports) == 3
    assert [r.computed_steps for r in cache.reports] == [[0, 1, 4, 8, 11]] * 3


def test_another_size_inside_one_block(flux):
    with FeatureCache(flux, speedup=2) as cache:
        sample(flux, CALLS["flux"])
        sample(flux, {**CALLS["flux"], "height": 32}, steps=9)
    assert cache.reports[0].num_steps == STEPS
    assert cache.reports[1].num_steps == 9
    assert len(cache.reports[1].computed_steps) <= 4
    assert cache.reports[1].stored_bytes == 2 * cache.reports[0].stored_bytes


def test_a_forecast_that_is_not_finite_is_computed_instead(wan):
    class Broken(Hold):
        def weights(self, known, step, timeline):
            weights = super().weights(known, step, timeline)
            return weights * (float("inf") if step == 6 else 1)

    with FeatureCache(wan, schedule=SOME, forecaster=Broken()) as cache:
        assert torch.isfinite(sample(wan, CALLS["wan"])).all()
    assert cache.report.computed_steps == [0, 1, 4, 6, 8, 11]
    assert cache.report.notes == ["step 6: computed, as its forecast was not finite"]


def test_the_report(wan):
    seen = []
    with FeatureCache(wan, schedule=SOME, on_step=lambda report, step: seen.append(step)) as cache:
        sample(wan, CALLS["wan"])
    report = cache.report
    assert seen == [None, *report.steps]
    assert [step.index for step in report.steps] == list(range(STEPS))
    assert report.forecast_steps == [2, 3, 5, 6, 7, 9, 10]
    errors = {step.index: step.error for step in report.steps}
    assert all(0 < errors[s] < 1 for s in (4, 8, 11))
    assert all(errors[s] is None for s in range(STEPS) if s not in (4, 8, 11))
    assert report.planned_speedup == STEPS / 5
    computed = [s.seconds for s in report.steps if s.computed]
    expected = sum(computed) / 5 * STEPS / sum(s.seconds for s in report.steps)
    assert report.estimated_speedup == pytest.approx(expected)
    tokens, width, branches, kept, bytes_each = 2 * 1 * 2, 24, 2, 2, 4
    assert report.stored_bytes == tokens * width * branches * kept * bytes_each


def test_an_adaptive_schedule_stores_all_features_that_its_forecaster_looks_at(flux):
    seen = set()

    class Watching(ChebyshevRidge):
        def weights(self, known, step, timeline):
            seen.add(len(known))
            return super().weights(known, step, timeline)

    with FeatureCache(flux, schedule=AdaptiveSchedule(1e-4), forecaster=Watching()) as cache:
        sample(flux, CALLS["flux"])
    assert max(seen) == len(cache.report.computed_steps) - 1 > 2


def test_the_measured_error_is_that_of_the_forecast(flux):
    features, _, handles = record_head(flux)
    with FeatureCache(flux, schedule=SOME, forecaster=ChebyshevRidge()) as cache:
        sample(flux, CALLS["flux"])
    remove(handles)
    weights = ChebyshevRidge().weights([0, 1], 4, Timeline.flow(STEPS))
    forecast = weights[0] * features[0] + weights[1] * features[1]
    expected = (forecast - features[4]).norm() / features[4].norm()
    assert cache.report.steps[4].error == pytest.approx(expected.item(), rel=1e-4)


def test_the_published_method_is_the_papers_to_the_weight(flux):
    with FeatureCache(flux, 50 / 14, method="published") as named:
        by_name = sample(flux, CALLS["flux"], steps=50)
    with FeatureCache(flux, schedule=WindowSchedule(), forecaster=ChebyshevRidge()):
        assert torch.equal(sample(flux, CALLS["flux"], steps=50), by_name)
    assert named.report.computed_steps == WindowSchedule().computed_steps(Timeline.flow(50))
    with FeatureCache(flux, 50 / 14, method="published", blend=0.5):
        assert not torch.equal(sample(flux, CALLS["flux"], steps=50), by_name)


def test_bfloat16_replays_exactly(flux):
    pipe = copy.deepcopy(flux).to(torch.bfloat16)
    with FeatureCache(pipe, schedule=SOME) as cache:
        out = sample(pipe, CALLS["flux"])
    assert out.dtype == torch.bfloat16
    assert torch.isfinite(out).all()
    assert cache.report.stored_bytes == 2 * 16 * 32 * 2


def test_enable_and_disable(flux):
    plain = sample(flux, CALLS["flux"])
    cache = FeatureCache(flux, schedule=SOME)
    with pytest.raises(SpectrumError, match="no report yet"):
        _ = cache.report
    cache.enable()
    cache.enable()
    fast = sample(flux, CALLS["flux"])
    cache.disable()
    cache.disable()
    assert torch.equal(sample(flux, CALLS["flux"]), plain)
    cache.enable()
    assert torch.equal(sample(flux, CALLS["flux"]), fast)
    cache.disable()


def test_two_caches_do_not_stack(flux):
    with FeatureCache(flux, 2), pytest.raises(UsageError, match="cached already"):
        FeatureCache(flux, 2).enable()
    FeatureCache(flux, 2).disable()


def test_a_scheduler_set_inside_the_block_is_followed(flux):
    original = flux.scheduler
    try:
        with FeatureCache(flux, schedule=SOME) as cache:
            sample(flux, CALLS["flux"])
            flux.scheduler = FlowMatchEulerDiscreteScheduler.from_config(original.config)
            sample(flux, CALLS["flux"])
        assert [len(r.computed_steps) for r in cache.reports] == [5, 5]
        assert type(original) is type(flux.scheduler) is FlowMatchEulerDiscreteScheduler
    finally:
        flux.scheduler = original


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, on importing dynamo
def test_a_transformer_set_inside_the_block_is_followed(flux):
    pipe = type(flux)(**flux.components)
    before, other = flux.transformer, copy.deepcopy(flux.transformer)
    with FeatureCache(pipe, schedule=SOME) as cache:
        sample(pipe, CALLS["flux"])
        pipe.transformer = other
        sample(pipe, CALLS["flux"])
        assert [len(r.computed_steps) for r in cache.reports] == [5, 5]
        assert cache.denoisers == {"transformer": other}
        pipe.transformer = torch.compile(other)
        with pytest.raises(UsageError, match="compile_repeated_blocks"):
            sample(pipe, CALLS["flux"])
    assert type(before) is type(other) is FluxTransformer2DModel


def test_a_pipeline_that_is_let_go_of_while_enabled_is_freed(flux):
    pipe = type(flux)(**flux.components)
    pipe.transformer, pipe.scheduler = copy.deepcopy((flux.transformer, flux.scheduler))
    cache, alive = FeatureCache(pipe, schedule=SOME), weakref.ref(pipe.transformer)
    cache.enable()
    sample(pipe, CALLS["flux"])
    del pipe, cache
    gc.collect()
    assert alive() is None


@pytest.mark.parametrize(
    "steps", [np.arange(0, 10, 3), torch.tensor([0, 4]), {0, 3, 6}, range(0, 9, 3)]
)
def test_a_schedule_may_be_any_numbers(flux, steps):
    with FeatureCache(flux, schedule=steps) as cache:
        sample(flux, CALLS["flux"])
    assert cache.report.computed_steps == sorted(int(step) for step in steps)


@pytest.mark.parametrize("steps", [5, "0,3"])
def test_a_schedule_that_is_none_is_refused(flux, steps):
    with pytest.raises(UsageError, match="numbers of the computed steps"):
        FeatureCache(flux, schedule=steps)


def test_the_scheduler_is_saved_under_its_own_name(flux, tmp_path):
    with FeatureCache(flux, 2):
        flux.scheduler.save_pretrained(tmp_path)
        copied = copy.deepcopy(flux.scheduler)
    assert "FlowMatchEulerDiscreteScheduler" in (tmp_path / "scheduler_config.json").read_text()
    assert isinstance(copied, FlowMatchEulerDiscreteScheduler)


def test_wrong_use_is_refused(flux):
    with pytest.raises(UsageError, match="not both"):
        FeatureCache(flux, 2, schedule=SOME)
    with pytest.raises(UsageError, match="did you mean 'published'"):
        FeatureCache(flux, 2, method="publish")
    with pytest.raises(UsageError, match="no ridge"):
        FeatureCache(flux, 2, method="hold", blend=0.5)
    with pytest.raises(UsageError, match="between 0 and 1"):
        FeatureCache(flux, 2, method="published", blend=2)
    with FeatureCache(flux, 20), pytest.raises(UsageError, match="largest speedup"):
        sample(flux, CALLS["flux"])


def test_a_denoiser_without_block_lists_is_refused(flux):
    pipe = copy.deepcopy(flux)
    for name in ("transformer_blocks", "single_transformer_blocks"):
        listed = pipe.transformer._modules[name]
        pipe.transformer._modules[name] = torch.nn.Sequential(*listed)
    with (
        FeatureCache(pipe, schedule=SOME) as cache,
        pytest.raises(UsageError, match="FluxTransformer2DModel can't be forecast: none of its"),
    ):
        sample(pipe, CALLS["flux"])
    assert type(pipe.transformer) is type(flux.transformer)
    assert not cache.anatomies


def test_a_denoiser_whose_output_is_not_decided_by_its_head_is_refused(flux):
    pipe = copy.deepcopy(flux)
    proj_out = pipe.transformer.proj_out
    calls = []

    class Moody(torch.nn.Module):
        def forward(self, x):
            calls.append(1)
            return proj_out(x) * len(calls)

    pipe.transformer.proj_out = Moody()
    with (
        FeatureCache(pipe, schedule=SOME),
        pytest.raises(UsageError, match="its output is not decided by what enters norm_out"),
    ):
        sample(pipe, CALLS["flux"])


def test_blocks_may_be_looped_over_in_slices():
    """MotifVideo: the last blocks of a list get further arguments."""

    class Sliced(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.blocks = torch.nn.ModuleList([torch.nn.Linear(4, 4) for _ in range(3)])
            self.head = torch.nn.Linear(4, 2)

        def forward(self, x):
            for block in (*self.blocks[:2], *self.blocks[-1:]):
                x = block(x)
            return self.head(x)

    denoiser, x = Sliced(), torch.ones(1, 4)
    with Tracer(denoiser) as tracer:
        output = denoiser(x)
    with Tracer(denoiser) as still, hollow(denoiser, tracer.anatomy(), tracer.features):
        assert torch.equal(denoiser(x), output)
    assert (tracer.blocks, still.blocks) == (("blocks",), ())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, on importing dynamo
def test_a_denoiser_compiled_as_a_whole_is_refused(flux):
    pipe = copy.deepcopy(flux)
    pipe.transformer = torch.compile(pipe.transformer)
    with pytest.raises(UsageError, match="compile_repeated_blocks"):
        FeatureCache(pipe, 2)
