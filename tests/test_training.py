"""Both trainings from end to end, in small: the loss falls, and what they wrote loads."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline

import spectrum

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


def test_larger_pictures_show_the_same():
    sys.path.insert(0, str(TRAINING))
    import scenes
    import zoo_pictures

    striped = scenes.Thing("heart", "red", texture="striped")
    scene = scenes.Scene((striped, scenes.Thing("ring", "blue")), "above", "white")
    caption = ["checks", "coarse", "red", "white"]
    for draw in (
        lambda fine: scenes.draw(scene, np.random.default_rng(3), fine),
        lambda fine: zoo_pictures.draw_texture(caption, np.random.default_rng(3), 32 * fine),
    ):
        usual, large = draw(1).astype(float), draw(4).astype(float)
        side = len(usual)
        assert large.shape == (4 * side, 4 * side, 3)
        reduced = large.reshape(side, 4, side, 4, 3).mean(axis=(1, 3))
        assert np.sqrt(np.square(reduced - usual).mean()) < 6  # of 255; edges are smoothed apart


def test_a_model_goes_on_at_another_size(tmp_path):
    sys.path.insert(0, str(TRAINING))
    import train_zoo

    torch.manual_seed(0)
    small = train_zoo.Captioned(train_zoo.KINDS["sd3-textures"])
    train_zoo.export("sd3-textures", small, tmp_path, 0.5, 0.25)
    large = train_zoo.Captioned(train_zoo.KINDS["sd3-textures-64"])
    train_zoo.begin_as(large, tmp_path)
    embedded = [model.denoiser.pos_embed.cropped_pos_embed for model in (small, large)]
    few, many = (e(*side) for e, side in zip(embedded, [(32, 32), (64, 64)], strict=True))
    assert torch.equal(many.unflatten(1, (32, 32))[:, ::2, ::2].flatten(1, 2), few)
    assert torch.equal(large.denoiser.proj_out.weight, small.denoiser.proj_out.weight)
    words = torch.zeros(1, 4, dtype=torch.long)
    assert large(torch.zeros(1, 3, 64, 64), torch.ones(1), words).shape == (1, 3, 64, 64)


def test_a_pipeline_goes_on_with_larger_pictures():
    sys.path.insert(0, str(TRAINING))
    import train_image

    start = Path(spectrum.__file__).parent / "models" / "demo-image"
    clip = train_image.clip_tokenizer(train_image.VOCABULARY)
    t5 = train_image.word_t5_tokenizer(train_image.VOCABULARY, 512)
    model = train_image.CaptionedDenoiser(clip, len(t5), fine=2)
    train_image.begin_as(model, start)
    pipe = DiffusionPipeline.from_pretrained(start, dtype=torch.float32)
    for ours, theirs in (
        (model.transformer, pipe.transformer),
        (model.clip, pipe.text_encoder),
        (model.t5, pipe.text_encoder_2),
    ):
        weights = theirs.state_dict()
        assert all(torch.equal(value, weights[name]) for name, value in ours.state_dict().items())
    assert model.image_ids.max() == 15  # 16 tokens a side
