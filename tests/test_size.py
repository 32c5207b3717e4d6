"""How large a run is: latent positions, told by the call of the denoiser and by the preset."""

import functools
import json

import pytest
import tiny_images
import tiny_videos
import tiny_videos_more
import torch

from spectrum import SpectralCache, engine
from spectrum.denoiser import is_epsilon, positions
from spectrum.pipeline.catalog import find_preset
from spectrum.pipeline.loading import Options, choose_device, load_pipeline
from spectrum.pipeline.request import resolve
from spectrum.schedule import LeastError
from spectrum.schedulers import read_timeline
from spectrum.timeline import unit_scale

CASES = {**tiny_images.CASES, **tiny_videos.CASES, **tiny_videos_more.CASES}
pytestmark = [  # diffusers' own, in its schedulers and Chroma's transformer
    pytest.mark.filterwarnings("ignore:.FluxPosEmbed:FutureWarning"),
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("sdxl", 8 * 8),  # a U-Net: as if in patches of 2
        ("sd3", 8 * 8),  # patches of 2
        ("chroma", 8 * 8),  # packed
        ("z-image", 8 * 8),  # a list, a sample each
        ("ltx-video", 32),
        ("cogvideox-5b", 3 * 2 * 2),  # channels after frames
        ("skyreels-v2", 2 * 2 * 2),
        ("kandinsky-5-i2v", 5 * 2 * 2),  # with the conditions' channels
    ],
)
def test_the_denoisers_call_tells(name, expected, monkeypatch):
    seen = []

    def spy(*args):
        seen.append(positions(*args))
        return seen[-1]

    monkeypatch.setattr(engine, "positions", spy)
    case = CASES[name]
    with SpectralCache(case.build(), speedup=1) as cache:
        cache._pipe(**case.call, num_inference_steps=2, output_type="latent")
    assert seen == [expected]  # asked once a run


@pytest.mark.parametrize("name", ["flux-kontext", "qwen-image-edit"])
def test_an_image_to_edit_is_no_part_of_the_size(name):
    """Its tokens follow the sample's, and only scheduler.step is given the sample alone."""
    case, tokens = CASES[name], set()
    with SpectralCache(case.build(), speedup=2) as cache:
        pipe = cache._pipe

        def spy(_pipe, _step, _timestep, given):
            tokens.add(given["latents"].shape[1])
            return given

        pipe(
            **case.call, num_inference_steps=6, output_type="latent", callback_on_step_end=spy,
            callback_on_step_end_tensor_inputs=["latents"],
        )  # fmt: skip
    (size,) = tokens
    scale = cache._method.run_scale(size, is_epsilon(pipe))
    assert cache.report.scale == scale
    timeline = read_timeline(pipe, 6, scale)
    assert cache.report.computed_steps == LeastError(3).computed_steps(timeline)


@pytest.mark.parametrize(
    ("name", "told", "noise", "size"),
    [
        ("sdxl", True, True, 64),
        ("pixart-sigma", True, True, 64),
        ("sd15", False, True, 64),
        ("sd3", True, False, 64),
        ("cogvideox-5b", True, False, 12),
    ],
)
def test_who_predicts_noise_has_another_scale(name, told, noise, size, tmp_path):
    """The run tells by the scheduler, a preset by itself, and a folder by its files, or by what the
    scheduler's class predicts if they leave it open."""
    case = CASES[name]
    pipe = case.build()
    pipe.save_pretrained(tmp_path / "model")
    if not told:  # as those of 2022
        path = tmp_path / "model" / "scheduler" / "scheduler_config.json"
        config = json.loads(path.read_text())
        del config["prediction_type"]
        path.write_text(json.dumps(config))
    with SpectralCache(pipe, speedup=1) as cache:
        pipe(**case.call, num_inference_steps=2, output_type="latent")
    unit = 45.0 if noise else 6.0
    assert (cache.report.scale / unit) ** 2 * 64 == pytest.approx(size)
    folder = find_preset(str(tmp_path / "model"))
    assert folder.predicts_noise is noise
    if case.preset:
        assert find_preset(case.preset).predicts_noise is noise
    assert resolve(folder, "x").method.scale == unit


def test_unknown_sizes_are_0():
    module = torch.nn.Linear(1, 1)
    assert positions(module, (), {}) == 0
    module.config = {"in_channels": 4}
    assert positions(module, (), {"hidden_states": None}) == 0
    assert positions(module, (), {"sample": torch.zeros(2, 4, 6, 10)}) == 15
    assert positions(module, ([],), {}) == 0


@pytest.mark.parametrize("name", ["demo-image", "demo-video"])
def test_the_run_computes_what_plan_said(name):
    preset = find_preset(name)
    ask = functools.partial(resolve, preset, preset.example, speedup=4)
    request = ask(width=96, height=64) if name == "demo-image" else ask()
    pipe = load_pipeline(request, choose_device("cpu"), Options())
    with SpectralCache(pipe, 4, method=request.method) as cache:
        pipe(**request.arguments(), output_type="latent")
    assert cache.report.computed_steps == list(request.plan.computed_steps)
    assert unit_scale(is_epsilon(pipe)) == request.method.scale  # without being told
    other = ask(width=256, height=256) if name == "demo-image" else ask(frames=81)
    assert other.plan.computed_steps < request.plan.computed_steps  # earlier steps
    assert isinstance(other.plan.schedule, LeastError)


def test_a_preset_may_state_its_scale(tmp_path):
    text = find_preset("wan2.1-14b").path.read_text()
    path = tmp_path / "mine.yaml"
    path.write_text(text.replace("  speedup: 3.5", "  scale: 1\n  speedup: 3.5"))
    usual, mine = resolve(find_preset("wan2.1-14b"), "x"), resolve(find_preset(str(path)), "x")
    assert usual.positions == mine.positions == 21 * 30 * 52
    # 22.6 times as wide as 8 tokens
    assert usual.timeline.scale == pytest.approx(6 * (32_760 / 64) ** 0.5)
    assert mine.timeline.scale == pytest.approx((32_760 / 64) ** 0.5)
    assert usual.plan.computed_steps < mine.plan.computed_steps
