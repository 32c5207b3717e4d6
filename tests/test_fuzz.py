"""Job files and presets that nobody would write: told in a line what is wrong, or taken."""

import contextlib
import io
import json
import os
import re
import sys
import tempfile
from itertools import product
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spectrum.batch.jobs import Checker, told
from spectrum.batch.reading import Raw
from spectrum.batch.values import KEYS
from spectrum.errors import SpectrumError
from spectrum.pipeline.catalog import find_preset, preset_paths
from spectrum.pipeline.loading import Options
from spectrum_cli import batch as command
from spectrum_cli.main import run

FEW = settings(
    derandomize=True, database=None, deadline=None, max_examples=int(os.environ.get("FUZZ", "25")),
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
# What only a programmer knows; it may be told where the input says so.
INTERNAL = re.compile(r"Traceback|\b[A-Z][A-Za-z]*(Error|Exception)\b|object at 0x|<class|Errno")

LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.integers(-2, 130), st.floats(),
    st.text(max_size=12),
    st.sampled_from(["demo-image", "wan2.1-14b", "flux.1-dev", "1e999", "0x10", "..", "~",
                     "/dev/null", "published", "feature", "good", "heun", "a=1", "a/b:nan",
                     "image=x", "x" * 10_000]),
)  # fmt: skip
VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)
NAMES = st.sampled_from([*KEYS, "lora", "set", "neg", "--steps", "negative-prompt"]) | st.text(
    max_size=6
)
JOBS = st.dictionaries(NAMES, VALUES, max_size=5)
WITH_PROMPT = JOBS.map(lambda job: {"prompt": "a red circle", **job})
LINES = st.one_of(WITH_PROMPT.map(json.dumps), JOBS.map(json.dumps), st.text(max_size=30))
FILES = st.one_of(
    st.tuples(st.just(".jsonl"), st.lists(LINES, max_size=4).map("\n".join)),
    st.tuples(st.just(".yaml"), st.lists(WITH_PROMPT, max_size=3).map(yaml.safe_dump)),
    st.tuples(st.just(".yaml"), st.text(max_size=60)),
    st.tuples(st.just(".yaml"), st.text("-[]{}:,&*!|>'\"#%@` \njobs", max_size=40)),
    st.tuples(st.just(".csv"), st.text("prompt,seed;\"\t\n' x1", max_size=40)),
    st.tuples(st.just(".csv"), st.lists(LEAVES, min_size=2, max_size=2).map(
        lambda cells: f"prompt,steps,width\nx,{cells[0]},{cells[1]}\n")),
    st.tuples(st.just(".txt"), st.text(max_size=60)),
    st.tuples(st.just(""), st.text("{}[]jobs:-\n prompt,seed", max_size=40)),
)  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def nothing_is_made():
    """All is checked, and the folder opened; no model is loaded."""
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        patch.setattr(command._Task, "_made", lambda *_: (job for job in ()))
        patch.setattr(command._Task, "_answered", lambda *_: (job for job in ()))
        patch.chdir(folder)
        yield


def spectrum(*args):
    """Exit code and stderr."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["spectrum", *args])
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                code = run()
            except SystemExit as leave:
                code = leave.code
    assert out.getvalue() == ""
    return code, err.getvalue()


def holds(code, err, given):
    """A code of ours, and lines of ours: each says what is wrong, with no word of Python's."""
    assert code in (0, 2)
    assert bool(err) is (code == 2)
    for line in err.splitlines():
        assert line.startswith("spectrum: ")
        assert len(line) < 2000
        found = INTERNAL.search(line)
        assert not found or found[0] in given, line


ODD = [
    None, True, 0, -1, 1, 2, 3, 17, 64, 2**31, 2**63, -(2**70), -0.0, 0.5, 1e-320, 1e308, -1e308,
    float("inf"), float("nan"), "", "x", "x" * 10_000, "é" * 300, "a\0b", "..", "/dev/null", "~",
    "\ud800", "1e999", "0x10", "nan", "a=1", "a=[", "=", "a/b:nan", "a/b:1e999", "image=/dev/null",
    "guidance_scale=nan", "latents=1", [], [1], ["a/b"] * 5, {}, {"a": {"b": [1]}}, {1: 2}, b"x",
    "published", "output", "good", "heun", 1.0000001, 99_999, 100_000,
]  # fmt: skip


@pytest.mark.parametrize("model", ["demo-image", "wan2.2-t2v-a14b", "flux.1-kontext-dev"])
def test_any_value_of_any_key(model):
    checker = Checker({"model": model}, find_preset, lambda _: Options())
    refused = 0
    for key, value in product(KEYS, ODD):
        try:
            checker.jobs(Raw(1, {"prompt": "x", key: value}))
        except SpectrumError as error:
            text, refused = told(error), refused + 1
            assert not INTERNAL.search(text), (key, value)
            assert "\n" not in text
            assert len(text) < 700
    assert refused > 600


@FEW
@given(FILES)
def test_any_job_file(file):
    ending, text = file
    path = Path(f"jobs{ending}")
    path.write_text(text, encoding="utf-8", errors="replace", newline="")
    holds(*spectrum("batch", str(path), "-o", "out", "-q"), text)


@FEW
@given(st.binary(max_size=60), st.sampled_from([".jsonl", ".yaml", ".csv", ".txt", ""]))
def test_any_bytes(data, ending):
    Path(f"raw{ending}").write_bytes(data)
    holds(*spectrum("batch", f"raw{ending}", "-o", "out", "-q"), repr(data))


@FEW
@given(st.text(max_size=20), st.lists(st.text(max_size=20), max_size=2), st.text(max_size=20))
def test_any_options(seeds, sweeps, name):
    Path("p.txt").write_text("a red circle\n")
    swept = [f"--sweep={sweep}" for sweep in sweeps]
    words = [f"--seeds={seeds}", *swept, f"--name={name}"]
    holds(*spectrum("batch", "p.txt", "-o", "out", "-q", *words), str(words))


PRESETS = [yaml.safe_load(path.read_text()) for path in preset_paths().values()]


@st.composite
def presets(draw):
    """One of ours with some of its values replaced, left out, or moved."""
    preset = json.loads(json.dumps(draw(st.sampled_from(PRESETS))))
    for _ in range(draw(st.integers(1, 3))):
        where = preset
        while True:
            key = draw(st.sampled_from(sorted(where)) | st.text(max_size=5)) if where else "x"
            if isinstance(where.get(key), dict) and where[key] and draw(st.booleans()):
                where = where[key]
                continue
            break
        if draw(st.booleans()):
            where[key] = draw(VALUES)
        else:
            where.pop(key, None)
    return yaml.safe_dump(preset)


@FEW
@given(presets() | st.text(max_size=60))
def test_any_preset(text):
    Path("mine.yaml").write_text(text, encoding="utf-8", errors="replace")
    Path("one.txt").write_text("a red circle\n")
    holds(*spectrum("batch", "one.txt", "-o", "out", "-q", "-m", "./mine.yaml"), text)


@pytest.mark.parametrize("name", ["flux.1-dev", "wan2.1-14b"])
def test_a_preset_that_is_cut_anywhere(name):
    text = find_preset(name).path.read_bytes()
    Path("one.txt").write_text("a red circle\n")
    for end in range(0, len(text), 97):
        Path("cut.yaml").write_bytes(text[:end])
        holds(*spectrum("batch", "one.txt", "-o", "out", "-q", "-m", "./cut.yaml"), "")
