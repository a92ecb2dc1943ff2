"""How close to a framework is close enough: as close as float32 comes to float64, on both sides, and no constant."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minimobile.comparison.float32_bounds import largest_excess
from minimobile.comparison.suspect import isolate
from minimobile.models.classes import MobileNetModel
from minimobile.networks.graph import INPUT
from minimobile.operations.estimate import Estimate


def assert_agrees(model: MobileNetModel, pixels: NDArray[Any], theirs: Mapping[str, Any]) -> None:
    """Assert that values of layers found elsewhere, and our own, are those of float64 but for what float32 explains.

    Each side is judged on its own values of the nearest layers before, or from the pixels where there are none; and
    each with limits that kernels of float16 would not keep. Shapes: pixels (N, C, H, W) float32; theirs by layer name,
    (N, C, H, W), or (N, C) for maps of one pixel.
    """
    graph, weights = model.graph, model.state_dict()
    shaped = model.features(pixels, list(theirs))
    ours: dict[str, NDArray[Any]] = {INPUT: _channels_last(pixels)}
    known = dict(ours)
    for name, values in shaped.items():
        ours[name], found = _channels_last(values), _channels_last(np.asarray(theirs[name], np.float32))
        assert found.size == ours[name].size, f"{name}: {found.shape} for {ours[name].shape}"
        known[name] = found.reshape(ours[name].shape)
    for name in [node.name for node in graph.nodes if node.name in shaped]:
        suspect = isolate(graph, weights, name, known)
        expected = suspect.estimate()
        assert suspect.would_see_narrower_weights(expected), f"{name}: these weights and pixels prove nothing"
        _assert_explained(f"{name}, theirs", expected, suspect.found)
        alone = isolate(graph, weights, name, ours)
        _assert_explained(f"{name}, ours", expected if [*alone.inputs] == [INPUT] else alone.estimate(), alone.found)


def _assert_explained(what: str, expected: Estimate, found: NDArray[Any]) -> None:
    excess = largest_excess(expected, found)
    assert excess <= 1, f"{what}: {excess:.1f} times as far from float64 as float32 explains"


def _channels_last(values: NDArray[Any]) -> NDArray[Any]:
    return values.transpose(0, 2, 3, 1) if values.ndim == 4 else values[:, None, None]
