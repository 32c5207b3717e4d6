"""Train small generative models of four kinds, to measure caching on; none of them is shipped.

    python training/train_zoo.py unet-letters --out zoo --work build/zoo
    python training/train_zoo.py check zoo/unet-letters

They work on pixels: no autoencoder, no text encoder. A caption is one word a slot, looked up in a
table that is trained along, and a pipeline's "latents" are the picture itself, normalised. Held-out
captions, one in sixteen by their checksum, are never trained. `load` gives the real pipeline.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
import torch.nn.functional as F
import zoo_pictures as pictures
from common import Average, Run, log
from diffusers import (
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    PixArtSigmaPipeline,
    PixArtTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    UNet2DConditionModel,
    UniPCMultistepScheduler,
    WanPipeline,
    WanTransformer3DModel,
)
from diffusers.models.attention import BasicTransformerBlock, JointTransformerBlock
from diffusers.models.resnet import ResnetBlock2D
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

WORD = 128  # numbers in an embedded word
FLOW_SHIFT = 3.0
EMPTY = ""  # the word, repeated, of the empty caption; number 0 of every vocabulary


# ---- denoisers, as diffusers has them ----


def new_unet() -> UNet2DConditionModel:
    """Three levels of 32, 16 and 8 px a side; attention at the lower two."""
    return UNet2DConditionModel(
        sample_size=32,
        in_channels=3,
        out_channels=3,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(32, 64, 128),
        layers_per_block=1,
        norm_num_groups=8,
        cross_attention_dim=WORD,
        attention_head_dim=4,  # heads, in truth
    )


def new_sd3(side: int = pictures.SIDE) -> SD3Transformer2DModel:
    """256 tokens of width 160, or as many as a picture of this side has; the same places in it
    have the same embedding."""
    model = SD3Transformer2DModel(
        sample_size=32,
        patch_size=2,
        in_channels=3,
        out_channels=3,
        num_layers=5,
        attention_head_dim=32,
        num_attention_heads=5,
        joint_attention_dim=WORD,
        caption_projection_dim=160,
        pooled_projection_dim=WORD,
        pos_embed_max_size=side // 2,
        qk_norm="rms_norm",
    )
    start_simple(model, model.pos_embed.proj, 0.7)
    return model


def new_pixart() -> PixArtTransformer2DModel:
    """64 tokens of width 192."""
    model = PixArtTransformer2DModel(
        sample_size=32,
        patch_size=4,
        in_channels=3,
        out_channels=3,
        num_layers=6,
        num_attention_heads=6,
        attention_head_dim=32,
        cross_attention_dim=192,
        caption_channels=WORD,
        use_additional_conditions=False,
    )
    start_simple(model, model.pos_embed.proj, 1.0)
    return model


def new_wan() -> WanTransformer3DModel:
    """320 tokens of width 192: five frames of 8 x 8 patches."""
    model = WanTransformer3DModel(
        patch_size=(1, 4, 4),
        num_attention_heads=3,
        attention_head_dim=64,
        in_channels=3,
        out_channels=3,
        text_dim=WORD,
        freq_dim=128,
        ffn_dim=512,
        num_layers=5,
        cross_attn_norm=True,
        qk_norm="rms_norm_across_heads",
        rope_max_seq_len=64,
    )
    for block in model.blocks:
        for linear in block.modules():
            if isinstance(linear, nn.Linear):
                nn.init.xavier_uniform_(linear.weight)
                nn.init.zeros_(linear.bias)
    start_simple(model, model.patch_embedding, 0.8)
    return model


@torch.no_grad()
def start_simple(model: nn.Module, patches: nn.Module, share: float) -> None:
    """Start with a prediction near a share of the input, and modulation that knows no timestep.

    Patches go in by orthogonal columns, scaled for tokens of variance 1, and come out by the same.
    """
    parts = ("norm1.linear", "norm1_context.linear", "norm_out.linear", "adaln_single.linear")
    for name, module in model.named_modules():
        if name.endswith((*parts, "time_proj")) and isinstance(module, nn.Linear):
            nn.init.zeros_(module.weight)
            nn.init.zeros_(module.bias)
    width = patches.weight.shape[0]
    gain = (width / patches.weight[0].numel()) ** 0.5
    nn.init.orthogonal_(patches.weight, gain)  # [width, channels, *patch]
    nn.init.zeros_(patches.bias)
    back = patches.weight.movedim(1, -1).movedim(0, -1).flatten(0, -2)  # [*patch channels, width]
    model.proj_out.weight.copy_(share / gain**2 * back)
    nn.init.zeros_(model.proj_out.bias)


# ---- the four kinds ----


@dataclass(frozen=True)
class Kind:
    """One model of the zoo: what it is shown and how it is built, trained and sampled."""

    slots: list[list[str]]  # the words a caption may have in each place
    draw: Callable[[list[str], np.random.Generator], np.ndarray]  # -> uint8 [(F,) 32, 32, 3]
    denoiser: type
    build: Callable[[], nn.Module]
    pipeline: type
    scheduler: Callable[[], Any]
    guidance: float
    flow: bool  # predicts noise - clean from their mixture; otherwise the noise
    frames: int = 1
    side: int = pictures.SIDE
    batch: int = 64
    rates: tuple[float, float] = (4e-3, 1.5e-3)  # of Muon and of AdamW


KINDS = {
    "unet-letters": Kind(
        pictures.LETTER_SLOTS,
        pictures.draw_letter,
        UNet2DConditionModel,
        new_unet,
        StableDiffusionPipeline,
        lambda: EulerDiscreteScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            timestep_spacing="leading",
            steps_offset=1,
        ),
        guidance=7.0,
        flow=False,
    ),
    "sd3-textures": Kind(
        pictures.TEXTURE_SLOTS,
        pictures.draw_texture,
        SD3Transformer2DModel,
        new_sd3,
        StableDiffusion3Pipeline,
        lambda: FlowMatchEulerDiscreteScheduler(shift=FLOW_SHIFT),
        guidance=4.0,
        flow=True,
    ),
    "pixart-creatures": Kind(
        pictures.CREATURE_SLOTS,
        pictures.draw_creature,
        PixArtTransformer2DModel,
        new_pixart,
        PixArtSigmaPipeline,
        lambda: DPMSolverMultistepScheduler(
            beta_start=0.0001, beta_end=0.02, beta_schedule="linear", algorithm_type="dpmsolver++"
        ),
        guidance=10.0,
        flow=False,
    ),
    "wan-digits": Kind(
        pictures.DIGIT_SLOTS,
        pictures.draw_digits,
        WanTransformer3DModel,
        new_wan,
        WanPipeline,
        lambda: UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=FLOW_SHIFT
        ),
        guidance=5.0,
        flow=True,
        frames=5,
    ),
}

# One model in three sizes: the same pictures, drawn half and twice as large.
for _side, _batch in ((16, 64), (64, 16)):
    KINDS[f"sd3-textures-{_side}"] = replace(
        KINDS["sd3-textures"],
        draw=partial(pictures.draw_texture, side=_side),
        build=partial(new_sd3, _side),
        side=_side,
        batch=_batch,
    )


# ---- captions ----


def vocabulary_of(kind: Kind) -> list[str]:
    """Every word once, the empty one first."""
    return [EMPTY, *sorted({word for slot in kind.slots for word in slot})]


def held_out(caption: list[str]) -> bool:
    """Whether a caption is kept from training."""
    return zlib.crc32(" ".join(caption).encode()) % 16 == 0


def random_caption(kind: Kind, rng: np.random.Generator, unseen: bool) -> list[str]:
    """One word a slot; no two colours alike in textures."""
    while True:
        caption = [slot[rng.integers(len(slot))] for slot in kind.slots]
        doubled = kind.slots is pictures.TEXTURE_SLOTS and caption[2] == caption[3]
        if held_out(caption) == unseen and not doubled:
            return caption


def draw_many(kind: Kind, count: int, seed: int, unseen: bool) -> tuple[Tensor, Tensor]:
    """-> uint8 [N, 3, (F,) 32, 32], numbers of words [N, slots]"""
    rng = np.random.default_rng(seed)
    number = {word: index for index, word in enumerate(vocabulary_of(kind))}
    captions = [random_caption(kind, rng, unseen) for _ in range(count)]
    drawn = torch.from_numpy(np.stack([kind.draw(caption, rng) for caption in captions]))
    words = torch.tensor([[number[word] for word in caption] for caption in captions])
    return drawn.movedim(-1, 1).contiguous(), words


# ---- training ----


class Captioned(nn.Module):
    """A denoiser with the table of its captions' words, called just as its pipeline calls it."""

    def __init__(self, kind: Kind) -> None:
        super().__init__()
        self.kind = kind
        self.table = nn.Embedding(len(vocabulary_of(kind)), WORD)
        self.position = nn.Parameter(0.5 * torch.randn(len(kind.slots), WORD))
        self.pooled = nn.Linear(WORD, WORD)
        self.denoiser = kind.build()

    def forward(self, x: Tensor, timestep: Tensor, words: Tensor) -> Tensor:
        """x [B, 3, (F,) 32, 32], timestep [B] in 0..1000, words [B, slots] -> as x"""
        text = self.table(words) + self.position
        if self.kind.denoiser is SD3Transformer2DModel:
            pooled = self.pooled(text.mean(dim=1))
            return self.denoiser(x, text, pooled, timestep, return_dict=False)[0]
        if self.kind.denoiser is PixArtTransformer2DModel:
            none = {"resolution": None, "aspect_ratio": None}
            return self.denoiser(x, text, timestep, none, return_dict=False)[0]
        return self.denoiser(x, timestep, text, return_dict=False)[0]


def noise_scales(kind: Kind) -> Tensor:
    """The factors of picture and noise at timesteps 0..999, for those that predict the noise."""
    alphas = DDPMScheduler.from_config(kind.scheduler().config).alphas_cumprod
    return torch.stack([alphas.sqrt(), (1 - alphas).sqrt()])


def loss_of(model: Captioned, x: Tensor, words: Tensor, scales: Tensor | None) -> Tensor:
    """Mean squared error of the prediction at noise levels spread evenly over the batch."""
    even = (torch.arange(len(x)) + torch.rand(len(x))) / len(x)
    noise, shape = torch.randn_like(x), (-1, *[1] * (x.ndim - 1))
    if scales is None:  # a third of the levels uniform, the rest logit-normal; shifted
        normal = torch.special.ndtri(even.clamp(1e-4, 1 - 1e-4)).sigmoid()
        level = torch.where(torch.rand(len(x)) < 1 / 3, even, normal)
        level = FLOW_SHIFT * level / (1 + (FLOW_SHIFT - 1) * level)
        timestep, share = 1000 * level, level.view(shape)
        noisy, target = torch.lerp(x, noise, share), noise - x
    else:
        timestep = (even * 1000).long().clamp(max=999)
        clean, dirty = scales[:, timestep]
        noisy, target = clean.view(shape) * x + dirty.view(shape) * noise, noise
    with torch.autocast("cpu", torch.bfloat16):
        prediction = model(noisy, timestep, words)
    return F.mse_loss(prediction.float(), target)


def plain_attention(query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> Tensor:
    """softmax(q k / sqrt d) v, for training: the backward of torch's own is slow on a CPU."""
    scores = (query @ key.transpose(-1, -2)).float() * query.shape[-1] ** -0.5
    return scores.softmax(dim=-1).to(value.dtype) @ value


def speed_up(model: Captioned) -> None:
    """Faster arithmetic and compiled code, for training only; needs a C++ compiler."""
    if model.kind.denoiser is WanTransformer3DModel:
        from fast_wan import speed_up as speed_up_wan

        speed_up_wan(model.denoiser)
        return
    F.scaled_dot_product_attention = plain_attention
    torch._dynamo.config.recompile_limit = 64
    for block in model.denoiser.modules():  # alike, so that most are compiled once
        if isinstance(block, BasicTransformerBlock | JointTransformerBlock | ResnetBlock2D):
            block.compile(dynamic=False)


def optimizers(model: Captioned) -> list[torch.optim.Optimizer]:
    """Muon for the matrices and kernels inside the blocks, AdamW for the rest."""
    matrices, kernels, others = [], [], []
    for name, parameter in model.named_parameters():
        inside = "block" in name and name.endswith("weight")
        inside = inside and not any(part in name for part in ("norm", "embed", "adaln", "table"))
        if inside and parameter.ndim == 2:
            matrices.append(parameter)
        else:
            (kernels if inside and parameter.ndim == 4 else others).append(parameter)
    muon, adam = model.kind.rates
    found: list[torch.optim.Optimizer] = [
        torch.optim.Muon(matrices, lr=muon, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=adam, betas=(0.9, 0.98), weight_decay=0.0),
    ]
    if kernels:
        from train_image import ConvMuon

        found.append(ConvMuon(kernels, lr=muon))
    return found


def train(
    name: str,
    out: Path,
    work: Path,
    minutes: float,
    count: int,
    compiled: bool = True,
    start: Path | None = None,
) -> None:
    """Draw, train for a time budget, save; resumes from work/NAME.pt. `start` is the folder of a
    trained model of another size to begin with."""
    kind = KINDS[name]
    drawn, words = draw_many(kind, count, 1, unseen=False)
    mean, deviation = float(drawn.float().mean()) / 255, float(drawn.float().std()) / 255
    torch.manual_seed(2)
    model = Captioned(kind)
    if start:
        begin_as(model, start)
    size = sum(parameter.numel() for parameter in model.denoiser.parameters())
    log(f"{name}: {count} drawn, mean {mean:.3f} deviation {deviation:.3f}; {size} parameters")
    run = Run(work / f"{name}.pt", model, optimizers(model), minutes, Average(model, 0.998))
    scales = None if kind.flow else noise_scales(kind)
    if compiled:
        speed_up(model)
    saved, began, first = run.budget.spent, 0.0, 0
    while run.budget.progress < 1:
        if not began and run.step > 2:  # compiled by now
            began, first = run.budget.spent, run.step
        index = torch.randint(len(drawn), (kind.batch,))
        x = (drawn[index].float() / 255 - mean) / deviation
        said = torch.where(torch.rand(kind.batch, 1) < 0.1, 0, words[index])
        run.update(loss_of(model, x, said, scales))
        if run.step % 500 == 0 or run.step == first + 20:
            speed = (run.step - first) * kind.batch / (run.budget.spent - began)
            log(f"{name} {speed:.0f} samples/s, {100 * run.budget.progress:.0f} %")
        if run.budget.spent - saved > 120:
            saved = run.budget.spent
            run.save()
    run.save()
    model.load_state_dict(run.average.weights)
    export(name, model, out / name, mean, deviation)


def begin_as(model: Captioned, start: Path) -> None:
    """Take over the weights of a trained model, but for embedded places, which depend on size."""
    [file] = start.glob("*/diffusion_pytorch_model.safetensors")
    weights = {f"denoiser.{name}": weight for name, weight in load_file(file).items()}
    weights |= load_file(start / "embeddings.safetensors")
    weights.pop("denoiser.pos_embed.pos_embed", None)
    left = model.load_state_dict(weights, strict=False)
    assert not left.unexpected_keys
    assert set(left.missing_keys) <= {"denoiser.pos_embed.pos_embed"}


def export(name: str, model: Captioned, folder: Path, mean: float, deviation: float) -> None:
    """Write the folder that `load` reads and print the checksum of its weights."""
    kind = model.kind
    part = "unet" if kind.denoiser is UNet2DConditionModel else "transformer"
    model.denoiser.save_pretrained(folder / part)
    kind.scheduler().save_pretrained(folder / "scheduler")
    names = ("table.weight", "position", "pooled.weight", "pooled.bias")
    state = {key: value.contiguous() for key, value in model.state_dict().items() if key in names}
    save_file(state, folder / "embeddings.safetensors")
    facts = {
        "name": name,
        "vocabulary": vocabulary_of(kind),
        "slots": kind.slots,
        "guidance": kind.guidance,
        "height": 8 * kind.side,  # of the picture that the pipeline believes it makes
        "width": 8 * kind.side,
        "frames": 4 * kind.frames - 3 if kind.frames > 1 else 1,
        "mean": mean,
        "deviation": deviation,
        "held_out": "zlib.crc32 of the words joined by spaces is a multiple of 16",
    }
    (folder / "zoo.json").write_text(json.dumps(facts, indent=1))
    digest = hashlib.sha256()
    for file in sorted(folder.rglob("*.safetensors")):
        digest.update(file.read_bytes())
    log(f"{folder}: sha256 {digest.hexdigest()}")


# ---- use ----


@dataclass(frozen=True)
class Zoo:
    """What a trained model needs beside its pipeline."""

    name: str
    vocabulary: list[str]
    slots: list[list[str]]
    guidance: float
    height: int
    width: int
    frames: int
    mean: float
    deviation: float
    held_out: str  # the rule, in words
    embeddings: dict[str, Tensor]


def load(folder: Path | str) -> tuple[Any, Zoo]:
    """The real pipeline in float32, without autoencoder and text encoder, and its zoo entry."""
    folder = Path(folder)
    facts = json.loads((folder / "zoo.json").read_text())
    kind = KINDS[facts["name"]]
    part = "unet" if kind.denoiser is UNet2DConditionModel else "transformer"
    made = kind.scheduler().from_pretrained(folder / "scheduler")
    parts: dict[str, Any] = {"vae": None, "tokenizer": None, "text_encoder": None}
    parts |= {part: kind.denoiser.from_pretrained(folder / part).eval(), "scheduler": made}
    if kind.pipeline is StableDiffusion3Pipeline:
        for more in ("tokenizer_2", "text_encoder_2", "tokenizer_3", "text_encoder_3"):
            parts[more] = None
    if kind.pipeline is StableDiffusionPipeline:
        parts |= {"safety_checker": None, "feature_extractor": None}
        parts["requires_safety_checker"] = False
    pipe = kind.pipeline(**parts)
    pipe.set_progress_bar_config(disable=True)
    return pipe, Zoo(**facts, embeddings=load_file(folder / "embeddings.safetensors"))


def embed(zoo: Zoo, captions: list[list[str]]) -> tuple[Tensor, Tensor]:
    """-> words [B, slots, WORD], pooled [B, WORD]"""
    number = {word: index for index, word in enumerate(zoo.vocabulary)}
    words = torch.tensor([[number[word] for word in caption] for caption in captions])
    text = zoo.embeddings["table.weight"][words] + zoo.embeddings["position"]
    pooled = F.linear(
        text.mean(dim=1), zoo.embeddings["pooled.weight"], zoo.embeddings["pooled.bias"]
    )
    return text, pooled


def arguments(zoo: Zoo, captions: list[list[str]]) -> dict[str, Any]:
    """Keyword arguments of the pipeline, but for the number of steps and the generator."""
    text, pooled = embed(zoo, captions)
    empty, empty_pooled = embed(zoo, [[EMPTY] * len(zoo.slots)] * len(captions))
    found: dict[str, Any] = {
        "prompt_embeds": text,
        "negative_prompt_embeds": empty,
        "height": zoo.height,
        "width": zoo.width,
        "guidance_scale": zoo.guidance,
        "output_type": "latent",
    }
    pipeline = KINDS[zoo.name].pipeline
    if pipeline is StableDiffusion3Pipeline:
        found |= {"pooled_prompt_embeds": pooled, "negative_pooled_prompt_embeds": empty_pooled}
    if pipeline is PixArtSigmaPipeline:
        mask = torch.ones(text.shape[:2])
        found |= {"prompt_attention_mask": mask, "negative_prompt_attention_mask": mask}
        found |= {"negative_prompt": None, "use_resolution_binning": False}
    if pipeline is WanPipeline:
        found["num_frames"] = zoo.frames
    return found


def unseen(zoo: Zoo, count: int, seed: int) -> list[list[str]]:
    """Random held-out captions."""
    rng = np.random.default_rng(seed)
    return [random_caption(KINDS[zoo.name], rng, True) for _ in range(count)]


def to_pixels(zoo: Zoo, latents: Tensor) -> Tensor:
    """[B, 3, (F,) 32, 32] -> [B, (F,) 32, 32, 3] in 0..1"""
    return (latents.float() * zoo.deviation + zoo.mean).clamp(0, 1).movedim(1, -1)


def sample(pipe: Any, zoo: Zoo, captions: list[list[str]], steps: int, seed: int) -> Tensor:
    """Plain sampling -> [B, (F,) 32, 32, 3] in 0..1"""
    generator = torch.Generator().manual_seed(seed)
    result = pipe(**arguments(zoo, captions), num_inference_steps=steps, generator=generator)
    return to_pixels(zoo, result[0] if isinstance(result, tuple) else next(iter(result.values())))


def train_reader(kind: Kind, seconds: float) -> Callable[[Tensor], Tensor]:
    """A small network that reads the caption off pixels [B, (F,) 32, 32, 3] -> numbers [B, S]."""
    torch.manual_seed(4)
    drawn, words = draw_many(kind, 8000, 5, unseen=False)
    flat = drawn.flatten(1, -3)  # frames are channels
    size = len(vocabulary_of(kind))
    net = nn.Sequential(
        nn.AdaptiveAvgPool2d(pictures.SIDE),  # of other sizes
        nn.Conv2d(flat.shape[1], 64, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(64, 96, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(96, 128, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(128, 128, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(2048, 256),
        nn.ReLU(),
        nn.Linear(256, size * words.shape[1]),
    )
    run = Run(
        Path("nothing/reader.pt"),
        net,
        [torch.optim.AdamW(net.parameters(), 2e-3)],
        seconds / 60,
        Average(net, 0.99),
    )
    while run.budget.progress < 1:
        index = torch.randint(len(flat), (64,))
        with torch.autocast("cpu", torch.bfloat16):
            said = net(flat[index].float() / 127.5 - 1).float().unflatten(1, (-1, size))
        run.update(F.cross_entropy(said.flatten(0, 1), words[index].flatten()))
    net.load_state_dict(run.average.weights)

    @torch.no_grad()
    def read(pixels: Tensor) -> Tensor:
        x = pixels.movedim(-1, 1).flatten(1, -3) * 2 - 1
        return net(x).unflatten(1, (-1, size)).argmax(dim=-1)

    return read


def check(folder: Path, seconds: float, count: int = 64) -> None:
    """Sample held-out captions at 50 plain steps: a contact sheet, and how many words a small
    network reads off them, beside those it reads off drawn pictures of held-out captions."""
    pipe, zoo = load(folder)
    kind, captions = KINDS[zoo.name], unseen(zoo, count, 0)
    made = sample(pipe, zoo, captions, 50, 0)
    tiles = (made[:16] * 255).round().byte()
    if zoo.frames > 1:  # frames side by side, two clips a row
        tiles = tiles.transpose(1, 2).flatten(2, 3)
    rows = tiles.unflatten(0, (-1, 2 if zoo.frames > 1 else 4))
    sheet = Image.fromarray(rows.transpose(1, 2).flatten(2, 3).flatten(0, 1).numpy())
    sheet.resize((sheet.width * 3, sheet.height * 3), Image.Resampling.NEAREST).save(
        folder / "sheet.png"
    )
    for caption in captions[:16]:
        print(" ".join(caption))
    read = train_reader(kind, seconds)
    number = {word: index for index, word in enumerate(zoo.vocabulary)}
    words = torch.tensor([[number[word] for word in caption] for caption in captions])
    drawn, theirs = draw_many(kind, 256, 6, unseen=True)
    drawn_right = (read(drawn.movedim(1, -1) / 255) == theirs).float().mean(dim=0)
    made_right = (read(made) == words).float().mean(dim=0)
    log(f"words read off drawn pictures {[round(float(v), 2) for v in drawn_right]}")
    log(f"words read off samples        {[round(float(v), 2) for v in made_right]}")
    log(f"sheet: {folder / 'sheet.png'}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", choices=[*KINDS, "check"])
    parser.add_argument("folder", type=Path, nargs="?", help="of a trained model, to check")
    parser.add_argument("--out", type=Path, default=Path("build/zoo"))
    parser.add_argument("--work", type=Path, default=Path("build/zoo-work"))
    parser.add_argument("--minutes", type=float, default=13.0, help="to train for")
    parser.add_argument("--samples", type=int, default=20_000, help="pictures to draw")
    parser.add_argument(
        "--compile", action=argparse.BooleanOptionalAction, default=True,
        help="without, where the loss is no number at once, as unet-letters' was without AMX",
    )  # fmt: skip
    parser.add_argument("--start", type=Path, help="folder of a trained model of another size")
    parser.add_argument("--reader-seconds", type=float, default=60.0, help="for the check")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.model == "check":
        check(args.folder, args.reader_seconds)
        return
    args.work.mkdir(parents=True, exist_ok=True)
    train(args.model, args.out, args.work, args.minutes, args.samples, args.compile, args.start)


if __name__ == "__main__":
    main()
