"""The training of demo-image from end to end, in small: the loss falls, and what it wrote loads."""

import os
import re
import subprocess
import sys
from pathlib import Path

import torch
from diffusers import FluxPipeline

SCRIPT = Path(__file__).parent.parent / "training" / "train_image.py"


def test_a_short_training_run(tmp_path):
    command = [
        sys.executable, str(SCRIPT), "--work", str(tmp_path / "work"),
        "--out", str(tmp_path / "out"), "--pictures", "64", "--batch", "8", "--no-compile",
        "--autoencoder-minutes", "0.1", "--minutes", "0.5", "--decoder-minutes", "0.05",
    ]  # fmt: skip
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    run = subprocess.run(command, env=env, capture_output=True, text=True, timeout=400)
    assert run.returncode == 0, run.stderr
    losses = [float(loss) for loss in re.findall(r"denoiser \d+ \d+ s ([\d.]+)", run.stdout)]
    assert len(losses) > 1
    assert losses[-1] < 0.8 * losses[0]
    pipe = FluxPipeline.from_pretrained(tmp_path / "out", dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    made = pipe("a red circle", height=128, width=128, num_inference_steps=2, output_type="pt")[0]
    assert made.shape == (1, 3, 128, 128)
    assert torch.isfinite(made).all()
    again = subprocess.run(command, env=env, capture_output=True, text=True, timeout=400)
    assert again.returncode == 0, again.stderr
    assert "denoiser" not in again.stdout.replace("denoiser.pt", "")  # nothing is trained twice
