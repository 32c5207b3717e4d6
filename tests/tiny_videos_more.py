"""Further tiny random-weight video pipelines of the real classes; `tiny_videos` has their parts."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import (
    ChronoEditPipeline,
    ChronoEditTransformer3DModel,
    FlowMatchEulerDiscreteScheduler,
    HeliosPipeline,
    HeliosPyramidPipeline,
    HeliosScheduler,
    HeliosTransformer3DModel,
    HunyuanVideo15ImageToVideoPipeline,
    HunyuanVideo15Transformer3DModel,
    HunyuanVideoFramepackPipeline,
    HunyuanVideoFramepackTransformer3DModel,
    Kandinsky5I2VPipeline,
    Kandinsky5Transformer3DModel,
    LTX2ImageToVideoPipeline,
    LTXConditionPipeline,
    LTXEulerAncestralRFScheduler,
    LTXI2VLongMultiPromptPipeline,
    SanaVideoPipeline,
    SanaVideoTransformer3DModel,
    SkyReelsV2DiffusionForcingPipeline,
    SkyReelsV2ImageToVideoPipeline,
    SkyReelsV2Transformer3DModel,
    WanAnimatePipeline,
    WanAnimateTransformer3DModel,
    WanVACEPipeline,
    WanVACETransformer3DModel,
)
from tiny import _ready, _t5_tokenizer
from tiny_videos import (
    CFG,
    CLIP,
    PHOTO,
    SHORT,
    Case,
    _gemma_tokenizer,
    _ltx_parts,
    _umt5,
    _unipc,
    _wan_vae,
    tiny_hunyuan_video,
    tiny_hunyuan_video15,
    tiny_kandinsky5,
    tiny_ltx2,
    tiny_skyreels_v2,
    tiny_wan_i2v,
)
from transformers import Gemma2Config, Gemma2Model, SiglipVisionConfig, SiglipVisionModel
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

WAN = {
    "num_attention_heads": 2, "attention_head_dim": 12, "text_dim": 16, "freq_dim": 16,
    "ffn_dim": 16, "num_layers": 2,
}  # fmt: skip


def _parts(pipe: Any, **others: Any) -> dict[str, Any]:
    """Those of another tiny pipeline, some of them replaced."""
    return {name: part for name, part in pipe.components.items() if part is not None} | others


def _wan_parts(transformer: Any, scheduler: Any = None) -> dict[str, Any]:
    t5 = _t5_tokenizer()
    return {
        "scheduler": scheduler or _unipc(3.0), "vae": _wan_vae(), "text_encoder": _umt5(t5),
        "tokenizer": t5, "transformer": transformer,
    }  # fmt: skip


def _siglip() -> dict[str, Any]:
    return {
        "image_encoder": SiglipVisionModel(SiglipVisionConfig(
            hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
            image_size=8, patch_size=4,
        )),
        "feature_extractor": SiglipImageProcessorPil(size={"height": 8, "width": 8}),
    }  # fmt: skip


def tiny_wan_vace() -> WanVACEPipeline:
    """Every other block has one beside it that sees the conditions."""
    torch.manual_seed(0)
    transformer = WanVACETransformer3DModel(
        **WAN, rope_max_seq_len=32, vace_layers=[0], vace_in_channels=96
    )
    return _ready(WanVACEPipeline(**_wan_parts(transformer)))


def tiny_wan_animate() -> WanAnimatePipeline:
    """Films longer than a segment are sampled in several runs."""
    torch.manual_seed(0)
    transformer = WanAnimateTransformer3DModel(
        **WAN, rope_max_seq_len=32, image_dim=16, motion_encoder_channel_sizes={"4": 8, "8": 8},
        motion_encoder_size=8, motion_style_dim=8, motion_dim=4, motion_encoder_dim=8,
        face_encoder_hidden_dim=16, face_encoder_num_heads=2, inject_face_latents_blocks=2,
    )  # fmt: skip
    return _ready(WanAnimatePipeline(**_parts(tiny_wan_i2v(), transformer=transformer)))


def tiny_chronoedit() -> ChronoEditPipeline:
    """Reasons in all frames first, and goes on with two of them."""
    torch.manual_seed(0)
    transformer = ChronoEditTransformer3DModel(
        **WAN, rope_max_seq_len=32, image_dim=16, in_channels=36, added_kv_proj_dim=24
    )
    return _ready(ChronoEditPipeline(**_parts(tiny_wan_i2v(), transformer=transformer)))


def tiny_skyreels_v2_forcing() -> SkyReelsV2DiffusionForcingPipeline:
    """A scheduler for each frame; long films in several runs."""
    return _ready(SkyReelsV2DiffusionForcingPipeline(**_parts(tiny_skyreels_v2())))


def tiny_skyreels_v2_i2v() -> SkyReelsV2ImageToVideoPipeline:
    torch.manual_seed(0)
    transformer = SkyReelsV2Transformer3DModel(
        **WAN, rope_max_seq_len=32, in_channels=36, image_dim=16, added_kv_proj_dim=24
    )
    parts = _parts(tiny_wan_i2v(), transformer=transformer, scheduler=_unipc(5.0))
    return _ready(SkyReelsV2ImageToVideoPipeline(**parts))


def tiny_helios() -> HeliosPipeline:
    """A run for each chunk, which sees the ones before."""
    torch.manual_seed(0)
    scheduler = HeliosScheduler(stages=1, stage_range=[0, 1], use_dynamic_shifting=True)
    transformer = HeliosTransformer3DModel(**WAN, rope_dim=(4, 4, 4))
    return _ready(HeliosPipeline(**_wan_parts(transformer, scheduler)))


def tiny_helios_pyramid() -> HeliosPyramidPipeline:
    """A run for each size of each chunk."""
    torch.manual_seed(0)
    scheduler = HeliosScheduler(stages=2, stage_range=[0, 0.5, 1], gamma=0.33)
    transformer = HeliosTransformer3DModel(**WAN, rope_dim=(4, 4, 4))
    return _ready(HeliosPyramidPipeline(**_wan_parts(transformer, scheduler)))


def tiny_ltx_condition() -> LTXConditionPipeline:
    """Each token has a noise level of its own."""
    torch.manual_seed(0)
    parts = _ltx_parts() | {"scheduler": FlowMatchEulerDiscreteScheduler()}
    return _ready(LTXConditionPipeline(**parts))


def tiny_ltx_long() -> LTXI2VLongMultiPromptPipeline:
    """A run for each window of frames."""
    torch.manual_seed(0)
    parts = _ltx_parts() | {"scheduler": LTXEulerAncestralRFScheduler()}
    return _ready(LTXI2VLongMultiPromptPipeline(**parts))


def tiny_ltx2_i2v() -> LTX2ImageToVideoPipeline:
    return _ready(LTX2ImageToVideoPipeline(**_parts(tiny_ltx2())))


def tiny_framepack() -> HunyuanVideoFramepackPipeline:
    """A run for each section, the last one first."""
    other = tiny_hunyuan_video()
    transformer = HunyuanVideoFramepackTransformer3DModel(
        in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=8, num_layers=2,
        num_single_layers=2, num_refiner_layers=2, text_embed_dim=16, pooled_projection_dim=16,
        rope_axes_dim=(2, 2, 4), has_image_proj=True, image_proj_dim=16, has_clean_x_embedder=True,
    )  # fmt: skip
    parts = _parts(
        other, transformer=transformer, **_siglip(),
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
    )  # fmt: skip
    return _ready(HunyuanVideoFramepackPipeline(**parts))


def tiny_hunyuan_video15_i2v() -> HunyuanVideo15ImageToVideoPipeline:
    other = tiny_hunyuan_video15()
    transformer = HunyuanVideo15Transformer3DModel(
        in_channels=9, out_channels=4, num_attention_heads=1, attention_head_dim=8, num_layers=2,
        num_refiner_layers=2, mlp_ratio=2.0, text_embed_dim=16, text_embed_2_dim=16,
        image_embed_dim=16, rope_axes_dim=(2, 2, 4), target_size=16, task_type="i2v",
    )  # fmt: skip
    parts = _parts(other, transformer=transformer, **_siglip())
    pipe = HunyuanVideo15ImageToVideoPipeline(**parts)
    pipe.tokenizer_max_length, pipe.tokenizer_2_max_length = 64, 8  # as in the other
    pipe.vision_num_semantic_tokens = 4
    return _ready(pipe)


def tiny_kandinsky5_i2v() -> Kandinsky5I2VPipeline:
    other = tiny_kandinsky5()
    transformer = Kandinsky5Transformer3DModel(
        in_visual_dim=4, out_visual_dim=4, in_text_dim=16, in_text_dim2=16, time_dim=16,
        model_dim=16, ff_dim=16, num_text_blocks=2, num_visual_blocks=2, axes_dims=(2, 2, 4),
        visual_cond=True,
    )  # fmt: skip
    for weight in transformer.parameters():
        if not weight.any():
            torch.nn.init.normal_(weight, std=0.2)
    return _ready(Kandinsky5I2VPipeline(**_parts(other, transformer=transformer)))


def tiny_sana_video() -> SanaVideoPipeline:
    torch.manual_seed(0)
    gemma = _gemma_tokenizer()
    pipe = SanaVideoPipeline(
        scheduler=_unipc(8.0), vae=_wan_vae(), tokenizer=gemma,
        text_encoder=Gemma2Model(Gemma2Config(
            vocab_size=len(gemma), hidden_size=16, intermediate_size=16, num_hidden_layers=1,
            num_attention_heads=2, num_key_value_heads=2, head_dim=8, pad_token_id=0,
            eos_token_id=1, bos_token_id=2,
        )),
        transformer=SanaVideoTransformer3DModel(
            num_attention_heads=2, attention_head_dim=12, num_layers=2,
            num_cross_attention_heads=2, cross_attention_head_dim=12, cross_attention_dim=24,
            caption_channels=16, sample_size=4, rope_max_seq_len=32,
        ),
    )  # fmt: skip
    return _ready(pipe)


FILM = [PHOTO.rotate(20 * k) for k in range(9)]
WHOLE = {key: value for key, value in SHORT.items() if key != "num_frames"}
LTX2 = {"stg_scale": 0, "audio_stg_scale": 0, "modality_scale": 1, "audio_modality_scale": 1}
FORCED = SHORT | {"num_frames": 17, "base_num_frames": 9, "overlap_history": 5}
HELIOS = SHORT | {"num_frames": 9, "num_latent_frames_per_chunk": 2, "history_sizes": [4, 2, 1]}

CASES: dict[str, Case] = {
    "wan-vace": Case(tiny_wan_vace, SHORT, ""),
    "wan-animate": Case(
        tiny_wan_animate,
        WHOLE
        | {
            "image": PHOTO,
            "pose_video": FILM,
            "face_video": [picture.resize((8, 8)) for picture in FILM],
            "segment_frame_length": 5,
        },
        "",
    ),
    "chronoedit": Case(
        tiny_chronoedit,
        SHORT
        | {
            "image": PHOTO,
            "num_frames": 13,
            "enable_temporal_reasoning": True,
            "num_temporal_reasoning_steps": 3,
        },
        "",
    ),
    "skyreels-v2-forcing": Case(tiny_skyreels_v2_forcing, FORCED, ""),
    "skyreels-v2-i2v": Case(tiny_skyreels_v2_i2v, SHORT | {"image": PHOTO}, "skyreels-v2-i2v"),
    "helios": Case(tiny_helios, HELIOS, "helios"),
    "ltx-condition": Case(tiny_ltx_condition, SHORT | {"num_frames": 9, "image": PHOTO}, ""),
    "ltx-2-i2v": Case(tiny_ltx2_i2v, SHORT | LTX2 | {"image": PHOTO, "image_crf": 0}, ""),
    "framepack": Case(
        tiny_framepack,
        CLIP
        | {
            "image": PHOTO,
            "num_frames": 9,
            "latent_window_size": 2,
            "max_sequence_length": 64,
        },
        "",
    ),
    "hunyuanvideo-1.5-i2v": Case(
        tiny_hunyuan_video15_i2v,
        {"prompt": "a cat", "negative_prompt": "blur", "image": PHOTO, "num_frames": 5},
        "hunyuanvideo-1.5-i2v",
    ),
    "kandinsky-5-i2v": Case(
        tiny_kandinsky5_i2v, CFG | {"image": PHOTO, "num_frames": 17}, "kandinsky-5-i2v-pro"
    ),
    "sana-video": Case(
        tiny_sana_video,
        WHOLE
        | {
            "frames": 5,
            "use_resolution_binning": False,
            "complex_human_instruction": None,
        },
        "sana-video",
    ),
}
