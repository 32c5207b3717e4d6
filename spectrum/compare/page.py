"""A comparison as one HTML file: no network, no other files, to be sent to a colleague."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

from spectrum.compare.figures import headings, row
from spectrum.words import counted

_STAGE = 640  # CSS pixels, the most of the large picture's longer side


def page(document: dict[str, Any], folder: Path) -> str:
    """The page of a result (see `Comparison.document`), whose media files are in `folder`."""
    from jinja2 import Environment, StrictUndefined

    methods = [method for method in document["methods"] if method["runs"]]
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = files("spectrum.compare").joinpath("page.html").read_text(encoding="utf-8")
    return environment.from_string(template).render(
        title=f"{document['model']}: what forecasting costs and saves",
        summary=_summary(document),
        headings=headings(document),
        methods=[{"name": method["name"], "cells": row(method, document)} for method in methods],
        left_out=[method for method in document["methods"] if not method["runs"]],
        legend=_legend(document),
        cases=_cases(document, methods, folder),
        stage=_stage(document["width"], document["height"]),
        conditions=_conditions(document),
        about={
            "names": ["plain", *(method["name"] for method in methods)],
            "times": document["difference_times"],
            "fps": document["fps"] or 0,
            "frames": document["frames"],
        },
    )


def _summary(document: dict[str, Any]) -> str:
    size = f"{document['width']}×{document['height']}"
    if document["media"] == "video":
        size += f", {counted(document['frames'], 'frame')} at {document['fps']} fps"
    count = len(document["cases"])
    return (
        f"{document['steps']} steps, at most one in {document['speedup']:g} of them computed;"
        f" {size}; {count} {'seed' if count == 1 else 'prompts and seeds'}"
    )


def _legend(document: dict[str, Any]) -> str:
    mean = "mean ± standard error" if len(document["cases"]) > 1 else "of one seed"
    per = ", each frame by itself" if document["media"] == "video" else ""
    return (
        f"PSNR and SSIM against the plain run of the same seed{per}; {mean}. Gain: the difference"
        " in PSNR to as many plain steps (fewer-steps), seed by seed. Speedups are measured,"
        " against the plain run: of denoising, and of all from the prompt to the pictures."
    )


def _cases(
    document: dict[str, Any], methods: list[dict[str, Any]], folder: Path
) -> Iterator[dict[str, Any]]:
    """Prompt, seed, a tile for each run, and of films their differences; files as data URIs."""
    for number, case in enumerate(document["cases"]):
        runs = [method["runs"][number] for method in methods]
        names = [method["name"] for method in methods]
        plain = document["plain"]["runs"][number]
        tiles = [_tile("plain", "every step computed", plain, folder)]
        tiles += [
            _tile(name, _figures(run["likeness"]), run, folder)
            for name, run in zip(names, runs, strict=True)
        ]
        films = runs if document["media"] == "video" else []  # of pictures the page makes them
        yield {
            **case,
            "tiles": tiles,
            "differences": [_data(folder / f["difference"]) for f in films],
        }


def _tile(name: str, figures: str, run: dict[str, Any], folder: Path) -> dict[str, str]:
    return {"name": name, "figures": figures, "source": _data(folder / run["file"])}


def _figures(near: dict[str, float]) -> str:
    return f"{near['psnr']:.2f} dB, SSIM {near['ssim']:.4f}"


def _data(path: Path) -> str:
    kind = "video/mp4" if path.suffix == ".mp4" else "image/png"
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode('ascii')}"


def _stage(width: int, height: int) -> dict[str, Any]:
    """The large picture: as many times as large as fits, or scaled down."""
    scale = _STAGE / max(width, height)
    scale = max(1, int(scale)) if scale >= 1 else scale
    return {"width": width, "height": height, "scale": scale, "shown": f"{width * scale:g}"}


def _conditions(document: dict[str, Any]) -> dict[str, str]:
    caches = {m["name"]: m["cache"] for m in document["methods"] if m["cache"]}
    threads = document["threads"]
    return {
        "Model": f"{document['model']} ({document['pipeline']}, {document['scheduler']})",
        "Steps": str(document["steps"]),
        "Speedup asked for": f"{document['speedup']:g}",
        "Guidance": "–" if document["guidance"] is None else f"{document['guidance']:g}",
        "Negative prompt": document["negative_prompt"] or "–",
        "Seeds": ", ".join(str(case["seed"]) for case in document["cases"]),
        "Machine": f"{document['machine']} ({document['device']}, {document['dtype']},"
        f" {counted(threads, 'thread')})",
        "Versions": ", ".join(f"{name} {number}" for name, number in document["versions"].items()),
        **caches,
    }
