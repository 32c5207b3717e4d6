"""What people try at the prompt."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from test_cli import FLUX, files, refused

PLAN = ["gen", *FLUX[:2], "--steps", "12", "--speedup", "1.5", "--dry-run"]


def test_a_dry_run_says_what_would_be_made_and_makes_nothing(spectrum, tmp_path):
    code, out, err = spectrum(*PLAN, "--seed", "1,5", "a cat")
    assert (code, out.split()) == (0, ["flux.1-dev-a-cat-1.png", "flux.1-dev-a-cat-5.png"])
    assert err == "flux.1-dev would compute 8 steps of 12; nothing was loaded\n"
    assert spectrum(*PLAN, "-q", "--seed", 1, "a cat") == (0, "flux.1-dev-a-cat-1.png\n", "")
    code, out, _ = spectrum(*PLAN, "--seed", 1, "--size", "512x256", "--json", "a cat")
    told = json.loads(out)
    assert (told["width"], told["height"], told["seeds"], told["dry_run"]) == (512, 256, [1], True)
    assert len(told["computed_steps"]) == 8
    (tmp_path / "a.png").write_text("mine")
    refused(spectrum(*PLAN, "-o", "a.png", "x"), "exists already")
    assert files(tmp_path) == ["a.png"]


@pytest.mark.parametrize("size", ["832", "832x", "axb", "-1x5", ""])
def test_what_is_no_size(spectrum, size):
    refused(spectrum(*PLAN, f"--size={size}", "x"), "--size", "832x480")


def test_a_prompt_without_quotes(spectrum):
    refused(spectrum("gen", "a", "red", "circle"), "in quotes", 'spectrum gen "a red circle"')
    refused(spectrum("compare", "a", "red"), "in quotes", 'spectrum compare "a red circle"')
    assert "quotes" not in spectrum("plan", "a", "red")[2]


def test_an_option_without_its_value(spectrum):
    refused(spectrum("gen", "x", "--steps"), "requires", "`spectrum gen --help` lists")


def test_several_lines_are_one_prompt_and_that_is_said(spectrum, monkeypatch):
    for quiet in ([], ["-q"]):
        monkeypatch.setattr(sys, "stdin", io.StringIO("two\n\nlines \n"))
        code, out, err = spectrum(*PLAN, *quiet, "--seed", 1, "-")
        assert (code, out) == (0, "flux.1-dev-two-lines-1.png\n")
        assert ("2 lines are one prompt here; `spectrum batch -`" in err) is (quiet == [])


def test_errors_are_json_where_that_was_asked_for(spectrum):
    for args, code in (
        (["gen", "-m", "flux", "--json", "x"], 2),
        (["gen", "--json", "--stepz", "3", "x"], 2),
        (["gen", *FLUX, "--json", "x"], 1),
        (["plan", "--json", "--speedup", "999"], 2),
    ):
        got, out, err = spectrum(*args)
        told = json.loads(out)
        assert got == told["exit_code"] == code
        assert err.splitlines()[-1] == f"spectrum: {told['error']}"


def test_defaults_from_the_environment(spectrum, monkeypatch):
    monkeypatch.setenv("SPECTRUM_MODEL", "wan2.1-14b")
    monkeypatch.setenv("SPECTRUM_DTYPE", "float12")
    monkeypatch.setenv("SPECTRUM_METHOD", "hold")
    refused(spectrum("gen", "--dry-run", "x"), "float12")
    monkeypatch.setenv("SPECTRUM_DTYPE", "float32")
    assert spectrum("gen", "--dry-run", "--seed", 1, "x")[1] == "wan2.1-14b-x-1.mp4\n"
    assert spectrum(*PLAN, "--seed", 1, "x")[1] == "flux.1-dev-x-1.png\n"  # flags come first
    assert "SPECTRUM_MODEL" in spectrum("gen", "--help")[1]
    assert "SPECTRUM_MODEL" not in spectrum("rerun", "--help")[1]


@pytest.mark.parametrize("home", ["unset", "unreadable"])
def test_without_a_home(tmp_path, home):
    """In a container of a user whom nobody knows."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("XDG_")}
    env.pop("HOME", None)
    if home == "unreadable":  # root can read all, so it is no folder
        (tmp_path / ".config").write_text("no folder")
        env["HOME"] = str(tmp_path)
    code = (
        "import pwd, sys\n"
        "def unknown(*_): raise KeyError('getpwuid(): uid not found')\n"
        "pwd.getpwuid = pwd.getpwnam = unknown\n"
        "sys.argv = ['spectrum', *sys.argv[1:]]\n"
        "from spectrum_cli.__main__ import main\n"
        "main()\n"
    )
    for args in (["gen", "--dry-run", "--seed", "1", "a red circle"], ["models"], ["plan"]):
        done = subprocess.run(
            [sys.executable, "-c", code, *args], cwd=tmp_path, env=env, capture_output=True,
            text=True, timeout=120, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stderr.count("Traceback")) == (0, 0), done.stderr


def test_what_a_developer_prefers_reaches_no_test(tmp_path):
    """Nor a process that a test starts."""
    (tmp_path / "spectrum").mkdir()
    (tmp_path / "spectrum" / "config.yaml").write_text("model: demo-video\n")
    env = os.environ | {"XDG_CONFIG_HOME": str(tmp_path), "SPECTRUM_METHOD": "hold"}
    look = (
        "import sys; from types import SimpleNamespace\n"
        "sys.modules['torch'] = SimpleNamespace(set_num_threads=int)  # takes long to import\n"
        "import conftest, subprocess\n"
        "look = 'import os; from spectrum_cli.config import defaults;'\n"
        "look += 'print(defaults(), os.environ.get(\"SPECTRUM_METHOD\"))'\n"
        "subprocess.run([sys.executable, '-c', look], check=True)\n"
        "conftest.pytest_unconfigure()\n"
    )
    found = subprocess.check_output(
        [sys.executable, "-c", look], cwd=Path(__file__).parent, env=env, text=True
    )
    assert found == "{} None\n"


@pytest.fixture
def config(tmp_path, monkeypatch):
    folder = tmp_path / "own" / "spectrum"
    folder.mkdir(parents=True)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(folder.parent))
    return folder / "config.yaml"


def test_a_file_of_defaults(spectrum, config, monkeypatch):
    config.write_text("model: demo-video\nmethod: hold\n")
    assert spectrum("plan")[1].startswith("demo-video, 50 steps, method hold\n")
    assert spectrum("plan", "demo-image")[1].startswith("demo-image, 50 steps, method hold\n")
    assert spectrum("plan", "-m", "demo-image")[1].startswith("demo-image, ")
    monkeypatch.setenv("SPECTRUM_METHOD", "even")
    assert spectrum("plan")[1].startswith("demo-video, 50 steps, method even\n")
    assert spectrum("plan", "--method", "taylor1")[1].startswith("demo-video, 50 steps, method tay")
    monkeypatch.setenv("SPECTRUM_MODEL", "wan2.1-14b")
    assert spectrum("plan", "-m", "demo-image")[1].startswith("demo-image, ")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("modle: x", "no default 'modle'; did you mean 'model'?"),
        ("quiet: perhaps", "quiet is true or false, not 'perhaps'"),
        ("model: [a]", "model is a word, not ['a']"),
        ("- model", "not options with their values"),
        ("model: {", "not YAML"),
        ("method: hodl", "no method 'hodl'; did you mean 'hold'?"),
    ],
)
def test_a_wrong_file_of_defaults(spectrum, config, text, told):
    config.write_text(text)
    code, out, err = spectrum("plan")
    assert (code, out) == (2, "")
    assert told in err
    assert spectrum("models")[0] == 0


def test_compare_takes_all_methods_whatever_is_usual(spectrum, config):
    config.write_text("method: hold\n")
    assert "SPECTRUM_METHOD" not in spectrum("compare", "--help")[1]
    code, _, err = spectrum("compare", "--dtype", "float12", "x")
    assert code == 2
    assert "float12" in err
