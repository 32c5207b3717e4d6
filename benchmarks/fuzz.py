"""Command lines and files as an enemy or a typist would make them, run in this process.

    python benchmarks/fuzz.py --count 2000 --seed 1

Options and files of every kind hold junk or nearly sound values; nothing is sampled, and models are
loaded from junk folders at most. A run is wrong that ends in a traceback, an internal exception's
name, a raw control character, an exit code other than 0, 1, 2 or 130, after too long, or that
leaves, replaces or removes a file. Prints a table of how all ended, and each wrong one.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import shlex
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import hypothesis
import typer
from fuzz_inputs import Input, inputs

from spectrum.errors import SpectrumError
from spectrum_cli.main import app, run

CODES = (0, 1, 2, 130)
LONGEST = 10  # seconds of processor time
RAW = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
INTERNAL = re.compile(r"\b(?!SpectrumError|UsageError)[A-Z]\w*(?:Error|Exception|Warning)\b: ")


@dataclass
class Outcome:
    """How one command line ended; `wrong` says what it must not have done."""

    input: Input
    code: object
    err: str
    seconds: float
    wrong: list[str]

    @property
    def kind(self) -> str:
        if self.wrong:
            return "wrong"
        if "stub: " in self.err:
            return f"would {self.err.partition('stub: ')[2].split()[0]}"
        return {0: "done", 1: "failed", 2: "refused", 130: "interrupted"}[int(str(self.code))]


class Hang(BaseException):
    """It took too long."""


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def commands() -> dict[str, list[Any]]:
    """Each command's parameters."""
    group: Any = typer.main.get_command(app)
    found = {name: command.params for name, command in group.commands.items()}
    found["models show"] = group.commands["models"].commands["show"].params
    return found


def attempt(one: Input, load: bool) -> Outcome:
    """Run it in a folder of its own. load: whether models may be loaded; nothing is sampled."""
    home = os.getcwd()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "work"
        folder.mkdir()
        one.write(folder)
        os.chdir(folder)
        before, began = _state(folder), time.process_time()
        try:
            code, out, err = _run(one, load)
        finally:
            os.chdir(home)
        seconds = time.process_time() - began
        own = {"out"} if one.args[0] == "batch" else set()  # a batch keeps its records
        wrong = _wrong(code, out, err) + _changed(before, _state(folder), own)
    return Outcome(one, code, err, seconds, wrong)


def _run(one: Input, load: bool) -> tuple[object, str, str]:
    out, err = _Terminal(), io.StringIO()
    stdin = io.TextIOWrapper(io.BytesIO(one.stdin), encoding="utf-8", errors="surrogateescape")
    with (
        _stubs(load), _alarm(), mock.patch.object(sys, "argv", ["spectrum", *one.args]),
        mock.patch.object(sys, "stdin", stdin), redirect_stdout(out), redirect_stderr(err),
    ):  # fmt: skip
        code: object
        try:
            code = run()
        except SystemExit as leave:
            code = leave.code or 0
        except Hang:
            code = "hang"
        except BaseException as error:
            code = f"raised {type(error).__name__}: {error}"
    return code, out.getvalue(), err.getvalue()


@contextmanager
def _stubs(load: bool) -> Iterator[None]:
    """In the place of what takes long."""

    def stop(what: str) -> Any:
        return mock.Mock(side_effect=SpectrumError(f"stub: {what}"))

    places = {
        "spectrum.pipeline.generate.generate": "sample",
        "spectrum.batch.run.generate": "sample",
        "spectrum.compare.running.generate": "sample",
        "spectrum.tune.bench.generate": "sample",
        "spectrum.pipeline.inspection.inspect_pipeline": "sample",
    }
    if not load:
        places["spectrum.pipeline.loading.load_pipeline"] = "load"
    with mock.patch("spectrum_cli.output.console", _console):
        patches = [mock.patch(place, stop(what)) for place, what in places.items()]
        for patch in patches:
            patch.start()
        try:
            yield
        finally:
            for patch in patches:
                patch.stop()


def _console() -> Any:
    from rich.console import Console

    return Console(stderr=True, highlight=False, soft_wrap=True)


@contextmanager
def _alarm() -> Iterator[None]:
    def ring(*_: object) -> None:
        raise Hang

    before = signal.signal(signal.SIGPROF, ring)
    signal.setitimer(signal.ITIMER_PROF, LONGEST)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def _wrong(code: object, out: str, err: str) -> list[str]:
    wrong = [f"exit code {code}"] if code not in CODES else []
    if "Traceback" in out + err:
        wrong.append("traceback")
    if "SPECTRUM_DEBUG" in err or INTERNAL.search(err):
        wrong.append("internal exception")
    if RAW.search(out + err):
        wrong.append("raw control character")
    if code in (1, 2) and not err.strip():
        wrong.append("no reason given")
    return wrong


def _state(folder: Path) -> dict[str, object]:
    """What is in a folder: contents of files, targets of links."""
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = os.readlink(path)
        else:
            found[name] = path.read_bytes() if path.is_file() else path.stat().st_ino
    return found


def _changed(before: dict[str, object], after: dict[str, object], own: set[str]) -> list[str]:
    names = {*before, *after}
    changed = [n for n in names if n.split("/")[0] not in own and before.get(n) != after.get(n)]
    kinds = {"left" if n not in before else "removed" if n not in after else "replaced"
             for n in changed}  # fmt: skip
    return [f"{kind} a file ({sorted(changed)[0]!r})" for kind in sorted(kinds)]


def fuzz(
    count: int, seed: int, load: bool = False, tell: Callable[[list[Outcome]], bool] | None = None
) -> list[Outcome]:
    """So many command lines, the same ones for the same seed. tell: of all so far, after each;
    whether to go on."""
    import spectrum.batch.run  # so that no command line is measured by its imports
    import spectrum.compare.comparison
    import spectrum.pipeline.inspection
    import spectrum.tune.search  # noqa: F401

    outcomes: list[Outcome] = []
    strategy = inputs(commands())
    round, seen = 0, set[str]()
    while len(outcomes) < count:
        for one in _some(strategy, 1000 * seed + round):
            if repr(one) not in seen and len(outcomes) < count:
                seen.add(repr(one))
                outcomes.append(attempt(one, load))
                if tell and not tell(outcomes):
                    return outcomes
        round += 1
    return outcomes


def _some(strategy: hypothesis.strategies.SearchStrategy[Input], seed: int) -> list[Input]:
    """A few: hypothesis soon varies what it has made, instead of making others."""
    found: list[Input] = []

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=10, deadline=None, database=None, phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )  # fmt: skip
    @hypothesis.given(strategy)
    def each(one: Input) -> None:
        found.append(one)

    each()
    return found


def table(outcomes: list[Outcome]) -> Iterator[str]:
    """How many of each command ended how."""
    kinds = sorted({outcome.kind for outcome in outcomes})
    counts = Counter((outcome.input.args[0], outcome.kind) for outcome in outcomes)
    yield "| command | " + " | ".join(kinds) + " |"
    yield "|---" * (len(kinds) + 1) + "|"
    for name in sorted({outcome.input.args[0] for outcome in outcomes}):
        yield f"| {name} | " + " | ".join(str(counts[name, kind]) for kind in kinds) + " |"
    totals = Counter(outcome.kind for outcome in outcomes)
    yield "| all | " + " | ".join(str(totals[kind]) for kind in kinds) + " |"


def tell(outcomes: list[Outcome]) -> None:
    """Of the last one if it was wrong, and how many there are, now and then."""
    last = outcomes[-1]
    if last.wrong:
        line = shlex.join(["spectrum", *last.input.args])
        print(f"{last.wrong}\n  {line[:300]!r}\n  {last.err[-300:]!r}", flush=True)
    if len(outcomes) % 100 == 0:
        print(f"{len(outcomes)} done", file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=60.0, help="end after so many")
    parser.add_argument("--load", action="store_true", help="load models from junk folders")
    parser.add_argument("--wrong", type=Path, help="write wrong ones as JSON Lines")
    options = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    began = time.perf_counter()

    def go_on(outcomes: list[Outcome]) -> bool:
        tell(outcomes)
        return time.perf_counter() - began < 60 * options.minutes

    outcomes = fuzz(options.count, options.seed, options.load, go_on)
    bad = [outcome for outcome in outcomes if outcome.wrong]
    print("\n".join(table(outcomes)))
    slow = sorted(outcome.seconds for outcome in outcomes)
    print(
        f"{len(outcomes)} command lines, {len(bad)} wrong, {time.perf_counter() - began:.0f} s;"
        f" the slowest took {slow[-1]:.1f} s of processor time"
    )
    if options.wrong:
        with options.wrong.open("w", encoding="utf-8") as file, suppress(OSError):
            for outcome in bad:
                record = {"args": outcome.input.args, "wrong": outcome.wrong, "err": outcome.err}
                file.write(json.dumps(record) + "\n")
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
