"""What a batch survives, tried on purpose: kills, interrupts, full disks, damaged files.

    python benchmarks/faults.py --kills 60 --output faults.json

Every run is the real command in a process of its own, forked from this one, which has imported
everything: a start takes tenths of a second, and a kill is a real SIGKILL. The jobs are small
pictures of demo-image, whose pixels are compared with those of a run that nobody disturbed. Small
and read-only disks are file systems in memory, mounted where only the processes of a scenario see
them; where that is not allowed, the table says so.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
from forked import Run, scenario, warm_up
from PIL import Image

from spectrum.pipeline.media import read_metadata

SMALL = ["--width", "32", "--height", "32", "--steps", "4", "--speedup", "2"]
JOBS = 40
HOSTILE = (
    "-rf /", "../../etc/passwd", "con", "a/b\\c:d", "tab\tline\u2028end", "\x1b[31m\x7f",
    "«quotes» \"'`$(rm)`", "*?<>|", "x" * 10_000, "क्षत्रिय" * 999, "日本語の絵" * 999,
    "👩‍👩‍👧 🎨" * 99, "e\u0301" * 400, "שלום العالم", "a\u202egnp.exe", ".hidden",
    "ends. ", "{index}",
)  # fmt: skip


# -- folders ---------------------------------------------------------------------------------------


def new(root: Path, name: str, prompts: int = JOBS) -> Path:
    """A folder with a file of prompts."""
    folder = root / name
    folder.mkdir()
    (folder / "p.txt").write_text("".join(f"a red circle {k}\n" for k in range(prompts)))
    return folder


def batch(*more: str) -> tuple[str, ...]:
    return ("batch", "p.txt", "-o", "out", "-q", *SMALL, *more)


def faults_of(out: Path, count: int, reference: dict[str, Any]) -> list[str]:
    """What is wrong with a folder that should hold each job once."""
    wrong, pictures = [], sorted(out.glob("*.png"))
    lines = [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()]
    done = [line for line in lines if line["status"] == "done"]
    if not len(pictures) == len(done) == len({line["id"] for line in done}) == count:
        wrong.append(f"{len(pictures)} files and {len(done)} lines of {count} jobs")
    if {line["file"] for line in done} != {path.name for path in pictures}:
        wrong.append("the manifest names other files than there are")
    for path in pictures:
        try:
            id, pixels = read_metadata(path)["job"]["id"], np.asarray(Image.open(path))
        except Exception as error:
            wrong.append(f"{path.name}: {error}")
            continue
        if reference and not np.array_equal(pixels, reference.get(id, 0)):
            wrong.append(f"{path.name}: other pixels than undisturbed")
    left = [*out.glob(".*.partial"), *(out / ".spectrum" / "claims").iterdir()]
    return wrong + [f"left over: {path.name}" for path in left]


def pixels_by_id(out: Path) -> dict[str, Any]:
    paths = out.glob("*.png")
    return {read_metadata(path)["job"]["id"]: np.asarray(Image.open(path)) for path in paths}


# -- kills and interrupts ------------------------------------------------------------------------


def stopped(
    root: Path, number: int, times: int, reference: dict[str, Any], processes: int = 1,
    more: tuple[str, ...] = (),
) -> dict[str, Any]:  # fmt: skip
    """Batches that are ended by a signal again and again until they are done. Every second one is
    ended while an output is being written or put in its place, the others at any moment."""
    chance, count, moments, wrong, batches = random.Random(number), 0, [], [], 0
    guided = 0  # told how to go on
    while count < times:
        folder, batches = (
            new(root, f"stopped-{number}-{processes}{''.join(more)}-{batches}"),
            batches + 1,
        )
        out, finished = folder / "out", False
        while not finished and count < times:
            runs = [Run(folder, *batch(*more)) for _ in range(processes)]
            began, at = time.monotonic(), chance.uniform(0, 1.0)
            while not any(run.poll() for run in runs):
                busy = count % 2 and any(out.glob(".*.partial")) and chance.random() < 0.2
                if busy or time.monotonic() - began > (at if count % 2 == 0 else 5):
                    break
                time.sleep(0.0005)
            code = runs[0].end(number)
            ended = code in (-number, 128 + number)
            count += ended
            moments += [time.monotonic() - began] * ended
            told = runs[0].err
            heard = number == signal.SIGINT and code == 128 + number  # and not before it began
            if heard and not told.startswith("spectrum: interrupted"):
                wrong.append(f"not told: {told[-200:]!r}")
            guided += "; to go on: spectrum batch" in told
            others = [run.wait().code for run in runs[1:]]
            finished = 0 in (code, *others)
            wrong += [f"exit code {code}"] * (code not in (0, -number, 128 + number))
        wrong += [run.err for run in [Run(folder, *batch()).wait()] if run.code]
        wrong += faults_of(out, JOBS, reference)
    spread = f"{min(moments):.2f} to {max(moments):.2f} s after the start"
    if number == signal.SIGINT:
        spread += f"; told how to go on in {guided}"
    return {"tried": count, "batches": batches, "jobs": batches * JOBS, "wrong": wrong,
            "note": spread}  # fmt: skip


# -- disks ---------------------------------------------------------------------------------------


def full(root: Path, reference: dict[str, Any]) -> dict[str, Any]:
    """A disk of 4 to 128 KB, which is then made larger: jobs and manifest need about 180."""
    sizes, wrong = (4, 8, 12, 16, 24, 32, 48, 64, 80, 96, 112, 128), []
    for size in sizes:
        folder = new(root, f"full{size}")
        (folder / "out").mkdir()

        def tried(disk: Any, folder: Path = folder, size: int = size) -> list[str]:
            disk.mount(folder / "out", f"size={size}k")
            found = [] if Run(folder, *batch()).told(1, "No space left on device") else ["not told"]
            disk.remount(folder / "out", "size=32m")
            run = Run(folder, *batch()).wait()
            return found + [run.err] * bool(run.code) + faults_of(folder / "out", JOBS, reference)

        found = scenario(tried)
        if found is None:
            return {"tried": 0, "wrong": [], "note": "no file system can be mounted here"}
        wrong += found
    return {"tried": len(sizes), "wrong": wrong, "note": "told, exit 1; enlarged, it went on"}


def read_only(root: Path, reference: dict[str, Any]) -> dict[str, Any]:
    """A folder on a disk that is read-only from the start, and one that becomes so."""
    folder = new(root, "readonly")
    (folder / "out").mkdir()

    def tried(disk: Any) -> list[str]:
        found = []
        disk.mount(folder / "out", "size=32m")
        for made in (False, True):
            disk.remount(folder / "out", "", read_only=True)
            if not Run(folder, *batch()).told(1, "Read-only file system"):
                found.append(f"not told, {made = }")
            disk.remount(folder / "out", "")
            Run(folder, *batch("--shard", "1/2")).wait()
        run = Run(folder, *batch()).wait()
        return found + [run.err] * bool(run.code) + faults_of(folder / "out", JOBS, reference)

    found = scenario(tried)
    if found is None:
        return {"tried": 0, "wrong": [], "note": "no file system can be mounted here"}
    return {"tried": 2, "wrong": found, "note": "told, exit 1; writable again, it went on"}


# -- damaged files -------------------------------------------------------------------------------


def damaged_manifests(root: Path, reference: dict[str, Any], times: int = 20) -> dict[str, Any]:
    """Cut at any byte, overwritten in part, gone; a picture cut or emptied."""
    chance, wrong = random.Random(3), []
    folder = new(root, "damaged", 6)
    out = folder / "out"
    Run(folder, *batch()).wait()
    for k in range(times):
        path = out / "manifest.jsonl"
        data = bytearray(path.read_bytes())
        if k % 4 == 0:
            path.unlink()
        elif k % 4 == 1:
            path.write_bytes(data[: chance.randrange(len(data))])
        elif k % 4 == 2:
            at = chance.randrange(len(data))
            data[at : at + 50] = chance.randbytes(50)
            path.write_bytes(data)
        else:
            picture = chance.choice(sorted(out.glob("*.png")))
            picture.write_bytes(picture.read_bytes()[: chance.choice([0, 100, 900])])
            # What is no whole output of ours is somebody's file, which stays: it is moved away.
        run = Run(folder, *batch()).wait()
        wrong += [run.err] * bool(run.code)
        for picture in list(out.glob("*.png")):
            if not _is_whole(picture):
                picture.unlink()
        ids = {read_metadata(picture)["job"]["id"] for picture in out.glob("*.png")}
        if len(ids) != len(list(out.glob("*.png"))) or len(ids) != 6:
            wrong.append(f"try {k}: {len(ids)} jobs in {len(list(out.glob('*.png')))} files of 6")
    return {"tried": times, "wrong": wrong, "note": "every job once, and whole, after each"}


def _is_whole(picture: Path) -> bool:
    try:
        np.asarray(Image.open(picture))
    except (OSError, SyntaxError):
        return False
    return True


def not_a_number(root: Path, reference: dict[str, Any]) -> dict[str, Any]:
    """The denoiser puts out NaN for one prompt of forty."""
    from spectrum.batch import run as module

    def poison() -> None:
        real = module.generate

        def generate(pipe: Any, request: Any, *more: Any) -> Any:
            if not request.prompt.endswith("circle 7"):
                return real(pipe, request, *more)
            nan = float("nan")
            hook = pipe.transformer.register_forward_hook(lambda *a: (a[-1][0] * nan, *a[-1][1:]))
            try:
                return real(pipe, request, *more)
            finally:
                hook.remove()

        module.generate = generate

    folder = new(root, "nan")
    run = Run(folder, *batch(), before=poison).wait()
    wrong = [] if run.told(1, "line 8: the model put out values") else [f"not told: {run.err}"]
    wrong += [] if len(list((folder / "out").glob("*.png"))) == JOBS - 1 else ["others were lost"]
    again = Run(folder, *batch("--retry-failed")).wait()
    wrong += [again.err] * bool(again.code) + faults_of(folder / "out", JOBS, reference)
    note = "the job failed and was told, 39 were made; --retry-failed made it"
    return {"tried": 1, "wrong": wrong, "note": note}


def corrupted_presets(root: Path, reference: dict[str, Any], times: int = 200) -> dict[str, Any]:
    """Bytes of a preset changed, cut, doubled. A line that is wrong anyhow keeps all from being
    made, so that the exit code is 2 also where the preset is still sound."""
    from spectrum.pipeline.catalog import find_preset

    chance, wrong, folder = random.Random(4), [], new(root, "presets", 1)
    text = Path(str(find_preset("flux.1-dev").path)).read_bytes()
    jobs = [{"prompt": "x", "model": "./bad.yaml"}, {"prompt": "x", "width": 33}]
    (folder / "jobs.jsonl").write_text("\n".join(map(json.dumps, jobs)))
    for k in range(times):
        data = bytearray(text)
        for _ in range(chance.choice([1, 1, 3, 20])):
            at = chance.randrange(len(data))
            data[at : at + chance.randrange(4)] = chance.randbytes(chance.randrange(4))
        data = data[: chance.randrange(len(data))] if k % 3 == 0 else data
        (folder / "bad.yaml").write_bytes(data)
        run = Run(folder, "batch", "jobs.jsonl", "-o", "out", "-q").wait()
        if not run.told(2, "line 2: demo-image takes a width") or "Error:" in run.err:
            wrong.append(f"try {k}: {run.code} {run.err[-300:]}")
    return {"tried": times, "wrong": wrong, "note": "exit 2 with its reason, or still sound"}


# -- input ---------------------------------------------------------------------------------------


def hostile(root: Path, reference: dict[str, Any]) -> dict[str, Any]:
    """Prompts in every script, of 10,000 letters, with all that names can't have."""
    folder = new(root, "hostile")
    (folder / "jobs.jsonl").write_text(
        "\n".join(json.dumps({"prompt": prompt}) for prompt in HOSTILE)
    )
    run = Run(folder, "batch", "jobs.jsonl", "-o", "out", "-q", *SMALL, "--name", "{prompt}").wait()
    wrong = [run.err] * bool(run.code) + faults_of(folder / "out", len(HOSTILE), {})
    longest = max(len(path.name.encode()) for path in (folder / "out").iterdir())
    return {"tried": len(HOSTILE), "wrong": wrong, "note": f"longest name {longest} bytes"}


def many_lines(root: Path, reference: dict[str, Any]) -> dict[str, Any]:
    """10,000 lines, the last of them wrong."""
    folder = new(root, "lines")
    lines = [{"prompt": f"a red circle {k}", "seed": k} for k in range(10_000)]
    (folder / "jobs.jsonl").write_text("\n".join(map(json.dumps, [*lines, {"width": 33}])))
    before, began = os.times(), time.perf_counter()
    told = Run(folder, "batch", "jobs.jsonl", "-o", "out").told(2, "line 10001")
    after = os.times()
    spent = after.children_user + after.children_system
    spent -= before.children_user + before.children_system
    note = f"{spent:.1f} s of processor time, {time.perf_counter() - began:.1f} s"
    return {"tried": 1, "wrong": [note] * (not told or spent > 5), "note": note}


# -- all -----------------------------------------------------------------------------------------


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--output", type=Path, help="JSON")
    options = parser.parse_args()
    warm_up()
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        Run(new(root, "reference"), *batch()).wait()
        known = pixels_by_id(root / "reference" / "out")
        assert len(known) == JOBS
        kills, kill, interrupt = options.kills, signal.SIGKILL, signal.SIGINT
        tried: dict[str, Callable[[], dict[str, Any]]] = {
            "kill -9": lambda: stopped(root, kill, kills, known),
            "kill -9, four jobs a call": lambda: stopped(
                root, kill, kills // 4, {}, more=("--batch-size", "4")
            ),
            "kill -9, another process beside": lambda: stopped(root, kill, kills // 4, known, 2),
            "Ctrl-C": lambda: stopped(root, interrupt, kills // 4, known),
            "disk full": lambda: full(root, known),
            "folder read-only": lambda: read_only(root, known),
            "manifest or picture damaged": lambda: damaged_manifests(root, known),
            "NaN in the model's output": lambda: not_a_number(root, known),
            "preset corrupted": lambda: corrupted_presets(root, known),
            "hostile prompts": lambda: hostile(root, known),
            "10,000 lines": lambda: many_lines(root, known),
        }
        print("| fault | tried | wrong | |\n|---|---|---|---|", flush=True)
        for what, function in tried.items():
            found = results[what] = function()
            print(
                f"| {what} | {found['tried']} | {len(found['wrong'])} | {found['note']} |",
                flush=True,
            )
            for one in found["wrong"][:5]:
                print(f"    {one}", file=sys.stderr)
    if options.output:
        document = {"date": date.today().isoformat(), "torch": torch.__version__, **results}
        options.output.write_text(json.dumps(document, indent=2) + "\n")
    sys.exit(any(found["wrong"] for found in results.values()))


if __name__ == "__main__":
    main()
