"""More tiny image pipelines, of newer families: see CASES at the end."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import (
    AdaptiveProjectedMixGuidance,
    AutoencoderKL,
    AutoencoderKLHunyuanImage,
    AutoencoderKLQwenImage21,
    BriaPipeline,
    BriaTransformer2DModel,
    ErnieImagePipeline,
    ErnieImageTransformer2DModel,
    FlowMatchEulerDiscreteScheduler,
    GlmImagePipeline,
    GlmImageTransformer2DModel,
    HunyuanImagePipeline,
    HunyuanImageTransformer2DModel,
    Krea2Pipeline,
    Krea2Transformer2DModel,
    LongCatImagePipeline,
    LongCatImageTransformer2DModel,
    OvisImagePipeline,
    OvisImageTransformer2DModel,
    QwenImage21Pipeline,
    QwenImage21Transformer2DModel,
)
from tiny import _ready, _t5_sizes, _t5_tokenizer
from tiny_images import (
    WORDS,
    Case,
    _call,
    _flow_vae,
    _flux2_parts,
    _guided,
    _llm_sizes,
    _louder,
    _PictureProcessor,
    _qwen_image_parts,
    _qwen_tokenizer,
    _t5,
    _vae,
    _word_tokenizer,
)
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import (
    ByT5Tokenizer,
    GlmImageConfig,
    GlmImageForConditionalGeneration,
    GlmImageProcessor,
    Mistral3Config,
    Mistral3Model,
    PreTrainedTokenizerFast,
    ProcessorMixin,  # noqa: F401 - see _PictureProcessor
    Qwen3Config,
    Qwen3Model,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLModel,
    Qwen3VLProcessor,
    T5Config,
    T5EncoderModel,
)
from transformers.models.glm_image.image_processing_pil_glm_image import (
    GlmImageImageProcessorPil,
)
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil


def _flow() -> FlowMatchEulerDiscreteScheduler:
    return FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)


def _qwen3_vl(tokenizer: Any, layers: int = 2) -> Qwen3VLConfig:
    rope = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1e6}
    vision = {
        "depth": 1, "hidden_size": 16, "num_heads": 2, "intermediate_size": 16,
        "out_hidden_size": 16, "deepstack_visual_indexes": [0], "num_position_embeddings": 16,
    }  # fmt: skip
    ids = {
        f"{name}_token_id": tokenizer.convert_tokens_to_ids(f"<|{word}|>")
        for name, word in {
            "image": "image_pad", "video": "video_pad", "vision_start": "vision_start",
            "vision_end": "vision_end",
        }.items()
    }  # fmt: skip
    text = _llm_sizes(tokenizer, num_hidden_layers=layers) | {"rope_parameters": rope}
    return Qwen3VLConfig(text_config=text, vision_config=vision, **ids)


class _Qwen3PictureProcessor(Qwen3VLProcessor):
    """As `_PictureProcessor`."""

    def __init__(
        self, image_processor: Any = None, tokenizer: Any = None, chat_template: Any = None
    ) -> None:
        super().__init__(image_processor, tokenizer, chat_template=chat_template)

    @classmethod
    def get_attributes(cls) -> list[str]:
        return ["image_processor", "tokenizer"]


def _byt5(tokenizer: ByT5Tokenizer) -> T5EncoderModel:
    sizes = _t5_sizes(_t5_tokenizer()) | {"vocab_size": len(tokenizer)}
    return T5EncoderModel(T5Config(**sizes))


def tiny_hunyuan_image() -> HunyuanImagePipeline:
    """Guided by a guider, which remembers the steps before it from step 2 on."""
    torch.manual_seed(0)
    parts, glyphs = _qwen_image_parts(), ByT5Tokenizer()
    guider = AdaptiveProjectedMixGuidance(
        guidance_scale=3.5, adaptive_projected_guidance_start_step=2
    )
    pipe = HunyuanImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=5.0),
        vae=AutoencoderKLHunyuanImage(
            in_channels=3, out_channels=3, latent_channels=4, layers_per_block=1,
            block_out_channels=(32,) * 4, spatial_compression_ratio=8, sample_size=64,
            scaling_factor=0.75,
        ),
        text_encoder=parts["text_encoder"],
        tokenizer=parts["tokenizer"],
        text_encoder_2=_byt5(glyphs),
        tokenizer_2=glyphs,
        transformer=_louder(HunyuanImageTransformer2DModel(
            in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=16,
            num_layers=1, num_single_layers=2, num_refiner_layers=1, text_embed_dim=16,
            text_embed_2_dim=16, rope_axes_dim=(8, 8),
        )),
        guider=guider,
        ocr_guider=guider,
    )  # fmt: skip
    pipe.tokenizer_max_length = 32  # of 1000 tokens, all of which are computed with
    return _ready(pipe)


def tiny_krea2() -> Krea2Pipeline:
    torch.manual_seed(0)
    qwen = _qwen_tokenizer()
    pipe = Krea2Pipeline(
        scheduler=_flow(),
        vae=_qwen_image_parts()["vae"],
        text_encoder=Qwen3VLModel(_qwen3_vl(qwen)),
        tokenizer=qwen,
        transformer=_louder(Krea2Transformer2DModel(
            in_channels=16, num_layers=2, attention_head_dim=16, num_attention_heads=2,
            num_key_value_heads=1, intermediate_size=32, timestep_embed_dim=16,
            text_hidden_dim=16, num_text_layers=2, text_num_attention_heads=2,
            text_num_key_value_heads=1, text_intermediate_size=16, num_layerwise_text_blocks=1,
            num_refiner_text_blocks=1, axes_dims_rope=(4, 6, 6),
        )),
        text_encoder_select_layers=(1, 2),
    )  # fmt: skip
    return _ready(pipe)


def tiny_qwen_image_21() -> QwenImage21Pipeline:
    """The prompt goes through the blocks at the first step only; later ones have its keys."""
    torch.manual_seed(0)
    qwen = _qwen_tokenizer()
    pipe = QwenImage21Pipeline(
        scheduler=_flow(),
        vae=AutoencoderKLQwenImage21(
            base_dim=4, decoder_base_dim=4, z_dim=4, dim_mult=[1] * 5, num_res_blocks=1,
            temperal_downsample=[False] * 4, latents_mean=[0.0] * 4, latents_std=[1.0] * 4,
        ),
        text_encoder=Qwen3VLForConditionalGeneration(_qwen3_vl(qwen)),
        processor=_Qwen3PictureProcessor(
            Qwen2VLImageProcessorPil(), qwen, chat_template=qwen.chat_template
        ),
        transformer=_louder(QwenImage21Transformer2DModel(
            in_channels=4, out_channels=4, num_layers=2, attention_head_dim=16,
            num_attention_heads=2, context_in_dim=16, axes_dims_rope=(4, 6, 6),
        )),
    )  # fmt: skip
    return _ready(pipe)


def _glm_processor() -> GlmImageProcessor:
    names = {"image_token": "<|image|>", "grid_bos_token": "<sop>", "grid_eos_token": "<eop>"}
    tokens = ["<pad>", "<unk>", "<s>", "</s>", *names.values(), *WORDS]
    inner = Tokenizer(WordLevel({word: i for i, word in enumerate(tokens)}, unk_token="<unk>"))
    inner.pre_tokenizer = Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", unk_token="<unk>", bos_token="<s>",
        eos_token="</s>", extra_special_tokens=names, model_max_length=512, padding_side="left",
    )  # fmt: skip
    chat = (
        "{% for m in messages %}{% for part in m.content %}{{ part.text }}{% endfor %}{% endfor %}"
    )
    return GlmImageProcessor(GlmImageImageProcessorPil(), tokenizer, chat_template=chat)


def tiny_glm_image() -> GlmImagePipeline:
    """A language model draws first, in tokens; where they are given, which saves a second, not."""
    torch.manual_seed(0)
    rope = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1e4}
    config = GlmImageConfig(
        text_config={
            "vocab_size": 64, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1,
            "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8, "pad_token_id": 0,
            "vision_vocab_size": 34, "eos_token_id": 33, "rope_parameters": rope,
        },
        vision_config={
            "depth": 1, "hidden_size": 16, "num_heads": 2, "image_size": 64, "patch_size": 16,
            "intermediate_size": 16,
        },
        vq_config={"embed_dim": 16, "num_embeddings": 32, "latent_channels": 16},
        image_token_id=4, image_start_token_id=32, image_end_token_id=33,
    )  # fmt: skip
    drawing, glyphs = GlmImageForConditionalGeneration(config), ByT5Tokenizer()
    drawing.generation_config.eos_token_id = None  # or it would end where it likes
    drawing.generation_config.pad_token_id = 0
    pipe = GlmImagePipeline(
        tokenizer=glyphs,
        processor=_glm_processor(),
        text_encoder=_byt5(glyphs),
        vision_language_encoder=drawing,
        vae=_vae(
            4, use_quant_conv=False, use_post_quant_conv=False, latents_mean=[0.0] * 4,
            latents_std=[1.0] * 4,
        ),
        transformer=_louder(GlmImageTransformer2DModel(
            in_channels=4, out_channels=4, num_layers=2, attention_head_dim=16,
            num_attention_heads=2, text_embed_dim=16, time_embed_dim=16, condition_dim=8,
            prior_vq_quantizer_codebook_size=34,
        )),
        scheduler=FlowMatchEulerDiscreteScheduler(
            use_dynamic_shifting=True, base_shift=0.25, max_shift=0.75, base_image_seq_len=256,
            time_shift_type="linear",
        ),
    )  # fmt: skip
    return _ready(pipe)


def tiny_longcat_image() -> LongCatImagePipeline:
    torch.manual_seed(0)
    parts = _qwen_image_parts()
    pipe = LongCatImagePipeline(
        scheduler=_flow(),
        vae=AutoencoderKL(  # the pipeline knows no other than 16 latent channels
            block_out_channels=(8, 8), latent_channels=16, norm_num_groups=2,
            down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
            use_quant_conv=False, use_post_quant_conv=False, shift_factor=0.1, scaling_factor=0.4,
        ),
        text_encoder=parts["text_encoder"],
        tokenizer=parts["tokenizer"],
        text_processor=_PictureProcessor(Qwen2VLImageProcessorPil(), parts["tokenizer"]),
        transformer=_louder(LongCatImageTransformer2DModel(
            in_channels=64, num_layers=1, num_single_layers=2, attention_head_dim=16,
            num_attention_heads=2, joint_attention_dim=16, pooled_projection_dim=16,
            axes_dims_rope=[4, 6, 6],
        )),
    )  # fmt: skip
    return _ready(pipe)


def tiny_ovis_image() -> OvisImagePipeline:
    torch.manual_seed(0)
    qwen = _qwen_tokenizer()
    pipe = OvisImagePipeline(
        scheduler=_flow(),
        vae=_flow_vae(),
        text_encoder=Qwen3Model(Qwen3Config(**_llm_sizes(qwen))),
        tokenizer=qwen,
        transformer=_louder(OvisImageTransformer2DModel(
            in_channels=16, out_channels=16, num_layers=1, num_single_layers=2,
            attention_head_dim=16, num_attention_heads=2, joint_attention_dim=16,
            axes_dims_rope=(4, 6, 6),
        )),
    )  # fmt: skip
    return _ready(pipe)


def tiny_ernie_image() -> ErnieImagePipeline:
    torch.manual_seed(0)
    words = _word_tokenizer()
    vision = {
        "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1,
        "num_attention_heads": 2, "head_dim": 8, "image_size": 32, "patch_size": 16,
        "model_type": "pixtral",
    }  # fmt: skip
    text = {"model_type": "mistral", **_llm_sizes(words)}
    transformer = ErnieImageTransformer2DModel(
        hidden_size=32, num_attention_heads=2, num_layers=2, ffn_hidden_size=32, in_channels=16,
        out_channels=16, text_in_dim=16, rope_axes_dim=(4, 6, 6),
    )  # fmt: skip
    torch.nn.init.normal_(transformer.final_linear.weight, std=0.5)  # as made, it puts out zero
    pipe = ErnieImagePipeline(
        transformer=_louder(transformer),
        vae=_flux2_parts(16, guidance_embeds=False)["vae"],
        text_encoder=Mistral3Model(
            Mistral3Config(text_config=text, vision_config=vision, image_token_index=1)
        ),
        tokenizer=words,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
    )
    return _ready(pipe)


def tiny_bria() -> BriaPipeline:
    """Asks any scheduler whose `type` is not the flow's to scale its input."""
    torch.manual_seed(0)
    t5 = _t5_tokenizer()
    pipe = BriaPipeline(
        transformer=_louder(BriaTransformer2DModel(
            in_channels=16, num_layers=1, num_single_layers=2, attention_head_dim=16,
            num_attention_heads=2, joint_attention_dim=16, axes_dims_rope=[4, 6, 6],
        )),
        scheduler=_flow(),
        vae=_flow_vae(),
        text_encoder=_t5(t5),
        tokenizer=t5,
    )  # fmt: skip
    return _ready(pipe)


CASES: dict[str, Case] = {
    "hunyuan-image": Case(
        tiny_hunyuan_image, _call(negative_prompt="blurry", width=64, height=64),
        "hunyuanimage-2.1",
    ),
    "krea-2": Case(tiny_krea2, _guided(max_sequence_length=64), "krea-2-raw"),
    "qwen-image-2.1": Case(
        tiny_qwen_image_21,
        _call(negative_prompt="blurry", true_cfg_scale=4.0, width=64, height=64),
        "qwen-image-2.1",
    ),
    "glm-image": Case(
        tiny_glm_image,
        _call(guidance_scale=1.5, width=64, height=64, prior_token_ids=torch.arange(16)[None]),
        "glm-image",
    ),
    "longcat-image": Case(
        tiny_longcat_image, _guided(enable_prompt_rewrite=False), "longcat-image"
    ),
    "ovis-image": Case(tiny_ovis_image, _guided(max_sequence_length=64), "ovis-image"),
    "ernie-image": Case(tiny_ernie_image, _guided(), "ernie-image"),
    "bria": Case(tiny_bria, _guided(max_sequence_length=16), ""),
}  # fmt: skip
