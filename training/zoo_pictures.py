"""The pictures that the zoo's models are trained on: letters, textures, creatures, moving digits.

Each draw function takes a caption, one word a slot, and gives uint8 [32, 32, 3] (clips: a frame
axis in front). What the words leave open, place, size, angle, phase, is random.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

SIDE = 32
FRAMES = 5
FONTS = Path("/usr/share/fonts/truetype/dejavu")
STYLES = {
    "sans": "DejaVuSans",
    "bold": "DejaVuSans-Bold",
    "light": "DejaVuSans-ExtraLight",
    "slanted": "DejaVuSans-Oblique",
    "mono": "DejaVuSansMono",
    "serif": "DejaVuSerif",
    "heavy": "DejaVuSerif-Bold",
    "italic": "DejaVuSerif-Italic",
}
COLOURS = {
    "red": (225, 45, 45),
    "orange": (245, 145, 30),
    "yellow": (245, 225, 60),
    "green": (70, 190, 70),
    "cyan": (70, 210, 220),
    "blue": (70, 110, 240),
    "pink": (240, 130, 200),
    "white": (245, 245, 245),
}
GROUNDS = {
    "black": (15, 15, 20),
    "grey": (110, 110, 115),
    "navy": (20, 30, 90),
    "brown": (95, 60, 35),
    "forest": (20, 75, 45),
    "violet": (85, 30, 100),
}
PLAIN = list(COLOURS)
LETTER_SLOTS = [list("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"), PLAIN, list(GROUNDS), list(STYLES)]
TEXTURES = ["stripes", "checks", "dots", "rings", "waves", "plasma", "bricks", "scales"]
TEXTURE_SLOTS = [TEXTURES, ["coarse", "fine"], PLAIN, PLAIN]
CREATURE_SLOTS = [
    ["round", "square", "tall", "wide", "triangle", "ghost"],
    PLAIN,
    ["one", "two", "three"],
    ["ears", "horns", "antennae", "bald"],
    ["smile", "flat", "open"],
    list(GROUNDS),
]
MOTIONS = ["right", "left", "up", "down", "spin", "grow"]
ONE_DIGIT = [list("0123456789"), PLAIN, MOTIONS]
DIGIT_SLOTS = [*ONE_DIGIT, *ONE_DIGIT, ["black", "grey", "navy", "forest"]]


def jittered(colour: tuple[int, int, int], rng: np.random.Generator) -> np.ndarray:
    """A colour a little off. -> float [3]"""
    return np.clip(np.array(colour) + rng.normal(0, 6, 3), 0, 255)


def blend(mask: np.ndarray, over: np.ndarray, under: np.ndarray) -> np.ndarray:
    """mask [H, W] in 0..1, colours [3] or [H, W, 3] -> float [H, W, 3]"""
    return under + mask[..., None] * (over - under)


@cache
def font(style: str, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(FONTS / f"{STYLES[style]}.ttf"), size)


def draw_letter(caption: list[str], rng: np.random.Generator) -> np.ndarray:
    """One glyph, moved, scaled and turned a little."""
    glyph, colour, ground, style = caption
    canvas = Image.new("L", (128, 128))
    x, y = 64 + rng.uniform(-12, 12, 2)
    size = int(rng.integers(20, 28)) * 4
    ImageDraw.Draw(canvas).text((x, y), glyph, 255, font(style, size), anchor="mm")
    canvas = canvas.rotate(rng.uniform(-18, 18), Image.Resampling.BILINEAR).reduce(4)
    over, under = jittered(COLOURS[colour], rng), jittered(GROUNDS[ground], rng)
    return blend(np.asarray(canvas) / 255, over, under).round().astype(np.uint8)


def field(kind: str, waves: float, rng: np.random.Generator, side: int) -> np.ndarray:
    """A texture's value 0..1 on a grid of this side. -> [side, side]"""
    axis = np.linspace(0, 1, side, endpoint=False)
    x, y = np.meshgrid(axis, axis)
    if kind == "plasma":
        cells = round(1.6 * waves)
        coarse = Image.fromarray(rng.random((cells, cells)).astype(np.float32))
        value = np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC))
        return (value - value.min()) / (value.max() - value.min())
    if kind == "rings":
        a, b = rng.uniform(0.2, 0.8, 2)
        turns = waves * np.hypot(x - a, y - b) + rng.random()
        return 0.5 + 0.5 * np.tanh(3 * np.sin(2 * np.pi * turns))
    angle = rng.uniform(0, 2 * np.pi) if kind != "bricks" else rng.normal(0, 0.1)
    u = waves * (x * np.cos(angle) + y * np.sin(angle)) + rng.random()
    v = waves * (y * np.cos(angle) - x * np.sin(angle)) + rng.random()
    if kind == "stripes":
        return 0.5 + 0.5 * np.tanh(4 * np.sin(2 * np.pi * u))
    if kind == "checks":
        return 0.5 + 0.5 * np.tanh(6 * np.sin(np.pi * u) * np.sin(np.pi * v))
    if kind == "waves":
        bent = v + 0.3 * np.sin(np.pi * u)
        return 0.5 + 0.5 * np.sin(2 * np.pi * bent)
    if kind == "dots":
        away = np.hypot(u % 1 - 0.5, v % 1 - 0.5)
        return 0.5 - 0.5 * np.tanh(12 * (away - 0.3))
    shifted = u / 2 + 0.5 * (np.floor(v) % 2) if kind == "bricks" else u + 0.5 * (np.floor(v) % 2)
    if kind == "bricks":
        edge = np.minimum(2 * (0.5 - abs(shifted % 1 - 0.5)), 0.5 - abs(v % 1 - 0.5))
        return 0.5 + 0.5 * np.tanh(16 * (edge - 0.12))
    return np.hypot(shifted % 1 - 0.5, v % 1) ** 2 / 1.25  # scales


def draw_texture(caption: list[str], rng: np.random.Generator, side: int = SIDE) -> np.ndarray:
    """A field of one colour on another, all of the picture, drawn twice as fine, then reduced."""
    kind, grain, first, second = caption
    waves = rng.uniform(2.3, 3.3) if grain == "coarse" else rng.uniform(5.0, 6.5)
    value = field(kind, waves, rng, 2 * side).reshape(side, 2, side, 2).mean(axis=(1, 3))
    over, under = jittered(COLOURS[first], rng), jittered(COLOURS[second], rng) * 0.55
    return blend(value, over, under).round().astype(np.uint8)


def draw_creature(caption: list[str], rng: np.random.Generator) -> np.ndarray:
    """A body with eyes, something on its head, and a mouth; drawn large, then reduced."""
    body, colour, eyes, top, mouth, ground = caption
    skin = tuple(int(v) for v in jittered(COLOURS[colour], rng))
    under = tuple(int(v) for v in jittered(GROUNDS[ground], rng))
    dark = tuple(int(0.6 * v) for v in skin)
    canvas = Image.new("RGB", (128, 128), under)
    pen = ImageDraw.Draw(canvas)
    x, y = 64 + rng.uniform(-10, 10), 72 + rng.uniform(-8, 8)
    size = rng.uniform(0.85, 1.1)
    w, h = {"tall": (27, 44), "wide": (46, 28)}.get(body, (36, 36))
    w, h = w * size, h * size
    box = (x - w, y - h, x + w, y + h)
    spread = w * (0.3 if body == "triangle" else 0.6)
    for side in (-1, 1):  # behind the body
        a, b = x + side * spread, y - 0.75 * h
        if top == "ears":
            pen.ellipse((a - 13, b - 18, a + 13, b + 12), dark)
        elif top == "horns":
            pen.polygon([(a - 9, b + 8), (a + 9, b + 8), (a + side * 12, b - 24)], (240, 235, 205))
        elif top == "antennae":
            tip = (a + side * 8, b - 24)
            pen.line([(a - side * 6, b + 8), tip], dark, 5)
            pen.ellipse((tip[0] - 6, tip[1] - 6, tip[0] + 6, tip[1] + 6), dark)
    if body == "square":
        pen.rectangle(box, skin)
    elif body == "triangle":
        pen.polygon([(x, y - 1.25 * h), (x - 1.2 * w, y + h), (x + 1.2 * w, y + h)], skin)
    elif body == "ghost":
        pen.pieslice((x - w, y - h, x + w, y + h), 180, 360, skin)
        pen.rectangle((x - w, y, x + w, y + 0.8 * h), skin)
        for part in (-2, 0, 2):
            middle = x + part * w / 3
            pen.ellipse((middle - w / 3, y + 0.5 * h, middle + w / 3, y + 1.1 * h), skin)
    else:
        pen.ellipse(box, skin)
    count = {"one": 1, "two": 2, "three": 3}[eyes]
    radius, gaze = {1: 13, 2: 9, 3: 7}[count] * size, rng.uniform(-3, 3, 2)
    for index in range(count):
        a, b = x + (index - (count - 1) / 2) * 2.2 * radius, y - 0.15 * h
        pen.ellipse((a - radius, b - radius, a + radius, b + radius), (255, 255, 255))
        a, b, small = a + gaze[0], b + gaze[1], 0.5 * radius
        pen.ellipse((a - small, b - small, a + small, b + small), (10, 10, 10))
    a, b = x, y + 0.5 * h
    if mouth == "smile":
        pen.arc((a - 16, b - 16, a + 16, b + 9), 20, 160, (40, 10, 10), 5)
    elif mouth == "flat":
        pen.line([(a - 14, b), (a + 14, b)], (40, 10, 10), 5)
    else:
        pen.ellipse((a - 9, b - 8, a + 9, b + 10), (110, 15, 25))
    return np.asarray(canvas.reduce(4))


@cache
def digit_mask(digit: str) -> Image.Image:
    """A digit about 23 px high in the middle of 32 x 32."""
    canvas = Image.new("L", (32, 32))
    ImageDraw.Draw(canvas).text((16, 16), digit, 255, font("bold", 31), anchor="mm")
    return canvas


def draw_digits(caption: list[str], rng: np.random.Generator) -> np.ndarray:
    """Two digits, the first starting on the left, each with its motion. -> [5, 32, 32, 3]"""
    ground = jittered(GROUNDS[caption[-1]], rng)
    frames = np.empty((FRAMES, SIDE, SIDE, 3))
    frames[:] = ground
    for words, middle in ((caption[:3], 9), (caption[3:6], 23)):
        digit, colour, motion = words
        over = jittered(COLOURS[colour], rng)
        x, y = middle + rng.uniform(-2, 2), 16 + rng.uniform(-5, 5)
        height, lean = rng.uniform(13, 17), rng.uniform(-0.15, 0.15)
        for index in range(FRAMES):
            go = index / (FRAMES - 1)
            a = x + 12 * go * ((motion == "right") - (motion == "left"))
            b = y + 12 * go * ((motion == "down") - (motion == "up"))
            zoom = height / 23 * (0.6 + 0.9 * go if motion == "grow" else 1.0)
            angle = lean + (2.5 * go if motion == "spin" else 0.0)
            c, s = np.cos(angle) / zoom, np.sin(angle) / zoom
            back = (c, s, 16 - c * a - s * b, -s, c, 16 + s * a - c * b)
            mask = digit_mask(digit).transform(
                (SIDE, SIDE), Image.Transform.AFFINE, back, Image.Resampling.BICUBIC
            )
            frames[index] = blend(np.asarray(mask) / 255, over, frames[index])
    return frames.round().astype(np.uint8)
