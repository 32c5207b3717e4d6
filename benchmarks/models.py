"""The small models that quality is measured on, all called alike: many prompts at once."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from spectrum.compare.metrics import PSNR_LIMIT
from spectrum.pipeline.catalog import find_preset
from spectrum.pipeline.loading import Options, choose_device, load_pipeline
from spectrum.pipeline.request import resolve
from spectrum.timeline import predicts_noise, unit_scale

HERE = Path(__file__).parent
UNSEEN_SEED = 7  # of the zoo's captions
AT_GUIDANCE = "@g"  # in the name of a model under another guidance than its own


@dataclass(frozen=True)
class Model:
    """A pipeline and its prompts; prompt k is sampled with seed k, `batch` of them at once."""

    name: str
    pipe: Any
    scheduler: Any  # the pipeline's own
    count: int  # of prompts
    batch: int
    arguments: Callable[[slice], dict[str, Any]]  # of the call, for these prompts
    pixels: Callable[[Any], Tensor]  # its output -> [B, F, H, W, 3] in 0..1

    @property
    def guidance(self) -> float:
        given = self.arguments(slice(0, 1))
        return float(given[_guidance_argument(given)])

    @property
    def predicts_noise(self) -> bool:
        return predicts_noise(type(self.scheduler).__name__, self.scheduler.config)

    @property
    def unit_scale(self) -> float:
        """S of 64 positions, as `spectrum gen` has it."""
        return unit_scale(self.predicts_noise)

    def sample(self, steps: int) -> Tensor:
        """All prompts -> [B, F, H, W, 3]"""
        made = []
        for start in range(0, self.count, self.batch):
            end = min(start + self.batch, self.count)
            output = self.pipe(
                **self.arguments(slice(start, end)),
                num_inference_steps=steps,
                generator=[torch.Generator().manual_seed(seed) for seed in range(start, end)],
                return_dict=False,
            )[0]
            made.append(self.pixels(output))
        return torch.cat(made)


def load_model(source: str, count: int, batch: int, guidance: float | None = None) -> Model:
    """By the name of an embedded preset, a folder of the zoo, or one of the embedded models trained
    on at another side, `demo-image-256`; under its own guidance or this."""
    folder = Path(source)
    if (folder / "zoo.json").is_file():
        model = _zoo(folder, count, batch)
    elif (folder / "model_index.json").is_file():
        name, _, side = folder.name.rpartition("-")
        model = _embedded(name, count, batch, folder, int(side))
    else:
        model = _embedded(source, count, batch)
    if guidance is None:
        return model

    def arguments(some: slice) -> dict[str, Any]:
        usual = model.arguments(some)
        return {**usual, _guidance_argument(usual): guidance}

    return replace(model, name=f"{model.name}{AT_GUIDANCE}{guidance:g}", arguments=arguments)


def zoo_folders(zoo: Path) -> list[str]:
    """The folders of its models, as far as they are trained."""
    return [str(file.parent) for file in sorted(zoo.glob("*/zoo.json"))]


def _guidance_argument(arguments: dict[str, Any]) -> str:
    return "true_cfg_scale" if "true_cfg_scale" in arguments else "guidance_scale"


def _embedded(
    name: str, count: int, batch: int, weights: Path | None = None, side: int | None = None
) -> Model:
    preset = find_preset(name)
    file = HERE / "prompts" / f"{preset.name}.txt"
    prompts = file.read_text(encoding="utf-8").splitlines()[:count]
    request = resolve(preset, prompts[0], width=side, height=side)
    pipe = load_pipeline(request, choose_device("cpu"), Options(weights=weights))
    usual = {**request.arguments(), "output_type": "np"}
    del usual["num_inference_steps"]

    def arguments(some: slice) -> dict[str, Any]:
        return {**usual, "prompt": prompts[some]}

    def pixels(output: Any) -> Tensor:
        made = torch.from_numpy(output).float()
        return made if made.ndim == 5 else made[:, None]

    called = weights.name if weights else preset.name
    return Model(called, pipe, pipe.scheduler, len(prompts), batch, arguments, pixels)


def _zoo(folder: Path, count: int, batch: int) -> Model:
    sys.path.append(str(HERE.parent / "training"))
    import train_zoo

    pipe, zoo = train_zoo.load(folder)
    captions = train_zoo.unseen(zoo, count, UNSEEN_SEED)

    def arguments(some: slice) -> dict[str, Any]:
        found: dict[str, Any] = train_zoo.arguments(zoo, captions[some])
        return found

    def pixels(output: Tensor) -> Tensor:
        made: Tensor = train_zoo.to_pixels(zoo, output)
        return made if made.ndim == 5 else made[:, None]

    return Model(folder.name, pipe, pipe.scheduler, count, batch, arguments, pixels)


def psnr(made: Tensor, plain: Tensor) -> list[float]:
    """dB of each prompt, the mean over its frames.  # [B, F, H, W, 3] both"""
    errors = (made.double() - plain.double()).square().mean(dim=(2, 3, 4))  # [B, F]
    decibels = -10 * errors.clamp_min(10 ** (-PSNR_LIMIT / 10)).log10()
    return [round(float(mean), 3) for mean in decibels.mean(dim=1)]
