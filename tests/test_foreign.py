"""Files that anyone may have written: nothing in them runs code, hangs, or fills the memory."""

import json
import os
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from spectrum.errors import UsageError
from spectrum.pipeline.catalog import find_preset
from spectrum.pipeline.foreign import parse_json, read_yaml
from spectrum.pipeline.inputs import look_at, parse_extras
from spectrum.pipeline.preset import read_preset
from spectrum.pipeline.weights import tensor_shapes

HIDREAM = find_preset("hidream").path.read_text(encoding="utf-8")
DEMO = find_preset("demo-image").path.read_text(encoding="utf-8")
PAIRS = zip("abcdefgh", "bcdefghi", strict=True)
BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{name}: &{name} [{','.join([f'*{before}'] * 9)}]\n" for before, name in PAIRS
)


def refused(outcome, words):
    code, out, err = outcome
    assert (code, out) == (2, "")
    assert words in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("setting", ["trust_remote_code: true", "code_revision: x", "use_auth: x"])
def test_no_preset_says_that_code_is_to_be_run(tmp_path, setting):
    path = tmp_path / "mine.yaml"
    settings = "settings: {output_hidden_states: true"
    assert settings in HIDREAM
    path.write_text(HIDREAM.replace(settings, f"{settings}, {setting}"))
    with pytest.raises(UsageError, match=r"components.*settings.*unknown key"):
        read_preset(path)


def test_the_code_of_a_component_is_not_run(spectrum, flux, tmp_path, monkeypatch):
    """A folder of the preset's, with a class of its own, which transformers would ask about."""
    flux_weights = tmp_path / "flux"
    flux.save_pretrained(flux_weights)
    place = tmp_path / "own"
    place.mkdir()
    (place / "config.json").write_text(
        '{"auto_map": {"AutoConfig": "evil.C", "AutoModel": "evil.M"}, "model_type": "evil"}'
    )
    (place / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    preset = tmp_path / "evil.yaml"
    flux = find_preset("flux.1-dev").path.read_text(encoding="utf-8")
    preset.write_text(
        f"{flux}\ncomponents: {{image_encoder: {{class: AutoModel, weights: {place}}}}}\n"
    )
    monkeypatch.setattr(sys, "stdin", open(os.devnull))  # noqa: SIM115 - no answer
    code, _, err = spectrum(
        "gen", "-m", preset, "--weights", flux_weights, "--width", 32, "--height", 32, "x"
    )
    assert code == 1
    assert "trust_remote_code" in err or "evil" in err
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "line", ["pipeline: utils", "scheduler: {name: os}", "shift: 1.0e-320", "shift: .inf"]
)
def test_odd_names_and_numbers_are_refused(tmp_path, line):
    key = line.split(":")[0]
    kept = "\n".join(row for row in DEMO.splitlines() if not row.startswith(f"{key}:"))
    path = tmp_path / "mine.yaml"
    path.write_text(f"{kept}\n{line}\n")
    with pytest.raises(UsageError, match=key):
        read_preset(path)


@pytest.mark.parametrize("text", [BOMB, "[" * 40 + "]" * 40, "a: [", "\x00", "{" * 3000])
def test_yaml_that_explodes_is_refused_at_once(text):
    began = time.process_time()
    with pytest.raises(UsageError, match="not YAML"):
        read_yaml(text, "a file")
    assert time.process_time() - began < 1
    with pytest.raises(UsageError, match="not YAML"):
        parse_extras([f"key={text}"])


def test_only_regular_files_are_read(spectrum, tmp_path):
    os.mkfifo(tmp_path / "pipe.yaml")
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(UsageError, match="not a regular file"):
        read_preset(tmp_path / "pipe.yaml")
    with pytest.raises(UsageError, match="not a regular file"):
        look_at(tmp_path / "pipe.png")
    large = tmp_path / "large.yaml"
    large.write_text("# " + "x" * 2**20)
    with pytest.raises(UsageError, match="larger than"):
        read_preset(large)


def test_images_are_opened_by_the_formats_that_are_named(tmp_path):
    path = tmp_path / "x.png"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n%%EOF\n")
    with pytest.raises(UsageError, match="not an image; PNG, JPEG"):
        look_at(path)


def test_one_broken_preset_is_one_warning(spectrum):
    Path("presets").mkdir()
    Path("presets/broken.yaml").write_text("steps: [")
    os.mkfifo("presets/pipe.yaml")
    code, out, err = spectrum("models")
    assert code == 0
    assert "demo-image" in out
    assert err.count("warning: ") == 2
    code, out, _ = spectrum("plan")
    assert (code, out != "") == (0, True)
    refused(spectrum("plan", "-m", "broken"), "not YAML")


def test_a_preset_in_the_place_of_the_packages_own_is_told(spectrum):
    Path("presets").mkdir()
    Path("presets/demo-image.yaml").write_text(DEMO)
    code, _, err = spectrum("plan")
    assert code == 0
    assert err == (
        "note: presets/demo-image.yaml is used in the place of the package's own demo-image\n"
    )
    assert spectrum("plan", "-m", "demo-video")[2] == ""


@pytest.mark.parametrize(
    "index",
    ["[1]", "{", "null", '{"_class_name": 3}', '{"_class_name": ["x", "Y"]}', "[" * 5000,
     '{"_class_name": "FluxPipeline", "../..": ["a", "b"]}',
     '{"_class_name": "FluxPipeline", "vae": ["diffusers", 7]}'],
)  # fmt: skip
def test_an_index_that_is_none_is_refused(spectrum, tmp_path, index):
    (tmp_path / "model").mkdir()
    (tmp_path / "model/model_index.json").write_text(index)
    for args in (["-m", tmp_path / "model"], ["-m", "flux.1-dev", "--weights", tmp_path / "model"]):
        code, out, err = spectrum("gen", *args, "x")
        assert (code, out) == (2, "")
        assert "index" in err or "code of its own" in err
        assert "Error" not in err


def test_weights_that_a_file_lacks_are_not_made_up(spectrum, flux, tmp_path):
    """transformers and diffusers would: two runs of one seed differed."""
    args = ["--weights", tmp_path / "flux", "--width", 32, "--height", 32, "--steps", 6, "x"]
    for part, lost in (("transformer", "proj_out.weight"), ("text_encoder_2", "shared.weight")):
        flux.save_pretrained(tmp_path / "flux")
        (path,) = (tmp_path / "flux" / part).glob("*.safetensors")
        weights = load_file(path)
        del weights[lost]
        save_file(weights, path, metadata={"format": "pt"})
        code, out, err = spectrum("gen", "-m", "flux.1-dev", *args)
        assert (code, out) == (1, "")
        assert f"{part}: weights are missing: " in err
        assert lost in err


def test_a_false_header_of_weights_is_not_believed(flux, tmp_path):
    flux.save_pretrained(tmp_path / "flux")
    (path,) = (tmp_path / "flux/transformer").glob("*.safetensors")
    whole = tensor_shapes(path.parent)
    assert whole["proj_out.weight"]
    path.write_bytes((2**60).to_bytes(8, "little") + b"{}")
    assert tensor_shapes(path.parent) == {}


RUN = {"seconds": 1.0, "psnr": 30.0, "steps": [0, 1]}


@pytest.mark.parametrize(
    "state",
    ["[" * 100_000, "[]", {"runs": []}, {"runs": {"x": {}}}, {"runs": {"x": {**RUN, "psnr": None}}},
     {"runs": {"x": {**RUN, "seconds": "long"}}}, {"runs": {"plain #0": RUN}}, {"schema": 9},
     {"runs": {"x": {**RUN, "odd": 1}}}, {"settings": 3}],
)  # fmt: skip
def test_recorded_runs_that_nobody_recorded_are_refused(tmp_path, state):
    from spectrum.tune.store import SCHEMA, Store

    whole = {"schema": SCHEMA, "settings": {}, "runs": {"x": RUN}}
    text = json.dumps({**whole, **state}) if isinstance(state, dict) else state
    (tmp_path / "results.json").write_text(json.dumps(whole))
    assert Store(tmp_path, {}).runs == {"x": RUN}
    (tmp_path / "results.json").write_text(text)
    with pytest.raises(UsageError, match="not readable"):
        Store(tmp_path, {})


def test_json_that_is_nested_too_deep(tmp_path):
    nested = "[" * 100_000
    with pytest.raises(ValueError, match="too deep"):
        parse_json(nested)
    folder = tmp_path / "weights" / "transformer"
    folder.mkdir(parents=True)
    head = nested.encode()
    (folder / "x.safetensors").write_bytes(len(head).to_bytes(8, "little") + head + b" ")
    assert tensor_shapes(folder) == {}
