"""ONNX files (`.onnx`) with a MobileNet V1, V2 or DeepLab: as exported from PyTorch, TensorFlow or Keras."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from minimobile.errors import FormatError
from minimobile.formats.checkpoint import Checkpoint, Obstacle
from minimobile.formats.description import Description, Entry
from minimobile.formats.dialects import find_dialect
from minimobile.formats.matching.matching import match_network
from minimobile.formats.matching.network import Layer
from minimobile.formats.matching.other_networks import naming_others
from minimobile.formats.onnx.constants import Constants
from minimobile.formats.onnx.curves import join_curves
from minimobile.formats.onnx.detector import find_detector
from minimobile.formats.onnx.integer_network import to_network
from minimobile.formats.onnx.integers import has_integers, spread
from minimobile.formats.onnx.model import Model, Node, Value, read_model, sort_nodes
from minimobile.formats.onnx.operators import translate
from minimobile.formats.onnx.own_metadata import read_own
from minimobile.networks.config import Config
from minimobile.networks.ssd import ANCHORS
from minimobile.networks.ssd_config import MobileNetSSDConfig

# Parts of the names of parameters and nodes, as PyTorch's exporters keep them.
_SCHOOLS = (
    ("huggingface", ("conv_stem.convolution", "conv_stem/convolution", "conv_stem.first_conv", "conv_stem/first_conv")),
    ("timm", ("conv_stem.weight", "blocks.0", "/blocks/blocks.0")),
    ("torchvision", ("features.0.0.", "/features/features.0", "features.1.conv.")),
)
_PYTORCH = "pytorch"
DETECTORS = "object-detection"  # the school of all detectors: pictures are stretched


def read(path: Path, config: Config | None = None) -> Checkpoint:
    """Read a MobileNet V1, V2 or DeepLab from an ONNX file, whatever its nodes are called.

    `config` replaces the one that is found. Raises FormatError for files that are damaged or hostile, data outside the
    model's folder, operators that no MobileNet has, and networks that are none.
    """
    model = read_model(path)
    where = str(path)
    own = read_own(model.metadata, where)
    with naming_others(_list_names(model)):
        graph = _translate(model, where)
        layers, picture, image_size = graph.layers, graph.picture, graph.image_size
        settings = own.config.ssd if own is not None else None
        found = find_detector(layers, settings, _read_anchors(model, settings, where), where)
        school = _name_school(model, layers) if found is None else DETECTORS
        checkpoint = match_network(
            layers if found is None else found[0],
            find_dialect(school if own is None else own.dialect),
            where,
            image_size=image_size,
            provenance=_say_origin(model, path) | {"input": picture},
            config=config if own is None or config is not None else own.config,
            detector=None if found is None else found[1],
        )
    if has_integers(model):
        checkpoint = _add_integers(checkpoint, graph, where)
    if own is not None:
        return dataclasses.replace(checkpoint, processor=own.processor)
    said = _say_padding(checkpoint.config, layers, image_size)
    if found is not None:
        said["anchors"] = "those of the formula: the file has none"
    return dataclasses.replace(checkpoint, provenance={**checkpoint.provenance, **said})


def describe(path: Path) -> Description:
    """Return what is in an ONNX file: its constants, inputs and outputs, and how many there are of each operator."""
    model = read_model(path)
    try:
        dialect = _name_school(model, _translate(model, str(path)).layers)
    except FormatError:  # `read` says why
        dialect = None
    counts = Counter(node.op for node in model.nodes).most_common()
    return Description(
        "ONNX",
        dialect,
        model.producer or None,
        tuple(Entry(tensor.name, tensor.shape, tensor.dtype) for tensor in model.constants.values()),
        {
            "inputs": _tell(model.inputs),
            "outputs": _tell(model.outputs),
            "operations": ", ".join(f"{op} {count}" for op, count in counts),
            "operator set": str(model.opset),
        },
    )


def read_layouts(path: Path) -> Mapping[str, str]:
    """Return which axis is which, as "NCHW" or "NHWC", of the tensors of an ONNX file that hold maps."""
    return _translate(read_model(path), str(path)).layouts


class _Graph(NamedTuple):
    """A model's nodes in the order of computation, its layers, and its picture; `layout` says which axis is which.

    `layouts` says that of every tensor. `image_size` is (height, width), None where it is open.
    """

    model: Model
    nodes: list[Node]
    constants: Constants
    layers: list[Layer]
    picture: str
    layout: str
    image_size: tuple[int, int] | None
    layouts: Mapping[str, str]


def _translate(model: Model, where: str) -> _Graph:
    model = spread(model) if has_integers(model) else model
    nodes = sort_nodes(model, where)
    constants = Constants(model, nodes)
    translation, picture, layout = translate(join_curves(nodes, constants.values), constants, where)
    shape = next((value.shape for value in model.inputs if value.name == picture), None)
    sizes = [shape[layout.index(letter)] for letter in "HW"] if shape is not None and len(shape) == 4 else [0]
    image_size = (sizes[0], sizes[1]) if min(sizes) > 0 else None
    layers = list(translation.layers.values())
    return _Graph(model, nodes, constants, layers, picture, layout, image_size, translation.layouts)


def _read_anchors(model: Model, settings: MobileNetSSDConfig | None, where: str) -> NDArray[np.float32] | None:
    """Return the anchors of one of our own files, where it has its own."""
    if settings is None or not settings.stored_anchors:
        return None
    tensor, count = model.constants.get(ANCHORS), settings.stored_anchors
    values = None if tensor is None else tensor.values
    if values is None or values.shape != (count, 4) or values.dtype != np.float32 or not np.isfinite(values).all():
        found = "none" if values is None else f"{values.dtype} {values.shape}"
        raise FormatError(f"{where}: {ANCHORS}: expected finite anchors ({count}, 4) of float32, found {found}")
    return values


def _add_integers(checkpoint: Checkpoint, graph: _Graph, where: str) -> Checkpoint:
    """Return the checkpoint with its network of integers, or why it has none: then it can still be dequantised."""
    try:
        network, same = to_network(graph.model, graph.nodes, graph.constants, graph.picture, graph.layout, where)
    except FormatError as error:
        return dataclasses.replace(checkpoint, obstacle=Obstacle(str(error)))
    endpoints = {node: same.get(tensor, tensor) for node, tensor in checkpoint.endpoints.items()}
    return dataclasses.replace(checkpoint, quantized=network, endpoints=endpoints)


def _list_names(model: Model) -> Iterable[str]:
    for node in model.nodes:
        yield from (node.op, node.label, node.name)
    yield from model.constants


def _name_school(model: Model, layers: Sequence[Layer]) -> str:
    """Return the dialect that goes with who wrote the file, and with the names of its parameters."""
    pads = [layer.attributes.get("padding") for layer in layers]
    if not model.producer.lower().startswith(_PYTORCH):
        if any(layer.op == "concatenate" for layer in layers):
            return "deeplab"
        return "keras" if ((0, 1), (0, 1)) in pads else "slim"
    names = "\n".join(_list_names(model))
    for school, words in _SCHOOLS:
        if any(word in names for word in words):
            return school
    is_symmetric = ((1, 1), (1, 1)) in pads and ((0, 1), (0, 1)) not in pads
    return "torchvision" if is_symmetric else "huggingface"


def _say_origin(model: Model, path: Path) -> dict[str, str]:
    """Return where the network is from, and what to know of its numbers."""
    said = {"format": "onnx", "source": path.name, "operator_set": str(model.opset)}
    if model.producer:
        said["producer"] = model.producer
    narrow = sorted({tensor.dtype for tensor in model.constants.values() if tensor.dtype in ("float16", "bfloat16")})
    if narrow:
        said["numbers"] = f"weights of {' and '.join(narrow)}, computed with in float32"
    return said


def _say_padding(config: Config, layers: Sequence[Layer], image_size: tuple[int, int] | None) -> dict[str, str]:
    """Return what to know of the zeros around maps, where another size of picture would have others.

    SAME puts them by the size of each map. An exporter that wrote them out did so for one size; and what another
    exporter wrote out for even sizes, one row below and one column on the right, SAME is not at odd ones.
    """
    strided = [layer for layer in layers if layer.attributes.get("stride", 1) > 1]
    if any(layer.attributes.get("padding") == "SAME" for layer in strided):
        return {"padding": "SAME (auto_pad SAME_UPPER): at odd sizes other zeros than at even ones"}
    if image_size is None or not config.tf_padding or config.bottom_right_padding is not None:
        return {}
    height, width = image_size
    return {"padding": f"zeros written out for {height}x{width}, taken for SAME: the same at that size alone"}


def _tell(values: Sequence[Value]) -> str:
    return ", ".join(f"{value.name} {value.dtype} {value.shape}" for value in values)
