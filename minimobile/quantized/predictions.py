"""The end of a detector in a network: its maps as rows, all of them in one tensor, and class logits as scores."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from minimobile.networks.graph import Graph
from minimobile.networks.ssd import find_predictions
from minimobile.quantized.network import Network, Operation, Tensor

BOXES, LOGITS, SCORES = "box_encodings", "class_logits", "class_scores"
"""What the joined tensors are called."""
_CONVERTERS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "sigmoid": ("logistic", {}),
    "softmax": ("softmax", {"beta": 1.0}),
}


def join_predictions(network: Network, graph: Graph, columns: int, score_converter: str) -> Network:
    """Return a detector's network with two outputs: box encodings (1, A, 4) and scores (1, A, columns).

    Those of other graphs stay as they are. The maps of boxes have one grid, and so have those of classes. Scores of
    bytes are 256ths, as LiteRT has them.
    """
    boxes, classes = find_predictions(graph)
    if not boxes:
        return network
    joined = _Joining(dict(network.tensors), list(network.operations))
    joined.concatenate(boxes, 4, BOXES)
    joined.concatenate(classes, columns, LOGITS)
    joined.score(score_converter)
    return Network(joined.tensors, tuple(joined.operations), network.inputs, (BOXES, SCORES), network.bytes_of)


@dataclasses.dataclass(frozen=True)
class _Joining:
    tensors: dict[str, Tensor]
    operations: list[Operation]

    def concatenate(self, maps: tuple[str, ...], columns: int, name: str) -> None:
        """Add the rows of several maps (1, H, W, anchors * columns) as one tensor (1, A, columns)."""
        parts = []
        for source in maps:
            tensor = self.tensors[source]
            rows = int(np.prod(tensor.shape)) // columns
            parts.append(f"{source}.rows")
            self.add("reshape", (source,), dataclasses.replace(tensor, name=parts[-1], shape=(1, rows, columns)), {})
        total = sum(self.tensors[part].shape[1] for part in parts)
        whole = dataclasses.replace(self.tensors[parts[0]], name=name, shape=(1, total, columns))
        self.add("concatenate", tuple(parts), whole, {"axis": 1})

    def score(self, converter: str) -> None:
        """Add what makes scores of the logits."""
        op, attributes = _CONVERTERS[converter]
        scores = dataclasses.replace(self.tensors[LOGITS], name=SCORES)
        if len(scores.scales):
            lowest = np.array([np.iinfo(scores.dtype).min], np.int64)
            scores = dataclasses.replace(scores, scales=np.array([1 / 256], np.float32), zero_points=lowest)
        self.add(op, (LOGITS,), scores, attributes)

    def add(self, op: str, inputs: tuple[str, ...], out: Tensor, attributes: Mapping[str, Any]) -> None:
        self.tensors[out.name] = out
        self.operations.append(Operation(op, inputs, out.name, attributes))
