"""A comparison as one HTML file: no network, no other files, to be sent to a colleague."""

from __future__ import annotations

import base64
import json
import re
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

_STAGE = 640  # CSS pixels, the most of the large picture's longer side


def page(document: dict[str, Any], folder: Path) -> str:
    """The page of a result (see `Comparison.document`), whose media files are in `folder`."""
    methods = [method for method in document["methods"] if method["runs"]]
    video = document["media"] == "video"
    about = {
        "names": ["plain", *(method["name"] for method in methods)],
        "times": document["difference_times"],
        "fps": document["fps"] or 0,
        "frames": document["frames"],
    }
    sections = [
        _case(document, methods, number, folder) for number in range(len(document["cases"]))
    ]
    parts = {
        "title": escape(f"{document['model']}: what forecasting costs and saves"),
        "summary": escape(_summary(document)),
        "table": _table(document, methods),
        "legend": escape(_legend(document)),
        "cases": "\n".join(sections),
        "conditions": _conditions(document),
        "controls": _controls(document) if video else "",
        "keys": ", <kbd>space</kbd> play, <kbd>,</kbd> <kbd>.</kbd> frame" if video else "",
        "times": str(document["difference_times"]),
        "about": json.dumps(about).replace("<", "\\u003c"),
    }
    template = files("spectrum.compare").joinpath("page.html").read_text(encoding="utf-8")
    # In one pass: a prompt may hold what looks like one of our marks.
    return re.sub(r"\{\{(\w+)\}\}", lambda mark: parts[mark[1]], template)


def _summary(document: dict[str, Any]) -> str:
    size = f"{document['width']}×{document['height']}"
    if document["media"] == "video":
        size += f", {document['frames']} frames at {document['fps']} fps"
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


def _table(document: dict[str, Any], methods: list[dict[str, Any]]) -> str:
    lpips = any(method["lpips"] for method in methods)
    heads = ["Computed", "Denoising", "Whole", "PSNR, dB", "Worst", "SSIM"]
    heads += ["LPIPS"] * lpips + ["Gain, dB"]
    row = "".join(f"<th>{head}</th>" for head in heads)
    rows = [f'<tr><th></th><th class="name">Method</th>{row}</tr>']
    steps = document["steps"]
    for key, method in enumerate(methods, 1):
        speedup, psnr, ssim = method["speedup"], method["psnr"], method["ssim"]
        cells = [
            f"{method['computed_steps']['mean']:g} of {steps}",
            f"{speedup['denoise']['mean']:.2f}×",
            f"{speedup['whole']['mean']:.2f}×",
            figure(psnr, ".2f"),
            f"{psnr['worst']:.2f}",
            figure(ssim, ".4f"),
            *([figure(method["lpips"], ".4f")] if lpips else []),
            figure(method["gain"], "+.2f"),
        ]
        row = "".join(f"<td>{cell}</td>" for cell in cells)
        name = f'<td class="name">{escape(method["name"])}</td>'
        rows.append(f'<tr data-key="{key}"><td>{_mark(key)}</td>{name}{row}</tr>')
    for method in document["methods"]:
        if not method["runs"]:
            name = f'<td class="name">{escape(method["name"])}</td>'
            why = (
                f'<td class="why" colspan="{len(heads)}">{escape(method["unavailable"] or "")}</td>'
            )
            rows.append(f"<tr><td></td>{name}{why}</tr>")
    return f"<table>{''.join(rows)}</table>"


def figure(spread: dict[str, Any] | None, form: str) -> str:
    """A mean and its standard error, if there is one."""
    if spread is None:
        return "–"
    if spread["error"] is None:
        return format(spread["mean"], form)
    return f"{format(spread['mean'], form)} ± {format(spread['error'], form.lstrip('+'))}"


def _case(
    document: dict[str, Any], methods: list[dict[str, Any]], number: int, folder: Path
) -> str:
    case, width, height = document["cases"][number], document["width"], document["height"]
    video = document["media"] == "video"
    plain = document["plain"]["runs"][number]
    tiles = [_tile(0, "plain", "every step computed", plain, document, folder)]
    aparts = []
    for key, method in enumerate(methods, 1):
        run = method["runs"][number]
        near = run["likeness"]
        figures = f"{near['psnr']:.2f} dB, SSIM {near['ssim']:.4f}"
        tiles.append(_tile(key, method["name"], figures, run, document, folder))
        if video:
            source = _data(folder / run["difference"])
            aparts.append(f'<video class="apart" muted playsinline src="{source}"></video>')
    scale = _STAGE / max(width, height)
    scale = max(1, int(scale)) if scale >= 1 else scale
    small = " small" if scale >= 2 else ""
    stage = (
        f'<canvas width="{width}" height="{height}" style="width: {width * scale:g}px"></canvas>'
    )
    return f"""<section class="case{small}" data-case="{number + 1}">
<h2>{escape(case["prompt"])} <small>seed {case["seed"]}</small></h2>
<div class="look">
<figure class="stage">{stage}
<figcaption><span class="shown"></span> <span class="figures faint"></span></figcaption></figure>
<div class="tiles">{"".join(tiles)}</div>
</div>{"".join(aparts)}
</section>"""


def _tile(
    key: int, name: str, figures: str, run: dict[str, Any], document: dict[str, Any], folder: Path
) -> str:
    source, size = _data(folder / run["file"]), f'width="{document["width"]}"'
    size += f' height="{document["height"]}"'
    if document["media"] == "video":
        medium = f'<video muted playsinline {size} src="{source}"></video>'
    else:
        medium = f'<img alt="{escape(name)}" {size} src="{source}">'
    return (
        f'<button class="tile" data-figures="{escape(figures)}">{medium}'
        f'<span>{_mark(key)} {escape(name)}</span><span class="faint">{escape(figures)}</span>'
        "</button>"
    )


def _mark(key: int) -> str:
    """The key that shows a method; those past the ninth have none."""
    return f"<kbd>{key}</kbd>" if key <= 9 else ""


def _data(path: Path) -> str:
    kind = "video/mp4" if path.suffix == ".mp4" else "image/png"
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode('ascii')}"


def _controls(document: dict[str, Any]) -> str:
    length = document["frames"] / document["fps"]
    return (
        '<button id="play">Pause</button>'
        f'<input id="time" type="range" min="0" max="{length}" step="any" value="0"'
        ' aria-label="Time"><span id="frame" class="faint"></span>'
    )


def _conditions(document: dict[str, Any]) -> str:
    caches = {m["name"]: m["cache"] for m in document["methods"] if m["cache"]}
    rows = {
        "Model": f"{document['model']} ({document['pipeline']}, {document['scheduler']})",
        "Steps": str(document["steps"]),
        "Speedup asked for": f"{document['speedup']:g}",
        "Guidance": "–" if document["guidance"] is None else f"{document['guidance']:g}",
        "Negative prompt": document["negative_prompt"] or "–",
        "Seeds": ", ".join(str(case["seed"]) for case in document["cases"]),
        "Machine": f"{document['machine']} ({document['device']}, {document['dtype']},"
        f" {document['threads']} {'thread' if document['threads'] == 1 else 'threads'})",
        "Versions": ", ".join(f"{name} {number}" for name, number in document["versions"].items()),
        **caches,
    }
    return "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in rows.items())
