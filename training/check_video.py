"""Measure how well the demo-video model follows its captions, by plain image processing.

Samples clips for captions that were held out from training, then reads colour, shape, size,
motion and background back from the pixels, without looking at the caption.

    python training/check_video.py spectrum/models/demo-video           # the model
    python training/check_video.py spectrum/models/demo-video --truth   # the checker itself
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
import torch
from clips import (
    BACKGROUNDS,
    COLOURS,
    DISTANCES,
    FRAMES,
    MOTIONS,
    RADII,
    SHAPES,
    SIDE,
    Clip,
    FloatArray,
    caption,
    draw,
    is_held_out,
    is_valid,
)
from diffusers import WanPipeline
from diffusers.utils import logging

SYMMETRY = {"square": 4, "triangle": 3, "star": 5, "cross": 4}
EDGE_DISTANCE = 50.0  # RGB distance from the background from which a pixel is the shape's


@dataclass(frozen=True)
class Shape:
    """The moving shape's cover of each pixel, 0 to 1, and what follows from it."""

    cover: FloatArray  # [F, H, W]
    x: FloatArray  # centroid, px, [F]
    y: FloatArray
    area: FloatArray  # px, [F]


def held_out_clips(part: str) -> list[Clip]:
    """All held-out clips in a fixed random order; "test" and "tune" share none."""
    everything = itertools.product(RADII, COLOURS, SHAPES, MOTIONS, BACKGROUNDS)
    clips = [clip for clip in itertools.starmap(Clip, everything) if is_valid(clip)]
    clips = [clip for clip in clips if is_held_out(clip)]
    np.random.default_rng(0).shuffle(clips)
    return clips[0::2] if part == "test" else clips[1::2]


def nearest(colour: FloatArray, palette: dict[str, tuple[int, int, int]]) -> str:
    """The palette's name for an RGB colour."""
    return min(palette, key=lambda name: float(np.linalg.norm(colour - np.array(palette[name]))))


def fit_background(video: FloatArray) -> FloatArray:
    """A plane per colour channel through the pixels near the border's colour -> [H, W, 3]."""
    _, height, width, _ = video.shape
    rows, columns = np.mgrid[:height, :width]
    basis = np.stack([np.ones_like(rows), rows, columns], axis=-1).astype(np.float32)  # [H, W, 3]
    border = np.concatenate(
        [video[:, edge].reshape(-1, 3) for edge in (0, -1)]
        + [video[:, :, edge].reshape(-1, 3) for edge in (0, -1)]
    )
    plane = np.broadcast_to(np.median(border, axis=0), video.shape[1:])
    for tolerance in (45.0, 30.0):
        near = np.linalg.norm(video - plane, axis=-1) < tolerance  # [F, H, W]
        where = np.broadcast_to(basis, video.shape)[near]
        plane = basis @ np.linalg.lstsq(where, video[near], rcond=None)[0]
    return plane


def find_shape(video: FloatArray, behind: FloatArray) -> tuple[Shape, FloatArray] | None:
    """The shape and its RGB colour; None when some frame shows next to nothing."""
    offset = video - behind
    distance = np.linalg.norm(offset, axis=-1)
    if (distance > EDGE_DISTANCE).sum(axis=(1, 2)).min() < 15:
        return None
    inside = distance >= np.quantile(distance[distance > EDGE_DISTANCE], 0.4)
    colour = np.median(video[inside], axis=0)
    contrast = np.median(offset[inside], axis=0)
    cover = np.clip(offset @ contrast / (contrast @ contrast), 0, 1)
    cover = np.where(distance > EDGE_DISTANCE / 2, cover, 0)
    area = cover.sum(axis=(1, 2))
    rows, columns = np.mgrid[: video.shape[1], : video.shape[2]] + 0.5
    x, y = ((cover * axis).sum(axis=(1, 2)) / area for axis in (columns, rows))
    return Shape(cover, x, y, area), colour


def template(name: str, u: FloatArray, v: FloatArray, radius: float, angle: float) -> FloatArray:
    """Cover of each pixel by a shape around the origin; u, v in px."""
    cos, sin = np.cos(angle), np.sin(angle)
    distance = DISTANCES[name]((u * cos + v * sin) / radius, (v * cos - u * sin) / radius)
    return np.clip(0.5 - distance * radius, 0, 1)


def unit_areas() -> dict[str, float]:
    """Area of each shape at radius 1."""
    v, u = np.mgrid[-1.5:1.5:0.01, -1.5:1.5:0.01]
    return {name: float((distance(u, v) < 0).sum()) * 1e-4 for name, distance in DISTANCES.items()}


def overlaps(shape: Shape, areas: dict[str, float]) -> dict[str, float]:
    """Common over joint area with each template of the same area, a mean over every other frame."""
    rows, columns = np.mgrid[: shape.cover.shape[1], : shape.cover.shape[2]] + 0.5
    scores = {}
    for name in SHAPES:
        best = []
        for frame in range(0, len(shape.area), 2):
            u, v = columns - shape.x[frame], rows - shape.y[frame]
            radius = float(np.sqrt(shape.area[frame] / areas[name]))
            turns = 9 if name in SYMMETRY else 1
            angles = np.arange(turns) * 2 * np.pi / (turns * SYMMETRY.get(name, 1))
            drawn = np.stack([template(name, u, v, radius, angle) for angle in angles])
            common = np.minimum(drawn, shape.cover[frame]).sum(axis=(1, 2))
            whole = np.maximum(drawn, shape.cover[frame]).sum(axis=(1, 2))
            best.append((common / whole).max())
        scores[name] = float(np.mean(best))
    return scores


def total_turn(shape: Shape, order: int) -> float:
    """Degrees turned over the clip, from the phase of the angular moment of the given order."""
    rows, columns = np.mgrid[: shape.cover.shape[1], : shape.cover.shape[2]] + 0.5
    u, v = columns - shape.x[:, None, None], rows - shape.y[:, None, None]
    moment = shape.cover * np.hypot(u, v) ** order * np.exp(1j * order * np.arctan2(v, u))
    phase = np.unwrap(np.angle(moment.sum(axis=(1, 2))))
    return float(np.degrees(phase[-1] - phase[0]) / order)


def classify_motion(shape: Shape, name: str) -> str:
    """One of MOTIONS, or "still"."""
    growth = np.log(shape.area[-3:].mean() / shape.area[:3].mean())
    if abs(growth) > 0.7:
        return "grows" if growth > 0 else "shrinks"
    speed = np.diff(shape.y)
    direction = np.sign(speed[np.abs(speed) > 0.7])
    if (np.diff(direction) != 0).sum() >= 2 and np.ptp(shape.y) > 8:
        return "bounces"
    dx, dy = (axis[-3:].mean() - axis[:3].mean() for axis in (shape.x, shape.y))
    if max(abs(dx), abs(dy)) > 6:
        if abs(dx) > abs(dy):
            return "moves right" if dx > 0 else "moves left"
        return "moves down" if dy > 0 else "moves up"
    if name in SYMMETRY and abs(total_turn(shape, SYMMETRY[name])) > 60:
        return "spins"
    return "still"


def read_clip(video: FloatArray, areas: dict[str, float]) -> tuple[Clip, dict[str, float]] | None:
    """What a clip [F, H, W, 3] of 0 to 255 shows, and its outline's overlap with each shape's;
    None when no shape is found."""
    behind = fit_background(video)
    found = find_shape(video, behind)
    if found is None:
        return None
    shape, colour = found
    scores = overlaps(shape, areas)
    name = max(scores, key=lambda shape: scores[shape])
    motion = classify_motion(shape, name)
    radius = float(np.sqrt(np.median(shape.area) / areas[name])) * SIDE / video.shape[1]
    size = min(RADII, key=lambda word: abs(RADII[word] - radius))
    clip = Clip(
        "" if motion in ("grows", "shrinks") else size,
        nearest(colour, COLOURS),
        name,
        motion,
        nearest(behind.mean(axis=(0, 1)), BACKGROUNDS),
    )
    return clip, scores


def score(clips: list[Clip], videos: list[FloatArray]) -> dict[str, float]:
    """Share of clips that show what their caption says, per attribute and for all of them, and
    the mean overlap of their outlines with the shape asked for (0 to 1)."""
    areas = unit_areas()
    rows: list[dict[str, float]] = []
    for clip, video in zip(clips, videos, strict=True):
        read = read_clip(video, areas)
        row = {field.name: False for field in fields(Clip)}
        if read is not None:
            row = {name: asdict(read[0])[name] == word for name, word in asdict(clip).items()}
        right, overlap = all(row.values()), 0.0 if read is None else read[1][clip.shape]
        rows.append(row | {"all": right, "outline": overlap})
        if not right:
            print(f"  {caption(clip)}: seen {'nothing' if read is None else caption(read[0])}")
    return {name: round(float(np.mean([row[name] for row in rows])), 4) for name in rows[0]}


def sample(
    pipeline: WanPipeline, clips: list[Clip], steps: int, guidance: float, batch: int = 16
) -> list[FloatArray]:
    """One clip per caption, the seed being its index; 0 to 255."""
    videos: list[FloatArray] = []
    for start in range(0, len(clips), batch):
        prompts = [caption(clip) for clip in clips[start : start + batch]]
        seeds = range(start, start + len(prompts))
        frames = pipeline(
            prompts,
            height=SIDE,
            width=SIDE,
            num_frames=FRAMES,
            num_inference_steps=steps,
            guidance_scale=guidance,
            max_sequence_length=16,
            generator=[torch.Generator().manual_seed(seed) for seed in seeds],
        ).frames
        videos += list(frames * 255)
    return videos


@torch.no_grad()
def reconstruct(pipeline: WanPipeline, video: FloatArray) -> FloatArray:
    """A drawn clip through the autoencoder; [F, H, W, 3], 0 to 255."""
    x = torch.from_numpy(video / 127.5 - 1).permute(3, 0, 1, 2)[None].float()
    y = pipeline.vae.decode(pipeline.vae.encode(x).latent_dist.mode()).sample
    return ((y[0].permute(1, 2, 3, 0).numpy() + 1) * 127.5).astype(np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--count", type=int, default=256)
    parser.add_argument("--part", choices=("test", "tune"), default="test")
    parser.add_argument("--guidance", type=float, default=4.0)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--truth", action="store_true", help="check drawings, not samples")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    args = parser.parse_args()
    pipeline = WanPipeline.from_pretrained(args.model, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    logging.set_verbosity_error()
    clips = held_out_clips(args.part)[: args.count]
    report: dict[str, object] = {"count": len(clips), "part": args.part}
    if args.truth:
        rng = np.random.default_rng(0)
        drawn = [draw(clip, rng).astype(np.float32) for clip in clips]
        report["drawn"] = score(clips, drawn)
        report["reconstructed"] = score(clips, [reconstruct(pipeline, video) for video in drawn])
    else:
        began = time.monotonic()
        videos = sample(pipeline, clips, args.steps, args.guidance)
        report |= {"steps": args.steps, "guidance": args.guidance}
        report |= {"seconds": round(time.monotonic() - began, 1), "sampled": score(clips, videos)}
    print(json.dumps(report, indent=2))
    if args.json:
        args.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
