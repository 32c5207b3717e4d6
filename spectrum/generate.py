"""One prompt and seed through a pipeline under the cache."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
import torch

from spectrum import __version__
from spectrum.engine import Listener, SpectralCache
from spectrum.errors import SpectrumError
from spectrum.media import Frames, to_uint8
from spectrum.report import Report, Step
from spectrum.request import Request

# Of the JSON document that every file carries. Raised when a key changes its meaning.
SCHEMA = 1


@dataclass(frozen=True)
class Generation:
    """What came out, and how long it took: encoding the prompt, denoising, decoding."""

    frames: Frames  # [F, H, W, 3], one frame for an image
    report: Report
    encode_seconds: float
    denoise_seconds: float
    decode_seconds: float


def generate(pipe: Any, request: Request, seed: int, on_step: Listener | None = None) -> Generation:
    """Sample once. The noise is drawn on the CPU, so a seed means the same on every device.

    Raises SpectrumError if the pictures are not finite.
    """
    began = time.perf_counter()
    denoising = decoding = began

    def listen(report: Report, step: Step | None) -> None:
        nonlocal denoising, decoding
        if step is None:
            denoising = time.perf_counter()
        if on_step:
            on_step(report, step)
        decoding = time.perf_counter()

    with SpectralCache(pipe, request.speedup, method=request.method, on_step=listen) as cache:
        output = pipe(
            **request.arguments(),
            generator=torch.Generator().manual_seed(seed),
            output_type="np",
            return_dict=False,
        )[0][0]  # [H, W, 3] or [F, H, W, 3]
    if not np.isfinite(output).all():
        raise SpectrumError("the model put out values that are not finite; try --dtype float32")
    frames = to_uint8(output.reshape(-1, *output.shape[-3:]))
    ended = time.perf_counter()
    return Generation(
        frames, cache.report, denoising - began, decoding - denoising, ended - decoding
    )


def metadata(
    request: Request, seed: int, report: Report, device: str, dtype: str
) -> dict[str, Any]:
    """All it takes to make the same file again, as one JSON document."""
    preset, method = request.preset, request.method
    return {
        "schema": SCHEMA,
        "generator": f"spectrum {__version__}",
        "model": preset.name,
        "pipeline": preset.pipeline,
        "weights": preset.weights,
        "prompt": request.prompt,
        "negative_prompt": request.negative_prompt,
        "seed": seed,
        "width": request.width,
        "height": request.height,
        "frames": request.frames,
        "fps": request.fps,
        "steps": request.steps,
        "guidance": request.guidance,
        "speedup": request.speedup,
        "method": method.name,
        "blend": getattr(method.forecaster, "blend", None),
        "forecaster": repr(method.forecaster),
        "computed_steps": report.computed_steps,
        "device": device,
        "dtype": dtype,
        "versions": {name: version(name) for name in ("spectrum-diffusion", "torch", "diffusers")},
    }


def peak_memory_bytes(device: torch.device) -> int:
    """The most memory used so far: on a CUDA device torch's own, else the whole process's."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "win32":
        import psutil  # accelerate needs it, so it is there

        return int(psutil.Process().memory_info().peak_wset)
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
