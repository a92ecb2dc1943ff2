"""A Keras model in memory as the other side: its layers watched as they are called, its arrays under our names.

As with PyTorch's modules, convolutions are taken in the order in which they run; a padding of zeros before one is its
own, as our graph has it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from minimobile.comparison.peers import Observed, as_map, compared_layers
from minimobile.comparison.torch_modules import pair_convolutions
from minimobile.errors import InputError
from minimobile.networks.graph import Graph, Node, needed_nodes
from minimobile.operations.table import is_convolution, operation_of

Array = NDArray[Any]
_WEIGHTED = ("Conv2D", "DepthwiseConv2D", "Dense")
_PADDING, _NORMALIZATION = "ZeroPadding2D", "BatchNormalization"
_STATISTICS = {"weight": "gamma", "bias": "beta", "mean": "moving_mean", "variance": "moving_variance"}
_WITHOUT_EFFECT = ("InputLayer", _PADDING)


class _Call(NamedTuple):
    """One call of a layer: what it read and what it made, before an activation of its own, as Keras has them."""

    layer: Any
    before: Any
    after: Any

    @property
    def kind(self) -> str:
        return type(self.layer).__name__


def is_keras_model(candidate: object) -> bool:
    """Whether something is a `keras.Model`, without importing Keras for the question."""
    keras = sys.modules.get("keras")
    return keras is not None and isinstance(candidate, keras.Model)


def run_keras_model(model: Any, graph: Graph, pixels: Array) -> tuple[dict[str, Observed], dict[str, Array]]:
    """Run a model; returns what it shows of our layers, by name, and its arrays under our canonical names.

    Shapes: pixels and values (N, C, H, W). Raises InputError for a model that fails, scales its pixels itself, or is
    another network.
    """
    with _watching(model) as calls:
        try:
            result = model(np.ascontiguousarray(pixels.transpose(0, 2, 3, 1)), training=False)
        except Exception as error:
            raise InputError(
                f"{model.name}: expected a model that runs on pixel values {pixels.shape}, channels last, it failed "
                f"({type(error).__name__}: {' '.join(str(error).split())[:200]})"
            ) from error
    weighted = [index for index, call in enumerate(calls) if call.kind in _WEIGHTED]
    scaling = next((call for call in calls[: min(weighted, default=0)] if call.kind not in _WITHOUT_EFFECT), None)
    if scaling is not None:
        raise InputError(
            f"{model.name}: expected a model of pixel values, its layer {scaling.layer.name} ({scaling.kind}) changes "
            "them before the first convolution; give the part behind it, or a function that feeds what it expects"
        )
    nodes = needed_nodes(graph, graph.outputs)
    convolutions = [node for node in nodes if is_convolution(node)]
    pairs = pair_convolutions(model.name, convolutions, weighted)
    wanted = set(compared_layers(graph))
    found = {node.inputs[0]: _channels_first(_read(calls, index)) for node, index in pairs if node.inputs[0] in wanted}
    last, index = pairs[-1]
    if last.name == graph.outputs[-1]:  # logits, whatever a softmax makes of them
        found[last.name] = _channels_first(calls[index].after)
    elif hasattr(result, "shape"):
        found[graph.outputs[-1]] = _channels_first(result)
    return {name: Observed(as_map(values)) for name, values in found.items()}, _arrays(nodes, calls, pairs)


@contextmanager
def _watching(model: Any) -> Iterator[list[_Call]]:
    """Keep what every layer reads and makes, in the order of calls, those of models within the model included."""
    calls: list[_Call] = []
    watched = []

    def watch(layer: Any) -> None:
        own, function = layer.call, getattr(layer, "activation", None)
        sums: list[Any] = []

        def activate(x: Any) -> Any:
            sums.append(x)
            return x if function is None else function(x)

        def call(*inputs: Any, **options: Any) -> Any:
            result = own(*inputs, **options)
            if inputs and hasattr(inputs[0], "shape") and hasattr(result, "shape"):
                calls.append(_Call(layer, inputs[0], sums.pop() if sums else result))
            return result

        object.__setattr__(layer, "call", call)
        if type(layer).__name__ in _WEIGHTED:
            object.__setattr__(layer, "activation", activate)
        watched.append((layer, function))

    try:
        for layer in model._flatten_layers(include_self=False):
            if not getattr(layer, "layers", None):  # a model within the model: its own layers are called
                watch(layer)
        yield calls
    finally:
        for layer, function in watched:
            object.__delattr__(layer, "call")
            if type(layer).__name__ in _WEIGHTED:
                object.__setattr__(layer, "activation", function)


def _read(calls: list[_Call], index: int) -> Any:
    """Return what a convolution reads, before zeros are put around it."""
    before = calls[index].before
    padding = next((call for call in calls[:index] if call.kind == _PADDING and call.after is before), None)
    return before if padding is None else padding.before


def _arrays(nodes: tuple[Node, ...], calls: list[_Call], pairs: list[tuple[Node, int]]) -> dict[str, Array]:
    normalizations = {node.inputs[0]: node for node in nodes if operation_of(node).is_normalization}
    arrays: dict[str, Array] = {}
    for node, index in pairs:
        layer = calls[index].layer
        kernel = _turn(calls[index].kind, _to_numpy(layer.kernel))
        is_dense = node.name == "classifier"
        arrays[node.weights["weight"]] = kernel.reshape(kernel.shape[:2]) if is_dense else kernel
        if "bias" in node.weights and getattr(layer, "bias", None) is not None:
            arrays[node.weights["bias"]] = _to_numpy(layer.bias)
        after = calls[index + 1] if index + 1 < len(calls) else None
        if node.name in normalizations and after is not None and after.kind == _NORMALIZATION:
            arrays |= _read_statistics(normalizations[node.name].weights, after.layer)
    return arrays


def _read_statistics(weights: Mapping[str, str], layer: Any) -> dict[str, Array]:
    found = {weights[role]: getattr(layer, name, None) for role, name in _STATISTICS.items()}
    return {name: _to_numpy(values) for name, values in found.items() if values is not None}


def _turn(kind: str, kernel: Array) -> Array:
    """Return a kernel in PyTorch's layout, (C_out, C_in / groups, K_h, K_w)."""
    if kind == "Dense":
        return kernel.T[:, :, None, None]
    if kind == "DepthwiseConv2D":
        return kernel.transpose(2, 3, 0, 1).reshape(-1, 1, *kernel.shape[:2])
    return kernel.transpose(3, 2, 0, 1)


def _channels_first(values: Any) -> Array:
    found = _to_numpy(values)
    return found.transpose(0, 3, 1, 2) if found.ndim == 4 else found


def _to_numpy(values: Any) -> Array:
    """Return a tensor or a variable of whatever Keras runs on."""
    found: Array = sys.modules["keras"].ops.convert_to_numpy(values)
    return found
