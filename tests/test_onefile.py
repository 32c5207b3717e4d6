"""Weights in one file: a denoiser alone, in GGUF too, or all of a Stable Diffusion."""

import json
import shutil

import gguf
import ldm
import numpy as np
import pytest
import tiny_images
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from test_cli import refused
from tiny import tiny_flux

from spectrum.errors import UsageError
from spectrum.pipeline.catalog import find_preset
from spectrum.pipeline.fit import expect
from spectrum.pipeline.loading import Options
from spectrum.pipeline.onefile import load_all
from spectrum.pipeline.request import resolve
from spectrum.tune.settings import run_settings

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
SMALL = [
    "--width", 32, "--height", 32, "--steps", 6, "--speedup", 2, "--seed", 1, "--dtype", "float32",
    "--force", "-q",
]  # fmt: skip
LINEAR = "transformer_blocks.0.ff.net.2.weight"


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Two models of each kind, and of the second its weights in one file."""
    root = tmp_path_factory.mktemp("models")
    flux, sd = tiny_flux(), tiny_images.CASES["sd15"].build()
    flux.save_pretrained(root / "flux")
    sd.save_pretrained(root / "sd")
    torch.manual_seed(3)
    for part in (flux.transformer, sd.unet, sd.vae, sd.text_encoder):
        for weight in part.parameters():
            weight.data += 0.05 * torch.randn_like(weight)
    flux.save_pretrained(root / "flux2")
    sd.save_pretrained(root / "sd2")
    stored = root / "flux2" / "transformer" / "diffusion_pytorch_model.safetensors"
    shutil.copy(stored, root / "flux2.safetensors")
    save_gguf(load_file(stored), root / "flux2.gguf")
    save_file(ldm.checkpoint(sd), root / "sd2.safetensors")
    return root


def save_gguf(weights, path):
    """Large ones in 8 bits."""
    writer = gguf.GGUFWriter(path, "flux")
    for name, value in weights.items():
        array, bits = value.numpy(), gguf.GGMLQuantizationType.Q8_0
        if array.ndim == 2 and array.shape[1] % 32 == 0:
            writer.add_tensor(name, gguf.quants.quantize(array, bits), raw_dtype=bits)
        else:
            writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture
def made(spectrum, folders, tmp_path):
    def make(model, *more):
        path = tmp_path / "x.png"
        code, _, err = spectrum("gen", "-m", folders / model, *more, *SMALL, "-o", path, "a")
        assert code == 0, err
        return np.asarray(Image.open(path)).astype(float)

    return make


@pytest.mark.parametrize(
    ("model", "file", "off"),
    [("flux", "flux2.safetensors", 0), ("flux", "flux2.gguf", 1), ("sd", "sd2.safetensors", 0)],
)
def test_a_file_takes_the_place_of_the_models_own(made, folders, model, file, off):
    theirs, own = made(f"{model}2"), made(model)
    ours = made(model, "--weights", folders / file)
    assert np.abs(ours - theirs).mean() <= off
    assert np.abs(own - theirs).mean() > 5


def test_a_picture_says_which_file(spectrum, folders, tmp_path):
    path, file = tmp_path / "x.png", folders / "flux2.gguf"
    args = ["gen", "-m", folders / "flux", "--weights", file, *SMALL, "-o", path, "a"]
    assert spectrum(*args)[0] == 0
    assert json.loads(spectrum("show", path)[1])["weights"] == str(file)
    assert spectrum("rerun", path, "-o", tmp_path / "y.png", "-q")[0] == 0
    ours, theirs = (np.asarray(Image.open(tmp_path / name)) for name in ("x.png", "y.png"))
    assert (ours == theirs).all()


def test_memory_and_tune_know_the_file(folders):
    request = resolve(find_preset(str(folders / "flux")), "a", width=32, height=32)
    file = folders / "flux2.gguf"
    cpu, own, given = torch.device("cpu"), Options(), Options(weights=file)
    expected = expect(request, cpu, given).weights
    assert expected["transformer"] == file.stat().st_size
    assert expected["vae"] == expect(request, cpu, own).weights["vae"]
    before = run_settings(request, given, cpu)
    assert before["weights"] == str(file.resolve())
    assert before["weights_mark"] != run_settings(request, own, cpu)["weights_mark"]


def _without(folders, tmp_path):
    weights = load_file(folders / "flux2.safetensors")
    del weights[LINEAR]
    save_file(weights, tmp_path / "x.safetensors")


def _scaled(folders, tmp_path):
    weights = load_file(folders / "flux2.safetensors")
    save_file({**weights, "scaled_fp8": torch.zeros(2)}, tmp_path / "x.safetensors")


def _cut(folders, tmp_path):
    whole = (folders / "flux2.safetensors").read_bytes()
    (tmp_path / "x.safetensors").write_bytes(whole[:2000])


def _lora(_folders, tmp_path):
    save_file({"a.lora_A.weight": torch.zeros(2)}, tmp_path / "x.safetensors")


def _no_gguf(_folders, tmp_path):
    (tmp_path / "x.gguf").write_bytes(b"GGML, of old")


def _pickled(_folders, tmp_path):
    (tmp_path / "x.ckpt").write_bytes(b"")


def _nothing(_folders, tmp_path):
    pass


@pytest.mark.parametrize(
    ("prepare", "file", "code", "words"),
    [
        (_without, "x.safetensors", 1, ["FluxTransformer2DModel", "another model?"]),
        (_scaled, "x.safetensors", 2, ["ComfyUI", ".gguf"]),
        (_cut, "x.safetensors", 2, ["cut off"]),
        (_lora, "x.safetensors", 2, ["LoRA", "--lora"]),
        (_no_gguf, "x.gguf", 2, ["not in GGUF"]),
        (_pickled, "x.ckpt", 2, [".safetensors or .gguf", "can run code"]),
        (_nothing, "x.gguf", 2, ["no such file"]),
    ],
)
def test_what_is_wrong_with_a_file(spectrum, folders, tmp_path, prepare, file, code, words):
    prepare(folders, tmp_path)
    args = ["-m", folders / "flux", "--weights", tmp_path / file, *SMALL, "-o", tmp_path / "y.png"]
    refused(spectrum("gen", *args, "a"), file, *words, code=code)
    assert not (tmp_path / "y.png").exists()


def test_of_another_model(spectrum, folders):
    for model, file in [("sd", "flux2.gguf"), ("flux", "sd2.safetensors")]:
        result = spectrum("gen", "-m", folders / model, "--weights", folders / file, *SMALL, "a")
        refused(result, file, "is it for another model?", code=1)


def test_where_no_file_fits(spectrum, folders, monkeypatch):
    file = folders / "flux2.gguf"
    refused(spectrum("gen", "-m", file, "a"), "give it as --weights")
    refused(spectrum("gen", "-m", "wan2.2-t2v-a14b", "--weights", file, "a"), "two denoisers")
    given = ["-m", folders / "flux", "--weights", file, "a"]
    refused(spectrum("gen", *given, "--quantize", "int8"), "few bits already")
    monkeypatch.setattr("spectrum.pipeline.onefile.find_spec", lambda _: None)
    refused(spectrum("gen", *given), "'spectrum-diffusion[gguf]'")
    with pytest.raises(UsageError, match="`quantize` is for a denoiser's file"):
        load_all(folders / "sd2.safetensors", None, "", {"quantization_config": object()})
