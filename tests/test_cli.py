"""The command, in this process: output, exit codes, files. What must be a process of its own is
in test_process.py."""

import json
import os
import sys

import numpy as np
import pytest
from PIL import Image
from test_media import read_mp4

from spectrum.pipeline.folders import MARKER
from spectrum.pipeline.media import read_metadata

FLUX = ["--model", "flux.1-dev", "--width", "32", "--height", "32"]
WAN = ["--model", "wan2.1-14b", "--width", "32", "--height", "48", "--frames", "5"]


@pytest.fixture
def flux_args(folders):
    return [*FLUX, "--weights", str(folders / "flux"), "--steps", "12", "--speedup", "1.5"]


@pytest.fixture
def wan_args(folders):
    return [*WAN, "--weights", str(folders / "wan"), "--steps", "12", "--speedup", "1.5"]


def refused(result, *words, code=2):
    """One line on stderr with all these words, nothing on stdout, the right exit code.

    What is said before of memory and of the hub does not count.
    """
    got, out, err = result
    lines = [
        x for x in err.splitlines(True) if not x.startswith(("memory: ", "warning: ", "asking "))
    ]
    err = "".join(lines)
    assert got == code
    assert out == ""
    assert err.count("\n") == 1, err
    assert err.startswith("spectrum: ")
    for word in words:
        assert word in err, err
    return True


def but(args, *given):
    """The arguments with these options in the place of their own."""
    kept = list(args)
    for option in given[::2]:
        if option in kept:
            del kept[(place := kept.index(option)) : place + 2]
    return [*kept, *given]


def files(folder):
    return sorted(path.name for path in folder.iterdir() if path.name != MARKER)


# -- gen -----------------------------------------------------------------------------------------


def test_an_image(spectrum, flux_args, tmp_path):
    code, out, err = spectrum("gen", *flux_args, "--seed", 5, "a red, red cat!")
    assert code == 0
    assert out == "flux.1-dev-a-red-red-cat-5.png\n"
    assert files(tmp_path) == [out.strip()]
    assert "8 of 12 steps computed, the others forecast" in err
    assert "1.50× if forecasts took no time" in err
    assert "\x1b" not in err
    assert "\r" not in err
    with Image.open(tmp_path / out.strip()) as picture:
        assert picture.size == (32, 32)
    document = read_metadata(tmp_path / out.strip())
    assert document["schema"] == 1
    assert document["prompt"] == "a red, red cat!"
    assert document["seed"] == 5
    assert len(document["computed_steps"]) == 8


def test_json(spectrum, flux_args):
    code, out, err = spectrum("gen", *flux_args, "--json", "--quiet", "-n", 2, "--seed", 8, "x")
    document = json.loads(out)
    assert code == 0
    assert err == ""
    assert document["outputs"] == ["flux.1-dev-x-8.png", "flux.1-dev-x-9.png"]
    assert document["seeds"] == [8, 9]
    assert document["steps"] == 12
    assert sorted(document["computed_steps"] + document["forecast_steps"]) == list(range(12))
    assert document["speedup"]["requested"] == document["speedup"]["planned"] == 1.5
    assert document["speedup"]["denoise_estimated"] > 0
    assert set(document["seconds"]) == {"load", "encode", "denoise", "decode", "total"}
    assert (
        sum(document["seconds"].values()) - document["seconds"]["total"]
        <= (document["seconds"]["total"])
    )
    assert document["peak_memory_bytes"] > 10**8
    assert document["model"] == "flux.1-dev"
    assert document["version"]


def test_speedup_one_is_the_plain_pipeline(spectrum, flux_args, folders, tmp_path):
    import torch
    from diffusers import FluxPipeline

    code, out, _ = spectrum(
        "gen", *but(flux_args, "--speedup", 1), "--dtype", "float32", "--seed", 3, "x"
    )
    assert code == 0
    pipe = FluxPipeline.from_pretrained(folders / "flux", dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    plain = pipe(
        "x", width=32, height=32, num_inference_steps=12, guidance_scale=3.5,
        max_sequence_length=512, generator=torch.Generator().manual_seed(3),
    ).images[0]  # fmt: skip
    with Image.open(tmp_path / out.strip()) as picture:
        assert np.abs(np.asarray(picture, float) - np.asarray(plain, float)).max() <= 1


def test_a_seed_is_drawn_and_reported(spectrum, flux_args):
    seeds = set()
    for _ in range(2):
        _, out, err = spectrum("gen", *flux_args, "x")
        seeds.add(out)
        assert f"seed {out.strip().removesuffix('.png').rsplit('-', 1)[1]})" in err
    assert len(seeds) == 2


def test_the_same_seed_makes_the_same_picture(spectrum, flux_args, tmp_path):
    for name in ("a.png", "b.png"):
        spectrum("gen", *flux_args, "--seed", 1, "-o", name, "x")
    a, b = (np.asarray(Image.open(tmp_path / name)) for name in ("a.png", "b.png"))
    assert (a == b).all()


def test_a_video(spectrum, wan_args, tmp_path):
    code, out, err = spectrum("gen", *wan_args, "--seed", 5, "--fps", 7, "a cat walks")
    assert code == 0
    path = tmp_path / out.strip()
    assert path.name == "wan2.1-14b-a-cat-walks-5.mp4"
    assert "5 frames at 7 fps" in err
    facts, frames = read_mp4(path)
    assert frames.shape == (5, 48, 32, 3)
    assert " 7 fps" in facts
    assert "Video: h264" in facts
    assert "yuv420p(tv, bt709" in facts
    assert read_metadata(path)["frames"] == 5


def test_a_video_as_numbered_frames(spectrum, wan_args, tmp_path):
    _, out, _ = spectrum("gen", *wan_args, "-o", "film.png", "a cat")
    assert out == "film\n"
    assert files(tmp_path) == ["film"]
    assert files(tmp_path / "film") == [f"000{k}.png" for k in range(5)]
    assert read_metadata(tmp_path / "film" / "0002.png")["frame"] == 2
    code, shown, _ = spectrum("show", "film")
    assert (code, json.loads(shown)["frame"]) == (0, 0)


def test_one_frame_of_a_video_model_is_a_picture(spectrum, wan_args, tmp_path):
    _, out, _ = spectrum("gen", *but(wan_args, "--frames", 1), "--seed", 2, "a cat")
    assert out == "wan2.1-14b-a-cat-2.png\n"
    with Image.open(tmp_path / out.strip()) as picture:
        assert picture.size == (32, 48)


def test_the_prompt_from_standard_input(spectrum, flux_args, monkeypatch):
    import io

    monkeypatch.setattr(sys, "stdin", io.StringIO("two\nlines \n"))
    code, out, _ = spectrum("gen", *flux_args, "--seed", 1, "-")
    assert (code, out) == (0, "flux.1-dev-two-lines-1.png\n")


def test_nothing_is_overwritten_without_force(spectrum, flux_args, tmp_path):
    (tmp_path / "cat.png").write_bytes(b"mine")
    refused(spectrum("gen", *flux_args, "-o", "cat.png", "x"), "cat.png exists already", "--force")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere")
    refused(spectrum("gen", *flux_args, "-o", "gone.png", "x"), "gone.png exists already")
    assert (tmp_path / "cat.png").read_bytes() == b"mine"
    assert files(tmp_path) == ["cat.png", "gone.png"]
    code, out, _ = spectrum("gen", *flux_args, "-o", "cat.png", "--force", "x")
    assert (code, out) == (0, "cat.png\n")
    assert read_metadata(tmp_path / "cat.png")["prompt"] == "x"


def test_output_into_a_folder(spectrum, flux_args, tmp_path):
    (tmp_path / "out").mkdir()
    for output in ("out", "out/"):
        code, _, err = spectrum("gen", *flux_args, "--seed", 4, "-o", output, "x")
        assert code == 0
    assert "flux.1-dev-x-4.png exists already and was kept" in err
    assert files(tmp_path / "out") == ["flux.1-dev-x-4-2.png", "flux.1-dev-x-4.png"]


def test_an_ending_is_written_as_it_was_asked_for(spectrum, flux_args, tmp_path):
    assert spectrum("gen", *flux_args, "-o", "Cat.PNG", "x")[:2] == (0, "Cat.PNG\n")
    assert read_metadata(tmp_path / "Cat.PNG")["prompt"] == "x"


def test_a_copy_of_an_embedded_models_preset_works(spectrum, tmp_path):
    _, text, _ = spectrum("models", "show", "demo-image")
    (tmp_path / "presets").mkdir()
    (tmp_path / "presets/mine.yaml").write_text(text)
    args = ("-m", "mine", "--steps", 4, "--speedup", 2, "-o", "a.png", "a red circle")
    assert spectrum("gen", *args)[:2] == (0, "a.png\n")


def test_several_into_one_name(spectrum, flux_args):
    _, out, _ = spectrum("gen", *flux_args, "-n", 2, "--seed", 4, "-o", "cat.png", "x")
    assert out.split() == ["cat-4.png", "cat-5.png"]


def test_quiet(spectrum, flux_args):
    code, out, err = spectrum("gen", *flux_args, "--quiet", "--seed", 1, "x")
    assert (code, out, err) == (0, "flux.1-dev-x-1.png\n", "")


def test_a_preset_by_path_and_from_the_current_folder(spectrum, flux_args, folders, tmp_path):
    _, text, _ = spectrum("models", "show", "flux.1-dev")
    (tmp_path / "presets").mkdir()
    (tmp_path / "presets" / "mine.yaml").write_text(text.replace("steps: 50", "steps: 9"))
    for model in ("mine", "presets/mine.yaml"):
        code, out, _ = spectrum(
            "gen", "-m", model, "--weights", folders / "flux", "--width", 32, "--height", 32,
            "--json", "--speedup", 1.2, "x",
        )  # fmt: skip
        assert code == 0
        assert json.loads(out)["steps"] == 9


def test_a_preset_may_end_in_yml(spectrum, tmp_path):
    _, text, _ = spectrum("models", "show", "demo-image")
    (tmp_path / "presets").mkdir()
    for name in ("mine.yml", "demo-image.yml"):
        (tmp_path / "presets" / name).write_text(text.replace("steps: 50", "steps: 9"))
    for model in ("mine", "demo-image"):
        _, out, err = spectrum("gen", "-m", model, "--json", "--dry-run", "a red circle")
        assert json.loads(out)["steps"] == 9
        assert ("in the place of the package's own" in err) is (model == "demo-image")


def test_show_prints_what_makes_the_file_again(spectrum, flux_args, tmp_path):
    spectrum("gen", *flux_args, "--seed", 6, "-o", "a.png", "it's a cat")
    code, text, err = spectrum("show", "a.png")
    assert code == 0
    assert json.loads(text)["seed"] == 6
    import shlex

    words = shlex.split(err.removeprefix("again: "))
    assert words[0] == "spectrum"
    assert spectrum(*words[1:], "-o", "b.png")[0] == 0
    a, b = (np.asarray(Image.open(tmp_path / name)) for name in ("a.png", "b.png"))
    assert (a == b).all()


def test_show_repeats_a_negative_prompt(spectrum, wan_args):
    spectrum("gen", *wan_args, "--negative-prompt", "dim light", "--seed", 6, "-o", "a.mp4", "x")
    assert "--negative-prompt 'dim light'" in spectrum("show", "a.mp4")[2]


def test_words_that_a_model_does_not_know_get_a_hint(spectrum):
    args = ["gen", "--steps", 6, "--seed", 1, "-o", "a.png"]
    code, out, err = spectrum(*args, "a red elephant")
    assert (code, out) == (0, "a.png\n")
    assert err.startswith("hint: demo-image does not know elephant; it understands, say, ")


# -- what bad input gets -------------------------------------------------------------------------


def test_refusals_of_gen(spectrum, flux_args, wan_args, tmp_path, folders):
    refused(spectrum("gen", "-m", "flux-1-dev", "x"), "did you mean 'flux.1-dev'")
    refused(spectrum("gen", "-m", "no.yaml", "x"), "no preset file")
    refused(spectrum("gen", *but(flux_args, "--speedup", 0.5), "x"), "at least 1")
    refused(
        spectrum("gen", *but(flux_args, "--speedup", 9), "x"), "largest speedup for 12 steps is 6"
    )
    refused(spectrum("gen", *but(flux_args, "--width", 40), "x"), "32 and 48")
    refused(spectrum("gen", *but(flux_args, "--height", 0), "x"), "the nearest: 16")
    refused(spectrum("gen", *flux_args, "--frames", 5, "x"), "makes images", "--frames")
    refused(spectrum("gen", *flux_args, "--fps", 5, "x"), "makes images", "--fps")
    refused(spectrum("gen", *flux_args, "--negative-prompt", "y", "x"), "no negative prompt")
    refused(spectrum("gen", *but(flux_args, "--steps", 0), "x"), "from 1 to 10,000")
    refused(spectrum("gen", *flux_args, "--guidance", "nan", "x"), "--guidance")
    refused(spectrum("gen", *flux_args, "--method", "taylor", "x"), "did you mean 'taylor")
    refused(
        spectrum("gen", *flux_args, "--method", "published", "--blend", 2, "x"), "between 0 and 1"
    )
    refused(spectrum("gen", *flux_args, "--method", "hold", "--blend", 1, "x"), "no ridge to blend")
    refused(spectrum("gen", *flux_args, "--dtype", "half", "x"), "float16")
    refused(spectrum("gen", *flux_args, "  "), "prompt is empty", "try")
    refused(spectrum("gen", *flux_args, "-o", "x.bmp", "x"), ".png", "x.png")
    refused(spectrum("gen", *flux_args, "-o", "x.mp4", "x"), ".png")
    refused(spectrum("gen", *flux_args, "-o", "x", "x"), "try --output x.png")
    refused(spectrum("gen", *wan_args, "-o", "x.avi", "x"), ".mp4", ".png")
    refused(spectrum("gen", *but(wan_args, "--frames", 6), "x"), "5 and 9")
    refused(spectrum("gen", *wan_args, "--fps", 7, "-o", "x.png", "x"), "--fps")
    refused(spectrum("gen", *but(wan_args, "--fps", 7, "--frames", 1), "x"), "--fps")
    refused(spectrum("gen", *wan_args, "--guidance", 1, "--negative-prompt", "y", "x"), "above 1")
    refused(spectrum("gen", *flux_args, "-n", 0, "x"), "--num-images")
    refused(spectrum("gen", *flux_args, "--seed", -1, "x"), "--seed")
    refused(spectrum("gen", *flux_args, "--sped", 2, "x"), "--speedup")
    refused(spectrum("gen", *flux_args), "prompt", "spectrum gen --help")
    refused(spectrum("gen", *flux_args, "-o", "no/x.png", "x"), "mkdir -p", code=1)
    refused(spectrum("gen", *flux_args, "-o", "no/", "x"), "mkdir -p", code=1)
    refused(spectrum("gen", *flux_args, "-o", "{seed}/x.png", "x"), "in names alone")
    assert files(tmp_path) == []


@pytest.mark.parametrize("args", [["--device", "cuda"], ["--device", "cuda:7"]])
def test_missing_cuda(spectrum, flux_args, monkeypatch, args):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    refused(spectrum("gen", *flux_args, *args, "x"), "no CUDA device", "--device cpu")


def test_an_unknown_device(spectrum, flux_args):
    refused(spectrum("gen", *flux_args, "--device", "gpu", "x"), "auto, cuda, cuda:N, mps and cpu")


def test_wrong_weights(spectrum, folders, tmp_path):
    refused(spectrum("gen", *FLUX, "--weights", tmp_path, "x"), "no model_index.json")
    refused(
        spectrum("gen", *FLUX, "--weights", folders / "wan", "x"),
        "holds a WanPipeline", "flux.1-dev is a FluxPipeline",
    )  # fmt: skip
    import shutil

    shutil.copytree(folders / "flux", tmp_path / "part")
    shutil.rmtree(tmp_path / "part" / "vae")
    refused(spectrum("gen", *FLUX, "--weights", "part", "x"), "vae missing")
    shutil.copytree(folders / "flux", tmp_path / "cut")
    file = tmp_path / "cut" / "transformer" / "diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:5000])
    refused(spectrum("gen", *FLUX, "--weights", "cut", "x"), "can't be loaded", code=1)


def test_weights_that_are_not_here(spectrum):
    refused(
        spectrum("gen", *FLUX, "x"), "hf download black-forest-labs/FLUX.1-dev",
        "accept its licence", "hf auth login", "--weights", code=1,
    )  # fmt: skip
    result = spectrum("gen", *WAN, "x")
    refused(result, "hf download Wan-AI/Wan2.1-T2V-14B-Diffusers", code=1)
    assert "licence" not in result[2]


def test_a_folder_that_cannot_be_written(spectrum, flux_args, tmp_path, monkeypatch):
    (tmp_path / "locked").mkdir()
    real = os.access  # root may write anywhere, so ask about this folder is answered here
    monkeypatch.setattr(
        "os.access", lambda path, mode: "locked" not in str(path) and real(path, mode)
    )
    refused(spectrum("gen", *flux_args, "-o", "locked", "x"), "can't be written", code=1)


def test_a_folder_of_other_things_is_not_replaced_by_frames(spectrum, wan_args, tmp_path):
    (tmp_path / "film").mkdir()
    (tmp_path / "film" / "diary.txt").write_text("dear")
    code, _, err = spectrum("gen", *wan_args, "--force", "-o", "film.png", "x")
    assert code == 2
    assert "was not made by spectrum" in err
    assert files(tmp_path / "film") == ["diary.txt"]


def test_a_failure_while_writing_leaves_nothing(spectrum, flux_args, tmp_path, monkeypatch):
    def full(self, file, *_, **__):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    code, out, err = spectrum("gen", *flux_args, "x")
    assert (code, out) == (1, "")
    assert err.splitlines()[-1].startswith("spectrum: ")
    assert "No space left" in err
    assert files(tmp_path) == []


def test_every_error_of_a_preset_at_once(spectrum, tmp_path):
    _, text, _ = spectrum("models", "show", "flux.1-dev")
    bad = text.replace("steps: 50", "steps: many\nstep: 3").replace("speedup: 3.5", "speedup: 0")
    (tmp_path / "bad.yaml").write_text(bad.replace("summary:", "sumary:"))
    refused(
        spectrum("gen", "-m", "bad.yaml", "x"), "bad.yaml: steps:", "bad.yaml: step: unknown key",
        "did you mean steps?", "bad.yaml: cache.speedup:", "bad.yaml: summary: missing",
    )  # fmt: skip


@pytest.mark.parametrize("text", ["a: [", "- 1", "", "name: x\n"])
def test_what_is_no_preset(spectrum, tmp_path, text):
    (tmp_path / "bad.yaml").write_text(text)
    refused(spectrum("gen", "-m", "bad.yaml", "x"), "bad.yaml")


def test_refusals_of_show(spectrum, tmp_path):
    refused(spectrum("show", "no.png"), "no such file")
    for name in ("made", "other"):
        (tmp_path / name).mkdir()
    (tmp_path / "made" / "manifest.jsonl").touch()
    (tmp_path / "compared" / "pictures").mkdir(parents=True)
    refused(spectrum("show", "compared"), "a comparison's folder", "compared/pictures")
    refused(spectrum("show", "other"), "other is no folder of numbered frames")
    refused(spectrum("show", "made"), "made is a batch's folder", "manifest.jsonl:1")
    Image.new("RGB", (8, 8)).save(tmp_path / "other.png")
    refused(spectrum("show", "other.png"), "did not write this file")
    (tmp_path / "text.png").write_text("hello")
    refused(spectrum("show", "text.png"), "not a picture")
    (tmp_path / "text.mp4").write_text("hello")
    refused(spectrum("show", "text.mp4"), "did not write this file")


# -- plan and models -----------------------------------------------------------------------------


def test_plan(spectrum):
    args = ["plan", "-m", "wan2.1-14b", "--steps", 50, "--method", "published"]
    code, out, err = spectrum(*args, "--speedup", 3.5)
    assert (code, err) == (0, "")
    row = next(line for line in out.splitlines() if set(line) == {"●", "○"})
    assert [k for k, mark in enumerate(row) if mark == "●"] == (
        [0, 1, 2, 3, 4, 6, 8, 11, 15, 20, 25, 31, 38, 46]
    )
    assert "14 computed: 0 1 2 3 4 6 8 11 15 20 25 31 38 46" in out
    assert "36 forecast" in out
    assert "3.57×" in out
    # 14 features (all: the last forecast step is 49) of two branches, 320 MiB each
    assert "history 8.7 GiB: 14 features of 2 guidance branches in bfloat16" in out


def test_a_plan_fits_a_terminal(spectrum, monkeypatch):
    from spectrum_cli import plan

    monkeypatch.setattr(plan, "terminal_width", lambda: 43)
    _, out, _ = spectrum("plan", "--steps", 60)
    rows = out.splitlines()[2:6]
    assert [len(row) for row in rows] == [37, 40, 17, 20]  # numbers above dots
    assert rows[2].startswith("40   45")


def test_plan_by_alpha(spectrum):
    _, out, _ = spectrum("plan", "--alpha", 3, "--steps", 50, "--json")
    document = json.loads(out)
    assert document["computed_steps"] == [0, 1, 2, 3, 4, 6, 11, 19, 30, 44]
    assert document["ideal_speedup"] == 5
    assert document["history"]["target"] == "feature"  # of the published method
    _, out, _ = spectrum(
        "plan", "--warmup", 3, "--window", 2, "--alpha", 0.5, "--steps", 20, "--json"
    )
    assert json.loads(out)["computed_steps"] == [0, 1, 2, 4, 6, 9, 12, 16]


def test_of_a_plan_that_forecasts_nothing_nothing_is_kept(spectrum):
    _, out, _ = spectrum("plan", "--speedup", 1)
    assert out.splitlines()[-1] == "ideal speedup 1.00×"
    assert "history: 3 x₀" in spectrum("plan", "--speedup", 2)[1]


def test_a_plan_knows_of_schedulers_that_add_noise(spectrum):
    for scheduler in ("euler-ancestral", "EulerAncestralDiscreteScheduler"):
        asked = ["-m", "sdxl", "--scheduler", scheduler, "-s", 4.5]
        _, out, _ = spectrum("plan", *asked)
        assert "25 computed" in out
        assert "at most half" in out
        _, _, err = spectrum("gen", *asked, "--dry-run", "x")
        assert "would compute 25 steps of 50" in err
    assert "11 computed" in spectrum("plan", "sdxl", "--scheduler", "euler", "-s", 4.5)[1]


def test_refusals_of_plan(spectrum):
    refused(spectrum("plan", "--alpha", 1, "--speedup", 2), "give one")
    refused(spectrum("plan", "--speedup", 100), "largest speedup")
    refused(spectrum("plan", "-m", "fux"), "did you mean")


def test_models(spectrum):
    code, out, _ = spectrum("models")
    assert code == 0
    for name in ("demo-image", "demo-video", "flux.1-dev", "wan2.1-14b"):
        assert name in out
    _, out, _ = spectrum("models", "--json")
    rows = {row["name"]: row for row in json.loads(out)["models"]}
    assert rows["demo-image"]["on_this_machine"] is True
    assert rows["demo-video"]["on_this_machine"] is True
    assert rows["flux.1-dev"]["on_this_machine"] is False
    assert rows["wan2.1-14b"]["size"] == "832×480×81"


def test_models_show_is_the_yaml(spectrum):
    import yaml

    code, out, _ = spectrum("models", "show", "wan2.1-14b")
    assert code == 0
    assert yaml.safe_load(out)["scheduler"]["settings"] == {"flow_shift": 3.0}
    refused(spectrum("models", "show", "wan"), "did you mean", "or 'wan2.1-14b'")


def test_version_and_help(spectrum):
    code, out, _ = spectrum("--version")
    assert code == 0
    assert out.startswith("spectrum ")
    commands = [
        "",
        "gen",
        "compare",
        "tune",
        "plan",
        "models",
        "models show",
        "inspect",
        "show",
        "rerun",
    ]
    for command in map(str.split, commands):
        code, out, err = spectrum(*command, "--help")
        assert code == 0
        assert "Usage" in out
        assert err == ""


def test_bare_spectrum_is_its_help(spectrum):
    code, out, err = spectrum()
    assert code == 0
    assert "spectrum" not in err
    assert "gen" in out + err
