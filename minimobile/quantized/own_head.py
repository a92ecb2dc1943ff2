"""What the outputs of a network with a head of its own are, as far as the network tells; no file says how to decode."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from minimobile.quantized.network import Network, Operation, Tensor


class OwnOutput(NamedTuple):
    """A raw output: the name, type and shape of its tensor, and what it is."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    what: str


def own_outputs(network: Network | None) -> tuple[OwnOutput, ...]:
    """Return the outputs of a network that has several; () for others, and for None."""
    if network is None or len(network.outputs) < 2:
        return ()
    tensors = [network.tensors[name] for name in network.outputs]
    rows = [tensor.shape[1] for tensor in tensors if len(tensor.shape) == 3 and tensor.shape[2] == 4]
    is_ssd = len(tensors) == 3 and len(rows) >= 2 and all(tensor.shape[1:2] == (rows[0],) for tensor in tensors)
    return tuple(
        OwnOutput(tensor.name, str(tensor.dtype), tensor.shape, _tell(network, tensor, is_ssd)) for tensor in tensors
    )


def describe_own_head(outputs: tuple[OwnOutput, ...]) -> str:
    """Return what a head is, in a line: an SSD's of another school, or so many outputs."""
    told = "; ".join(f"{output.name} {output.dtype} {output.shape}, {output.what}" for output in outputs)
    kinds = {output.what for output in outputs}
    is_ssd = kinds == {"scores", "box offsets", "anchors"}
    kind = "an SSD's of another school, not decoded" if is_ssd else f"{len(outputs)} outputs"
    return f"{kind}, in integers alone: {told}"


def _tell(network: Network, tensor: Tensor, is_ssd: bool) -> str:
    if tensor.values is not None:
        return "anchors" if is_ssd and tensor.shape[2] == 4 else "a constant"
    from minimobile.quantized.operations.table import operation_of  # for networks of integers alone

    maker = find_maker(network, tensor.name)
    if maker is not None and operation_of(maker).result == "probabilities":
        return "scores"
    return "box offsets" if is_ssd and tensor.shape[2] == 4 else "values"


def find_maker(network: Network, name: str) -> Operation | None:
    """Return the operation that computes a tensor's values, before what only moves them; None for the input."""
    from minimobile.quantized.operations.table import operation_of

    made = {operation.output: operation for operation in network.operations}
    while name in made and operation_of(made[name]).keeps_numbers:
        name = made[name].inputs[0]
    return made.get(name)


def find_stored(network: Network, name: str) -> str:
    """Return the tensor of the same shape whose bytes a tensor of floats stands for; its own name where none is.

    A tensor of bytes is its own: where its scale is another than that of what it is made of, it is rounded.
    """
    from minimobile.quantized.operations.table import operation_of

    made = {operation.output: operation for operation in network.operations}
    while network.tensors[name].dtype == np.float32 and name in made and operation_of(made[name]).keeps_numbers:
        source = made[name].inputs[0]
        if network.tensors[source].shape != network.tensors[name].shape:
            break
        name = source
    return name
