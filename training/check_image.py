"""How often do the demo-image model's pictures show what the caption says?

    python training/check_image.py spectrum/models/demo-image --count 64

Samples captions that training never saw and reads the pictures back with plain image processing.
`--truth` first tries the reader itself on drawn pictures and on the autoencoder's reconstructions.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from dataclasses import dataclass
from functools import cache
from itertools import permutations
from pathlib import Path

import numpy as np
import torch
from diffusers import FluxPipeline
from PIL import Image
from scenes import (
    BACKGROUNDS,
    COLORS,
    MAX_TOKENS,
    SHAPES,
    SIDE,
    Scene,
    caption,
    draw,
    held_out,
    sample_scene,
    unit_distance,
)

GRID = 32  # cells each way that shapes are compared on
LARGE = 23.0  # px, radius between small and large
SMALLEST = 60  # px of area, below this it is no object
CRUMB = 20  # px of area, below this it is no part of one


@dataclass(frozen=True)
class Found:
    """One object read from a picture; centre and radius in px."""

    shape: str
    color: str
    x: float
    y: float
    radius: float
    overlap: float  # with the shape's ideal outline: area in both over area in either


# ---- reading a picture ----


def predicted_background(picture: np.ndarray) -> np.ndarray:
    """A quadratic in x and y fitted to the picture's border. [H, W, 3] -> [H, W, 3]"""
    height, width, _ = picture.shape
    y, x = np.mgrid[0:height, 0:width] / max(height, width) - 0.5
    terms = np.stack([np.ones_like(x), x, y, x * x, y * y, x * y], -1)  # [H, W, 6]
    border = np.ones((height, width), bool)
    border[2:-2, 2:-2] = False
    fit = np.linalg.lstsq(terms[border], picture[border], rcond=None)[0]
    return np.clip(terms @ fit, 0, 255)


def foreground(picture: np.ndarray) -> np.ndarray:
    """Pixels that are neither background nor its shadow, a darker tone of it. -> bool [H, W]"""
    behind = predicted_background(picture)
    tone = (picture * behind).sum(-1) / np.maximum((behind * behind).sum(-1), 1)
    tone = np.clip(tone, 0.5, 1.15)[..., None]
    return np.linalg.norm(picture - tone * behind, axis=-1) > 45


def grow(mask: np.ndarray, by: int) -> np.ndarray:
    """The mask widened by a square of this radius, or narrowed if negative."""
    if by < 0:
        return ~grow(~mask, -by)
    padded = np.pad(mask, by)
    window = np.lib.stride_tricks.sliding_window_view(padded, (2 * by + 1, 2 * by + 1))
    return window.any((-1, -2))


def close(mask: np.ndarray, by: int) -> np.ndarray:
    """The mask without gaps narrower than twice this radius."""
    return grow(grow(np.pad(mask, 2 * by), by), -by)[2 * by : -2 * by, 2 * by : -2 * by]


def components(mask: np.ndarray, smallest: int) -> list[np.ndarray]:
    """Connected parts of a mask, large ones only: labels spread until they rest."""
    labels = np.where(mask, np.arange(1, mask.size + 1).reshape(mask.shape), 0)
    while True:
        padded = np.pad(labels, 1)
        window = np.lib.stride_tricks.sliding_window_view(padded, (3, 3))
        spread = np.where(mask, window.max((-1, -2)), 0)
        if (spread == labels).all():
            break
        labels = spread
    names, sizes = np.unique(labels[mask], return_counts=True)
    return [labels == name for name, size in zip(names, sizes, strict=True) if size >= smallest]


def normalized(mask: np.ndarray) -> np.ndarray:
    """The mask's bounding square on a fixed grid. bool [H, W] -> bool [GRID, GRID]"""
    ys, xs = np.nonzero(mask)
    side = max(np.ptp(ys), np.ptp(xs)) + 1
    offset = (np.arange(GRID) + 0.5) / GRID * side - side / 2
    y = np.clip(np.round((ys.min() + ys.max()) / 2 + offset), 0, len(mask) - 1).astype(int)
    x = np.clip(np.round((xs.min() + xs.max()) / 2 + offset), 0, mask.shape[1] - 1).astype(int)
    return mask[np.ix_(y, x)]


@cache
def templates() -> list[tuple[str, np.ndarray]]:
    """Every shape at several slight rotations, on the fixed grid."""
    y, x = np.mgrid[-1.2:1.2:96j, -1.2:1.2:96j]
    drawn = []
    for shape in SHAPES:
        for angle in np.linspace(-0.3, 0.3, 9):
            u, v = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
            drawn.append((shape, normalized(unit_distance(shape, u, v) < 0)))
    return drawn


def read_color(picture: np.ndarray, mask: np.ndarray) -> str:
    """The palette entry that is nearest to most of the pixels, edges left out."""
    inner = grow(mask, -1)
    pixels = picture[inner if inner.any() else mask]  # [n, 3]
    difference = pixels[:, None] - np.array(list(COLORS.values()), float)
    votes = np.bincount(np.linalg.norm(difference, axis=-1).argmin(1), minlength=len(COLORS))
    return list(COLORS)[votes.argmax()]


def read_object(color: str, mask: np.ndarray) -> Found:
    """The shape is that of the template with the largest overlap."""
    grid = normalized(mask)
    overlaps = [(grid & t).sum() / (grid | t).sum() for _, t in templates()]
    shape = templates()[int(np.argmax(overlaps))][0]
    ys, xs = np.nonzero(mask)
    extent = 0.8 if shape == "square" else 0.94  # of the drawn shape's radius
    radius = (max(np.ptp(ys), np.ptp(xs)) + 1) / 2 / extent
    return Found(shape, color, xs.mean(), ys.mean(), radius, float(np.max(overlaps)))


def read_objects(picture: np.ndarray) -> list[Found]:
    """All objects. Near parts of one colour belong together: a stripe can look like shadow."""
    by_color: dict[str, np.ndarray] = {}
    for part in components(close(foreground(picture), 1), CRUMB):
        color = read_color(picture, part)
        by_color[color] = by_color.get(color, np.zeros_like(part)) | part
    objects = []
    for color, mask in by_color.items():
        for region in components(grow(mask, 3), SMALLEST):
            part = mask & region
            whole = len(components(part, CRUMB)) == 1
            if part.sum() >= SMALLEST:
                objects.append(read_object(color, part if whole else close(part, 3)))
    return objects


def read_background(picture: np.ndarray) -> str:
    """The background's name, by the border's median."""
    border = np.concatenate([picture[:2].reshape(-1, 3), picture[-2:].reshape(-1, 3)])
    shade = np.median(border, 0)
    palette = np.array(list(BACKGROUNDS.values()), float)
    tone = np.clip(palette @ shade / (palette * palette).sum(-1), 0.9, 1.1)  # gradients change it
    difference = np.linalg.norm(shade - tone[:, None] * palette, axis=-1)
    return list(BACKGROUNDS)[difference.argmin()]


# ---- comparing with the caption ----


def related(relation: str, first: Found, second: Found) -> bool:
    """Whether the first object stands in this relation to the second."""
    dx, dy = second.x - first.x, second.y - first.y
    along, across = {
        "above": (dy, dx),
        "below": (-dy, dx),
        "left of": (dx, dy),
        "right of": (-dx, dy),
    }[relation]
    return along > abs(across)


def assign(scene: Scene, objects: list[Found]) -> list[Found | None]:
    """The found object for each thing: those with the same colour, then shape, first."""
    padded = [*objects[:6], *[None] * len(scene.things)]

    def agreement(order: tuple[Found | None, ...]) -> int:
        pairs = zip(scene.things, order, strict=True)
        return sum(2 * (o.color == t.color) + (o.shape == t.shape) + 1 for t, o in pairs if o)

    return list(max(permutations(padded, len(scene.things)), key=agreement))


def judge(scene: Scene, picture: np.ndarray) -> dict[str, list[bool]]:
    """What is right, by attribute; several entries where several things have the attribute."""
    objects = read_objects(picture.astype(float))
    matched = assign(scene, objects)
    right: dict[str, list[bool]] = defaultdict(list)
    right["count"].append(len(objects) == len(scene.things))
    for thing, found in zip(scene.things, matched, strict=True):
        right["color"].append(found is not None and found.color == thing.color)
        right["shape"].append(found is not None and found.shape == thing.shape)
        if thing.size:
            big = found is not None and found.radius > LARGE
            right["size"].append(found is not None and big == (thing.size == "large"))
    complete = [found for found in matched if found is not None]
    everyone = len(complete) == len(matched)
    if scene.relation:
        right["position"].append(everyone and related(scene.relation, *complete))
    if scene.background:
        right["background"].append(read_background(picture.astype(float)) == scene.background)
    return right


def summary(scenes: list[Scene], pictures: list[np.ndarray]) -> dict[str, float]:
    """Rate of each attribute, and of pictures that are right in everything; how well outlines match
    those of ideal shapes, 1 at best."""
    right: dict[str, list[bool]] = defaultdict(list)
    for scene, picture in zip(scenes, pictures, strict=True):
        verdict = judge(scene, picture)
        for name, values in verdict.items():
            right[name] += values
        right["all"].append(all(all(values) for values in verdict.values()))
    rates = {name: float(np.mean(values)) for name, values in right.items()}
    objects = [found for picture in pictures for found in read_objects(picture.astype(float))]
    return {**rates, "outline": float(np.mean([found.overlap for found in objects]))}


# ---- pictures ----


def unseen_scenes(count: int, seed: int) -> list[Scene]:
    """Random scenes from the part that is kept from training."""
    rng = np.random.default_rng(seed)
    scenes: list[Scene] = []
    while len(scenes) < count:
        scene = sample_scene(rng)
        if held_out(scene):
            scenes.append(scene)
    return scenes


def sample(
    pipe: FluxPipeline, scenes: list[Scene], steps: int, guidance: float, seed: int, batch: int = 16
) -> list[np.ndarray]:
    """Plain samples, several at once. -> uint8 [128, 128, 3] each"""
    generator = torch.Generator().manual_seed(seed)
    pictures: list[np.ndarray] = []
    for start in range(0, len(scenes), batch):
        texts = [caption(scene) for scene in scenes[start : start + batch]]
        output = pipe(
            texts,
            negative_prompt=[""] * len(texts),
            true_cfg_scale=guidance,
            num_inference_steps=steps,
            height=SIDE,
            width=SIDE,
            max_sequence_length=MAX_TOKENS,
            generator=generator,
        )
        pictures += [np.asarray(image) for image in output.images]
        print(f"{len(pictures)} of {len(scenes)}", file=sys.stderr, flush=True)
    return pictures


@torch.no_grad()
def reconstruct(pipe: FluxPipeline, pictures: list[np.ndarray]) -> list[np.ndarray]:
    """Through the autoencoder and back."""
    outputs: list[np.ndarray] = []
    for start in range(0, len(pictures), 16):
        pixels = pipe.image_processor.preprocess(
            [Image.fromarray(picture) for picture in pictures[start : start + 16]]
        )
        decoded = pipe.vae.decode(pipe.vae.encode(pixels).latent_dist.mean).sample
        outputs += [np.asarray(image) for image in pipe.image_processor.postprocess(decoded)]
    return outputs


def psnr(pictures: list[np.ndarray], others: list[np.ndarray]) -> float:
    """Mean peak signal-to-noise ratio, in dB."""
    errors = np.subtract(np.stack(pictures), np.stack(others), dtype=float) ** 2
    return float((10 * np.log10(255**2 / errors.mean((1, 2, 3)))).mean())


def sheet(pictures: list[np.ndarray], path: Path) -> None:
    """Write the pictures side by side, eight a row."""
    blank = [np.zeros_like(pictures[0])] * (-len(pictures) % 8)
    rows = np.stack([*pictures, *blank]).reshape(-1, 8, SIDE, SIDE, 3)
    Image.fromarray(np.concatenate([np.concatenate(list(row), 1) for row in rows])).save(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("spectrum/models/demo-image"))
    parser.add_argument("--count", type=int, default=64)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--guidance", type=float, default=2.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--truth", action="store_true", help="check the reader, not the model")
    parser.add_argument("--sheet", type=Path, help="write the pictures to this PNG file")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    pipe = FluxPipeline.from_pretrained(args.folder, dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    scenes = unseen_scenes(args.count, args.seed)
    results: dict[str, dict[str, float]] = {}
    if args.truth:
        rng = np.random.default_rng(args.seed)
        drawn = [draw(scene, rng) for scene in scenes]
        pictures = reconstruct(pipe, drawn)
        results["drawn"] = summary(scenes, drawn)
        results["reconstructed"] = {**summary(scenes, pictures), "psnr_db": psnr(drawn, pictures)}
    else:
        pictures = sample(pipe, scenes, args.steps, args.guidance, args.seed)
        results["sampled"] = summary(scenes, pictures)
    if args.sheet:
        sheet(pictures, args.sheet)
    if args.json:
        print(json.dumps({"count": args.count, "guidance": args.guidance, **results}))
        return
    for name, rates in results.items():
        print(name, " ".join(f"{key} {value:.3f}" for key, value in rates.items()))


if __name__ == "__main__":
    main()
