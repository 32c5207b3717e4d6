"""A preset for a pipeline that has no preset file: a folder, or an id on the hub.

What can be asked of it follows from the signature of its pipeline class; sizes, steps and guidance
are the pipeline's own defaults.
"""

from __future__ import annotations

import inspect
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from spectrum.errors import SpectrumError, UsageError
from spectrum.pipeline import known
from spectrum.pipeline.foreign import parse_json, read_text
from spectrum.pipeline.inputs import ARGUMENTS
from spectrum.pipeline.preset import Guidance, Preset, Video
from spectrum.pipeline.weights import hub_answers, read_index
from spectrum.timeline import predicts_noise

# Pipeline classes by part of their name that do nothing without an image.
_NEED_AN_IMAGE = ("Img2Img", "ImageToVideo", "Edit", "Inpaint", "I2V", "Image2Video")

_SCHEDULER = "scheduler/scheduler_config.json"
_FRAMES = ("num_frames", "frames", "video_length")  # names of one argument


def discover(model: str) -> Preset:
    """The preset of a folder with a model_index.json, or of `org/name` on the hub.

    Raises UsageError for what is no diffusers pipeline, and SpectrumError where the hub has or
    gives none.
    """
    folder = Path(model)
    if os.path.isdir(folder):
        index = folder / "model_index.json"
        if not os.path.isfile(index):
            raise UsageError(
                f"{model}: no model_index.json in it; a model is a folder of a whole pipeline,"
                " as save_pretrained writes it"
            )
    else:
        index = _fetch_index(model)
    preset = _preset(model, read_index(index)[0])
    return preset.model_copy(update={"predicts_noise": _predicts_noise(index.parent)})


def pipeline_class(name: str, where: object) -> Any:
    """The diffusers class of that name. Raises UsageError if there is none."""
    import diffusers

    cls = getattr(diffusers, name, None)
    if not isinstance(cls, type) or not issubclass(cls, diffusers.DiffusionPipeline):
        raise UsageError(
            f"{where}: diffusers {diffusers.__version__} has no pipeline {name};"
            " `pip install -U diffusers` may bring it"
        )
    return cls


def parameters(cls: Any) -> dict[str, inspect.Parameter]:
    """What a pipeline's call takes."""
    taken = dict(inspect.signature(cls.__call__).parameters)
    taken.pop("self", None)
    return taken


def _fetch_index(model: str) -> Path:
    from huggingface_hub import errors as hub
    from huggingface_hub import hf_hub_download

    try:
        here_only = not hub_answers(model)
        index = Path(hf_hub_download(model, "model_index.json", local_files_only=here_only))
    except hub.GatedRepoError as error:
        raise SpectrumError(
            f"{model}: gated; accept its licence at https://huggingface.co/{model}"
            " and run `hf auth login`"
        ) from error
    except hub.RepositoryNotFoundError as error:
        raise SpectrumError(
            f"{model}: the hub has no such model, or only for those who are logged in;"
            " look at the spelling, or run `hf auth login`"
        ) from error
    except hub.LocalEntryNotFoundError as error:
        raise SpectrumError(
            f"{model}: not on this machine, and the hub can't be reached; run `hf download {model}`"
            " where it can, or give a folder as `model`"
        ) from error
    except hub.EntryNotFoundError as error:
        raise UsageError(
            f"{model}: no model_index.json in it, so it is no diffusers pipeline; look for a"
            " version of the model in diffusers' format"
        ) from error
    except hub.HFValidationError as error:
        raise UsageError(f"{model}: not an id on the hub, which looks like org/name") from error
    except (hub.HfHubHTTPError, OSError) as error:
        raise SpectrumError(f"{model}: the hub gave none ({type(error).__name__})") from error
    with suppress(hub.HfHubHTTPError, OSError):  # a pipeline may have none
        hf_hub_download(model, _SCHEDULER, local_files_only=here_only)  # lies beside the index
    return index


def _predicts_noise(folder: Path) -> bool | None:
    """By the scheduler's configuration, or its class's default; None where there is neither."""
    path = folder / _SCHEDULER
    if not os.path.isfile(path):
        return None
    try:
        config = parse_json(read_text(path))
        name = str(config["_class_name"])
        if "prediction_type" not in config and not name.startswith("FlowMatch"):
            import diffusers

            taken = inspect.signature(getattr(diffusers, name)).parameters
            if "prediction_type" in taken:
                config = {**config, "prediction_type": taken["prediction_type"].default}
        return predicts_noise(name, config)
    except (ValueError, TypeError, KeyError, AttributeError):
        return None  # loading will say what is wrong


def _preset(model: str, name: str) -> Preset:
    takes = known.pipeline_parameters(name)
    if takes is None:
        takes = parameters(pipeline_class(name, model))
    frames = next((argument for argument in _FRAMES if argument in takes), None)
    if reason := _not_for_us(name, takes, frames):
        raise UsageError(
            f"{model}: {name} {reason}; call it from Python, under spectrum.SpectralCache"
        )
    steps = _default(takes, "num_inference_steps", 50)
    return Preset(
        summary=f"{name}, without a preset",
        pipeline=name,
        weights=model,
        media="video" if frames else "image",
        image=_image(name, takes),
        image_pipeline=None if "image" in takes else known.image_to_image(name),
        dtype="bfloat16",
        steps=steps,
        video=Video(
            frames=_default(takes, frames, 17),
            frames_argument=frames,
            every=1,
            fps=_default(takes, "frame_rate", 16),
            fps_argument="frame_rate" if "frame_rate" in takes else None,
        )
        if frames
        else None,
        guidance=_guidance(takes),
        negative_prompt="" if "negative_prompt" in takes else None,
        name=Path(model).name,
    )


def _not_for_us(name: str, takes: known.Parameters, frames: str | None) -> str | None:
    """Why a pipeline can't be asked as a command asks; None where it can."""
    if known.makes_sound(name):
        return "makes sound alone, which no command writes"
    for argument in ("prompt", "num_inference_steps"):
        if argument not in takes:
            return f"takes no `{ARGUMENTS[argument]}`"
    films = [argument for argument in takes if argument.endswith("video")]
    needed = [one for one in films if takes[one].default is inspect.Parameter.empty]
    if needed or (films and not frames):
        return f"works from a film ({', '.join(needed or films)}), which no command takes"
    return None


def _default(takes: known.Parameters, name: str, fallback: int) -> int:
    value = takes[name].default if name in takes else None
    return int(value) if isinstance(value, (int, float)) and value >= 1 else fallback


def _image(name: str, takes: known.Parameters) -> Any:
    if "image" not in takes:
        return "none"
    required = takes["image"].default is inspect.Parameter.empty
    named = any(part in name.replace("TI2V", "") for part in _NEED_AN_IMAGE)
    return "required" if required or named else "optional"


def _guidance(takes: known.Parameters) -> Guidance | None:
    for name in ("guidance_scale", "true_cfg_scale"):
        default = takes[name].default if name in takes else None
        if isinstance(default, (int, float)):
            return Guidance(argument=name, scale=float(default), branches=2)
    return None
