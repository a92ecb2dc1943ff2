"""The table of `docs/differs.md`: ten usual faults of an export, planted in an embedded model, and what `check` says.

`python -m tools.differs` prints it, `--write` puts it into the page.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import minimobile as mm
from minimobile.comparison.crosscheck import check
from minimobile.comparison.peers import compared_layers
from minimobile.comparison.report import Report
from minimobile.comparison.weight_hypotheses import PRECISIONS

Array = NDArray[Any]
ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "differs.md"
SOURCE, PICTURE = "demo:scenes", ROOT / "minimobile" / "demo" / "scene.png"
BEGIN, END = "<!-- made by tools/differs.py -->", "<!-- end -->"
LONGEST = 110  # characters of what is said


@dataclasses.dataclass(frozen=True)
class Cause:
    """A fault: what is done to the pixels, to the weights, and to fields of the config, of the other side."""

    words: str
    pixels: Callable[[Array], Array] = lambda pixels: pixels
    weights: Callable[[Mapping[str, Array]], dict[str, Array]] = lambda weights: {}
    fields: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def _imagenet(pixels: Array) -> Array:
    mean, std = (np.reshape(values, (3, 1, 1)) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    return ((pixels + 1) / 2 - mean) / std


def _roll_classes(weights: Mapping[str, Array]) -> dict[str, Array]:
    return {name: np.roll(values, 1, axis=0) for name, values in weights.items() if "head.classifier" in name}


def _round(weights: Mapping[str, Array]) -> dict[str, Array]:
    return {name: PRECISIONS["bfloat16"](values).astype(np.float32) for name, values in weights.items()}


def _transpose(weights: Mapping[str, Array]) -> dict[str, Array]:
    kernels = (name for name, values in weights.items() if values.ndim == 4 and values.shape[1] == 1)
    return {name: np.ascontiguousarray(weights[name].swapaxes(2, 3)) for name in kernels if weights[name].shape[2] > 1}


def _forget(weights: Mapping[str, Array]) -> dict[str, Array]:
    return {name: np.zeros_like(values) for name, values in weights.items() if name.endswith("running_mean")}


CAUSES = (
    Cause("pixels in [0, 1], not [-1, 1]", pixels=lambda x: (x + 1) / 2),
    Cause("pixels by ImageNet's mean and deviation", pixels=_imagenet),
    Cause("channels as BGR", pixels=lambda x: x[:, ::-1]),
    Cause("padding the same on all sides (PyTorch's), not SAME", fields={"tf_padding": False}),
    Cause("batch norm's epsilon 1e-5, not 1e-3", fields={"layer_norm_eps": 1e-5}),
    Cause("relu, not relu6", fields={"hidden_act": "relu"}),
    Cause("batch norm without its means", weights=_forget),
    Cause("depthwise kernels transposed", weights=_transpose),
    Cause("classes moved by one, for a background class", weights=_roll_classes),
    Cause("weights rounded to bfloat16", weights=_round),
)


def run_cause(model: Any, cause: Cause, pixels: Array) -> tuple[Report, Array, Array]:
    """Return what `check` reports of a fault, and the logits without and with it."""
    checkpoint = model.to_checkpoint()
    weights = {**checkpoint.weights, **cause.weights(checkpoint.weights)}
    config = checkpoint.config.replace(**cause.fields)
    other = type(model).from_checkpoint(dataclasses.replace(checkpoint, weights=weights, config=config))
    fed = np.ascontiguousarray(cause.pixels(pixels), np.float32)

    def run(given: Array) -> dict[str, Array]:
        found: dict[str, Array] = other.features(fed, compared_layers(model.graph))
        return found

    return check(model, against=run, pixel_values=pixels), model(pixels).logits, other(fed).logits


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %" if share < 0.1 else f"{100 * share:.0f} %"


def make_rows() -> Iterator[str]:
    """Yield the lines of the table."""
    model: Any = mm.load(SOURCE)
    pixels = model.processor(PICTURE, return_tensors="np")["pixel_values"]
    yield "| what differs | first layer | layer off by | logits off by | map that changes | `check` says |"
    yield "|---|---|---|---|---|---|"
    for cause in CAUSES:
        report, ours, theirs = run_cause(model, cause, pixels)
        first = next(layer for layer in report.layers if layer.agrees is False)
        off = float(np.abs(ours - theirs).max() / np.abs(ours).max())
        changed = float((ours.argmax(1) != theirs.argmax(1)).mean())
        said = str(report.diagnosis)
        said = said if len(said) <= LONGEST else f"{said[:LONGEST].rpartition(' ')[0]} ..."
        figures = " | ".join(map(_percent, (first.their_error or 0.0, off, changed)))
        yield f"| {cause.words} | `{report.first_difference}` | {figures} | {said} |"


def main(words: list[str]) -> None:
    """Print the table, or write it into the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="put the table into the page")
    arguments = parser.parse_args(words)
    table = "\n".join(make_rows())
    if not arguments.write:
        sys.stdout.write(f"{table}\n")
        return
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n{table}\n{END}{rest.partition(END)[2]}", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
