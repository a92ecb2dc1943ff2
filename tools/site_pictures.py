"""The pictures of the pages on tasks, made with the embedded models: `python -m tools.site_pictures docs/tasks`."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from PIL import Image

import minimobile as mm
from minimobile.cli import main as main_command
from minimobile.imaging.box_drawing import draw_boxes
from minimobile.imaging.charts import Bar, draw_bars
from minimobile.imaging.drawing import encode_jpeg, encode_png
from minimobile.imaging.pictures import open_image
from minimobile.tracing.channel_grid import draw_channels

DEMO = Path(mm.__file__).parent / "demo"
SIDE = 240


def draw_classes() -> Image.Image:
    """Return a digit beside the five likeliest labels."""
    photo = open_image(DEMO / "digit_9.png").resize((SIDE, SIDE))
    found = mm.classify(photo, model="demo:digits", top=5)
    bars = [Bar(row["label"], row["probability"], row["probability"], f"{row['probability']:.2%}") for row in found]
    chart = draw_bars(bars, "the five likeliest labels", "probability")
    sheet = Image.new("RGB", (SIDE + chart.width, max(SIDE, chart.height)), "white")
    sheet.paste(photo, (0, 0))
    sheet.paste(chart, (SIDE, (sheet.height - chart.height) // 2))
    return sheet


def draw_features() -> Image.Image:
    """Return what two early layers make of a digit."""
    model = mm.load("demo:digits")
    pixels = model.processor(open_image(DEMO / "digit_7.png"), return_tensors="np")["pixel_values"]
    found = model.features(pixels, ["conv_stem", "layer.4"])
    return draw_channels({name: values[0] for name, values in found.items()}, 16)


def draw_objects() -> Image.Image:
    """Return the scene with the boxes of its digits."""
    photo = open_image(DEMO / "scene.png")
    return draw_boxes(photo, mm.detect(photo, model="demo:boxes"))


def draw_quantised(path: Path) -> None:
    """Draw what each step of quantising gains in every layer, as the command does."""
    with tempfile.TemporaryDirectory() as folder:
        words = ["quantize", "demo:digits", f"{folder}/digits.tflite", "--calibrate", str(DEMO)]
        if main_command([*words, "--picture", str(path), "--force"]):
            raise SystemExit(1)


def main(words: list[str]) -> None:
    """Write all pictures into the folder: photographs as JPEG, which keeps each below 100 kB."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="one that exists")
    folder: Path = parser.parse_args(words).folder
    files = {
        "classify.png": encode_png(draw_classes()),
        "features.png": encode_png(draw_features()),
        "segment.jpg": encode_jpeg(mm.segment(DEMO / "scene.png", "demo:scenes").overlay()),
        "detect.jpg": encode_jpeg(draw_objects()),
    }
    for name, content in files.items():
        (folder / name).write_bytes(content)
    draw_quantised(folder / "quantise.png")


if __name__ == "__main__":
    main(sys.argv[1:])
