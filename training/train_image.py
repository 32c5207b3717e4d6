"""Train and export the demo-image model: a small FluxPipeline for captioned scenes.

    python training/train_image.py

In minutes of one core's processor time (Intel Xeon, AMX bf16): pictures 1.5, autoencoder 14,
latents 5, denoiser 76, decoder 8. Stages resume where they stopped. IMAGE.md has figures; the
shipped weights came out of one run from start to end.
"""

from __future__ import annotations

import argparse
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from common import Average, Run, know_order, log, word_t5_tokenizer
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
)
from scenes import MAX_TOKENS, SIDE, VOCABULARY, caption, draw, held_out, parse, sample_scene
from torch import nn
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

PICTURES = 48_000
# autoencoder
CROP = 64  # px
KL_WEIGHT = 1e-3
DECODER_NOISE = 0.2  # of the latents' deviation, at most
# denoiser
HEADS, HEAD = 6, 32  # attention heads and numbers in each; the width is their product
ROPE_AXES = (4, 14, 14)  # of a head's numbers: none turn by the first axis, 14 down, 14 across
CONSTANT = 6.0  # norm of the constant part of an embedded token; its own part has about 4
PLACE = 4.0  # norm of the constant part of queries and keys; the varying part has about 3
BATCH = 64
SINGLES_ONLY = 0.15  # of the time, before scenes of two things come in
SINGLES = 0.3  # share of scenes with one thing from then on
EARLY = 0.7  # noise level above which the text decides most: layout, shapes, colours
EARLY_SHARE = (0.6, 0.4)  # share of noise levels above it, at the start and at the end


# ---- pictures ----


def make_pictures(work: Path, count: int, fine: int) -> None:
    """Draw the training pictures and write their captions, none of them held out."""
    if (work / "captions.txt").exists():
        return
    rng = np.random.default_rng(0)
    shape = (count, fine * SIDE, fine * SIDE, 3)
    pictures = np.lib.format.open_memmap(work / "pictures.npy", "w+", np.uint8, shape)
    captions = []
    while len(captions) < count:
        scene = sample_scene(rng)
        if not held_out(scene):
            pictures[len(captions)] = draw(scene, rng, fine)
            captions.append(caption(scene))
    pictures.flush()
    (work / "captions.txt").write_text("\n".join(captions))
    log(f"{count} pictures")


def to_pixels(pictures: np.ndarray) -> torch.Tensor:
    """uint8 [B, H, W, 3] -> float [B, 3, H, W] in -1..1"""
    return torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2) / 127.5 - 1


# ---- autoencoder ----


def new_autoencoder() -> AutoencoderKL:
    """Eight times smaller each way, 4 channels; few channels where the resolution is full."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(16, 32, 64, 96),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=1,  # with more, a bare picture loses its colour: 3 dB less
        sample_size=SIDE,
        mid_block_add_attention=False,
        use_quant_conv=False,
        use_post_quant_conv=False,
        force_upcast=False,
    )


def crops(pictures: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Random crops; of each two tries the livelier is kept. -> [B, c, c, 3]"""
    chosen = []
    for index in rng.integers(len(pictures), size=count):
        corners = rng.integers(SIDE - CROP + 1, size=(2, 2))
        tries = [pictures[index, y : y + CROP, x : x + CROP] for y, x in corners]
        chosen.append(max(tries, key=lambda crop: crop[::4, ::4].std()))
    return np.stack(chosen)


def edges(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Differences between neighbouring pixels, across and down."""
    return x[..., 1:] - x[..., :-1], x[..., 1:, :] - x[..., :-1, :]


def reconstruction_loss(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """L1 and MSE, and L1 between the edges so that these stay crisp."""
    across, down = (F.l1_loss(a, b) for a, b in zip(edges(output), edges(target), strict=True))
    return F.l1_loss(output, target) + F.mse_loss(output, target) + across + down


class ConvMuon(torch.optim.Muon):
    """Muon for convolutions: each kernel is seen as a matrix, one row an output channel."""

    def __init__(self, kernels: list[nn.Parameter], lr: float) -> None:
        self.kernels = kernels
        matrices = [nn.Parameter(k.detach().view(len(k), -1)) for k in kernels]  # share memory
        super().__init__(matrices, lr=lr, weight_decay=0.0, adjust_lr_fn="match_rms_adamw")

    def step(self, closure: None = None) -> None:
        for matrix, kernel in zip(self.param_groups[0]["params"], self.kernels, strict=True):
            assert kernel.grad is not None
            matrix.grad = kernel.grad.reshape(matrix.shape)
        super().step()


def autoencoder_optimizers(vae: AutoencoderKL) -> list[torch.optim.Optimizer]:
    """Muon was 1.5 dB ahead of AdamW alone after a minute, in one run of each."""
    trained = [p for p in vae.parameters() if p.requires_grad]
    kernels = [p for p in trained if p.ndim == 4]
    others = [p for p in trained if p.ndim != 4]
    return [ConvMuon(kernels, lr=8e-3), torch.optim.AdamW(others, lr=2e-3)]


def train_autoencoder(work: Path, minutes: float) -> AutoencoderKL:
    """Train on crops, then for the last fifth of the time on full pictures, as it will be used."""
    torch.manual_seed(0)
    rng = np.random.default_rng(1)
    path = work / "autoencoder.pt"
    pictures = np.load(work / "pictures.npy", mmap_mode="r")
    vae = new_autoencoder()
    both = autoencoder_optimizers(vae)
    run = Run(path, vae, both, minutes, Average(vae, 0.998))
    while run.budget.progress < 1:
        full = run.budget.progress > 0.8
        batch = pictures[rng.integers(len(pictures), size=3)] if full else crops(pictures, 8, rng)
        target = to_pixels(batch)
        with torch.autocast("cpu", torch.bfloat16):
            posterior = vae.encode(target).latent_dist
            output = vae.decode(posterior.sample()).sample.float()
        kl = posterior.kl().mean() / posterior.mean[0].numel()
        run.update(reconstruction_loss(output, target) + KL_WEIGHT * kl)
        if run.step % 500 == 0:
            run.save()
    run.save()
    vae.load_state_dict(run.average.weights)
    return vae.eval().requires_grad_(False)


# ---- latents ----


@torch.no_grad()
def make_latents(work: Path, vae: AutoencoderKL) -> None:
    """Encode pictures once, [N, 64 tokens, 16] with mean 0, deviation 1; save the autoencoder."""
    if (work / "vae").exists():
        return
    pictures = np.load(work / "pictures.npy", mmap_mode="r")
    latents = np.empty((len(pictures), (pictures.shape[1] // 16) ** 2, 16), np.float16)
    for start in range(0, len(pictures), 32):
        with torch.autocast("cpu", torch.bfloat16):
            mean = vae.encode(to_pixels(pictures[start : start + 32])).latent_dist.mean.float()
        packed = FluxPipeline._pack_latents(mean, len(mean), *mean.shape[1:])
        latents[start : start + 32] = packed.numpy()
    shift = float(latents.mean(dtype=np.float64))
    deviation = float(latents.std(dtype=np.float64))
    np.save(
        work / "latents.npy",
        ((latents - np.float32(shift)) / np.float32(deviation)).astype(np.float16),
    )
    vae.register_to_config(shift_factor=shift, scaling_factor=1 / deviation)
    vae.save_pretrained(work / "vae")
    log(f"latents: mean {shift:.4f}, deviation {deviation:.4f}")


def train_decoder(work: Path, minutes: float) -> None:
    """Train the decoder on, the latents staying as they are but for some noise: it learns to tidy
    what a denoiser leaves. The folder of the autoencoder is written anew at the end."""
    torch.manual_seed(3)
    rng = np.random.default_rng(4)
    pictures = np.load(work / "pictures.npy", mmap_mode="r")
    vae = AutoencoderKL.from_pretrained(work / "vae").train()
    vae.encoder.requires_grad_(False)
    deviation = 1 / vae.config.scaling_factor
    run = Run(work / "decoder.pt", vae, autoencoder_optimizers(vae), minutes, Average(vae, 0.998))
    while run.budget.progress < 1:
        target = to_pixels(pictures[rng.integers(len(pictures), size=3)])
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            latents = vae.encode(target).latent_dist.mean
        noise = DECODER_NOISE * deviation * torch.rand(len(target), 1, 1, 1)
        with torch.autocast("cpu", torch.bfloat16):
            output = vae.decode(latents + noise * torch.randn_like(latents)).sample.float()
        run.update(reconstruction_loss(output, target))
        if run.step % 500 == 0:
            run.save()
    run.save()
    vae.load_state_dict(run.average.weights)
    vae.save_pretrained(work / "vae-tidy")


# ---- text ----


def clip_tokenizer(words: list[str]) -> CLIPTokenizer:
    """A byte-pair tokenizer with one token a word.

    Each word gets the merges that the merges so far leave open. Earlier merges come first, so later
    ones never change how an earlier word is split.
    """
    letters = "abcdefghijklmnopqrstuvwxyz0123456789.,-'"
    vocabulary = [*letters, *(letter + "</w>" for letter in letters)]
    merges: list[tuple[str, str]] = []
    for word in words:
        pieces = [*word[:-1], word[-1] + "</w>"]
        while len(pieces) > 1:
            pairs = list(pairwise(pieces))
            pair = min(pairs, key=lambda p: merges.index(p) if p in merges else len(merges))
            if pair not in merges:
                merges.append(pair)
            if "".join(pair) not in vocabulary:
                vocabulary.append("".join(pair))
            at = pairs.index(pair)
            pieces[at : at + 2] = ["".join(pair)]
    vocabulary += ["<|startoftext|>", "<|endoftext|>"]
    ids = {piece: number for number, piece in enumerate(vocabulary)}
    return CLIPTokenizer(vocab=ids, merges=merges, model_max_length=77)


def check_words(tokenizer: CLIPTokenizer | T5Tokenizer, specials: int) -> None:
    """Fail unless every word and comma of the grammar is one token."""
    text = " ".join(["a", *VOCABULARY]).replace(" ,", ",")
    ids = tokenizer(text).input_ids
    expected = len(VOCABULARY) + 1 + specials
    if len(ids) != expected or tokenizer.unk_token_id in ids[1:-1]:
        raise RuntimeError(f"{tokenizer.convert_ids_to_tokens(ids)} should be {expected} tokens")


def tokens(tokenizer: CLIPTokenizer | T5Tokenizer, texts: list[str], length: int) -> torch.Tensor:
    """Token numbers, padded as the pipeline pads them. -> [B, length]"""
    return tokenizer(
        texts, padding="max_length", max_length=length, truncation=True, return_tensors="pt"
    ).input_ids


# ---- denoiser ----


class CaptionedDenoiser(nn.Module):
    """The transformer with both text encoders, trained as one."""

    def __init__(self, clip_words: CLIPTokenizer, t5_words: int, fine: int = 1) -> None:
        super().__init__()
        self.clip = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(clip_words),
                hidden_size=96,
                intermediate_size=192,
                num_hidden_layers=1,
                num_attention_heads=3,
                max_position_embeddings=77,
                bos_token_id=clip_words.bos_token_id,
                eos_token_id=clip_words.eos_token_id,
                pad_token_id=clip_words.pad_token_id,
            )
        )
        self.t5 = T5EncoderModel(
            T5Config(
                vocab_size=t5_words,
                d_model=128,
                d_kv=32,
                d_ff=384,
                num_layers=2,
                num_heads=4,
                dropout_rate=0.0,
            )
        )
        self.transformer = FluxTransformer2DModel(
            patch_size=1,
            in_channels=16,
            num_layers=2,
            num_single_layers=4,
            attention_head_dim=HEAD,
            num_attention_heads=HEADS,
            joint_attention_dim=128,
            pooled_projection_dim=96,
            guidance_embeds=False,
            axes_dims_rope=ROPE_AXES,
        )
        know_order(self.t5)
        start_simple(self.transformer)
        know_places(self.transformer)
        positions = FluxPipeline._prepare_latent_image_ids(
            1, 8 * fine, 8 * fine, torch.device("cpu"), torch.float32
        )
        self.register_buffer("image_ids", positions, persistent=False)
        self.register_buffer("text_ids", torch.zeros(MAX_TOKENS, 3), persistent=False)

    def forward(
        self, latents: torch.Tensor, sigma: torch.Tensor, clip: torch.Tensor, t5: torch.Tensor
    ) -> torch.Tensor:
        """Velocity noise - picture. [B, 64, 16], [B], [B, 21], [B, 20] -> [B, 64, 16]"""
        return self.transformer(
            hidden_states=latents,
            timestep=sigma,
            pooled_projections=self.clip(clip).pooler_output,
            encoder_hidden_states=self.t5(t5)[0],
            img_ids=self.image_ids,
            txt_ids=self.text_ids,
            return_dict=False,
        )[0]


class PlainAttention:
    """Attention for training: by matrix products, which here are twice as fast as the fused one.

    It computes what the transformer's own processor does, which the exported model uses.
    """

    def __init__(self, head: int) -> None:
        turn = torch.zeros(head, head)  # x @ turn: each pair of numbers (a, b) becomes (-b, a)
        even = torch.arange(0, head, 2)
        turn[even + 1, even], turn[even, even + 1] = -1.0, 1.0
        self.turn = turn

    def __call__(
        self,
        attn: nn.Module,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: None = None,
        image_rotary_emb: tuple[torch.Tensor, torch.Tensor] | None = None,
    ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        """[B, image, W], [B, text, W] -> the same; or one stream, [B, text + image, W]."""
        assert image_rotary_emb is not None

        def heads(x: torch.Tensor) -> torch.Tensor:
            return x.unflatten(-1, (attn.heads, -1))  # [B, tokens, heads, head]

        query = attn.norm_q(heads(attn.to_q(hidden_states)))
        key = attn.norm_k(heads(attn.to_k(hidden_states)))
        value = heads(attn.to_v(hidden_states))
        if encoder_hidden_states is not None:
            text_query = attn.norm_added_q(heads(attn.add_q_proj(encoder_hidden_states)))
            text_key = attn.norm_added_k(heads(attn.add_k_proj(encoder_hidden_states)))
            text_value = heads(attn.add_v_proj(encoder_hidden_states))
            query = torch.cat([text_query, query], 1)
            key = torch.cat([text_key, key], 1)
            value = torch.cat([text_value, value], 1)
        cos, sin = (part[:, None] for part in image_rotary_emb)
        query = (query * cos + (query @ self.turn) * sin).transpose(1, 2)
        key = (key * cos + (key @ self.turn) * sin).transpose(1, 2)
        scores = (query * attn.head_dim**-0.5) @ key.transpose(2, 3)
        output = (scores.softmax(-1) @ value.transpose(1, 2)).transpose(1, 2).flatten(2)
        if encoder_hidden_states is None:
            return output
        text = encoder_hidden_states.shape[1]
        return attn.to_out[0](output[:, text:]), attn.to_add_out(output[:, :text])


@torch.no_grad()
def start_simple(transformer: FluxTransformer2DModel) -> None:
    """Start with blocks that do nothing and a velocity near the input, its value at noise level 1.

    The input is embedded by orthonormal columns and read back by their transpose. A constant
    across from them makes the last LayerNorm divide by nearly the same number for every token.
    """
    for name, parameter in transformer.named_parameters():
        if is_modulation(name):
            nn.init.zeros_(parameter)
    width, channels = transformer.x_embedder.weight.shape
    ones = torch.ones(width, 1)
    basis = torch.linalg.qr(torch.cat([ones, torch.randn(width, channels + 1)], 1)).Q[:, 1:]
    transformer.x_embedder.weight.copy_(basis[:, :-1])
    transformer.x_embedder.bias.copy_(CONSTANT * basis[:, -1])
    norm = (channels + CONSTANT**2) ** 0.5  # of an embedded token, about
    transformer.proj_out.weight.copy_(basis[:, :-1].T * norm / width**0.5)
    nn.init.zeros_(transformer.proj_out.bias)


@torch.no_grad()
def know_places(transformer: FluxTransformer2DModel) -> None:
    """Let four heads of the first blocks look at the text more or less by the token's place.

    Rotary positions are relative; only towards the text, which is at (0, 0), do they tell where a
    token is. Constant parts of query and key make that score the sine of the place, across and
    down, at the two highest frequencies.
    """
    for block in transformer.transformer_blocks:
        query, key = block.attn.to_q.bias, block.attn.add_k_proj.bias
        for head, (axis, pair) in enumerate([(1, 1), (2, 1), (1, 0), (2, 0)]):
            size = ROPE_AXES[axis]
            at = HEAD * head + sum(ROPE_AXES[:axis]) + 2 * pair
            angle = torch.tensor(-3.5 * 10_000 ** (-2 * pair / size) - torch.pi / 2)
            query[at : at + 2] = PLACE * torch.stack([angle.cos(), angle.sin()])
            key[at : at + 2] = PLACE * torch.tensor([1.0, 0.0])


def is_modulation(name: str) -> bool:
    """Whether a parameter of the transformer scales and shifts by the timestep."""
    return any(
        part in name
        for part in ("norm1.linear", "norm1_context.linear", ".norm.linear", "norm_out.linear")
    )


def optimizers(model: CaptionedDenoiser) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the transformer's blocks, AdamW for all else, slowly for T5.

    Muon makes steps of full size from any gradient, however small: under it T5's queries and keys
    wandered until words looked at words regardless of their order.
    """
    inner, outer = [], []
    for name, parameter in model.named_parameters():
        matrix = parameter.ndim == 2 and ".weight" in name and "transformer_blocks" in name
        if not name.startswith("t5."):
            (inner if matrix and not is_modulation(name) else outer).append(parameter)
    words = {"params": list(model.t5.parameters()), "lr": 5e-4}
    return [
        torch.optim.Muon(
            inner, lr=5e-3, momentum=0.95, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"
        ),
        torch.optim.AdamW(
            [{"params": outer}, words], lr=1.5e-3, betas=(0.9, 0.98), weight_decay=0.0
        ),
    ]


def sample_sigmas(count: int, share: float) -> torch.Tensor:
    """Noise levels in 0..1, spread evenly over the batch, a share of them above EARLY. -> [B]"""
    even = (torch.arange(count) + torch.rand(count)) / count
    early = EARLY + (1 - EARLY) * even / share
    late = EARLY * ((even - share).clamp(min=0) / (1 - share)).sqrt()
    return torch.where(even < share, early, late)


class Batches:
    """Random latents with the tokens of their captions; one caption in ten is left empty."""

    def __init__(self, work: Path, clip: CLIPTokenizer, t5: T5Tokenizer) -> None:
        self.latents = torch.from_numpy(np.load(work / "latents.npy"))
        texts = (work / "captions.txt").read_text().splitlines()[: len(self.latents)]
        wordy = [
            t.replace("left of", "to the left of").replace("right of", "to the right of")
            for t in texts
        ]
        everything = [*texts, *wordy, ""]
        self.clip = tokens(clip, everything, MAX_TOKENS + 1)
        self.t5 = tokens(t5, everything, MAX_TOKENS)
        scenes = [parse(text) for text in texts]
        two = torch.tensor([scene is not None and len(scene.things) == 2 for scene in scenes])
        self.singles, self.pairs = (~two).nonzero()[:, 0], two.nonzero()[:, 0]

    def draw(self, count: int, singles: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """-> latents [B, 64, 16], CLIP tokens [B, 21], T5 tokens [B, 20]"""
        single = self.singles[torch.randint(len(self.singles), (count,))]
        pair = self.pairs[torch.randint(len(self.pairs), (count,))]
        index = torch.where(torch.rand(count) < singles, single, pair)
        text = index + len(self.latents) * torch.randint(2, (count,))
        text[torch.rand(count) < 0.1] = len(self.clip) - 1
        return self.latents[index].float(), self.clip[text], self.t5[text]


def train_denoiser(
    work: Path,
    out: Path,
    minutes: float,
    batch: int,
    compiled: bool,
    fine: int,
    start: Path | None,
) -> None:
    """Train as a rectified flow; save and export the averaged weights every five minutes. `start`
    is the folder of a trained model to begin with."""
    torch.manual_seed(2)
    clip, t5 = clip_tokenizer(VOCABULARY), word_t5_tokenizer(VOCABULARY, 512)
    check_words(clip, specials=2)
    check_words(t5, specials=1)
    batches = Batches(work, clip, t5)
    model = CaptionedDenoiser(clip, len(t5), fine)
    if start:
        begin_as(model, start)
    run = Run(work / "denoiser.pt", model, optimizers(model), minutes, Average(model, 0.998))
    model.transformer.set_attn_processor(PlainAttention(HEAD))
    if compiled:
        model.transformer.compile()
    saved = run.budget.spent
    while run.budget.progress < 1:
        singles = 1.0 if run.budget.progress < SINGLES_ONLY and not start else SINGLES
        latents, clip_ids, t5_ids = batches.draw(batch, singles)
        share = EARLY_SHARE[0] + run.budget.progress * (EARLY_SHARE[1] - EARLY_SHARE[0])
        noise, sigma = torch.randn_like(latents), sample_sigmas(batch, share)
        noisy = torch.lerp(latents, noise, sigma[:, None, None])
        with torch.autocast("cpu", torch.bfloat16):
            velocity = model(noisy, sigma, clip_ids, t5_ids)
        run.update(F.mse_loss(velocity.float(), noise - latents))
        if run.budget.spent - saved > 300:
            saved = run.budget.spent
            run.save()
            export(work, out)
    run.save()


def begin_as(model: CaptionedDenoiser, start: Path) -> None:
    """Take over the weights of a trained pipeline."""
    pipe = FluxPipeline.from_pretrained(start, dtype=torch.float32)
    model.clip.load_state_dict(pipe.text_encoder.state_dict())
    model.t5.load_state_dict(pipe.text_encoder_2.state_dict())
    model.transformer.load_state_dict(pipe.transformer.state_dict())


# ---- export ----


def export(work: Path, out: Path) -> None:
    """Write the pipeline with the averaged weights, float16; the folder is replaced at once."""
    clip, t5 = clip_tokenizer(VOCABULARY), word_t5_tokenizer(VOCABULARY, 512)
    model = CaptionedDenoiser(clip, len(t5))
    model.load_state_dict(torch.load(work / "denoiser.pt")["average"])
    tidy = work / "vae-tidy"
    pipe = FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(
            shift=3.0,
            use_dynamic_shifting=True,
            base_shift=0.5,
            max_shift=1.15,
            base_image_seq_len=256,
            max_image_seq_len=4096,
        ),
        vae=AutoencoderKL.from_pretrained(tidy if tidy.exists() else work / "vae"),
        text_encoder=model.clip,
        tokenizer=clip,
        text_encoder_2=model.t5,
        tokenizer_2=t5,
        transformer=model.transformer,
    )
    for module in (pipe.vae, pipe.text_encoder, pipe.text_encoder_2, pipe.transformer):
        module.to(torch.float16)
    part = out.with_name(out.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    pipe.save_pretrained(part)
    if out.exists():
        old = out.rename(out.with_name(out.name + ".old"))
        part.rename(out)
        shutil.rmtree(old)
    else:
        part.rename(out)
    size = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
    log(f"exported to {out}, {size / 1e6:.2f} MB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("build/demo-image"))
    parser.add_argument("--out", type=Path, default=Path("spectrum/models/demo-image"))
    parser.add_argument("--pictures", type=int, default=PICTURES)
    parser.add_argument("--autoencoder-minutes", type=float, default=14)
    parser.add_argument("--decoder-minutes", type=float, default=8)
    parser.add_argument("--minutes", type=float, default=76, help="for the denoiser")
    parser.add_argument("--batch", type=int, default=BATCH, help="for the denoiser")
    parser.add_argument("--fine", type=int, default=1, help="pictures of so many times the side")
    parser.add_argument(
        "--start",
        type=Path,
        help="a trained pipeline to go on from; its autoencoder stays as it is",
    )
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.work.mkdir(parents=True, exist_ok=True)
    make_pictures(args.work, args.pictures, args.fine)
    if args.start:
        vae = AutoencoderKL.from_pretrained(args.start / "vae", dtype=torch.float32)
    else:
        vae = train_autoencoder(args.work, args.autoencoder_minutes)
    make_latents(args.work, vae)
    train_denoiser(
        args.work, args.out, args.minutes, args.batch, args.compile, args.fine, args.start
    )
    if not args.start:
        train_decoder(args.work, args.decoder_minutes)
    export(args.work, args.out)


if __name__ == "__main__":
    main()
