"""What others wrote reaches a terminal as text: nothing in it is obeyed."""

import re
from pathlib import Path

import pytest
from test_cli import refused
from test_foreign import DEMO

from spectrum.words import counted
from spectrum_cli import output

OBEYED = "\x1b]0;owned\x07\x9b31m\x85\u202e\x7f"
CONTROL = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def test_lines_of_data_and_words_hold_nothing_that_a_terminal_obeys(capsys):
    for write in (output.emit, output.say, output.error):
        write(f"a {OBEYED} b")
    output.emit("two\nlines")
    out, err = capsys.readouterr()
    assert out.endswith("two\nlines\n")
    assert "\\u001b]0;owned\\u0007" in out
    assert not CONTROL.search(out + err)


@pytest.mark.parametrize("terminal", [True, False])
def test_a_path_is_as_it_is_but_on_a_terminal(capsys, monkeypatch, terminal):
    monkeypatch.setattr("sys.stdout.isatty", lambda: terminal)
    output.emit_as_it_is("a\x1bb.png")
    assert capsys.readouterr().out == ("a\\u001bb.png\n" if terminal else "a\x1bb.png\n")


def test_of_one_it_is_told_in_the_singular(spectrum, tmp_path):
    assert (counted(1, "step"), counted(0, "step")) == ("1 step", "0 steps")
    assert counted(2000, "branch", "branches") == "2,000 branches"
    args = ["a red circle", "--steps", 1, "--dry-run"]
    assert "would compute 1 step of 1; nothing" in spectrum("gen", *args)[2]
    assert spectrum("plan", "--steps", 1)[1].startswith("demo-image, 1 step, method")
    refused(spectrum("gen", "a red circle", "--steps", 1, "--speedup", 2), "speedup for 1 step is")
    (tmp_path / "jobs.csv").write_text("prompt\na,b\n")
    refused(spectrum("batch", "jobs.csv", "-o", "out"), "line 2: 2 cells under 1 name;")


def test_names_of_foreign_presets_are_shown_and_not_obeyed(spectrum):
    Path("presets").mkdir()
    Path(f"presets/{OBEYED}.yaml").write_text(DEMO)
    Path("presets/x.yaml").write_text(DEMO.replace("steps: 50", f"steps: 50\n'{chr(0x202E)}a': 1"))
    for args in (
        ["models"],
        ["plan", "-m", OBEYED],
        ["plan", "-m", "x"],
        ["gen", OBEYED, "-s", "0"],
    ):
        _, out, err = spectrum(*args)
        assert out + err
        assert not CONTROL.search(out + err)
