"""A small line chart: as a picture (Pillow alone), and in characters for a terminal."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

# x, mean, and the mean's standard error (None: unknown).
Point = tuple[float, float, float | None]

_PAPER, _INK, _GRID, _SOFT = "#ffffff", "#222222", "#e4e4e4", "#666666"
_COLOURS = ("#1368aa", "#d1600a", "#2f8f4e", "#8d4bab", "#b3263c", "#6b6b6b")  # told apart by most
_SHAPES = ("disc", "square", "triangle", "diamond")
_MARKS, _ASCII_MARKS = "●■▲◆▼○", "*#+x%o"
_SCALE = 3  # drawn so much larger, then reduced: Pillow's lines have hard edges


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

    def ranges(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """From least to largest x, and y with its errors; never empty."""
        points = [point for line in self.series.values() for point in line]
        xs = [x for x, _, _ in points] or [0.0]
        lows = [y - (error or 0.0) for _, y, error in points] or [0.0]
        highs = [y + (error or 0.0) for _, y, error in points] or [0.0]
        return _widened(min(xs), max(xs)), _widened(min(lows), max(highs))


def write_chart(path: Path, chart: Chart, width: int = 800, height: int = 500) -> None:
    """Write the chart as a PNG of this size, whole or not at all."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        draw_chart(chart, width, height).save(partial, format="PNG")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def draw_chart(chart: Chart, width: int = 800, height: int = 500) -> Image.Image:
    """Lines with error bars over a light grid, and a legend beneath the title."""
    size = (width * _SCALE, height * _SCALE)
    picture = Image.new("RGB", size, _PAPER)
    canvas = _Canvas(ImageDraw.Draw(picture), chart, size)
    canvas.axes()
    series = chart.sorted()
    for number, points in reversed(list(enumerate(series.values()))):
        canvas.line(points, number)
    canvas.legend(list(series))
    return picture.resize((width, height), Image.Resampling.LANCZOS)


def text_chart(chart: Chart, width: int = 64, height: int = 14, encoding: str = "utf-8") -> str:
    """Lines of text: the points as marks, the axes, and which mark is which series."""
    marks = _MARKS if encoding.lower().startswith("utf") else _ASCII_MARKS
    (left, right), (low, high) = chart.ranges()
    rows = [[" "] * width for _ in range(height)]
    series = chart.sorted()
    for number, points in reversed(list(enumerate(series.values()))):
        for x, y, _ in points:
            column = round((x - left) / (right - left) * (width - 1))
            row = round((high - y) / (high - low) * (height - 1))
            rows[row][column] = marks[number % len(marks)]
    across, up = ("─", "│") if marks is _MARKS else ("-", "|")
    labels = {round((high - y) / (high - low) * (height - 1)): y for y in ticks(low, high, 5)}
    texts = {row: number_text(y) for row, y in labels.items()}
    margin = max(map(len, texts.values()), default=0)
    lines = [chart.title, "", f"{chart.y_label}"]
    for row, cells in enumerate(rows):
        lines.append(f"{texts.get(row, ''):>{margin}} {up}{''.join(cells)}".rstrip())
    corner = "└" if marks is _MARKS else "+"
    lines.append(f"{'':>{margin}} {corner}{across * width}")
    below = [" "] * (width + 8)
    for x in ticks(left, right, 6):
        text = number_text(x)
        start = round((x - left) / (right - left) * (width - 1)) - len(text) // 2
        below[max(0, start) : max(0, start) + len(text)] = text
    lines.append(f"{'':>{margin}}  {''.join(below)}".rstrip())
    lines.append(f"{'':>{margin}}  {chart.x_label:>{width}}")
    named = (f"{marks[number % len(marks)]} {name}" for number, name in enumerate(series))
    return "\n".join([*lines, "", "   ".join(named)])


def ticks(low: float, high: float, about: int) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten apart) from `low` to `high`."""
    rough = (high - low) / max(1, about)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [k * step for k in range(first, last + 1)]


def number_text(value: float) -> str:
    return f"{round(value, 6) + 0.0:g}"


def _widened(low: float, high: float) -> tuple[float, float]:
    """With a little room on both sides, so that no point lies on an edge."""
    room = 0.06 * (high - low) or max(1.0, 0.1 * abs(high))
    return low - room, high + room


class _Canvas:
    """Where things of a chart go on its (enlarged) picture."""

    def __init__(self, draw: ImageDraw.ImageDraw, chart: Chart, size: tuple[int, int]) -> None:
        self.draw, self.chart = draw, chart
        self.font = ImageFont.load_default(size=13 * _SCALE)
        self.large = ImageFont.load_default(size=16 * _SCALE)
        self.left, self.right = 64 * _SCALE, size[0] - 24 * _SCALE
        self.top, self.bottom = 88 * _SCALE, size[1] - 56 * _SCALE
        self.xs, self.ys = chart.ranges()

    def at(self, x: float, y: float) -> tuple[float, float]:
        (left, right), (low, high) = self.xs, self.ys
        return (
            self.left + (x - left) / (right - left) * (self.right - self.left),
            self.bottom - (y - low) / (high - low) * (self.bottom - self.top),
        )

    def axes(self) -> None:
        draw, chart = self.draw, self.chart
        for y in ticks(*self.ys, about=6):
            _, height = self.at(self.xs[0], y)
            draw.line([(self.left, height), (self.right, height)], _GRID, _SCALE)
            self._text((self.left - 8 * _SCALE, height), number_text(y), "rm", _SOFT)
        for x in ticks(*self.xs, about=8):
            across, _ = self.at(x, self.ys[0])
            draw.line([(across, self.top), (across, self.bottom)], _GRID, _SCALE)
            self._text((across, self.bottom + 8 * _SCALE), number_text(x), "mt", _SOFT)
        corner = (self.left, self.bottom)
        draw.line([(self.left, self.top), corner, (self.right, self.bottom)], _SOFT, _SCALE)
        draw.text((24 * _SCALE, 16 * _SCALE), chart.title, _INK, self.large, anchor="lt")
        middle = (self.left + self.right) / 2
        self._text((middle, self.bottom + 32 * _SCALE), chart.x_label, "mt", _INK)
        self._text((self.right, 18 * _SCALE), chart.y_label, "rt", _INK)  # above the legend

    def line(self, points: Sequence[Point], number: int) -> None:
        colour = _COLOURS[number % len(_COLOURS)]
        places = [self.at(x, y) for x, y, _ in points]
        if len(places) > 1:
            self.draw.line(places, colour, 2 * _SCALE, joint="curve")
        for (x, y, error), place in zip(points, places, strict=True):
            if error:
                self._bar(self.at(x, y - error), self.at(x, y + error), colour)
            self._mark(place, number)

    def legend(self, names: Sequence[str]) -> None:
        """Beside each other, ending at the right edge, below the y axis' label."""
        height = self.top - 18 * _SCALE
        x: float = self.right
        for number, name in reversed(list(enumerate(names))):
            x -= self.font.getlength(name)
            self._text((x, height), name, "lm", _INK)
            self._mark((x - 10 * _SCALE, height), number)
            x -= 34 * _SCALE

    def _bar(self, low: tuple[float, float], high: tuple[float, float], colour: str) -> None:
        cap = 4 * _SCALE
        self.draw.line([low, high], colour, _SCALE)
        for x, y in (low, high):
            self.draw.line([(x - cap, y), (x + cap, y)], colour, _SCALE)

    def _mark(self, place: tuple[float, float], number: int) -> None:
        """Shapes differ as well as colours, for those who tell few of them apart."""
        colour = _COLOURS[number % len(_COLOURS)]
        corners = list(_shape(place, _SHAPES[number % len(_SHAPES)], 5 * _SCALE))
        if len(corners) == 2:
            self.draw.ellipse(corners, colour)
        else:
            self.draw.polygon(corners, colour)

    def _text(self, place: tuple[float, float], text: str, anchor: str, colour: str) -> None:
        self.draw.text(place, text, colour, self.font, anchor=anchor)


def _shape(place: tuple[float, float], shape: str, r: float) -> Iterator[tuple[float, float]]:
    """Corners; of a disc, those of the box around it."""
    x, y = place
    if shape == "disc":
        yield from [(x - r, y - r), (x + r, y + r)]
    elif shape == "square":
        yield from [(x - r, y - r), (x + r, y - r), (x + r, y + r), (x - r, y + r)]
    elif shape == "triangle":
        yield from [(x, y - 1.2 * r), (x + 1.2 * r, y + r), (x - 1.2 * r, y + r)]
    else:
        yield from [(x, y - 1.3 * r), (x + 1.3 * r, y), (x, y + 1.3 * r), (x - 1.3 * r, y)]
