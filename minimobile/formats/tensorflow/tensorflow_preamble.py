"""What a frozen graph does to a picture before the first convolution: its scaling, and the size it is brought to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from minimobile.errors import FormatError
from minimobile.formats.matching.network import PICTURE, Layer
from minimobile.formats.tensorflow.graph_constants import IDENTITIES, Constants
from minimobile.formats.tensorflow.graph_def import GraphNode, find_node_name
from minimobile.formats.tensorflow.tensorflow_affine import ARITHMETIC, SUMS

_CONVOLUTIONS = ("Conv2D", "DepthwiseConv2dNative")
_SIZES_UNCHANGED = ("Cast", "ExpandDims", "Squeeze", *ARITHMETIC, *IDENTITIES)
# Resizing, padding and cropping are the processor's, as the dialect says.
_SIZES_CHANGED = ("Pad", "PadV2", "Reshape", "ResizeArea", "ResizeBilinear", "ResizeNearestNeighbor", "Slice")


class Preamble(NamedTuple):
    """Where the network starts: the tensor `start`, which is the value of the last of `layers` (a scaling, or none).

    `source` is the graph's input. `image_size` is (height, width), None where it is not fixed.
    """

    start: str
    layers: tuple[Layer, ...]
    source: str
    image_size: tuple[int, int] | None


def find_start(nodes: Sequence[GraphNode], constants: Constants, where: str) -> Preamble:
    """Follow the first convolution's input back to the graph's; `nodes` are in the order of computation."""
    named = {node.name: node for node in nodes}
    first = next((node for node in nodes if node.op in _CONVOLUTIONS and node.inputs), None)
    if first is None:
        raise FormatError(f"{where}: expected the convolutions of a MobileNet, found none among {len(nodes)} nodes")
    start = constants.find_origin(first.inputs[0])
    node = named[find_node_name(start)]
    while node.op == "Pad" and node.inputs[1:2] and node.inputs[1] in constants.values:
        start = constants.find_origin(node.inputs[0])  # the convolution's own padding
        node = named[find_node_name(start)]

    weight = constants.values.get(first.inputs[-1])
    channels = weight.shape[2] if weight is not None and weight.ndim == 4 else 1
    scale: Any = np.float64(1)
    offset: Any = np.float64(0)  # of what has been passed: scale * x + offset
    resizer: GraphNode | None = None
    while node.op != "Placeholder":
        if node.op in ARITHMETIC:
            tensor, factor, summand = _read_arithmetic(node, constants, channels)
            scale, offset = scale * factor, scale * summand + offset
        elif node.op in (*_SIZES_UNCHANGED, *_SIZES_CHANGED) and node.inputs:
            tensor = node.inputs[0]
            resizer = resizer or (node if node.op in _SIZES_CHANGED else None)
        else:
            raise FormatError(
                f"{where}: node {node.name}: expected a path from a Placeholder to the first convolution, "
                f"{first.name}, that scales, resizes and pads a picture and nothing else, found {node.op}"
            )
        node = named[find_node_name(tensor)]
    if resizer is None:
        image_size = _read_size(node.shape("shape")) or _read_size(node.shape("_output_shapes"))
    else:
        known = named[find_node_name(start)].shape("_output_shapes")
        image_size = _read_size(known) or _read_resize(resizer, constants)
    layers: tuple[Layer, ...] = ()
    if (scale != 1).any() or (offset != 0).any():
        attributes = {"scale": np.atleast_1d(scale), "offset": np.atleast_1d(offset)}
        layers = (Layer(f"{start} (scaling)", "rescale", (PICTURE,), attributes=attributes, tensor=start),)
    return Preamble(start, layers, node.name, image_size)


def _read_arithmetic(
    node: GraphNode, constants: Constants, channels: int
) -> tuple[str, NDArray[np.float64], NDArray[np.float64]]:
    """Return x, factor and summand of a node that computes `x * factor + summand`."""
    tensors = list(node.inputs)
    if len(tensors) == 2 and tensors[0] in constants.values and (node.op in SUMS or node.op == "Mul"):
        tensors.reverse()
    constant = constants.values.get(tensors[1]) if len(tensors) == 2 else None
    is_number = constant is not None and (constant.size == 1 or constant.shape[-1:] == (channels,) == (constant.size,))
    if constant is None or not is_number or tensors[0] in constants.values:
        raise FormatError(
            f"{node.where}: node {node.name} ({node.op}): expected the picture and a constant, one number or {channels}"
        )
    tensor = tensors[0]
    number = np.squeeze(constant).astype(np.float64)
    with np.errstate(all="ignore"):  # whether the result is finite is checked later
        if node.op == "Mul":
            return tensor, number, np.zeros_like(number)
        if node.op == "RealDiv":
            return tensor, 1 / number, np.zeros_like(number)
    return tensor, np.ones_like(number), -number if node.op == "Sub" else number


def _read_size(shape: tuple[int, ...] | None) -> tuple[int, int] | None:
    """Return (height, width) of the shape of one picture or of several."""
    if shape is None or len(shape) not in (3, 4) or min(shape[-3:-1]) < 1:
        return None
    return shape[-3], shape[-2]


def _read_resize(node: GraphNode, constants: Constants) -> tuple[int, int] | None:
    """Return the (height, width) to which a node resizes."""
    size = constants.values.get(node.inputs[1]) if len(node.inputs) > 1 else None
    if (
        not node.op.startswith("Resize")
        or size is None
        or size.dtype.kind != "i"
        or size.shape != (2,)
        or size.min() < 1
    ):
        return None
    return int(size[0]), int(size[1])
