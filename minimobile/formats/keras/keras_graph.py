"""A Keras model flattened: nested models opened, every call of a layer with what it is called on, in graph order.

The graph is read from `inbound_nodes`, in the lists of Keras 2 and the `__keras_tensor__` records of Keras 3; the order
of layers in the file says nothing except in a Sequential model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import Any, NamedTuple

from minimobile.errors import FormatError
from minimobile.formats.keras.keras_config import LAYER_LIMIT, KerasLayer, expect, quote
from minimobile.formats.matching.network import PICTURE


class Tensor(NamedTuple):
    """The result of one call of one layer: the layer's name in its model, and which call of it."""

    layer: str
    node: int


@dataclass(frozen=True)
class Call:
    """One layer applied once.

    `name` is unique and names the result; `path` is the way to the layer through the models around it; `arguments` are
    names of earlier calls, `PICTURE`, or numbers, in the order in which the layer is called on them. `is_training`: the
    model calls it so for good, whatever it is called with itself.
    """

    name: str
    path: tuple[str, ...]
    layer: KerasLayer
    arguments: tuple[str | float, ...]
    is_training: bool = False


@dataclass
class FlatModel:
    """The calls of a model, the name of the last one, and the picture's shape (height, width, channels).

    Of the shape None, or a part None, is what the file leaves open.
    """

    calls: list[Call]
    output: str = PICTURE
    input_shape: tuple[int | None, int | None, int | None] | None = None


def flatten(model: KerasLayer, where: str) -> FlatModel:
    """Return the calls that lead to a model's one output, in an order in which they can be computed."""
    flat = FlatModel([])
    flat.output = _expand(flat, model, (), PICTURE, where, {PICTURE})
    return flat


def _expand(
    flat: FlatModel, model: KerasLayer, path: tuple[str, ...], source: str, where: str, taken: set[str],
    is_training: bool = False,
) -> str:  # fmt: skip
    """Append a model's calls, called on `source`; return the name of its result."""
    place = f"{where}: model {'/'.join(path)!r}" if path else where
    if not model.children:
        raise FormatError(f"{place}: expected a model with layers, found one without")
    layers = {layer.name: layer for layer in model.children}
    arguments, output = _read_sequence(model) if model.class_name == "Sequential" else _read_graph(model, place)
    results: dict[Tensor, str] = {}
    for tensor, given in arguments.items():
        layer = layers[tensor.layer]
        _note_input_shape(flat, layer, place)
        if layer.class_name == "InputLayer":
            results[tensor] = source
            continue
        values = tuple((results[value] if isinstance(value, Tensor) else value) for value in given) or (source,)
        told = _read_training(layer, tensor.node)
        trains = is_training if told is None else told
        if layer.is_model:
            if len(values) != 1 or not isinstance(values[0], str):
                raise FormatError(f"{place}: {layer.name!r}: expected a model with one input, found {len(values)}")
            results[tensor] = _expand(flat, layer, (*path, layer.name), values[0], where, taken, trains)
            continue
        name = base = "/".join((*path, layer.name))
        while name in taken:
            name = f"{base}#{len(taken)}"
        taken.add(name)
        if len(taken) > LAYER_LIMIT:
            raise FormatError(f"{where}: expected at most {LAYER_LIMIT} layers, found more")
        flat.calls.append(Call(name, (*path, layer.name), layer, values, trains))
        results[tensor] = name
    return results[output]


Arguments = dict[Tensor, tuple["Tensor | float", ...]]


def _read_sequence(model: KerasLayer) -> tuple[Arguments, Tensor]:
    """Return the calls of a Sequential model, each on the one before, and the last."""
    tensors = [Tensor(layer.name, 0) for layer in model.children]
    before: list[tuple[Tensor | float, ...]] = [(), *((tensor,) for tensor in tensors)]
    return dict(zip(tensors, before, strict=False)), tensors[-1]


def _read_graph(model: KerasLayer, where: str) -> tuple[Arguments, Tensor]:
    """Return the calls that a functional model's output needs, in computing order, and that output."""
    layers = {layer.name: layer for layer in model.children}
    inputs, outputs = (_read_ends(end, where) for end in model.ends)
    if len(inputs) != 1 or len(outputs) != 1:
        raise FormatError(f"{where}: expected one input and one output, found {len(inputs)} and {len(outputs)}")
    arguments: Arguments = {}
    waiting = [_settle(outputs[0], layers, where)]
    output = waiting[0]
    while waiting:
        tensor = waiting.pop()
        if tensor not in arguments:
            layer = layers[tensor.layer]
            given = [] if layer.class_name == "InputLayer" else _read_node(layer, tensor.node, where)
            arguments[tensor] = tuple(
                _settle(value, layers, where) if isinstance(value, Tensor) else value for value in given
            )
            waiting += [value for value in arguments[tensor] if isinstance(value, Tensor)]
            if len(arguments) > LAYER_LIMIT:
                raise FormatError(f"{where}: expected at most {LAYER_LIMIT} layers, found more")
    sorter = TopologicalSorter(
        {tensor: [value for value in given if isinstance(value, Tensor)] for tensor, given in arguments.items()}
    )
    try:
        order = list(sorter.static_order())
    except CycleError:
        raise FormatError(f"{where}: expected a graph without cycles, found layers that need each other") from None
    read = [tensor for tensor in order if layers[tensor.layer].class_name == "InputLayer"]
    if [tensor.layer for tensor in read] != [inputs[0].layer]:
        raise FormatError(f"{where}: expected an output that depends on the one input, found another")
    return {tensor: arguments[tensor] for tensor in order}, output


def _settle(tensor: Tensor, layers: Mapping[str, KerasLayer], where: str) -> Tensor:
    """Return the reference with the call's number counted from 0.

    Keras 2 counts a nested model's calls from 1, because building it was the first. A model is called once here.
    """
    layer = layers.get(tensor.layer)
    if layer is None:
        raise FormatError(f"{where}: expected a layer of this model, found a reference to {tensor.layer[:200]!r}")
    if layer.class_name == "InputLayer":
        return Tensor(tensor.layer, 0)
    count = len(layer.inbound_nodes)
    if layer.is_model and count == 1 and tensor.node in (0, 1):
        return Tensor(tensor.layer, 0)
    if layer.is_model or not 0 <= tensor.node < count:
        raise FormatError(
            f"{where}: layer {tensor.layer!r}: expected "
            f"{'a model that is called once' if layer.is_model else f'one of its {count} calls'}, "
            f"found a reference to call {tensor.node} of {count}"
        )
    return tensor


def _read_ends(ends: Any, where: str) -> list[Tensor]:
    """Return the tensors that `input_layers` or `output_layers` names: one, a list of them, or a dict."""
    if isinstance(ends, dict):
        ends = list(ends.values())
    ends = expect(ends, list, f"{where}: input_layers and output_layers")
    return [_reference(end, where) for end in ([ends] if ends and isinstance(ends[0], str) else ends)]


def _reference(value: Any, where: str) -> Tensor:
    """Return the tensor of `[layer, call, output]`."""
    is_reference = isinstance(value, list) and len(value) >= 3 and isinstance(value[0], str)
    if not is_reference or type(value[1]) is not int or value[2] != 0:
        raise FormatError(f"{where}: expected the name of a layer and two numbers, found {quote(value)}")
    return Tensor(value[0], value[1])


def _read_node(layer: KerasLayer, index: int, where: str) -> list[Tensor | float]:
    """Return what a layer's call number `index` is called on."""
    place = f"{where}: layer {layer.name!r}: inbound_nodes"
    node = layer.inbound_nodes[index]
    if isinstance(node, dict):
        keywords = expect(node.get("kwargs", {}), dict, place)
        return _read_records([node.get("args", []), *(keywords.get(name) for name in ("x1", "x2"))], place)
    node = expect(node, list, place)
    values: list[Tensor | float] = []
    for entry in [node] if node and isinstance(node[0], str) else node:
        values.append(_reference_or_constant(entry, place))
        keywords = expect(entry[3] if len(entry) > 3 else {}, dict, place)
        other = keywords.get("y")  # the second operand of x + y and its like
        if other is not None:
            values.append(_reference_or_constant(other, place) if isinstance(other, list) else _number(other, place))
    return values


def _read_training(layer: KerasLayer, index: int) -> bool | None:
    """Return the `training` of a layer's call number `index`, None where it is left to the model around it.

    Keras 2 keeps to it in `predict`, too; Keras 3, which notes even the default of a `RandomFlip`, overrides it there.
    """
    node = layer.inbound_nodes[index] if index < len(layer.inbound_nodes) else None
    if not isinstance(node, list):
        return None
    entries = [node] if node and isinstance(node[0], str) else node
    keywords = [entry[3] for entry in entries if isinstance(entry, list) and len(entry) > 3]
    told = [found.get("training") for found in keywords if isinstance(found, dict)]
    return next((bool(value) for value in told if value is not None), None)


def _read_records(records: Sequence[Any], where: str, depth: int = 0) -> list[Tensor | float]:
    """Return the tensors and numbers among the arguments of a Keras 3 call, lists of them opened."""
    values: list[Tensor | float] = []
    for record in records:
        if isinstance(record, dict) and record.get("class_name") == "__keras_tensor__":
            config = expect(record.get("config"), dict, where)
            values.append(_reference(config.get("keras_history"), where))
        elif isinstance(record, list) and depth < 3:
            values += _read_records(record, where, depth + 1)
        elif record is not None:
            values.append(_number(record, where))
    return values


def _reference_or_constant(value: Any, where: str) -> Tensor | float:
    if isinstance(value, list) and len(value) >= 3 and value[0] == "_CONSTANT_VALUE":
        return _number(value[2], where)
    return _reference(value, where)


def _number(value: Any, where: str) -> float:
    return float(expect(value, (int, float), where))


def _note_input_shape(flat: FlatModel, layer: KerasLayer, where: str) -> None:
    """Keep the first shape that a layer states for the input: the outermost model's, whose layers come first."""
    shape = layer.config.get("batch_shape", layer.config.get("batch_input_shape"))
    if shape is None or flat.input_shape is not None or flat.calls:
        return
    is_shape = isinstance(shape, list) and all(size is None or (type(size) is int and size > 0) for size in shape)
    if not is_shape or len(shape) != 4:
        raise FormatError(
            f"{where}: {layer.name!r}: expected pictures (None, height, width, channels), found {quote(shape)}"
        )
    flat.input_shape = (shape[1], shape[2], shape[3])
