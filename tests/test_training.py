"""Both trainings from end to end, in small: the loss falls, and what they wrote loads."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from diffusers import DiffusionPipeline

TRAINING = Path(__file__).parent.parent / "training"
IMAGE = ["--pictures", "64", "--batch", "8", "--minutes", "0.3"]
VIDEO = ["--clips", "48", "--batch", "8", "--minutes", "0.3"]
SIZE = {"image": {"height": 128, "width": 128}, "video": {"height": 64, "width": 64}}


@pytest.mark.parametrize(("kind", "small"), [("image", IMAGE), ("video", VIDEO)])
def test_a_short_training_run(kind, small, tmp_path):
    command = [
        sys.executable, str(TRAINING / f"train_{kind}.py"), "--work", str(tmp_path / "work"),
        "--out", str(tmp_path / "out"), "--no-compile", *small,
        "--autoencoder-minutes", "0.1", "--decoder-minutes", "0.05",
    ]  # fmt: skip
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    run = subprocess.run(command, env=env, capture_output=True, text=True, timeout=400)
    assert run.returncode == 0, run.stderr
    losses = [float(loss) for loss in re.findall(r"denoiser \d+ \d+ s .*?([\d.]+)\n", run.stdout)]
    assert len(losses) > 1
    assert losses[-1] < 0.7 * losses[0]  # 0.40 and 0.46 on an idle core
    pipe = DiffusionPipeline.from_pretrained(tmp_path / "out", dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    frames = {"num_frames": 5, "max_sequence_length": 16} if kind == "video" else {}
    made = pipe("a red circle", **SIZE[kind], **frames, num_inference_steps=2, output_type="pt")[0]
    assert made.shape == ((1, 5, 3, 64, 64) if frames else (1, 3, 128, 128))
    assert torch.isfinite(made).all()
    again = subprocess.run(command, env=env, capture_output=True, text=True, timeout=400)
    assert again.returncode == 0, again.stderr
    assert not re.search(
        r"(autoencoder|denoiser|decoder) \d+", again.stdout
    )  # nothing is retrained
