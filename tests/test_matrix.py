"""Every class that Spectrum carries, as a tiny random pipeline of the real class."""

import gc
import json
import sys

import pytest
import tiny_images
import tiny_images_more
import tiny_videos
import tiny_videos_more
import torch

from spectrum import SpectralCache
from spectrum.batch.together import APART
from spectrum.denoiser import tensors_of
from spectrum.feature import FeatureTarget
from spectrum.forecast import Hold
from spectrum.hollow import recorded
from spectrum.pipeline.catalog import find_preset
from spectrum.schedule import ExplicitSchedule
from spectrum.storage import Storage
from spectrum_cli.main import run

CASES = {
    **tiny_images.CASES,
    **tiny_images_more.CASES,
    **tiny_videos.CASES,
    **tiny_videos_more.CASES,
}
STEPS = 6
pytestmark = [
    # diffusers' own, in its schedulers, Chroma's and Mochi's transformers
    pytest.mark.filterwarnings("ignore:.FluxPosEmbed:FutureWarning"),
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:__array_wrap__ must:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:In CPU autocast:UserWarning"),
]


def sample(pipe, call):
    generator = torch.Generator().manual_seed(7)
    output = pipe(
        **call, num_inference_steps=STEPS, generator=generator, output_type="latent",
        return_dict=False,
    )  # fmt: skip
    return list(tensors_of(output))


def equal(ours, theirs):
    return len(ours) == len(theirs) > 0 and all(map(torch.equal, ours, theirs))


@pytest.fixture(params=list(CASES), scope="module")
def case(request):
    case = CASES[request.param]
    yield case.build(), case.call
    gc.collect()


class Replay(SpectralCache):
    """Forecasts what a plain run recorded, so that nothing but the skipping is tried."""

    def __init__(self, pipe, features):
        super().__init__(pipe, schedule=ExplicitSchedule((0,)), target="feature")
        self.features = {name: iter(listed) for name, listed in features.items()}
        self.skipping = False

    def _make_target(self, plan, report):
        return Replayed(self, plan)


class Replayed(FeatureTarget):
    def __init__(self, cache, plan):
        super().__init__(Hold(), plan, Storage())
        self.cache = cache

    def _forecasts(self, now, branch):
        heads = len(self.cache.anatomies[branch.denoiser].heads)
        features = [next(self.cache.features[branch.denoiser]) for _ in range(heads)]
        self.cache.skipping = not now.planned
        return features if self.cache.skipping else None


def test_who_can_share_a_call_comes_out_as_alone(case):
    """In latents, where an error is 100 dB or more below their own size."""
    pipe, call = case
    prompts = ["a red square", "a blurry blue circle a red square a circle blue"]

    def sampled(call, generator):
        output = pipe(
            **call, num_inference_steps=2, generator=generator, output_type="latent",
            return_dict=False,
        )  # fmt: skip
        return next(tensors_of(output)).double()

    if "image" in call:
        return
    alone = [
        sampled({**call, "prompt": prompt}, torch.Generator().manual_seed(k))
        for k, prompt in enumerate(prompts)
    ]
    lists = {"prompt": prompts}
    if "negative_prompt" in call:
        lists["negative_prompt"] = [call["negative_prompt"]] * 2
    try:
        both = sampled({**call, **lists}, [torch.Generator().manual_seed(k) for k in range(2)])
        errors = [(a - b).square().mean() / a.square().mean() for a, b in zip(
            torch.cat(alone), both, strict=True)]  # fmt: skip
        apart = float(max(errors)) < 1e-10
    except (RuntimeError, ValueError):  # VACE takes one prompt
        apart = False
    name = type(pipe).__name__
    assert apart or name not in APART
    assert not apart or name != "Kandinsky5T2VPipeline"  # or this could not fail


def test_skipping_all_blocks_but_those_of_step_0_is_the_plain_run(case):
    pipe, call = case
    plain = sample(pipe, call)
    kinds = {name: type(part) for name, part in pipe.components.items()}

    with SpectralCache(pipe, speedup=1) as cache:
        assert equal(sample(pipe, call), plain)
    steps = cache.report.num_steps  # PNDM takes one more than asked for
    assert cache.report.computed_steps == list(range(steps))
    with SpectralCache(pipe, schedule=ExplicitSchedule((0,)), target="feature") as cache:
        fast = sample(pipe, call)  # and every denoiser has been traced
    assert not equal(fast, plain)
    assert cache.report.finished

    features = {}
    with_recording = [
        (name, recorded(cache.denoisers[name], anatomy))
        for name, anatomy in cache.anatomies.items()
    ]
    for name, recording in with_recording:
        features[name] = recording.__enter__()
    assert equal(sample(pipe, call), plain)
    for _, recording in with_recording:
        recording.__exit__(None, None, None)

    replay = Replay(pipe, features)
    handles, ran = [], []
    for name, anatomy in cache.anatomies.items():
        for part in anatomy.blocks:
            module = getattr(cache.denoisers[name], part)
            for block in module if isinstance(module, torch.nn.ModuleList) else [module]:
                hook = lambda *_: ran.append(replay.skipping)  # noqa: E731
                handles.append(block.register_forward_pre_hook(hook))
    with replay:
        assert equal(sample(pipe, call), plain)
    for handle in handles:
        handle.remove()
    assert ran
    assert not any(ran)
    assert len(replay.report.forecast_steps) >= steps - 2
    assert {name: type(part) for name, part in pipe.components.items()} == kinds
    assert equal(sample(pipe, call), plain)


def test_forecasting_the_output_calls_no_denoiser(case):
    pipe, call = case
    plain = sample(pipe, call)
    with SpectralCache(pipe, schedule=ExplicitSchedule((0, 2, 5))) as cache:
        ran = []
        handles = [
            denoiser.register_forward_pre_hook(lambda *_: ran.append(cache._run.now.index))
            for denoiser in cache.denoisers.values()
        ]
        fast = sample(pipe, call)
    for handle in handles:
        handle.remove()
    report = cache.report
    assert all(torch.isfinite(x).all() for x in fast)
    assert not equal(fast, plain)
    assert report.forecast_steps
    # PNDM: the feature; Z-Image without guidance: another shape
    assert all("instead" in note or "nothing was stored" in note for note in report.notes)
    if report.caution:
        return
    # a call that is new at a forecast step (skip-layer guidance) is answered, and left at that
    assert sum(step not in report.computed_steps for step in ran) <= 1
    assert report.finished
    assert equal(sample(pipe, call), plain)


BY_PRESET = {case.preset: case for case in reversed(CASES.values()) if case.preset}


@pytest.mark.parametrize("name", BY_PRESET)
def test_the_preset_runs_by_the_command(name, tmp_path, monkeypatch, capsys):
    case, preset = BY_PRESET[name], find_preset(name)
    pipe = case.build()
    pipe.save_pretrained(tmp_path / "weights")
    call = dict(case.call)
    words = ["spectrum", "gen", "--model", name, "--weights", str(tmp_path / "weights")]
    words += ["--steps", "6", "--method", "hold", "--speedup", "2", "--dtype", "float32"]
    for key in ("width", "height"):
        if key in call:
            words += [f"--{key}", call.pop(key)]
    words += ["--quiet", "--json"]
    words += ["--no-vae-tiling"]  # tiny VAEs have no tiles
    if preset.video:
        least = preset.video.every + 1  # LTX: 9
        words += ["--frames", max(least, call.pop(preset.video.frames_argument))]
    if "image" in call:
        call.pop("image").save(tmp_path / "in.png")
        words += ["--image", tmp_path / "in.png"]
    if name in ("sdxl", "sd3.5-large"):  # the preset's guidance is above 1 already
        call.pop("skip_guidance_layers", None)
    for key in ("negative_prompt", "guidance_scale", "true_cfg_scale", "prior_token_ids"):
        call.pop(key, None)
    prompt = call.pop("prompt")
    for key, value in call.items():
        words += ["--set", f"{key}={json.dumps(value)}"]
    monkeypatch.setattr(sys, "argv", [*map(str, words), prompt])
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    code = run()
    out, err = capsys.readouterr()
    assert (code, err) == (0, "")
    document = json.loads(out)
    # two denoisers have two computed steps each; Helios' chunks are counted on
    assert 0 < len(document["computed_steps"]) <= 2 * len(document["forecast_steps"])
    assert (tmp_path / document["outputs"][0]).stat().st_size > 0
