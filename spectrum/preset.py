"""Model presets: YAML in, checked values out.

Looked up by name in the current folder's `presets/`, the user's folder and the package, in that
order; the path of a YAML file is a name too.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal, cast, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from spectrum.errors import UsageError
from spectrum.methods import DEFAULT_METHOD, get_method

Dtype = Literal["float32", "bfloat16", "float16"]
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
Count = Annotated[int, Field(ge=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Size(_Strict):
    """Pixels. Widths and heights are multiples of `multiple` (VAE factor times patch)."""

    width: Count
    height: Count
    multiple: Count = 16


class Video(_Strict):
    """Frame counts are `every`·k + 1."""

    frames: Count
    every: Count = 4
    fps: Count


class Guidance(_Strict):
    """The pipeline's argument for the guidance scale, and how many calls of the denoiser a step
    takes when the scale is above 1 (two for classifier-free guidance)."""

    argument: str
    scale: float
    branches: Literal[1, 2]


class SchedulerChoice(_Strict):
    """Class name in diffusers, and settings that replace those of the pipeline's scheduler."""

    name: str
    settings: dict[str, Any] = {}


class Cache(_Strict):
    speedup: Annotated[float, Field(ge=1)]
    method: str = DEFAULT_METHOD
    blend: Annotated[float, Field(ge=0, le=1)] | None = None

    @model_validator(mode="after")
    def _method_exists(self) -> Cache:
        get_method(self.method, self.blend)
        return self


class Feature(_Strict):
    """Size of the feature that is stored: `channels` for each token."""

    channels: Count
    pixels_per_token: Count
    frames_per_token: Count = 1


class Preset(_Strict):
    """What Spectrum knows of a model. `weights` is a hub id, or `embedded`: inside the package."""

    summary: str
    pipeline: str
    weights: str
    gated: bool = False
    media: Literal["image", "video"]
    dtype: Dtype
    dtypes: dict[str, Dtype] = {}  # of single components
    scheduler: SchedulerChoice | None = None
    steps: Count
    size: Size
    video: Video | None = None
    guidance: Guidance
    negative_prompt: str | None = None  # None: the model takes none
    call: dict[str, Any] = {}  # further arguments of the pipeline
    cache: Cache
    feature: Feature
    example: str
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
    def embedded_folder(self) -> Path | None:
        """The folder of weights inside the package, for a model that ships with it."""
        if self.weights != "embedded":
            return None
        return Path(str(files("spectrum"))) / "models" / self.name

    def feature_bytes(self, width: int, height: int, frames: int, dtype: str) -> int:
        """Bytes of one stored feature of one guidance branch."""
        patch = self.feature.pixels_per_token
        depth = (frames - 1) // self.feature.frames_per_token + 1
        tokens = (width // patch) * (height // patch) * depth
        return tokens * self.feature.channels * BYTES[dtype]


def check_dtype(name: str) -> Dtype:
    """The name as a dtype. Raises UsageError for any other than the three."""
    for dtype in get_args(Dtype):
        if dtype == name:
            return cast(Dtype, dtype)
    raise UsageError(f"no dtype {name!r}; there are {', '.join(get_args(Dtype))}")


def preset_folders() -> list[Path]:
    """Where presets are looked for, first to last."""
    config = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    package = Path(str(files("spectrum")))
    shipped = package / "presets"
    if not shipped.is_dir():  # a checkout, where they lie at the top
        shipped = package.parent / "presets"
    return [Path("presets"), config / "spectrum" / "presets", shipped]


def preset_paths() -> dict[str, Path]:
    """Every preset by name; of two with the same name, the one that is found first."""
    found: dict[str, Path] = {}
    for folder in preset_folders():
        for path in sorted(folder.glob("*.yaml")):
            found.setdefault(path.stem, path)
    return dict(sorted(found.items()))


def find_preset(name: str) -> Preset:
    """The preset of that name or path. Raises UsageError, with the nearest names."""
    if name.endswith((".yaml", ".yml")):
        if not Path(name).is_file():
            raise UsageError(f"no preset file {name}; `spectrum models` lists the presets by name")
        return read_preset(Path(name))
    paths = preset_paths()
    if name not in paths:
        nearest = get_close_matches(name.lower(), paths, n=2, cutoff=0.3) or ["demo-image"]
        guess = " or ".join(repr(near) for near in nearest)
        raise UsageError(f"no model {name!r}; did you mean {guess}? `spectrum models` lists all")
    return read_preset(paths[name])


def read_preset(path: Path) -> Preset:
    """Read and check one file. Raises UsageError with every error, each with file and key."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: can't be read: {error}") from error
    except yaml.YAMLError as error:
        raise UsageError(f"{path}: not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise UsageError(f"{path}: a preset is a mapping of keys to values")
    if own := {"name", "path"} & content.keys():
        raise UsageError(f"{path}: {', '.join(sorted(own))}: a preset's name is its file's")
    try:
        return Preset.model_validate({**content, "name": path.stem, "path": path})
    except ValidationError as error:
        raise UsageError("; ".join(_messages(path, error))) from None


def _messages(path: Path, error: ValidationError) -> Iterator[str]:
    for problem in error.errors():
        key = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            text = "unknown key"
            nearest = get_close_matches(str(problem["loc"][-1]), Preset.model_fields, n=1)
            if nearest and len(problem["loc"]) == 1:
                text += f" (did you mean {nearest[0]}?)"
        elif problem["type"] == "missing":
            text = "missing"
        else:
            text = f"{problem['msg']}, not {problem['input']!r}" if key else problem["msg"]
        yield f"{path}: {key}: {text}" if key else f"{path}: {text}"
