"""Tiny random-weight image pipelines of the real classes, built offline: see CASES at the end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import (
    AuraFlowPipeline,
    AuraFlowTransformer2DModel,
    AutoencoderDC,
    AutoencoderKL,
    AutoencoderKLFlux2,
    AutoencoderKLQwenImage,
    ChromaPipeline,
    ChromaTransformer2DModel,
    CogView4Pipeline,
    CogView4Transformer2DModel,
    ControlNetModel,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinPipeline,
    Flux2Pipeline,
    Flux2Transformer2DModel,
    FluxKontextPipeline,
    HiDreamImagePipeline,
    HiDreamImageTransformer2DModel,
    Lumina2Pipeline,
    Lumina2Transformer2DModel,
    PixArtSigmaPipeline,
    PixArtTransformer2DModel,
    PNDMScheduler,
    QwenImageEditPipeline,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
    SanaPipeline,
    SanaTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLControlNetPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
    UniPCMultistepScheduler,
    ZImagePipeline,
    ZImageTransformer2DModel,
)
from PIL import Image
from tiny import LETTERS, _clip_tokenizer, _ready, _t5_sizes, _t5_tokenizer, tiny_flux
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import ByteLevel, Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    Gemma2Config,
    Gemma2Model,
    GemmaTokenizer,
    GlmConfig,
    GlmModel,
    LlamaConfig,
    LlamaForCausalLM,
    Mistral3Config,
    Mistral3ForConditionalGeneration,
    PreTrainedTokenizerFast,
    ProcessorMixin,  # noqa: F401 - see _PictureProcessor
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Tokenizer,
    Qwen2VLProcessor,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3Model,
    T5Config,
    T5EncoderModel,
    UMT5Config,
    UMT5EncoderModel,
)
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

WORDS = ["a", "red", "blue", "blurry", "square", "circle"]
CHAT = (  # what the pipelines need of a template: text alone, or a list of texts
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.content is string %}{{ m.content }}{% else %}"
    "{% for part in m.content %}{{ part.text }}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


# --- tokenizers and text encoders ---------------------------------------------------------------


def _word_tokenizer(**kwargs: Any) -> PreTrainedTokenizerFast:
    """A token a word of WORDS, <unk> for each other: a long system prompt costs little."""
    special = ["<pad>", "<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"]
    vocab = {token: i for i, token in enumerate([*special, *WORDS])}
    inner = Tokenizer(WordLevel(vocab, unk_token="<unk>"))
    inner.pre_tokenizer = Whitespace()
    inner.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 2)])
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", unk_token="<unk>", bos_token="<s>",
        eos_token="</s>", extra_special_tokens=special[-2:], model_max_length=512, **kwargs,
    )  # fmt: skip


def _qwen_tokenizer() -> Qwen2Tokenizer:
    """A token a byte."""
    return Qwen2Tokenizer(
        vocab={char: i for i, char in enumerate(sorted(ByteLevel.alphabet()))},
        extra_special_tokens=[
            "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>",
            "<|video_pad|>",
        ],
        chat_template=CHAT, model_max_length=1024,
    )  # fmt: skip


def _gemma_tokenizer() -> GemmaTokenizer:
    tokens = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "▁", *LETTERS]
    return GemmaTokenizer(
        vocab={token: i for i, token in enumerate(tokens)},
        add_bos_token=True,
        model_max_length=2048,
    )


def _llm_sizes(tokenizer: Any, **kwargs: Any) -> dict[str, Any]:
    return {
        "vocab_size": len(tokenizer), "hidden_size": 16, "intermediate_size": 16, "head_dim": 8,
        "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1,
        "pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id,
        "bos_token_id": tokenizer.bos_token_id, "max_position_embeddings": 2048,
    } | kwargs  # fmt: skip


def _clip(tokenizer: Any, projection: bool = False, positions: int = 77) -> Any:
    config = CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=16, num_hidden_layers=2,
        num_attention_heads=2, projection_dim=16, max_position_embeddings=positions,
        bos_token_id=0, eos_token_id=1, pad_token_id=1,
    )  # fmt: skip
    return CLIPTextModelWithProjection(config) if projection else CLIPTextModel(config)


def _t5(tokenizer: Any, width: int = 16) -> T5EncoderModel:
    return T5EncoderModel(T5Config(**_t5_sizes(tokenizer) | {"d_model": width}))


def _gemma(tokenizer: Any) -> Gemma2Model:
    return Gemma2Model(Gemma2Config(**_llm_sizes(tokenizer), query_pre_attn_scalar=8))


# --- autoencoders, schedulers, pictures ---------------------------------------------------------


def _vae(blocks: int = 2, **kwargs: Any) -> AutoencoderKL:
    """Half the width and height for each block after the first; 4 latent channels."""
    return AutoencoderKL(
        block_out_channels=(8,) * blocks, latent_channels=4, norm_num_groups=2,
        down_block_types=("DownEncoderBlock2D",) * blocks,
        up_block_types=("UpDecoderBlock2D",) * blocks, **kwargs,
    )  # fmt: skip


def _flow_vae(blocks: int = 2) -> AutoencoderKL:
    return _vae(
        blocks, use_quant_conv=False, use_post_quant_conv=False, shift_factor=0.1,
        scaling_factor=0.4,
    )  # fmt: skip


def _picture() -> Image.Image:
    across = Image.linear_gradient("L").resize((32, 32))
    return Image.merge("RGB", (across, across.rotate(90), across.rotate(180)))


def _louder(model: torch.nn.Module, by: float = 2.0) -> Any:
    """Where fresh weights are so small that prompt and blocks hardly show in the output."""
    for weight in model.parameters():
        if weight.ndim > 1:
            weight.data.mul_(by)
    return model


# --- U-Nets -------------------------------------------------------------------------------------

SDXL_UNET = {
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"), "block_out_channels": (8, 16),
    "layers_per_block": 2, "norm_num_groups": 2, "cross_attention_dim": 32,
    "transformer_layers_per_block": (1, 2), "attention_head_dim": (2, 2),
    "use_linear_projection": True, "addition_embed_type": "text_time",
    "addition_time_embed_dim": 8, "projection_class_embeddings_input_dim": 6 * 8 + 16,
}  # fmt: skip


def tiny_sd15() -> StableDiffusionPipeline:
    torch.manual_seed(0)
    clip = _clip_tokenizer()
    pipe = StableDiffusionPipeline(
        vae=_vae(),
        text_encoder=_clip(clip),
        tokenizer=clip,
        unet=UNet2DConditionModel(
            sample_size=16, block_out_channels=(8, 16), layers_per_block=2, norm_num_groups=2,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), cross_attention_dim=16,
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"), attention_head_dim=2,
        ),
        scheduler=PNDMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear",
            skip_prk_steps=True, steps_offset=1,
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )  # fmt: skip
    return _ready(pipe)


def _sdxl_parts() -> dict[str, Any]:
    clip = _clip_tokenizer()
    return {
        "vae": _vae(),
        "text_encoder": _clip(clip),
        "text_encoder_2": _clip(clip, projection=True),
        "tokenizer": clip,
        "tokenizer_2": _clip_tokenizer(),
        "unet": UNet2DConditionModel(
            sample_size=16, up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), **SDXL_UNET
        ),
        "scheduler": EulerDiscreteScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear",
            timestep_spacing="leading", steps_offset=1,
        ),
    }  # fmt: skip


def tiny_sdxl() -> StableDiffusionXLPipeline:
    torch.manual_seed(0)
    return _ready(StableDiffusionXLPipeline(**_sdxl_parts()))


def tiny_sdxl_controlnet() -> StableDiffusionXLControlNetPipeline:
    torch.manual_seed(0)
    control = ControlNetModel(conditioning_embedding_out_channels=(8, 16), **SDXL_UNET)
    for weight in control.parameters():
        if not weight.any():  # as made, a ControlNet adds zero
            torch.nn.init.normal_(weight, std=0.1)
    return _ready(StableDiffusionXLControlNetPipeline(**_sdxl_parts(), controlnet=control))


# --- transformers with T5 or CLIP ---------------------------------------------------------------


def tiny_sd3() -> StableDiffusion3Pipeline:
    torch.manual_seed(0)
    clip, t5 = _clip_tokenizer(), _t5_tokenizer()
    pipe = StableDiffusion3Pipeline(
        transformer=SD3Transformer2DModel(
            sample_size=16, in_channels=4, out_channels=4, num_layers=3, attention_head_dim=8,
            num_attention_heads=2, joint_attention_dim=32, caption_projection_dim=16,
            pooled_projection_dim=32, pos_embed_max_size=16, qk_norm="rms_norm",
            dual_attention_layers=(0,),
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=_flow_vae(),
        text_encoder=_clip(clip, projection=True),
        tokenizer=clip,
        text_encoder_2=_clip(clip, projection=True),
        tokenizer_2=_clip_tokenizer(),
        text_encoder_3=_t5(t5, width=32),
        tokenizer_3=t5,
    )  # fmt: skip
    return _ready(pipe)


def tiny_flux_kontext() -> FluxKontextPipeline:
    parts = tiny_flux().components
    return _ready(FluxKontextPipeline(**parts))


def tiny_chroma() -> ChromaPipeline:
    torch.manual_seed(0)
    t5 = _t5_tokenizer()
    pipe = ChromaPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        vae=_flow_vae(),
        text_encoder=_t5(t5),
        tokenizer=t5,
        transformer=ChromaTransformer2DModel(
            in_channels=16, num_layers=2, num_single_layers=2, attention_head_dim=16,
            num_attention_heads=2, joint_attention_dim=16, axes_dims_rope=(4, 6, 6),
            approximator_num_channels=8, approximator_hidden_dim=32, approximator_layers=2,
        ),
    )  # fmt: skip
    return _ready(pipe)


def tiny_pixart_sigma() -> PixArtSigmaPipeline:
    torch.manual_seed(0)
    t5 = _t5_tokenizer()
    pipe = PixArtSigmaPipeline(
        tokenizer=t5,
        text_encoder=_t5(t5),
        vae=_vae(),
        transformer=PixArtTransformer2DModel(
            sample_size=16, num_layers=2, attention_head_dim=8, num_attention_heads=2,
            in_channels=4, out_channels=8, cross_attention_dim=16, caption_channels=16,
            use_additional_conditions=False,
        ),
        scheduler=DPMSolverMultistepScheduler(beta_end=0.01),  # at 0.02 random weights blow up
    )  # fmt: skip
    return _ready(pipe)


def tiny_auraflow() -> AuraFlowPipeline:
    torch.manual_seed(0)
    t5 = _t5_tokenizer()
    pipe = AuraFlowPipeline(
        tokenizer=t5,
        text_encoder=UMT5EncoderModel(UMT5Config(**_t5_sizes(t5))),
        vae=_vae(),
        transformer=_louder(AuraFlowTransformer2DModel(
            sample_size=16, in_channels=4, out_channels=4, num_mmdit_layers=2,
            num_single_dit_layers=2, attention_head_dim=16, num_attention_heads=2,
            joint_attention_dim=16, caption_projection_dim=32, pos_embed_max_size=64,
        )),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=1.73),
    )  # fmt: skip
    return _ready(pipe)


def tiny_hidream() -> HiDreamImagePipeline:
    torch.manual_seed(0)
    clip, t5, llama = _clip_tokenizer(), _t5_tokenizer(), _word_tokenizer()
    pipe = HiDreamImagePipeline(
        scheduler=UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
        ),
        vae=_flow_vae(blocks=1),
        text_encoder=_clip(clip, projection=True, positions=248),
        tokenizer=clip,
        text_encoder_2=_clip(clip, projection=True, positions=248),
        tokenizer_2=_clip_tokenizer(),
        text_encoder_3=_t5(t5),
        tokenizer_3=t5,
        text_encoder_4=LlamaForCausalLM(
            LlamaConfig(**_llm_sizes(llama), attn_implementation="eager")
        ),
        tokenizer_4=llama,
        transformer=HiDreamImageTransformer2DModel(
            patch_size=16,  # the pipeline makes latents of 128 x 128 whatever the size asked for
            in_channels=4, num_layers=2, num_single_layers=2, attention_head_dim=16,
            num_attention_heads=2, caption_channels=[16, 16], text_emb_dim=32,
            axes_dims_rope=(8, 4, 4), max_resolution=(128, 128), llama_layers=[0, 1, 1, 1],
        ),
    )  # fmt: skip
    return _ready(pipe)


# --- transformers with language models ----------------------------------------------------------


def _flux2_parts(text_width: int, **kwargs: Any) -> dict[str, Any]:
    return {
        "scheduler": FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        "vae": AutoencoderKLFlux2(
            block_out_channels=(8, 8), latent_channels=4, norm_num_groups=2,
            down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
        ),
        "transformer": _louder(Flux2Transformer2DModel(
            in_channels=16, num_layers=2, num_single_layers=2, attention_head_dim=16,
            num_attention_heads=2, joint_attention_dim=3 * text_width,
            timestep_guidance_channels=16, axes_dims_rope=(4, 4, 4, 4), **kwargs,
        )),
    }  # fmt: skip


def tiny_flux2() -> Flux2Pipeline:
    torch.manual_seed(0)
    words = _word_tokenizer(chat_template=CHAT, padding_side="left")
    text = _llm_sizes(words, num_hidden_layers=30)  # the pipeline takes layers 10, 20, 30
    vision = {
        "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1,
        "num_attention_heads": 2, "head_dim": 8, "image_size": 32, "patch_size": 16,
        "model_type": "pixtral",
    }  # fmt: skip
    config = Mistral3Config(
        text_config={"model_type": "mistral", **text}, vision_config=vision, image_token_index=1
    )
    return _ready(
        Flux2Pipeline(
            text_encoder=Mistral3ForConditionalGeneration(config),
            tokenizer=words,  # PixtralProcessor needs torchvision; here it only passes text on
            **_flux2_parts(16),
        )
    )


def tiny_flux2_klein() -> Flux2KleinPipeline:
    torch.manual_seed(0)
    qwen = _qwen_tokenizer()
    config = Qwen3Config(**_llm_sizes(qwen, num_hidden_layers=27))  # layers 9, 18, 27
    return _ready(
        Flux2KleinPipeline(
            text_encoder=Qwen3ForCausalLM(config),
            tokenizer=qwen,
            is_distilled=False,
            **_flux2_parts(16, guidance_embeds=False),
        )
    )


def _qwen_image_parts(stages: int = 1, res_blocks: int = 1) -> dict[str, Any]:
    """`stages` halvings between picture and latents."""
    qwen = _qwen_tokenizer()
    ids = {name: qwen.convert_tokens_to_ids(f"<|{name}|>") for name in ("image_pad", "video_pad")}
    text = _llm_sizes(qwen) | {
        "rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1e6}
    }
    del text["head_dim"]
    vision = {
        "depth": 1, "hidden_size": 16, "num_heads": 2, "intermediate_size": 16,
        "out_hidden_size": 16, "fullatt_block_indexes": [0],
    }  # fmt: skip
    config = Qwen2_5_VLConfig(
        text_config=text, vision_config=vision, image_token_id=ids["image_pad"],
        video_token_id=ids["video_pad"],
        vision_start_token_id=qwen.convert_tokens_to_ids("<|vision_start|>"),
        vision_end_token_id=qwen.convert_tokens_to_ids("<|vision_end|>"),
    )  # fmt: skip
    return {
        "scheduler": FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        "vae": AutoencoderKLQwenImage(
            base_dim=4, z_dim=4, dim_mult=[1] * (stages + 1), num_res_blocks=res_blocks,
            temperal_downsample=[False] * stages, latents_mean=[0.0] * 4, latents_std=[1.0] * 4,
        ),
        "text_encoder": Qwen2_5_VLForConditionalGeneration(config),
        "tokenizer": qwen,
        "transformer": _louder(QwenImageTransformer2DModel(
            in_channels=16, out_channels=4, num_layers=2, attention_head_dim=16,
            num_attention_heads=2, joint_attention_dim=16, axes_dims_rope=(4, 6, 6),
        )),
    }  # fmt: skip


def tiny_qwen_image() -> QwenImagePipeline:
    torch.manual_seed(0)
    return _ready(QwenImagePipeline(**_qwen_image_parts()))


class _PictureProcessor(Qwen2VLProcessor):
    """Without the video processor, which needs torchvision. A saved pipeline loads where this
    module can be imported: diffusers looks in it for the class, and for ProcessorMixin."""

    def __init__(self, image_processor: Any = None, tokenizer: Any = None, **kwargs: Any) -> None:
        super().__init__(image_processor, tokenizer, **kwargs)

    @classmethod
    def get_attributes(cls) -> list[str]:
        return ["image_processor", "tokenizer"]


def tiny_qwen_image_edit() -> QwenImageEditPipeline:
    """Most of a run is the VAE: the pipeline blows any picture up to 1024 x 1024."""
    torch.manual_seed(0)
    parts = _qwen_image_parts(stages=6, res_blocks=0)
    processor = _PictureProcessor(
        Qwen2VLImageProcessorPil(size={"shortest_edge": 28 * 28, "longest_edge": 56 * 56}),
        parts["tokenizer"],
    )
    return _ready(QwenImageEditPipeline(**parts, processor=processor))


def tiny_z_image() -> ZImagePipeline:
    torch.manual_seed(0)
    qwen = _qwen_tokenizer()
    pipe = ZImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=_flow_vae(),
        text_encoder=Qwen3Model(Qwen3Config(**_llm_sizes(qwen))),
        tokenizer=qwen,
        transformer=ZImageTransformer2DModel(
            in_channels=4, dim=32, n_layers=2, n_refiner_layers=2, n_heads=2, n_kv_heads=2,
            cap_feat_dim=16, axes_dims=[4, 6, 6], axes_lens=[1024, 64, 64],
        ),
    )  # fmt: skip
    return _ready(pipe)


def tiny_sana() -> SanaPipeline:
    torch.manual_seed(0)
    gemma = _gemma_tokenizer()
    pipe = SanaPipeline(
        tokenizer=gemma,
        text_encoder=_gemma(gemma),
        vae=AutoencoderDC(
            latent_channels=4, attention_head_dim=4, encoder_block_out_channels=(8, 8),
            decoder_block_out_channels=(8, 8), encoder_layers_per_block=(1, 1),
            decoder_layers_per_block=(1, 1), encoder_qkv_multiscales=((), (5,)),
            decoder_qkv_multiscales=((), (5,)), scaling_factor=0.41407,
            encoder_block_types=("ResBlock", "EfficientViTBlock"),
            decoder_block_types=("ResBlock", "EfficientViTBlock"),
        ),
        transformer=SanaTransformer2DModel(
            in_channels=4, out_channels=4, num_layers=2, num_attention_heads=2,
            attention_head_dim=8, num_cross_attention_heads=2, cross_attention_head_dim=8,
            cross_attention_dim=16, caption_channels=16, sample_size=16,
        ),
        scheduler=DPMSolverMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
        ),
    )  # fmt: skip
    return _ready(pipe)


def tiny_lumina2() -> Lumina2Pipeline:
    torch.manual_seed(0)
    gemma = _gemma_tokenizer()
    pipe = Lumina2Pipeline(
        transformer=Lumina2Transformer2DModel(
            sample_size=8, in_channels=4, hidden_size=32, num_layers=2, num_refiner_layers=2,
            num_attention_heads=2, num_kv_heads=1, multiple_of=16, axes_dim_rope=(4, 6, 6),
            axes_lens=(512, 64, 64), cap_feat_dim=16,
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=6.0),
        vae=_flow_vae(blocks=4),  # the pipeline knows no other scale than 8
        text_encoder=_gemma(gemma),
        tokenizer=gemma,
    )  # fmt: skip
    return _ready(pipe)


def tiny_cogview4() -> CogView4Pipeline:
    torch.manual_seed(0)
    glm = _word_tokenizer(padding_side="left")
    pipe = CogView4Pipeline(
        tokenizer=glm,
        text_encoder=GlmModel(GlmConfig(**_llm_sizes(glm))),
        vae=_vae(use_quant_conv=False, use_post_quant_conv=False),
        transformer=_louder(CogView4Transformer2DModel(
            in_channels=4, out_channels=4, num_layers=2, attention_head_dim=8,
            num_attention_heads=2, text_embed_dim=16, time_embed_dim=8, condition_dim=4,
            rope_axes_dim=(16, 16), sample_size=16,
        )),
        scheduler=FlowMatchEulerDiscreteScheduler(
            use_dynamic_shifting=True, base_shift=0.25, max_shift=0.75, base_image_seq_len=256,
            time_shift_type="linear",
        ),
    )  # fmt: skip
    return _ready(pipe)


# --- cases --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    build: Callable[[], Any]
    call: dict[str, Any]
    preset: str


def _call(**kwargs: Any) -> dict[str, Any]:
    return {"prompt": "a red square", "height": 32, "width": 32, **kwargs}


def _guided(**kwargs: Any) -> dict[str, Any]:
    return _call(**{"negative_prompt": "blurry", "guidance_scale": 3.0, **kwargs})


CASES: dict[str, Case] = {
    "sd15": Case(tiny_sd15, _guided(), ""),
    "sdxl": Case(tiny_sdxl, _guided(), "sdxl"),
    "sdxl-controlnet": Case(tiny_sdxl_controlnet, _guided(image=_picture()), "sdxl"),
    "sd3": Case(tiny_sd3, _guided(max_sequence_length=16), "sd3.5-large"),
    "sd3-skip-layer": Case(  # a third call at steps 1, 2, 3 of 6
        tiny_sd3,
        _guided(
            max_sequence_length=16, skip_guidance_layers=[0], skip_layer_guidance_start=0.0,
            skip_layer_guidance_stop=0.6,
        ),
        "sd3.5-large",
    ),
    "flux-kontext": Case(
        tiny_flux_kontext,
        _guided(
            image=_picture(), true_cfg_scale=2.0, max_sequence_length=16, max_area=32 * 32,
            _auto_resize=False,
        ),
        "flux.1-kontext-dev",
    ),
    "flux2": Case(tiny_flux2, _call(guidance_scale=4.0, max_sequence_length=128), "flux.2-dev"),
    "flux2-klein": Case(
        tiny_flux2_klein, _call(guidance_scale=4.0, max_sequence_length=64), "flux.2-klein-base"
    ),
    "qwen-image": Case(
        tiny_qwen_image, _call(negative_prompt="blurry", true_cfg_scale=4.0), "qwen-image"
    ),
    "qwen-image-edit": Case(
        tiny_qwen_image_edit,
        _call(
            image=_picture(), negative_prompt="blurry", true_cfg_scale=4.0, height=256, width=256
        ),
        "qwen-image-edit",
    ),
    "z-image": Case(tiny_z_image, _guided(max_sequence_length=64), "z-image"),
    "z-image-truncated": Case(  # no guidance at the last three of 6 steps
        tiny_z_image, _guided(max_sequence_length=64, cfg_truncation=0.2), "z-image"
    ),
    "chroma": Case(tiny_chroma, _guided(max_sequence_length=16), "chroma"),
    "sana": Case(
        tiny_sana, _guided(max_sequence_length=16, use_resolution_binning=False), "sana"
    ),
    "pixart-sigma": Case(
        tiny_pixart_sigma,
        _guided(max_sequence_length=16, use_resolution_binning=False, clean_caption=False),
        "pixart-sigma",
    ),
    "lumina-2": Case(tiny_lumina2, _guided(), "lumina-2"),
    "lumina-2-truncated": Case(  # the same
        tiny_lumina2, _guided(cfg_trunc_ratio=0.5), "lumina-2"
    ),
    "auraflow": Case(tiny_auraflow, _guided(max_sequence_length=16), "auraflow"),
    "cogview4": Case(tiny_cogview4, _guided(max_sequence_length=16), "cogview4"),
    "hidream": Case(
        tiny_hidream, _guided(max_sequence_length=16, height=128, width=128), "hidream"
    ),
}  # fmt: skip
