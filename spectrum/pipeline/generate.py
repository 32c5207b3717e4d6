"""One prompt and seed through a pipeline under the cache."""

from __future__ import annotations

import os
import platform
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from spectrum import __version__
from spectrum.denoised import Observer
from spectrum.engine import Listener, SpectralCache
from spectrum.errors import SpectrumError, UsageError
from spectrum.gaussian import Kriging
from spectrum.pipeline import beforehand
from spectrum.pipeline.catalog import reference
from spectrum.pipeline.discover import parameters
from spectrum.pipeline.formats import FFMPEGS
from spectrum.pipeline.inputs import ImageFile
from spectrum.pipeline.loading import Options
from spectrum.pipeline.media import Frames, Pixels, opaque, side_by_side, to_uint8
from spectrum.pipeline.preset import Preset
from spectrum.pipeline.request import Request
from spectrum.pipeline.sound import Audio, sound_of
from spectrum.report import Report, Step, joined

# Of the JSON document that every file carries. Raised when a key changes its meaning.
SCHEMA = 1

_PACKAGES = ("spectrum-diffusion", "torch", "diffusers", "transformers")


@dataclass(frozen=True)
class Generation:
    """What came out, and how long it took: encoding the prompt, denoising, decoding."""

    frames: Frames  # [F, H, W, 3], one frame for an image
    pixels: Pixels  # what they were rounded from
    report: Report
    encode_seconds: float
    denoise_seconds: float
    decode_seconds: float
    audio: Audio | None = None  # [samples, channels], of a model that makes sound
    sample_rate: int | None = None  # of it, samples a second
    together: int = 1  # samples of the call

    @property
    def seconds(self) -> float:
        return self.encode_seconds + self.denoise_seconds + self.decode_seconds

    def notes(self, ending: str) -> list[str]:
        """What does not go as asked or planned where it is written in the format of this ending;
        frames in a folder have none."""
        if self.audio is None or ending.lower() in FFMPEGS:
            return self.report.notes
        return [
            *self.report.notes,
            "the sound is not in it: pictures hold none; write an .mp4 or .webm for it",
        ]


def generate(
    pipe: Any,
    request: Request,
    seed: int,
    on_step: Listener | None = None,
    observe: Observer | None = None,
) -> Generation:
    """Sample once. The noise is drawn on the CPU, so a seed means the same on every device.

    Raises UsageError for what the pipeline itself refuses, before it denoises, and SpectrumError if
    the pictures are not finite.
    """
    return generate_together(pipe, [request], [seed], on_step, observe)[0]


def generate_together(
    pipe: Any,
    requests: Sequence[Request],
    seeds: Sequence[int],
    on_step: Listener | None = None,
    observe: Observer | None = None,
) -> list[Generation]:
    """Sample requests that differ in their prompts alone in one call of the pipeline. Of its
    seconds each has an equal share, and its report all have. Raises as `generate`, also if only one
    of them is not finite."""
    began = time.perf_counter()
    denoising = decoding = began
    started = False

    def listen(report: Report, step: Step | None) -> None:
        nonlocal started, denoising, decoding
        if step is None and not started:
            started, denoising = True, time.perf_counter()
        if on_step:
            on_step(report, step)
        decoding = time.perf_counter()

    arguments, request = _call_of(type(pipe), requests, seeds), requests[0]
    with SpectralCache(
        pipe,
        None if request.schedule else request.speedup,
        method=request.method,
        schedule=request.schedule,
        on_step=listen,
        observe=observe,
        history=request.history,
    ) as cache:
        try:
            output = pipe(**arguments, output_type="np", return_dict=False)
        except ImportError as error:
            reason = " ".join(str(error).split())
            raise SpectrumError(f"{type(pipe).__name__} lacks a package: {reason}") from error
        except (ValueError, TypeError) as error:
            if started or not is_refusal(error, pipe):
                raise
            reason = " ".join(str(error).split())
            raise UsageError(f"{type(pipe).__name__} refuses this: {reason}") from error
    found = [_finite(output[0][k], pipe) for k in range(len(seeds))]
    if request.preset.media == "image":
        found = [side_by_side(pixels) for pixels in found]
    sounds = [sound_of(pipe, output, k) or (None, None) for k in range(len(seeds))]
    frames = [to_uint8(pixels) for pixels in found]
    ended = time.perf_counter()
    count, report = len(seeds), joined(cache.reports or [cache.report])
    encoded, denoised = (denoising - began) / count, (decoding - denoising) / count
    decoded = (ended - decoding) / count
    return [
        Generation(one, pixels, report, encoded, denoised, decoded, audio, rate, count)
        for one, pixels, (audio, rate) in zip(frames, found, sounds, strict=True)
    ]


def _call_of(cls: Any, requests: Sequence[Request], seeds: Sequence[int]) -> dict[str, Any]:
    """The arguments of a call for one request, or of one for several."""
    arguments = call_arguments(cls, requests[0])
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    if len(requests) == 1:
        return {**arguments, "generator": generators[0]}
    for name in ("prompt", "negative_prompt"):
        if name in arguments:
            arguments[name] = [getattr(request, name) for request in requests]
    return {**arguments, "generator": generators}


def _finite(pictures: Any, pipe: Any) -> Pixels:
    """[H, W, 3] or [F, H, W, 3], or with a fourth channel, to [F, H, W, 3] in [0, 1]. Raises
    SpectrumError."""
    if not np.isfinite(pictures).all():
        raise SpectrumError(f"the model put out values that are not finite; {_remedy(pipe)}")
    pixels: Pixels = np.clip(pictures.reshape(-1, *pictures.shape[-3:]), 0, 1, dtype=np.float32)
    return opaque(pixels)


def _remedy(pipe: Any) -> str:
    """Against values that are not finite."""
    if getattr(pipe, "dtype", None) == torch.float32:
        return "try another `seed`, a lower `guidance` or the model's own `steps`"
    return "try `dtype` float32"


def is_refusal(error: Exception, pipe: Any) -> bool:
    """Whether the pipeline's own checks of its arguments raised it: its `check_inputs`, or code of
    its own module. Anything deeper is a defect of somebody's, and not the user's fault."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    own = {cls.__module__ for cls in type(pipe).__mro__}
    checked = any(frame.f_code.co_name == "check_inputs" for frame in frames)
    return checked or frames[-1].f_globals["__name__"] in own


def call_arguments(cls: Any, request: Request) -> dict[str, Any]:
    """The arguments of the pipeline's call, images read. Raises UsageError for one that it doesn't
    take, or an image that can't be read."""
    arguments = beforehand.call_arguments(cls.__name__, parameters(cls), request)
    return {k: v.read() if isinstance(v, ImageFile) else v for k, v in arguments.items()}


def metadata(
    request: Request, seed: int, made: Generation, device: torch.device, options: Options
) -> dict[str, Any]:
    """All it takes to make the same file again, as one JSON document: see `document.Document`."""
    preset, method = request.preset, request.method
    frames, height, width = made.frames.shape[:3]
    return {
        "schema": SCHEMA,
        "generator": f"spectrum {__version__}",
        "model": findable(reference(preset)),
        "pipeline": request.pipeline,
        "weights": findable(options.weights or preset.weights),
        "prompt": request.prompt,
        "negative_prompt": request.negative_prompt,
        "seed": seed,
        "width": width,
        "height": height,
        "frames": frames,
        "fps": request.fps,
        "steps": request.steps,
        "guidance": request.guidance,
        "speedup": request.speedup,
        "image": findable(request.image_path) if request.image_path else None,
        "strength": request.strength,
        "loras": [findable(lora) for lora in request.loras],
        "scheduler": request.scheduler,
        "extras": {key: plain(value) for key, value in request.extras.items()},
        "method": method.name,
        "target": method.target,
        "quality": getattr(request.schedule, "tolerance", None),
        "blend": getattr(method.forecaster, "blend", None),
        "forecaster": _forecaster(request, made.report),
        "computed_steps": made.report.computed_steps,
        "together": made.together,
        "history": request.history,
        "offload": options.offload,
        **options.pixels,
        **conditions(preset, device, options),
    }


def _forecaster(request: Request, report: Report) -> str:
    """With the scale that it went by, which is the run's own."""
    forecaster = request.method.forecaster
    if isinstance(forecaster, Kriging) and report.scale is not None:
        forecaster = replace(forecaster, prior=replace(forecaster.prior, scale=report.scale))
    return repr(forecaster)


def conditions(preset: Preset, device: torch.device, options: Options) -> dict[str, Any]:
    """What else than the request can make another picture of it: where it is made, and by what."""
    return {
        "preset": preset.digest,
        "device": str(device),
        "machine": machine(device),
        "threads": torch.get_num_threads() if device.type == "cpu" else None,
        "dtype": options.dtype or preset.dtype,
        "versions": dict(_versions()),
    }


@cache
def _versions() -> dict[str, str]:
    """Read once: that takes as long as a few steps of a small model."""
    return {package: version(package) for package in _PACKAGES}


def machine(device: torch.device) -> str:
    """The name of the GPU, or of the processor."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def findable(place: object) -> str:
    """A path, or what else a model is found by; absolute where it climbs, which `rerun` refuses of
    a file's document, as only the folder that it was made in gives that a meaning."""
    text = str(place)
    return os.path.abspath(text) if ".." in Path(text).parts else text


def plain(value: Any) -> Any:
    """As JSON can hold it; an image as the file that it came from."""
    if isinstance(value, ImageFile):
        return findable(value.path)
    return value if isinstance(value, (str, int, float, list, dict, type(None))) else str(value)


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
