"""The document that every file carries: read from foreign files, so checked, and what it asks for.

Nothing that it names is opened here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    ValidationError,
    field_validator,
    model_validator,
)

from spectrum.errors import UsageError
from spectrum.methods import HistoryPlace, Target
from spectrum.pipeline.checks import STEP_LISTS
from spectrum.pipeline.media import read_metadata


def _check_place(place: str) -> str:
    if any(len(part.encode()) > 255 for part in re.split(r"[\\/]", place)):
        raise ValueError("longer than any file's name")
    return place


Count = Annotated[int, Field(ge=1, le=10**5)]
Steps = Annotated[int, Field(ge=1, le=10**4)]
Share = Annotated[float, Field(ge=0, le=1)]
Place = Annotated[str, AfterValidator(_check_place)]

# Values that `resolve` and the loader take under the same name.
VALUES = (
    "model", "prompt", "seed", "negative_prompt", "width", "height", "frames", "fps", "steps",
    "guidance", "speedup", "method", "blend", "target", "quality", "image", "strength", "loras",
    "scheduler", "extras", "weights", "device", "dtype", "offload", "quantize", "vae_tiling",
    "compile", "attention", "history",
)  # fmt: skip

# What means nothing any more once another value is given.
_REPLACED = {
    "speedup": ("quality",),
    "quality": ("speedup",),
    "method": ("blend", "target", "history"),
    "target": ("history",),
}

# What a file has to say for itself, whatever model makes it.
_OF_ANY_MODEL = ("model", "prompt", "seed", "image", "strength", "device", "offload")

_DEEPEST = 32  # of what an extra argument holds
_MOST_PIXELS = 2**31


class Document(BaseModel):
    """What `generate.metadata` wrote, in this version or an earlier one, which knew fewer keys."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, protected_namespaces=()
    )

    version: Annotated[int, Field(alias="schema", ge=1, le=1)]
    generator: str
    model: Place
    pipeline: str
    weights: Place | None = None
    prompt: str
    negative_prompt: str | None
    seed: Annotated[int, Field(ge=0, lt=2**32)]
    width: Count | None
    height: Count | None
    frames: Count
    fps: Count | None
    steps: Steps
    guidance: float | None
    speedup: Annotated[float, Field(ge=1)]
    image: Place | None = None
    strength: Share | None = None
    loras: list[Place] = []
    scheduler: str | None = None
    extras: dict[str, JsonValue] = {}
    method: str
    target: Annotated[
        Target | None, BeforeValidator(lambda name: "denoised" if name == "output" else name)
    ] = None  # it was called so before
    quality: Share | None = None
    blend: Share | None = None
    forecaster: str
    computed_steps: list[int]
    together: Count = 1  # samples of the pipeline's call
    history: HistoryPlace | None = None
    offload: str | None = None
    quantize: str | None = None
    vae_tiling: bool | None = None
    compile: bool = False
    attention: str | None = None
    preset: str | None = None  # its digest
    device: str
    machine: str | None = None
    threads: int | None = None
    dtype: str
    versions: dict[str, str]
    frame: int | None = None  # of a film in single pictures
    job: dict[str, JsonValue] | None = None  # of a batch: see `spectrum.batch.store`

    @field_validator("extras")
    @classmethod
    def _not_deep(cls, extras: dict[str, Any]) -> dict[str, Any]:
        level: list[Any] = [extras]
        for _ in range(_DEEPEST):
            level = [part for whole in level for part in _parts(whole)]
        if level:
            raise ValueError(f"nested more than {_DEEPEST} deep")
        return extras

    @model_validator(mode="after")
    def _not_too_large(self) -> Document:
        if self.frames * (self.width or 1) * (self.height or 1) > _MOST_PIXELS:
            raise ValueError(f"more than {_MOST_PIXELS} pixels")
        return self

    def asked(
        self, given: Mapping[str, Any] | None = None, own_weights: str | None = None
    ) -> dict[str, Any]:
        """What makes the same file again, by the names of `VALUES`, without what says nothing, is
        found out anyway or would be refused.

        given: values that replace the document's, which for another model are its preset's but for
            prompt, seed and image.
        own_weights: those that the model loads if it is not told where from.
        """
        given = dict(given or {})
        kept = {name: getattr(self, name) for name in VALUES}
        if given.get("model", self.model) != self.model:
            kept = {name: kept[name] for name in _OF_ANY_MODEL}
        for name in given:
            for other in _REPLACED.get(name, ()):
                kept.pop(other, None)
        asked = {**kept, **given}
        for name in self._needless(asked, own_weights):
            if name not in given:
                asked.pop(name, None)
        return {name: value for name, value in asked.items() if value not in (None, [], {})}

    def _needless(self, asked: Mapping[str, Any], own_weights: str | None) -> Iterator[str]:
        if asked.get("quality") is not None:
            yield "speedup"  # it was found on the way
        if any(name in asked.get("extras", {}) for name in STEP_LISTS):
            yield "steps"
        if self.fps is None:
            yield "frames"
        if self.history == "auto":
            yield "history"
        if asked.get("frames") == 1:
            yield "fps"  # that makes a PNG
        guidance = asked.get("guidance")
        if guidance is not None and guidance <= 1:
            yield "negative_prompt"
        if asked.get("weights") == own_weights:
            yield "weights"

    def differences(self, now: Mapping[str, Any]) -> list[str]:
        """A sentence for each of `generate.conditions` that is another one than it was."""
        told = []
        if self.together > 1:
            told.append(f"it was sampled with {self.together - 1} more, which round otherwise")
        if self.preset not in (None, now["preset"]):
            told.append(f"the preset {self.model} has other values than it had")
        for name in ("device", "machine", "threads", "dtype"):
            was = getattr(self, name)
            if was not in (None, now[name]):
                told.append(f"{name}: {now[name]} now, {was} then")
        for package, version in now["versions"].items():
            was = self.versions.get(package)
            if was not in (None, version):
                told.append(f"{package}: {version} now, {was} then")
        return told


def read_document(path: Path) -> Document:
    """The document of a PNG or MP4. Raises UsageError, in one line, for one that is damaged."""
    return check(path, read_metadata(path))


def check(path: Path, content: dict[str, Any]) -> Document:
    """The same of a document that was read already."""
    schema = content.get("schema")
    if isinstance(schema, int) and schema > 1:
        raise UsageError(
            f"{path}: a document of schema {str(schema)[:20]}, which this version of spectrum does"
            " not know; a newer one may"
        )
    try:
        return Document.model_validate(content)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_context=False, include_input=False)
        lines = [_problem(problem) for problem in problems[:3]]
        lines += ["…"] * (len(problems) > 3)
        raise UsageError(f"{path}: its document is damaged: {'; '.join(lines)}") from None


def _problem(problem: Mapping[str, Any]) -> str:
    key = ".".join(str(part) for part in problem["loc"])
    text = {"missing": "missing", "extra_forbidden": "unknown key"}.get(problem["type"])
    text = text or problem["msg"][:120]
    return f"{key[:60]}: {text}" if key else text


def check_places(asked: Mapping[str, Any]) -> None:
    """Raise UsageError for a path that climbs out of where it is, or to another machine.

    asked: of `Document.asked`, those values that a file's document has given.
    """
    for name, place in places(asked):
        if ".." in re.split(r"[\\/:]", place) or place.startswith(("\\\\", "//")) or "\0" in place:
            raise UsageError(
                f"the file names `{name}` {place[:200]}, outside the folder; give it yourself if"
                " you trust it"
            )


def places(asked: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Each value, with its name, that something is loaded from."""
    for name in ("model", "weights", "image"):
        if name in asked:
            yield name, str(asked[name])
    yield from (("loras", lora) for lora in asked.get("loras", ()))
    for key, value in asked.get("extras", {}).items():
        if "image" in key and isinstance(value, str):
            yield "extras", value


def extra_texts(extras: Mapping[str, Any]) -> list[str]:
    """As `resolve` reads them: in YAML, to which JSON's 1e-05 would be a word."""

    def text(value: Any) -> str:  # as the only one of a list, whose brackets are left out
        return yaml.safe_dump([value], default_flow_style=True, width=math.inf, allow_unicode=True)[
            1:-2
        ]

    return [f"{key}={text(value)}" for key, value in extras.items()]


def _parts(whole: Any) -> list[Any]:
    if isinstance(whole, dict):
        return list(whole.values())
    return whole if isinstance(whole, list) else []
