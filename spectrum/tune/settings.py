"""Where a search starts: the preset without what was tuned, and what its results hold for."""

from __future__ import annotations

import hashlib
import platform
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spectrum import __version__
from spectrum.pipeline.loading import Options
from spectrum.pipeline.preset import Cache, Preset
from spectrum.pipeline.request import Request
from spectrum.pipeline.weights import weights_folder

if TYPE_CHECKING:
    import torch


def untuned(preset: Preset) -> Preset:
    """The preset with the default method and no tuned steps, at its own speedup and scale."""
    cache = Cache(speedup=preset.cache.speedup, scale=preset.cache.scale)
    return preset.model_copy(update={"cache": cache})


def run_settings(request: Request, options: Options, device: torch.device) -> dict[str, Any]:
    """All that a run's pictures depend on, but for prompt and seed; of these types JSON has."""
    preset = request.preset
    place = options.weights or weights_folder(preset, None)
    picture = request.image_path
    return {
        "model": preset.name,
        "pipeline": request.pipeline,
        "weights": str(place.resolve()) if place else preset.weights,
        "weights_mark": weights_mark(place) if place else None,
        "steps": request.steps,
        "guidance": request.guidance,
        "negative_prompt": request.negative_prompt,
        "width": request.width,
        "height": request.height,
        "frames": request.frames,
        "image": hashlib.sha256(picture.read_bytes()).hexdigest() if picture else None,
        "scheduler": preset.scheduler.model_dump() if preset.scheduler else None,
        "call": preset.call,
        "dtype": options.dtype,
        **options.pixels,
        "device": _device_name(device),
        "versions": _versions(),
    }


def weights_mark(place: Path) -> str:
    """Changes when the file does, or one in the folder, by names, sizes and times."""
    digest = hashlib.sha256()
    for path in sorted(place.rglob("*")) if place.is_dir() else [place]:
        if path.is_file():
            found = path.stat()
            mark = f"{path.relative_to(place)} {found.st_size} {found.st_mtime_ns}"
            digest.update(mark.encode())
    return digest.hexdigest()[:16]


def _device_name(device: torch.device) -> str:
    import torch

    if device.type == "cuda":
        return f"{device.type} ({torch.cuda.get_device_name(device)})"
    return f"{device.type} ({platform.machine()})"


def _versions() -> dict[str, str]:
    packages = {name: version(name) for name in ("torch", "diffusers", "transformers")}
    return {"spectrum": __version__, **packages}
