"""One long video on several GPUs of a machine: each has a part of the tokens of every step.

torchrun --nproc-per-node 4 examples/long.py "a red fox trots through fresh snow" fox.mp4
"""

import argparse
import os

import torch
import torch.distributed as dist
from diffusers import ContextParallelConfig, WanPipeline
from diffusers.utils import export_to_video

from spectrum import SpectralCache

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("prompt")
parser.add_argument("output", help="an .mp4")
parser.add_argument("--model", default="Wan-AI/Wan2.1-T2V-14B-Diffusers")
parser.add_argument("--speedup", type=float, default=4.5)
parser.add_argument("--steps", type=int, default=50)
parser.add_argument("--frames", type=int, default=81)
parser.add_argument("--width", type=int, default=832)
parser.add_argument("--height", type=int, default=480)
parser.add_argument("--seed", type=int, default=0)
asked = parser.parse_args()

device = torch.device("cpu")  # for a trial; slow
if torch.cuda.is_available():
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    torch.cuda.set_device(device)
dist.init_process_group("nccl" if device.type == "cuda" else "gloo")

dtypes = {"default": torch.bfloat16, "vae": torch.float32}  # decoding in bfloat16 bands
pipe = WanPipeline.from_pretrained(asked.model, dtype=dtypes).to(device)
if (processes := dist.get_world_size()) > 1:
    pipe.transformer.enable_parallelism(config=ContextParallelConfig(ulysses_degree=processes))
with SpectralCache(pipe, speedup=asked.speedup):
    film = pipe(
        asked.prompt,
        num_inference_steps=asked.steps,
        num_frames=asked.frames,
        width=asked.width,
        height=asked.height,
        generator=torch.Generator().manual_seed(asked.seed),  # all draw the whole noise
    ).frames[0]
if dist.get_rank() == 0:
    export_to_video(film, asked.output, fps=16)
dist.destroy_process_group()
