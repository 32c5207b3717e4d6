"""Numbers in sentences."""

from __future__ import annotations


def counted(number: int, one: str, more: str | None = None) -> str:
    """The number with the word for what there are so many of: 1 step, 4 steps.

    more: the word for more than one, where it is not the other with an s.
    """
    return f"{number:,} {one if number == 1 else more or one + 's'}"
