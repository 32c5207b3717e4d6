"""The charts of `spectrum tune` and of the benchmarks: as a picture, and as text."""

import sys

import numpy as np
import pytest
from PIL import Image

from spectrum.compare.plot import Chart, can_draw, text_chart, write_chart
from spectrum.errors import SpectrumError

CHART = Chart(
    "a title", "speedup", "dB",
    {"ours": [(4.5, 30.0, 0.5), (2.5, 40.0, None)], "theirs": [(2.5, 30.0, 1.0)], "none": []},
)  # fmt: skip
BLUE, ORANGE = (0x13, 0x68, 0xAA), (0xD1, 0x60, 0x0A)


def drawn(chart, path):
    write_chart(path, chart)
    with Image.open(path) as picture:
        return picture.convert("RGB")


def tall(picture, colour):
    """How many rows have that colour, right of the axis, above the legend."""
    field = np.asarray(picture)[:400, 60:]
    return int((field == colour).all(-1).any(1).sum())


def test_a_chart_has_every_series(tmp_path):
    picture = drawn(CHART, tmp_path / "chart.png")
    assert picture.size == (800, 500)
    assert picture.getpixel((0, 0)) == (255, 255, 255)
    assert tall(picture, BLUE) > 100  # a line from 40 to 30 dB
    assert tall(picture, ORANGE) > 20  # a mark and its error bar
    assert [path.name for path in tmp_path.iterdir()] == ["chart.png"]


def test_errors_are_bars(tmp_path):
    def chart(error):
        return Chart("t", "x", "y", {"one": [(1.0, 0.0, error)], "other": [(1.0, 2.0, 1.0)]})

    none = tall(drawn(chart(None), tmp_path / "none.png"), BLUE)
    some = tall(drawn(chart(1.0), tmp_path / "some.png"), BLUE)
    assert some > 5 * none > 0


def test_charts_look_the_same_whatever_the_user_prefers(tmp_path):
    import matplotlib

    first = drawn(CHART, tmp_path / "first.png")
    with matplotlib.rc_context({"axes.facecolor": "red", "figure.dpi": 50, "font.size": 30}):
        assert drawn(CHART, tmp_path / "second.png") == first
        assert matplotlib.rcParams["axes.facecolor"] == "red"  # and is left as it was


@pytest.mark.parametrize("series", [{}, {"one": [(3.0, 20.0, None)]}])
def test_charts_of_next_to_nothing(series, tmp_path):
    chart = Chart("$t_1$ 模型", "x", "y", series)
    assert drawn(chart, tmp_path / "chart.png").size == (800, 500)
    assert text_chart(chart).startswith(chart.title)


def test_a_chart_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    def full(figure, partial, **_):
        partial.write_text("half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", full)
    path = tmp_path / "chart.png"
    path.write_text("before")
    with pytest.raises(OSError, match="No space"):
        write_chart(path, CHART)
    assert path.read_text() == "before"
    assert [path.name for path in tmp_path.iterdir()] == ["chart.png"]


def test_without_matplotlib_there_is_no_picture(tmp_path, monkeypatch):
    assert can_draw()
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert not can_draw()
    with pytest.raises(SpectrumError, match=r"pip install 'spectrum-diffusion\[plot\]'"):
        write_chart(tmp_path / "chart.png", CHART)
    assert not list(tmp_path.iterdir())


def test_a_chart_in_characters(monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    text = text_chart(CHART, width=40)
    assert text.count("●") == 4  # the legend has two
    assert text.count("■") == 3
    assert all(word in text for word in ("a title", "dB", "speedup", "ours", "theirs"))
    assert "none" not in text
    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) <= 60
    assert text_chart(CHART, encoding="ascii").isascii()
    assert text_chart(CHART, encoding="ascii").count("*") == 4


def test_what_comes_first_is_drawn_on_top():
    same = [(1.0, 1.0, None), (2.0, 2.0, None)]
    text = text_chart(Chart("t", "x", "y", {"first": same, "second": same}))
    field, legend = text.rsplit("\n", 1)
    assert (field.count("●"), field.count("■")) == (2, 0)
    assert "first" in legend
    assert "second" in legend
