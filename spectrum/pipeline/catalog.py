"""Finding a preset by its name.

Looked up in the current folder's `presets/`, the user's folder and the package, in that order; the
path of a YAML file is a name too, and so are a pipeline's folder and its id on the hub.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path

from spectrum.errors import UsageError
from spectrum.pipeline.discover import discover
from spectrum.pipeline.onefile import FILES
from spectrum.pipeline.preset import Preset, read_preset

ENDINGS = (".yaml", ".yml")


def config_folder() -> Path:
    """What is the user's own."""
    home = os.path.expanduser("~")  # stays as it is where nobody knows one
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path(home) / ".config") / "spectrum"


def preset_folders() -> list[Path]:
    """Where presets are looked for, first to last."""
    package = Path(str(files("spectrum")))
    shipped = package / "presets"
    if not shipped.is_dir():  # a checkout, where they lie at the top
        shipped = package.parent / "presets"
    return [Path("presets"), config_folder() / "presets", shipped]


def preset_paths() -> dict[str, Path]:
    """Every preset by name; of two with the same name, the one that is found first."""
    found: dict[str, Path] = {}
    for folder in preset_folders():
        for path in presets_in(folder):
            found.setdefault(path.stem, path)
    return dict(sorted(found.items()))


def presets_in(folder: Path) -> list[Path]:
    """None where there is no such folder, or it is not ours to read."""
    try:
        return sorted(folder / name for name in os.listdir(folder) if name.endswith(ENDINGS))
    except OSError:
        return []


def read_presets() -> tuple[list[Preset], list[str]]:
    """All presets, and of those that can't be read what is wrong with them."""
    presets, wrong = [], []
    for path in preset_paths().values():
        try:
            presets.append(read_preset(path))
        except UsageError as error:
            wrong.append(str(error))
    return presets, wrong


def reference(preset: Preset) -> str:
    """What finds it again: its name, its file where that lies elsewhere, or its weights if it has
    no file."""
    if preset.path == Path():
        return preset.weights
    return preset.name if preset_paths().get(preset.name) == preset.path else str(preset.path)


def shadows(preset: Preset) -> bool:
    """Whether a preset is found in the place of one of the package with the same name."""
    shipped = preset_folders()[-1] / f"{preset.name}.yaml"
    return shipped.is_file() and not shipped.samefile(preset.path)


def find_preset(name: str, asking: Callable[[], None] | None = None) -> Preset:
    """The preset of that name or path. Raises UsageError, with the nearest names.

    asking: called before the hub is asked, which may take its time.
    """
    if name.endswith(ENDINGS):
        if not os.path.isfile(name):
            raise UsageError(f"no preset file {name}; `spectrum models` lists the presets by name")
        return read_preset(Path(name))
    if name.endswith(FILES):
        raise UsageError(
            f"{name}: a file of weights; give it as `weights`, and as `model` the one that it is of"
        )
    paths = preset_paths()
    if name in paths:
        return read_preset(paths[name])
    if name and (os.path.isdir(name) or is_hub_id(name)):
        known, _ = read_presets()
        for preset in known:
            if preset.weights == name:
                return preset
        if asking and not os.path.isdir(name):
            asking()
        return discover(name)
    if "://" in name:
        raise UsageError(
            f"{name}: an address; `model` takes the id org/name that follows the hub's"
        )
    if "/" in name or name.startswith((".", "~")):
        raise UsageError(f"no folder {name}; give that of a whole pipeline, or a preset's .yaml")
    begin = [path for path in paths if path.startswith(name.lower())][:4] if name else []
    nearest = begin or get_close_matches(name.lower(), paths, n=2, cutoff=0.3) or ["demo-image"]
    guess = " or ".join(repr(near) for near in nearest)
    raise UsageError(f"no model {name!r}; did you mean {guess}? `spectrum models` lists all")


def is_hub_id(name: str) -> bool:
    """Whether it is of the form org/name."""
    return re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", name, re.A) is not None
