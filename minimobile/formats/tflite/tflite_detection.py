"""TFLite files that end in TFLite_Detection_PostProcess: its options and anchors, and the maps that its inputs join.

Both ways: what a file says of its detector, and what is to be written of one.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from minimobile.errors import ConfigError, FormatError
from minimobile.formats.checkpoint import Checkpoint
from minimobile.formats.tflite.flexbuffer import Number, read_numbers
from minimobile.formats.tflite.tflite_model import ABSENT, CUSTOM_CONTENT, Model, Operator, Tensor
from minimobile.networks.anchors import make_anchors
from minimobile.networks.build_graph import build_graph
from minimobile.networks.ssd import ANCHORS, find_predictions, settings
from minimobile.networks.ssd_config import MobileNetSSDConfig
from minimobile.operations.shapes import infer_shapes
from minimobile.quantized.network import Network

OPERATOR = "TFLite_Detection_PostProcess"
POST_PROCESSING = f"custom operator '{OPERATOR}'"
_MOVED = ("RESHAPE", "SQUEEZE", "QUANTIZE", "DEQUANTIZE", "LOGISTIC", "SOFTMAX")
_SCALES = ("y_scale", "x_scale", "h_scale", "w_scale")


@dataclass(frozen=True)
class Ending:
    """The end of a detector: what the operator reads, and what it is told.

    `body` is the model without the operator: its outputs are the operator's boxes and scores. `boxes` and `classes` are
    the tensors of the predictors, map by map. `anchors` (N, 4) float32 are those in the file.
    """

    body: Model
    boxes: tuple[int, ...]
    classes: tuple[int, ...]
    anchors: NDArray[np.float32]
    ssd: MobileNetSSDConfig
    num_classes: int


def find_ending(model: Model, where: str) -> Ending | None:
    """Return the end of a detector; None where the file has no such operator.

    Raises FormatError for an operator whose options, inputs or outputs are not those of a detector.
    """
    found = [operator for operator in model.operators if operator.kind == POST_PROCESSING]
    return _Reader(model, found[0], where).read() if found else None


@dataclass(frozen=True)
class PostProcessOperator:
    """The operator as a file has it: its options, its anchors (A, 4) float32, and the rows of its results."""

    options: Mapping[str, Number]
    anchors: NDArray[np.float32]
    rows: int


def settle_rules(checkpoint: Checkpoint) -> tuple[Checkpoint, tuple[str, ...]]:
    """Return a detector's checkpoint with rules that the operator has, and a note where they were others.

    A frozen graph's rules differ in that boxes are clipped to the picture, and a score has to be above the threshold
    and not just to reach it: the operator's way class by class, with the same numbers, is what tensorflow/models
    exports for it.
    """
    ssd = checkpoint.config.ssd
    if ssd is None or ssd.post_processing == "tflite":
        return checkpoint, ()
    settled = ssd.replace(post_processing="tflite", use_regular_nms=True)
    note = (
        f"{OPERATOR} suppresses boxes class by class with the same numbers as the source, but does not clip them to "
        "the picture"
    )
    return dataclasses.replace(checkpoint, config=checkpoint.config.replace(ssd=settled)), (note,)


def describe_post_processing(checkpoint: Checkpoint, network: Network, where: str) -> PostProcessOperator | None:
    """Return the operator for a detector's network; None for a network of another kind.

    Raises FormatError for rules that the operator has not got, and anchors of another number than the predictions.
    """
    config = checkpoint.config
    graph = build_graph(config, checkpoint.architecture)
    boxes, _ = find_predictions(graph)
    if not boxes:
        return None
    ssd = settings(config)
    if ssd.post_processing != "tflite":
        raise FormatError(
            f"{where}: expected post_processing 'tflite', the rules of {OPERATOR}, got {ssd.post_processing!r}; "
            "`mm.convert` and `mm.quantize` take the operator's, class by class, for them and say so"
        )
    anchors = checkpoint.weights.get(ANCHORS)
    _, height, width, _ = network.tensors[network.inputs[0]].shape
    if anchors is None:
        shapes = infer_shapes(graph, height, width)
        anchors = make_anchors(ssd, (height, width), [shapes[name][1:] for name in boxes])
    _, count, _ = network.tensors[network.outputs[0]].shape
    if len(anchors) != count:
        raise FormatError(
            f"{where}: expected {count} anchors for pictures of {height}x{width}, found {len(anchors)}; set the "
            "config's image_size to the size that they are for"
        )
    options: dict[str, Number] = {
        "num_classes": config.class_count,
        "max_detections": ssd.max_detections,
        "max_classes_per_detection": ssd.max_classes_per_detection,
        "detections_per_class": ssd.detections_per_class,
        "use_regular_nms": ssd.use_regular_nms,
        "nms_score_threshold": ssd.score_threshold,
        "nms_iou_threshold": ssd.iou_threshold,
        **dict(zip(_SCALES, ssd.box_scales, strict=True)),
    }
    return PostProcessOperator(options, anchors, ssd.max_detections * ssd.max_classes_per_detection)


class _Reader:
    def __init__(self, model: Model, operator: Operator, where: str) -> None:
        self.model = model
        self.operator = operator
        self.where = f"{where}: {OPERATOR}"
        self.sources = {output: other for other in model.operators for output in other.outputs}

    def read(self) -> Ending:
        operator, tensors = self.operator, self.model.tensors
        if len(operator.inputs) != 3 or ABSENT in operator.inputs or len(operator.outputs) != 4:
            self.fail("three inputs and four outputs", f"{len(operator.inputs)} and {len(operator.outputs)}")
        if self.model.outputs != operator.outputs:
            self.fail("its four results as those of the network", f"others ({list(self.model.outputs[:9])})")
        boxes, scores, anchors = (tensors[number] for number in operator.inputs)
        values = self.read_anchors(anchors)
        ssd, num_classes = self.read_options()
        if boxes.shape != (1, len(values), 4):
            self.fail(f"boxes (1, {len(values)}, 4) for its {len(values)} anchors", f"{boxes.shape}")
        columns = scores.shape[2] if len(scores.shape) == 3 else 0
        if scores.shape[:2] != (1, len(values)) or columns - num_classes not in (0, 1):
            expected = f"scores (1, {len(values)}, {num_classes} or {num_classes + 1})"
            self.fail(f"{expected} for {num_classes} classes", f"{scores.shape}")
        others = tuple(other for other in self.model.operators if other is not operator)
        body = dataclasses.replace(self.model, operators=others, outputs=operator.inputs[:2])
        box_maps, class_maps = (self.follow(number) for number in operator.inputs[:2])
        if self.has_softmax(operator.inputs[1]):
            ssd = ssd.replace(score_converter="softmax")
        if len(box_maps) != len(class_maps):
            self.fail("boxes and scores of as many maps", f"of {len(box_maps)} and {len(class_maps)}")
        return Ending(body, box_maps, class_maps, values, ssd, num_classes)

    def read_anchors(self, tensor: Tensor) -> NDArray[np.float32]:
        """Return the anchors, in float32 what bytes stand for."""
        data = tensor.data
        if data is None or data.ndim != 2 or data.shape[1] != 4 or data.dtype not in (np.float32, np.uint8):
            self.fail("anchors (N, 4) of float32 or uint8, a constant", f"{tensor.dtype} {tensor.shape}")
        if data.dtype == np.uint8:
            by = tensor.quantization
            if by is None or len(by.scales) != 1:
                self.fail("one scale for the bytes of its anchors", "none")
            data = (data.astype(np.float32) - np.float32(by.zero_points[0])) * by.scales[0]
        if not np.isfinite(data).all():
            self.fail("anchors that are finite", "NaN or infinity")
        return np.ascontiguousarray(data, np.float32)

    def read_options(self) -> tuple[MobileNetSSDConfig, int]:
        """Return what the operator's options say of a detector, and the number of its classes."""
        content = self.operator.options.get(CUSTOM_CONTENT, b"")
        options = read_numbers(content, self.where)
        num_classes = self.whole(options, "num_classes")
        fields: dict[str, Any] = {
            "box_scales": [float(np.float32(options.get(name, 0))) for name in _SCALES],
            "score_threshold": _shortest(options.get("nms_score_threshold", 0)),
            "iou_threshold": _shortest(options.get("nms_iou_threshold", 0)),
            "use_regular_nms": bool(options.get("use_regular_nms", False)),
            "detections_per_class": self.whole(options, "detections_per_class", 100),
            **{name: self.whole(options, name) for name in ("max_detections", "max_classes_per_detection")},
        }
        try:
            return MobileNetSSDConfig(**fields), num_classes
        except ConfigError as error:
            raise FormatError(f"{self.where}: {error}") from None

    def whole(self, options: Mapping[str, int | float | bool], name: str, default: int = 0) -> int:
        value = options.get(name, default)
        if not math.isfinite(value) or not 1 <= int(value) <= 100_000:
            self.fail(f"{name} between 1 and 100000", f"{value}")
        return int(value)

    def follow(self, number: int) -> tuple[int, ...]:
        """Return the predictors' maps that a tensor joins: those behind what only moves values or makes scores."""
        operator = self.skip_moves(number)
        if operator is None or operator.kind != "CONCATENATION":
            self.fail("boxes and scores that are joined of several maps", operator.kind if operator else "an input")
        if operator.options["axis"] not in (1, -2):
            self.fail("predictions joined along axis 1", f"axis {operator.options['axis']}")
        found = []
        for part in operator.inputs:
            source = self.skip_moves(part)
            if source is None:
                self.fail("predictions that the network computes", "an input or a constant")
            found.append(source.outputs[0])
        return tuple(found)

    def skip_moves(self, number: int) -> Operator | None:
        """Return the first operator before a tensor that does more than move values or turn logits into scores."""
        operator = self.sources.get(number)
        while operator is not None and operator.kind in _MOVED:
            operator = self.sources.get(operator.inputs[0])
        return operator

    def has_softmax(self, number: int) -> bool:
        """Tell whether scores are the softmax of their logits, wherever it stands before the maps."""
        operator = self.sources.get(number)
        while operator is not None and operator.kind in (*_MOVED, "CONCATENATION"):
            if operator.kind == "SOFTMAX":
                return True
            operator = self.sources.get(operator.inputs[0])
        return False

    def fail(self, expected: str, found: str) -> NoReturn:
        raise FormatError(f"{self.where}: expected {expected}, found {found}")


def _shortest(value: float) -> float:
    """Return the shortest decimal that is the same float32: 1e-8 for 9.999999939e-9."""
    with np.errstate(over="ignore"):
        return float(str(np.float32(value)))
