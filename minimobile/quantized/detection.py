"""From what a quantised detector stores to detections: of its bytes as they are, or of the numbers in their place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minimobile.execution.byte_detection import ByteDetection
from minimobile.execution.detection import PostProcessor
from minimobile.quantized.layout import every_byte, lift
from minimobile.quantized.network import Network, Tensor
from minimobile.quantized.operations.operation import affine
from minimobile.quantized.operations.reading import BYTES
from minimobile.quantized.own_head import find_maker, find_stored
from minimobile_kernels.quantized.reference_maps import dequantize

Array = NDArray[Any]


class StoredDetection:
    """The rules of a detector on what its network stores; `names` are the tensors that are read, boxes and scores."""

    def __init__(self, network: Network, rules: PostProcessor) -> None:
        self.names = tuple(find_stored(network, name) for name in network.outputs)
        self._tensors = tuple(network.tensors[name] for name in self.names)
        self._rules = rules
        # What an operation computes has a scale above zero, so that a greater byte is a greater number.
        are_bytes = all(tensor.dtype in BYTES and find_maker(network, tensor.name) for tensor in self._tensors)
        self._by_bytes = self._make_byte_detection() if are_bytes and rules.is_compiled else None

    def run(self, stored: Sequence[Array], where: str) -> tuple[Array, Array, Array, Array]:
        """Return boxes, classes, scores and counts as `Detections` has them; errors as of `PostProcessor.run`.

        Shapes: stored: encodings (N, A, 4), scores (N, A, K), of the types of their tensors.
        """
        read = _as_numbers if self._by_bytes is None else _as_unsigned
        boxes, scores = (read(values, tensor) for values, tensor in zip(stored, self._tensors, strict=True))
        if self._by_bytes is not None:
            return self._by_bytes.run(boxes, scores, where)
        return self._rules.run(boxes, scores, where)[:4]

    def _make_byte_detection(self) -> ByteDetection | None:
        """Return what takes the bytes; None of shapes that it would read beyond, which the rules of numbers refuse."""
        boxes, scores = self._tensors
        rows, num_classes = (1, len(self._rules.anchors)), self._rules.rules.num_classes
        label_offset = scores.shape[-1] - num_classes
        if boxes.shape != (*rows, 4) or scores.shape[:-1] != rows or label_offset not in (0, 1):
            return None
        numbers = (dequantize(every_byte(tensor), affine(tensor)) for tensor in self._tensors)
        return ByteDetection(self._rules, label_offset, *numbers)


def _as_numbers(stored: Array, tensor: Tensor) -> Array:
    """Return what stored values stand for; of bytes, as their operator reads them: scale * (q - zero)."""
    return dequantize(stored, affine(tensor)) if tensor.dtype in BYTES else stored


def _as_unsigned(stored: Array, tensor: Tensor) -> NDArray[np.uint8]:
    """Return stored bytes as unsigned ones, in the order of what they stand for."""
    values = np.ascontiguousarray(stored).view(np.uint8)
    return values ^ np.uint8(lift(tensor.dtype)) if lift(tensor.dtype) else values
