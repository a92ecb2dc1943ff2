"""Finds the body of a network that ends in a head of its own: several outputs, such as a feature pyramid's.

The head is nobody's paper: only the MobileNet in front of it is named. As in `recognition.py`, what is found is a claim
that `matching.py` checks against our own graph.
"""

from __future__ import annotations

from collections.abc import Sequence

from minimobile.formats.matching.network import Layer
from minimobile.formats.matching.recognition import POINTWISE, Finding, Walk

OF_THE_HEAD = "part of the file's own head, which its network of integers computes"


class _BodyWalk(Walk):
    """A walk that follows the body where a head branches off: more layers come after the body's."""

    def __init__(self, layers: Sequence[Layer], where: str) -> None:
        super().__init__(layers, where)
        self.depths: dict[str, int] = {}
        for layer in reversed(layers):
            self.depths[layer.name] = 1 + max(
                (self.depths[reader.name] for reader in self.readers.get(layer.name, ())), default=0
            )

    def find(self, value: str, kind: str) -> list[Layer]:
        """Return that reader of a value, of those of a kind, which has most layers after it."""
        return sorted(super().find(value, kind), key=lambda layer: -self.depths[layer.name])[:1]


def recognise_body(layers: Sequence[Layer], where: str) -> Finding:
    """Return which layer is which of the MobileNet; the others are the head's. Raises FormatError as the others do."""
    walk = _BodyWalk(layers, where)
    last, architecture = walk.walk_backbone()
    if architecture == "MobileNetV2":
        walk.take("conv_1x1", last, POINTWISE)
    finding = walk.finding
    finding.architecture = f"{architecture}Model"
    for layer in layers:
        if layer.name not in walk.matched:
            finding.after_logits |= dict.fromkeys(layer.array_names.values() or (layer.name,), OF_THE_HEAD)
    return finding
