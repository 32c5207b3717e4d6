"""The arithmetic of a small Wan transformer arranged for one CPU core, for training.

Same parameters, same results: queries, keys and values of self-attention come from one product,
rotary positions from a product with a constant matrix (interleaved pairs are slow to pick apart),
softmax without a search for the maximum (queries and keys are normalised), and every step is one
that torch.compile can vectorise. Only training uses this; the exported model is diffusers' own.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from diffusers import WanTransformer3DModel
from diffusers.models.transformers.transformer_wan import WanAttention
from torch import Tensor, nn


def joint(linears: list[nn.Linear], x: Tensor) -> tuple[Tensor, ...]:
    """Several linear layers of one input [B, S, width] as one product."""
    weight = torch.cat([linear.weight for linear in linears])
    bias = torch.cat([linear.bias for linear in linears])
    return F.linear(x, weight, bias).split([linear.out_features for linear in linears], dim=-1)


def heads_of(x: Tensor, heads: int, gain: Tensor | None = None) -> Tensor:
    """[B, S, heads * D] -> [B, S, heads, D]; with a gain, RMS-normalised across all heads."""
    if gain is not None:
        wide = x.float()
        scale = (wide.square().mean(dim=-1, keepdim=True) + 1e-6).rsqrt()
        x = (wide * scale * gain).to(x.dtype)
    return x.unflatten(2, (heads, -1))


def rotate(x: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
    """Rotary positions: pairs (a, b) of [B, S, heads, D] -> (a cos - b sin, b cos + a sin)."""
    size = x.shape[-1]
    even = torch.arange(size) % 2 == 0
    step = torch.arange(size)[:, None] - torch.arange(size)[None, :]  # row - column
    turn = ((step == -1) & even[:, None]).float() - ((step == 1) & even[None, :]).float()
    return (x * rotary[0] + (x @ turn.to(x.dtype)) * rotary[1]).to(x.dtype)


class FastAttention:
    """Stands in for diffusers' WanAttnProcessor."""

    def __call__(
        self,
        attn: WanAttention,
        x: Tensor,
        text: Tensor | None = None,
        mask: Tensor | None = None,
        rotary: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """x [B, S, width], text [B, L, width] (None: x attends to itself) -> [B, S, width]."""
        if text is None:
            q, k, v = joint([attn.to_q, attn.to_k, attn.to_v], x)
        else:
            q, (k, v) = attn.to_q(x), joint([attn.to_k, attn.to_v], text)
        q = heads_of(q, attn.heads, attn.norm_q.weight)
        k = heads_of(k, attn.heads, attn.norm_k.weight)
        if rotary is not None:
            q, k = rotate(q, rotary), rotate(k, rotary)
        q, k, v = (part.transpose(1, 2) for part in (q, k, heads_of(v, attn.heads)))
        scores = (q @ k.transpose(-1, -2)).float() * q.shape[-1] ** -0.5
        weights = scores.clamp(max=60.0).exp()
        out = (weights.to(q.dtype) @ v).float() / weights.sum(dim=-1, keepdim=True)
        return attn.to_out[0](out.transpose(1, 2).flatten(2).to(x.dtype))


def gelu(x: Tensor) -> Tensor:
    """GELU in its tanh form, by way of one exponential."""
    wide = x.float()
    return (wide * torch.sigmoid(1.5957691216 * (wide + 0.044715 * wide**3))).to(x.dtype)


def speed_up(model: WanTransformer3DModel) -> None:
    """Replace the arithmetic of every block and compile them; needs a C++ compiler."""
    for block in model.blocks:
        block.attn1.set_processor(FastAttention())
        block.attn2.set_processor(FastAttention())
        block.ffn.net[0].gelu = gelu
    model.compile_repeated_blocks(dynamic=False)
