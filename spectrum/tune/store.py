"""Recorded runs of a search in a folder: results.json, and the frames of the plain runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

from spectrum.errors import UsageError
from spectrum.pipeline.files import whole
from spectrum.pipeline.foreign import parse_json
from spectrum.pipeline.media import Pixels

SCHEMA = 3  # of results.json
_FRAMES = "plain-[0-9][0-9][0-9].npy"

Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _Run(BaseModel):
    """What `Bench` records of a run: a plain one's timing, or another's likeness to that."""

    model_config = ConfigDict(extra="forbid")

    seconds: Seconds
    psnr: float | None = None
    step_seconds: Seconds | None = None
    other_seconds: Seconds | None = None
    levels: list[float] | None = None
    moves: list[list[float]] | None = None
    steps: list[int] | None = None
    trends: list[float] | None = None
    error: str | None = None
    same_as: str | None = Field(None, alias="as")


class _State(BaseModel):
    version: Annotated[int, Field(alias="schema", ge=SCHEMA, le=SCHEMA)]
    settings: dict[str, JsonValue]
    runs: dict[str, _Run]

    @model_validator(mode="after")
    def _each_tells_what_it_is_asked_for(self) -> _State:
        for key, run in self.runs.items():
            timed = run.step_seconds is not None and run.other_seconds is not None
            if not (timed if key.startswith("plain ") else run.psnr is not None):
                raise ValueError(f"{key} is not complete")
        return self


class Store:
    """What runs showed, by a key for each, written down at once.

    `settings` is all that the results depend on besides. Raises UsageError where the folder holds
    results of other settings, unless `force` says to remove them, or other things than results.
    """

    def __init__(self, folder: Path, settings: dict[str, Any], force: bool = False) -> None:
        self.folder = folder
        self.runs: dict[str, dict[str, Any]] = {}
        self._path = folder / "results.json"
        self._is_new = not folder.exists()
        self._settings = json.loads(json.dumps(settings))  # as they are read again
        if self._path.exists():
            self._read(force)
        elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise UsageError(f"{folder} holds other things than results; move it away")

    def record(self, key: str, entry: dict[str, Any]) -> None:
        self.runs[key] = entry
        self._save()

    def discard(self) -> None:
        """Remove the folder, if nothing was in it before."""
        if self._is_new and self.folder.is_dir():
            for path in [*self.folder.glob(_FRAMES), self._path]:
                path.unlink(missing_ok=True)
            self.folder.rmdir()

    def _save(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        state = {"schema": SCHEMA, "settings": self._settings, "runs": self.runs}
        with whole(self._path) as partial:
            partial.write_text(json.dumps(state, indent=1), encoding="utf-8")

    def frames(self, case: int) -> Pixels | None:
        """Of a plain run, None where they are not here.  # [F, H, W, 3]"""
        path = self._frames_path(case)
        return np.load(path).astype(np.float32) if path.is_file() else None

    def keep_frames(self, case: int, pixels: Pixels) -> None:
        """As float16, whose rounding is 77 dB down, or more."""
        if not self._path.exists():
            self._save()  # which makes the folder ours
        with whole(self._frames_path(case)) as partial, partial.open("wb") as file:
            np.save(file, pixels.astype(np.float16))

    def _frames_path(self, case: int) -> Path:
        return self.folder / f"plain-{case:03d}.npy"

    def _read(self, force: bool) -> None:
        try:
            state = parse_json(self._path.read_text(encoding="utf-8"))
            _State.model_validate(state)
            before, runs = state["settings"], state["runs"]
        except (OSError, ValueError) as error:
            raise UsageError(f"{self._path}: not readable; remove {self.folder}") from error
        settings = self._settings
        if before == settings:
            self.runs = runs
        elif force:
            for path in [*self.folder.glob(_FRAMES), self._path]:
                path.unlink()
        else:
            keys = sorted(k for k in {*before, *settings} if before.get(k) != settings.get(k))
            raise UsageError(
                f"{self.folder} holds results of other settings ({', '.join(keys)});"
                " `force` starts over, another folder keeps them"
            )
