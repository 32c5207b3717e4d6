"""What `spectrum batch` shows while it works."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from spectrum.batch.jobs import Checker
from spectrum.batch.manifest import Record
from spectrum.batch.reading import Raw
from spectrum.batch.watch import Ended
from spectrum.pipeline.catalog import find_preset
from spectrum.pipeline.loading import Options
from spectrum_cli import batch_display
from spectrum_cli.batch_display import Display


def jobs_of(*values):
    checker = Checker({"model": "demo-image"}, find_preset, lambda _: Options())
    return [job for k, one in enumerate(values, 1) for job in checker.jobs(Raw(k, one))]


def ended(job, now=True):
    return Ended(job, Record(id=job.id, status="done", file="x.png", seconds=1.0), now)


@pytest.fixture
def clock(monkeypatch):
    """The seconds that it says: a list of one."""
    now = [100.0]
    monkeypatch.setattr(batch_display.time, "perf_counter", lambda: now[0])
    return now


def test_what_is_left_is_told_by_jobs_of_the_same_shape(clock, capsys):
    small, large = [{"prompt": str(k)} for k in range(3)], [{"prompt": "x", "width": 256}] * 2
    jobs = jobs_of(*small, *large)
    display = Display(Path("out"), jobs, quiet=False, as_json=False)
    display.ended_before(ended(jobs[0], now=False))
    assert display.state() == "1 of 5 done"

    def make(job, seconds, loading=0.0):
        display.begin(job)
        display.stage("load")
        clock[0] += loading
        display.stage("encode")
        clock[0] += seconds
        display.ended(ended(job))
        return display.state()

    assert make(jobs[1], 2, loading=60) == "2 of 5 done, about 6.0 s left"  # what loads, loads once
    assert make(jobs[3], 8) == "3 of 5 done, about 10.0 s left"
    display.ended(ended(jobs[4], now=False))  # by another process, meanwhile
    assert display.state() == "4 of 5 done, about 2.0 s left"
    assert make(jobs[2], 2) == "5 of 5 done"
    display.summary()
    stream = Display(Path("out"), None, quiet=False, as_json=False)
    stream.begin(jobs[0])
    stream.ended(ended(jobs[0]))
    assert stream.state() == "1 done"
    told = capsys.readouterr().err.splitlines()[-2]
    assert told == "3 made, 1 made before, 1 made by other processes; 72.0 s; all in out"


def test_the_jobs_of_a_call_share_its_seconds(clock):
    jobs = jobs_of(*({"prompt": str(k)} for k in range(6)))
    display = Display(Path("out"), jobs, quiet=True, as_json=False)
    display.begin(jobs[0], 3)
    clock[0] += 8
    states = []
    for job in jobs[:4]:
        display.ended(ended(job))
        states.append(display.state())
    assert states[0] == "1 of 6 done, about 10.0 s left"
    assert states[3] == "4 of 6 done, about 4.0 s left"


def test_on_a_terminal_it_shows_why_nothing_is_made(clock, monkeypatch):
    screen = Console(file=io.StringIO(), force_terminal=True, width=40, soft_wrap=True)
    monkeypatch.setattr(batch_display, "console", lambda: screen)
    (job,) = jobs_of({"prompt": "a red circle"})
    display = Display(Path("out"), [job], quiet=False, as_json=False)
    with display:
        with display.starting():
            assert "starting" in screen.file.getvalue()
        display.waiting(1)
        assert "waiting for 1 that other processes are" in screen.file.getvalue()
        display.begin(job)
        display._live.refresh()
        assert "a red circle" in screen.file.getvalue()
