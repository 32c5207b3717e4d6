"""Captioned pictures of simple things: the world that the demo-image model knows.

A `Scene` says what a caption says and nothing else. `draw` fills in what the caption leaves
open: exact places and sizes, slight rotation, shading, shadow, and the background's gradient.
Shapes are signed distance functions, so edges are anti-aliased at any size.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass
from functools import cache

import numpy as np

SIDE = 128  # px, width and height of a picture
MAX_TOKENS = 20  # of the longest caption, for T5; CLIP adds one at the start

COLORS = {
    "red": (215, 35, 40),
    "orange": (245, 135, 25),
    "yellow": (250, 220, 40),
    "green": (45, 165, 65),
    "blue": (40, 85, 215),
    "purple": (135, 55, 175),
    "pink": (250, 130, 185),
    "white": (248, 248, 248),
    "black": (22, 22, 26),
}
BACKGROUNDS = {
    "white": (242, 242, 242),
    "black": (16, 16, 20),
    "light gray": (198, 198, 200),
    "dark gray": (78, 78, 82),
    "light blue": (172, 208, 245),
    "dark blue": (18, 32, 95),
    "light green": (188, 230, 180),
    "dark green": (14, 76, 42),
    "light yellow": (250, 240, 182),
    "dark purple": (62, 26, 92),
    "light pink": (250, 214, 224),
    "dark red": (98, 18, 24),
}
SHAPES = ("circle", "square", "triangle", "star", "ring", "heart", "cross", "diamond")
RELATIONS = ("above", "below", "left of", "right of")
SIZES = {"small": (17.5, 19.0), "large": (27.0, 28.5), "": (21.5, 24.5)}  # radius in px
APART = 62.0  # px between the centres of two things
TEXTURES = ("striped",)
MIN_CONTRAST = 135.0  # distance in RGB between a thing and its background

VOCABULARY = sorted(
    {"a", "an", "on", "and", "background", ",", "to", "the", *SHAPES, *TEXTURES, "small", "large"}
    | {word for phrase in (*COLORS, *BACKGROUNDS, *RELATIONS) for word in phrase.split()}
)


@dataclass(frozen=True)
class Thing:
    """One object; an empty size or texture is left open (size) or plain (texture)."""

    shape: str
    color: str
    size: str = ""
    texture: str = ""

    def words(self) -> str:
        adjectives = [word for word in (self.size, self.texture, self.color) if word]
        article = "an" if adjectives[0] == "orange" else "a"
        return " ".join([article, *adjectives, self.shape])


@dataclass(frozen=True)
class Scene:
    """One or two things. Two may have a relation; without one they stand anywhere."""

    things: tuple[Thing, ...]
    relation: str = ""
    background: str = ""  # left open if empty


def caption(scene: Scene, wordy: bool = False) -> str:
    """The scene in words. `wordy` says "to the left of" instead of "left of"."""
    words = [thing.words() for thing in scene.things]
    if scene.relation:
        sideways = wordy and scene.relation.endswith(" of")
        text = (
            f" to the {scene.relation} ".join(words)
            if sideways
            else f" {scene.relation} ".join(words)
        )
    else:
        text = " and ".join(words)
    return text + (f" on a {scene.background} background" if scene.background else "")


_THING = re.compile(
    rf"an? (?:(small|large) )?(?:({'|'.join(TEXTURES)}) )?({'|'.join(COLORS)}) ({'|'.join(SHAPES)})"
)


def parse(text: str) -> Scene | None:
    """The scene that a caption describes, or None if the grammar does not know the caption."""
    text = " ".join(text.lower().strip().removesuffix(".").split()).replace("to the ", "")
    text, _, background = text.partition(" on a ")
    background = background.removesuffix(" background")
    relation = next((r for r in RELATIONS if f" {r} " in text), "")
    parts = text.split(f" {relation} " if relation else " and ")
    found = [_THING.fullmatch(part) for part in parts]
    if not all(found) or len(found) > 2 or background not in {"", *BACKGROUNDS}:
        return None
    things = tuple(Thing(m[4], m[3], m[1] or "", m[2] or "") for m in found if m is not None)
    return Scene(things, relation, background)


def held_out(scene: Scene) -> bool:
    """Whether a scene is kept from training: one in sixteen, by a fixed hash of what it says."""
    return zlib.crc32(caption(scene).encode()) % 16 == 0


def contrasts(color: str, background: str) -> bool:
    """Whether a thing of this colour stands out from this background."""
    difference = np.subtract(COLORS[color], BACKGROUNDS[background], dtype=float)
    return float(np.linalg.norm(difference)) >= MIN_CONTRAST


def _backgrounds(things: tuple[Thing, ...]) -> list[str]:
    return [b for b in BACKGROUNDS if all(contrasts(t.color, b) for t in things)]


def sample_scene(rng: np.random.Generator) -> Scene:
    """A random scene. Things differ in colour, and contrast with their background."""
    count = int(rng.integers(1, 3))
    while True:
        colors = rng.choice(list(COLORS), count, replace=False)
        things = []
        for color in colors:
            size = str(rng.choice(["", "small", "large"], p=[0.5, 0.25, 0.25]))
            texture = str(rng.choice(["", *TEXTURES], p=[0.85, 0.15]))
            things.append(Thing(str(rng.choice(SHAPES)), str(color), size, texture))
        fitting = _backgrounds(tuple(things))
        if fitting:
            break
    relation = str(rng.choice(RELATIONS)) if count == 2 and rng.random() < 0.8 else ""
    background = str(rng.choice(fitting)) if rng.random() < 0.9 else ""
    return Scene(tuple(things), relation, background)


# ---- drawing ----


def unit_distance(shape: str, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Signed distance to a shape of radius 1 at the origin, v pointing down. [h, w] -> [h, w]"""
    radius = np.hypot(u, v)
    if shape == "circle":
        return radius - 0.92
    if shape == "ring":
        return np.abs(radius - 0.74) - 0.2
    if shape == "square":
        return np.maximum(np.abs(u), np.abs(v)) - 0.76
    if shape == "diamond":
        return (np.abs(u) / 0.7 + np.abs(v) - 1.0) / 1.744
    if shape == "cross":
        wide = np.maximum(np.abs(u) - 0.92, np.abs(v) - 0.3)
        tall = np.maximum(np.abs(u) - 0.3, np.abs(v) - 0.92)
        return np.minimum(wide, tall)
    if shape == "triangle":
        side = (1.6 * np.abs(u) - 0.9 * (v + 0.95)) / 1.836
        return np.maximum(side, v - 0.65)
    if shape == "heart":  # a square on its corner with a half disc on each upper side
        height = 0.76
        v = v - 0.08
        corner = (np.abs(u) + np.abs(v) - height) / np.sqrt(2.0)
        disc = np.hypot(np.abs(u) - height / 2, v + height / 2) - height / np.sqrt(2.0)
        return np.minimum(corner, disc)
    if shape == "star":  # every tenth of the star is a mirror image: the distance to one edge
        fold = np.abs((np.arctan2(u, -v) + np.pi / 5) % (2 * np.pi / 5) - np.pi / 5)
        tip, notch = 1.05, 0.44 * np.exp(1j * np.pi / 5)
        edge = notch - tip
        return np.imag(np.conj(edge) * (radius * np.exp(1j * fold) - tip)) / -abs(edge)
    raise ValueError(f"unknown shape: {shape}")


@dataclass(frozen=True)
class Place:
    """Where one thing is: centre and radius in px, rotation in radians."""

    x: float
    y: float
    radius: float
    angle: float


# Where the first thing stands, as seen from the middle between both; the second stands opposite.
_SIDES = {"above": (0, -1), "below": (0, 1), "left of": (-1, 0), "right of": (1, 0)}


def layout(scene: Scene, rng: np.random.Generator) -> list[Place]:
    """Places that obey the caption: one thing near the middle, two on opposite sides of it."""
    places = []
    dx, dy = _SIDES[scene.relation or str(rng.choice(RELATIONS))]
    for index, thing in enumerate(scene.things):
        x, y = SIDE / 2 + rng.uniform(-3, 3, 2)
        if len(scene.things) == 2:
            away = APART / 2 * (1 - 2 * index)
            x, y = x + dx * away, y + dy * away
        places.append(Place(x, y, rng.uniform(*SIZES[thing.size]), rng.uniform(-0.1, 0.1)))
    return places


@cache
def _centres(fine: int) -> tuple[np.ndarray, np.ndarray]:
    """Of the pixels, of a picture drawn `fine` times as large, in px of the usual size. [H, W]"""
    y, x = (np.mgrid[0 : fine * SIDE, 0 : fine * SIDE].astype(np.float32) + 0.5) / fine
    return x, y


def _background(color: tuple[int, int, int], rng: np.random.Generator, fine: int) -> np.ndarray:
    """A plain colour with a gradient and a vignette. -> [H, W, 3] in 0..255"""
    angle = rng.uniform(0, 2 * np.pi)
    u, v = (grid / SIDE - 0.5 for grid in _centres(fine))
    slope = rng.uniform(0, 0.3) * (u * np.cos(angle) + v * np.sin(angle))
    vignette = rng.uniform(0, 0.3) * (u * u + v * v)
    shade = 1.0 + slope - vignette  # [H, W]
    return np.asarray(color, np.float32) * shade[..., None] + 30.0 * slope[..., None]


def _texture(
    thing: Thing, x: np.ndarray, y: np.ndarray, rng: np.random.Generator, fine: int
) -> np.ndarray:
    """Share of the second tone, 0..1; x, y are px from the thing's centre. [h, w] -> [h, w]"""
    if thing.texture == "striped":
        angle = np.pi / 4 + rng.uniform(-0.15, 0.15)
        period = rng.uniform(10.5, 12.5)
        across = x * np.cos(angle) + y * np.sin(angle)
        offset = np.abs((across / period) % 1.0 - 0.5) * period  # px from a stripe's middle
        return np.clip(fine * (0.2 * period - offset) + 0.5, 0, 1)
    return np.zeros_like(x)


def _paint(
    thing: Thing, place: Place, picture: np.ndarray, rng: np.random.Generator, fine: int
) -> None:
    """Draw one thing with its shadow onto the picture, in place. [H, W, 3]"""
    reach = place.radius + 12.0
    centre = (place.x, place.y)
    near = [(max(0, int(c - reach)), int(c + reach) + 1) for c in centre]
    across, down = (slice(fine * first, fine * last) for first, last in near)
    x, y = (grid[down, across] - c for grid, c in zip(_centres(fine), centre, strict=True))
    cos, sin = np.cos(place.angle), np.sin(place.angle)

    def distance(
        dx: float, dy: float
    ) -> np.ndarray:  # px from the edge of the shape moved by (dx, dy)
        u = ((x - dx) * cos + (y - dy) * sin) / place.radius
        v = ((y - dy) * cos - (x - dx) * sin) / place.radius
        return unit_distance(thing.shape, u, v) * place.radius

    if rng.random() < 0.6:
        blur = rng.uniform(3, 6)
        shadow = 1 / (
            1 + np.exp(np.clip(distance(rng.uniform(1, 5), rng.uniform(2, 5)) / blur * 4, -30, 30))
        )
        picture[down, across] *= 1 - rng.uniform(0.2, 0.45) * shadow[..., None]

    color = np.asarray(COLORS[thing.color], np.float32)
    bright = color @ np.array([0.3, 0.59, 0.11]) > 190
    second = color * 0.55 if bright else color * 0.45 + 255 * 0.55
    mix = _texture(thing, x, y, rng, fine)[..., None]
    paint = color * (1 - mix) + second * mix
    angle = rng.uniform(0, 2 * np.pi)
    slope = rng.uniform(0, 0.14) * (x * np.cos(angle) + y * np.sin(angle)) / place.radius
    glint = np.exp(-((x / place.radius + 0.35) ** 2 + (y / place.radius + 0.4) ** 2) / 0.12)
    glint = rng.choice([0.0, rng.uniform(10, 45)]) * glint
    paint = paint * (1 + slope[..., None]) + glint[..., None]
    cover = np.clip(0.5 - fine * distance(0.0, 0.0), 0, 1)[..., None]
    picture[down, across] += (paint - picture[down, across]) * cover


def draw(scene: Scene, rng: np.random.Generator, fine: int = 1) -> np.ndarray:
    """A picture of the scene, `fine` times as large. -> uint8 [128 fine, 128 fine, 3]"""
    name = scene.background or str(rng.choice(_backgrounds(scene.things)))
    picture = _background(BACKGROUNDS[name], rng, fine)
    for thing, place in zip(scene.things, layout(scene, rng), strict=True):
        _paint(thing, place, picture, rng, fine)
    return np.clip(picture + 0.5, 0, 255).astype(np.uint8)
