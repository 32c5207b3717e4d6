"""What the library calls an argument, the command line calls a flag."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

_FLAGS: dict[str, str] = {}


def learn(commands: Iterable[Any]) -> None:
    """Take the flags of these commands for granted; of two with one name, that of the later."""
    _FLAGS.clear()
    for command in commands:
        for parameter in command.params:
            flags = [name for name in parameter.opts if name.startswith("--")]
            _FLAGS[parameter.name] = flags[0] if flags else parameter.name.upper()


def with_flags(text: str) -> str:
    """The text with flags instead of `arguments`; other words in backquotes stay as they are."""
    return re.sub(r"`(\w+)`", lambda word: _FLAGS.get(word[1], word[0]), text)
