"""Spectrum: forecast most steps of a diffusion transformer instead of computing them."""

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spectrum.engine import SpectralCache
    from spectrum.report import Report, Step

__all__ = ["Report", "SpectralCache", "Step", "__version__"]

try:
    __version__ = version("spectrum-diffusion")
except PackageNotFoundError:  # run from a checkout that is not installed
    __version__ = "0+unknown"


def __getattr__(name: str) -> Any:
    """Import torch only for those who need it: the command line answers `--help` without."""
    if name == "SpectralCache":
        from spectrum.engine import SpectralCache

        return SpectralCache
    if name in ("Report", "Step"):
        from spectrum import report

        return getattr(report, name)
    raise AttributeError(f"module 'spectrum' has no attribute {name!r}")
