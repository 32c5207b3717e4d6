"""Images, LoRAs, further arguments, models without a preset: through the command."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny_images
import tiny_videos
import torch
from diffusers.image_processor import VaeImageProcessor
from huggingface_hub import errors as hub
from PIL import Image
from test_cli import FLUX, WAN, but, refused
from tiny import tiny_flux, tiny_wan

from spectrum.pipeline.media import read_metadata
from spectrum.pipeline.weights import read_index

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
SMALL = ["--steps", "6", "--speedup", "2", "--method", "hold", "--dtype", "float32"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    tiny_flux().save_pretrained(root / "flux")
    tiny_wan().save_pretrained(root / "wan")
    for name in ("sd15", "sd3", "flux-kontext"):
        tiny_images.CASES[name].build().save_pretrained(root / name)
    for name in ("ltx-video", "svd"):
        tiny_videos.CASES[name].build().save_pretrained(root / name)
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (48, 32, 3), dtype=np.uint8)).save(root / "in.png")
    return root


@pytest.fixture
def flux_args(folders):
    return [*FLUX, "--weights", folders / "flux", *SMALL, "--seed", "1", "--quiet"]


def picture(path):
    return np.asarray(Image.open(path)).astype(float)


def save_lora(pipe, folder, scale):
    from peft import LoraConfig
    from peft.utils import get_peft_model_state_dict

    torch.manual_seed(1)
    transformer = pipe.transformer
    transformer.add_adapter(LoraConfig(r=2, target_modules=["to_q", "to_v"]))
    for name, parameter in transformer.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=scale)
    layers = get_peft_model_state_dict(transformer)
    type(pipe).save_lora_weights(folder, transformer_lora_layers=layers)
    return folder / "pytorch_lora_weights.safetensors"


# -- images --------------------------------------------------------------------------------------


def test_image_to_image(spectrum, folders, flux_args):
    args = ["gen", *flux_args, "--image", folders / "in.png", "--strength", "0.67"]
    code, out, err = spectrum(*args, "--json", "-o", "a.png", "x")
    assert (code, err) == (0, "")
    report = json.loads(out)
    assert (
        len(report["computed_steps"]) + len(report["forecast_steps"]) == 5
    )  # 0.67 of 6, rounded as diffusers does
    document = read_metadata(Path("a.png"))
    assert document["pipeline"] == "FluxImg2ImgPipeline"
    assert document["strength"] == 0.67
    spectrum(*args[:-1], "1.0", "-o", "b.png", "x")
    assert not np.array_equal(picture("a.png"), picture("b.png"))


def test_a_picture_keeps_its_proportions(spectrum, folders):
    """Not stretched: 32 x 48 px become as many pixels as the preset has, in multiples of 16."""
    from spectrum.pipeline.catalog import find_preset
    from spectrum.pipeline.request import resolve

    request = resolve(find_preset("demo-image"), "x", image=folders / "in.png")
    assert (request.width, request.height) == (112, 160)
    assert request.image.size == (112, 160)
    request = resolve(find_preset("flux.1-kontext-dev"), "x", image=folders / "in.png")
    assert request.image.size == (32, 48)  # an editing model looks at it as it is


def test_image_to_video_with_the_weights_for_text(spectrum, folders):
    args = ["gen", "-m", "ltx-video", "--weights", folders / "ltx-video", "--width", 32]
    args += ["--height", 32, "--frames", 9, *SMALL, "--set", "max_sequence_length=16", "-q"]
    code, _, err = spectrum(*args, "--image", folders / "in.png", "-o", "a.mp4", "a cat")
    assert (code, err) == (0, "")
    assert read_metadata(Path("a.mp4"))["pipeline"] == "LTXImageToVideoPipeline"


def test_images_that_are_none(spectrum, folders, flux_args, tmp_path):
    args = ["gen", *flux_args, "--image"]
    refused(spectrum(*args, "gone.png", "x"), "gone.png: no such file")
    (tmp_path / "text.png").write_text("not a picture")
    refused(spectrum(*args, "text.png", "x"), "not an image")
    whole = (folders / "in.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    refused(spectrum(*args, "cut.png", "x"), "cut.png", "can't be read")
    refused(spectrum(*args, ".", "x"), "not a regular file")


def test_images_that_the_model_has_no_use_for(spectrum, folders, flux_args):
    image = folders / "in.png"
    refused(spectrum("gen", "-m", "demo-video", "--image", image, "x"), "takes no image")
    refused(spectrum("gen", *flux_args, "--strength", "0.5", "x"), "--strength", "--image")
    refused(spectrum("gen", *flux_args, "--image", image, "--strength", "0", "x"), "at most 1")
    kontext = ["-m", "flux.1-kontext-dev", "--weights", folders / "flux-kontext", *SMALL]
    refused(
        spectrum("gen", *kontext, "--image", image, "--strength", "1", "x"),
        "FluxKontextPipeline", "takes no --strength",
    )  # fmt: skip
    refused(spectrum("gen", "-m", "wan2.1-i2v-14b-480p", "-q", "x"), "--image")


# -- LoRA ----------------------------------------------------------------------------------------


def test_loras_and_their_scales(spectrum, flux_args, tmp_path):
    file = save_lora(tiny_flux(), tmp_path / "lora", 1.0)
    spectrum("gen", *flux_args, "-o", "plain.png", "x")
    results = {}
    for scale in ("0", "0.5", "1"):
        code, _, err = spectrum(
            "gen", *flux_args, "--lora", f"{file}:{scale}", "-o", f"{scale}.png", "x"
        )
        assert (code, err) == (0, "")
        results[scale] = picture(f"{scale}.png")
    assert np.abs(results["0"] - picture("plain.png")).max() <= 1
    assert not np.array_equal(results["1"], picture("plain.png"))
    assert not np.array_equal(results["1"], results["0.5"])
    assert read_metadata(Path("0.5.png"))["loras"] == [f"{file}:0.5"]
    code, _, err = spectrum(
        "gen", *flux_args, "--lora", f"{file}:0.5", "--lora", f"{file}:0.5", "-o", "both.png", "x"
    )
    assert (code, err) == (0, "")
    assert np.abs(picture("both.png") - results["1"]).max() <= 1


def test_loras_that_do_not_fit(spectrum, flux_args, tmp_path, folders):
    other = save_lora(tiny_images.CASES["sd3"].build(), tmp_path / "sd3", 1.0)
    refused(spectrum("gen", *flux_args, "--lora", other, "x"), "another model", code=1)
    refused(spectrum("gen", *flux_args, "--lora", "gone.safetensors", "x"), "no such file")
    (tmp_path / "old.ckpt").write_bytes(b"pickle")
    refused(spectrum("gen", *flux_args, "--lora", "old.ckpt", "x"), "only .safetensors")
    (tmp_path / "cut.safetensors").write_bytes(other.read_bytes()[:100])
    refused(
        spectrum("gen", *flux_args, "--lora", "cut.safetensors", "x"), "can't be loaded", code=1
    )
    refused(spectrum("gen", *flux_args, "--lora", "nobody/nothing", "x"), "nobody/nothing", code=1)


# -- further arguments ---------------------------------------------------------------------------


def test_set(spectrum, flux_args, folders, tmp_path):
    args = ["gen", *FLUX, "--weights", folders / "flux", "--quiet"]
    code, _, err = spectrum(
        *args, "--set", "max_sequence_length=8", "--set", "sigmas=[1.0, 0.5, 2e-1]",
        "-o", "a.png", "x",
    )  # fmt: skip
    assert (code, err) == (0, "")
    made = read_metadata(Path("a.png"))
    assert made["extras"]["max_sequence_length"] == 8
    assert (made["steps"], made["speedup"]) == (3, 1.5)  # as many as are named, as fast as may be
    given = ["--steps", 4, "--set", "sigmas=[1.0, 0.5]"]
    refused(spectrum(*args, *given, "x"), "sigmas names 2 steps", "leave --steps")
    for text, words in {
        "max_sequence=8": ("max_sequence_length",),
        "height=8": ("--height",),
        "generator=1": ("--seed",),
        "latents=1": ("set by Spectrum",),
        "nonsense": ("key=value",),
    }.items():
        refused(spectrum("gen", *flux_args, "--set", text, "x"), *words)


def test_schedulers(spectrum, folders, tmp_path):
    args = ["gen", *WAN, "--weights", folders / "wan", *SMALL, "-q", "--seed", "1"]
    made = {}
    for name in ("unipc", "euler", "heun", "dpm++", "UniPCMultistepScheduler"):
        code, _, err = spectrum(*args, "--scheduler", name, "-o", f"{name}.png", "x")
        assert (code, err) == (0, ""), name
        made[name] = picture(tmp_path / name / "0000.png")
    assert np.array_equal(made["unipc"], made["UniPCMultistepScheduler"])
    assert not np.array_equal(made["unipc"], made["heun"])
    refused(spectrum(*args, "--scheduler", "eular", "x"), "did you mean 'euler'")


def test_the_machine_options_that_cannot_be_had(spectrum, flux_args):
    refused(spectrum("gen", *flux_args, "--offload", "model", "--device", "cpu", "x"), "--offload")
    refused(spectrum("gen", *flux_args, "--offload", "all", "x"), "none, model, group, sequential")
    refused(spectrum("gen", *flux_args, "--quantize", "int2", "x"), "int8, int4, fp8")
    refused(spectrum("gen", *flux_args, "--attention", "flsh", "x"), "did you mean 'flash'")
    refused(spectrum("gen", *flux_args, "--attention", "flash", "x"), "--attention flash")


def test_quality_finds_the_speedup(spectrum, flux_args):
    args = [x for x in flux_args if x not in ("--speedup", "2", "--method", "hold")]
    args = but(args, "--steps", "12")
    as_json = ["--json", "--force", "-o", "a.png"]
    counts = []
    for quality in ("0.9", "0.001"):
        code, out, err = spectrum("gen", *args, *as_json, "--quality", quality, "x")
        assert (code, err) == (0, "")
        document = json.loads(out)
        assert document["speedup"]["requested"] is None
        counts.append(len(document["computed_steps"]))
    assert counts[0] < counts[1]
    refused(spectrum("gen", *flux_args, "--quality", "good", "x"), "--quality", "or --speedup")
    refused(spectrum("gen", *args, "--quality", "best", "x"), "draft, good, high")


def test_tuned_steps_are_for_the_models_own_scheduler():
    from spectrum.methods import METHODS, tuned_method
    from spectrum.pipeline.catalog import find_preset
    from spectrum.pipeline.preset import Tuned
    from spectrum.pipeline.request import resolve
    from spectrum.schedule import ExplicitSchedule

    preset, steps = find_preset("demo-video"), [0, *range(4, 49, 5), 49]
    entry = Tuned(num_steps=50, steps=steps, length=2.0, trust=0.1)
    cache = preset.cache.model_copy(update={"speedup": 4.5, "tuned": [entry]})
    preset = preset.model_copy(update={"cache": cache})
    tuned = resolve(preset, "x")
    assert tuned.schedule == ExplicitSchedule(tuple(steps))
    method = replace(tuned_method(2.0, 0.1), scale=resolve(preset, "x", speedup=2).method.scale)
    assert tuned.method == method != METHODS["spectrum"]
    assert resolve(preset, "x", scheduler="euler").schedule is None
    assert resolve(preset, "x", method="even").schedule is None
    assert resolve(preset, "x", speedup=2).schedule is None


def test_the_target_is_a_switch(spectrum, flux_args):
    for target in ("feature", "denoised"):
        code, _, err = spectrum("gen", *flux_args, "--target", target, "-o", f"{target}.png", "x")
        assert (code, err) == (0, "")
        assert read_metadata(Path(f"{target}.png"))["target"] == target
    assert not np.array_equal(picture("feature.png"), picture("denoised.png"))
    refused(spectrum("gen", *flux_args, "--target", "middle", "x"), "feature, denoised")
    # as it was called before
    refused(spectrum("gen", *flux_args, "--target", "output", "x"), "feature, denoised")


def test_attention_and_tiling(spectrum, flux_args):
    code, _, err = spectrum(
        "gen", *flux_args, "--attention", "native", "--vae-tiling", "-o", "a.png", "x"
    )
    assert (code, err) == (0, "")


# -- models without a preset ---------------------------------------------------------------------


def test_a_folder_is_a_model(spectrum, folders):
    args = ["gen", "-m", folders / "sd15", "--width", 32, "--height", 32, *SMALL, "--seed", "3"]
    code, _, err = spectrum(*args, "-q", "-o", "a.png", "x")
    assert (code, err) == (0, "")
    document = read_metadata(Path("a.png"))
    assert document["pipeline"] == "StableDiffusionPipeline"
    assert document["model"] == str(folders / "sd15")
    code, _, err = spectrum("show", "a.png")
    command = err.split("again: ", 1)[1].strip()
    import shlex

    spectrum(*shlex.split(command)[1:], "-q", "-o", "b.png")
    assert np.array_equal(picture("a.png"), picture("b.png"))


def test_inspect(spectrum, folders):
    code, out, err = spectrum("inspect", folders / "sd15", "--dtype", "float32", "--json")
    assert code == 0
    assert "load: " in err
    found = json.loads(out)
    assert found["denoisers"][0]["blocks"] == {"down_blocks": 2, "mid_block": 1, "up_blocks": 2}
    assert found["denoisers"][0]["heads"] == ["conv_norm_out"]
    assert found["calls"] == 1
    code, out, _ = spectrum("inspect", "flux.1-dev", "--weights", folders / "flux", *FLUX[2:])
    assert code == 0
    assert "transformer_blocks (2), single_transformer_blocks (2)" in out
    assert "head, fed with the forecast: norm_out" in out
    assert "4.0 KiB stored" in out  # 64 tokens of 32 numbers in bfloat16


def test_folders_that_are_no_pipeline(spectrum, tmp_path, folders):
    (tmp_path / "empty").mkdir()
    refused(spectrum("gen", "-m", tmp_path / "empty", "x"), "no model_index.json")
    (tmp_path / "model_index.json").write_text('{"_class_name": "NoSuchPipeline"}')
    refused(spectrum("gen", "-m", tmp_path, "x"), "no pipeline NoSuchPipeline")
    (tmp_path / "model_index.json").write_text('{"_class_name": ["code.py", "Mine"]}')
    refused(spectrum("gen", "-m", tmp_path, "x"), "code of its own")
    (tmp_path / "model_index.json").write_text("{")
    refused(spectrum("gen", "-m", tmp_path, "x"), "not a pipeline's index")


def test_settings_in_an_index_are_no_components(tmp_path):
    """Krea 2's tells which of its encoder's layers are taken, by numbers."""
    index = {"_class_name": "Krea2Pipeline", "layers": [1, 2], "sizes": [64, 64, 64]}
    index |= {"vae": ["diffusers", "AutoencoderKL"], "guider": [None, None]}
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    found = read_index(tmp_path / "model_index.json")
    assert found == ("Krea2Pipeline", {"vae": "AutoencoderKL"})


def test_several_pictures_of_one_sample_stand_side_by_side(spectrum, flux_args, monkeypatch):
    """As Qwen-Image-Layered's layers; a PNG holds one."""

    def layers(self, image, output_type):
        return np.stack([np.full((16, 24, 3), shade) for shade in (0.2, 0.6, 1.0)])[None]

    monkeypatch.setattr(VaeImageProcessor, "postprocess", layers)
    code, _, err = spectrum("gen", *flux_args, "-o", "x.png", "red")
    assert (code, err) == (0, "")
    made = picture(Path("x.png"))
    assert made.shape == (16, 72, 3)
    assert made[0, ::24, 0].tolist() == [51, 153, 255]


def test_a_pickle_is_not_read(spectrum, folders, tmp_path):
    shutil.copytree(folders / "sd15", tmp_path / "pickled")
    unet = tmp_path / "pickled" / "unet"
    (unet / "diffusion_pytorch_model.safetensors").rename(unet / "diffusion_pytorch_model.bin")
    result = spectrum("gen", "-m", tmp_path / "pickled", *SMALL, "x")
    refused(result, "unet", "not in .safetensors")


@pytest.mark.parametrize(
    ("error", "words", "code"),
    [
        (hub.RepositoryNotFoundError, ("no such model", "spelling"), 1),
        (hub.GatedRepoError, ("accept its licence", "hf auth login"), 1),
        (hub.RemoteEntryNotFoundError, ("no model_index.json",), 2),
        (hub.LocalEntryNotFoundError, ("can't be reached", "hf download some/model"), 1),
    ],
)
def test_ids_that_the_hub_does_not_give(spectrum, monkeypatch, error, words, code):
    def fail(*_args, **_kwargs):
        raise error.__new__(error)  # without a response to make up

    monkeypatch.setattr("huggingface_hub.hf_hub_download", fail)
    refused(spectrum("gen", "-m", "some/model", "x"), "some/model", *words, code=code)


def test_an_id_that_a_preset_has_is_that_preset(spectrum):
    from spectrum.pipeline.catalog import find_preset

    assert find_preset("black-forest-labs/FLUX.1-dev").name == "flux.1-dev"


def test_a_distilled_model_runs_plainly_and_says_so(spectrum, folders):
    args = ["gen", "-m", "flux.1-schnell", "--weights", folders / "flux", *FLUX[2:]]
    args += ["--dtype", "float32", "--set", "max_sequence_length=8"]
    code, _, err = spectrum(*args, "-o", "a.png", "x")
    assert code == 0
    assert "nothing to skip" in err
    assert read_metadata(Path("a.png"))["computed_steps"] == [0, 1, 2, 3]
    refused(spectrum(*args, "--speedup", "2", "x"), "nothing to skip", "leave --speedup")
    refused(spectrum(*args, "--quality", "good", "x"), "nothing to skip", "leave --quality")


def test_a_model_that_takes_no_prompt_is_refused(spectrum, folders):
    result = spectrum("gen", "-m", folders / "svd", "--image", folders / "in.png", *SMALL, "x")
    refused(result, "takes no PROMPT")


def test_memory_is_told_before_loading(spectrum, monkeypatch):
    monkeypatch.setattr("spectrum.pipeline.weights.check_reachable", lambda *_: None)
    _, _, err = spectrum("gen", "-m", "wan2.2-t2v-a14b", "x")
    assert err.startswith("memory: weights 64")
    assert "warning: " in err


def test_quantizing_without_torchao(flux_args, tmp_path):
    code = (
        "import sys; sys.modules['torchao'] = None\nfrom spectrum_cli.__main__ import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "gen", *map(str, flux_args), "--quantize", "int8", "x"],
        capture_output=True, text=True, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 2
    assert "needs torchao; `pip install 'spectrum-diffusion[quantize]'`" in done.stderr


def test_tuned_steps_are_those_of_the_steps_that_are_run(folders):
    """An image leaves out the first of them, by the pipeline's own strength too."""
    from spectrum.pipeline.catalog import find_preset
    from spectrum.pipeline.preset import Cache
    from spectrum.pipeline.request import resolve

    preset = find_preset("demo-image")
    tuned = {"num_steps": 50, "steps": [*range(10), 48], "length": 4.0, "trust": -0.5}
    preset = preset.model_copy(update={"cache": Cache(speedup=4.5, tuned=[tuned])})
    assert resolve(preset, "x").plan.computed_steps[-1] == 48
    request = resolve(preset, "x", image=folders / "in.png")
    assert request.run_steps == 30  # strength 0.6 of 50
    assert request.plan.computed_steps[-1] < 30
    assert request.schedule is None
