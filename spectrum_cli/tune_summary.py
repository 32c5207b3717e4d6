"""What a search found: table and chart for people, a document for programs, a record."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

from spectrum.compare.metrics import Spread, spread
from spectrum.compare.plot import Chart
from spectrum.pipeline.preset import trust_word
from spectrum.tune.bench import Bench
from spectrum.tune.judging import spread_text
from spectrum.tune.scale import FittedScale
from spectrum.tune.search import Found, Tuning
from spectrum.words import counted
from spectrum_cli.output import human_seconds

# -- for people ----------------------------------------------------------------------------------


def summary(tuning: Tuning) -> list[str]:
    """Columns: steps, PSNR in dB, and the gain prompt by prompt; then what came of it."""
    return [*_table(tuning.found), "", _scale_line(tuning.scale), _steps_line(tuning)]


def _table(found: Sequence[Found]) -> list[str]:
    rows: list[tuple[str, ...]] = [
        ("computed", "speedup", "tuned", "default", "fewer steps", "gain over the default")
    ]
    for one in found:
        quality = [
            spread_text(spread(values), "")
            for values in (one.tuned_psnr, one.default_psnr, one.fewer_psnr)
        ]
        rows.append(
            (f"{one.count} of {one.num_steps}", f"{one.speedup:.2f}×", *quality, _gain(one))
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def _gain(one: Found) -> str:
    if one.best == one.default:
        return "none: the default stays"
    return f"{spread_text(one.gain)}, by {' and '.join(_reasons(one))}"


def _reasons(one: Found) -> list[str]:
    """What makes it other than the default."""
    return ["the scale"] * (one.scaled != one.default) + ["its own steps"] * one.better


def _scale_line(scale: FittedScale) -> str:
    tried = f"{len(scale.tried)} were tried"
    if scale.better:
        return (
            f"scale {scale.chosen:.3g}, where the default has {scale.default:.3g}:"
            f" {spread_text(scale.gain)} in the mean of these; it is used for every speedup, size"
            f" and number of steps ({tried})"
        )
    if scale.best == scale.default:
        return f"scale {scale.default:.3g}, the default's: none was better ({tried})"
    return (
        f"scale {scale.default:.3g}, the default's: {scale.best:.3g}, best in the search, was not"
        f" surely better in the check, {spread_text(scale.gain)} ({tried})"
    )


def _steps_line(tuning: Tuning) -> str:
    counts = [str(one.count) for one in tuning.found if one.better]
    of = f"of {tuning.found[0].num_steps} computed"
    start = "this scale gives" if tuning.scale.better else "the default computes"
    if counts:
        return f"steps of their own for {', '.join(counts)} {of}, surely better than those {start}"
    return f"no steps were surely better than those {start}"


def chart(bench: Bench, tuning: Tuning) -> Chart:
    def points(values: Sequence[tuple[float, ...]]) -> list[tuple[float, float, float | None]]:
        spreads = [spread(each) for each in values]
        pairs = zip(tuning.found, spreads, strict=True)
        return [(one.speedup, psnr.mean, psnr.error) for one, psnr in pairs]

    base = bench.base
    return Chart(
        f"{base.preset.name}, {counted(base.steps, 'step')}, {counted(bench.size, 'prompt')}",
        "speedup (steps over computed steps)",
        "PSNR against the plain run, dB",
        {
            "tuned": points([one.tuned_psnr for one in tuning.found]),
            "default": points([one.default_psnr for one in tuning.found]),
            "fewer steps": points([one.fewer_psnr for one in tuning.found]),
        },
    )


# -- for programs --------------------------------------------------------------------------------


def document(
    bench: Bench,
    tuning: Tuning,
    settings: dict[str, Any],
    output: Path | None,
    picture: Path | None,
) -> dict[str, Any]:
    """The object that --json prints. PSNR in dB, one a prompt; gains prompt by prompt.

    All are of the check, with seeds that the search did not see, but for each `search_gain`. The
    paths are None where nothing was written.
    """
    return {
        "output": str(output) if output else None,
        "plot": str(picture) if picture else None,
        "model": bench.base.preset.name,
        "date": date.today().isoformat(),
        "settings": settings,
        "prompts": [
            {"prompt": case.prompt, "seed": case.seed} for case in bench.cases[: bench.size]
        ],
        "check_seeds": [bench.cases[k].seed for k in bench.checked],
        "runs": bench.recorded,
        "runs_now": bench.runs_done,
        "seconds": bench.recorded_seconds,
        "scale": _scale_document(tuning.scale),
        "results": [_result(one) for one in tuning.found],
    }


def _scale_document(scale: FittedScale) -> dict[str, Any]:
    return {
        "scale": scale.chosen,
        "default": scale.default,
        "better_than_default": scale.better,
        "tried": list(scale.tried),
        "best_in_search": scale.best,
        "search_gain": _spread(scale.search_gain),
        "gain_over_default": _spread(scale.gain),
    }


def _result(one: Found) -> dict[str, Any]:
    psnr = {
        "tuned": one.tuned_psnr,
        "by_scale": one.scaled_psnr,
        "default": one.default_psnr,
        "fewer_steps": one.fewer_psnr,
    }
    return {
        "computed": one.count,
        "speedup": one.speedup,
        "steps": list(one.best.steps),
        "length": one.best.length,
        "trust": trust_word(one.best.trust),
        "own_steps": one.better,
        "candidates": one.candidates,
        "search_gain": _spread(one.search_gain),
        "default_steps": list(one.default.steps),
        "psnr": {
            name: {**_spread(spread(values)), "each": list(values)} for name, values in psnr.items()
        },
        "gain_over_default": _spread(one.gain),
        "gain_over_scale": _spread(one.gain_over_scaled),
        "gain_over_fewer_steps": _spread(one.gain_over_fewer),
    }


def _spread(one: Spread) -> dict[str, float | None]:
    return {"mean": one.mean, "standard_error": one.error}


# -- for the preset ------------------------------------------------------------------------------


def record(document: dict[str, Any], bench: Bench) -> list[str]:
    """What the preset says of its making."""
    settings = document["settings"]
    versions = ", ".join(f"{name} {version}" for name, version in settings["versions"].items())
    size = f"{settings['width']}×{settings['height']}, " if settings["width"] else ""
    length = f"{settings['frames']} frames, " if settings["frames"] > 1 else ""
    guidance = "" if settings["guidance"] is None else f", guidance {settings['guidance']:g}"
    text = (
        f"Tuned by `spectrum tune` on {document['date']}: {versions}; {settings['device']},"
        f" {settings['dtype']}; {size}{length}{settings['steps']} steps{guidance};"
        f" {document['runs']} runs in {human_seconds(document['seconds'])}. Gains are paired means"
        " ± standard errors of PSNR in a check: the same prompts with other seeds than the search"
        " saw. Prompts, with the seeds of search and check:"
    )
    return [*textwrap.wrap(text, 96), *(f"  {line}" for line in _prompts(bench))]


def _prompts(bench: Bench) -> list[str]:
    searched, checked = ([bench.cases[k] for k in part] for part in (bench.searched, bench.checked))
    if len({case.prompt for case in searched}) > 1:
        pairs = zip(searched, checked, strict=True)
        return [f"{one.seed}, {other.seed}: {one.prompt}" for one, other in pairs]
    seeds = " and ".join(f"{part[0].seed} to {part[-1].seed}" for part in (searched, checked))
    return [f"{seeds}: {' '.join(searched[0].prompt.split())}"]  # an example may have lines
