"""Defaults that a user keeps in a file, for the options that also have a variable."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any

from spectrum_cli.help import ENVIRONMENT


def defaults() -> dict[str, Any]:
    """What config.yaml beside the user's presets says; {} where it is not there. Raises UsageError
    for what no option takes."""
    from spectrum.errors import UsageError
    from spectrum.pipeline.catalog import config_folder
    from spectrum.pipeline.foreign import read_text, read_yaml

    path = config_folder() / "config.yaml"
    try:
        if not path.exists():
            return {}
    except OSError:  # nobody's, as the folder may not be looked into
        return {}
    found = read_yaml(read_text(path), path)
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise UsageError(f"{path}: not options with their values, such as `model: flux.1-dev`")
    for key, value in found.items():
        if key not in ENVIRONMENT:
            nearest = get_close_matches(str(key), ENVIRONMENT, n=1, cutoff=0)[0]
            raise UsageError(
                f"{path}: no default {str(key)!r}; did you mean {nearest!r}? There are:"
                f" {', '.join(ENVIRONMENT)}"
            )
        if not isinstance(value, bool if key == "quiet" else str):
            kind = "true or false" if key == "quiet" else "a word"
            raise UsageError(f"{path}: {key} is {kind}, not {value!r}")
    return found
