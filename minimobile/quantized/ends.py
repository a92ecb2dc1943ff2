"""How pictures come into a network of integers, and how its results leave it."""

from __future__ import annotations

import dataclasses

import numpy as np

from minimobile.quantized.network import Network, Operation, Tensor

TYPES = ("uint8", "int8", "float32")


def add_ends(network: Network, dtype: str, result_dtype: str | None = None) -> Network:
    """Return the network whose input is of `dtype` and whose outputs are of `result_dtype`, of `TYPES`; None: the same.

    Bytes of the other sign are moved by 128 on the way, floats become bytes and back. A result of a single pixel
    becomes a row: (1, 1, 1, C) -> (1, C).
    """
    (first,) = network.inputs
    tensors, operations = dict(network.tensors), list(network.operations)
    if tensors[first].dtype != np.dtype(dtype):
        outer = _retype(tensors[first], dtype)
        tensors[outer.name] = outer
        operations.insert(0, Operation("quantize", (outer.name,), first))
        first = outer.name
    outputs = tuple(_add_result(tensors, operations, name, result_dtype or dtype) for name in network.outputs)
    return Network(tensors, tuple(operations), (first,), outputs, network.bytes_of)


def _add_result(tensors: dict[str, Tensor], operations: list[Operation], last: str, dtype: str) -> str:
    """Add what brings one result to its shape and type; returns its name then."""
    if tensors[last].shape[1:-1] == (1, 1):
        rows = dataclasses.replace(tensors[last], name=f"{last}.row", shape=(1, tensors[last].shape[3]))
        tensors[rows.name] = rows
        operations.append(Operation("reshape", (last,), rows.name))
        last = rows.name
    if tensors[last].dtype != np.dtype(dtype):
        outer = _retype(tensors[last], dtype)
        tensors[outer.name] = outer
        operations.append(Operation("dequantize" if dtype == "float32" else "quantize", (last,), outer.name))
        last = outer.name
    return last


def _retype(tensor: Tensor, dtype: str) -> Tensor:
    """Return a tensor of the same numbers in another type."""
    name = f"{tensor.name}.{dtype}"
    if dtype == "float32":
        return Tensor(name, tensor.shape, np.dtype(dtype))
    zeros = tensor.zero_points - int(np.iinfo(tensor.dtype).min) + int(np.iinfo(dtype).min)
    return dataclasses.replace(tensor, name=name, dtype=np.dtype(dtype), zero_points=zeros)
