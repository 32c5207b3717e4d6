"""The one number that a model may want otherwise: S, fitted over all speedups and prompts together.

Steps are placed by S, and forecasts weigh by it. So what is found here is used for every speedup,
size and number of steps, also those that were not looked at; and a handful of values tried on all
prompts tells it better than hundreds of step positions are told.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from spectrum.compare.metrics import Spread
from spectrum.tune.bench import Bench
from spectrum.tune.budget import seen
from spectrum.tune.candidates import SCALES, Planned, law
from spectrum.tune.judging import gain_over, is_gain, mean
from spectrum.words import counted

_FINE = 2**0.5  # between values that are tried on all prompts


@dataclass(frozen=True)
class FittedScale:
    """S of 64 latent positions. Gains in dB over the default's, prompt by prompt, of the mean over
    speedups."""

    default: float
    best: float  # of the search
    tried: tuple[float, ...]
    search_gain: Spread  # on what it was chosen by: flattering
    gain: Spread  # of the check

    @property
    def better(self) -> bool:
        """Surely, by the check."""
        return self.best != self.default and is_gain(self.gain)

    @property
    def chosen(self) -> float:
        return self.best if self.better else self.default


def fit_scale(bench: Bench, counts: Sequence[int]) -> FittedScale:
    """For these numbers of computed steps: a few values on few prompts, then the nearest ones on
    all, and the best of them in a check with other seeds. The default's is always among them."""
    default, stated = law(bench.base), bench.base.preset.cache.scale
    few = range(seen(bench.size)[0])

    def qualities(scale: float, cases: Iterable[int]) -> list[float]:
        plans = [Planned(count, scale) for count in counts]
        return [mean([bench.quality(plan, case) for plan in plans]) for case in cases]

    def best_of(scales: Iterable[float], cases: Sequence[int]) -> float:
        return max(scales, key=lambda scale: mean(qualities(scale, cases)))

    coarse = _distinct(default, *(default * factor for factor in SCALES), stated or default)
    bench.watch.phase(f"scale: {len(coarse)} on {counted(len(few), 'prompt')}")
    near = best_of(coarse, few)
    fine = _distinct(default, near / _FINE, near, near * _FINE)
    bench.watch.phase(f"scale: {len(fine)} near {near:g} on all prompts")
    best = best_of(fine, bench.searched)
    search_gain = gain_over(*(qualities(scale, bench.searched) for scale in (default, best)))
    bench.watch.phase(f"scale: check of {best:g}, {search_gain.mean:+.2f} dB so far")
    gain = gain_over(*(qualities(scale, bench.checked) for scale in (default, best)))
    tried = tuple(sorted({*coarse, *fine}))
    return FittedScale(default, best, tried, search_gain, gain)


def _distinct(default: float, *scales: float) -> list[float]:
    """The default first, the others as a preset will have them."""
    others = [float(f"{scale:.3g}") for scale in scales if abs(scale / default - 1) > 1e-3]
    return list(dict.fromkeys([default, *others]))
