"""`spectrum doctor`: what this machine has, and what will run on it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from textwrap import wrap
from typing import Any

from spectrum.words import counted
from spectrum_cli.noise import silence
from spectrum_cli.options import Json
from spectrum_cli.output import emit, emit_json, human_bytes, terminal_width

WIDTH, LABEL = 80, 11
WHAT_FOR = {"torchao": "--quantize", "matplotlib": "charts as pictures", "peft": "--lora"}


def doctor(as_json: Json = False) -> None:
    """What this machine has, and which models fit on it; nothing is downloaded."""
    silence(quiet=True)
    from spectrum.pipeline.machine import examine

    found = examine()
    if as_json:
        emit_json(found)
        return
    for line in screen(found, min(terminal_width() or WIDTH, WIDTH)):
        emit(line)


def screen(found: dict[str, Any], width: int = WIDTH) -> Iterator[str]:
    """What was found, in lines of a terminal; a line for each probe that failed."""
    for name, part in found.items():
        if "error" in part:
            yield from _paragraph(name, f"can't be told: {part['error']}", width)
        else:
            for label, text in SHOWN[name](part):
                yield from _paragraph(label, text, width)


def _paragraph(label: str, text: str, width: int) -> Iterator[str]:
    lines = wrap(text, max(width - LABEL, LABEL), break_on_hyphens=False) or [""]
    for number, line in enumerate(lines):
        yield f"{'' if number else label:<{LABEL}}{line}"


Lines = Iterator[tuple[str, str]]


def _versions(part: dict[str, Any]) -> Lines:
    packages = part["packages"]
    here = ", ".join(f"{name} {number}" for name, number in packages.items() if number)
    yield "versions", f"spectrum {part['spectrum']}, Python {part['python']}, {part['system']}"
    yield "", here
    if missing := [name for name, number in packages.items() if not number]:
        reasons = (f"{name} ({WHAT_FOR[name]})" if name in WHAT_FOR else name for name in missing)
        yield "", f"not installed: {', '.join(reasons)}"


def _devices(part: dict[str, Any]) -> Lines:
    for one in part["accelerators"]:
        room = f"{human_bytes(one['free'])} of {human_bytes(one['total'])} free"
        yield "device", f"{one['device']}: {one['name']}, {room}"
    if not part["accelerators"]:
        yield "device", part["unused"] or "no GPU: models run on the CPU"


def _memory(part: dict[str, Any]) -> Lines:
    room = f"{human_bytes(part['free'])} of {human_bytes(part['total'])} free"
    yield "memory", f"{room}; {counted(part['cores'], 'CPU core')}"


def _attention(part: dict[str, Any]) -> Lines:
    yield "attention", f"{', '.join(part['usable']) or 'none'} (on {part['device']})"


def _ffmpeg(part: dict[str, Any]) -> Lines:
    yield "ffmpeg", part["version"]


def _hub(part: dict[str, Any]) -> Lines:
    models = counted(part["models"], "model")
    text = f"{_short(part['folder'])}: {human_bytes(part['bytes'])} in {models}"
    offline = "; HF_HUB_OFFLINE is set" if part["offline"] else ""
    yield "hub cache", f"{text}, room for {human_bytes(part['free'])}{offline}"


def _ray(part: dict[str, Any]) -> Lines:
    address = f", RAY_ADDRESS {part['address']}" if part["address"] else ""
    yield "Ray", f"{part['version'] or 'not installed'}{address}"


def _presets(part: dict[str, Any]) -> Lines:
    folders = [f"{count} in {_short(where)}" for where, count in part["folders"].items() if count]
    yield "presets", ", ".join(folders) or "none"
    for path in part["shadowing"]:
        yield "", f"{_short(path)} stands in the place of the package's own"
    for problem in part["wrong"]:
        yield "", problem


def _models(part: dict[str, Any]) -> Lines:
    """Grouped by the options that they fit with, at their presets' own sizes."""
    groups: dict[str, list[str]] = {}
    for name, model in part.items():
        groups.setdefault(_how(model), []).append(name)
    for how in sorted(groups, key=lambda how: (how in NOT, len(how))):
        yield ("won't run" if how in NOT else "runs"), f"{how}: {', '.join(groups[how])}"
    here = [name for name, model in part.items() if model["weights_here"]]
    yield "", "Weights and history are counted; activations come on top."
    yield "weights", f"here: {', '.join(here) or 'none'}"


NOT = ("too large", "not in this diffusers")


def _how(model: dict[str, Any]) -> str:
    if not model["known"]:
        return NOT[1]
    if model["fits_with"] is None:
        return NOT[0]
    return " ".join(f"--{name} {value}" for name, value in model["fits_with"].items()) or "as it is"


def _short(path: str) -> str:
    home = os.path.expanduser("~")
    return f"~{path[len(home) :]}" if path.startswith(f"{home}/") else path


SHOWN = {
    "versions": _versions,
    "devices": _devices,
    "memory": _memory,
    "attention": _attention,
    "ffmpeg": _ffmpeg,
    "hub": _hub,
    "ray": _ray,
    "presets": _presets,
    "models": _models,
}
