"""Quality against computed steps: every method, and step reduction, against the plain run.

    python benchmarks/quality.py --model demo-image --speedups 3.5 4.5 --prompts 16

For each prompt and seed the plain run of all steps is the reference. PSNR is computed in float
on the decoded pictures in [0, 1], over all pixels (and frames) of a picture, then averaged over
prompts; ± is the standard error of that mean. "vs steps" is the mean difference to step reduction
(the same solver with as many steps as were computed), prompt by prompt, with its standard error.
"""

from __future__ import annotations

import argparse
import math
import platform
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from spectrum import SpectralCache
from spectrum.loading import Options, choose_device, load_pipeline
from spectrum.methods import METHODS, get_method
from spectrum.preset import find_preset
from spectrum.request import Request, resolve

Pictures = NDArray[np.float64]  # [prompts, ...], in [0, 1]


def sample(pipe: Any, request: Request, prompts: list[str], batch: int) -> Pictures:
    """All prompts, prompt k with seed k."""
    made = []
    for start in range(0, len(prompts), batch):
        part = prompts[start : start + batch]
        arguments = {**request.arguments(), "prompt": part}
        if request.negative_prompt is not None:
            arguments["negative_prompt"] = [request.negative_prompt] * len(part)
        seeds = range(start, start + len(part))
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        output = pipe(**arguments, generator=generators, output_type="np", return_dict=False)[0]
        made.append(np.asarray(output, np.float64))
    return np.concatenate(made)


def psnr(pictures: Pictures, reference: Pictures) -> NDArray[np.float64]:
    """Decibels, one a prompt.  # [prompts]"""
    error = ((pictures - reference) ** 2).reshape(len(pictures), -1).mean(axis=1)
    decibels: NDArray[np.float64] = -10 * np.log10(np.maximum(error, 1e-12))
    return decibels


def mean(values: NDArray[np.float64]) -> str:
    return f"{values.mean():.2f} ± {values.std(ddof=1) / math.sqrt(len(values)):.2f}"


def compare(
    pipe: Any, request: Request, prompts: list[str], speedups: list[float], batch: int
) -> list[str]:
    """Rows of a Markdown table."""
    plain = sample(pipe, request, prompts, batch)
    methods = {**METHODS, "published, blend 0.5": get_method("published", blend=0.5)}
    rows = ["| computed | method | PSNR, dB | vs steps, dB | speedup |", "|---|---|---|---|---|"]
    for speedup in speedups:
        budget = math.floor(request.steps / speedup + 1e-9)
        fewer = resolve(
            request.preset, request.prompt, steps=budget, guidance=request.guidance, speedup=1
        )
        reduced = psnr(sample(pipe, fewer, prompts, batch), plain)
        ideal = request.steps / budget
        rows.append(f"| {budget} | step reduction | {mean(reduced)} | | {ideal:.2f} |")
        for name, method in methods.items():
            with SpectralCache(pipe, speedup, method=method) as cache:
                quality = psnr(sample(pipe, request, prompts, batch), plain)
            computed = len(cache.report.computed_steps)
            speed = np.mean([report.measured_speedup or 1 for report in cache.reports])
            gain = mean(quality - reduced)
            rows.append(f"| {computed} | {name} | {mean(quality)} | {gain} | {speed:.2f} |")
            print(rows[-1], flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="demo-image")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--speedups", type=float, nargs="+", default=[50 / 14, 5.0])
    parser.add_argument("--prompts", type=int, default=16, help="how many of the file's prompts")
    parser.add_argument("--file", type=Path, help="one prompt a line")
    parser.add_argument("--batch", type=int, default=8)
    options = parser.parse_args()
    preset = find_preset(options.model)
    file = options.file or Path(__file__).parent / "prompts" / f"{preset.name}.txt"
    prompts = file.read_text(encoding="utf-8").splitlines()[: options.prompts]
    request = resolve(preset, prompts[0], steps=options.steps, speedup=1)
    device = choose_device(options.device)
    pipe = load_pipeline(request, device, Options(weights=options.weights))
    print(
        f"{preset.name}, {options.steps} steps, guidance {request.guidance:g}, {len(prompts)}"
        f" prompts; torch {torch.__version__}, {torch.get_num_threads()} threads,"
        f" {platform.machine()}"
    )
    print("\n".join(compare(pipe, request, prompts, options.speedups, options.batch)))


if __name__ == "__main__":
    main()
