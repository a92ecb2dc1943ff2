"""The last layer alone, of a file of integers that another runtime runs as it is, with nothing else taken out of it.

A runtime joins what stands between bytes into operators of integers, and does not where it has to show what stands
there: then it rounds elsewhere, by a step here and there, and goes on from that.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minimobile.comparison.peers import Peer, as_map, compared_layers, computes_integers, run_peer
from minimobile.models.classes import MobileNetModel

Array = NDArray[Any]


@dataclass(frozen=True)
class Answers:
    """What both sides have for the last layer: how many values, how many that differ, and by how many steps at most.

    `most_steps` counts those of the layer's own numbers, as its scale has it.
    """

    layer: str
    values: int
    differing: int
    most_steps: float

    def __str__(self) -> str:
        if not self.differing:
            return f"as it is, the file gives our {self.values} values of {self.layer}, bit for bit"
        steps = f"{self.most_steps:.3g} {'step' if self.most_steps == 1 else 'steps'}"
        return f"as it is, the file gives {self.differing} of {self.values} values of {self.layer} up to {steps} off"


def compare_answers(model: MobileNetModel, peer: Peer, against: str, pixels: Array) -> Answers | None:
    """Compare the last layer where nothing else is shown; None for what is no file of integers, or does not show it.

    Shapes: pixels (N, C, H, W).
    """
    layer = compared_layers(model.graph)[-1]
    if not computes_integers(against, peer) or layer not in peer.endpoints:
        return None
    alone = dataclasses.replace(peer, endpoints={layer: peer.endpoints[layer]})
    theirs = run_peer(against, alone, pixels).get(layer)
    if theirs is None or theirs.grid is None:
        return None
    ours = as_map(model.features(pixels, [layer])[layer])
    if ours.shape != theirs.values.shape:
        return None
    difference = np.abs(ours.astype(np.float64) - theirs.values)
    most = float(np.rint(difference.max() / theirs.grid.step))
    return Answers(layer, ours.size, int(np.count_nonzero(ours != theirs.values)), most)
