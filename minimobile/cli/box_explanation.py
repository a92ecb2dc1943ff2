"""A detection's box step by step, as `minimobile trace --box` prints it."""

from __future__ import annotations

import struct
from typing import Any

from minimobile.cli import console


def write_box(explanation: Any, label: str, height: int, width: int) -> None:
    """Write where the anchor stands, what is predicted for it, and each step to the box, to stdout."""
    index, row, column, shape = explanation.place
    console.write_text(
        f"detection {explanation.rank}: {label}, score {explanation.score:.6f} = sigmoid of {explanation.logit:.6f}"
    )
    console.write_text(
        f"anchor {explanation.anchor}: map {index}, row {row}, column {column}, shape {shape} "
        f"(detection_head.boxes.{index}.projection, channels {4 * shape} to {4 * shape + 3})"
    )
    rows = [
        (name, f"{anchor:.7g}", f"{code:.7g}")
        for name, anchor, code in zip("yxhw", explanation.anchor_box, explanation.encoding, strict=True)
    ]
    console.write_table(("", "anchor#", "predicted#"), rows)
    console.write_text("")
    steps = [(step.name, step.formula, f"{step.value:.9g}", _bits(step.value)) for step in explanation.steps]
    console.write_table(("step", "computed as", "value#", "bits#"), steps)
    console.write_text("")
    sides = [side * (height, width)[place % 2] for place, side in enumerate(explanation.box)]
    console.write_text(
        "in pixels of the network's picture: ymin {:.1f}, xmin {:.1f}, ymax {:.1f}, xmax {:.1f}".format(*sides)
    )


def _bits(value: float) -> str:
    return struct.pack(">f", value).hex()
