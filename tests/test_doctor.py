"""`spectrum doctor`: what a machine has, and what will run on it."""

import json
import socket
from pathlib import Path

import pytest
import torch

from spectrum.pipeline import fit, loading, machine
from spectrum.pipeline.catalog import find_preset, preset_paths

GIB = 2**30


def document(spectrum):
    code, out, err = spectrum("doctor", "--json")
    assert (code, err, out.count("\n")) == (0, "", 1)
    return json.loads(out)


def test_one_screen(spectrum):
    code, out, err = spectrum("doctor")
    lines = out.splitlines()
    assert (code, err) == (0, "")
    assert max(map(len, lines)) <= 80
    assert len(lines) <= 32
    assert "can't be told" not in out
    for label in (
        "versions", "device", "memory", "attention", "ffmpeg", "hub cache", "Ray", "presets", "runs"
    ):  # fmt: skip
        assert any(line.startswith(f"{label} ") for line in lines), label
    assert f"torch {torch.__version__}" in out
    words = out.replace(",", " ").split()
    assert all(name in words for name in preset_paths())


def test_it_fits_a_narrow_terminal(spectrum, monkeypatch):
    from spectrum_cli import doctor

    monkeypatch.setattr(doctor, "terminal_width", lambda: 50)
    lines = spectrum("doctor")[1].splitlines()
    assert max(map(len, lines)) <= 50
    assert all(line[:11].strip() == "" or line[10] == " " for line in lines)  # under one another


def test_json(spectrum):
    found = document(spectrum)
    assert list(found) == list(machine.PROBES)
    on_cpu = loading.choose_device().type == "cpu"
    assert (found["devices"]["accelerators"] == []) == on_cpu
    assert 0 < found["memory"]["free"] <= found["memory"]["total"]
    assert "native" in found["attention"]["usable"]
    assert found["models"].keys() == preset_paths().keys()
    assert found["models"]["demo-image"] == {"fits_with": {}, "known": True, "weights_here": True}


@pytest.mark.parametrize("name", machine.PROBES)
def test_a_probe_that_fails_says_so(spectrum, monkeypatch, name):
    def fail():
        raise OSError("the driver\nis broken")

    others = {other: lambda: {"error": "not asked"} for other in machine.PROBES}
    monkeypatch.setattr(machine, "PROBES", others | {name: fail})
    code, out, err = spectrum("doctor")
    assert (code, err) == (0, "")
    assert f"{name:<11}can't be told: OSError: the driver is broken\n" in out
    assert out.count("\n") == len(machine.PROBES)
    assert document(spectrum)[name] == {"error": "OSError: the driver is broken"}


def test_nothing_is_downloaded(spectrum, monkeypatch):
    asked = []

    def connect(_socket, address):
        asked.append(address)
        raise OSError("no network")

    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    found = document(spectrum)
    assert not asked
    assert not any("error" in part for part in found.values())


def test_presets_that_shadow_or_are_broken(spectrum, tmp_path):
    (tmp_path / "presets").mkdir()
    text = find_preset("flux.1-dev").path.read_text()
    (tmp_path / "presets" / "flux.1-dev.yaml").write_text(text)
    (tmp_path / "presets" / "mine.yaml").write_text(text.replace("steps: 50", "steps: many"))
    found = document(spectrum)["presets"]
    assert found["folders"]["presets"] == 2
    assert found["shadowing"] == ["presets/flux.1-dev.yaml"]
    assert len(found["wrong"]) == 1
    assert "presets/mine.yaml: steps" in found["wrong"][0]
    _, out, _ = spectrum("doctor")
    assert "presets/flux.1-dev.yaml stands in the place of the package's own" in out
    assert "presets/mine.yaml: steps" in out


@pytest.mark.parametrize(
    ("device", "room", "memory", "expected"),
    [
        ("cpu", 60, 60, {}),
        ("cpu", 24, 24, {"quantize": "int8"}),
        ("cpu", 8, 8, None),
        ("cuda", 60, 8, {}),
        ("cuda", 24, 60, {"offload": "model"}),
        ("cuda", 16, 60, {"offload": "model", "quantize": "int8"}),
        ("cuda", 8, 60, {"offload": "group"}),
        ("cuda", 8, 16, None),  # weights that visit the device wait in memory
    ],
)
def test_what_fits_with_what(monkeypatch, device, room, memory, expected):
    monkeypatch.setattr(fit, "_available", lambda _device: room * GIB)
    found = machine._fits_with(find_preset("flux.1-dev"), torch.device(device), memory * GIB)
    assert found == expected


def test_models_are_grouped_by_what_they_fit_with(spectrum, monkeypatch, tmp_path):
    monkeypatch.setattr(loading, "choose_device", lambda: torch.device("cpu"))
    monkeypatch.setattr(fit, "_available", lambda _device: 24 * GIB)
    (tmp_path / "presets").mkdir()
    text = find_preset("flux.1-dev").path.read_text()
    newer = text.replace("pipeline: FluxPipeline", "pipeline: Flux9Pipeline")
    (tmp_path / "presets" / "newer.yaml").write_text(newer)
    monkeypatch.setitem(machine.PROBES, "attention", lambda: {"error": "not asked"})
    _, out, _ = spectrum("doctor")
    text = " ".join(out.split())
    assert "runs as it is: auraflow, " in text
    assert "runs --quantize int8: " in text
    assert "flux.1-dev" in text.split("runs --quantize int8: ")[1].split("won't run")[0]
    assert "won't run too large: " in text
    assert "won't run not in this diffusers: newer " in text


def test_a_gpu_that_torch_cannot_use(spectrum, monkeypatch):
    monkeypatch.setattr(machine.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.version, "cuda", None)
    _, out, _ = spectrum("doctor")
    assert "nvidia-smi is here, but torch sees no GPU: it was built without CUDA" in out


def test_a_gpu(spectrum, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _index: (20 * GIB, 24 * GIB))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _index: "A GPU")
    _, out, _ = spectrum("doctor")
    assert "device     cuda:0: A GPU, 20.0 GiB of 24.0 GiB free\n" in out


def test_the_hub_cache(spectrum, monkeypatch, tmp_path):
    folder = tmp_path / "hub"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(folder))
    assert document(spectrum)["hub"]["models"] == 0
    snapshot = folder / "models--someone--theirs" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot / "model_index.json").write_text("{}" * 50)
    found = document(spectrum)["hub"]
    assert found == {
        "folder": str(folder), "bytes": 100, "models": 1, "free": found["free"], "offline": True
    }  # fmt: skip
    assert Path(found["folder"]).is_absolute()
