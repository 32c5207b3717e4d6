"""The models that ship with the package run, are small, and draw what they are asked."""

import numpy as np
import pytest
import torch

from spectrum import SpectralCache
from spectrum.pipeline.catalog import find_preset
from spectrum.pipeline.generate import generate
from spectrum.pipeline.loading import load_pipeline
from spectrum.pipeline.request import resolve, unknown_words

MODELS = ("demo-image", "demo-video")
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def pipes():
    return {name: load_pipeline(resolve(find_preset(name), "any"), CPU) for name in MODELS}


def psnr(a, b):
    """In float: uint8 differences would wrap."""
    return -10 * np.log10(((a / 255.0 - b / 255.0) ** 2).mean())


@pytest.mark.parametrize("name", MODELS)
def test_they_are_small(name):
    folder = find_preset(name).embedded_folder
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 16_000_000
    assert not [path for path in files if path.suffix in (".bin", ".pt", ".pkl", ".ckpt")]


@pytest.mark.parametrize("name", MODELS)
def test_the_default_is_faster_and_close_to_the_plain_run(pipes, name):
    preset = find_preset(name)
    plain = generate(pipes[name], resolve(preset, preset.example, speedup=1), seed=1)
    fast = generate(pipes[name], resolve(preset, preset.example), seed=1)
    assert len(plain.report.computed_steps) == 50
    assert len(fast.report.computed_steps) == 11
    assert fast.report.estimated_speedup > 1.5
    assert psnr(fast.frames.astype(float), plain.frames.astype(float)) > 18


@pytest.mark.parametrize("name", MODELS)
def test_computing_every_step_is_the_plain_pipeline(pipes, name):
    request = resolve(find_preset(name), find_preset(name).example, steps=6, speedup=1)

    def latents():
        generator = torch.Generator().manual_seed(3)
        return pipes[name](**request.arguments(), generator=generator, output_type="latent")[0]

    plain = latents()
    with SpectralCache(pipes[name], 1):
        assert torch.equal(latents(), plain)


def is_red(pixels):
    red, green, blue = (pixels[..., channel].astype(int) for channel in range(3))
    return (red > 140) & (red - green > 70) & (red - blue > 70)


def test_the_image_model_draws_what_it_is_asked(pipes):
    request = resolve(find_preset("demo-image"), "a large red circle on a white background")
    hits = []
    for seed in range(4):
        picture = generate(pipes["demo-image"], request, seed).frames[0]
        border = np.concatenate([picture[0], picture[-1], picture[:, 0], picture[:, -1]])
        hits.append(0.04 < is_red(picture).mean() < 0.4 and np.median(border) > 200)
    assert sum(hits) >= 3, hits


def test_the_video_model_moves_what_it_is_asked(pipes):
    for direction, sign in (("right", 1), ("left", -1)):
        prompt = f"a large red circle moves {direction} on a white background"
        frames = generate(pipes["demo-video"], resolve(find_preset("demo-video"), prompt), 1).frames
        columns = [np.nonzero(is_red(frame))[1] for frame in (frames[0], frames[-1])]
        assert min(map(len, columns)) > 20
        assert sign * (columns[1].mean() - columns[0].mean()) > 5


@pytest.mark.parametrize("name", MODELS)
def test_their_vocabulary_is_known(name):
    preset = find_preset(name)
    assert unknown_words(preset, preset.example) == []
    assert unknown_words(preset, "A red circle, on an ELEPHANT dancing. elephant") == [
        "elephant", "dancing",
    ]  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_the_plan_is_what_is_run(pipes, name):
    """The preset's shift is the pipeline's own."""
    request = resolve(find_preset(name), find_preset(name).example)
    made = generate(pipes[name], request, seed=1)
    assert list(request.plan.computed_steps) == made.report.computed_steps
