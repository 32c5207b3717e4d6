"""Short clips of one moving shape, drawn from a caption: the training data of the demo-video model.

Grammar:  a [small|large] COLOUR SHAPE MOTION on a BACKGROUND background
          "a small red circle moves right on a dark blue background"

What the caption leaves open (place, speed, shading, gradient of the background) is drawn from a
random generator. Shapes are signed distance functions in a 64 x 64 unit square, anti-aliased.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import astuple, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[Any]  # of floats
FRAMES, SIDE = 17, 64

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (222, 36, 36),
    "orange": (250, 134, 12),
    "yellow": (250, 222, 40),
    "green": (40, 178, 66),
    "blue": (42, 92, 232),
    "purple": (140, 52, 190),
    "pink": (252, 120, 190),
    "white": (248, 248, 248),
}
BACKGROUNDS: dict[str, tuple[int, int, int]] = {
    "black": (12, 12, 14),
    "white": (240, 240, 240),
    "gray": (122, 124, 126),
    "dark blue": (18, 26, 84),
    "dark green": (12, 62, 36),
    "dark red": (88, 14, 22),
    "light blue": (166, 210, 244),
    "light yellow": (248, 240, 184),
}
RADII: dict[str, float] = {"small": 10.5, "": 13.3, "large": 16.5}  # px; "" is the size not named
SHAPES = ("circle", "square", "triangle", "star", "ring", "cross")
DIRECTIONS: dict[str, tuple[int, int]] = {  # unit steps in image axes: x right, y down
    "moves right": (1, 0),
    "moves left": (-1, 0),
    "moves up": (0, -1),
    "moves down": (0, 1),
}
MOTIONS = (*DIRECTIONS, "spins", "grows", "shrinks", "bounces")
ROUND = ("circle", "ring")  # cannot be seen to spin
MIN_CONTRAST = 110.0  # Euclidean RGB distance between a shape and its background
HELD_OUT_PERCENT = 8
JITTER = 5.0  # px that a path lies off the middle of the picture, at most

VOCABULARY: tuple[str, ...] = tuple(
    sorted(
        {"a", "an", "on", "background", "small", "large"}
        | set(COLOURS)
        | set(SHAPES)
        | {word for name in (*BACKGROUNDS, *MOTIONS) for word in name.split()}
    )
)


@dataclass(frozen=True)
class Clip:
    """What a caption says."""

    size: str  # "", "small" or "large"; always "" when the shape grows or shrinks
    colour: str
    shape: str
    motion: str
    background: str


def is_valid(clip: Clip) -> bool:
    """Whether the clip can be seen as described."""
    contrast = np.subtract(COLOURS[clip.colour], BACKGROUNDS[clip.background])
    return not (
        np.linalg.norm(contrast) < MIN_CONTRAST
        or (clip.motion == "spins" and clip.shape in ROUND)
        or (clip.motion in ("grows", "shrinks") and clip.size)
    )


def sample_clip(rng: np.random.Generator) -> Clip:
    """A random valid clip, every word of its class equally likely before the validity rules."""
    while True:
        clip = Clip(
            str(rng.choice(list(RADII))),
            str(rng.choice(list(COLOURS))),
            str(rng.choice(SHAPES)),
            str(rng.choice(MOTIONS)),
            str(rng.choice(list(BACKGROUNDS))),
        )
        if is_valid(clip):
            return clip


def is_held_out(clip: Clip) -> bool:
    """Whether the clip's words are kept out of training; a fixed hash decides."""
    digest = hashlib.sha256("|".join(astuple(clip)).encode()).digest()
    return int.from_bytes(digest[:4], "big") % 100 < HELD_OUT_PERCENT


def caption(clip: Clip) -> str:
    """The caption of a clip."""
    article = "an" if clip.colour == "orange" and not clip.size else "a"
    words = (article, clip.size, clip.colour, clip.shape, clip.motion, "on a", clip.background)
    return " ".join(word for word in words if word) + " background"


def parse(text: str) -> Clip:
    """The clip that a caption describes; raises ValueError when it is not in the grammar."""
    words = text.lower().split()
    size = words[1] if len(words) > 1 and words[1] in ("small", "large") else ""
    rest = words[1 + bool(size) :]
    if "on" not in rest or words[0] not in ("a", "an") or words[-1] != "background":
        raise ValueError(f"not in the grammar: {text!r}")
    on = rest.index("on")
    clip = Clip(size, *rest[:2], " ".join(rest[2:on]), " ".join(rest[on + 2 : -1]))
    known = (clip.colour in COLOURS, clip.shape in SHAPES, clip.motion in MOTIONS)
    if not all(known) or clip.background not in BACKGROUNDS or caption(clip) != " ".join(words):
        raise ValueError(f"not in the grammar: {text!r}")
    return clip


@dataclass(frozen=True)
class Track:
    """Where the shape is in every frame; px, px, px and radians, each [F]."""

    x: FloatArray
    y: FloatArray
    radius: FloatArray
    angle: FloatArray


def _place(shift: FloatArray, margin: float, rng: np.random.Generator) -> FloatArray:
    """Put the middle of a path near the middle of the picture, all of it inside; px."""
    slack = min(JITTER, SIDE / 2 - margin - np.ptp(shift) / 2)
    middle = (shift.min() + shift.max()) / 2
    return SIDE / 2 + rng.uniform(-slack, slack) - middle + shift


def sample_track(clip: Clip, rng: np.random.Generator, frames: int = FRAMES) -> Track:
    """Choose what the caption leaves open: place, speed and exact size."""
    time = np.linspace(0.0, 1.0, frames)
    radius = np.full(frames, RADII[clip.size] + rng.uniform(-0.4, 0.4))
    if clip.motion in ("grows", "shrinks"):
        radius = rng.uniform(8.5, 9.5) + rng.uniform(8.5, 9.5) * time
        radius = radius if clip.motion == "grows" else radius[::-1]
    margin = 1.4 * float(radius.max())
    shift_x, shift_y = np.zeros(frames), np.zeros(frames)
    if clip.motion in DIRECTIONS:
        travel = rng.uniform(0.8, 1.0) * (SIDE - 2 * margin) * time
        shift_x, shift_y = (step * travel for step in DIRECTIONS[clip.motion])
    if clip.motion == "bounces":
        height = rng.uniform(12, 16)
        shift_y = -height * np.abs(np.sin(np.pi * (2 * time + rng.uniform(-0.1, 0.1))))
    angle = np.zeros(frames)
    if clip.motion == "spins":  # clockwise; under half of a star's symmetry per frame
        angle = np.deg2rad(rng.uniform(140, 190)) * time
    x, y = (_place(shift, margin, rng) for shift in (shift_x, shift_y))
    values = (value.astype(np.float32) for value in (x, y, radius, angle))
    return Track(*values)


def _polygon(x: FloatArray, y: FloatArray, sides: int, inradius: float) -> FloatArray:
    """Regular polygon with one corner up."""
    sector = 2 * np.pi / sides
    turn = (np.arctan2(x, -y) % sector) - sector / 2
    return np.hypot(x, y) * np.cos(turn) - inradius


def _star(x: FloatArray, y: FloatArray) -> FloatArray:
    """Five points of length 1.4, notches at 0.56, one point up."""
    sector = 2 * np.pi / 5
    turn = np.abs((np.arctan2(x, -y) + sector / 2) % sector - sector / 2)
    notch = 0.56 * np.array([np.cos(sector / 2), np.sin(sector / 2)])
    edge = notch - np.array([1.4, 0.0])
    edge /= np.linalg.norm(edge)
    along, across = np.hypot(x, y) * np.cos(turn) - 1.4, np.hypot(x, y) * np.sin(turn)
    return across * -edge[0] + along * edge[1]


def _box(x: FloatArray, y: FloatArray, half_width: float, half_height: float) -> FloatArray:
    return np.maximum(np.abs(x) - half_width, np.abs(y) - half_height)


# Signed distance to each shape, in units of the track's radius; negative inside.
DISTANCES: dict[str, Callable[[FloatArray, FloatArray], FloatArray]] = {
    "circle": lambda x, y: np.hypot(x, y) - 1.05,
    "square": lambda x, y: _box(x, y, 0.92, 0.92),
    "triangle": lambda x, y: _polygon(x, y, 3, 0.68),
    "star": _star,
    "ring": lambda x, y: np.abs(np.hypot(x, y) - 0.86) - 0.27,
    "cross": lambda x, y: np.minimum(_box(x, y, 1.2, 0.36), _box(x, y, 0.36, 1.2)),
}


def draw(
    clip: Clip, rng: np.random.Generator, frames: int = FRAMES, side: int = SIDE
) -> NDArray[np.uint8]:
    """Draw one clip -> [F, side, side, 3]."""
    track = sample_track(clip, rng, frames)
    centres = (np.arange(side, dtype=np.float32) + 0.5) * (SIDE / side)
    radius, angle = track.radius[:, None, None], track.angle[:, None, None]
    dx = (centres[None, None, :] - track.x[:, None, None]) / radius  # [F, 1, side]
    dy = (centres[None, :, None] - track.y[:, None, None]) / radius  # [F, side, 1]
    u = dx * np.cos(angle) + dy * np.sin(angle)
    v = dy * np.cos(angle) - dx * np.sin(angle)
    distance = DISTANCES[clip.shape](u, v) * radius * (side / SIDE)  # px
    cover = np.clip(0.5 - distance, 0.0, 1.0)[..., None]  # [F, side, side, 1]

    tilt, slope = rng.uniform(0, 2 * np.pi), rng.uniform(4, 16)
    ramp = np.cos(tilt) * centres[None, :] + np.sin(tilt) * centres[:, None]
    ramp = slope * (ramp - ramp.mean()) / SIDE  # a gentle gradient, in 8-bit levels
    behind = np.array(BACKGROUNDS[clip.background], np.float32) + ramp[..., None]
    light = rng.uniform(4, 16)  # the shape is lighter at its top
    shape = np.array(COLOURS[clip.colour], np.float32) - light * np.clip(dy, -1.2, 1.2)[..., None]
    picture = behind[None] * (1 - cover) + shape * cover
    return np.clip(np.rint(picture), 0, 255).astype(np.uint8)
