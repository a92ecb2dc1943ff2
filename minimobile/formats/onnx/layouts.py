"""Which axis of a tensor is which: letters N, C, H, W that transposes and reshapes move.

Convolutions of ONNX see N, C, H, W; a graph that came from TensorFlow has N, H, W, C before and between transposes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minimobile.errors import FormatError
from minimobile.formats.matching.translation import Translation
from minimobile.formats.onnx.constants import Constants
from minimobile.formats.onnx.model import Node

Pair = tuple[int, int]
PLAIN, CHANNELS_LAST, ROWS = "NCHW", "NHWC", "NC"


@dataclasses.dataclass
class ModelTranslation(Translation):
    """What has been translated of a model.

    `layouts` has the letters of each tensor that a layer holds, `shapes` the sizes of those whose sizes are known.
    """

    layouts: dict[str, str] = dataclasses.field(default_factory=dict)
    shapes: Mapping[str, tuple[int, ...]] = dataclasses.field(default_factory=dict)

    def layout(self, node: Node) -> str:
        """Return the letters of a node's first input; empty where they are not known."""
        return self.layouts.get(node.inputs[0], "")

    def is_pixel(self, node: Node) -> bool:
        """Return whether a node's first input is known to be a map of one pixel."""
        layout, shape = self.layout(node), self.shapes.get(node.inputs[0], ())
        return len(layout) == len(shape) == 4 and all(shape[layout.index(letter)] == 1 for letter in "HW")

    def pass_on(self, node: Node, flow: str, layout: str | None = None) -> None:
        """Let a node's result be the value that the layer `flow` holds, its axes called `layout`."""
        self.flows[node.name] = flow
        self.layouts[node.name] = self.layout(node) if layout is None else layout

    def add_layer(self, node: Node, op: str, flow: str, layout: str | None = None, **attributes: Any) -> None:
        """Add a layer without arrays that reads the layer `flow`."""
        self.add(node, op, (flow,), **attributes)
        self.layouts[node.name] = self.layout(node) if layout is None else layout

    def need(self, node: Node, layout: str) -> None:
        """Refuse a first input whose axes are others."""
        found = self.layout(node)
        if found != layout:
            raise self.refuse(node, f"an input of {', '.join(layout)}", ", ".join(found) or "another")


def read_axis(translation: ModelTranslation, node: Node, axis: int) -> str:
    """Return the letter of an axis of a node's first input; empty where it has none."""
    layout = translation.layout(node)
    return layout[axis] if -len(layout) <= axis < len(layout) else ""


def per_channel(translation: ModelTranslation, node: Node, tensor: str, layout: str) -> NDArray[np.float64]:
    """Return a constant that meets a map of `layout`: one number, or one for each channel."""
    values = translation.values[tensor]
    at = layout.find("C")
    shape = (1,) * (len(layout) - values.ndim) + values.shape
    is_right = values.size == 1 or (
        at >= 0 and len(shape) == len(layout) and all(size == 1 for axis, size in enumerate(shape) if axis != at)
    )
    if not is_right or values.dtype.kind not in "fiu":
        raise translation.refuse(node, "a constant with one number per channel, or for all", f"shape {values.shape}")
    return values.reshape(-1).astype(np.float64)


def read_square(translation: ModelTranslation, node: Node, name: str) -> int:
    """Return the step on height and width, which has to be one and the same."""
    steps = node.integers(name, (1, 1))
    if len(steps) != 2 or steps[0] != steps[1] or steps[0] < 1:
        raise translation.refuse(node, f"{name} that are the same for height and width", steps[:9])
    return steps[0]


def read_padding(translation: ModelTranslation, node: Node) -> str | tuple[Pair, Pair]:
    """Return the padding of a convolution or pool as a `Layer` has it."""
    rule = node.text("auto_pad", "NOTSET")
    if rule == "VALID":
        return "VALID"
    if rule == "SAME_UPPER":
        return "SAME"
    if rule != "NOTSET":
        raise translation.refuse(
            node, "auto_pad NOTSET, VALID or SAME_UPPER", f"{rule[:40]}, which no MobileNet is trained with"
        )
    pads = node.integers("pads", (0, 0, 0, 0))
    if len(pads) != 4 or min(pads) < 0:
        raise translation.refuse(node, "pads of zero or more for height and width", pads[:9])
    return (pads[0], pads[2]), (pads[1], pads[3])


def find_input_layout(nodes: Sequence[Node], first: Node, constants: Constants, where: str) -> tuple[str, str]:
    """Return the graph's input that the first convolution sees, and which axis of it is which: transposes tell.

    Raises FormatError where the way to it parts, or begins at a constant.
    """
    makers = {name: node for node in nodes for name in node.outputs}
    layout, tensor = PLAIN, first.inputs[0]
    while tensor in makers:
        node = makers[tensor]
        order = node.integers("perm", ()) if node.op == "Transpose" else tuple(range(4))
        following = [name for name in node.inputs if name and name not in constants.values]
        if sorted(order) != [0, 1, 2, 3] or len(following) != 1:
            raise FormatError(
                f"{where}: node {node.title} ({node.op}): expected a path from the picture to the first convolution, "
                f"{first.title}, that scales, pads and transposes and nothing else, found another operation"
            )
        letters = dict(zip(order, layout, strict=True))
        layout = "".join(letters[axis] for axis in range(4))
        tensor = following[0]
    return tensor, layout
