"""Command lines and files as an enemy or a typist makes them: `benchmarks/fuzz.py` in small."""

import os
import sys
from pathlib import Path

import hypothesis
import pytest

sys.path.append(str(Path(__file__).parent.parent / "benchmarks"))

import fuzz
from fuzz_inputs import Input, inputs

pytestmark = pytest.mark.filterwarnings("ignore")  # silenced for users, and of libraries


@hypothesis.settings(
    max_examples=80, deadline=None, derandomize=True, database=None,
    suppress_health_check=list(hypothesis.HealthCheck),
)  # fmt: skip
@hypothesis.given(inputs(fuzz.commands()))
def test_no_command_line_ends_in_a_defect(one):
    assert fuzz.attempt(one, load=False).wrong == []


def test_the_fuzz_sees_defects(monkeypatch):
    """A test of the test: each kind of wrong end is called wrong."""

    def defect(*_):
        Path("left").touch()
        os.remove("x.png")
        raise KeyError("odd")

    monkeypatch.setattr("spectrum_cli.gen.seeds_from", defect)
    one = Input(["gen", "a red circle"], files={"x.png": b"mine"})
    wrong = fuzz.attempt(one, load=False).wrong
    assert wrong[0] == "internal exception"
    assert [text.split()[0] for text in wrong[1:]] == ["left", "removed"]
    monkeypatch.setattr("spectrum_cli.gen.seeds_from", lambda *_: sys.stderr.write("\x1b") / 0)
    assert "raw control character" in fuzz.attempt(one, load=False).wrong
    monkeypatch.setattr("spectrum_cli.gen.seeds_from", lambda *_: sys.exit(3))
    assert fuzz.attempt(one, load=False).wrong == ["exit code 3"]


def test_the_same_seed_makes_the_same_command_lines():
    first, second = ([outcome.input for outcome in fuzz.fuzz(5, seed=3)] for _ in range(2))
    assert first == second
    assert "| all |" in "\n".join(fuzz.table(fuzz.fuzz(2, seed=3)))
