"""What half precision leaves of the quality that `quality.py` measures in float32.

    python benchmarks/rounding.py --zoo build/zoo --dtype bfloat16

Large models run in bfloat16 or float16, where even the plain run is not the one in float32. PSNR as
in `quality.py`, of as many prompts, mean ± standard error: of a method in float32 against the plain
run in float32; of the method in half precision against the plain run in half precision; and of both
of these against the plain run in float32.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import diffusers
import torch
from contenders import OURS, PUBLISHED, Contender, contenders, run, sample_plainly
from models import Model, load_model, psnr, zoo_folders
from quality import EMBEDDED, conditions
from tables import header, row, spread

from spectrum.compare.rivals import FEWER_STEPS

RIVALS = (PUBLISHED, f"{PUBLISHED}:0.5", f"{PUBLISHED}-steps:feature-line", "even", FEWER_STEPS)
CELLS = ((1.0, 10), (1.0, 14), (8.0, 10), (8.0, 14))  # noise levels / this, computed steps of 50
STEPS = 50


def measured(model: Model, dtype: torch.dtype) -> Iterator[str]:
    """A row for each cell and method."""
    for match, count in CELLS:
        exact, half = {}, {}
        model.pipe.to(torch.float32)
        everyone = [c for c in contenders(model, STEPS, count, [], False, False) if shown(c)]
        plain = sample_plainly(model, match, STEPS)
        for contender in everyone:
            exact[contender.name] = run(model, contender, match, STEPS, count)[0]
        rounds = in_half(model, dtype)
        plain_half = sample_plainly(rounds, match, STEPS)
        rounded = spread(psnr(plain_half, plain))
        for contender in everyone:
            half[contender.name] = run(rounds, contender, match, STEPS, count)[0]
        for name in exact:
            pairs = [(exact[name], plain), (half[name], plain_half), (half[name], plain)]
            figures = [spread(psnr(*pair)) for pair in pairs]
            yield row([model.name, f"{count}, / {match:g}", f"`{name}`", *figures, rounded])


def in_half(model: Model, dtype: torch.dtype) -> Model:
    """The same pipeline, all of it in another precision, its texts as well."""
    model.pipe.to(dtype)

    def cast(value: Any, kind: torch.dtype) -> Any:
        return value.to(kind) if isinstance(value, torch.Tensor) else value

    def arguments(some: slice) -> dict[str, Any]:
        given = model.arguments(some)
        return {name: cast(value, dtype) for name, value in given.items()}

    return replace(
        model,
        arguments=arguments,
        pixels=lambda output: model.pixels(cast(output, torch.float32)),
    )


def shown(contender: Contender) -> bool:
    return contender.name in (OURS, *RIVALS)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", action="append", help="an embedded one, or a zoo folder")
    parser.add_argument("--zoo", type=Path, help="all models of this folder, besides --model")
    parser.add_argument("--dtype", choices=["bfloat16", "float16"], default="bfloat16")
    parser.add_argument("--prompts", type=int, default=16)
    options = parser.parse_args()
    torch.set_num_threads(1)
    diffusers.logging.set_verbosity_error()
    dtype = getattr(torch, options.dtype)
    titles = [
        "model", "computed, levels", "method", "float32", f"{options.dtype}",
        f"{options.dtype} against float32", f"plain {options.dtype} against float32",
    ]  # fmt: skip
    sources = options.model or ([] if options.zoo else EMBEDDED)
    for source in [*sources, *(zoo_folders(options.zoo) if options.zoo else [])]:
        model = load_model(source, options.prompts, options.prompts)
        print(f"\n{conditions(model)}\n", *header(titles), sep="\n", flush=True)
        for line in measured(model, dtype):
            print(line, flush=True)


if __name__ == "__main__":
    main()
