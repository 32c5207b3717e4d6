"""The cache with what people use to fit a model on their machine: offloading, half precision,
compiled blocks, LoRAs. On the CPU, which takes the same hooks as a GPU does."""

import functools

import accelerate
import pytest
import tiny_images
import tiny_videos
import torch
from tiny import tiny_flux, tiny_wan

from spectrum import SpectralCache
from spectrum.denoiser import find_denoisers, tensors_of
from spectrum.pipeline.loading import offload_to
from spectrum.schedule import ExplicitSchedule

FeatureCache = functools.partial(SpectralCache, target="feature")
STEPS = 6
SOME = ExplicitSchedule((0, 2, 5))
CPU = torch.device("cpu")
FLUX = {"prompt": "cat", "height": 16, "width": 16, "max_sequence_length": 12}
WAN = {"prompt": "cat", "height": 16, "width": 32, "num_frames": 5, "max_sequence_length": 12}
CASES = {
    "flux": (tiny_flux, FLUX),
    "wan": (tiny_wan, WAN),
    **{
        name: (case.build, case.call)
        for name, case in {**tiny_images.CASES, **tiny_videos.CASES}.items()
        if name in ("sdxl", "sd3", "wan2.2-t2v-a14b", "hunyuanvideo", "z-image", "ltx-2")
    },
}
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def sample(pipe, call):
    output = pipe(
        **call, num_inference_steps=STEPS, generator=torch.Generator().manual_seed(5),
        output_type="latent", return_dict=False,
    )  # fmt: skip
    return [x.float() for x in tensors_of(output)]


def equal(ours, theirs):
    return len(ours) == len(theirs) > 0 and all(map(torch.equal, ours, theirs))


def cached(pipe, call):
    with FeatureCache(pipe, schedule=SOME) as cache:
        output = sample(pipe, call)
    assert 0 in cache.report.computed_steps
    assert cache.report.forecast_steps
    return output


def check(pipe, call):
    """Computing all steps is the plain run, skipping is not, and leaving restores it."""
    plain = sample(pipe, call)
    with FeatureCache(pipe, speedup=1):
        assert equal(sample(pipe, call), plain)
    fast = cached(pipe, call)
    assert all(torch.isfinite(x).all() for x in fast)
    assert not equal(fast, plain)
    assert equal(sample(pipe, call), plain)
    return fast


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("how", ["model", "group", "sequential"])
def test_offloading_changes_nothing(name, how):
    build, call = CASES[name]
    expected = cached(build(), call)
    pipe = build()
    if how == "sequential":
        # What enable_sequential_cpu_offload does, for the denoisers; with copies, as on a CPU
        # accelerate takes weights that come back to where they were for tied ones.
        for denoiser in find_denoisers(pipe).values():
            kept = {key: value.clone() for key, value in denoiser.state_dict().items()}
            accelerate.cpu_offload(denoiser, CPU, state_dict=kept)
    else:
        offload_to(pipe, CPU, how)
    assert equal(check(pipe, call), expected)


@pytest.mark.parametrize("name", CASES)
def test_bfloat16(name):
    build, call = CASES[name]
    pipe = build()
    pipe.to(torch.bfloat16)
    check(pipe, call)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, on importing dynamo
@pytest.mark.parametrize("name", ["flux", "wan", "hunyuanvideo"])
def test_compiled_blocks_without_a_graph_break(name):
    build, call = CASES[name]
    expected = cached(build(), call)
    pipe = build()
    pipe.transformer.compile_repeated_blocks(fullgraph=True, backend="eager")
    torch._dynamo.reset()
    fast = check(pipe, call)
    assert all(torch.allclose(a, b, atol=1e-4) for a, b in zip(fast, expected, strict=True))


@pytest.mark.parametrize("name", ["flux", "wan", "sdxl", "sd3"])
def test_batches_and_several_pictures_a_prompt(name):
    build, call = CASES[name]
    pipe = build()
    several = "num_videos_per_prompt" if name == "wan" else "num_images_per_prompt"
    batch = {**call, "prompt": ["a cat", "two dogs"], several: 2}
    if "negative_prompt" in call:
        batch["negative_prompt"] = ["blurry", "blurry"]
    assert len(check(pipe, batch)[0]) == 4


def test_guidance_rescale():
    pipe = tiny_images.CASES["sdxl"].build()
    check(pipe, {**tiny_images.CASES["sdxl"].call, "guidance_rescale": 0.7})
