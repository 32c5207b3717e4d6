"""Spectrum: forecast most steps of a diffusion transformer instead of computing them.

What is named here is the library's interface; everything else may change. Nothing that needs torch
is imported before it is asked for: the command line answers `--help` without, and the mathematics
(Timeline, Plan, forecasters, schedules) is of use to other front ends.
"""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from spectrum.errors import SpectrumError, UsageError
from spectrum.report import Report, Step

if TYPE_CHECKING:
    from spectrum.engine import SpectralCache, cache_of
    from spectrum.forecast import Forecaster
    from spectrum.methods import METHODS, Method
    from spectrum.plan import Plan
    from spectrum.schedule import Schedule
    from spectrum.timeline import Timeline

_LATER = {
    "METHODS": "methods",
    "Forecaster": "forecast",
    "Method": "methods",
    "Plan": "plan",
    "Schedule": "schedule",
    "SpectralCache": "engine",
    "Timeline": "timeline",
    "cache_of": "engine",
}

__all__ = [
    "METHODS",
    "Forecaster",
    "Method",
    "Plan",
    "Report",
    "Schedule",
    "SpectralCache",
    "SpectrumError",
    "Step",
    "Timeline",
    "UsageError",
    "__version__",
    "cache_of",
]

try:
    __version__ = version("spectrum-diffusion")
except PackageNotFoundError:  # run from a checkout that is not installed
    __version__ = "0+unknown"


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return getattr(import_module(f"spectrum.{_LATER[name]}"), name)
    raise AttributeError(f"module 'spectrum' has no attribute {name!r}")
