import io
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from rich.console import Console

from spectrum.report import Report, Step
from spectrum_cli import progress as module
from spectrum_cli.progress import JsonProgress, Progress


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


def test_every_stage_is_seen_on_a_narrow_terminal(half_way):
    half_way.seconds = dict.fromkeys(module.STAGES, 26.5)
    lines = render(half_way, 60)
    assert max(map(len, lines)) <= 60
    assert lines[1] == "load 26.5 s  encode 26.5 s  denoise 26.5 s  decode 26.5 s"
    assert lines[2] == "write 26.5 s"


def test_no_figure_is_cut_on_a_narrow_terminal(half_way):
    lines = render(half_way, 40)
    assert max(map(len, lines)) <= 40
    assert lines[-2].startswith("23/50  6 computed  17 forecast")
    assert lines[-1].endswith("16.0 s left  32.3 s saved")


def test_many_steps_wrap_and_none_is_lost(half_way):
    lines = render(half_way, 30)
    marks = "".join(line for line in lines if set(line) <= set("●○·"))
    assert len(marks) == 50


def test_without_unicode_the_shapes_still_differ(half_way):
    line = render(half_way, 80, "ascii")[2]
    assert line == "#ooo" * 5 + "#oo" + "." * 27


def after(steps, done, count=1):
    report = Report(steps, list(range(0, steps, 4)))
    progress = Progress("x", True, 1 + (count > 1), count, 10.0 if count > 1 else None)
    progress.on_step(report, None)
    for step in range(done):
        report.steps.append(Step(step, step % 4 == 0, 1.0))
    return progress


@pytest.mark.parametrize(("steps", "width"), [(150, 80), (320, 80), (1000, 80), (10_000, 200)])
def test_of_long_runs_the_marks_fill_four_rows_at_most_and_move(steps, width):
    rows = {}
    for done in (0, steps // 2, steps):
        lines = render(after(steps, done), width)
        assert max(map(len, lines)) <= width
        assert len(lines) <= 7
        rows[done] = "".join(line.split(" ")[0] for line in lines[2:-1])
    assert set(rows[0]) == {"·"}
    assert "·" not in rows[steps]
    pending = rows[steps // 2].count("·")
    assert abs(pending - len(rows[0]) / 2) <= 1


def test_of_several_it_says_which_one_and_the_time_for_all():
    lines = render(after(10, 5, count=4), 80)
    assert lines[0] == "2/4  x"
    assert "30.0 s left for all" in lines[-1]  # 10 s each: this one has only begun
    assert max(map(len, lines)) <= 80
    assert "for all" not in render(after(10, 5), 80)[-1]


@pytest.mark.parametrize("quiet", [False, True])
def test_what_diffusers_says_is_a_line_each_said_once_or_not_at_all(capsys, quiet):
    import logging

    from spectrum_cli.noise import silence

    silence(quiet, "demo-image")
    cut = "The following part of your input was truncated because"
    for seed in range(2):
        log = logging.getLogger("diffusers.pipelines.flux.pipeline_flux")
        log.warning(f"{cut} `max_sequence_length` is set to  20 tokens: ['']")
        log.warning(f"{cut} CLIP can only handle sequences up to 77 tokens: ['at dusk {seed}']")
        log.warning("odd")
        logging.getLogger("diffusers.pipelines.pipeline_utils").warning("fp16 on a CPU")
    silence(quiet=True)
    told = [
        "note: demo-image reads the first 20 tokens of a prompt; what is beyond is lost to it",
        "note: demo-image's CLIP reads the first 77 tokens of a prompt; what is beyond is lost to"
        " it",
        "diffusers: odd",
    ]
    assert capsys.readouterr().err.splitlines() == ([] if quiet else told)


@pytest.mark.parametrize(
    ("computed", "steps", "told"),
    [
        (1, 1, "1 of 1 step computed; denoised in 1.0 s"),
        (3, 4, "3 of 4 steps computed, the other one forecast; denoised in 1.0 s"),
        (2, 4, "2 of 4 steps computed, the others forecast; denoised in 1.0 s"),
    ],
)
def test_a_summary_names_others_where_there_are_any(capsys, computed, steps, told):
    from spectrum.pipeline.generate import Generation
    from spectrum_cli.paths import Target
    from spectrum_cli.told import say_written, summary

    report = Report(steps, list(range(computed)))
    for index in range(steps):
        report.steps.append(Step(index, index < computed, 1.0))
    picture = np.zeros((1, 8, 8, 3))
    made = Generation(picture, picture, report, 0.0, 1.0, 0.0)
    summary([made], 1.0)
    assert told in capsys.readouterr().err.splitlines()
    file = Target(Path("a.png"), Path("a.png"), by_user=True)
    say_written(SimpleNamespace(fps=8), 3, file, made)
    assert capsys.readouterr().err == "wrote a.png  (8×8, seed 3)\n"  # a picture has no rate


@pytest.mark.parametrize("width", [40, 80, 100, 200])
def test_models_fit_a_terminal_and_no_word_is_broken(width):
    from spectrum.pipeline.catalog import read_presets
    from spectrum_cli.models import _row, table

    rows = [_row(preset) for preset in read_presets()[0]]
    lines = table(rows, width)
    assert max(map(len, lines)) <= width
    assert [line.split()[0] for line in lines[1:]] == [row["name"] for row in rows]
    assert len(table(rows, None)[0].split()) == 7


def test_a_long_run_says_where_it_is_where_there_is_no_terminal(capsys, monkeypatch):
    monkeypatch.setattr(module, "EVERY", 0.0)
    report = Report(4, [0, 2])
    progress = Progress("x")
    progress.on_step(report, None)
    for index in range(3):
        report.steps.append(Step(index, index != 1, 0.5))
        progress.on_step(report, report.steps[-1])
    err = capsys.readouterr().err
    assert "denoise: 4 steps, 2 of them computed\n1/4  1 computed  0 forecast" in err
    assert "3/4  2 computed  1 forecast" in err


def test_progress_for_programs(capsys):
    report = Report(2, [0])
    progress = JsonProgress("x", True, 2, 3)
    progress.stage("load")
    progress.on_step(report, None)
    report.steps.append(Step(0, True, 0.5))
    progress.on_step(report, report.steps[-1])
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [line["stage"] for line in lines] == ["load", "denoise", "denoise"]
    assert lines[-1] == {
        "image": 2, "images": 3, "stage": "denoise", "step": 0, "steps": 2, "computed": True,
        "seconds": 0.5, "left": 0.0,
    }  # fmt: skip
    report.steps.append(Step(1, False, 0.5))
    progress.on_step(report, report.steps[-1])
    last, after = (json.loads(line) for line in capsys.readouterr().err.splitlines())
    assert (last["step"], after["stage"]) == (1, "decode")  # the stage begins when the step ended
