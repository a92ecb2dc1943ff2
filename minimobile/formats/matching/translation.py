"""A file's graph on its way to layers: what is translated so far, and how constants join a convolution."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from minimobile.errors import FormatError
from minimobile.formats.matching.network import Layer


class GraphOperation(Protocol):
    """A node of a file's graph."""

    @property
    def name(self) -> str:
        """Return the name of its first result."""
        ...

    @property
    def title(self) -> str:
        """Return what messages call it."""
        ...

    @property
    def op(self) -> str:
        """Return its operation."""
        ...

    @property
    def inputs(self) -> tuple[str, ...]:
        """Return the tensors that it reads."""
        ...


@dataclasses.dataclass
class Translation:
    """What has been translated: layers by name, and which layer holds the value of a tensor.

    `values` are the constant tensors, `find_origin` names the one that a tensor is a copy of. `readers` has the nodes
    that read a tensor, identities followed.
    """

    where: str
    values: Mapping[str, NDArray[Any]]
    find_origin: Callable[[str], str]
    readers: Mapping[str, Sequence[GraphOperation]]
    layers: dict[str, Layer] = dataclasses.field(default_factory=dict)
    flows: dict[str, str] = dataclasses.field(default_factory=dict)

    def flow(self, node: GraphOperation) -> str | None:
        """Return the layer whose value is the node's first input; None for a constant and for what is passed over."""
        return self.flows.get(node.inputs[0]) if node.inputs else None

    def constant(self, node: GraphOperation, index: int) -> NDArray[Any] | None:
        """Return an input of the node that is a constant."""
        return self.values.get(node.inputs[index]) if index < len(node.inputs) else None

    def integers(self, node: GraphOperation, index: int) -> NDArray[Any] | None:
        """Return an input of the node that is a constant of integers."""
        values = self.constant(node, index)
        return values if values is not None and values.dtype.kind in "iu" else None

    def add(self, node: GraphOperation, op: str, inputs: Sequence[str], **attributes: Any) -> None:
        """Add a layer without arrays."""
        self.put(Layer(node.name, op, tuple(inputs), attributes=attributes, tensor=node.name))

    def put(self, layer: Layer) -> None:
        """Add or replace a layer; its tensor is its value from here on."""
        self.layers[layer.name] = layer
        self.flows[layer.tensor] = layer.name

    def is_read_once(self, tensor: str) -> bool:
        """Return whether at most one node reads a tensor."""
        return len(self.readers.get(tensor, [])) <= 1

    def refuse(self, node: GraphOperation, expected: str, found: object) -> FormatError:
        """Return the error that names a node."""
        return FormatError(f"{self.where}: node {node.title} ({node.op}): expected {expected}, found {found}")


def join_to_convolution(
    translation: Translation,
    node: GraphOperation,
    flow: str,
    factor: NDArray[np.float64],
    summand: NDArray[np.float64],
    offset: str | None,
) -> None:
    """Let the convolution before do `x * factor + summand`, also if a batch_to_space lies between.

    `factor` and `summand` hold one number per channel or one for all; `offset` is the tensor that the summand is from.
    Raises FormatError where no convolution comes before, or others read what it computes.
    """
    layer = target = translation.layers.get(flow)
    if layer is not None and layer.op == "batch_to_space":
        target = translation.layers.get(layer.inputs[0])
    if layer is not None and layer.op == "add" and (factor == 1).all():
        target = _find_summed_convolution(translation, layer)
    if layer is None or target is None or target.op not in ("conv2d", "depthwise_conv2d", "dense"):
        found = "the picture" if layer is None else layer.op
        raise translation.refuse(node, "a convolution before this constant", found)
    if not all(translation.is_read_once(each.tensor) for each in (layer, target)):
        raise translation.refuse(node, "nothing else to read the convolution before this constant", "other readers")
    weight = target.arrays["weight"]
    channels = len(weight)
    if {len(factor), len(summand)} - {1, channels}:
        raise translation.refuse(node, f"{channels} numbers, one per channel", max(len(factor), len(summand)))
    arrays = dict(target.arrays)
    names = dict(target.array_names)
    if (factor != 1).any():
        arrays["weight"] = (weight * factor.reshape(-1, *(1,) * (weight.ndim - 1))).astype(weight.dtype)
    if offset is not None or "bias" in arrays:
        bias = arrays.get("bias", np.zeros(channels)).astype(np.float64) * factor + summand
        arrays["bias"] = np.broadcast_to(bias, (channels,)).astype(weight.dtype)
    if offset is not None:
        names["bias"] = translation.find_origin(offset)
    tensor = node.name if target is layer else target.tensor
    attributes = {**target.attributes, "is_tensor_partial": True} if layer.op == "add" else target.attributes
    translation.put(dataclasses.replace(target, arrays=arrays, attributes=attributes, array_names=names, tensor=tensor))
    if target is not layer:
        translation.put(dataclasses.replace(layer, tensor=node.name))


def _find_summed_convolution(translation: Translation, layer: Layer) -> Layer | None:
    """Return the convolution that a sum alone reads: a bias behind the sum is its own, as Grappler moves it."""
    found = [translation.layers.get(name) for name in layer.inputs]
    alone = [
        source
        for source in found
        if source is not None and source.op == "conv2d" and len(translation.readers.get(source.tensor, [])) == 1
    ]
    return alone[0] if len(alone) == 1 else None


def put_batch_norm(
    translation: Translation, node: GraphOperation, flow: str, roles: Mapping[str, str], epsilon: float
) -> None:
    """Add a batch norm; `roles` are the tensors that hold its numbers."""
    arrays = {role: translation.values[tensor] for role, tensor in roles.items() if tensor in translation.values}
    if len(arrays) != len(roles) or any(values.dtype.kind != "f" for values in arrays.values()):
        raise translation.refuse(node, "floating-point constants as the numbers of its batch norm", "others")
    names = {role: translation.find_origin(tensor) for role, tensor in roles.items()}
    attributes = {"epsilon": epsilon}
    translation.put(Layer(node.name, "batch_norm", (flow,), arrays, attributes, names, node.name))
