"""What the embedded models are trained and measured on: the split of the digits, pools of drawn pictures, the bundle.

scikit-learn's digits are the only source; no torch here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_digits

from tools.demo_scenes import Badge, Bytes, draw_digit, draw_glyph, draw_scene, draw_single_badge

SEED = 20240607
SOURCE = (
    "Optical Recognition of Handwritten Digits (E. Alpaydin, C. Kaynak; UCI Machine Learning Repository, 1998, "
    "doi:10.24432/C50P49, CC BY 4.0), the 1797 digits of scikit-learn's load_digits; drawn as pictures by "
    "tools/demo_scenes.py"
)
DIGIT_SIDE, BADGE_SIDE, SCENE_SIDE = 64, 48, 160  # pixels
MOST_BADGES = 9

BUNDLED_DIGIT_SIDE, BUNDLED_SCENE_SIDE = 128, 480  # larger than the networks see: the processors scale them down
BUNDLED_DIGITS = ((37, 4), (65, 3), (85, 9), (33, 2), (40, 0), (52, 2))  # (held-out digit, seed)
BUNDLED_SCENE = 132  # seed
Draw = Callable[[int, int], tuple[Bytes, Any]]  # (part, index) to picture and target
TRAIN, HELD_OUT = 0, 1  # the parts of the split


@dataclass(frozen=True)
class Digits:
    """One part of the split: glyphs, ready to draw, and which digit each of them is."""

    glyphs: list[Image.Image]
    targets: NDArray[np.int64]


@cache
def split_digits() -> tuple[Digits, Digits]:
    """Split the 1797 digits, by image and within every class, into 80 % for training and 20 % held out."""
    images, targets = load_digits(return_X_y=True)
    images = images.reshape(-1, 8, 8)
    rng = np.random.default_rng(SEED)
    held_out = np.zeros(len(targets), bool)
    for digit in range(10):
        members = rng.permutation(np.flatnonzero(targets == digit))
        held_out[members[: round(0.2 * len(members))]] = True
    parts = []
    for chosen in (~held_out, held_out):
        parts.append(Digits([draw_glyph(image) for image in images[chosen]], targets[chosen].astype(np.int64)))
    return parts[0], parts[1]


def draw_one_digit(part: int, index: int) -> tuple[Bytes, Any]:
    """Draw picture `index` of the digits' pool: the digits of the part come round in turn."""
    digits = split_digits()[part]
    which = index % len(digits.targets)
    rng = np.random.default_rng([SEED, 1, part, index])
    return draw_digit(rng, digits.glyphs[which], DIGIT_SIDE), digits.targets[which]


def draw_one_badge(part: int, index: int) -> tuple[Bytes, Any]:
    """Draw picture `index` of the badges' pool, each of the size it could have in a scene."""
    digits = split_digits()[part]
    which = index % len(digits.targets)
    rng = np.random.default_rng([SEED, 5, part, index])
    radius = SCENE_SIDE * rng.uniform(0.11, 0.17)
    return draw_single_badge(rng, digits.glyphs[which], BADGE_SIDE, radius), digits.targets[which]


def draw_one_scene(part: int, index: int) -> tuple[Bytes, Any]:
    """Draw scene `index` of the scenes' pool, with at most nine badges, and the class of each of its pixels."""
    picture, classes, _ = _draw_scene(part, index)
    return picture, classes


def draw_one_boxed_scene(part: int, index: int) -> tuple[Bytes, Any]:
    """Draw the same scene `index`, and its badges: float32 (MOST_BADGES, 5), a row (digit, ymin, xmin, ymax, xmax).

    Corners are relative to the scene's side; rows without a badge have the digit -1.
    """
    picture, _, badges = _draw_scene(part, index)
    rows = np.full((MOST_BADGES, 5), -1, np.float32)
    for row, badge in zip(rows, badges, strict=False):
        corners = (badge.y - badge.radius, badge.x - badge.radius, badge.y + badge.radius, badge.x + badge.radius)
        row[:] = badge.digit, *(corner / SCENE_SIDE for corner in corners)
    return picture, rows


def _draw_scene(part: int, index: int) -> tuple[Bytes, Bytes, list[Badge]]:
    digits = split_digits()[part]
    rng = np.random.default_rng([SEED, 2, part, index])
    which = rng.integers(0, len(digits.targets), rng.integers(4, MOST_BADGES + 1))
    return draw_scene(rng, [digits.glyphs[i] for i in which], list(digits.targets[which]), SCENE_SIDE)


def draw_pool(draw: Draw, part: int, first: int, count: int) -> tuple[Bytes, NDArray[Any]]:
    """Draw pictures `first` to `first + count` in two processes: bytes (count, side, side, 3) and their targets.

    Picture i has its own seed, so the pool does not depend on who draws what.
    """
    with get_context("spawn").Pool(2) as workers:
        drawn = workers.starmap(draw, [(part, index) for index in range(first, first + count)], chunksize=64)
    pictures, targets = zip(*drawn, strict=True)
    return np.stack(pictures), np.stack(targets)


def draw_bundle(folder: Path) -> None:
    """Draw the bundled pictures from held-out digits: digit_K.png shows a K, scene.png up to ten badges, one a digit.

    The digits and seeds were chosen by eye among pictures that the model reads: its accuracy is measured elsewhere.
    """
    digits = split_digits()[HELD_OUT]
    for which, seed in BUNDLED_DIGITS:
        rng = np.random.default_rng([SEED, 3, which, seed])
        picture = draw_digit(rng, digits.glyphs[which], BUNDLED_DIGIT_SIDE)
        Image.fromarray(picture).save(folder / f"digit_{digits.targets[which]}.png", optimize=True)
    rng = np.random.default_rng([SEED, 4, BUNDLED_SCENE])
    chosen = [int(rng.choice(np.flatnonzero(digits.targets == digit))) for digit in rng.permutation(10)]
    picture, _, badges = draw_scene(
        rng, [digits.glyphs[i] for i in chosen], list(digits.targets[chosen]), BUNDLED_SCENE_SIDE
    )
    Image.fromarray(picture).save(folder / "scene.png", optimize=True)
    print("scene.png shows", ", ".join(f"{b.digit} at ({b.x:.0f}, {b.y:.0f})" for b in badges))
