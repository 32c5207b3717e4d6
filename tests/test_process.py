"""What only a process of its own can show: start-up, interrupts, pipes, terminals."""

import os
import pty
import re
import resource
import shlex
import signal
import subprocess
import sys
import time

import pytest
from commands import heed_signals
from tiny import tiny_flux

from spectrum.pipeline.media import read_metadata

SPECTRUM = [sys.executable, "-m", "spectrum_cli"]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights") / "flux"
    tiny_flux().save_pretrained(folder)
    return folder


def gen(weights, *more):
    return [
        *SPECTRUM, "gen", "-m", "flux.1-dev", "--weights", str(weights),
        "--width", "32", "--height", "32", *more, "a cat",
    ]  # fmt: skip


def start(command, cwd, **kwargs):
    env = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "80"}
    return subprocess.Popen(command, cwd=cwd, env=env, text=True, preexec_fn=heed_signals, **kwargs)


def test_help_imports_nothing_heavy():
    heavy = {"torch", "diffusers", "transformers", "numpy", "pydantic", "PIL", "huggingface_hub"}
    code = "import sys, spectrum_cli.main; print(*sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert not heavy & set(result.stdout.split())


def test_help_answers_in_half_a_second_and_plan_in_one():
    for args, limit in ((["--help"], 0.5), (["plan", "-m", "wan2.1-14b"], 1.0)):
        took = []
        for _ in range(3):  # processor time: the machine may be busy with something else
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run([*SPECTRUM, *args], capture_output=True, check=True)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            took.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        assert min(took) < limit


STOPPED = {
    signal.SIGHUP: (129, "hung up"), signal.SIGINT: (130, "interrupted"),
    signal.SIGTERM: (143, "terminated"),
}  # fmt: skip


@pytest.mark.parametrize("number", STOPPED)
def test_a_signal_leaves_nothing(weights, tmp_path, number):
    process = start(
        gen(weights, "--steps", "900", "--speedup", "1.5"), tmp_path,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    for line in process.stderr:
        if line.startswith("denoise"):
            break
    time.sleep(0.3)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    code, word = STOPPED[number]
    assert process.returncode == code
    assert out == ""
    assert err.splitlines()[-1] == f"spectrum: {word}; no unfinished file is left"
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("wait", [0.15, 0.5, 1.5])
def test_a_signal_during_the_imports_is_one_line_at_most(weights, tmp_path, wait):
    process = start(gen(weights), tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    time.sleep(wait)
    for _ in range(2):  # pressed twice
        process.send_signal(signal.SIGINT)
        time.sleep(0.02)
    _, err = process.communicate(timeout=60)
    if process.returncode == 1 and wait < 0.3:
        assert "frozen importlib" in err  # Python itself was not up yet
    else:
        assert process.returncode in (130, -signal.SIGINT)
        assert "Traceback" not in err or wait < 0.3
    assert list(tmp_path.iterdir()) == []


def test_a_signal_that_a_destructor_swallows_comes_again(tmp_path):
    """Python prints and forgets what is raised in one."""
    script = """
import os, signal, sys, time
from spectrum_cli import signals
class Swallows:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.05)
signals.install()
try:
    Swallows()
    time.sleep(20)
except KeyboardInterrupt as leave:
    sys.exit(leave.code)
"""
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=30)
    assert done.returncode == 143
    assert time.monotonic() - began < 15


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&-"])
def test_closed_streams_lose_no_picture(weights, tmp_path, closed):
    command = shlex.join([*gen(weights, "--steps", "6", "-o", "a.png")])
    done = subprocess.run(
        f"{command} {closed}", shell=True, cwd=tmp_path, capture_output=True, timeout=120,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0
    assert read_metadata(tmp_path / "a.png")["prompt"] == "a cat"


def test_a_closed_pipe_is_no_traceback(tmp_path):
    process = start(
        [*SPECTRUM, "plan", "--steps", "5000"], tmp_path,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    process.stdout.close()
    err = process.stderr.read()
    process.stderr.close()
    assert process.wait(timeout=60) == 1
    assert err == ""


def on_a_terminal(command, cwd, env):
    """Run on a pseudo-terminal; everything that it would show, control characters included."""
    main, side = pty.openpty()
    process = subprocess.Popen(command, cwd=cwd, env=env, stdout=side, stderr=side, stdin=side)
    os.close(side)
    shown = b""
    try:
        while chunk := os.read(main, 65536):
            shown += chunk
    except OSError:  # how Linux says that the other side has closed
        pass
    os.close(main)
    assert process.wait(timeout=60) == 0
    return shown.decode()


@pytest.mark.parametrize("no_color", [False, True])
def test_on_a_terminal_every_step_is_a_mark(weights, tmp_path, no_color):
    env = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "80", "TERM": "xterm-256color"}
    env.pop("NO_COLOR", None)
    if no_color:
        env["NO_COLOR"] = "1"
    command = gen(weights, "--steps", "20", "--speedup", "2", "--seed", "1", "-o", "a.png")
    shown = on_a_terminal(command, tmp_path, env)
    assert "\x1b[" in shown  # redrawn in place
    assert ("\x1b[1;36m●" in shown) is not no_color
    if no_color:
        shown = re.sub(r"\x1b\[[0-9;]*m", "", shown)
        computed = read_metadata(tmp_path / "a.png")["computed_steps"]
        assert "".join("●" if step in computed else "○" for step in range(20)) in shown
        assert "10 computed  10 forecast" in shown
    assert "saved" in shown
    assert (tmp_path / "a.png").exists()


def test_shell_completion_knows_the_models(tmp_path):
    env = {
        **os.environ, "_SPECTRUM_COMPLETE": "complete_bash",
        "COMP_WORDS": "spectrum gen --model demo", "COMP_CWORD": "3",
    }  # fmt: skip
    result = subprocess.run(SPECTRUM, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert result.stdout.split() == ["demo-image", "demo-video"]
