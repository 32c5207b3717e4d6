"""Previews: small pictures of a run under way, without decoding."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tiny_images
import tiny_videos
import torch
from PIL import Image
from test_cli import FLUX, refused
from tiny import tiny_flux

from spectrum import SpectralCache
from spectrum.pipeline import preview
from spectrum.pipeline.catalog import find_preset
from spectrum.pipeline.generate import generate
from spectrum.pipeline.loading import load_pipeline
from spectrum.pipeline.preview import Preview, fit, place_beside
from spectrum.pipeline.request import resolve

# One of each way to pack, to scale and to order samples, and of each kind of VAE.
CLASSES = (
    "sdxl", "sd3", "flux2", "qwen-image", "sana", "hunyuanvideo-1.5", "wan2.2-ti2v-5b",
    "ltx-video", "ltx-2", "mochi", "kandinsky-5",
)  # fmt: skip
GEN = ["gen", "--steps", 12, "--seed", 1, "--speedup", 2, "-o", "a.png"]


@pytest.fixture
def kept(monkeypatch):
    """Every preview that is written: its path, and what the file showed then."""
    written = []

    def write(path, picture, real=preview.write_preview):
        real(path, picture)
        with Image.open(path) as opened:
            written.append((path, np.asarray(opened.convert("RGB"))))

    monkeypatch.setattr(preview, "write_preview", write)
    return written


def likeness(small, picture):
    """Correlation of the colours, at the size of the smaller."""
    image = Image.fromarray(picture).resize(small.shape[1::-1], Image.Resampling.BOX)
    return np.corrcoef(small.ravel(), np.asarray(image).ravel())[0, 1]


def test_it_resembles_the_picture_and_is_gone_at_the_end(spectrum, kept):
    assert spectrum(*GEN, "-q", "--preview", 4, "a red circle on a blue background")[0] == 0
    assert [path for path, _ in kept] == [Path("a.preview.png")] * 3
    assert [path.name for path in Path().iterdir()] == ["a.png"]
    picture = np.asarray(Image.open("a.png"))
    for _, shown in kept:
        assert shown.shape == (256, 256, 3)  # 16 latent pixels a side, enlarged
        assert likeness(shown[8::16, 8::16], picture) > 0.8
    noise = np.random.default_rng(0).integers(0, 255, (16, 16, 3), dtype=np.uint8)
    assert abs(likeness(noise, picture)) < 0.3

    assert spectrum(*GEN[:-1], "b.png", "-q", "a red circle on a blue background")[0] == 0
    assert (np.asarray(Image.open("b.png")) == picture).all()  # no random number was taken


def test_a_films_middle_frame():
    request = resolve(
        find_preset("demo-video"), "a large red circle moves right on a white background"
    )
    pipe = load_pipeline(request, torch.device("cpu"))
    seen = []
    made = generate(pipe, request, 2, observe=lambda _, denoised: seen.append(denoised))
    picture = fit(pipe).picture(seen[-1], (request.width, request.height))
    assert picture.shape == (8, 8, 3)
    middle, first = made.frames[len(made.frames) // 2], made.frames[0]
    assert likeness(picture, middle) > max(0.8, likeness(picture, first))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.filterwarnings("ignore:In CPU autocast:UserWarning")
@pytest.mark.parametrize("name", CLASSES)
def test_it_projects_what_the_pipeline_decodes(name, monkeypatch):
    case = {**tiny_images.CASES, **tiny_videos.CASES}[name]
    pipe, seen, decoded = case.build(), [], []
    decode = pipe.vae.decode

    def listen(latents, *args, **kwargs):
        decoded.append(latents)
        return decode(latents, *args, **kwargs)

    monkeypatch.setattr(pipe.vae, "decode", listen)
    projection = fit(pipe)
    with SpectralCache(pipe, 1, observe=lambda _, denoised: seen.append(denoised)):
        pipe(
            **case.call, num_inference_steps=3, generator=torch.Generator().manual_seed(1),
            output_type="np",
        )  # fmt: skip
    given = decoded[0][0]
    given = given[:, given.shape[1] // 2] if given.ndim == 4 else given
    size = (case.call["width"], case.call["height"])
    ours = projection.latent(seen[-1], size)
    assert ours.shape == given.shape
    assert torch.allclose(ours, given, atol=1e-5 * float(given.abs().max()))
    assert projection.picture(seen[-1], size).shape == (*given.shape[1:], 3)


# -- where there is none -------------------------------------------------------------------------


@pytest.mark.parametrize("method", [["--method", "published"], ["--target", "feature"]])
def test_a_run_that_tells_no_denoised_sample(spectrum, kept, method):
    code, out, err = spectrum(*GEN, *method, "--preview", 2, "a red circle")
    assert (code, out) == (0, "a.png\n")
    assert err.count("no preview: only a run with --target denoised") == 1
    assert not kept


def told(pipe, size=(32, 32), sample=None, place="a.png"):
    said = []
    with Preview(pipe, Path(place), 1, size, said.append) as shown:
        if sample is not None:
            shown.observe(0, sample)
        for index in range(3):
            shown.on_step(None, SimpleNamespace(index=index))
        assert not shown.path.exists() or not said
    assert not shown.path.exists()
    return said


def test_pipelines_without_a_mapping(tmp_path, monkeypatch, flux):
    monkeypatch.chdir(tmp_path)
    (said,) = told(SimpleNamespace(vae=None))
    assert said == "no preview: SimpleNamespace has no VAE that encodes pictures"
    assert told(flux, sample=torch.zeros(1, 64, 16)) == []
    (said,) = told(flux, sample=torch.zeros(1, 63, 16))
    assert "63 tokens are no frames of 8 x 8" in said
    (said,) = told(flux, sample=torch.zeros(1, 64, 15))
    assert "can't be unpacked" in said
    (said,) = told(flux, sample=torch.zeros(1, 5, 32, 32))
    assert "can't be told into pixels" in said
    monkeypatch.setattr(type(flux.vae), "encode", lambda *_, **__: 1 / 0)
    (said,) = told(flux)
    assert said == "no preview: AutoencoderKL encodes no colour fields: division by zero"


def test_a_full_disk_does_not_end_the_run(tmp_path, monkeypatch, flux):
    def fail(_path, _picture):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(preview, "write_preview", fail)
    (said,) = told(flux, sample=torch.zeros(1, 64, 16), place=tmp_path / "a.png")
    assert "No space left" in said


def test_no_file_of_the_users_is_replaced(spectrum, monkeypatch, tmp_path):
    """Refused before anything is loaded; a preview that a killed run has left is not."""
    Image.new("RGB", (8, 8)).save("a.preview.png")
    with monkeypatch.context() as patch:
        patch.setattr("spectrum.pipeline.loading.load_pipeline", None)
        for options in ([], ["--force"]):
            result = spectrum(*GEN, *options, "--preview", 2, "x")
            refused((result[0], result[1], result[2]), "a.preview.png", "leave --preview")
    Path("a.preview.png").write_text("no picture")
    with pytest.raises(ValueError, match="taken"):
        place_beside(Path("a.png"))
    preview.write_preview(Path("a.preview.png"), np.zeros((8, 8, 3), np.uint8))
    assert place_beside(Path("a.png")) == Path("a.preview.png")


def test_a_run_that_fails_leaves_none(spectrum, monkeypatch, tmp_path, kept):
    tiny_flux().save_pretrained(tmp_path / "flux")

    def fail(*_):
        raise KeyboardInterrupt

    args = ["gen", *FLUX, "--weights", "flux", "--steps", 6, "--speedup", 1.5, "--seed", 1, "-q"]
    monkeypatch.setattr("spectrum.pipeline.media.encode_png", fail)
    assert spectrum(*args, "--preview", 1, "x")[0] == 130
    assert kept
    assert [path.name for path in tmp_path.iterdir()] == ["flux"]


def test_none_would_be_shown(spectrum):
    asked = ("gen", "--steps", 6, "--preview", 7, "-o", "a.png", "a red circle")
    refused(spectrum(*asked), "--preview 7", "6 steps")
