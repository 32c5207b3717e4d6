"""Which scheduler a model samples with: its own, its preset's, or one that is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from spectrum.errors import UsageError
from spectrum.pipeline import known
from spectrum.pipeline.foreign import parse_json, read_text
from spectrum.pipeline.preset import Preset

# Short names of schedulers, for models that predict noise and for flow-matching ones.
SCHEDULERS = {
    "euler": "EulerDiscreteScheduler",
    "euler-ancestral": "EulerAncestralDiscreteScheduler",
    "heun": "HeunDiscreteScheduler",
    "ddim": "DDIMScheduler",
    "dpm++": "DPMSolverMultistepScheduler",
    "unipc": "UniPCMultistepScheduler",
}
FLOW_SCHEDULERS = {
    "euler": "FlowMatchEulerDiscreteScheduler",
    "heun": "FlowMatchHeunDiscreteScheduler",
    "dpm++": "DPMSolverMultistepScheduler",
    "unipc": "UniPCMultistepScheduler",
}


def set_scheduler(pipe: Any, preset: Preset, asked: str | None) -> None:
    """The preset's scheduler, then the one asked for by a short or full name, in the pipeline."""
    import diffusers

    if preset.scheduler is not None:
        own: Any = getattr(diffusers, preset.scheduler.name, None)
        if own is None:
            raise UsageError(f"{preset.path}: diffusers has no scheduler {preset.scheduler.name}")
        pipe.scheduler = own.from_config(pipe.scheduler.config, **preset.scheduler.settings)
    if asked is None:
        return
    config = pipe.scheduler.config
    flow = _is_flow(type(pipe.scheduler).__name__, config)
    name = scheduler_class(asked, flow)
    cls: Any = getattr(diffusers, name, None)
    if not isinstance(cls, type) or not issubclass(cls, diffusers.SchedulerMixin):
        raise _no_scheduler(asked, flow)
    settings: dict[str, Any] = {}
    if flow and not name.startswith("FlowMatch"):
        shift = config.get("flow_shift") or config.get("shift") or 1.0
        settings = {
            "use_flow_sigmas": True, "prediction_type": "flow_prediction", "flow_shift": shift,
        }  # fmt: skip
    elif flow and "flow_shift" in config:
        settings = {"shift": config["flow_shift"]}
    pipe.scheduler = getattr(diffusers, name).from_config(config, **settings)


def scheduler_class(name: str, flow: bool) -> str:
    """A diffusers class name for the short or full name of a scheduler.

    `flow`: for a flow-matching model. Raises UsageError, with the nearest name, for none.
    """
    short = FLOW_SCHEDULERS if flow else SCHEDULERS
    there = known.scheduler_names()
    if name not in short and there and name not in there:
        raise _no_scheduler(name, flow)
    return short.get(name, name)


def scheduler_name(preset: Preset, asked: str | None) -> str:
    """The class that is asked for, or the preset's, as far as that is known before anything is
    loaded; "" for the model's own."""
    if asked is not None:
        return SCHEDULERS.get(asked, asked)  # of a flow's, only the beginning is another one
    return preset.scheduler.name if preset.scheduler else ""


def check_scheduler(asked: str, pipeline: str, preset: Preset, folder: Path | None) -> None:
    """Raise UsageError for one that is none, or that the pipeline can't use, as far as that is
    known before anything is loaded.

    folder: of the model's weights, if they are here.
    """
    sets_sigmas = known.sets_sigmas(pipeline)  # which only pipelines of flow models do
    flow = sets_sigmas or _told_flow(preset, folder)
    if flow is None:
        flow = asked not in SCHEDULERS
    name = scheduler_class(asked, flow)
    if sets_sigmas and not known.takes_sigmas(name):
        others = [short for short, cls in FLOW_SCHEDULERS.items() if known.takes_sigmas(cls)]
        raise UsageError(
            f"{preset.name} ({pipeline}) sets the noise levels itself, which `scheduler` {asked}"
            f" can't be told; there are {', '.join(others)}"
        )


def _no_scheduler(name: str, flow: bool) -> UsageError:
    short = FLOW_SCHEDULERS if flow else SCHEDULERS
    nearest = get_close_matches(name.lower(), short, n=1, cutoff=0)[0]
    return UsageError(
        f"no scheduler {name!r} for this model; did you mean {nearest!r}? There are"
        f" {', '.join(short)}, and the class names of diffusers"
    )


def _is_flow(own: str, config: Mapping[str, Any]) -> bool:
    return "flow" in str(config.get("prediction_type", "")) or "FlowMatch" in own


def _told_flow(preset: Preset, folder: Path | None) -> bool | None:
    """Whether the model's own scheduler is one of a flow, by its file; None where that is not."""
    path = folder / "scheduler" / "scheduler_config.json" if folder else None
    if path is None or not path.is_file():
        return None
    try:
        config = parse_json(read_text(path))
        own = str(config.get("_class_name"))
    except (ValueError, AttributeError):
        return None  # loading says what is wrong
    if preset.scheduler is not None:
        own, config = preset.scheduler.name, {**config, **preset.scheduler.settings}
    return _is_flow(own, config)
