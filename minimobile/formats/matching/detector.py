"""Finds SSD and SSDLite in simplified layers, given where their predictors end; names mean nothing.

A reader of a format knows these ends: they are what its post-processing joins. As in `recognition.py`, what is found is
a claim, and `matching.py` checks it against our own graph.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from minimobile.errors import FormatError
from minimobile.formats.matching.network import Layer
from minimobile.formats.matching.recognition import (
    CONVOLUTION,
    DEPTHWISE,
    POINTWISE,
    Finding,
    Walk,
    describe_layer,
)
from minimobile.networks import ssd
from minimobile.networks.anchors import make_anchors
from minimobile.networks.config import Config
from minimobile.networks.ssd_config import MobileNetSSDConfig
from minimobile.operations.shapes import infer_shapes

Size = tuple[int, int]


@dataclass(frozen=True)
class DetectorEnds:
    """What a file says of its detector.

    `boxes` and `classes` name the layers that predict them, map by map. `ssd` holds the numbers of its
    post-processing; what follows from the layers is filled in. `anchors` (N, 4) float32 are its own, None where it has
    none and the formula's are meant. `folds_batch_norm` is the config's field.
    """

    boxes: tuple[str, ...]
    classes: tuple[str, ...]
    ssd: MobileNetSSDConfig
    num_classes: int
    anchors: NDArray[np.float32] | None = None
    folds_batch_norm: bool = True


def recognise_detector(layers: Sequence[Layer], ends: DetectorEnds, where: str) -> Finding:
    """Return which layer is which, or raise FormatError naming the first that is none of a detector's."""
    if len(ends.boxes) != ssd.MAPS or len(ends.classes) != ssd.MAPS:
        _fail(where, f"predictors of {ssd.MAPS} maps, as an SSD on MobileNet has", f"{len(ends.boxes)}")
    by_name = {layer.name: layer for layer in layers}
    heads: dict[str, Layer] = {}
    for kind, names in (("boxes", ends.boxes), ("classes", ends.classes)):
        for index, name in enumerate(names):
            heads |= _find_head(by_name, name, f"{ssd.HEAD}{kind}.{index}", where)
    taken = {layer.name for layer in heads.values()}
    walk = Walk([layer for layer in layers if layer.name not in taken], where)
    last, architecture = walk.walk_backbone()
    if architecture == "MobileNetV2":
        last = walk.take("conv_1x1", last, POINTWISE)
    for index in range(len(ssd.EXTRA_CHANNELS)):
        name = f"{ssd.HEAD}extra.{index}"
        last = walk.take(f"{name}.reduce_1x1", last, POINTWISE)
        is_depthwise = bool(walk.find(last, DEPTHWISE))
        last = walk.take(f"{name}.conv_3x3", last, DEPTHWISE if is_depthwise else CONVOLUTION)
        if is_depthwise:
            last = walk.take(f"{name}.expand_1x1", last, POINTWISE)
    walk.finding.architecture = f"{architecture}ForObjectDetection"
    walk.finish(last)
    walk.finding.layers |= heads
    return walk.finding


def _find_head(layers: dict[str, Layer], name: str, node: str, where: str) -> dict[str, Layer]:
    """Return the convolution that a predictor ends in, and the depthwise one before it, where there is one."""
    layer = layers.get(name)
    if layer is None or layer.op != "conv2d" or "activation" in layer.attributes:
        found = "none" if layer is None else describe_layer(layer)
        _fail(where, f"a convolution without activation ({node}.projection) as the layer {name!r}", found)
    source = layers.get(layer.inputs[0])
    if source is not None and source.op == "depthwise_conv2d":
        return {f"{node}.depthwise": source, f"{node}.projection": layer}
    return {f"{node}.projection": layer}


def detector_fields(finding: Finding, ends: DetectorEnds, where: str) -> dict[str, Any]:
    """Return the config's fields that the predictors tell."""
    layers = finding.layers
    projections = [layers[f"{ssd.HEAD}boxes.{index}.projection"].arrays["weight"] for index in range(ssd.MAPS)]
    for index, weight in enumerate(projections):
        classes = layers[f"{ssd.HEAD}classes.{index}.projection"].arrays["weight"].shape[0]
        if weight.shape[0] % 4 or classes * 4 != weight.shape[0] * (ends.num_classes + 1):
            _fail(
                where, f"4 numbers for every box of map {index}, and {ends.num_classes + 1} scores",
                f"{weight.shape[0]} and {classes} channels",
            )  # fmt: skip
    counts = [weight.shape[0] // 4 for weight in projections]
    each = counts[-1]
    is_reduced = counts[0] == 3 and each != 3
    if each < 2 or counts[1:] != [each] * (ssd.MAPS - 1) or (counts[0] != each and not is_reduced):
        _fail(where, "as many anchors a cell on every map, or 3 on the first", f"{counts}")
    ratios = ends.ssd.aspect_ratios
    if len(ratios) != each - 1:  # of the file's own anchors nobody asks for ratios
        ratios = (*ratios, *[1.0] * each)[: each - 1]
    settled = ends.ssd.replace(
        use_depthwise=f"{ssd.HEAD}boxes.0.depthwise" in layers,
        kernel_size=projections[0].shape[2] if f"{ssd.HEAD}boxes.0.depthwise" not in layers else 3,
        aspect_ratios=ratios,
        reduce_boxes_in_lowest_layer=is_reduced,
    )
    fields = {"ssd": settled, "num_labels": ends.num_classes, "output_stride": 32}
    return fields | {"folds_batch_norm": ends.folds_batch_norm}


def settle_anchors(
    config: Config, weights: dict[str, NDArray[Any]], ends: DetectorEnds, image_size: Size | None, where: str
) -> tuple[Config, dict[str, NDArray[Any]]]:
    """Return config and weights with the file's own anchors, where they are others than the formula's."""
    if ends.anchors is None:
        return config, weights
    settings = ssd.settings(config)
    if image_size is not None:
        graph = ssd.build(config)
        shapes = infer_shapes(graph, *image_size)
        maps = [shapes[name][1:] for name in graph.outputs[: ssd.MAPS]]
        made = make_anchors(settings, image_size, maps)
        if len(made) != len(ends.anchors):
            _fail(where, f"{len(made)} anchors for pictures of {image_size[0]}x{image_size[1]}", f"{len(ends.anchors)}")
        if np.array_equal(made.view(np.int32), ends.anchors.view(np.int32)):
            return config, weights
    stored = settings.replace(stored_anchors=len(ends.anchors))
    return config.replace(ssd=stored), {**weights, ssd.ANCHORS: ends.anchors}


def _fail(where: str, expected: str, found: str) -> NoReturn:
    raise FormatError(f"{where}: expected {expected}, found {found}")
