"""The body of a detector in an ONNX graph: twelve convolutions that predict boxes and classes of six maps.

What comes after them is no part of the file, or moves and scores values: reshapes, a concatenation, softmax or sigmoid.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from minimobile.errors import FormatError
from minimobile.formats.matching.detector import DetectorEnds
from minimobile.formats.matching.network import Layer
from minimobile.networks import ssd
from minimobile.networks.graph import sweep_back
from minimobile.networks.ssd_config import MobileNetSSDConfig

JOIN = "concatenation along another axis"
_MOVES = ("reshape", "other")
_SCORES = ("softmax", "sigmoid")
_BEFORE = ("activation", "batch_norm", "pad", "depthwise_conv2d")


def find_detector(
    layers: Sequence[Layer], settings: MobileNetSSDConfig | None, anchors: NDArray[np.float32] | None, where: str
) -> tuple[list[Layer], DetectorEnds] | None:
    """Return the layers of a detector up to its predictors, and where these end; None for another network.

    `settings` and `anchors` are the file's own, where it has them. Raises FormatError where boxes cannot be told from
    classes: with three classes both are four numbers, and only scores or our own names tell.
    """
    by_name = {layer.name: layer for layer in layers}
    readers: dict[str, list[Layer]] = {}
    for layer in layers:
        for name in dict.fromkeys(layer.inputs):
            readers.setdefault(name, []).append(layer)
    scored = {layer.name: _follow(layer, readers) for layer in layers if layer.op == "conv2d"}
    predictors = [by_name[name] for name, function in scored.items() if function is not None]
    if len(predictors) != 2 * ssd.MAPS:
        return None
    maps: dict[str, list[Layer]] = {}
    for layer in predictors:
        maps.setdefault(_find_source(layer, by_name, readers), []).append(layer)
    order = sorted(maps, key=[layer.name for layer in layers].index)
    pairs = [maps[name] for name in order]
    if any(len(pair) != 2 for pair in pairs):
        raise FormatError(f"{where}: expected two predictors on each of {ssd.MAPS} maps, found {len(maps)} maps")
    functions = {scored[layer.name] for layer in predictors} - {""}
    boxes, classes, count = _tell_apart(pairs, scored, where)
    ends = sweep_back(layers, _names((*boxes, *classes)), lambda layer: [layer.name], lambda layer: layer.inputs)
    converter = {"score_converter": functions.pop()} if functions else {}
    numbers = (settings or MobileNetSSDConfig()).replace(**converter)
    return list(ends), DetectorEnds(_names(boxes), _names(classes), numbers, count - 1, anchors)


def _names(layers: Sequence[Layer]) -> tuple[str, ...]:
    return tuple(layer.name for layer in layers)


def _follow(layer: Layer, readers: Mapping[str, list[Layer]]) -> str | None:
    """Return what makes scores of a convolution's values, an empty text where nothing does.

    None for one that more is computed from than moves: it is no predictor.
    """
    waiting, seen = [layer.name], {layer.name}
    function = ""
    while waiting:
        for reader in readers.get(waiting.pop(), []):
            word = str(reader.attributes.get("function"))
            if reader.op == "activation" and word in _SCORES:
                function = word
            elif reader.op not in _MOVES or reader.attributes.get("kind", JOIN) != JOIN:
                return None
            if reader.name not in seen:
                seen.add(reader.name)
                waiting.append(reader.name)
    return function


def _find_source(layer: Layer, by_name: Mapping[str, Layer], readers: Mapping[str, list[Layer]]) -> str:
    """Return the layer whose map a predictor sees: the first before it that others read, too."""
    name = layer.inputs[0]
    while name in by_name and len(readers[name]) == 1 and by_name[name].op in _BEFORE:
        name = by_name[name].inputs[0]
    return name


def _tell_apart(
    pairs: Sequence[Sequence[Layer]], scored: Mapping[str, str | None], where: str
) -> tuple[list[Layer], list[Layer], int]:
    """Return the predictors of boxes, those of classes, and how many scores each anchor has."""
    by_size = [
        sorted(pair, key=lambda layer: (len(layer.arrays["weight"]), bool(scored[layer.name]), layer.name))
        for pair in pairs
    ]
    found = []
    for first in (0, 1):
        boxes, classes = ([pair[at] for pair in by_size] for at in (first, 1 - first))
        sizes = [
            (len(box.arrays["weight"]), len(score.arrays["weight"])) for box, score in zip(boxes, classes, strict=True)
        ]
        counts = {4 * scores // box for box, scores in sizes}
        is_whole = all(box % 4 == 0 and 4 * scores % box == 0 for box, scores in sizes) and len(counts) == 1
        if is_whole and not any(scored[layer.name] for layer in boxes) and sizes[-1][0] > 4:
            found.append((boxes, classes, counts.pop()))
    if len(found) > 1 and all(layer.name.startswith(f"{ssd.HEAD}boxes.") for layer in found[0][0]):
        del found[1:]
    if len(found) != 1:
        raise FormatError(
            f"{where}: expected predictors of 4 numbers a box and of as many scores for each, found "
            f"{len(found) or 'no'} ways to tell them apart"
        )
    return found[0]
