"""From a file of jobs to what each says, with the line that it stands in.

Plain lines are prompts; JSON Lines, CSV and YAML name values too. What those mean is checked
elsewhere (`spectrum.batch.values`, `spectrum.batch.jobs`).
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import yaml

from spectrum.batch.values import KEYS, key_of, unknown_key
from spectrum.errors import UsageError
from spectrum.pipeline.foreign import parse_json
from spectrum.words import counted

Kind = Literal["lines", "jsonl", "csv", "yaml"]

SUFFIXES: dict[str, Kind] = {
    ".txt": "lines", ".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".tsv": "csv",
    ".yaml": "yaml", ".yml": "yaml",
}  # fmt: skip


@dataclass(frozen=True)
class Raw:
    """One job as its file has it: values by key, unchecked."""

    line: int
    values: dict[str, Any]


@dataclass(frozen=True)
class Problem:
    """What is wrong with a line."""

    line: int
    text: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.text}"


def decode(data: bytes, name: str) -> str:
    """The file's text. Raises UsageError for what is not UTF-8."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise UsageError(f"{name}, line {line}: not text in UTF-8; convert it first") from error


def kind_of(suffix: str, first: str) -> Kind:
    """By the file's suffix; where that tells nothing, by its first line that is not empty."""
    if suffix.lower() in SUFFIXES:
        return SUFFIXES[suffix.lower()]
    if first.startswith("{"):
        return "jsonl"
    if first in ("---", "jobs:"):
        return "yaml"
    names = [name.strip() for name in first.split(_delimiter(first))]
    if len(names) > 1 and "prompt" in names and all(key_of(name) in KEYS for name in names):
        return "csv"
    return "lines"


def first_line(text: str) -> str:
    """The first that is not empty, without the space around it."""
    return next((line.strip() for line in io.StringIO(text) if line.strip()), "")


def read_jobs(text: str, kind: Kind) -> Iterator[Raw | Problem]:
    """The jobs of a whole file, in its order."""
    if kind == "csv":
        yield from _csv(text)
    elif kind == "yaml":
        yield from _yaml(text)
    else:
        for number, line in enumerate(io.StringIO(text), 1):
            if found := read_line(number, line, kind):
                yield found


def read_line(number: int, line: str, kind: Kind | None = None) -> Raw | Problem | None:
    """The job of one line, which in a stream (no kind) is JSON if it begins with a brace; None for
    an empty line."""
    text = line.strip()
    if not text:
        return None
    if kind == "lines" or (kind is None and not text.startswith("{")):
        return Raw(number, {"prompt": text})
    try:
        values = parse_json(text)
    except ValueError as error:
        return Problem(number, f"not JSON: {error}")
    if not isinstance(values, dict):
        return Problem(number, 'not a JSON object, such as {"prompt": "a red circle"}')
    return Raw(number, values)


def _delimiter(header: str) -> str:
    return max(",;\t", key=header.count)


def _csv(text: str) -> Iterator[Raw | Problem]:
    delimiter = _delimiter(first_line(text))
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    names: list[str] = []
    line = 0
    try:
        for row in rows:
            began, line = line + 1, rows.line_num
            cells = [cell.strip() for cell in row]
            if not any(cells):
                continue
            if not names:
                names = cells
                yield from _column_problems(began, names)
            elif len(cells) > len(names):
                under = f"{counted(len(cells), 'cell')} under {counted(len(names), 'name')}"
                told = f"{under}; quote a cell with commas"
                yield Problem(began, told)
            else:
                found = zip(names, cells, strict=False)
                yield Raw(began, {name: cell for name, cell in found if cell})
    except csv.Error as error:
        yield Problem(line + 1, f"not CSV: {error}")


def _column_problems(line: int, names: list[str]) -> Iterator[Problem]:
    if "prompt" not in names:
        yield Problem(line, "the first line of a CSV names its columns, and one of them is prompt")
    for name in names:
        if key_of(name) not in KEYS:
            yield Problem(line, unknown_key(name))


def _yaml(text: str) -> Iterator[Raw | Problem]:
    """A list of jobs, or a mapping with the list as `jobs` and beside it what they share."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)(text)  # both build plain data alone
    try:
        yield from _yaml_jobs(loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        reason = getattr(error, "problem", None) or error
        yield Problem(mark.line + 1 if mark else 1, f"not YAML: {' '.join(str(reason).split())}")
    except (RecursionError, ValueError, TypeError) as error:  # such as a date that is none
        yield Problem(1, f"not YAML that can be read: {error}")
    finally:
        loader.dispose()


def _yaml_jobs(loader: Any) -> Iterator[Raw | Problem]:
    jobs, shared = loader.get_single_node(), {}
    if isinstance(jobs, yaml.MappingNode):
        shared = _mapping(loader.construct_object(jobs, deep=True))
        shared.pop("jobs", None)
        nodes = {key.value: node for key, node in jobs.value if isinstance(key.value, str)}
        jobs = nodes.get("jobs")
    if not isinstance(jobs, yaml.SequenceNode):
        yield Problem(1, "a job file is a list of jobs, or a mapping with such a list as jobs")
        return
    for node in jobs.value:
        line, values = node.start_mark.line + 1, loader.construct_object(node, deep=True)
        if isinstance(values, dict):
            yield Raw(line, {**shared, **_mapping(values)})
        elif isinstance(values, str):
            yield Raw(line, {**shared, "prompt": values})
        else:
            yield Problem(line, "a job is a prompt, or a mapping such as {prompt: a red circle}")


def _mapping(values: dict[Any, Any]) -> dict[str, Any]:
    return {str(key): value for key, value in values.items()}
