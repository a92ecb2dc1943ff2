"""Finds MobileNet V1, V2 or DeepLab in simplified layers by following connections from the picture; names mean nothing.

What it finds is a claim: that strides, sizes and sums are right is for `matching.py` to check against our own graph.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from minimobile.errors import FormatError
from minimobile.formats.matching.network import PICTURE, Layer
from minimobile.networks import mobilenet_v1, mobilenet_v2

CONVOLUTION, DEPTHWISE, POINTWISE = "3x3 convolution", "3x3 depthwise convolution", "1x1 convolution"
POOL, SUM, CONCATENATION, RESIZE = "average pool", "sum", "concatenation", "bilinear resize"
DENSE, RESCALE = "dense layer", "rescaling"
_KINDS = {
    "average_pool2d": POOL,
    "add": SUM,
    "concatenate": CONCATENATION,
    "resize_bilinear": RESIZE,
    "dense": DENSE,
    "rescale": RESCALE,
}
_AFTER_LOGITS = {
    "reshape": "changes the shape only",
    "softmax": "the model gives logits",
    "sigmoid": "the model gives logits",
    "argmax": "the model gives logits",
    "resize_bilinear": "the model gives logits at its own resolution; the processor resizes them",
}


@dataclass
class Finding:
    """What was found: the architecture, and which layer of the file is which node of our graph.

    `scale` and `offset`, one number per channel or for all, are what the file itself does to a picture first.
    `after_logits` are the layers left out at the end, with the reason.
    """

    architecture: str = ""
    layers: dict[str, Layer] = field(default_factory=dict)
    start: str = PICTURE
    scale: NDArray[np.float64] | None = None
    offset: NDArray[np.float64] | None = None
    after_logits: dict[str, str] = field(default_factory=dict)
    has_sigmoid: bool = False


def recognise_network(layers: Sequence[Layer], where: str) -> Finding:
    """Return which layer is which, or raise FormatError naming the first that is none of a MobileNet's."""
    return Walk(layers, where).run()


def describe_layer(layer: Layer) -> str:
    """Return what a layer is, in a few words."""
    if layer.op not in ("conv2d", "depthwise_conv2d", "dense"):
        return _KINDS.get(layer.op) or str(layer.attributes.get("function") or layer.attributes.get("kind") or layer.op)
    shape = layer.arrays["weight"].shape
    kernel = "dense layer" if len(shape) == 2 else f"{shape[2]}x{shape[3]} {layer.op.replace('2d', 'olution')}"
    activation = layer.attributes.get("activation")
    return f"{kernel.replace('_', ' ')} to {shape[0]} channels{f' with {activation}' if activation else ''}"


class Walk:
    """Follows values from layer to layer, and keeps what it recognised."""

    def __init__(self, layers: Sequence[Layer], where: str) -> None:
        self.where = where
        self.layers = layers
        self.readers: dict[str, list[Layer]] = {}
        for layer in layers:
            for name in dict.fromkeys(layer.inputs):
                self.readers.setdefault(name, []).append(layer)
        self.matched: set[str] = set()
        self.finding = Finding()

    def run(self) -> Finding:
        """Find the whole network."""
        last, architecture = self.walk_backbone()
        if architecture == "MobileNetV2" and self.find(last, POOL):
            last = self.walk_segmentation(last)
            head = "ForSemanticSegmentation"
        else:
            if architecture == "MobileNetV2":
                last = self.take("conv_1x1", last, POINTWISE)
            last, head = self.walk_classifier(last)
        self.finding.architecture = architecture + head
        self.finish(last)
        return self.finding

    def walk_backbone(self) -> tuple[str, str]:
        """Find the layers up to V1's last one, or V2's last block; return the last, and which network it is."""
        self.finding.start = self.scale_picture()
        if self.is_v1():
            return self.walk_v1(), "MobileNetV1"
        return self.walk_v2(), "MobileNetV2"

    def scale_picture(self) -> str:
        """Join what rescales the picture at the start to one scale and offset."""
        value = PICTURE
        while self.find(value, RESCALE):
            value = self.take("scaling", value, RESCALE)
            layer = self.finding.layers.pop("scaling")
            scale, offset = (np.asarray(layer.attributes[name], np.float64) for name in ("scale", "offset"))
            if not (np.isfinite(scale).all() and np.isfinite(offset).all() and (scale > 0).all()):
                self.refuse(layer, "a finite scale above zero and a finite offset", f"{scale} and {offset}")
            before = self.finding
            if before.scale is not None and before.offset is not None:
                scale, offset = before.scale * scale, before.offset * scale + offset
            before.scale, before.offset = scale, offset
        return value

    def is_v1(self) -> bool:
        """Tell by the fourth layer: V1's pointwise convolutions lead to depthwise ones, V2's projection to another."""
        value = self.finding.start
        for kind in (CONVOLUTION, DEPTHWISE, POINTWISE):
            found = self.find(value, kind)
            if not found:
                return False
            value = found[0].name
        return bool(self.find(value, DEPTHWISE))

    def walk_v1(self) -> str:
        """Find V1's layers; return the last."""
        x = self.take("conv_stem", self.finding.start, CONVOLUTION)
        for index in range(len(mobilenet_v1.SEPARABLE_LAYERS)):
            x = self.take(f"layer.{2 * index}", x, DEPTHWISE)
            x = self.take(f"layer.{2 * index + 1}", x, POINTWISE)
        return x

    def walk_v2(self) -> str:
        """Find V2's stem and blocks; return the last."""
        x = self.take("conv_stem.first_conv", self.finding.start, CONVOLUTION)
        x = self.walk_bottleneck("conv_stem", x, has_expansion=bool(self.find(x, POINTWISE)))
        for index in range(sum(count for _, count, _ in mobilenet_v2.STAGES)):
            x = self.walk_bottleneck(f"layer.{index}", x, has_expansion=True)
        return x

    def walk_bottleneck(self, name: str, x: str, has_expansion: bool) -> str:
        """Find one inverted residual; return its last layer."""
        if has_expansion:
            x = self.take(f"{name}.expand_1x1", x, POINTWISE)
        x = self.take(f"{name}.conv_3x3", x, DEPTHWISE)
        x = self.take(f"{name}.reduce_1x1", x, POINTWISE)
        return self.take(name, x, SUM) if self.find(x, SUM) and not self.find(x, POINTWISE) else x

    def walk_segmentation(self, x: str) -> str:
        """Find DeepLab's head; return its classifier."""
        head = "segmentation_head"
        pooled = self.take(f"{head}.avg_pool", x, POOL)
        pooled = self.take(f"{head}.conv_pool", pooled, POINTWISE)
        pooled = self.take(f"{head}.upsample", pooled, RESIZE)
        self.take(f"{head}.conv_aspp", x, POINTWISE)
        joined = self.take(f"{head}.concat", pooled, CONCATENATION)
        projection = self.take(f"{head}.conv_projection", joined, POINTWISE)
        return self.take(f"{head}.classifier", projection, POINTWISE)

    def walk_classifier(self, x: str) -> tuple[str, str]:
        """Find pool and classifier, where there are any; return the last layer, and what the class is called."""
        if not self.readers.get(x):
            return x, "Model"
        pooled = self.take("pooler", x, POOL)
        if not self.readers.get(pooled):
            return pooled, "Model"
        kind = DENSE if self.find(pooled, DENSE) else POINTWISE
        return self.take("classifier", pooled, kind), "ForImageClassification"

    def finish(self, last: str) -> None:
        """Note what comes after the last layer; refuse what has no place in a MobileNet."""
        allowed = {last}
        is_segmentation = self.finding.architecture.endswith("Segmentation")
        for layer in self.layers:
            if layer.name in self.matched:
                continue
            what = layer.attributes.get("function") if layer.op == "activation" else layer.op
            is_known = what in _AFTER_LOGITS and (is_segmentation or what != "resize_bilinear")
            if not is_known or not set(layer.inputs) <= allowed:
                self.refuse(layer, "nothing beside and after the network's own layers", describe_layer(layer))
            allowed.add(layer.name)
            self.finding.after_logits[layer.name] = _AFTER_LOGITS[str(what)]
            self.finding.has_sigmoid |= what == "sigmoid"

    def find(self, value: str, kind: str) -> list[Layer]:
        """Return those readers of a value that are of a kind."""
        return [layer for layer in self.readers.get(value, []) if _kind(layer) == kind]

    def take(self, node: str, value: str, kind: str) -> str:
        """Recognise the one reader of a kind as a node of our graph, and return its name."""
        found = self.find(value, kind)
        if len(found) != 1:
            article = "an" if kind[0] in "aeiou" else "a"
            others = found[1:] or [layer for layer in self.readers.get(value, []) if _kind(layer) != SUM]
            if not others:
                after = "the picture" if value == PICTURE else f"layer {value!r}"
                raise FormatError(
                    f"{self.where}: expected {article} {kind} ({node}) after {after}, found the end of the network"
                )
            self.refuse(others[0], f"{'one' if found else article} {kind} here ({node})", describe_layer(others[0]))
        self.finding.layers[node] = found[0]
        self.matched.add(found[0].name)
        return found[0].name

    def refuse(self, layer: Layer, expected: str, found: str) -> None:
        """Raise the error for a layer that is out of place."""
        raise FormatError(f"{self.where}: layer {layer.name!r}: expected {expected}, as in a MobileNet, found {found}")


def _kind(layer: Layer) -> str | None:
    if layer.op in ("conv2d", "depthwise_conv2d"):
        kernel = layer.arrays["weight"].shape[2:]
        if layer.op == "depthwise_conv2d":
            return DEPTHWISE if kernel == (3, 3) else None
        return {(3, 3): CONVOLUTION, (1, 1): POINTWISE}.get(kernel)
    return _KINDS.get(layer.op)
