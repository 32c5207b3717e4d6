"""The scripts that the documents show, on the embedded model."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
SMALL = ["--steps", "6", "--width", "64", "--height", "64"]


@pytest.fixture
def run(tmp_path):
    """A script with the `spectrum` of this environment first on the path."""
    command = tmp_path / "bin" / "spectrum"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m spectrum_cli "$@"\n')
    command.chmod(0o755)
    (tmp_path / "p.txt").write_text("a red circle\na blue ring\na green star\n")

    def call(script, *args, **more):
        path = f"{command.parent}{os.pathsep}{os.environ['PATH']}"
        env = {**os.environ, "OMP_NUM_THREADS": "1", "PATH": path, **more}
        return subprocess.run(
            ["bash", EXAMPLES / script, *args], cwd=tmp_path, env=env, capture_output=True,
            text=True, timeout=200, check=False,
        )  # fmt: skip

    return call


def names(folder):
    return sorted(path.name for path in folder.glob("*.png"))


def test_over_night(run, tmp_path):
    done = run("overnight.sh", "p.txt", "made", *SMALL, "--speedup", "2", "-q")
    assert done.returncode == 0, done.stderr
    assert len(names(tmp_path / "made")) == 3
    assert run("overnight.sh", "p.txt", "made", *SMALL, "--speedup", "0.1").returncode == 2


def test_over_night_is_ended_by_an_interrupt_and_goes_on_after_a_kill(run, tmp_path):
    command = tmp_path / "bin" / "spectrum"
    for code, left in ((130, 130), (143, 143), (1, 1), (137, 0)):
        ran = tmp_path / f"ran{code}"  # what it returns the first time; then 0
        command.write_text(f"#!/bin/sh\n[ -e {ran} ] && exit 0\ntouch {ran}\nexit {code}\n")
        assert run("overnight.sh", "p.txt", "made", PAUSE="0").returncode == left


@pytest.mark.parametrize("script", ["overnight.sh", "slurm.sh", "sweep.sh"])
def test_a_script_says_what_it_takes(run, script):
    done = run(script, "one")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert f"{script} PROMPT" in done.stderr


def test_a_sweep(run, tmp_path):
    done = run("sweep.sh", "a red circle", "made", "--steps", "9", *SMALL[2:], "-q")
    assert done.returncode == 0, done.stderr
    assert len(names(tmp_path / "made")) == 6


def test_an_array(run, tmp_path):
    for task in ("1", "2"):
        array = {"SLURM_ARRAY_TASK_ID": task, "SLURM_ARRAY_TASK_COUNT": "2"}
        done = run("slurm.sh", "p.txt", "made", *SMALL, "--speedup", "2", "-q", **array)
        assert done.returncode == 0, done.stderr
        assert len(names(tmp_path / "made")) == {"1": 2, "2": 3}[task]
