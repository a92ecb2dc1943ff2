"""Graphs of object_detection: the maps that its predictors end in, and the numbers of the post-processing after them.

Boxes and scores, anchors and suppression are found by what is connected to what; names mean nothing. None of it is
computed but the anchors. Source: object_detection's core/post_processing.py and box_coders/faster_rcnn_box_coder.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from minimobile.errors import ConfigError, FormatError
from minimobile.formats.tensorflow.graph_constants import IDENTITIES
from minimobile.formats.tensorflow.graph_def import GraphDef, GraphNode, find_node_name
from minimobile.formats.tensorflow.graph_loops import HOPS, LOOP_OPERATIONS, unroll
from minimobile.formats.tensorflow.graph_values import evaluate
from minimobile.networks.ssd_config import MobileNetSSDConfig

DIALECT = "object-detection"
POST_PROCESSING = frozenset({"NonMaxSuppressionV3", "Size", "Where"}) | LOOP_OPERATIONS
"""Operations that graphs of detectors have around the network, beyond those of others."""
_SUPPRESSION = "NonMaxSuppressionV3"
_MOVES = ("Reshape", "Squeeze", "ExpandDims", "Transpose", "Tile", "Enter", *IDENTITIES)
_SCORES = {"Sigmoid": "sigmoid", "Softmax": "softmax"}
# Without suppression in the graph, as models for browsers are: what TF.js' coco-ssd does after it.
_BROWSER = {"iou_threshold": 0.5, "max_detections": 20}


@dataclass(frozen=True)
class Ending:
    """The end of a detector's graph: `body` is what is before it, `boxes` and `classes` are the predictors' tensors.

    `anchors` (N, 4) float32 are (y, x, h, w).
    """

    body: GraphDef
    boxes: tuple[str, ...]
    classes: tuple[str, ...]
    anchors: NDArray[np.float32]
    ssd: MobileNetSSDConfig
    num_classes: int


def find_ending(graph: GraphDef, where: str) -> Ending | None:
    """Return the end of a detector's graph; None where no predictions of several maps are joined twice.

    Raises FormatError for a post-processing that is none of object_detection's.
    """
    reader = _Reader(graph, where)
    joins = reader.find_joins()
    return reader.read(*joins) if len(joins) == 2 else None


class _Reader:
    def __init__(self, graph: GraphDef, where: str) -> None:
        self.graph = graph
        self.where = where
        self.nodes = unroll({node.name: node for node in graph.nodes})
        self.readers: dict[str, list[GraphNode]] = {}
        for node in self.nodes.values():
            for tensor in node.inputs:
                self.readers.setdefault(tensor, []).append(node)

    def read(self, first: GraphNode, second: GraphNode) -> Ending:
        found = {join.name: self.find_score_converter(join) for join in (first, second)}
        if sum(converter is not None for converter in found.values()) != 1:
            self.fail(first, "scores by sigmoid or softmax of one of two joined predictions", "other operations")
        boxes, classes = (first, second) if found[first.name] is None else (second, first)
        scales, anchors = self.read_decoding(boxes)
        fields = {"box_scales": scales, "score_converter": found[classes.name], **self.read_suppression()}
        try:
            ssd = MobileNetSSDConfig(**fields)
        except ConfigError as error:
            raise FormatError(f"{self.where}: {error}") from None
        ends = [tuple(self.skip_back(tensor) for tensor in join.inputs[:-1]) for join in (boxes, classes)]
        shape = self.nodes[find_node_name(classes.inputs[0])]
        columns = self.read_last_size(shape)
        return Ending(self.cut([*ends[0], *ends[1]]), ends[0], ends[1], anchors, ssd, columns - 1)

    def find_joins(self) -> list[GraphNode]:
        """Return the nodes that join maps of predictions: reshaped results of convolutions with a bias."""
        return [node for node in self.nodes.values() if node.op == "ConcatV2" and self.is_join(node)]

    def is_join(self, node: GraphNode) -> bool:
        if len(node.inputs) < 3:
            return False
        sources = {self.skip_back(tensor) for tensor in node.inputs[:-1]}
        is_moved = not sources & set(node.inputs)
        return is_moved and len(sources) == len(node.inputs) - 1 and all(map(self.is_predictor, sources))

    def is_predictor(self, tensor: str) -> bool:
        node = self.nodes[find_node_name(tensor)]
        if node.op in ("BiasAdd", "Add", "AddV2") and node.inputs:
            node = self.nodes[find_node_name(node.inputs[0])]
        return node.op in ("Conv2D", "_FusedConv2D")

    def skip_back(self, tensor: str) -> str:
        """Return the tensor before all that moves values."""
        for _ in range(HOPS):
            node = self.nodes[find_node_name(tensor)]
            if node.op not in _MOVES or not node.inputs:
                break
            tensor = node.inputs[0]
        return tensor

    def step_on(self, tensor: str, *ops: str) -> GraphNode | None:
        """Return the first node of one of `ops` after a tensor, and what only moves its values."""
        waiting, seen = [tensor], {tensor}
        while waiting:
            for node in self.readers.get(waiting.pop(), []):
                if node.op in ops:
                    return node
                if node.op in _MOVES and node.name not in seen:
                    seen.add(node.name)
                    waiting.append(node.name)
        return None

    def find_score_converter(self, join: GraphNode) -> str | None:
        """Return how scores are made of the joined logits; None where they are not."""
        source = join.name
        scaling = self.step_on(source, "RealDiv")
        if scaling is not None:
            source = scaling.name
        node = self.step_on(source, *_SCORES)
        if node is not None and scaling is not None and self.constant(scaling.inputs[1]) != 1:
            self.fail(scaling, "logits that are divided by 1", "another number")
        return None if node is None else _SCORES[node.op]

    def read_decoding(self, join: GraphNode) -> tuple[list[float], NDArray[np.float32]]:
        """Return the scales of the boxes' code, and the anchors: found beside the first code, where y is."""
        codes = self.step_on(join.name, "Unpack")
        if codes is None or codes.integer("num", 0) != 4:
            self.fail(join, "boxes that are decoded from four numbers", "other operations")
        scales = []
        scaled = ""
        for index in range(4):
            tensor = codes.name if index == 0 else f"{codes.name}:{index}"
            node = self.step_on(tensor, "RealDiv", "Mul")
            if node is None or len(node.inputs) != 2:
                self.fail(codes, "codes of boxes that are divided by constants", "other operations")
            by = next(other for other in (*node.inputs[::-1], "") if other != tensor)
            number = self.constant(by)
            with np.errstate(all="ignore"):
                scales.append(float(np.float32(1) / np.float32(number) if node.op == "Mul" else number))
            scaled = scaled or node.name
        product = self.step_on(scaled, "Mul")
        height = None if product is None else next(tensor for tensor in product.inputs if tensor != scaled)
        difference = None if height is None else self.nodes[find_node_name(height)]
        if difference is None or difference.op != "Sub" or len(difference.inputs) != 2:
            self.fail(codes, "a product with the anchors' height", "other operations")
        corners = self.nodes[find_node_name(difference.inputs[1])]
        if corners.op != "Unpack" or difference.inputs != (f"{corners.name}:2", corners.name):
            self.fail(difference, "anchors by their corners", "other operations")
        return scales, self.read_anchors(self.skip_back(corners.inputs[0]))

    def read_anchors(self, tensor: str) -> NDArray[np.float32]:
        corners = evaluate(self.nodes, tensor, self.where)
        corners = corners.reshape(-1, 4) if corners.ndim > 1 and corners.shape[-1] == 4 else corners
        if corners.ndim != 2 or corners.dtype != np.float32 or not np.isfinite(corners).all():
            found = f"{corners.dtype} {corners.shape}"
            self.fail(self.nodes[find_node_name(tensor)], "finite anchors (N, 4) of float32", found)
        low, sizes = corners[:, :2], corners[:, 2:] - corners[:, :2]
        return np.concatenate([low + sizes / np.float32(2), sizes], 1)

    def read_suppression(self) -> dict[str, Any]:
        """Return thresholds and limits; those of TF.js' coco-ssd where the graph does not suppress boxes."""
        found = [node for node in self.nodes.values() if node.op == _SUPPRESSION]
        if not found:
            return _BROWSER
        read = [self.read_limits(node) for node in found]
        if any(other != read[0] for other in read):
            self.fail(found[0], "one threshold for all classes", "others")
        per_class, iou, score = read[0]
        totals = {
            int(limit)
            for node in self.nodes.values() if node.op == "Range" and len(node.inputs) == 3
            for limit in [self.find_limit(node.inputs[1])] if limit is not None
        }  # fmt: skip
        if len(totals) != 1:
            self.fail(found[0], "one limit of detections in all", f"{sorted(totals)[:5]}")
        return {
            "post_processing": "tensorflow",
            "iou_threshold": _shortest(iou),
            "score_threshold": _shortest(score),
            "detections_per_class": int(per_class),
            "max_detections": totals.pop(),
        }

    def read_limits(self, node: GraphNode) -> tuple[float, float, float]:
        limit = self.find_limit(node.inputs[2]) if len(node.inputs) == 5 else None
        if limit is None:
            self.fail(node, "a constant number of boxes of each class", "another")
        return limit, self.constant(node.inputs[3]), self.constant(node.inputs[4])

    def find_limit(self, tensor: str) -> float | None:
        """Return the constant of `minimum(constant, number of boxes)`."""
        node = self.nodes[find_node_name(tensor)]
        if node.op != "Minimum" or len(node.inputs) != 2:
            return None
        constants = [other for other in node.inputs if self.nodes[find_node_name(other)].op == "Const"]
        return self.constant(constants[0]) if len(constants) == 1 else None

    def constant(self, tensor: str) -> float:
        """Return the one number of a constant."""
        node = self.nodes.get(find_node_name(tensor))
        values = node.tensor("value").values if node is not None and node.op == "Const" else None
        if values is None or values.size != 1:
            raise FormatError(f"{self.where}: node {tensor[:80]}: expected a constant of one number, found another")
        return float(values.item())

    def read_last_size(self, node: GraphNode) -> int:
        """Return the last size of the shape that a node brings its input to."""
        shape = self.nodes[find_node_name(node.inputs[1])] if len(node.inputs) == 2 else node
        if shape.op == "Pack" and shape.inputs:
            return int(self.constant(shape.inputs[-1]))
        values = shape.tensor("value").values if shape.op == "Const" else None
        if node.op != "Reshape" or values is None or values.ndim != 1 or not 1 < values.size < 9:
            self.fail(node, "a shape whose last size is constant", "another")
        return int(values[-1])

    def cut(self, ends: Sequence[str]) -> GraphDef:
        """Return the graph of what the ends are computed from."""
        needed: set[str] = set()
        waiting = [find_node_name(tensor) for tensor in ends]
        while waiting:
            name = waiting.pop()
            if name not in needed:
                needed.add(name)
                waiting += map(find_node_name, self.nodes[name].inputs)
        kept = tuple(node for node in self.nodes.values() if node.name in needed)
        for node in kept:
            self.check_resize(node)
        return self.graph._replace(nodes=kept)

    def check_resize(self, node: GraphNode) -> None:
        is_other = node.op in ("ResizeArea", "ResizeNearestNeighbor", "ResizeBicubic")
        if is_other or (
            node.op == "ResizeBilinear"
            and (node.flag("align_corners", False) or node.flag("half_pixel_centers", False))
        ):
            self.fail(node, "pictures resized bilinearly, with neither aligned corners nor half pixels", "another way")

    def fail(self, node: GraphNode, expected: str, found: str) -> NoReturn:
        raise FormatError(f"{self.where}: node {node.name[:80]} ({node.op}): expected {expected}, found {found}")


def _shortest(value: float) -> float:
    """Return the shortest decimal that is the same float32: what its author wrote."""
    return float(str(np.float32(value)))


def name_ends(tensors: Sequence[str], layers: Mapping[str, str], where: str) -> tuple[str, ...]:
    """Return the layers of tensors; `layers` are by their tensors."""
    for tensor in tensors:
        if tensor not in layers:
            raise FormatError(f"{where}: node {tensor[:80]}: expected a convolution that predicts, found another")
    return tuple(layers[tensor] for tensor in tensors)
