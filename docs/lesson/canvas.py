"""Pictures for the lesson, drawn into NumPy arrays (H, W, 3) of bytes: cells with numbers, maps, dots and words.

The letters are a table of bits here, so that every machine draws the same pixels.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from minimobile.tracing.colour_scales import colour_values

Picture: TypeAlias = NDArray[np.uint8]
Colour: TypeAlias = tuple[int, int, int]

PAPER, INK, GREY, PALE = (255, 255, 255), (40, 40, 40), (150, 150, 150), (238, 238, 238)
BLUE, ORANGE, GREEN = (70, 120, 200), (225, 130, 50), (80, 160, 90)
LETTER_WIDTH = 6  # of a letter of size 1, with the gap after it
STEPS = 64  # of a colour scale: few enough for a small file


def blank(height: int, width: int) -> Picture:
    """Return an empty picture."""
    return np.full((height, width, 3), PAPER, np.uint8)


def fill(picture: Picture, top: int, left: int, height: int, width: int, colour: Colour) -> None:
    """Paint a rectangle."""
    picture[top : top + height, left : left + width] = colour


def draw_cell(picture: Picture, top: int, left: int, size: int, colour: Colour, text: object = "") -> None:
    """Draw a square with a thin frame and a short text in its middle."""
    fill(picture, top, left, size, size, GREY)
    fill(picture, top + 1, left + 1, size - 2, size - 2, colour)
    words = str(text)
    letter = 1 if len(words) > 3 else 2
    ink = PAPER if sum(colour) < 400 else INK
    height, width = letter * 7, letter * (LETTER_WIDTH * len(words) - 1)
    write(picture, top + (size - height) // 2, left + (size - width + 1) // 2, words, ink, letter)


def draw_map(picture: Picture, top: int, left: int, values: NDArray[Any], scale: int, low: float, high: float) -> None:
    """Draw a map (H, W), each value `scale` pixels large: dark blue to yellow from `low` to `high`.

    With `low` below zero: blue below zero, white at it, orange above. There are STEPS colours in between.
    """
    step = (high - low) / STEPS or 1.0
    colours = colour_values(low + np.rint((values - low) / step) * step, low, high)
    colours = colours.repeat(scale, axis=0).repeat(scale, axis=1)
    height, width, _ = colours.shape
    fill(picture, top - 1, left - 1, height + 2, width + 2, GREY)
    picture[top : top + height, left : left + width] = colours


def draw_dots(picture: Picture, rows: NDArray[Any], columns: NDArray[Any], colours: NDArray[np.uint8]) -> None:
    """Draw dots of 3 x 3 pixels around the given places, the later ones above; those beyond the edges are left out."""
    height, width, _ = picture.shape
    for row, column, colour in zip(np.rint(rows).astype(int), np.rint(columns).astype(int), colours, strict=True):
        if 1 <= row < height - 1 and 1 <= column < width - 1:
            fill(picture, row - 1, column - 1, 3, 3, tuple(colour))


def write(picture: Picture, top: int, left: int, text: str, colour: Colour = INK, size: int = 2) -> None:
    """Write a line of letters; a letter takes 6 x 9 pixels times `size`."""
    for index, letter in enumerate(text):
        bits = np.array([[row >> bit & 1 for bit in range(4, -1, -1)] for row in bytes.fromhex(LETTERS[letter])], bool)
        dots = bits.repeat(size, axis=0).repeat(size, axis=1)
        start = left + index * LETTER_WIDTH * size
        picture[top : top + dots.shape[0], start : start + dots.shape[1]][dots] = colour


def save(picture: Picture, path: str) -> None:
    """Write a PNG file, with a palette of the picture's own colours if these are at most 256."""
    colours, indices = np.unique(picture @ np.array([1 << 16, 1 << 8, 1]), return_inverse=True)
    if len(colours) > 256:
        Image.fromarray(picture).save(path, optimize=True)
        return
    image = Image.fromarray(indices.reshape(picture.shape[:2]).astype(np.uint8))
    image.putpalette(b"".join(int(colour).to_bytes(3, "big") for colour in colours))
    image.save(path, optimize=True)


# A letter is its rows from the top, a byte of five bits each; what is more than seven rows hangs below the line.
LETTERS = {
    " ": "00", "-": "0000001f", "+": "0004041f0404", ".": "00000000000c0c", ",": "00000000000c0408",
    ":": "000c0c000c0c", "=": "00001f001f", "/": "01010204081010", "(": "02040808080402", ")": "08040202020408",
    "%": "18190204081303", ">": "08040201020408", "*": "00150e1f0e15", "0": "0e11111511110e", "1": "040c040404040e",
    "2": "0e11010608101f", "3": "0e11010601110e", "4": "02060a121f0202", "5": "1f101e0101110e", "6": "0608101e11110e",
    "7": "1f010204040808", "8": "0e11110e11110e", "9": "0e11110f01020c", "A": "0e11111f111111", "B": "1e11111e11111e",
    "C": "0e11101010110e", "D": "1e11111111111e", "E": "1f10101e10101f", "F": "1f10101e101010", "G": "0e11101711110f",
    "H": "1111111f111111", "I": "0e04040404040e", "J": "0702020202120c", "K": "11121418141211", "L": "1010101010101f",
    "M": "111b1515111111", "N": "11191915131311", "O": "0e11111111110e", "P": "1e11111e101010", "Q": "0e11111115120d",
    "R": "1e11111e141211", "S": "0f10100e01011e", "T": "1f040404040404", "U": "1111111111110e", "V": "11111111110a04",
    "W": "11111115151b11", "X": "11110a040a1111", "Y": "11110a04040404", "Z": "1f01020408101f", "a": "00000e010f110f",
    "b": "10101e1111111e", "c": "00000e1110110e", "d": "01010f1111110f", "e": "00000e111f100e", "f": "06081e08080808",
    "g": "00000f1111110f010e", "h": "10101e11111111", "i": "04000c0404040e", "j": "02000602020202120c",
    "k": "10101214181412", "l": "0c04040404040e", "m": "00001a15151515", "n": "00001e11111111", "o": "00000e1111110e",
    "p": "00001e1111111e1010", "q": "00000f1111110f0101", "r": "00001618101010", "s": "00000f100e011e",
    "t": "08081e08080806", "u": "0000111111110f", "v": "00001111110a04", "w": "0000111515150a", "x": "0000110a040a11",
    "y": "0000111111110f010e", "z": "00001f0204081f",
}  # fmt: skip
