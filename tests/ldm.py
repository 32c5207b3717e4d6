"""A Stable Diffusion as its authors wrote it to a file, from diffusers' names of its weights."""

import re

_RESNET = {
    "norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0", "conv2": "out_layers.3", "conv_shortcut": "skip_connection",
}  # fmt: skip
_OUTSIDE = {
    "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0", "conv_norm_out": "out.0", "conv_out": "out.2",
    "mid_block.resnets.0": "middle_block.0", "mid_block.attentions.0": "middle_block.1",
    "mid_block.resnets.1": "middle_block.2",
}  # fmt: skip
_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}


def checkpoint(pipe):
    """Of U-Net, autoencoder and text encoder."""
    found = {}
    layers = pipe.unet.config.layers_per_block
    for name, value in pipe.unet.state_dict().items():
        found["model.diffusion_model." + _unet(name, layers)] = value
    for name, value in pipe.vae.state_dict().items():
        renamed = _vae(name, len(pipe.vae.config.block_out_channels))
        attends = re.search(r"attn_1\.(q|k|v|proj_out)\.weight", renamed)
        found["first_stage_model." + renamed] = value[..., None, None] if attends else value
    for name, value in pipe.text_encoder.state_dict().items():
        whole = name if name.startswith("text_model.") else f"text_model.{name}"
        found["cond_stage_model.transformer." + whole] = value
    return {name: value.contiguous().clone() for name, value in found.items()}


def _unet(name, layers):
    inner = re.match(r"(down|up)_blocks\.(\d+)\.(\w+)\.(\d+)", name)
    if not inner:
        ours = next(ours for ours in _OUTSIDE if name.startswith(f"{ours}."))
        return _OUTSIDE[ours] + _in_resnet(name.removeprefix(ours), "resnets" in ours)
    way, block, kind, at = inner[1], int(inner[2]), inner[3], int(inner[4])
    rest, begin = name[inner.end() :], int(way == "down") + block * (layers + 1)
    if kind == "downsamplers":
        return f"input_blocks.{begin + layers}.0.op{rest.removeprefix('.conv')}"
    if kind == "upsamplers":  # after an attention, if there is one: not in the first block
        return f"output_blocks.{begin + layers}.{1 if block == 0 else 2}{rest}"
    place = f"{'input' if way == 'down' else 'output'}_blocks.{begin + at}"
    return f"{place}.{int(kind == 'attentions')}{_in_resnet(rest, kind == 'resnets')}"


def _in_resnet(rest, is_resnet):
    part = rest.split(".")[1]
    return rest.replace(part, _RESNET[part], 1) if is_resnet else rest


def _vae(name, blocks):
    name = name.replace("mid_block.resnets.0", "mid.block_1")
    name = name.replace("mid_block.resnets.1", "mid.block_2")
    if "mid_block.attentions.0." in name:
        head, _, rest = name.partition("mid_block.attentions.0.")
        part, _, kind = rest.rpartition(".")
        return f"{head}mid.attn_1.{_ATTENTION[part]}.{kind}"
    name = re.sub(r"down_blocks\.(\d+)\.resnets\.(\d+)", r"down.\1.block.\2", name)
    name = re.sub(r"down_blocks\.(\d+)\.downsamplers\.0", r"down.\1.downsample", name)
    up = re.match(r"decoder\.up_blocks\.(\d+)\.(resnets\.(\d+)|upsamplers\.0)", name)
    if up:
        place = f"block.{up[3]}" if up[3] else "upsample"
        name = f"decoder.up.{blocks - 1 - int(up[1])}.{place}{name[up.end() :]}"
    return name.replace("conv_shortcut", "nin_shortcut").replace("conv_norm_out", "norm_out")
