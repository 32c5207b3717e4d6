"""One run spread over processes by diffusers' context parallelism, for real: two of them, on the
CPU, over gloo. Each has half of the tokens."""

import os
import runpy
import socket
import sys
from datetime import timedelta
from math import inf
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from commands import _SERVER
from diffusers import ContextParallelConfig
from test_media import read_mp4

from spectrum import SpectralCache
from spectrum.parallel import norm_for, own_norm
from spectrum.schedule import AdaptiveSchedule

WORLD = 2


class Threshold:
    """Goes on by three steps or by one, as the error is. The first is 0.1481 of the whole, 0.1459
    of one process's half and 0.1500 of the other's: they would part ways."""

    def computed_steps(self, timeline):
        return [0, 1, timeline.num_steps - 1]

    def next_step(self, computed, error, timeline):
        return computed[-1] + (3 if error is not None and error < 0.149 else 1)


CASES = {
    "denoised": ("wan", {"speedup": 2}),
    "denoised, adaptive": ("wan", {"schedule": AdaptiveSchedule(0.1)}),
    "feature, adaptive": ("wan", {"schedule": Threshold(), "method": "published"}),
    "flux": ("flux", {"speedup": 2, "method": "taylor1"}),
}
CALLS = {
    "wan": {"num_frames": 5, "guidance_scale": 1.0, "num_inference_steps": 8},
    "flux": {"guidance_scale": 3.0, "num_inference_steps": 8, "max_sequence_length": 16},
}


def run(pipes, name):
    which, given = CASES[name]
    with SpectralCache(pipes[which], **given) as cache:
        pictures = pipes[which](
            prompt="a b", height=32, width=32, output_type="np", return_dict=False,
            generator=torch.Generator().manual_seed(1), **CALLS[which],
        )[0]  # fmt: skip
    report = cache.report
    steps = [(step.computed, step.error, step.trend) for step in report.steps]
    return np.asarray(pictures), steps, report.stored_bytes


def part(rank, folder):
    """What one process does."""
    from tiny import tiny_flux, tiny_wan

    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    dist.init_process_group(
        "gloo", f"file://{folder}/store", timedelta(seconds=60), rank=rank, world_size=WORLD
    )
    torch.accelerator.device_count = lambda: WORLD  # diffusers takes a remainder by it, and it's 0
    pipes = {"wan": tiny_wan(), "flux": tiny_flux()}
    for pipe in pipes.values():
        config = ContextParallelConfig(ulysses_degree=WORLD)
        pipe.transformer.enable_parallelism(config=config)
    found = {name: run(pipes, name) for name in CASES}
    norm = norm_for(pipes["wan"].transformer)
    halves = torch.arange(10.0).chunk(WORLD)
    found["norms"] = [float(norm(halves[rank], order)) for order in (2, inf)]
    poisoned = halves[rank] / rank  # no numbers in the first
    found["poisoned"] = float(norm(poisoned, inf))
    torch.save(found, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    processes = [_SERVER.Process(target=part, args=(rank, str(folder))) for rank in range(WORLD)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(300)
    assert [process.exitcode for process in processes] == [0] * WORLD
    return [torch.load(f"{folder}/{rank}.pt", weights_only=False) for rank in range(WORLD)]


@pytest.mark.parametrize("name", CASES)
def test_all_processes_decide_as_one_and_make_the_same_pixels(parts, flux, wan, name):
    """Within 1e-5 of the one process; the very same was measured."""
    alone, steps, stored = run({"wan": wan, "flux": flux}, name)
    (first, first_steps, first_stored), (second, second_steps, _) = (one[name] for one in parts)
    assert first_steps == second_steps  # errors and trends too, bit by bit
    assert np.array_equal(first, second)
    assert [step[0] for step in first_steps] == [step[0] for step in steps]
    for ours, theirs in zip(first_steps, steps, strict=True):
        for own, other in zip(ours[1:], theirs[1:], strict=True):  # error, trend
            assert own == other or own == pytest.approx(other, rel=1e-4, abs=1e-6)
    assert np.abs(first - alone).max() < 1e-5
    if "method" in CASES[name][1]:
        assert first_stored == stored // WORLD  # its part
        assert any(error for _, error, _ in steps)


# -- the script that the documents show ----------------------------------------------------------

SCRIPT = Path(__file__).parent.parent / "examples" / "long.py"
SHORT = {"num_frames": 5, "num_inference_steps": 8, "width": 32, "height": 32}


def under_torchrun(rank, port, args):
    """A process as torchrun starts it."""
    torch.set_num_threads(1)
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(WORLD),
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo",
    }  # fmt: skip
    torch.accelerator.device_count = lambda: WORLD  # as above
    torch.cuda.is_available = lambda: False
    sys.argv = ["long.py", *args]
    runpy.run_path(str(SCRIPT), run_name="__main__")


def test_the_script_makes_the_film_of_one_process(folders, tmp_path):
    from diffusers import WanPipeline
    from diffusers.utils import export_to_video

    args = ["x", str(tmp_path / "two.mp4"), "--model", str(folders / "wan"), "--speedup", "2"]
    args += ["--frames", "5", "--steps", "8", "--width", "32", "--height", "32", "--seed", "1"]
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    processes = [
        _SERVER.Process(target=under_torchrun, args=(rank, port, args)) for rank in range(WORLD)
    ]
    for process in processes:
        process.start()
    dtypes = {"default": torch.bfloat16, "vae": torch.float32}
    pipe = WanPipeline.from_pretrained(folders / "wan", dtype=dtypes)
    with SpectralCache(pipe, speedup=2):
        film = pipe("x", **SHORT, generator=torch.Generator().manual_seed(1)).frames[0]
    export_to_video(film, str(tmp_path / "one.mp4"), fps=16)
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0] * WORLD
    one, two = (read_mp4(tmp_path / name)[1] for name in ("one.mp4", "two.mp4"))
    assert len(one) == 5
    assert np.array_equal(one, two)


def test_a_norm_is_that_of_the_whole(parts):
    whole = torch.arange(10.0)
    for one in parts:
        assert one["norms"] == pytest.approx([float(own_norm(whole, order)) for order in (2, inf)])
        assert one["poisoned"] != one["poisoned"]
