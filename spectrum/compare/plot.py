"""A line chart: a picture by matplotlib, which not everyone has, and text for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any
from warnings import catch_warnings, filterwarnings

from spectrum.errors import SpectrumError
from spectrum.pipeline.files import write

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# x, mean, and the mean's standard error (None: unknown).
Point = tuple[float, float, float | None]

NO_PICTURE = (
    "there will be no picture of the chart: that takes matplotlib;"
    " `pip install 'spectrum-diffusion[plot]'`"
)

_WIDTH, _HEIGHT, _DPI = 800, 500, 100  # pixels
_COLOURS = ("#1368aa", "#d1600a", "#2f8f4e", "#8d4bab", "#b3263c", "#6b6b6b")  # told apart by most
_SHAPES = "os^Dvp"  # differ as well, for those who tell few colours apart
_MARKS, _ASCII_MARKS = "●■▲◆▼○", "*#+x%o"
_FRAME_IN_ASCII = str.maketrans("┌┐└┘─│", "++++-|")
_SHORT = 24  # characters of a name, of which three stand beside each other in the legend

# Whatever the user's own matplotlibrc says.
_STYLE: dict[str, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": "#666666",
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlepad": 12,
    "figure.dpi": _DPI,
    "figure.figsize": (_WIDTH / _DPI, _HEIGHT / _DPI),
    "font.size": 10,
    "grid.color": "#e4e4e4",
    "legend.frameon": False,
    "savefig.dpi": _DPI,
    "text.parse_math": False,  # a $ in a model's name is a $
    "xtick.color": "#666666",
    "ytick.color": "#666666",
}


@dataclass(frozen=True)
class Chart:
    """Series by name, the first drawn on top, and what the axes are."""

    title: str
    x_label: str
    y_label: str
    series: Mapping[str, Sequence[Point]]

    def sorted(self) -> dict[str, list[Point]]:
        """The series that have points, from left to right."""
        return {name: sorted(points) for name, points in self.series.items() if points}


def can_draw() -> bool:
    """Whether `write_chart` has what it takes; to be asked before long work, not after it."""
    try:
        import_module("matplotlib.figure")
    except ImportError:
        return False
    return True


def write_chart(path: Path, chart: Chart, replace: bool = False) -> Path:
    """Write a PNG of 800 x 500 pixels; where it is now: see `spectrum.pipeline.files.write`.

    Raises SpectrumError where there is no matplotlib (see `can_draw`).
    """
    if not can_draw():
        raise SpectrumError(NO_PICTURE)
    from matplotlib.style import context

    with context(["default", _STYLE]), catch_warnings():
        filterwarnings("ignore", message="Glyph")  # that the font lacks: a box stands for it
        figure = _drawn(chart)
        return write(path, lambda partial: figure.savefig(partial, format="png"), replace)


def _drawn(chart: Chart) -> Figure:
    """Lines with error bars over a light grid, and a legend below the axes."""
    from matplotlib.figure import Figure

    figure = Figure(layout="constrained")
    axes = figure.subplots()
    series = chart.sorted()
    for number, (name, points) in enumerate(series.items()):
        _line(axes, number, name, points)
    axes.set(title=chart.title, xlabel=chart.x_label, ylabel=chart.y_label)
    if series:
        columns = 3 if max(map(len, series)) <= _SHORT else 2
        figure.legend(loc="outside lower center", ncols=columns)
    return figure


def _line(axes: Axes, number: int, name: str, points: Sequence[Point]) -> None:
    xs, ys, errors = zip(*points, strict=True)
    axes.errorbar(
        xs, ys, [error or float("nan") for error in errors],  # none: no bar
        label=name, color=_COLOURS[number % len(_COLOURS)], marker=_SHAPES[number % len(_SHAPES)],
        capsize=4, elinewidth=1, linewidth=2, zorder=3 - number / 100,
    )  # fmt: skip


def text_chart(chart: Chart, width: int = 64, height: int = 14, encoding: str = "utf-8") -> str:
    """Lines of text without colour: points as marks, the axes, and which mark is which series.

    `width` and `height` are of the field within the axes, in characters. Frame and marks are ASCII
    where `encoding` is none of Unicode's.
    """
    from uniplot import plot_to_string

    utf = encoding.lower().startswith("utf")
    series = chart.sorted()
    marks = list(islice(cycle(_MARKS if utf else _ASCII_MARKS), len(series)))
    lines = [list(zip(*points, strict=True)) for points in series.values()]
    plot = plot_to_string(
        ys=[list(line[1]) for line in reversed(lines)],  # the last is drawn on top
        xs=[list(line[0]) for line in reversed(lines)],
        legend_labels=[*reversed(series)], force_ascii_characters=marks[::-1],
        character_set="ascii", color=False, width=width, height=height,
        x_gridlines=[], y_gridlines=[],
    )  # fmt: skip
    plot = plot if utf else plot.translate(_FRAME_IN_ASCII)
    return f"{chart.title}\n{chart.y_label}; across: {chart.x_label}\n\n{plot}"
