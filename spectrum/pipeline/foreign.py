"""Text from files that anyone may have written: regular files only, of limited size, and YAML of
limited depth and without the aliases that make a kilobyte fill a machine's memory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from spectrum.errors import UsageError

_LARGEST = 2**20  # bytes; the largest preset that ships has 2,000
_ALIASES, _DEPTH = 20, 20


def read_text(path: Path, largest: int = _LARGEST) -> str:
    """Raises UsageError for what is no regular file, too large, or not UTF-8."""
    try:
        if not path.is_file():  # a pipe or a device would be waited for
            raise UsageError(f"{path}: {'not a regular file' if path.exists() else 'no such file'}")
        if path.stat().st_size > largest:
            raise UsageError(f"{path}: larger than {largest:,} bytes, which no file of its kind is")
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: not UTF-8: {error.reason} at byte {error.start}") from error
    except OSError as error:
        raise UsageError(f"{path}: can't be read: {error.strerror or error}") from error


def parse_json(text: str | bytes) -> Any:
    """What a JSON document holds. Raises ValueError for what is none, or goes too deep."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error


def read_yaml(text: str, where: object) -> Any:
    """What a YAML document holds. Raises UsageError for what is none, or goes too deep."""
    try:
        return yaml.load(text, Loader=_Limited)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UsageError(f"{where}: not YAML: {' '.join(str(error).split())}") from error


class _Limited(yaml.SafeLoader):
    """Raises a YAMLError for too many aliases, or too deep a nest."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._aliases = self._depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        self._aliases += self.check_event(yaml.AliasEvent)
        self._depth += 1
        if self._aliases > _ALIASES or self._depth > _DEPTH:
            what = f"{_ALIASES} aliases" if self._aliases > _ALIASES else f"{_DEPTH} levels"
            raise yaml.YAMLError(f"more than {what}")
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node
