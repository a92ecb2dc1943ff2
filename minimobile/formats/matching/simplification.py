"""Layers -> layers: every convolution takes in the padding, blocks, batch norm and activation that belong to it."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from typing import Any

from minimobile.errors import FormatError
from minimobile.formats.matching.network import PICTURE, Layer

Pads = tuple[tuple[int, int], tuple[int, int]]
NORMALIZATION_ROLES = {"weight": "scale", "bias": "shift", "mean": "mean", "variance": "variance"}
_WEIGHTED = ("conv2d", "depthwise_conv2d", "dense")
_RANKS = {"conv2d": 4, "depthwise_conv2d": 4, "dense": 2}
_OF_LOGITS = ("softmax", "sigmoid")


def simplify(layers: Sequence[Layer], where: str) -> tuple[Layer, ...]:
    """Return the same network with fewer layers, each convolution (and dense layer) as one.

    Such a layer keeps its name and has the tensor name of its last part. It may have further arrays (a batch norm's,
    under the roles "scale", "shift", "mean", "variance") and attributes: "epsilon", "activation", "quantization" (of
    its values; a sum may have that, too). Joined to it are an
    explicit padding before it, space_to_batch before and batch_to_space after it (a dilation), batch norm and
    activation after it, where nobody else reads what lies between. A reshape of pooled values is left out. What cannot
    be joined stays as it is. Raises FormatError where arrays do not fit their layer.
    """
    readers = Counter(name for layer in layers for name in layer.inputs)
    homes = {PICTURE: PICTURE}  # name of a layer -> name of the layer that it became a part of
    kept: dict[str, Layer] = {}
    for layer in layers:
        unknown = [name for name in layer.inputs if name not in homes]
        if unknown or layer.name in homes:
            found = f"an input {unknown[0]!r} that is not" if unknown else "a second layer of that name"
            raise FormatError(f"{where}: layer {layer.name!r}: expected inputs computed before it, found {found}")
        moved = dataclasses.replace(layer, inputs=tuple(homes[name] for name in layer.inputs))
        _check_arrays(moved, where)
        source = kept.get(moved.inputs[0]) if moved.inputs else None
        if source is not None and moved.op in (*_WEIGHTED, "space_to_batch"):
            moved = _join_what_comes_before(moved, source)
            source = None
        joined = None if source is None else _join_to_source(moved, source, readers[layer.inputs[0]] == 1)
        homes[layer.name] = layer.name if joined is None else joined.name
        kept[homes[layer.name]] = moved if joined is None else joined
    for layer in kept.values():
        if "block" in layer.attributes and layer.op in _WEIGHTED:
            raise FormatError(f"{where}: layer {layer.name!r}: expected a batch_to_space after it, found none")
    read = {name for layer in kept.values() for name in layer.inputs}
    return tuple(
        layer for layer in kept.values() if layer.name in read or layer.op not in ("pad", "space_to_batch")
    )  # what was joined to its readers is read by nobody


def _join_what_comes_before(layer: Layer, source: Layer) -> Layer:
    attributes = layer.attributes
    padding: Any = attributes.get("padding")
    if source.op == "pad" and padding is not None and padding != "SAME":
        own = ((0, 0), (0, 0)) if padding == "VALID" else padding
        return _replace(layer, source.inputs, padding=_add(source.attributes["padding"], own, 1))
    is_dense = attributes.get("stride") == 1 and attributes.get("dilation") == 1
    if source.op == "space_to_batch" and is_dense and len(set(source.attributes["block"])) == 1:
        block = source.attributes["block"][0]
        if padding == "SAME":  # of a stride of 1
            rows, columns = layer.arrays["weight"].shape[2:]
            padding = (((rows - 1) // 2, rows // 2), ((columns - 1) // 2, columns // 2))
        own = ((0, 0), (0, 0)) if padding == "VALID" else padding
        return _replace(layer, source.inputs, padding=_add(source.attributes["padding"], own, block), block=block)
    return layer


def _join_to_source(layer: Layer, source: Layer, is_only_reader: bool) -> Layer | None:
    """Return the source with the layer as its last part, or None where that cannot be."""
    if layer.op == "reshape" and source.op == "average_pool2d":
        return source
    attributes = source.attributes
    if not is_only_reader or "quantization" in attributes:
        return None
    if layer.op == "fake_quantize" and source.op in (*_WEIGHTED, "add") and "block" not in attributes:
        joined = _replace(source, source.inputs, quantization=layer.attributes["quantization"])
        return dataclasses.replace(joined, tensor=layer.tensor or layer.name)
    if source.op not in _WEIGHTED:
        return None
    if layer.op == "batch_to_space":
        block = attributes.get("block")
        padding = _add(attributes["padding"], layer.attributes["crop"], -1) if block is not None else None
        if padding is None or set(layer.attributes["block"]) != {block} or min(map(min, padding)) < 0:
            return None
        joined = _replace(source, source.inputs, padding=padding, dilation=block)
        rest = {name: value for name, value in joined.attributes.items() if name != "block"}
        return dataclasses.replace(joined, attributes=rest, tensor=layer.tensor or layer.name)
    if "activation" in attributes:
        return None
    is_score = layer.op == "activation" and layer.attributes["function"] in _OF_LOGITS
    if layer.op == "activation" and (not is_score or layer.attributes.get("is_curve", False)):
        joined = _replace(source, source.inputs, activation=layer.attributes["function"])
        return dataclasses.replace(joined, tensor=layer.tensor or layer.name)
    channels = source.arrays["weight"].shape[0]
    if layer.op == "batch_norm" and "epsilon" not in attributes and layer.arrays["mean"].shape == (channels,):
        names = {**source.array_names}
        names.update({NORMALIZATION_ROLES[role]: _array_name(layer, role) for role in layer.arrays})
        arrays = {NORMALIZATION_ROLES[role]: values for role, values in layer.arrays.items()}
        joined = _replace(source, source.inputs, epsilon=layer.attributes["epsilon"])
        return dataclasses.replace(
            joined, arrays={**source.arrays, **arrays}, array_names=names, tensor=layer.tensor or layer.name
        )
    return None


def _replace(layer: Layer, inputs: tuple[str, ...], **attributes: Any) -> Layer:
    return dataclasses.replace(layer, inputs=inputs, attributes={**layer.attributes, **attributes})


def _add(left: Pads, right: Pads, factor: int) -> Pads:
    (top, bottom), (before, after) = (
        tuple(one + factor * other for one, other in zip(*pair, strict=True)) for pair in zip(left, right, strict=True)
    )
    return (top, bottom), (before, after)


def _array_name(layer: Layer, role: str) -> str:
    return layer.array_names.get(role, f"{layer.name}/{role}")


def _check_arrays(layer: Layer, where: str) -> None:
    """Refuse a weight of the wrong rank, and vectors that have not one number per channel."""
    shapes = {role: values.shape for role, values in layer.arrays.items()}
    if layer.op in _WEIGHTED:
        if not layer.inputs:
            raise FormatError(f"{where}: layer {layer.name!r}: expected an input that is computed, found a constant")
        is_right = len(shapes.get("weight", ())) == _RANKS[layer.op] and 0 not in shapes["weight"]
        is_right = is_right and shapes.get("bias", shapes["weight"][:1]) == shapes["weight"][:1]
        expected = f"a weight of {_RANKS[layer.op]} dimensions and, if any, a bias with one number per output channel"
    elif layer.op == "batch_norm":
        is_right = {"mean", "variance"} <= set(shapes) <= set(NORMALIZATION_ROLES)
        is_right = is_right and len(set(shapes.values())) == 1 and len(shapes["mean"]) == 1
        expected = "mean and variance, and, if any, weight and bias, with one number per channel each"
    else:
        return
    if not is_right:
        found = ", ".join(f"{role} {shape}" for role, shape in shapes.items()) or "none"
        raise FormatError(f"{where}: layer {layer.name!r} ({layer.op}): expected {expected}, found {found}")
