"""Tiny random-weight video pipelines of the real classes, built offline, one builder each."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import (
    AllegroPipeline,
    AllegroTransformer3DModel,
    AnimateDiffPipeline,
    AutoencoderKL,
    AutoencoderKLAllegro,
    AutoencoderKLCogVideoX,
    AutoencoderKLHunyuanVideo,
    AutoencoderKLHunyuanVideo15,
    AutoencoderKLLTX2Audio,
    AutoencoderKLLTX2Video,
    AutoencoderKLLTXVideo,
    AutoencoderKLMochi,
    AutoencoderKLTemporalDecoder,
    AutoencoderKLWan,
    ClassifierFreeGuidance,
    CogVideoXDPMScheduler,
    CogVideoXImageToVideoPipeline,
    CogVideoXPipeline,
    CogVideoXTransformer3DModel,
    DDIMScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    HunyuanVideo15Pipeline,
    HunyuanVideo15Transformer3DModel,
    HunyuanVideoPipeline,
    HunyuanVideoTransformer3DModel,
    Kandinsky5T2VPipeline,
    Kandinsky5Transformer3DModel,
    LTX2Pipeline,
    LTX2VideoTransformer3DModel,
    LTXImageToVideoPipeline,
    LTXPipeline,
    LTXVideoTransformer3DModel,
    MochiPipeline,
    MochiTransformer3DModel,
    MotionAdapter,
    SkyReelsV2Pipeline,
    SkyReelsV2Transformer3DModel,
    StableVideoDiffusionPipeline,
    UNet2DConditionModel,
    UNetSpatioTemporalConditionModel,
    UniPCMultistepScheduler,
    WanImageToVideoPipeline,
    WanPipeline,
    WanTransformer3DModel,
)
from diffusers.pipelines.hunyuan_video.pipeline_hunyuan_video import DEFAULT_PROMPT_TEMPLATE
from diffusers.pipelines.ltx2 import LTX2TextConnectors, LTX2Vocoder
from PIL import Image
from tiny import LETTERS, _clip_tokenizer, _ready, _t5_sizes, _t5_tokenizer
from transformers import (
    AddedToken,
    ByT5Tokenizer,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPVisionConfig,
    CLIPVisionModel,
    CLIPVisionModelWithProjection,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    GemmaTokenizer,
    LlamaConfig,
    LlamaModel,
    LlamaTokenizer,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLTextConfig,
    Qwen2_5_VLTextModel,
    Qwen2Tokenizer,
    T5Config,
    T5EncoderModel,
    UMT5Config,
    UMT5EncoderModel,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

QWEN_CHAT = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def _clip_text(tokenizer: Any, width: int = 16) -> CLIPTextModel:
    return CLIPTextModel(CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=width, intermediate_size=16, num_hidden_layers=1,
        num_attention_heads=2, bos_token_id=0, eos_token_id=1, pad_token_id=1,
    ))  # fmt: skip


def _t5(tokenizer: Any) -> T5EncoderModel:
    return T5EncoderModel(T5Config(**_t5_sizes(tokenizer)))


def _umt5(tokenizer: Any) -> UMT5EncoderModel:
    return UMT5EncoderModel(UMT5Config(**_t5_sizes(tokenizer)))


def _byte_vocab(*special: str) -> dict[str, int]:
    """The 256 byte symbols of a byte-level BPE without merges, then the special tokens."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    other = [256 + i for i in range(256 - len(plain))]
    return {token: i for i, token in enumerate([*map(chr, plain + other), *special])}


def _qwen_tokenizer() -> Qwen2Tokenizer:
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|image_pad|>", "<|video_pad|>"]
    tokenizer = Qwen2Tokenizer(
        vocab=_byte_vocab(*special), merges=[], model_max_length=2048,
        extra_special_tokens=special[1:],
    )  # fmt: skip
    tokenizer.chat_template = QWEN_CHAT
    return tokenizer


def _llama_tokenizer() -> LlamaTokenizer:
    pieces = ["<unk>", "<s>", "</s>", "<pad>", "▁", *LETTERS]
    tokenizer = LlamaTokenizer(
        vocab={piece: i for i, piece in enumerate(pieces)}, merges=[], pad_token="<pad>",
        padding_side="right",
    )  # fmt: skip
    _add_words(tokenizer, DEFAULT_PROMPT_TEMPLATE["template"])
    return tokenizer


def _add_words(tokenizer: Any, template: str) -> None:
    """One token a word of the pipeline's own template, or no token of a prompt would be kept."""
    words = sorted(set(re.findall("[A-Za-z]{3,}", template)))
    tokenizer.add_tokens([AddedToken(w, single_word=True, lstrip=True) for w in words])


def _qwen_sizes() -> dict[str, Any]:
    return {
        "vocab_size": 512, "hidden_size": 16, "intermediate_size": 16,
        "num_hidden_layers": 3, "num_attention_heads": 2, "num_key_value_heads": 2,
        "bos_token_id": 256, "eos_token_id": 256, "pad_token_id": 256,
        "rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2]},
    }  # fmt: skip


def _gemma_tokenizer() -> GemmaTokenizer:
    pieces = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<image>", "▁", *LETTERS]
    return GemmaTokenizer(
        vocab={piece: i for i, piece in enumerate(pieces)}, merges=[], model_max_length=16
    )


def _ltx_scheduler() -> FlowMatchEulerDiscreteScheduler:
    return FlowMatchEulerDiscreteScheduler(
        use_dynamic_shifting=True, base_image_seq_len=1024, base_shift=0.95, max_shift=2.05,
        shift_terminal=0.1,
    )  # fmt: skip


def _unipc(shift: float) -> UniPCMultistepScheduler:
    return UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift
    )


def _hunyuan_vae() -> AutoencoderKLHunyuanVideo:
    return AutoencoderKLHunyuanVideo(
        latent_channels=4, block_out_channels=(8, 8, 8, 8), layers_per_block=1, norm_num_groups=2,
    )  # fmt: skip


def _wan_vae(**options: Any) -> AutoencoderKLWan:
    return AutoencoderKLWan(
        base_dim=4, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1, **options
    )


def _wan_transformer(in_channels: int = 16, **options: Any) -> WanTransformer3DModel:
    return WanTransformer3DModel(
        num_attention_heads=2, attention_head_dim=12, in_channels=in_channels, out_channels=16,
        text_dim=16, freq_dim=16, ffn_dim=16, num_layers=2, rope_max_seq_len=32, **options,
    )  # fmt: skip


def _ltx_parts() -> dict[str, Any]:
    t5 = _t5_tokenizer()
    four, five = (8,) * 4, (1,) * 5
    return {
        "scheduler": _ltx_scheduler(),
        "vae": AutoencoderKLLTXVideo(
            latent_channels=8, block_out_channels=four, decoder_block_out_channels=four,
            layers_per_block=five, decoder_layers_per_block=five, patch_size=2,
            spatio_temporal_scaling=(True, True, False, False),
            decoder_spatio_temporal_scaling=(True, True, False, False),
        ),
        "text_encoder": _t5(t5),
        "tokenizer": t5,
        "transformer": LTXVideoTransformer3DModel(
            in_channels=8, out_channels=8, num_attention_heads=2, attention_head_dim=8,
            cross_attention_dim=16, num_layers=2, caption_channels=16,
        ),
    }  # fmt: skip


def tiny_hunyuan_video() -> HunyuanVideoPipeline:
    torch.manual_seed(0)
    llama, clip = _llama_tokenizer(), _clip_tokenizer()
    pipe = HunyuanVideoPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=7.0),
        vae=_hunyuan_vae(),
        text_encoder=LlamaModel(LlamaConfig(
            vocab_size=len(llama), hidden_size=16, intermediate_size=16, num_hidden_layers=3,
            num_attention_heads=2, bos_token_id=1, eos_token_id=2, pad_token_id=3,
        )),
        tokenizer=llama,
        text_encoder_2=_clip_text(clip),
        tokenizer_2=clip,
        transformer=HunyuanVideoTransformer3DModel(
            in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=8,
            num_layers=2, num_single_layers=2, num_refiner_layers=2, text_embed_dim=16,
            pooled_projection_dim=16, rope_axes_dim=(2, 2, 4),
        ),
    )  # fmt: skip
    return _ready(pipe)


def tiny_hunyuan_video15() -> HunyuanVideo15Pipeline:
    torch.manual_seed(0)
    qwen, byt5 = _qwen_tokenizer(), ByT5Tokenizer()
    pipe = HunyuanVideo15Pipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=5.0),
        vae=AutoencoderKLHunyuanVideo15(
            latent_channels=4, block_out_channels=(16, 16), layers_per_block=1,
            spatial_compression_ratio=4, temporal_compression_ratio=2,
            downsample_match_channel=False, upsample_match_channel=False,
        ),
        text_encoder=Qwen2_5_VLTextModel(Qwen2_5_VLTextConfig(**_qwen_sizes())),
        tokenizer=qwen,
        text_encoder_2=T5EncoderModel(T5Config(**_t5_sizes(byt5))),
        tokenizer_2=byt5,
        transformer=HunyuanVideo15Transformer3DModel(
            in_channels=9, out_channels=4, num_attention_heads=1, attention_head_dim=8,
            num_layers=2, num_refiner_layers=2, mlp_ratio=2.0, text_embed_dim=16,
            text_embed_2_dim=16, image_embed_dim=8, rope_axes_dim=(2, 2, 4), target_size=32,
            task_type="t2v",
        ),
        guider=ClassifierFreeGuidance(guidance_scale=6.0),
    )  # fmt: skip
    _add_words(qwen, pipe.system_message)
    # Padding, all of it masked: the results are those of the full lengths, several times sooner.
    pipe.tokenizer_max_length, pipe.tokenizer_2_max_length = 64, 8
    pipe.vision_num_semantic_tokens = 4
    return _ready(pipe)


def tiny_wan22() -> WanPipeline:
    """Wan 2.2 A14B: two experts, the second below 87.5 % of the noise."""
    torch.manual_seed(0)
    t5 = _t5_tokenizer()
    pipe = WanPipeline(
        scheduler=_unipc(3.0), vae=_wan_vae(), text_encoder=_umt5(t5), tokenizer=t5,
        transformer=_wan_transformer(), transformer_2=_wan_transformer(), boundary_ratio=0.875,
    )  # fmt: skip
    return _ready(pipe)


def tiny_wan_i2v() -> WanImageToVideoPipeline:
    """Wan 2.1: the image goes through a CLIP vision model besides the VAE."""
    torch.manual_seed(0)
    t5 = _t5_tokenizer()
    pipe = WanImageToVideoPipeline(
        scheduler=_unipc(3.0), vae=_wan_vae(), text_encoder=_umt5(t5), tokenizer=t5,
        image_processor=CLIPImageProcessorPil(
            size={"shortest_edge": 8}, crop_size={"height": 8, "width": 8}
        ),
        image_encoder=CLIPVisionModel(CLIPVisionConfig(
            hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
            image_size=8, patch_size=4,
        )),
        transformer=_wan_transformer(36, image_dim=16, added_kv_proj_dim=24),
    )  # fmt: skip
    return _ready(pipe)


def tiny_wan22_i2v() -> WanImageToVideoPipeline:
    """Wan 2.2 A14B: two experts, no image encoder."""
    torch.manual_seed(0)
    t5 = _t5_tokenizer()
    pipe = WanImageToVideoPipeline(
        scheduler=_unipc(3.0), vae=_wan_vae(), text_encoder=_umt5(t5), tokenizer=t5,
        transformer=_wan_transformer(36), transformer_2=_wan_transformer(36), boundary_ratio=0.9,
    )  # fmt: skip
    return _ready(pipe)


def tiny_wan22_ti2v() -> WanPipeline:
    """Wan 2.2 TI2V 5B: the residual VAE, and a timestep for each token."""
    torch.manual_seed(0)
    t5 = _t5_tokenizer()
    pipe = WanPipeline(
        scheduler=_unipc(5.0), text_encoder=_umt5(t5), tokenizer=t5,
        vae=_wan_vae(
            is_residual=True, patch_size=2, in_channels=12, out_channels=12,
            scale_factor_spatial=16,
        ),
        transformer=_wan_transformer(), expand_timesteps=True,
    )  # fmt: skip
    return _ready(pipe)


def tiny_ltx() -> LTXPipeline:
    torch.manual_seed(0)
    return _ready(LTXPipeline(**_ltx_parts()))


def tiny_ltx_i2v() -> LTXImageToVideoPipeline:
    torch.manual_seed(0)
    return _ready(LTXImageToVideoPipeline(**_ltx_parts()))


def tiny_ltx2() -> LTX2Pipeline:
    """Video and audio from one transformer, which returns a pair."""
    torch.manual_seed(0)
    gemma = _gemma_tokenizer()
    pipe = LTX2Pipeline(
        scheduler=_ltx_scheduler(),
        vae=AutoencoderKLLTX2Video(
            latent_channels=8, block_out_channels=(8, 8, 8), decoder_block_out_channels=(8, 8),
            down_block_types=("LTX2VideoDownBlock3D",) * 3, layers_per_block=(1, 1, 1, 1),
            decoder_layers_per_block=(1, 1, 1), spatio_temporal_scaling=(True, True, False),
            decoder_spatio_temporal_scaling=(True, True), decoder_inject_noise=(False,) * 3,
            downsample_type=("spatiotemporal",) * 3, upsample_type=("spatiotemporal",) * 2,
            upsample_residual=(False, False), upsample_factor=(1, 1), patch_size=2,
        ),
        audio_vae=AutoencoderKLLTX2Audio(
            base_channels=4, ch_mult=(1, 1, 1), num_res_blocks=1, resolution=32,
            latent_channels=2, mel_bins=8,
        ),
        text_encoder=Gemma3ForConditionalGeneration(Gemma3Config(
            text_config={
                "vocab_size": len(gemma), "hidden_size": 16, "intermediate_size": 16,
                "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2,
                "head_dim": 8, "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2,
            },
            vision_config={
                "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1,
                "num_attention_heads": 2, "image_size": 8, "patch_size": 4,
            },
            mm_tokens_per_image=4, image_token_index=5, boi_token_index=5, eoi_token_index=5,
            eos_token_id=1,
        )),
        tokenizer=gemma,
        connectors=LTX2TextConnectors(
            caption_channels=16, text_proj_in_factor=3,  # the embeddings and both layers
            video_connector_num_attention_heads=2, video_connector_attention_head_dim=8,
            video_connector_num_learnable_registers=8, audio_connector_num_attention_heads=2,
            audio_connector_attention_head_dim=8, audio_connector_num_learnable_registers=8,
            connector_rope_base_seq_len=32, rope_type="split",
        ),
        transformer=LTX2VideoTransformer3DModel(
            in_channels=8, out_channels=8, num_attention_heads=2, attention_head_dim=8,
            cross_attention_dim=16, vae_scale_factors=(4, 8, 8), audio_in_channels=4,
            audio_out_channels=4, audio_num_attention_heads=2, audio_attention_head_dim=4,
            audio_cross_attention_dim=8, num_layers=2, caption_channels=16, rope_type="split",
            perturbed_attn=True,
        ),
        vocoder=LTX2Vocoder(
            in_channels=16, hidden_channels=16, upsample_kernel_sizes=[4, 4],
            upsample_factors=[2, 2], resnet_kernel_sizes=[3], resnet_dilations=[[1, 3, 5]],
            output_sampling_rate=16000,
        ),
    )  # fmt: skip
    return _ready(pipe)


def _cogvideox_parts(**options: Any) -> dict[str, Any]:
    t5 = _t5_tokenizer()
    return {
        "scheduler": CogVideoXDPMScheduler(
            beta_schedule="scaled_linear", prediction_type="v_prediction", snr_shift_scale=1.0,
            timestep_spacing="trailing", rescale_betas_zero_snr=True,
        ),
        "vae": AutoencoderKLCogVideoX(
            block_out_channels=(8, 8, 8, 8), latent_channels=4, layers_per_block=1,
            norm_num_groups=2, sample_height=32, sample_width=32, scaling_factor=0.7,
        ),
        "text_encoder": _t5(t5),
        "tokenizer": t5,
        "transformer": CogVideoXTransformer3DModel(
            num_attention_heads=2, attention_head_dim=16, out_channels=4, time_embed_dim=16,
            text_embed_dim=16, num_layers=2, sample_width=4, sample_height=4, sample_frames=9,
            max_text_seq_length=16, use_rotary_positional_embeddings=True, **options,
        ),
    }  # fmt: skip


def tiny_cogvideox() -> CogVideoXPipeline:
    torch.manual_seed(0)
    return _ready(CogVideoXPipeline(**_cogvideox_parts(in_channels=4)))


def tiny_cogvideox_i2v() -> CogVideoXImageToVideoPipeline:
    torch.manual_seed(0)
    parts = _cogvideox_parts(in_channels=8, use_learned_positional_embeddings=True)
    return _ready(CogVideoXImageToVideoPipeline(**parts))


def tiny_mochi() -> MochiPipeline:
    torch.manual_seed(0)
    t5 = _t5_tokenizer()
    pipe = MochiPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(invert_sigmas=True),
        vae=AutoencoderKLMochi(
            encoder_block_out_channels=(32, 32, 32, 32), layers_per_block=(1, 1, 1, 1, 1),
            decoder_block_out_channels=(32, 32, 32, 32),
        ),
        text_encoder=_t5(t5),
        tokenizer=t5,
        transformer=MochiTransformer3DModel(
            num_attention_heads=2, attention_head_dim=8, num_layers=2, pooled_projection_dim=16,
            text_embed_dim=16, time_embed_dim=16, max_sequence_length=16,
        ),
    )  # fmt: skip
    torch.nn.init.normal_(pipe.transformer.pos_frequencies)  # zeros: no positions at all
    return _ready(pipe)


def tiny_kandinsky5() -> Kandinsky5T2VPipeline:
    """With a Qwen tokenizer in place of the Qwen2VLProcessor, which takes torchvision to build."""
    torch.manual_seed(0)
    qwen, clip = _qwen_tokenizer(), _clip_tokenizer()
    pipe = Kandinsky5T2VPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=10.0),
        vae=_hunyuan_vae(),
        text_encoder=Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(
            text_config=_qwen_sizes(),
            vision_config={
                "depth": 2, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2,
                "out_hidden_size": 16, "fullatt_block_indexes": [1],
            },
            image_token_id=259, video_token_id=260, vision_start_token_id=257,
            vision_end_token_id=258,
        )),
        tokenizer=qwen,
        text_encoder_2=_clip_text(clip),
        tokenizer_2=clip,
        transformer=Kandinsky5Transformer3DModel(
            in_visual_dim=4, out_visual_dim=4, in_text_dim=16, in_text_dim2=16, time_dim=16,
            model_dim=16, ff_dim=16, num_text_blocks=2, num_visual_blocks=2, axes_dims=(2, 2, 4),
        ),
    )  # fmt: skip
    _add_words(qwen, pipe.prompt_template)
    for weight in pipe.transformer.parameters():
        if not weight.any():  # the modulation starts at zero, and then no text gets through
            torch.nn.init.normal_(weight, std=0.2)
    return _ready(pipe)


def tiny_skyreels_v2() -> SkyReelsV2Pipeline:
    torch.manual_seed(0)
    t5 = _t5_tokenizer()
    pipe = SkyReelsV2Pipeline(
        scheduler=_unipc(8.0), vae=_wan_vae(), text_encoder=_umt5(t5), tokenizer=t5,
        transformer=SkyReelsV2Transformer3DModel(
            num_attention_heads=2, attention_head_dim=12, text_dim=16, freq_dim=16, ffn_dim=16,
            num_layers=2, rope_max_seq_len=32,
        ),
    )  # fmt: skip
    return _ready(pipe)


def tiny_allegro() -> AllegroPipeline:
    torch.manual_seed(0)
    t5 = _t5_tokenizer()
    pipe = AllegroPipeline(
        scheduler=EulerAncestralDiscreteScheduler(beta_schedule="scaled_linear"),
        vae=AutoencoderKLAllegro(
            block_out_channels=(8, 8, 8, 8), layers_per_block=1, norm_num_groups=2, sample_size=32
        ),
        text_encoder=_t5(t5),
        tokenizer=t5,
        transformer=AllegroTransformer3DModel(
            num_attention_heads=2, attention_head_dim=12, num_layers=2, cross_attention_dim=24,
            sample_width=4, sample_height=4, sample_frames=6, caption_channels=16,
        ),
    )  # fmt: skip
    pipe.vae.enable_tiling()  # the only decoding that the class has; `from_pretrained` turns it off
    return _ready(pipe)


def tiny_animatediff() -> AnimateDiffPipeline:
    """A U-Net of images (Stable Diffusion 1.5) with a motion adapter."""
    torch.manual_seed(0)
    clip = _clip_tokenizer()
    pipe = AnimateDiffPipeline(
        scheduler=DDIMScheduler(beta_schedule="linear", steps_offset=1, clip_sample=False),
        vae=AutoencoderKL(
            block_out_channels=(8, 8), norm_num_groups=2, sample_size=16,
            down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
        ),
        text_encoder=_clip_text(clip),
        tokenizer=clip,
        unet=UNet2DConditionModel(
            sample_size=8, block_out_channels=(8, 8), layers_per_block=2, norm_num_groups=2,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), cross_attention_dim=16,
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"), attention_head_dim=2,
        ),
        motion_adapter=MotionAdapter(
            block_out_channels=(8, 8), motion_norm_num_groups=2, motion_num_attention_heads=2,
        ),
    )  # fmt: skip
    return _ready(pipe)


def tiny_svd() -> StableVideoDiffusionPipeline:
    """Stable Video Diffusion: no prompt, a guidance that grows over the frames."""
    torch.manual_seed(0)
    pipe = StableVideoDiffusionPipeline(
        scheduler=EulerDiscreteScheduler(
            beta_schedule="scaled_linear", prediction_type="v_prediction", use_karras_sigmas=True,
            sigma_min=0.002, sigma_max=700.0, timestep_type="continuous", steps_offset=1,
        ),
        vae=AutoencoderKLTemporalDecoder(
            block_out_channels=(32, 32), down_block_types=("DownEncoderBlock2D",) * 2,
        ),
        image_encoder=CLIPVisionModelWithProjection(CLIPVisionConfig(
            hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
            image_size=224, patch_size=112, projection_dim=16,
        )),
        feature_extractor=CLIPImageProcessorPil(),
        unet=UNetSpatioTemporalConditionModel(
            sample_size=8, block_out_channels=(32, 32), num_attention_heads=2, num_frames=5,
            down_block_types=("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
            up_block_types=("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"),
            cross_attention_dim=16, addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=24,
        ),
    )  # fmt: skip
    return _ready(pipe)


@dataclass(frozen=True)
class Case:
    build: Callable[[], Any]
    call: dict[str, Any]  # for one tiny run, but for steps, generator and output type
    preset: str


PHOTO = Image.radial_gradient("L").resize((32, 32)).convert("RGB")
CLIP = {"prompt": "a cat", "height": 32, "width": 32, "num_frames": 5}
CFG = CLIP | {"negative_prompt": "blur", "guidance_scale": 4.0}
SHORT = CFG | {"max_sequence_length": 16}
DISTILLED = CLIP | {"guidance_scale": 6.0, "max_sequence_length": 64}  # guidance as an input

CASES: dict[str, Case] = {
    "hunyuanvideo": Case(tiny_hunyuan_video, DISTILLED, "hunyuanvideo"),
    "hunyuanvideo-cfg": Case(
        tiny_hunyuan_video,
        DISTILLED | {"negative_prompt": "blur", "true_cfg_scale": 4.0},
        "hunyuanvideo",
    ),
    "hunyuanvideo-1.5": Case(
        tiny_hunyuan_video15, CLIP | {"negative_prompt": "blur"}, "hunyuanvideo-1.5"
    ),  # its guidance is the guider's
    "wan2.2-t2v-a14b": Case(tiny_wan22, SHORT | {"guidance_scale_2": 3.0}, "wan2.2-t2v-a14b"),
    "wan2.1-i2v-14b-480p": Case(tiny_wan_i2v, SHORT | {"image": PHOTO}, "wan2.1-i2v-14b-480p"),
    "wan2.2-i2v-a14b": Case(
        tiny_wan22_i2v, SHORT | {"image": PHOTO, "guidance_scale_2": 3.0}, "wan2.2-i2v-a14b"
    ),
    "wan2.2-ti2v-5b": Case(tiny_wan22_ti2v, SHORT, "wan2.2-ti2v-5b"),
    "ltx-video": Case(tiny_ltx, SHORT, "ltx-video"),
    "ltx-video-i2v": Case(tiny_ltx_i2v, SHORT | {"image": PHOTO}, ""),
    "ltx-2": Case(
        tiny_ltx2,
        SHORT
        | {"stg_scale": 0, "audio_stg_scale": 0, "modality_scale": 1, "audio_modality_scale": 1},
        "ltx-2",
    ),
    "ltx-2-stg": Case(tiny_ltx2, SHORT | {"spatio_temporal_guidance_blocks": [1]}, "ltx-2"),
    "cogvideox-5b": Case(tiny_cogvideox, SHORT | {"num_frames": 9}, "cogvideox-5b"),
    "cogvideox-i2v": Case(tiny_cogvideox_i2v, SHORT | {"num_frames": 9, "image": PHOTO}, ""),
    "mochi": Case(tiny_mochi, SHORT | {"num_frames": 7}, "mochi"),
    "kandinsky-5": Case(tiny_kandinsky5, CFG, "kandinsky-5"),
    "skyreels-v2": Case(tiny_skyreels_v2, SHORT, "skyreels-v2"),
    "allegro": Case(tiny_allegro, SHORT | {"num_frames": 24, "clean_caption": False}, ""),
    "animatediff": Case(
        tiny_animatediff,
        {
            "prompt": "a cat",
            "negative_prompt": "blur",
            "guidance_scale": 4.0,
            "height": 16,
            "width": 16,
            "num_frames": 5,
        },
        "",
    ),
    "svd": Case(
        tiny_svd,
        {
            "image": PHOTO,
            "height": 16,
            "width": 16,
            "num_frames": 5,
            "max_guidance_scale": 3.0,
            "decode_chunk_size": 5,
        },
        "",
    ),
}
