"""`minimobile demo`: the embedded models on the bundled pictures, with no network and no other file."""

from __future__ import annotations

import time
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

from minimobile.cli import console, targets
from minimobile.cli.options import Force, Format, OutputFormat, path_option

OVERLAY = Path("minimobile-demo-overlay.png")
BOX_THRESHOLD = (
    0.3  # training by focal loss keeps scores low: of scene.png's badges 0.42 to 0.96, of anything else 0.13
)
SCENE_DIGITS = (0, 1, 2, 5, 6, 7, 9)  # what scene.png shows; digit k has class k + 1, class 0 is the background


def demo(
    out: Annotated[
        Path, path_option("--out", metavar="FILE", help="The overlay to write, a PNG. Its folder must exist.")
    ] = OVERLAY,
    force: Force = False,
    output_format: OutputFormat = Format.TABLE,
) -> None:
    """Run the embedded models: no network, no file needed.

    A MobileNet V1 reads handwritten digits, a MobileNet V2 with DeepLabV3+ says what every pixel of a scene shows, and
    one with SSDLite finds its digits; the scene, tinted by class and with their boxes, is written to FILE.
    """
    started = time.perf_counter()
    targets.check_target("--out", out, targets.PICTURE_SUFFIXES, overwrite=True)  # it may be there, from the last time
    digits, digit_seconds = _read_digits()
    boxes, box_seconds = _find_boxes()
    classes, scene_seconds = _find_digits(out, force, boxes)
    total = time.perf_counter() - started
    seconds = {"digits": digit_seconds, "scene": scene_seconds, "boxes": box_seconds, "total": total}
    if output_format is Format.JSON:
        scene = {"image": "scene.png", "truth": list(SCENE_DIGITS), "overlay": str(out), "classes": classes}
        console.write_json({"digits": digits, "scene": {**scene, "detections": boxes}, "seconds": seconds})
    else:
        _write_tables(digits, classes, boxes, seconds, out)


def _read_digits() -> tuple[list[dict[str, Any]], float]:
    """Return image, truth, prediction and probability of every bundled digit, and the seconds that all of them took."""
    import minimobile
    from minimobile.cli.models import open_model
    from minimobile.imaging.pictures import open_image

    model = open_model("demo:digits")
    files = [file for file in resources.files("minimobile.demo").iterdir() if file.name.startswith("digit_")]
    pictures = {file.name: open_image(file.read_bytes()) for file in sorted(files, key=lambda file: file.name)}
    for picture in pictures.values():
        minimobile.classify(picture, model=model)  # the first run prepares the program for this size; it is not timed
        break
    started = time.perf_counter()
    best = {name: minimobile.classify(picture, model=model, top=1)[0] for name, picture in pictures.items()}
    seconds = time.perf_counter() - started
    return [
        {
            "image": name,
            "truth": int(name.removeprefix("digit_").removesuffix(".png")),
            "prediction": found["index"],
            "probability": found["probability"],
        }
        for name, found in best.items()
    ], seconds


def _find_boxes() -> tuple[list[dict[str, Any]], float]:
    """Return what is detected in the bundled scene, and the seconds that it took."""
    import minimobile
    from minimobile.cli.models import open_model
    from minimobile.imaging.pictures import open_image

    model = open_model("demo:boxes")
    photo = open_image((resources.files("minimobile.demo") / "scene.png").read_bytes())
    minimobile.detect(photo, model, BOX_THRESHOLD)  # prepares the program for this size; it is not timed
    started = time.perf_counter()
    found = minimobile.detect(photo, model, BOX_THRESHOLD)
    return found, time.perf_counter() - started


def _find_digits(out: Path, force: bool, boxes: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], float]:
    """Return the classes in the bundled scene and the seconds that finding them took; write the overlay with boxes."""
    import minimobile
    from minimobile.cli.models import open_model
    from minimobile.imaging.box_drawing import draw_boxes
    from minimobile.imaging.drawing import encode_png
    from minimobile.imaging.pictures import open_image
    from minimobile.storage.files import write_whole_bytes

    model = open_model("demo:scenes")
    photo = open_image((resources.files("minimobile.demo") / "scene.png").read_bytes())
    minimobile.segment(photo, model)  # prepares the program for this size; it is not timed
    started = time.perf_counter()
    found = minimobile.segment(photo, model)
    seconds = time.perf_counter() - started
    write_whole_bytes(out, encode_png(draw_boxes(found.overlay(legend=False), boxes)), overwrite=force)
    return found.shares, seconds


def _write_tables(
    digits: list[dict[str, Any]],
    classes: list[dict[str, Any]],
    boxes: list[dict[str, Any]],
    seconds: dict[str, float],
    out: Path,
) -> None:
    rows = [(row["image"], row["truth"], row["prediction"], f"{100 * row['probability']:.2f} %") for row in digits]
    console.write_table(("picture", "truth#", "prediction#", "probability#"), rows, "demo:digits, MobileNet V1 0.25")
    right = sum(row["truth"] == row["prediction"] for row in digits)
    per_picture = 1000 * seconds["digits"] / len(digits)
    console.write_text(f"{right} of {len(digits)} right, {per_picture:.2f} ms per picture")
    console.write_text("")
    expected = {0, *(digit + 1 for digit in SCENE_DIGITS)}
    shares = [
        (row["label"], f"{100 * row['share']:.2f} %", "yes" if row["index"] in expected else "no") for row in classes
    ]
    console.write_table(
        ("found in scene.png", "share#", "is there"), shares, "demo:scenes, MobileNet V2 with DeepLabV3+"
    )
    found = sum(row["index"] in expected and row["index"] > 0 for row in classes)
    console.write_text(f"{found} of {len(SCENE_DIGITS)} digits found in {1000 * seconds['scene']:.1f} ms")
    console.write_text("")
    rows = [
        (found["label"], f"{found['score']:.3f}", *(f"{side:.0f}" for side in found["box"].values())) for found in boxes
    ]
    titles = ("boxes in scene.png", "score#", "xmin#", "ymin#", "xmax#", "ymax#")
    console.write_table(titles, rows, "demo:boxes, MobileNet V2 0.35 with SSDLite")
    console.write_text(f"{len(boxes)} boxes in {1000 * seconds['boxes']:.1f} ms")
    console.write_text(f"wrote the scene, tinted and with boxes, to {out}")
    console.write_text("")
    console.write_text(f"{seconds['total']:.2f} s altogether. A real network for your own pictures (extra: hub):")
    console.write_text("  minimobile classify photo.jpg --model google/mobilenet_v2_1.0_224")
