"""Regenerate the README's pictures of the embedded models.

    python docs/make.py

Each prompt once with every step computed and once at the preset's speedup, with the same seed.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

from spectrum.pipeline.catalog import find_preset
from spectrum.pipeline.generate import generate
from spectrum.pipeline.loading import load_pipeline
from spectrum.pipeline.media import Frames
from spectrum.pipeline.request import resolve

IMAGES = [
    "a large red circle on a white background",
    "a large blue square on a light yellow background",
    "a yellow star on a dark blue background",
    "a green ring above a large pink heart on a black background",
    "a red circle left of a blue square on a light gray background",
    "a white cross below an orange triangle on a dark purple background",
]
VIDEOS = [
    "a large purple ring moves up on a black background",
    "a large orange circle bounces on a dark green background",
    "a green square grows on a white background",
]
SEED = 1
CAPTION = 34  # px


def pairs(model: str, prompts: list[str]) -> list[tuple[str, Frames, Frames]]:
    """Prompt, frames of the plain run, frames at the default speedup."""
    preset = find_preset(model)
    pipe = load_pipeline(resolve(preset, preset.example), torch.device("cpu"))
    return [
        (
            prompt,
            generate(pipe, resolve(preset, prompt, speedup=1), SEED).frames,
            generate(pipe, resolve(preset, prompt), SEED).frames,
        )
        for prompt in prompts
    ]


def sheet(cells: list[tuple[str, np.ndarray, np.ndarray]], scale: int, columns: int) -> Image.Image:
    """Pairs side by side, each above its prompt.  # pictures [H, W, 3]"""
    side = cells[0][1].shape[0] * scale
    width, height = 2 * side + 12, side + CAPTION
    rows = -(-len(cells) // columns)
    page = Image.new("RGB", (columns * width, rows * height), "white")
    draw = ImageDraw.Draw(page)
    for number, (prompt, plain, fast) in enumerate(cells):
        x, y = number % columns * width, number // columns * height
        for k, picture in enumerate((plain, fast)):
            image = Image.fromarray(picture).resize((side, side), Image.Resampling.LANCZOS)
            page.paste(image, (x + 4 + k * (side + 4), y))
        draw.multiline_text((x + 4, y + side + 4), wrap(prompt, 2 * side // 6), fill="black")
    return page


def wrap(text: str, width: int) -> str:
    words, lines = text.split(), [""]
    for word in words:
        if len(lines[-1]) + len(word) >= width:
            lines.append("")
        lines[-1] += f"{word} "
    return "\n".join(lines)


def main() -> None:
    here = Path(__file__).parent
    images = [(p, plain[0], fast[0]) for p, plain, fast in pairs("demo-image", IMAGES)]
    sheet(images, scale=1, columns=3).save(here / "demo-image.png", optimize=True)
    videos = pairs("demo-video", VIDEOS)
    pages = [
        sheet([(p, plain[f], fast[f]) for p, plain, fast in videos], scale=2, columns=3)
        for f in range(len(videos[0][1]))
    ]
    pages[0].save(
        here / "demo-video.gif", save_all=True, append_images=pages[1:], duration=125, loop=0
    )


if __name__ == "__main__":
    main()
