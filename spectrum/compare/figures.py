"""What is measured of each run, and what that says of each method."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from spectrum.compare.metrics import Likeness, spread
from spectrum.compare.rivals import FEWER_STEPS, Rival

PLAIN = "plain"


@dataclass(frozen=True)
class Outcome:
    """One run of one rival. `file` and `difference` are paths in the output folder, None where they
    could not be written."""

    computed: float  # steps, a mean over guidance branches
    encode_seconds: float
    denoise_seconds: float
    decode_seconds: float
    file: str | None
    difference: str | None  # None for the plain run itself too, as the likeness is
    likeness: Likeness | None
    plain_step: float  # seconds, of plain steps right before and after this run
    notes: tuple[str, ...] = ()

    @property
    def other_seconds(self) -> float:
        return self.encode_seconds + self.decode_seconds

    @property
    def seconds(self) -> float:
        return self.denoise_seconds + self.other_seconds

    def document(self) -> dict[str, Any]:
        return {
            "file": self.file,
            "difference": self.difference,
            "computed_steps": self.computed,
            "seconds": {
                "encode": self.encode_seconds,
                "denoise": self.denoise_seconds,
                "decode": self.decode_seconds,
                "plain_step": self.plain_step,
            },
            "likeness": asdict(self.likeness) if self.likeness else None,
            "notes": list(self.notes),
        }


# Of one case, by the rival's name, with "plain" among them.
Outcomes = dict[str, Outcome]


def methods(rivals: Sequence[Rival], cases: Sequence[Outcomes]) -> list[dict[str, Any]]:
    """Figures of each rival over all cases, the best first. PSNR and gain are in dB."""
    found = [_about(rival) | _figures(rival.name, cases) for rival in rivals]
    return sorted(found, key=lambda one: -one["psnr"]["mean"] if one["psnr"] else float("inf"))


def _about(rival: Rival) -> dict[str, Any]:
    """All figures None, as they are where it could not be had."""
    return {
        "name": rival.name,
        "unavailable": rival.reason,
        "cache": repr(rival.config) if rival.config is not None else None,
        "steps": rival.request.steps if rival.request else None,
        "computed_steps": None, "speedup": None, "psnr": None, "ssim": None, "lpips": None,
        "gain": None, "runs": [],
    }  # fmt: skip


def _figures(name: str, cases: Sequence[Outcomes]) -> dict[str, Any]:
    """Empty where it is left out."""
    mine = [case[name] for case in cases if name in case]
    if not mine:
        return {}
    near = _likenesses(name, cases)
    plain = [case[PLAIN].computed * case[name].plain_step for case in cases]
    denoise = [a / b.denoise_seconds for a, b in zip(plain, mine, strict=True)]
    whole = [(a + b.other_seconds) / b.seconds for a, b in zip(plain, mine, strict=True)]
    return {
        "computed_steps": _mean([one.computed for one in mine]),
        "speedup": {"denoise": _mean_and_median(denoise), "whole": _mean_and_median(whole)},
        "psnr": _mean_and_worst([one.psnr for one in near], min),
        "ssim": _mean_and_worst([one.ssim for one in near], min),
        "lpips": _mean_and_worst([one.lpips for one in near if one.lpips is not None], max),
        "gain": _gain(name, near, _likenesses(FEWER_STEPS, cases)),
        "runs": [one.document() for one in mine],
    }


def _likenesses(name: str, cases: Sequence[Outcomes]) -> list[Likeness]:
    """Of one rival at all cases; empty where it is left out."""
    mine = [case[name].likeness for case in cases if name in case]
    return [near for near in mine if near is not None]


def _gain(
    name: str, near: Sequence[Likeness], fewer: Sequence[Likeness]
) -> dict[str, float | None] | None:
    """Over as many plain steps, case by case."""
    if not fewer or name == FEWER_STEPS:
        return None
    return _mean([ours.psnr - theirs.psnr for ours, theirs in zip(near, fewer, strict=True)])


def _mean(values: Sequence[float]) -> dict[str, float | None]:
    return asdict(spread(values))


def _mean_and_median(values: Sequence[float]) -> dict[str, float | None]:
    return {**_mean(values), "median": median(values)}


def _mean_and_worst(
    values: Sequence[float], worst: Callable[[Sequence[float]], float]
) -> dict[str, float | None] | None:
    return {**_mean(values), "worst": worst(values)} if values else None


# -- as text -------------------------------------------------------------------------------------


def headings(document: dict[str, Any]) -> list[str]:
    """Of the columns of `row`; LPIPS where it was measured."""
    lpips = ["LPIPS"] if _has_lpips(document) else []
    return ["Computed", "Denoising", "Whole", "PSNR, dB", "Worst", "SSIM", *lpips, "Gain, dB"]


def row(method: dict[str, Any], document: dict[str, Any]) -> list[str]:
    """The figures of a method that has runs, out of `Comparison.document`."""
    speedup, psnr = method["speedup"], method["psnr"]
    return [
        f"{method['computed_steps']['mean']:g} of {document['steps']}",
        f"{speedup['denoise']['median']:.2f}×",
        f"{speedup['whole']['median']:.2f}×",
        _text(psnr, ".2f"),
        f"{psnr['worst']:.2f}",
        _text(method["ssim"], ".4f"),
        *([_text(method["lpips"], ".4f")] if _has_lpips(document) else []),
        _text(method["gain"], "+.2f"),
    ]


def _has_lpips(document: dict[str, Any]) -> bool:
    return any(method["lpips"] for method in document["methods"])


def _text(spread: dict[str, Any] | None, form: str) -> str:
    """A mean and its standard error, if there is one."""
    if spread is None:
        return "–"
    if spread["error"] is None:
        return format(spread["mean"], form)
    return f"{format(spread['mean'], form)} ± {format(spread['error'], form.lstrip('+'))}"
