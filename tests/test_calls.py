"""Calls that pipelines make of their denoisers beside the ones that denoise, and what they take."""

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    FlowMatchEulerDiscreteScheduler,
    GlmImagePipeline,
    GlmImageTransformer2DModel,
    HunyuanDiT2DControlNetModel,
    HunyuanDiT2DModel,
    HunyuanDiTControlNetPipeline,
    SCMScheduler,
)
from tiny import _ready
from tiny_images import _louder, _picture, _vae

from spectrum import SpectralCache
from spectrum.schedulers import is_stochastic
from spectrum.timeline import adds_noise

STEPS = 6


def drawn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def sample(pipe, call, **more):
    return pipe(
        **call, num_inference_steps=STEPS, generator=torch.Generator().manual_seed(7),
        output_type="latent", return_dict=False, width=32, height=32, **more,
    )[0]  # fmt: skip


@pytest.fixture
def glm():
    """It looks at the picture to be edited, by a call of its denoiser, before it denoises."""
    torch.manual_seed(0)
    pipe = GlmImagePipeline(
        tokenizer=None, processor=None, text_encoder=None, vision_language_encoder=None,
        vae=_vae(
            latents_mean=[0.0] * 4, latents_std=[1.0] * 4, use_quant_conv=False,
            use_post_quant_conv=False,
        ),
        transformer=_louder(GlmImageTransformer2DModel(
            in_channels=4, out_channels=4, num_layers=2, attention_head_dim=16,
            num_attention_heads=2, text_embed_dim=16, time_embed_dim=16, condition_dim=8,
            prior_vq_quantizer_codebook_size=32,
        )),
        scheduler=FlowMatchEulerDiscreteScheduler(),
    )  # fmt: skip
    tokens = torch.arange(64) % 32
    call = {
        "prompt_embeds": drawn(1, 5, 16), "negative_prompt_embeds": drawn(1, 5, 16, seed=1),
        "prior_token_ids": tokens[None], "image": [[_picture()]],
        "prior_token_image_ids": [tokens], "source_image_grid_thw": [torch.tensor([[1, 8, 8]])],
    }  # fmt: skip
    return _ready(pipe), call


@pytest.mark.parametrize("target", ["denoised", "feature"])
def test_a_call_before_the_steps_is_none_of_them(glm, target):
    pipe, call = glm
    plain = sample(pipe, call)
    with SpectralCache(pipe, speedup=1, target=target) as cache:
        assert torch.equal(sample(pipe, call), plain)
        assert torch.equal(sample(pipe, call), plain)
    assert [report.computed_steps for report in cache.reports] == [list(range(STEPS))] * 2
    with SpectralCache(pipe, schedule=[0, 2], target=target) as cache:
        fast = sample(pipe, call)
    assert cache.report.computed_steps == [0, 2]
    assert cache.report.finished
    assert not torch.equal(fast, plain)


def test_nor_is_one_after_a_run_that_was_broken_off(glm):
    """Its next step would be a forecast one."""
    pipe, call = glm

    def stop(_pipe, step, _timestep, given):
        if step == 2:
            raise KeyboardInterrupt
        return given

    with SpectralCache(pipe, schedule=[0, 1], target="feature") as cache:
        whole = sample(pipe, call)
        with pytest.raises(KeyboardInterrupt):
            sample(pipe, call, callback_on_step_end=stop)
        assert torch.equal(sample(pipe, call), whole)
    assert [report.finished for report in cache.reports] == [True, False, True]


def test_what_a_controlnet_adds_to_blocks_that_do_not_run_is_left_out():
    """HunyuanDiT takes it off a list, and refuses to leave any of it there."""
    torch.manual_seed(0)
    sizes = {
        "sample_size": 16, "num_attention_heads": 2, "attention_head_dim": 8, "in_channels": 4,
        "patch_size": 2, "hidden_size": 16, "cross_attention_dim": 16,
        "cross_attention_dim_t5": 16, "pooled_projection_dim": 8, "text_len": 4, "text_len_t5": 4,
    }  # fmt: skip
    pipe = HunyuanDiTControlNetPipeline(
        vae=_vae(4), text_encoder=None, tokenizer=None, text_encoder_2=None, tokenizer_2=None,
        transformer=HunyuanDiT2DModel(num_layers=4, **sizes),
        controlnet=HunyuanDiT2DControlNetModel(transformer_num_layers=4, **sizes),
        scheduler=DDIMScheduler(), safety_checker=None, feature_extractor=None,
        requires_safety_checker=False,
    )  # fmt: skip
    call = {"control_image": _picture(), "use_resolution_binning": False}
    for n, name in enumerate(("prompt", "negative_prompt")):
        for end in ("", "_2"):
            call[f"{name}_embeds{end}"] = drawn(1, 4, 16, seed=n)
            call[f"{name}_attention_mask{end}"] = torch.ones(1, 4, dtype=torch.long)
    with SpectralCache(_ready(pipe), schedule=[0, 2], target="feature") as cache:
        assert torch.isfinite(sample(pipe, call)).all()
    assert cache.report.computed_steps == [0, 2]


def test_sana_sprints_scheduler_adds_noise():
    assert adds_noise("SCMScheduler")
    assert is_stochastic(SCMScheduler())
