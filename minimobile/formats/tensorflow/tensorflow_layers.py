"""A frozen graph on its way to layers: the attributes that many of its operations share."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minimobile.formats.matching.translation import Translation
from minimobile.formats.tensorflow.graph_constants import Constants
from minimobile.formats.tensorflow.graph_def import GraphNode

Pair = tuple[int, int]


@dataclasses.dataclass
class GraphTranslation(Translation):
    """What has been translated of a frozen graph."""

    constants: Constants = dataclasses.field(kw_only=True)
    scaled: dict[str, tuple[str, str]] = dataclasses.field(default_factory=dict)
    """Products that wait for the sum after them: tensor -> (layer, constant factor)."""
    unfolded: dict[str, tuple[str, str]] = dataclasses.field(default_factory=dict)
    """Convolutions into which the graph folds batch norm: layer -> (its weight, batch norm's scale)."""


def order_weight(op: str, weight: NDArray[Any]) -> NDArray[Any]:
    """Return a convolution's weight in PyTorch's order; TensorFlow's is H, W, I, O, or H, W, C, 1 if depthwise."""
    ordered: NDArray[Any] = weight.transpose((2, 3, 0, 1) if op == "depthwise_conv2d" else (3, 2, 0, 1))
    return ordered


def check_layout(translation: GraphTranslation, node: GraphNode) -> None:
    """Refuse any data format but NHWC."""
    layout = node.text("data_format", "NHWC")
    if layout != "NHWC":
        raise translation.refuse(node, "the data format NHWC", layout)


def read_square(translation: GraphTranslation, node: GraphNode, name: str) -> int:
    """Return the step on height and width, which has to be one and the same."""
    steps = node.integers(name, (1, 1, 1, 1))
    if len(steps) != 4 or steps[0] != 1 or steps[3] != 1 or steps[1] != steps[2] or steps[1] < 1:
        raise translation.refuse(node, f"{name} that are the same for height and width", steps)
    return steps[1]


def read_padding(translation: GraphTranslation, node: GraphNode) -> str | tuple[Pair, Pair]:
    """Return the padding as a `Layer` has it."""
    padding = node.text("padding", "")
    if padding != "EXPLICIT":
        if padding not in ("SAME", "VALID"):
            raise translation.refuse(node, "SAME, VALID or EXPLICIT padding", repr(padding[:40]))
        return padding
    amounts = node.integers("explicit_paddings", ())
    return read_amounts(translation, node, np.array(amounts).reshape(-1, 2) if len(amounts) == 8 else np.zeros(0), 4)


def read_amounts(
    translation: GraphTranslation, node: GraphNode, amounts: NDArray[Any], count: int
) -> tuple[Pair, Pair]:
    """Return (top, bottom), (left, right) of amounts for two axes, or for four of which only two may be padded."""
    rows = amounts.tolist() if amounts.shape == (count, 2) else []
    is_right = len(rows) == count and amounts.min() >= 0 and (count == 2 or not any(rows[0] + rows[3]))
    if not is_right:
        raise translation.refuse(node, "amounts of zero or more for height and width", str(rows)[:80])
    (top, bottom), (left, right) = rows if count == 2 else rows[1:3]
    return (int(top), int(bottom)), (int(left), int(right))
