"""Model presets: YAML in, checked values out."""

from __future__ import annotations

import json
from collections.abc import Iterator
from difflib import get_close_matches
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal, cast, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from spectrum.errors import UsageError
from spectrum.methods import DEFAULT_METHOD, get_method
from spectrum.pipeline import bounds
from spectrum.pipeline.foreign import read_text, read_yaml
from spectrum.timeline import flow_levels

Dtype = Literal["float32", "bfloat16", "float16"]
SHORT_DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
Count = Annotated[int, Field(ge=1, le=10**6)]
Side = Annotated[int, Field(ge=1, le=bounds.SIDE)]
ALWAYS = float("-inf")  # a trust, written `always`


def _read_trust(value: Any) -> Any:
    return ALWAYS if value == "always" else value


def _check_trust(trust: float) -> float:
    if not trust < float("inf"):
        raise ValueError("trust is a share of the forecast change, such as -0.5, or `always`")
    return trust


def trust_word(trust: float) -> float | str:
    """As presets and documents say it."""
    return "always" if trust == ALWAYS else trust


Trust = Annotated[float, BeforeValidator(_read_trust), AfterValidator(_check_trust)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Size(_Strict):
    """Pixels. Widths and heights are multiples of `multiple` (VAE factor times patch)."""

    width: Side
    height: Side
    multiple: Count = 16


class Video(_Strict):
    """Frame counts are `every`·k + 1. `frames_argument` and `fps_argument` are the pipeline's, the
    latter if it has one (LTX)."""

    frames: Annotated[int, Field(ge=1, le=bounds.FRAMES)]
    every: Count = 4
    fps: Annotated[int, Field(ge=1, le=bounds.FPS)]
    fps_argument: str | None = None
    frames_argument: str = "num_frames"


class Guidance(_Strict):
    """The pipeline's argument for the guidance scale, and how many samples a step takes through
    the denoiser when the scale is above 1 (two for classifier-free guidance)."""

    argument: str
    scale: float
    branches: Literal[1, 2]


class SchedulerChoice(_Strict):
    """Class name in diffusers, and settings that replace those of the pipeline's scheduler."""

    name: Annotated[str, Field(pattern=r"^[A-Z]\w*Scheduler$")]
    settings: dict[str, str | bool | int | float | None] = {}


class Tuned(_Strict):
    """What `spectrum tune` found best for runs of `num_steps` that compute len(steps) of them.

    `length` is that of the prior that forecasts follow from. `trust` is the share of a forecast
    change that must have come true for the next to be forecast, as in `spectrum.methods.Loop`, or
    `always`.
    """

    num_steps: Count
    steps: Annotated[list[int], Field(min_length=1)]
    length: Annotated[float, Field(gt=0)]
    trust: Trust

    @model_validator(mode="after")
    def _steps_are_of_the_run(self) -> Tuned:
        if self.steps[0] != 0 or sorted(set(self.steps)) != self.steps:
            raise ValueError("steps are rising numbers, of which the first is 0")
        if self.steps[-1] >= self.num_steps:
            raise ValueError(f"steps of {self.num_steps} are at most {self.num_steps - 1}")
        return self


class Cache(_Strict):
    """Defaults of `speedup`, `method` and `blend`.

    `scale` and `tuned` hold for the method spectrum: the noise level σ/α at which the largest
    structure of a picture of 64 latent positions is decided (`spectrum.gaussian`), and steps.
    """

    speedup: Annotated[float, Field(ge=1)] = 3.5
    method: str = DEFAULT_METHOD
    blend: Annotated[float, Field(ge=0, le=1)] | None = None
    scale: Annotated[float, Field(gt=0)] | None = None
    tuned: list[Tuned] = []

    @model_validator(mode="after")
    def _method_exists(self) -> Cache:
        get_method(self.method, self.blend)
        return self


class ComponentSettings(_Strict):
    """What may be said of how a component is loaded: nothing that could run a repository's code."""

    output_hidden_states: bool | None = None
    subfolder: str | None = None
    variant: str | None = None


class Component(_Strict):
    """A component that the model's own weights leave out: a class of transformers, and a hub id."""

    cls: Annotated[str, Field(alias="class", pattern=r"^[A-Z]\w*$")]
    weights: str
    settings: ComponentSettings = ComponentSettings()


class Feature(_Strict):
    """Size of the feature that is stored: `channels` for each token."""

    channels: Count
    pixels_per_token: Count
    frames_per_token: Count = 1


class Preset(_Strict):
    """What Spectrum knows of a model.

    `weights` is a hub id, a folder, or `embedded` (or `embedded:NAME`): inside the package. Sizes,
    guidance and feature are unknown (None) for a model that has no preset file; the pipeline's own
    defaults hold then.
    """

    summary: str
    pipeline: Annotated[str, Field(pattern=r"^[A-Z]\w*Pipeline$")]
    weights: str
    variant: str | None = None  # of the weights' files on the hub, such as fp16
    gated: bool = False
    media: Literal["image", "video"]
    image: Literal["none", "optional", "required"] = "none"  # whether the pipeline takes one
    image_pipeline: str | None = None  # with the same weights, takes an image to start from
    dtype: Dtype
    dtypes: dict[str, Dtype] = {}  # of single components
    parameters: dict[str, float] = {}  # how many, of each component
    components: dict[str, Component] = {}  # those that come from elsewhere
    scheduler: SchedulerChoice | None = None
    shift: Annotated[float, Field(ge=0.01, le=1000)] = (
        3.0  # of the repository's own scheduler, about
    )
    boundary: Annotated[float, Field(gt=0, lt=1)] | None = None  # sigma: the second denoiser's
    steps: Annotated[int, Field(ge=1, le=bounds.STEPS)]
    # and not a velocity or x₀, so that S is another (`spectrum.timeline`); None: only the run tells
    predicts_noise: bool | None = False
    distilled: bool = False  # made for a few steps: there is nothing to skip
    size: Size | None = None
    video: Video | None = None
    guidance: Guidance | None = None
    negative_prompt: str | None = None  # None: the model takes none
    call: dict[str, Any] = {}  # further arguments of the pipeline
    tiling: bool = False  # of the VAE, for pictures that are too large for it in one piece
    cache: Cache = Cache()
    feature: Feature | None = None
    example: str = "a lighthouse on a cliff at dusk"
    vocabulary: list[str] = []  # all words the model knows; empty: any

    # where it was found
    name: str = ""
    path: Path = Path()

    @model_validator(mode="after")
    def _video_has_frames(self) -> Preset:
        if (self.media == "video") != (self.video is not None):
            raise ValueError("a preset has a section video if, and only if, its media is video")
        return self

    @property
    def digest(self) -> str:
        """Of the values that decide pixels: another one when one of them changes."""
        told = {"name", "path", "summary", "gated", "example", "vocabulary"}
        content = self.model_dump(mode="json", exclude=told, exclude_defaults=True)
        return sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def embedded_folder(self) -> Path | None:
        """The folder of weights inside the package, for a model that ships with it."""
        kind, _, model = self.weights.partition(":")
        if kind != "embedded":
            return None
        return Path(str(files("spectrum"))) / "models" / (model or self.name)

    def feature_bytes(self, width: int, height: int, frames: int, dtype: str) -> int:
        """Bytes of one stored feature of one guidance branch; 0 where its size is unknown."""
        if self.feature is None:
            return 0
        tokens = self._tokens(width, height, frames, self.feature.pixels_per_token)
        return tokens * self.feature.channels * BYTES[dtype]

    def positions(self, width: int, height: int, frames: int) -> int:
        """Latent positions of one sample of this size in pixels, as `spectrum.size` counts them; 0
        where that is unknown."""
        if self.feature is None:
            return 0
        unet = "unet" in self.parameters  # its feature has every latent pixel
        return self._tokens(width, height, frames, self.feature.pixels_per_token * (1 + unet))

    def _tokens(self, width: int, height: int, frames: int, patch: int) -> int:
        assert self.feature is not None
        depth = (frames - 1) // self.feature.frames_per_token + 1
        return (width // patch) * (height // patch) * depth

    def handover(self, num_steps: int) -> int:
        """The step at which a second denoiser takes over; 0 where there is only one."""
        if self.boundary is None:
            return 0
        before = sum(level >= self.boundary for level in self.levels(num_steps))
        return before if before < num_steps else 0

    def levels(self, num_steps: int) -> tuple[float, ...]:
        """Noise levels of the steps, as far as the preset tells."""
        shift = self.scheduler.settings.get("flow_shift") if self.scheduler else None
        return flow_levels(num_steps, float(shift or self.shift))


def check_dtype(name: str) -> Dtype:
    """The name, or its short form, as a dtype. Raises UsageError for any other than the three."""
    name = SHORT_DTYPES.get(name, name)
    for dtype in get_args(Dtype):
        if dtype == name:
            return cast(Dtype, dtype)
    raise UsageError(f"no dtype {name!r}; there are {', '.join(get_args(Dtype))}")


def read_preset(path: Path) -> Preset:
    """Read and check one file. Raises UsageError with every error, each with file and key."""
    content = read_yaml(read_text(path), path)
    if not isinstance(content, dict):
        raise UsageError(f"{path}: a preset is a mapping of keys to values")
    if own := {"name", "path"} & content.keys():
        raise UsageError(f"{path}: {', '.join(sorted(own))}: a preset's name is its file's")
    try:
        return Preset.model_validate({**content, "name": path.stem, "path": path})
    except ValidationError as error:
        raise UsageError("; ".join(_messages(path, error))) from None


_SECTIONS = {
    "": Preset, "size": Size, "video": Video, "guidance": Guidance, "scheduler": SchedulerChoice,
    "cache": Cache, "feature": Feature,
}  # fmt: skip


def _messages(path: Path, error: ValidationError) -> Iterator[str]:
    for problem in error.errors():
        key = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            text = "unknown key"
            *section, wrong = map(str, problem["loc"])
            keys = getattr(_SECTIONS.get(".".join(section)), "model_fields", ())
            if nearest := get_close_matches(wrong, keys, n=1):
                text += f" (did you mean {nearest[0]}?)"
        elif problem["type"] == "missing":
            text = "missing"
        else:
            text = problem["msg"].removeprefix("Value error, ")
            if not isinstance(problem["input"], dict):  # a section, which says what is wrong in it
                text += f", not {problem['input']!r}"
        yield f"{path}: {key}: {text}" if key else f"{path}: {text}"
