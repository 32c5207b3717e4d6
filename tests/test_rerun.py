"""`spectrum rerun`, and what a file's document may hold: through the command."""

import json
import struct
import zlib
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from test_cli import FLUX, WAN, but, refused
from test_inputs import save_lora
from test_media import DOCUMENT, read_mp4
from test_options import commands
from tiny import tiny_flux

from spectrum.compare.metrics import psnr
from spectrum.errors import SpectrumError, UsageError
from spectrum.pipeline.catalog import find_preset
from spectrum.pipeline.document import Document, check
from spectrum.pipeline.media import encode, read_frames, read_metadata, write_png
from spectrum.pipeline.preset import read_preset
from spectrum_cli import sameness
from spectrum_cli.paths import Target
from spectrum_cli.show import command

SMALL = ["--steps", 6, "--speedup", 1.5, "--dtype", "float32", "--device", "cpu", "--seed", 1]


@pytest.fixture
def gen_args(folders):
    return ["gen", *FLUX, "--weights", folders / "flux", *SMALL, "--quiet"]


@pytest.fixture
def made(spectrum, gen_args):
    """The document of a.png."""
    assert spectrum(*gen_args, "-o", "a.png", "a red cat")[0] == 0
    return read_metadata(Path("a.png"))


def rewritten(document, name="b.png", like="a.png", **changes):
    """The same picture with another document."""
    write_png(Path(name), pixels(like), {**document, **changes}, replace=True)
    return name


def pixels(path):
    return np.asarray(Image.open(path).convert("RGB"))


# -- the same again ------------------------------------------------------------------------------


def test_all_of_gens_options_replace_values():
    ours, gens = (
        {flag for p in commands()[name].params for flag in (*p.opts, *p.secondary_opts)}
        for name in ("rerun", "gen")
    )
    no_values = {"prompt", "--dry-run", "--progress"}
    assert gens - no_values <= ours
    assert {"--prompt", "--seed", "--steps", "--no-compile"} <= ours


def test_a_picture(spectrum, gen_args, tmp_path):
    Image.effect_noise((32, 32), 90).convert("RGB").save(tmp_path / "in.png")
    lora = save_lora(tiny_flux(), tmp_path / "lora", 1.0)
    given = ["--method", "published", "--blend", 0.25, "--target", "denoised", "--guidance", 2.5]
    given += ["--image", "in.png", "--strength", 0.75, "--scheduler", "euler"]
    given += ["--lora", f"{lora}:0.12345678", "--set", "max_sequence_length=8", "--vae-tiling"]
    given += ["--set", 'joint_attention_kwargs={"scale": 1.0e-05}', "--attention", "native"]
    given += ["-o", "a.png", "it's `a` \\ cat"]
    assert spectrum(*but(gen_args, "--steps", 8, "--speedup", 1.2), *given) == (0, "a.png\n", "")
    code, out, err = spectrum("rerun", "a.png")
    assert (code, out) == (0, "a-again.png\n")
    assert err.endswith("the same picture as a.png\n")
    assert (pixels("a.png") == pixels("a-again.png")).all()
    assert read_metadata(Path("a-again.png")) == read_metadata(Path("a.png"))
    weights = gen_args[gen_args.index("--weights") + 1]
    for place in (f"weights from {weights}", f"LoRA {lora}:0.12345678", "the image in.png"):
        assert err.index(f"{place}, which the file names\n") < err.index("load: ")


def test_a_film(spectrum, folders):
    args = ["gen", *WAN, "--weights", folders / "wan", *SMALL, "--negative-prompt", "dim", "-q"]
    assert spectrum(*args, "-o", "a.mp4", "x")[0] == 0
    code, out, err = spectrum("rerun", "a.mp4")
    assert (code, out) == (0, "a-again.mp4\n")
    assert err.endswith("the same film as a.mp4\n")
    assert (read_mp4("a.mp4")[1] == read_mp4("a-again.mp4")[1]).all()
    assert read_frames(Path("a.mp4"), (4, 48, 32)) is None  # it has 5 frames

    assert spectrum(*args, "-o", "film.png", "x")[0] == 0
    code, out, err = spectrum("rerun", "film/0002.png")
    assert (code, out) == (0, "film-again\n")
    assert err.endswith("the same picture as film/0002.png\n")
    assert len(list(Path("film-again").glob("*.png"))) == 5
    assert spectrum("rerun", "film")[2].endswith("the same film as film\n")
    Image.new("RGB", (32, 48)).save("film-again/0003.png")
    Path("film-again/0000.png").unlink()
    Path("film-again/0004.png").rename("film-again/0007.png")
    code, out, err = spectrum("rerun", "film-again", "--json")
    told = json.loads(out)
    assert (code, told["again"], told["same"]) == (0, "film-again", False)
    assert told["missing"] == ["0000.png", "0004.png"]
    assert (told["differing"], told["foreign"]) == (["0003.png"], ["0007.png"])
    assert err.splitlines()[-1].startswith(
        f"not the same film as film-again: PSNR {told['psnr']:.1f} dB; missing 0000.png, 0004.png"
        " (2); differing 0003.png (1); not of it 0007.png (1)"
    )


@pytest.mark.parametrize("ending", [".gif", ".webp"])
def test_a_film_that_stands_still_is_the_same(tmp_path, ending):
    """Its equal pictures are written as one."""
    path, size = tmp_path / f"a{ending}", {"frames": 6, "height": 32, "width": 48}
    frames = np.zeros((6, 32, 48, 3), np.uint8)
    frames[3:] = 200
    encode(path, ending, frames, DOCUMENT, 16)
    told, made = SimpleNamespace(**size, fps=16, frame=None), SimpleNamespace(frames=frames)
    old = sameness.before([path], told)
    new = sameness.now(made, Target(path, path), 16, told, path, whole=False)
    assert sameness.judge(old, new).same is True
    new = sameness.now(made, Target(path, path), 8, told, path, whole=False)
    assert sameness.judge(old, new).same is False


@pytest.mark.parametrize("given", [["--quality", 0.03], ["--speedup", 1], []])
def test_a_model_of_the_package(spectrum, given):
    args = ["gen", "--steps", 12, "--seed", 4, *given, "-q", "-o", "a.png", "a red circle"]
    assert spectrum(*args)[0] == 0
    code, _, err = spectrum("rerun", "a.png", "-o", "b.png")
    assert code == 0
    assert err.endswith("the same picture as a.png\n")
    assert "which the file names" not in err  # weights of its own


def test_what_goes_to_standard_output_is_judged_as_it_is_encoded(tmp_path):
    frames = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), np.uint8)
    encode(file := tmp_path / "a.mp4", ".mp4", frames, {}, 8)
    made, told = SimpleNamespace(frames=frames), SimpleNamespace(frame=None)
    there = Target(Path("standard output.mp4"), Path("standard output.mp4"), is_stdout=True)
    now = sameness.now(made, there, 8, told, file, False)
    before = {"a.mp4": read_frames(file, (5, 32, 32))}
    assert sameness.judge(before, now).same
    assert not np.array_equal(before["a.mp4"], frames)  # it is a lossy format


def test_a_document_has_the_scale_that_the_run_went_by(made):
    assert "scale=6.0, " in made["forecaster"]  # the tiny model's 64 positions


def test_rerun_says_that_a_seed_is_the_files_own(spectrum):
    assert "random" not in spectrum("rerun", "--help")[1]


def test_single_values_are_replaced(spectrum, made):
    code, out, _ = spectrum("rerun", "a.png", "--seed", 7, "--steps", 9, "--json", "-q")
    report = json.loads(out)
    assert code == 0
    assert (report["seeds"], report["steps"], report["again"]) == ([7], 9, "a.png")
    assert report["same"] is False
    assert report["psnr"] == pytest.approx(
        psnr(*(pixels(x)[None].astype(np.float32) / 255 for x in ("a-again.png", "a.png")))
    )
    again = read_metadata(Path("a-again.png"))
    differ = {key for key in made if made[key] != again[key]}
    assert differ <= {"seed", "steps", "speedup", "computed_steps", "forecaster"}

    for options, words in {
        ("--quality", "good"): {"quality": 0.02},
        ("--method", "published", "--speedup", 1.2): {"method": "published", "target": "feature"},
        ("--prompt", "a dog", "--no-vae-tiling"): {"prompt": "a dog", "vae_tiling": False},
        ("--set", "max_sequence_length=4"): {"extras": {"max_sequence_length": 4}},
        ("--steps", 2): {"steps": 2, "speedup": 1.0},  # the file's leaves too few to compute
        ("--set", "sigmas=[1.0, 0.5]"): {"steps": 2, "speedup": 1.0},
        ("--width", 48): {"width": 48},
    }.items():
        code, _, err = spectrum("rerun", "a.png", *options, "-o", "b.png", "--force")
        assert code == 0, err
        again = read_metadata(Path("b.png"))
        assert {key: again[key] for key in words} == words
    assert err.endswith("not the same size as a.png\n")


def test_another_model_has_its_own_values(spectrum, made):
    code, _, err = spectrum("rerun", "a.png", "--model", "demo-image", "--steps", 6, "-o", "b.png")
    assert code == 0, err
    again = read_metadata(Path("b.png"))
    assert (again["prompt"], again["seed"], again["steps"]) == ("a red cat", 1, 6)
    assert (again["width"], again["guidance"], again["weights"]) == (
        128,
        1.0,
        "embedded:demo-image",
    )
    assert "preset" not in err


def test_what_differs_is_said(spectrum, made):
    versions = {**made["versions"], "torch": "1.0"}
    there = {"device": "cuda", "machine": "Elsewhere", "threads": 64, "preset": "0" * 16}
    code, _, err = spectrum("rerun", rewritten(made, **there, versions=versions, offload="model"))
    assert code == 0
    for sentence in (
        "the preset flux.1-dev has other values than it had", "device: cpu now, cuda then",
        f"machine: {made['machine']} now, Elsewhere then", "threads: 1 now, 64 then",
        f"torch: {made['versions']['torch']} now, 1.0 then",
    ):  # fmt: skip
        assert f"{sentence}\n" in err
        assert err.index(sentence) < err.index("load: ")
    for unsaid in ("dtype:", "diffusers:", "spectrum-diffusion:"):
        assert unsaid not in err
    assert err.endswith("the same picture as b.png\n")
    code, out, err = spectrum("rerun", "b.png", "-q", "--json")
    assert len(json.loads(out)["differences"]) == 5
    assert err == ""


def test_a_presets_digest_is_of_what_decides_pixels(tmp_path):
    preset = find_preset("demo-image")
    text = preset.path.read_text()
    (tmp_path / "copy.yaml").write_text(text.replace("summary: shapes", "summary: Shapes") + "# x")
    (tmp_path / "other.yaml").write_text(text.replace("shift: 1.596", "shift: 1.6"))
    assert read_preset(tmp_path / "copy.yaml").digest == preset.digest
    assert read_preset(tmp_path / "other.yaml").digest != preset.digest


def test_a_file_that_was_changed_since_is_not_compared(spectrum, made):
    Image.fromarray(pixels("a.png")).resize((16, 16)).save("small.png")
    code, _, err = spectrum("rerun", rewritten(made, like="small.png"))
    assert code == 0
    assert err.endswith(
        "b.png has another size than it says, so it was changed and is not compared\n"
    )
    Image.fromarray(255 - pixels("a.png")).save("inverse.png")
    _, out, err = spectrum("rerun", rewritten(made, like="inverse.png"), "--json")
    assert "not the same picture as b.png: PSNR" in err
    assert 0 < json.loads(out)["psnr"] < 20


def test_files_of_earlier_versions(spectrum, made):
    later = ("image", "strength", "loras", "scheduler", "extras", "quality", "offload", "quantize")
    later += ("vae_tiling", "compile", "attention", "preset", "machine", "threads", "frame")
    old = {key: value for key, value in made.items() if key not in later}
    old["versions"].pop("transformers")
    code, _, err = spectrum("rerun", rewritten(old, target="output"))
    assert code == 0
    assert err.endswith("the same picture as b.png\n")
    code, out, err = spectrum("show", "b.png")
    assert json.loads(out)["target"] == "output"
    assert "--target denoised" in err
    del old["target"]
    assert spectrum("rerun", rewritten(old))[0] == 0


# -- a line of a manifest ------------------------------------------------------------------------


def test_a_manifests_line(spectrum, made, tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    lines = [{"id": 1, "file": None, "status": "failed"}, {"id": 2, "file": "a.png"}]
    lines += [{"file": "../a.png"}, {"file": str(tmp_path / "a.png")}, {"file": 5}, [1]]
    text = "\n".join(map(json.dumps, lines)) + "\n" + "[" * 100000
    (folder / "m.jsonl").write_text(text)
    Path("a.png").rename(folder / "a.png")
    code, out, err = spectrum("rerun", "out/m.jsonl:2")
    assert (code, out) == (0, "a-again.png\n")
    assert err.endswith("the same picture as out/a.png\n")
    for line, words in {
        1: "no file", 3: "outside the manifest's folder", 4: "outside", 5: "no file",
        6: "no JSON object", 7: "no JSON object", 8: "no such line", 0: "lines count from 1",
    }.items():  # fmt: skip
        refused(spectrum("rerun", f"out/m.jsonl:{line}"), f"m.jsonl:{line}", words)
    refused(spectrum("rerun", "gone.jsonl:1"), "gone.jsonl: can't be read")


# -- what bad documents get ----------------------------------------------------------------------


@pytest.fixture
def unloaded(monkeypatch):
    """Whoever loads something fails."""

    def fail(*_args, **_kwargs):
        raise SpectrumError("loaded")

    monkeypatch.setattr("spectrum.pipeline.loading.load_pipeline", fail)
    monkeypatch.setattr("spectrum.pipeline.discover._fetch_index", fail)


def deep(levels):
    return json.loads("[" * levels + "]" * levels)


ODD = [None, True, -1, 10**30, 1.5, "", "x" * 300, "\x1b[31m\x9b", [], {}, [[1]], deep(400)]


def damaged(document):
    """Every key once gone, and once of each odd value."""
    for key in (*document, "unknown"):
        yield {name: value for name, value in document.items() if name != key}
        yield from ({**document, key: value} for value in ODD)


def test_no_document_is_an_internal_error(spectrum, made, unloaded):
    """One line, no file, and nothing that a terminal obeys."""
    before = set(Path().iterdir()) | {Path("b.png")}
    for number, document in enumerate(damaged(made)):
        with suppress(UsageError):
            command(check(Path("b.png"), document))
        if number % 11:  # not all of them by the command, which takes longer
            continue
        for name in ("show", "rerun"):
            code, out, err = spectrum(name, rewritten(document))
            assert "SPECTRUM_DEBUG" not in err
            assert code in (0, 2) or "spectrum: loaded" in err
            assert code or name == "show"
            assert code == 0 or (err.count("spectrum: ") == 1 and len(err) < 600)
            assert not [c for c in out + err if ord(c) in (*range(10), 27, *range(127, 160))]
    assert set(Path().iterdir()) == before


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"schema": 2}, ["schema 2", "a newer one may"]),
        ({"prompt": 5}, ["its document is damaged", "prompt: Input should be a valid string"]),
        ({"foo": 1}, ["foo: unknown key"]),
        ({"steps": 10**9}, ["steps", "less than"]),
        ({"extras": {"a": deep(40)}}, ["extras", "deep"]),
        ({"frames": 10**5, "width": 10**5}, ["pixels"]),
        ({"seed": "1", "fps": "x", "dtype": 1, "steps": 0, "width": 0}, ["seed", "fps", "; …"]),
        ({"loras": ["../x.safetensors"]}, ["--lora ../x.safetensors", "outside the folder"]),
        ({"loras": ["..\\x.safetensors"]}, ["--lora", "outside the folder"]),
        ({"loras": ["x.ckpt"]}, ["--lora x.ckpt", "only .safetensors"]),
        ({"image": "//host/share/x.png"}, ["--image //host", "outside the folder"]),
        ({"image": "a/../../x.png"}, ["--image", "outside the folder"]),
        ({"weights": "../weights"}, ["--weights ../weights", "outside the folder"]),
        ({"model": "../mine.yaml"}, ["--model ../mine.yaml", "outside the folder"]),
        ({"extras": {"mask_image": "../x.png"}}, ["--set ../x.png", "outside the folder"]),
        ({"extras": {"latents": 1}}, ["--set latents", "set by Spectrum"]),
        ({"dtype": "float8"}, ["no dtype 'float8'"]),
        ({"quality": 1}, ["--quality"]),
    ],
)
def test_refused_documents(spectrum, made, unloaded, changes, words):
    Path("x.ckpt").write_bytes(b"")
    _, _, err = result = spectrum("rerun", rewritten(made, **changes), "-q")
    refused(result, *words)
    assert not Path("b-again.png").exists()
    assert len(err) < 400
    code, _, err = spectrum("show", "b.png")
    assert code == (2 if "b.png: " in result[2] else 0)


def test_a_value_that_is_given_needs_no_trust(spectrum, made, folders):
    """What the file says in its place is not looked at."""
    args = ["rerun", rewritten(made, weights="../x"), "--weights", folders / "flux"]
    code, _, err = spectrum(*args, "-o", "c.png")
    assert code == 0
    assert "which the file names" not in err
    changes = {"loras": ["../x.safetensors"], "extras": {"mask_image": "../x"}}
    lora = save_lora(tiny_flux(), Path("lora"), 1.0)
    args = ["rerun", rewritten(made, **changes), "--lora", lora, "--set", "mask_image=1"]
    refused(spectrum(*args, "-q"), "takes no argument 'mask_image'")


def test_paths_that_climb_are_found_again(spectrum, gen_args, tmp_path, monkeypatch):
    Image.effect_noise((32, 32), 90).convert("RGB").save(tmp_path / "in.png")
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    assert spectrum(*gen_args, "--image", "../in.png", "-o", "a.png", "x")[0] == 0
    assert read_metadata(Path("a.png"))["image"] == str(tmp_path / "in.png")
    assert spectrum("rerun", "a.png")[2].endswith("the same picture as a.png\n")


@pytest.mark.parametrize("text", ["[" * 10**5, '{"schema": ' + "9" * 5000 + "}", "null", "5", "{"])
def test_what_is_no_document(spectrum, tmp_path, text):
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_itxt("spectrum", text)
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png", pnginfo=info)
    for name in ("show", "rerun"):
        refused(spectrum(name, "a.png"), "spectrum did not write this file")


def test_only_a_png_and_an_mp4_are_opened(spectrum, tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.gif")
    (tmp_path / "a.gif").rename(tmp_path / "a.png")
    (tmp_path / "list.mp4").write_text("ffconcat version 1.0\nfile 'b.mp4'\n")
    Image.new("RGB", (8, 8)).save(tmp_path / "bomb.png")
    bomb = bytearray((tmp_path / "bomb.png").read_bytes())
    bomb[16:24] = struct.pack(">II", 50000, 50000)
    bomb[29:33] = struct.pack(">I", zlib.crc32(bomb[12:29]))
    (tmp_path / "bomb.png").write_bytes(bomb)
    for file, word in {
        "a.png": "not a",
        "bomb.png": "exceeds limit",
        "list.mp4": "did not",
    }.items():
        for name in ("show", "rerun"):
            refused(spectrum(name, file), word)


def test_what_terminals_obey_is_shown_escaped(spectrum, made):
    prompt = "a\x1b]0;owned\x07 b\x9b31m\r\nc \u202e d"
    name = rewritten(made, prompt=prompt)
    code, out, err = spectrum("show", name)
    assert code == 0
    assert json.loads(out)["prompt"] == prompt
    assert err == "again: spectrum rerun b.png\n"
    code, again, told = spectrum("rerun", name)
    assert code == 0
    for text in (out, err, again, told):
        assert not set(text) & {"\x1b", "\x07", "\x9b", "\r", "\u202e"}
    assert read_metadata(Path("b-again.png"))["prompt"] == prompt


def test_show_tells_a_prompt_from_an_option(spectrum, made):
    assert spectrum("show", rewritten(made, prompt="--help"))[2].endswith(" -- --help\n")


def test_what_is_written_is_a_document(made):
    document = check(Path("a.png"), made)
    assert isinstance(document, Document)
    assert {*made} | {"frame", "job"} == {
        field.alias or name for name, field in Document.model_fields.items()
    }
    assert len(json.dumps(made)) < 2500  # for all but the request a JPEG has 4000 kept free
    with pytest.raises(Exception, match="generator: missing"):
        check(Path("a.png"), DOCUMENT)
