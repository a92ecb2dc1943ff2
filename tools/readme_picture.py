"""The README's picture: a photograph, what a classifier says of it, and what a segmentation finds in it.

    python -m tools.readme_picture PHOTO --classifier SRC --segmenter SRC --out docs/photograph.png

The one in the tree is Chelsea the cat by Stéfan van der Walt (CC0; `chelsea.png` of scikit-image's sample data).
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

import minimobile as mm
from minimobile.imaging.drawing import draw_overlay
from minimobile.imaging.pictures import open_image
from minimobile.models.segmentation import find_classes

HEIGHT, MARGIN, PANEL = 260, 16, 380
INK, FAINT, BAR, PAPER = (32, 33, 36), (95, 99, 104), (66, 133, 244), (255, 255, 255)


def draw_answers(photo: Image.Image, overlay: Image.Image, answers: list[dict[str, Any]], found: str) -> Image.Image:
    """Return one picture of three: the photograph, its classes with bars, and the overlay with the class's name."""
    sides = [image.resize((round(image.width * HEIGHT / image.height), HEIGHT)) for image in (photo, overlay)]
    width = sum(side.width for side in sides) + PANEL + 4 * MARGIN
    sheet = Image.new("RGB", (width, HEIGHT + 2 * MARGIN + 24), PAPER)
    draw, font, small = ImageDraw.Draw(sheet), ImageFont.load_default(17), ImageFont.load_default(14)
    left = MARGIN
    sheet.paste(sides[0], (left, MARGIN))
    draw.text((left, MARGIN + HEIGHT + 6), "photograph", FAINT, small)
    left += sides[0].width + MARGIN
    for row, answer in enumerate(answers):
        top = MARGIN + row * (HEIGHT // len(answers))
        probability = answer["probability"]
        draw.text((left, top), answer["label"], INK, font)
        draw.text((left + PANEL, top), f"{100 * probability:.1f} %", INK, font, anchor="ra")
        draw.rectangle((left, top + 26, left + PANEL, top + 36), (232, 234, 237))
        draw.rectangle((left, top + 26, left + max(1, round(PANEL * probability)), top + 36), BAR)
    draw.text((left, MARGIN + HEIGHT + 6), "classify: MobileNet V2 1.0, 224 x 224", FAINT, small)
    left += PANEL + MARGIN
    sheet.paste(sides[1], (left, MARGIN))
    draw.text((left, MARGIN + HEIGHT + 6), f"segment: DeepLabV3+ on MobileNet V2, {found}", FAINT, small)
    return sheet


def main() -> None:
    """Draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photo", type=Path)
    for name in ("classifier", "segmenter", "out"):
        parser.add_argument(f"--{name}", required=True)
    given = parser.parse_args()
    photo = open_image(given.photo)
    segmenter = mm.load(given.segmenter)
    classes = find_classes(segmenter, photo)
    names = sorted({segmenter.id2label[int(index)] for index in set(classes.ravel().tolist()) if index})
    answers = mm.classify(given.photo, model=given.classifier, top=5)
    sheet = draw_answers(photo, draw_overlay(photo, classes), answers, ", ".join(names))
    sheet.quantize(256, dither=Image.Dither.NONE).save(given.out, optimize=True)


if __name__ == "__main__":
    main()
