import io

import pytest
from rich.console import Console

from spectrum.report import Report, Step
from spectrum_cli import progress as module
from spectrum_cli.progress import Progress


def render(progress, width, encoding="utf-8"):
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="replace")
    console = Console(file=file, width=width, color_system=None, soft_wrap=True)  # as ours
    console.print(progress)
    file.flush()
    return file.buffer.getvalue().decode(encoding).splitlines()


@pytest.fixture
def half_way(monkeypatch):
    """23 of 50 steps are done, 6 of them computed at 2 s each, the others at 0.1 s."""
    monkeypatch.setattr(module.time, "perf_counter", lambda: 100.0)
    computed = list(range(0, 50, 4))
    report = Report(50, computed)
    progress = Progress("demo-image  " + "a small red circle " * 9, quiet=True)
    progress.stage("load")
    progress.on_step(report, None)
    for step in range(23):
        done = step in computed
        report.steps.append(Step(step, done, 2.0 if done else 0.1))
        progress.on_step(report, report.steps[-1])
    return progress


@pytest.mark.parametrize("width", [80, 200])
def test_it_fits(half_way, width):
    lines = render(half_way, width)
    assert max(map(len, lines)) <= width
    assert len(lines) == 4
    assert lines[2] == "●○○○" * 5 + "●○○" + "·" * 27
    assert lines[3].startswith("23/50  6 computed  17 forecast")
    # 7 computed and 20 forecast steps are left; 17 forecasts took 0.1 s instead of 2
    assert "16.0 s left" in lines[3]
    assert "32.3 s saved" in lines[3]


def test_many_steps_wrap_and_none_is_lost(half_way):
    lines = render(half_way, 30)
    marks = "".join(line for line in lines if set(line) <= set("●○·"))
    assert len(marks) == 50


def test_without_unicode_the_shapes_still_differ(half_way):
    line = render(half_way, 80, "ascii")[2]
    assert line == "#ooo" * 5 + "#oo" + "." * 27
