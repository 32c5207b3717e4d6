"""What a request will take in memory, and which option makes it fit."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from spectrum.methods import HistoryPlace
from spectrum.pipeline.loading import Options
from spectrum.pipeline.onefile import is_gguf
from spectrum.pipeline.preset import BYTES, Preset
from spectrum.pipeline.request import Request
from spectrum.pipeline.weights import component_names, tensor_shapes, weights_folder

if TYPE_CHECKING:
    import torch

_QUANTIZED_BYTES = {"int8": 1.0, "fp8": 1.0, "int4": 0.5}
# Beside one visiting layer: what group and sequential offloading keep on the device.
_VISITORS = 2 * 1024**3


@dataclass(frozen=True)
class Expectation:
    """Bytes, before anything is loaded. Activations come on top and are not known here."""

    weights: dict[str, int]  # of each component; empty: unknown
    history: int  # 0 also where the feature's size is unknown
    available: int  # on the device, now
    on_device: int  # of weights and history, as they will be laid out
    device: str  # its type
    place: HistoryPlace = "auto"  # of the history

    @property
    def fits(self) -> bool:
        return self.on_device <= self.available

    @property
    def history_on_device(self) -> int:
        return 0 if self.place == "host" else self.history

    def advice(self) -> str:
        """The options that would make it fit, or that nothing would."""
        if self.device == "cpu":
            return "try `quantize` int8, a smaller size, or a machine with more memory"
        largest = max(self.weights.values(), default=0)
        history = self.history_on_device
        if history and self.on_device - history <= self.available:
            return "`history` host would fit"
        if history > self.available:
            return "not even the history fits: try `history` host, a smaller size or fewer frames"
        if largest + history <= self.available:
            return "`offload` model would fit"
        if 0.5 * largest + history <= self.available:
            return "`offload` model with `quantize` int8 would fit"
        return "`offload` group would fit, slowly"


def expect(request: Request, device: torch.device, options: Options) -> Expectation:
    """What the request takes on the device with these options."""
    preset = request.preset
    dtype = options.dtype or preset.dtype
    weights = _weights(preset, options)
    history = request.history_bytes(dtype)
    whole = sum(weights.values())
    parts = {
        "none": whole,
        "model": max(weights.values(), default=0),
        "group": min(whole, _VISITORS),
        "sequential": min(whole, _VISITORS),
    }
    found = Expectation(
        weights, history, _available(device), parts[options.offload], device.type, request.history
    )
    return replace(found, on_device=found.on_device + found.history_on_device)


def _weights(preset: Preset, options: Options) -> dict[str, int]:
    folder = weights_folder(preset, options.weights)
    names = component_names(preset, folder)
    counts = {name: _count(folder / name) for name in names} if folder else preset.parameters
    default = options.dtype or preset.dtype
    sizes = {}
    for name, count in counts.items():
        each = float(BYTES[preset.dtypes.get(name, default)])
        if options.quantize and (name.startswith("transformer") or name == "unet"):
            each = _QUANTIZED_BYTES[options.quantize]
        if count:
            sizes[name] = int(count * each)
        if name in ("transformer", "unet") and options.weights and is_gguf(options.weights):
            sizes[name] = options.weights.stat().st_size
    return sizes


def _count(component: Path) -> int:
    """Parameters in a component's safetensors files, by their headers."""
    return sum(prod(shape) for shape in tensor_shapes(component).values())


def _available(device: torch.device) -> int:
    import torch

    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if device.type == "mps":
        return int(torch.mps.recommended_max_memory())
    import psutil

    return int(psutil.virtual_memory().available)
