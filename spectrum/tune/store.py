"""Recorded runs of a search in a folder: results.json, and the frames of the plain runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from spectrum.errors import UsageError
from spectrum.pipeline.media import Pixels, whole

SCHEMA = 3  # of results.json


class Store:
    """What runs showed, by a key for each, written down at once.

    `settings` is all that the results depend on besides. Raises UsageError where the folder holds
    results of other settings, unless `force` says to remove them, and where it can't be read.
    """

    def __init__(self, folder: Path, settings: dict[str, Any], force: bool = False) -> None:
        self.folder = folder
        self.runs: dict[str, dict[str, Any]] = {}
        self._path = folder / "results.json"
        self._settings = json.loads(json.dumps(settings))  # as they are read again
        if self._path.exists():
            self._read(force)

    def record(self, key: str, entry: dict[str, Any]) -> None:
        self.runs[key] = entry
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
        self.folder.mkdir(parents=True, exist_ok=True)
        with whole(self._frames_path(case)) as partial, partial.open("wb") as file:
            np.save(file, pixels.astype(np.float16))

    def _frames_path(self, case: int) -> Path:
        return self.folder / f"plain-{case:03d}.npy"

    def _read(self, force: bool) -> None:
        try:
            state = json.loads(self._path.read_text(encoding="utf-8"))
            before, runs = state["settings"], state["runs"]
            if state["schema"] != SCHEMA or not isinstance(runs, dict):
                raise ValueError("another schema")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UsageError(f"{self._path}: not readable; remove {self.folder}") from error
        settings = self._settings
        if before == settings:
            self.runs = runs
        elif force:
            for path in [self._path, *self.folder.glob("plain-*.npy")]:
                path.unlink()
        else:
            keys = sorted(k for k in {*before, *settings} if before.get(k) != settings.get(k))
            raise UsageError(
                f"{self.folder} holds results of other settings ({', '.join(keys)});"
                " `force` starts over, another folder keeps them"
            )
