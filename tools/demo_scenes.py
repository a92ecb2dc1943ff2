"""Draw the pictures the embedded models learn from and show: a digit as a small picture, and scenes of digit badges.

NumPy and Pillow only; every function draws from the generator it is given, so a seed fixes the picture. What a digit
looks like comes from outside: an (8, 8) array of ink between 0 and 16, as scikit-learn's `load_digits` has them.
Inside, a picture is float32 (3, H, W) between 0 and 1 and a colour (3, 1, 1); what is returned is bytes (H, W, 3).
"""

from __future__ import annotations

import colorsys
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]

GLYPH_SIZE = 80  # a stored glyph: 10 x 10 cells (the 8 x 8 digit and one empty cell around it), 8 pixels each
BACKGROUND = 0  # the class of a scene's pixels outside every badge; digit k has class k + 1


@dataclass(frozen=True)
class Badge:
    """One round badge of a scene: centre and radius in pixels, and the digit it shows."""

    x: float
    y: float
    radius: float
    digit: int


def draw_glyph(digit: NDArray[np.float64]) -> Image.Image:
    """Turn (8, 8) ink between 0 and 16 into a smooth grey image of GLYPH_SIZE x GLYPH_SIZE, ink 255."""
    cells = np.pad(np.asarray(digit, np.float32) * (255.0 / 16.0), 1)  # (10, 10)
    smooth = Image.fromarray(cells).resize((GLYPH_SIZE, GLYPH_SIZE), Image.Resampling.BICUBIC)
    return Image.fromarray(np.clip(np.asarray(smooth), 0, 255).astype(np.uint8))


def draw_ink(
    rng: np.random.Generator, glyph: Image.Image, side: int, height: float, centre: tuple[float, float]
) -> Floats:
    """Place a glyph, `height` pixels high and a little turned, sheared and stretched, on a (side, side) field.

    Returns ink between 0 and 1. The stroke's weight varies too: a soft threshold somewhere in the glyph's grey.
    """
    angle = np.deg2rad(rng.uniform(-13, 13))
    shear = rng.uniform(-0.15, 0.15)
    scale = GLYPH_SIZE * 0.8 / height  # glyph pixels per output pixel; the digit fills 0.8 of the glyph
    stretch = rng.uniform(0.85, 1.2)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    inverse = np.diag([scale / stretch, scale]) @ np.array([[1.0, shear], [0.0, 1.0]]) @ turn
    offset = np.full(2, GLYPH_SIZE / 2) - inverse @ np.array(centre)
    coefficients = (inverse[0, 0], inverse[0, 1], offset[0], inverse[1, 0], inverse[1, 1], offset[1])
    placed = glyph.transform((side, side), Image.Transform.AFFINE, coefficients, Image.Resampling.BILINEAR)
    grey = np.asarray(placed, np.float32) / 255.0
    threshold, softness = rng.uniform(0.34, 0.5), max(rng.uniform(0.08, 0.26), 1.2 / height)
    ramp = np.clip((grey - threshold) / (2 * softness) + 0.5, 0.0, 1.0)
    return np.asarray(ramp * ramp * (3.0 - 2.0 * ramp), np.float32)


def luminance(colour: Floats) -> float:
    """Tell how bright an RGB colour (3, 1, 1) between 0 and 1 looks (Rec. 709 weights)."""
    return float(colour.ravel() @ np.array([0.2126, 0.7152, 0.0722], np.float32))


def pick_colour(rng: np.random.Generator) -> Floats:
    """Pick an RGB colour (3, 1, 1) between 0 and 1 of any hue; one in five is a grey."""
    saturation = 0.0 if rng.random() < 0.2 else rng.uniform(0.3, 1.0)
    colour = colorsys.hsv_to_rgb(rng.random(), saturation, rng.uniform(0.1, 1.0))
    return np.array(colour, np.float32)[:, None, None]


def pick_pair(rng: np.random.Generator, contrast: float = 0.4) -> tuple[Floats, Floats]:
    """Pick paper and ink: two colours at least `contrast` of luminance apart, in either polarity."""
    while True:
        paper, ink = pick_colour(rng), pick_colour(rng)
        if abs(luminance(paper) - luminance(ink)) >= contrast:
            return paper, ink


def mix(under: Floats, over: Floats, share: Floats) -> Floats:
    """Lay the colour (or picture) `over` on the colour (or picture) `under`, with `share` (H, W) of it, 0 to 1."""
    return under + share * (over - under)


def draw_noise(rng: np.random.Generator, side: int, cells: int) -> Floats:
    """Draw smooth noise (side, side) between 0 and 1 with about `cells` bumps along an edge."""
    coarse = rng.random((cells + 1, cells + 1), dtype=np.float32)
    smooth = Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)
    return np.asarray(smooth, np.float32).clip(0.0, 1.0)


def draw_texture(rng: np.random.Generator, side: int) -> Floats:
    """Draw a scalar pattern (side, side) between 0 and 1: clouds, stripes, checks, rings or a plain slope."""
    steps = (np.arange(side, dtype=np.float32) + 0.5) / side
    x, y = np.meshgrid(steps, steps)
    angle = rng.uniform(0, 2 * math.pi)
    along = x * math.cos(angle) + y * math.sin(angle)
    across = y * math.cos(angle) - x * math.sin(angle)
    bend = 0.15 * draw_noise(rng, side, 4)
    frequency = rng.uniform(12, 45)
    kind = rng.integers(5)
    if kind == 0:
        octaves = [draw_noise(rng, side, cells) / weight for cells, weight in ((4, 1), (9, 2), (20, 4), (45, 8))]
        pattern = np.sum(octaves, axis=0) / 1.875
    elif kind == 1:
        pattern = 0.5 + 0.5 * np.sin(frequency * (along + bend))
    elif kind == 2:
        pattern = 0.5 + 0.5 * np.sin(frequency * (along + bend)) * np.sin(frequency * (across + bend))
    elif kind == 3:
        pattern = 0.5 + 0.5 * np.sin(frequency * np.hypot(x - rng.random(), y - rng.random()) + 3 * bend)
    else:
        pattern = (along - along.min()) / np.ptp(along)
    return np.asarray(pattern, np.float32)


def draw_background(rng: np.random.Generator, side: int) -> Floats:
    """Draw a coloured background (3, side, side): a texture between two colours over a slow drift."""
    first, second, third = (pick_colour(rng) for _ in range(3))
    drift = draw_noise(rng, side, 2)
    strength = rng.uniform(0.2, 0.9) * draw_texture(rng, side)
    return mix(mix(first, second, drift), third, strength)


def finish(rng: np.random.Generator, picture: Floats, grain: float) -> Bytes:
    """Add `grain` of film noise to a picture (3, H, W) and round it to bytes (H, W, 3)."""
    noisy = picture + grain * rng.standard_normal(picture.shape, dtype=np.float32)
    return np.ascontiguousarray(np.clip(noisy * 255.0 + 0.5, 0.0, 255.0).astype(np.uint8).transpose(1, 2, 0))


def draw_digit(rng: np.random.Generator, glyph: Image.Image, side: int = 64) -> Bytes:
    """Draw one digit as a picture (side, side, 3): any colours, either polarity, on plain or textured paper."""
    paper, ink = pick_pair(rng)
    ground = paper
    if rng.random() < 0.7:  # the texture stays on the paper's side of the ink
        other, strength = pick_colour(rng), rng.uniform(0.1, 0.5)
        ground = mix(ground, other, strength * draw_texture(rng, side))
    height = side * rng.uniform(0.55, 0.85)
    slack = side * 0.08
    centre = (side / 2 + rng.uniform(-slack, slack), side / 2 + rng.uniform(-slack, slack))
    shape = draw_ink(rng, glyph, side, height, centre)
    if rng.random() < 0.3:  # a soft shadow, lower right
        shift = max(1, round(side * 0.03))
        shade = np.roll(shape, (shift, shift), (0, 1))
        ground = ground * (1.0 - rng.uniform(0.2, 0.5) * shade)
    return finish(rng, mix(ground, ink, shape), rng.uniform(0.0, 0.04))


def scatter(rng: np.random.Generator, side: int, digits: Sequence[int]) -> list[Badge]:
    """Find places for round badges of different sizes that neither overlap nor leave the scene.

    A badge for which no place is found in 25 throws is left out.
    """
    badges: list[Badge] = []
    for digit in digits:
        for _ in range(25):
            radius = side * rng.uniform(0.11, 0.19)
            x, y = (rng.uniform(radius + 1, side - radius - 1) for _ in range(2))
            if all(math.hypot(x - b.x, y - b.y) > radius + b.radius + 0.015 * side for b in badges):
                badges.append(Badge(x, y, radius, digit))
                break
    return badges


def disc(side: int, x: float, y: float, radius: float, softness: float = 1.0) -> Floats:
    """Draw a filled disc on a (side, side) field: 1 inside, 0 outside, an edge `softness` pixels wide."""
    steps = np.arange(side, dtype=np.float32) + 0.5
    distance = np.sqrt((steps - x) ** 2 + (steps[:, None] - y) ** 2)
    return np.clip((radius - distance) / softness + 0.5, 0.0, 1.0)


def draw_clutter(rng: np.random.Generator, picture: Floats) -> Floats:
    """Lay pale discs, rings and bars over a background: round things and strokes that are no badges."""
    side = picture.shape[1]
    steps = (np.arange(side, dtype=np.float32) + 0.5) / side
    for _ in range(rng.integers(3, 9)):
        colour, strength = pick_colour(rng), rng.uniform(0.25, 0.7)
        x, y = rng.uniform(0, side), rng.uniform(0, side)
        radius = side * rng.uniform(0.03, 0.14)
        kind = rng.integers(3)
        if kind == 0:
            shape = disc(side, x, y, radius)
        elif kind == 1:
            shape = disc(side, x, y, radius) - disc(side, x, y, radius * rng.uniform(0.5, 0.85))
        else:
            angle = rng.uniform(0, math.pi)
            away = (steps - x / side) * math.cos(angle) + (steps[:, None] - y / side) * math.sin(angle)
            shape = np.clip((radius * 0.3 - np.abs(away) * side) + 0.5, 0.0, 1.0)
        picture = mix(picture, colour, strength * shape)
    return picture


def draw_badge(rng: np.random.Generator, picture: Floats, badge: Badge, glyph: Image.Image) -> None:
    """Draw one badge into a scene, in place: shadow, rim, face with a soft light from above, and the digit."""
    paper, ink = pick_pair(rng)
    rim = ink if rng.random() < 0.5 else pick_colour(rng)
    reach = badge.radius * 1.3
    left, top = max(0, int(badge.x - reach)), max(0, int(badge.y - reach))
    patch = picture[:, top : int(badge.y + reach) + 1, left : int(badge.x + reach) + 1]
    _, height, width = patch.shape
    size = max(height, width)  # fields are drawn square and cut to the patch
    x, y = badge.x - left, badge.y - top

    shadow = disc(size, x + 0.06 * badge.radius, y + 0.1 * badge.radius, badge.radius, 0.25 * badge.radius)
    face = disc(size, x, y, badge.radius * rng.uniform(0.86, 0.95))
    light = 1.08 - 0.16 * (np.arange(height, dtype=np.float32) / height)[:, None]
    shape = draw_ink(rng, glyph, size, badge.radius * rng.uniform(1.2, 1.45), (x, y))
    whole = patch * (1.0 - 0.45 * shadow[:height, :width])
    whole = mix(whole, rim, disc(size, x, y, badge.radius)[:height, :width])
    whole = mix(whole, np.clip(paper * light, 0.0, 1.0), face[:height, :width])
    patch[...] = mix(whole, ink, (shape * face)[:height, :width])


def draw_single_badge(rng: np.random.Generator, glyph: Image.Image, side: int, radius: float) -> Bytes:
    """Draw one badge near the middle of a (side, side, 3) picture: what a scene shows in a small window."""
    picture = draw_clutter(rng, draw_background(rng, side))
    x, y = (side / 2 + rng.uniform(-0.06, 0.06) * side for _ in range(2))
    draw_badge(rng, picture, Badge(x, y, radius, 0), glyph)
    return finish(rng, picture, rng.uniform(0.0, 0.03))


def draw_scene(
    rng: np.random.Generator, glyphs: Sequence[Image.Image], digits: Sequence[int], side: int = 160
) -> tuple[Bytes, Bytes, list[Badge]]:
    """Draw a square scene with one badge for each of `digits`, glyph i showing digit i of the list.

    Returns the picture (side, side, 3), the class of every pixel (side, side) (BACKGROUND, or the digit + 1 inside a
    badge's rim) and the badges that found a place. Everything scales with `side`.
    """
    picture = draw_clutter(rng, draw_background(rng, side))
    classes = np.full((side, side), BACKGROUND, np.uint8)
    places = scatter(rng, side, range(len(digits)))  # Badge.digit is an index into the list here
    badges = []
    for place in places:
        badge = Badge(place.x, place.y, place.radius, int(digits[place.digit]))
        draw_badge(rng, picture, badge, glyphs[place.digit])
        classes[disc(side, badge.x, badge.y, badge.radius) >= 0.5] = badge.digit + 1
        badges.append(badge)
    return finish(rng, picture, rng.uniform(0.0, 0.03)), classes, badges
