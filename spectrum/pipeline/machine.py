"""What a machine has and what will run on it, found out without loading or fetching anything."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from spectrum import __version__
from spectrum.pipeline.catalog import preset_folders, presets_in, read_presets, shadows
from spectrum.pipeline.preset import Preset

if TYPE_CHECKING:
    import torch

    from spectrum.pipeline.loading import Options

PACKAGES = ("torch", "diffusers", "transformers", "accelerate", "peft", "torchao", "matplotlib")


def examine() -> dict[str, Any]:
    """What each probe found, as JSON can hold it; of one that failed, {"error": why}."""
    return {name: _tried(probe) for name, probe in PROBES.items()}


def _tried(probe: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    try:
        return probe()
    except Exception as error:  # whatever torch, a driver or a file system raises
        return {"error": f"{type(error).__name__}: {' '.join(str(error).split())}"}


def _versions() -> dict[str, Any]:
    """None where a package isn't there."""
    return {
        "spectrum": __version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "packages": {name: _version(name) for name in PACKAGES},
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _devices() -> dict[str, Any]:
    """Accelerators that torch can use, with their memory in bytes, and one that it can't."""
    import torch

    found: list[dict[str, Any]] = []
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        name = torch.cuda.get_device_name(index)
        found.append({"device": f"cuda:{index}", "name": name, "free": free, "total": total})
    if torch.backends.mps.is_available():
        total = torch.mps.recommended_max_memory()
        free = total - torch.mps.driver_allocated_memory()
        found.append({"device": "mps", "name": "Apple GPU", "free": free, "total": total})
    unused = None
    if not found and shutil.which("nvidia-smi"):
        unused = "nvidia-smi is here, but torch sees no GPU: "
        unused += "its CUDA doesn't work" if torch.version.cuda else "it was built without CUDA"
    return {"accelerators": found, "unused": unused}


def _memory() -> dict[str, Any]:
    import psutil

    memory = psutil.virtual_memory()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"free": memory.available, "total": memory.total, "cores": cores}


def _attention() -> dict[str, Any]:
    """Which of diffusers' backends really attend on this device; the hub's are not tried, as they
    would be fetched."""
    import torch
    from diffusers.models.attention_dispatch import AttentionBackendName, dispatch_attention_fn

    from spectrum.pipeline.loading import choose_device

    device = choose_device()
    query = torch.randn(1, 32, 2, 64, device=device, dtype=torch.bfloat16)  # [B, N, heads, D]
    usable = []
    for backend in AttentionBackendName:
        if "hub" in backend.value:
            continue
        try:
            output = dispatch_attention_fn(query, query, query, backend=backend)
        except Exception:  # a package that is missing, or a device that it doesn't know
            continue
        if torch.isfinite(output).all():
            usable.append(backend.value)
    return {"device": device.type, "usable": usable}


def _ffmpeg() -> dict[str, Any]:
    from imageio_ffmpeg import get_ffmpeg_exe

    path = get_ffmpeg_exe()
    done = subprocess.run([path, "-version"], capture_output=True, check=True, timeout=20)
    return {"path": path, "version": done.stdout.decode("utf-8", "replace").split()[2]}


def _hub() -> dict[str, Any]:
    """The cache of downloads: where, how large, and what room is left."""
    from huggingface_hub import CacheNotFound, constants, scan_cache_dir

    folder = place = os.path.abspath(constants.HF_HUB_CACHE)
    try:
        cache = scan_cache_dir(folder)
        size, models = cache.size_on_disk, sum(r.repo_type == "model" for r in cache.repos)
    except CacheNotFound:
        size = models = 0
    while not os.path.exists(place):
        place = os.path.dirname(place)
    free = shutil.disk_usage(place).free
    offline = bool(constants.HF_HUB_OFFLINE)
    return {"folder": folder, "bytes": size, "models": models, "free": free, "offline": offline}


def _ray() -> dict[str, Any]:
    return {"version": _version("ray"), "address": os.environ.get("RAY_ADDRESS")}


def _presets() -> dict[str, Any]:
    """Where presets are, which stand in the place of the package's, and which can't be read."""
    folders = {str(folder): len(presets_in(folder)) for folder in preset_folders()}
    presets, wrong = read_presets()
    return {
        "folders": folders,
        "shadowing": [str(preset.path) for preset in presets if shadows(preset)],
        "wrong": wrong,
    }


def _models() -> dict[str, Any]:
    """Of each preset at its own size: the options that it fits with, None where none do, whether
    diffusers has its pipeline, and whether its weights are here."""
    import diffusers

    from spectrum.pipeline.loading import choose_device
    from spectrum.pipeline.weights import on_this_machine

    device, memory = choose_device(), _memory()["free"]
    return {
        preset.name: {
            "fits_with": _fits_with(preset, device, memory),
            "known": hasattr(diffusers, preset.pipeline),
            "weights_here": on_this_machine(preset),
        }
        for preset in read_presets()[0]
    }


def _fits_with(preset: Preset, device: torch.device, memory: int) -> dict[str, str] | None:
    """The first of the layouts that fits, weights that visit the device waiting in memory."""
    from spectrum.pipeline.fit import expect
    from spectrum.pipeline.request import resolve

    request = resolve(preset, preset.example)
    for options, names in _layouts(device):
        expected = expect(request, device, options)
        waiting = sum(expected.weights.values()) if options.offload != "none" else 0
        if expected.fits and waiting <= memory:
            return names
    return None


def _layouts(device: torch.device) -> Iterator[tuple[Options, dict[str, str]]]:
    """From the fastest to the slowest, with what has to be asked for."""
    from spectrum.pipeline.loading import Options

    yield Options(), {}
    if device.type == "cpu":
        yield Options(quantize="int8"), {"quantize": "int8"}
        return
    yield Options(offload="model"), {"offload": "model"}
    yield Options(offload="model", quantize="int8"), {"offload": "model", "quantize": "int8"}
    yield Options(offload="group"), {"offload": "group"}


PROBES: dict[str, Callable[[], dict[str, Any]]] = {
    "versions": _versions,
    "devices": _devices,
    "memory": _memory,
    "attention": _attention,
    "ffmpeg": _ffmpeg,
    "hub": _hub,
    "ray": _ray,
    "presets": _presets,
    "models": _models,
}
