"""What a batch costs over a loop that calls the pipeline, and what calls of `gen` cost instead.

    python benchmarks/batch_cost.py --jobs 32 --rounds 3

Prompts of demo-image at its preset's values. In each round the loop, `spectrum batch` and `spectrum
batch --batch-size K` take turns, in an order that changes, each in a process of its own that is
forked when all is imported: it loads the model, makes the pictures and writes them. The loop is
what one would write by hand: one SpectralCache, one call a prompt, `save` of the picture. `gen` is
started anew for each of a few prompts, imports and all, and taken times the number of jobs. Figures
are processor time and time by the clock; on a busy machine trust the first.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from itertools import cycle
from pathlib import Path
from statistics import median
from typing import Any, cast

from forked import Run, warm_up

WORDS = ("red circle", "blue ring", "green star", "pink heart", "white cross", "purple square")
PLACES = ("black", "dark green", "light yellow", "light gray", "dark blue", "white")


def prompts(count: int) -> list[str]:
    """Of the model's own language, no two alike."""
    pairs = [(a, b) for b in PLACES for a in WORDS]
    return [f"a {a} on a {b} background" for a, b in pairs][:count]


def timed(begin: Callable[[], int]) -> tuple[float, float]:
    """Processor and wall seconds of the process that this begins."""
    began = time.perf_counter()
    _, status, usage = os.wait4(begin(), 0)
    if status:
        raise SystemExit(f"a run ended with {os.waitstatus_to_exitcode(status)}")
    return usage.ru_utime + usage.ru_stime, time.perf_counter() - began


def loop(folder: Path, texts: Sequence[str]) -> int:
    """The process of a loop written by hand."""
    if pid := os.fork():
        return pid
    try:
        import torch

        from spectrum_cli.noise import silence

        silence(quiet=True)
        from spectrum import SpectralCache
        from spectrum.pipeline.catalog import find_preset
        from spectrum.pipeline.loading import load_pipeline
        from spectrum.pipeline.request import resolve

        folder.mkdir()
        request = resolve(find_preset("demo-image"), "x")
        pipe = load_pipeline(request, torch.device("cpu"))
        arguments = {k: v for k, v in request.arguments().items() if k != "prompt"}
        with SpectralCache(pipe, request.speedup):
            for k, text in enumerate(texts):
                generator = torch.Generator().manual_seed(0)
                picture = pipe(prompt=text, generator=generator, **arguments).images[0]
                picture.save(folder / f"{k:04d}.png")
        os._exit(0)
    except Exception:
        traceback.print_exc()
    finally:
        os._exit(1)


def gen(folder: Path, text: str) -> int:
    """The process of a call of `gen`, from nothing."""
    words = ["-m", "spectrum_cli", "gen", "--seed", "0", "-q", "-o", str(folder / "x.png"), text]
    return os.posix_spawn(sys.executable, [sys.executable, *words, "--force"], os.environ)


def preview_cost(times: int, every: int) -> tuple[float, int, float]:
    """Processor seconds of a preview, with its share of what is fitted before the first; how many
    a run has; and seconds of a run without."""
    import torch

    from spectrum.pipeline.catalog import find_preset
    from spectrum.pipeline.generate import generate
    from spectrum.pipeline.loading import load_pipeline
    from spectrum.pipeline.preview import Preview
    from spectrum.pipeline.request import resolve

    request = resolve(find_preset("demo-image"), prompts(1)[0])
    pipe = load_pipeline(request, torch.device("cpu"))
    found: dict[bool, list[float]] = {False: [], True: []}
    size = (request.width, request.height)
    with tempfile.TemporaryDirectory() as folder:
        for k in range(2 * times + 2):
            shown = bool(k % 2)
            began, seen = time.process_time(), cast(Any, nullcontext())
            if shown:
                seen = Preview(pipe, Path(folder) / "x.png", every, size, print)
            with seen as preview:
                generate(pipe, request, 0, *([preview.on_step, preview.observe] if shown else []))
            found[shown].append(time.process_time() - began)
    pairs = zip(found[False][1:], found[True][1:], strict=True)
    count = request.steps // every
    return median(b - a for a, b in pairs) / count, count, median(found[False][1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--jobs", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--gens", type=int, default=4)
    parser.add_argument("--batch-size", type=int, nargs="*", default=[2, 4, 8])
    parser.add_argument("--previews", type=int, default=8, help="runs, with and without")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    warm_up()
    texts = prompts(options.jobs)
    with tempfile.TemporaryDirectory() as name:
        root, found = Path(name), dict[str, list[tuple[float, float]]]()
        (root / "p.txt").write_text("\n".join(texts))

        def batch(folder: str, *more: str) -> int:
            words = ("batch", "p.txt", "-o", folder, "-q", "--device", "cpu", *more)
            return Run(root, *words).pid

        ways: dict[str, Callable[[str], int]] = {
            "loop": lambda folder: loop(root / folder, texts),
            "batch": batch,
        }
        for size in options.batch_size:
            ways[f"batch, {size} a call"] = lambda f, k=str(size): batch(f, "--batch-size", k)
        for number in range(options.rounds):
            for way in list(ways)[:: -1 if number % 2 else 1]:
                spent = timed(lambda way=way, number=number: ways[way](f"{way}{number}"))
                found.setdefault(way, []).append(spent)
        calls = [timed(lambda text=text: gen(root, text)) for text in texts[: options.gens]]
        count = options.jobs
        found[f"gen, {len(calls)} calls for {count}"] = [(a * count, b * count) for a, b in calls]
    print("| | processor s | over the loop | wall s | over the loop |\n|---|---|---|---|---|")
    for way, times in found.items():
        if not times:
            continue
        cells = []
        for kind in (0, 1):
            pairs = zip(times, cycle(found["loop"]))
            ratio = median(a[kind] / b[kind] for a, b in pairs) - 1
            cells += [f"{median(x[kind] for x in times):.1f}", f"{100 * ratio:+.1f} %"]
        print(f"| {way} | {' | '.join(cells)} |")
    if options.previews:
        each, count, run = preview_cost(options.previews, 5)
        print(f"preview: {each * 1000:.1f} ms each, {count} in a run of {run * 1000:.0f} ms")


if __name__ == "__main__":
    main()
