"""Train the demo-video model, a tiny but real WanPipeline, from nothing on one CPU thread.

    python training/train_video.py

Every stage resumes from its checkpoint in --work. In minutes of one core's processor time (Intel
Xeon, AMX bf16): autoencoder 30, latents 4, denoiser 64, decoder 14. VIDEO.md has figures; the
shipped weights came out of one run from start to end.
"""

from __future__ import annotations

import argparse
import os
import shutil
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
import torch.nn.functional as F
from clips import FRAMES, SIDE, VOCABULARY, Clip, caption, draw, is_held_out, sample_clip
from common import (
    FIRST_LINES,
    Average,
    Budget,
    finite,
    know_order,
    log,
    rate,
    save,
    set_rate,
    word_t5_tokenizer,
)
from diffusers import (
    AutoencoderKLWan,
    UniPCMultistepScheduler,
    WanPipeline,
    WanTransformer3DModel,
)
from fast_wan import speed_up
from torch import Tensor, nn
from transformers import UMT5Config, UMT5EncoderModel

LATENT_CHANNELS = 8
TEXT_LENGTH = (
    16  # tokens, captions have 12 at most; the pipeline's max_sequence_length must be the same
)
TEXT_WIDTH = 128
MUON_RATE, ADAMW_RATE, WORD_RATE = 3e-3, 1.5e-3, 5e-4
FLOW_SHIFT = 3.0  # as Wan 2.1 at 480p
DECODER_NOISE = 0.2  # of the latents' deviation, at most: the decoder learns to tidy samples
KL_WEIGHT = 5e-4  # smooth latents: small errors of the denoiser stay small in the clip
CROPS = ((16, 1, 32),), ((6, 9, 32), (3, 17, 32))  # (batch, frames, px): pictures, then clips
DRAWN = 1500  # clips that the autoencoder's crops are cut from
HARD, EASY_SHARE = ("star", "cross"), 0.6  # notches fill up first; of the others so many are kept


def training_clips(count: int, rng: np.random.Generator) -> list[Clip]:
    """Random clips whose words are not held out; more of the shapes that are hard to draw."""
    clips: list[Clip] = []
    while len(clips) < count:
        clip = sample_clip(rng)
        if not is_held_out(clip) and (clip.shape in HARD or rng.random() < EASY_SHARE):
            clips.append(clip)
    return clips


def to_tensor(videos: np.ndarray) -> Tensor:
    """8-bit [B, F, H, W, 3] -> [-1, 1] [B, 3, F, H, W]."""
    return torch.from_numpy(videos).permute(0, 4, 1, 2, 3).float() / 127.5 - 1


def build_autoencoder(
    mean: list[float] | None = None, std: list[float] | None = None
) -> AutoencoderKLWan:
    """8x in space (2x of it by folding pixels into channels, as Wan2.2 does), 4x in time."""
    return AutoencoderKLWan(
        base_dim=16,
        decoder_base_dim=24,
        z_dim=LATENT_CHANNELS,
        dim_mult=[1, 2, 4],
        num_res_blocks=1,
        temperal_downsample=[True, True],
        in_channels=12,
        out_channels=12,
        patch_size=2,
        scale_factor_temporal=4,
        scale_factor_spatial=8,
        latents_mean=mean or [0.0] * LATENT_CHANNELS,
        latents_std=std or [1.0] * LATENT_CHANNELS,
    )


@torch.no_grad()
def start_as_picture_model(model: AutoencoderKLWan) -> None:
    """Make every frame pass through alone at first: colours and edges are learned from pictures.

    Spatial convolutions look at the newest frame only; those that halve or double time copy.
    """
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv3d) and name.endswith("time_conv"):
            inputs = module.in_channels
            module.weight.zero_()
            nn.init.zeros_(module.bias)
            outputs = torch.arange(module.out_channels)
            module.weight[outputs, outputs % inputs, -1] = 1.0
        elif isinstance(module, nn.Conv3d) and module.kernel_size[0] == 3:
            module.weight[:, :, :2] = 0.0
            module.weight[:, :, 2] *= 3.0
    model.quant_conv.bias[LATENT_CHANNELS:] = -6.0  # log variance: start with little noise


def random_crops(
    videos: np.ndarray, batch: int, frames: int, size: int, rng: np.random.Generator
) -> Tensor:
    """Cut short small pieces, the busier of two candidates each -> [B, 3, frames, size, size]."""
    pieces = []
    for index in rng.integers(len(videos), size=batch):
        start = rng.integers(FRAMES - frames + 1)
        corners = rng.integers(SIDE - size + 1, size=(2, 2))
        clip = videos[index, start : start + frames]
        found = [clip[:, y : y + size, x : x + size] for y, x in corners]
        pieces.append(max(found, key=lambda piece: piece[0].std()))
    return to_tensor(np.stack(pieces))


def autoencoder_loss(model: AutoencoderKLWan, x: Tensor, decoder_only: bool = False) -> Tensor:
    """L1 + MSE of pixels, L1 of their differences (crisp edges), some KL for the encoder."""
    with torch.autocast("cpu", torch.bfloat16):
        posterior = model.encode(x).latent_dist
        z = posterior.mode() if decoder_only else posterior.sample()
        if decoder_only:
            noise = DECODER_NOISE * torch.rand(len(x), 1, 1, 1, 1) * torch.randn(z.shape)
            z = z + noise * torch.tensor(model.config.latents_std).view(1, -1, 1, 1, 1)
        y = model.decode(z).sample
    error = y.float() - x
    edges = sum(error.diff(dim=a).abs().mean() for a in (2, 3, 4) if error.shape[a] > 1)
    loss = error.abs().mean() + error.square().mean() + 0.5 * edges
    if decoder_only:
        return loss
    kl = 0.5 * (posterior.mean.square() + posterior.var - 1 - posterior.logvar).mean()
    return loss + KL_WEIGHT * kl


@torch.no_grad()
def reconstruction_psnr(model: AutoencoderKLWan, x: Tensor) -> float:
    """Mean PSNR in dB over clips [B, 3, F, H, W]."""
    y = model.decode(model.encode(x).latent_dist.mode()).sample
    error = ((y - x) / 2).square().mean(dim=(1, 2, 3, 4))
    return float((-10 * error.log10()).mean())


def as_matrix(kernel: Tensor) -> Tensor:
    """[out, in, ...] -> [out, the rest], without a copy where the channels lie last in memory."""
    return kernel.movedim(1, -1).flatten(1)


class AutoencoderOptimizer:
    """Muon for the convolutions, each seen as a matrix, and AdamW for the rest."""

    def __init__(self, model: nn.Module) -> None:
        trained = [p for p in model.parameters() if p.requires_grad]
        self.kernels = [p for p in trained if p.ndim > 3 and p.shape[1] > 1]
        others = [p for p in trained if p.ndim <= 3 or p.shape[1] == 1]
        self.matrices = [nn.Parameter(as_matrix(kernel.data)) for kernel in self.kernels]
        self.both = [
            torch.optim.Muon(
                self.matrices, lr=5e-3, weight_decay=0.0, adjust_lr_fn="match_rms_adamw"
            ),
            torch.optim.AdamW(others, lr=2e-3, betas=(0.9, 0.99), weight_decay=0.0),
        ]

    def step(self, fraction: float) -> None:
        """One step with this fraction of the peak learning rates."""
        for matrix, kernel in zip(self.matrices, self.kernels, strict=True):
            matrix.grad = None if kernel.grad is None else as_matrix(kernel.grad)
        for optimizer in self.both:
            set_rate(optimizer, fraction)
            optimizer.step()


def train_autoencoder(
    work: Path, minutes: float, drawn: int = DRAWN, decoder_only: bool = False, seed: int = 1
) -> None:
    """Train on crops for a time budget, a fifth of it on pictures; resumes from its checkpoint.

    With decoder_only the trained encoder stays as it is, so that its latents stay valid.
    """
    stored = work / ("decoder.pt" if decoder_only else "autoencoder.pt")
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    videos = np.stack([draw(clip, rng) for clip in training_clips(drawn, rng)])
    unseen = to_tensor(np.stack([draw(sample_clip(rng), rng) for _ in range(8)]))
    step, budget, saved = 0, Budget(minutes), 0.0
    if decoder_only:
        model = build_autoencoder(*torch.load(work / "statistics.pt"))
        model.load_state_dict(torch.load(work / "autoencoder.pt")["average"])
        model.encoder.requires_grad_(False)
        model.quant_conv.requires_grad_(False)
    else:
        model = build_autoencoder()
        start_as_picture_model(model)
    for module in model.modules():  # a quarter faster
        if isinstance(module, nn.Conv2d | nn.Conv3d):
            last = torch.channels_last if module.weight.ndim == 4 else torch.channels_last_3d
            module.weight.data = module.weight.data.contiguous(memory_format=last)
    average, optimizer = Average(model, 0.995), AutoencoderOptimizer(model)
    if stored.exists():
        state = torch.load(stored)
        model.load_state_dict(state["model"])
        for kept, part in zip(state["optimizers"], optimizer.both, strict=True):
            part.load_state_dict(kept)
        average.weights, average.updates = state["average"], state["step"]
        step, saved, budget = state["step"], state["spent"], Budget(minutes, state["spent"])
    while budget.progress < 1:
        crops = CROPS[decoder_only or budget.progress > 0.2]
        x = random_crops(videos, *crops[step % len(crops)], rng)
        loss = autoencoder_loss(model, x, decoder_only)
        model.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step(rate(budget.progress))
        average.update(model)
        step += 1
        if budget.spent - saved > 90 or budget.progress == 1:
            saved = budget.spent
            state = {"model": model.state_dict(), "average": average.weights}
            state |= {"optimizers": [part.state_dict() for part in optimizer.both]}
            save(state | {"step": step, "spent": saved}, stored)
            psnr = reconstruction_psnr(load_autoencoder(work), unseen)
            log(f"{stored.stem} {step} {saved:.0f} s loss {loss.item():.4f} psnr {psnr:.2f}")


def load_autoencoder(work: Path) -> AutoencoderKLWan:
    """The trained autoencoder, with the latents' statistics once they are measured."""
    statistics = work / "statistics.pt"
    mean, std = torch.load(statistics) if statistics.exists() else (None, None)
    model = build_autoencoder(mean, std)
    finer = work / "decoder.pt"
    stored = finer if finer.exists() else work / "autoencoder.pt"
    model.load_state_dict(torch.load(stored)["average"])
    return model.eval()


@torch.no_grad()
def encode_clips(work: Path, count: int, seed: int = 2) -> None:
    """Draw and encode the training clips; resumes from work/latents.pt."""
    model, batch = load_autoencoder(work), 16
    stored = work / "latents.pt"
    captions, latents = torch.load(stored) if stored.exists() else ([], [])
    while len(latents) < count:
        rng = np.random.default_rng((seed, len(latents)))
        clips = training_clips(batch, rng)
        x = to_tensor(np.stack([draw(clip, rng) for clip in clips]))
        with torch.autocast("cpu", torch.bfloat16):
            z = model.encode(x).latent_dist.mode()  # [B, 8, 5, 8, 8]
        captions += [caption(clip) for clip in clips]
        latents += list(z.half())
        if len(latents) % (64 * batch) == 0 or len(latents) >= count:
            save((captions, latents), stored)
            log(f"latents {len(latents)}")
    z = torch.stack(latents).float()
    mean, std = z.mean(dim=(0, 2, 3, 4)), z.std(dim=(0, 2, 3, 4))
    save((mean.tolist(), std.tolist()), work / "statistics.pt")


def build_text_encoder(vocabulary: int) -> UMT5EncoderModel:
    """Two small layers, trained with the denoiser; they start by looking at a word's neighbours."""
    config = UMT5Config(
        vocab_size=vocabulary,
        d_model=TEXT_WIDTH,
        d_kv=32,
        num_heads=4,
        d_ff=256,
        num_layers=2,
        dropout_rate=0.0,
    )
    encoder = UMT5EncoderModel(config)
    know_order(encoder)
    return encoder


def build_denoiser() -> WanTransformer3DModel:
    """80 tokens of width 192 for a 17 x 64 x 64 clip; initialised as Wan is, but for the ends.

    A patch goes in and comes out through the same orthogonal matrix, so that the velocity starts
    as the noisy latents (0.8 of them, right for a noise level of 0.75) and texts say little.
    """
    model = WanTransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=3,
        attention_head_dim=64,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        text_dim=TEXT_WIDTH,
        freq_dim=128,
        ffn_dim=512,
        num_layers=6,
        cross_attn_norm=True,
        qk_norm="rms_norm_across_heads",
        rope_max_seq_len=64,
    )
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
    nn.init.zeros_(model.condition_embedder.time_proj.weight)
    gain = (192 / (4 * LATENT_CHANNELS)) ** 0.5  # tokens of variance 1
    patches = nn.init.orthogonal_(model.patch_embedding.weight, gain)  # [192, channels, 1, 2, 2]
    with torch.no_grad():
        model.proj_out.weight.copy_(0.8 / gain**2 * patches.permute(2, 3, 4, 1, 0).flatten(0, 3))
        for block in model.blocks:
            block.attn2.to_out[0].weight *= 0.2
    return model


class Denoiser(nn.Module):
    """Text encoder and transformer, called just as the pipeline calls them."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.text_encoder = build_text_encoder(vocabulary)
        self.transformer = build_denoiser()

    def forward(self, x: Tensor, sigma: Tensor, tokens: Tensor) -> Tensor:
        """x [B, 8, T, H, W], sigma [B], tokens [B, 16] -> the velocity, noise - clean."""
        mask = tokens.ne(0)
        length = int(mask.sum(dim=1).max())  # the encoder need not see the common padding
        text = self.text_encoder(tokens[:, :length], mask[:, :length]).last_hidden_state
        text = F.pad(text * mask[:, :length, None], (0, 0, 0, TEXT_LENGTH - length))
        return self.transformer(x, sigma * 1000, text, return_dict=False)[0]


def sample_sigmas(count: int) -> Tensor:
    """Noise levels in (0, 1): logit-normal, one in seven uniform, then the sampler's shift."""
    level = torch.where(torch.rand(count) < 1 / 7, torch.rand(count), torch.randn(count).sigmoid())
    return FLOW_SHIFT * level / (1 + (FLOW_SHIFT - 1) * level)


def flow_loss(model: Denoiser, x: Tensor, tokens: Tensor) -> Tensor:
    """Rectified flow: predict noise - clean from their mixture."""
    sigma, noise = sample_sigmas(len(x)), torch.randn_like(x)
    mixing = sigma.view(-1, 1, 1, 1, 1)
    with torch.autocast("cpu", torch.bfloat16):
        velocity = model((1 - mixing) * x + mixing * noise, sigma, tokens)
    return F.mse_loss(velocity.float(), noise - x)


def build_optimizers(model: Denoiser) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the transformer's blocks (it learns faster at this size), AdamW for
    the rest, slowly for the words: Muon's steps of full size unlearn their order."""
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in model.transformer.named_parameters():
        is_matrix = parameter.ndim == 2 and name.startswith("blocks.") and name.endswith("weight")
        (matrices if is_matrix else others).append(parameter)
    words = {"params": list(model.text_encoder.parameters()), "lr": WORD_RATE}
    return [
        torch.optim.Muon(matrices, lr=MUON_RATE, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(
            [{"params": others}, words], lr=ADAMW_RATE, betas=(0.9, 0.99), weight_decay=0.0
        ),
    ]


def load_latents(work: Path) -> tuple[Tensor, Tensor, int]:
    """Normalised latents [N, 8, 5, 8, 8], tokens [N + 1, 16] (the last is ""), vocabulary size."""
    captions, latents = torch.load(work / "latents.pt")
    mean, std = (
        torch.tensor(value).view(1, -1, 1, 1, 1) for value in torch.load(work / "statistics.pt")
    )
    tokenizer = word_t5_tokenizer(VOCABULARY, TEXT_LENGTH)
    tokens = tokenizer(
        [*captions, ""], padding="max_length", max_length=TEXT_LENGTH, return_tensors="pt"
    ).input_ids
    return (torch.stack(latents).float() - mean) / std, tokens, len(tokenizer)


def train_denoiser(
    work: Path, minutes: float, batch: int = 64, compiled: bool = True, seed: int = 3
) -> None:
    """Train for a time budget; resumes from work/denoiser.pt."""
    latents, tokens, vocabulary = load_latents(work)
    torch.manual_seed(seed)
    model, step, budget, saved = Denoiser(vocabulary), 0, Budget(minutes), 0.0
    average, optimizers, losses = Average(model, 0.998), build_optimizers(model), []
    if (work / "denoiser.pt").exists():
        state = torch.load(work / "denoiser.pt")
        model.load_state_dict(state["model"])
        for optimizer, kept in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(kept)
        average.weights, average.updates = state["average"], state["step"]
        step, saved, budget = state["step"], state["spent"], Budget(minutes, state["spent"])
        torch.manual_seed(seed + step)
    if compiled:
        speed_up(model.transformer)
    while budget.progress < 1:
        picked = torch.randint(len(latents), (batch,))
        said = torch.where(torch.rand(batch) < 0.1, len(latents), picked)  # the last is ""
        loss = flow_loss(model, latents[picked], tokens[said])
        losses.append(finite(loss, f"step {step} of the denoiser"))
        model.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            set_rate(optimizer, rate(budget.progress))
            optimizer.step()
        average.update(model)
        step += 1
        if step % 25 == 0 or step in FIRST_LINES:
            log(f"denoiser {step} {budget.spent:.0f} s loss {np.mean(losses[-25:]):.4f}")
        if budget.spent - saved > 180 or budget.progress == 1:
            saved = budget.spent
            state = {"model": model.state_dict(), "average": average.weights}
            state |= {"optimizers": [optimizer.state_dict() for optimizer in optimizers]}
            save(state | {"step": step, "spent": saved}, work / "denoiser.pt")


def export(work: Path, out: Path) -> None:
    """Write the pipeline in half precision, replacing an older one in one go."""
    tokenizer = word_t5_tokenizer(VOCABULARY, TEXT_LENGTH)
    model = Denoiser(len(tokenizer))
    model.load_state_dict(torch.load(work / "denoiser.pt")["average"])
    pipeline = WanPipeline(
        tokenizer=tokenizer,
        text_encoder=model.text_encoder.half(),
        transformer=model.transformer.half(),
        vae=load_autoencoder(work).half(),
        scheduler=UniPCMultistepScheduler(
            prediction_type="flow_prediction",
            use_flow_sigmas=True,
            num_train_timesteps=1000,
            flow_shift=FLOW_SHIFT,
        ),
    )
    fresh, stale = out.with_name(out.name + ".new"), out.with_name(out.name + ".old")
    shutil.rmtree(fresh, ignore_errors=True)
    shutil.rmtree(stale, ignore_errors=True)
    pipeline.save_pretrained(fresh)  # makes the folders above as well
    for file in fresh.rglob("*.safetensors"):
        file.chmod(0o644)
    if out.exists():
        out.rename(stale)
    fresh.rename(out)
    shutil.rmtree(stale, ignore_errors=True)
    size = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
    log(f"{out}: {size / 1e6:.2f} MB")


def main() -> None:
    stages = ("autoencoder", "latents", "denoiser", "decoder", "export")
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path("build/demo-video"))
    parser.add_argument("--out", type=Path, default=Path("spectrum/models/demo-video"))
    parser.add_argument("--stages", nargs="+", choices=stages, default=stages)
    parser.add_argument("--autoencoder-minutes", type=float, default=30.0)
    parser.add_argument("--decoder-minutes", type=float, default=14.0)
    parser.add_argument("--clips", type=int, default=12288)
    parser.add_argument("--minutes", type=float, default=64.0, help="for the denoiser")
    parser.add_argument("--batch", type=int, default=64, help="for the denoiser")
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.backends.cuda.enable_flash_sdp(False)  # on a CPU too: its bf16 backward is slow there
    args.work.mkdir(parents=True, exist_ok=True)
    if "autoencoder" in args.stages:
        train_autoencoder(args.work, args.autoencoder_minutes, min(args.clips, DRAWN))
    if "latents" in args.stages:
        encode_clips(args.work, args.clips)
    if "denoiser" in args.stages:
        train_denoiser(args.work, args.minutes, args.batch, args.compile)
    if "decoder" in args.stages:
        train_autoencoder(args.work, args.decoder_minutes, min(args.clips, DRAWN), True)
    if "export" in args.stages:
        export(args.work, args.out)


if __name__ == "__main__":
    main()
