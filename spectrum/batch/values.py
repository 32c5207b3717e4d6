"""What a job may say: the options of `spectrum gen`, by the names that the library gives them."""

from __future__ import annotations

import json
import re
import reprlib
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from itertools import product
from math import prod
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from spectrum.errors import UsageError
from spectrum.methods import HistoryPlace, Target

SEEDS = 2**32
MOST = 100_000  # values of a sweep
_LARGEST = 1000  # values in an extra argument
_REPR = reprlib.Repr()
_REPR.maxlevel, _REPR.maxstring, _REPR.maxother = 2, 60, 60
_OF_PYDANTIC = "^(Input should be|Input is not|Value error,) |, unable to .*| for <.*"
_ALIASES = {"lora": "loras", "set": "extras", "neg": "negative_prompt"}


def _no_truth(value: Any) -> Any:
    if isinstance(value, bool):  # a number to Python
        raise ValueError("a number is needed")
    return value


def _texts(value: Any) -> Any:
    """One text is a list of one; a mapping is KEY=VALUE texts."""
    if isinstance(value, dict):
        _check_small(value)
        return [f"{key}={json.dumps(item, default=str)}" for key, item in value.items()]
    return [value] if isinstance(value, str) else value


def _check_small(value: Any) -> None:
    """YAML's aliases make a line hold more than a machine can write down."""
    parts, count = [value], 0
    while parts:
        part, count = parts.pop(), count + 1
        if count > _LARGEST:
            raise ValueError(f"more than {_LARGEST} values")
        if isinstance(part, (dict, list)):
            parts += part.values() if isinstance(part, dict) else part


Count = Annotated[int, BeforeValidator(_no_truth), Field(ge=1, le=100_000)]
Steps = Annotated[int, BeforeValidator(_no_truth), Field(ge=1, le=10_000)]
Seed = Annotated[int, BeforeValidator(_no_truth), Field(ge=0, lt=SEEDS)]
Number = Annotated[float, BeforeValidator(_no_truth)]
Texts = Annotated[tuple[str, ...], BeforeValidator(_texts)]


class Values(BaseModel):
    """One job's values; those that are left out are the batch's."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, coerce_numbers_to_str=True, allow_inf_nan=False
    )

    prompt: str | None = None
    negative_prompt: str | None = None
    model: str | None = None
    seed: Seed | None = None
    width: Count | None = None
    height: Count | None = None
    frames: Count | None = None
    fps: Count | None = None
    steps: Steps | None = None
    guidance: Number | None = None
    speedup: Number | None = None
    method: str | None = None
    blend: Number | None = None
    target: Target | None = None
    quality: str | None = None
    image: Path | None = None
    strength: Number | None = None
    loras: Texts = ()
    scheduler: str | None = None
    extras: Texts = ()
    history: HistoryPlace | None = None
    output: str | None = None


KEYS = tuple(Values.model_fields)
_NOT_SWEPT = ("prompt", "negative_prompt", "extras", "history", "output")
SWEPT = tuple(k for k in KEYS if k not in _NOT_SWEPT)
_WHOLE = ("seed", "width", "height", "frames", "fps", "steps")


def key_of(name: str) -> str:
    """The key that a name means: its own, or that of a flag."""
    key = name.strip().removeprefix("--").replace("-", "_")
    return _ALIASES.get(key, key)


def unknown_key(name: str, keys: Sequence[str] = KEYS) -> str:
    """With the nearest that there is."""
    nearest = get_close_matches(key_of(name), keys, n=1)
    guess = f"did you mean {nearest[0]}?" if nearest else f"there are {', '.join(keys)}"
    return f"unknown key {_short(name)}; {guess}"


def validated(values: dict[str, Any]) -> dict[str, Any]:
    """The values that are given, typed, by key. Raises UsageError that names every wrong one."""
    named: dict[str, Any] = {}
    for name, value in values.items():
        if key_of(name) in named:
            raise UsageError(f"{key_of(name)} is given twice; leave one")
        named[key_of(name)] = value
    try:
        model = Values.model_validate(named)
    except ValidationError as error:
        raise UsageError("; ".join(_messages(error))) from None
    given = {key: getattr(model, key) for key in model.model_fields_set}
    found = {key: value for key, value in given.items() if value is not None}
    for key, value in found.items():
        text = "".join(value) if isinstance(value, tuple) else str(value)
        if any("\ud800" <= letter <= "\udfff" for letter in text):
            raise UsageError(f"{key}: half of a surrogate pair, which is no text")
    return found


def _messages(error: ValidationError) -> Iterator[str]:
    for problem in error.errors():
        key = str(problem["loc"][0])
        if problem["type"] == "extra_forbidden":
            yield unknown_key(key)
        else:
            told = re.sub(_OF_PYDANTIC, "", problem["msg"])
            told = told.replace("valid integer", "whole number")
            yield f"{key}: {told}, not {_short(problem['input'])}"


def _short(value: Any) -> str:
    return _REPR.repr(value)


# -- sweeps --------------------------------------------------------------------------------------


def sweep(seeds: str | None, texts: Sequence[str]) -> list[dict[str, Any]]:
    """What each job is made with, one after another: all combinations of the swept values, those
    named last changing fastest, seeds before them. `seeds` is as 1-8 or 1,3,5-7; a text is
    KEY=VALUE,VALUE. Raises UsageError."""
    axes: dict[str, list[Any]] = {}
    pairs = [("seed", "`seeds`", seeds)] if seeds is not None else []
    for text in texts:
        name, equals, listed = text.partition("=")
        if not equals or key_of(name) not in SWEPT:
            told = f"{text!r} is not of the form KEY=VALUE,VALUE"
            raise UsageError(f"`sweep` {unknown_key(name, SWEPT) if equals else told}")
        pairs.append((key_of(name), "`sweep`", listed))
    for key, option, listed in pairs:
        if key in axes:
            raise UsageError(f"{option}: {key} is swept twice; leave one")
        try:
            axes[key] = [validated({key: value})[key] for value in each_of(key, listed)]
        except (UsageError, KeyError) as error:
            raise UsageError(f"{option} {listed!r}: {error}") from None
    if (count := prod(len(values) for values in axes.values())) > MOST:
        raise UsageError(f"`sweep` makes {count} jobs of each; {MOST} is the most")
    return [dict(zip(axes, values, strict=True)) for values in product(*axes.values())]


def each_of(key: str, text: str) -> list[str]:
    """The values between the commas; of whole numbers, 3-6 is 3, 4, 5 and 6."""
    values = []
    for part in text.split(","):
        value = part.strip()
        bounds = re.fullmatch(r"(\d{1,10})-(\d{1,10})", value) if key in _WHOLE else None
        if bounds is None:
            if not value:
                raise UsageError("a value is empty; give numbers or names with commas between them")
            values.append(value)
            continue
        first, last = int(bounds[1]), int(bounds[2])
        if not 0 <= last - first < MOST:
            raise UsageError(f"{value} is no range of at most {MOST} numbers; write it as 1-8")
        values += map(str, range(first, last + 1))
    return values
