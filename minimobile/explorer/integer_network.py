"""A network of integers as the page has it: operations, weights, scales as multipliers, and the engine's bytes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minimobile.errors import InputError, printable
from minimobile.explorer.float_network import find_block
from minimobile.explorer.payload import Payload, find_checksum
from minimobile.networks.graph import Graph
from minimobile.quantized.arithmetic import activation_range, change_of_scale, full_range, product_scaling
from minimobile.quantized.engine import needed_operations
from minimobile.quantized.layout import values_of
from minimobile.quantized.network import Network, Operation, Tensor
from minimobile.quantized.operations.table import operation_of
from minimobile.quantized.runner import QuantizedRunner
from minimobile_kernels.quantized.reference import Range, Scaling, add_scalings
from minimobile_kernels.quantized.reference_maps import mean_scaling

KINDS = {
    "conv2d": "Conv",
    "depthwise_conv2d": "Conv DW",
    "fully_connected": "Fully Connected",
    "add": "Add",
    "average_pool2d": "Avg Pool",
    "mean": "Mean",
}
CARRIED = "The engine's own values: the page does not compute this operation."
Fields = dict[str, Any]


def describe_integers(runner: QuantizedRunner, pixel_values: NDArray[np.float32], payload: Payload) -> Fields:
    """Return {"arithmetic", "input", "layers", "outputs", "weights"} for JSON, the arrays being added to the payload.

    Products, sums, pools and means are computed in the page; of what is left (softmax, resizing, moving bytes) it
    shows the engine's own bytes. Raises InputError for bytes of another runtime than LiteRT's reference kernels.
    """
    if runner.bytes_of != "litert":
        raise InputError(
            f"explore: expected a model of LiteRT's bytes, got bytes_of={runner.bytes_of!r}; load it with "
            'bytes_of="litert", or take what `minimobile convert SRC NAME.tflite` makes of it'
        )
    network = runner.network
    stored = runner.store(pixel_values)
    operations = needed_operations(network.operations, network.outputs)
    values = runner.run_tensors(stored, [operation.output for operation in operations])
    describer = _Describer(runner, payload)
    source = network.tensors[network.inputs[0]]
    return {
        "arithmetic": "integers",
        "input": {
            "name": describer.names[source.name],
            "shape": as_map(stored.shape),
            "values": payload.add(stored[0]),
        },
        "layers": [describer.describe(operation, values[operation.output]) for operation in operations],
        "outputs": [describer.names[name] for name in network.outputs],
        "weights": describer.places,
    }


class _Describer:
    """The operations of one network; a tensor is called as the node of our graph that it holds, where there is one."""

    def __init__(self, runner: QuantizedRunner, payload: Payload) -> None:
        self.network: Network = runner.network
        self.graph: Graph = runner.graph
        self.payload = payload
        self.places: list[Fields] = []
        nodes = {tensor: node for node, tensor in runner.endpoints.items()}
        taken: set[str] = set()
        self.names: dict[str, str] = {}
        for tensor in self.network.tensors:
            name = base = printable(nodes.get(tensor, tensor))[:80]
            while name in taken:
                name = f"{base} #{len(taken)}"
            taken.add(name)
            self.names[tensor] = name

    def describe(self, operation: Operation, values: NDArray[Any]) -> Fields:
        tensors = [self.network.tensors[name] for name in operation.inputs]
        maps = [tensor for tensor in tensors if tensor.values is None]
        out = self.network.tensors[operation.output]
        write = WRITERS.get(operation.op)
        node: Fields = {"name": self.names[out.name], "op": operation.op, "attributes": {}, "weights": {}}
        name, multiply_adds, parameters = self.names[out.name], 0, 0
        if write is not None and len(maps[0].shape) in (2, 4) and len(out.shape) in (2, 4) and is_bytes(maps[0], out):
            node["attributes"] = write(self, operation, tensors, out)
            weight = tensors[1] if len(tensors) > 1 and tensors[1].values is not None else None
            if weight is not None:
                parameters = sum(math.prod(tensor.shape) for tensor in tensors[1:])
                multiply_adds = math.prod(weight.shape) * (math.prod(out.shape[1:3]) if len(out.shape) == 4 else 1)
        else:
            if values.dtype == np.int64:  # classes: JavaScript's whole numbers of 64 bits mix with no others
                values = values.astype(np.int32)
            node |= {"op": "carried", "attributes": {"values": self.add(np.ascontiguousarray(values))}}
        is_classes = operation_of(operation).result == "classes" and len(out.shape) == 3  # a map without channels
        size = node["attributes"].get("kernel_size")
        title = KINDS.get(operation.op, operation.op.replace("_", " "))
        return {
            "name": name,
            "inputs": [self.names[tensor.name] for tensor in maps],
            "nodes": [node],
            "shape": [1, *out.shape[1:]] if is_classes else as_map(out.shape),
            "kind": f"{title} {size[0]}x{size[1]}" if size else title,
            "block": find_block(name, self.graph) if name in {each.name for each in self.graph.nodes} else "other",
            "parameters": parameters,
            "multiplyAdds": multiply_adds,
            "microseconds": None,
            "step": [],
            "checksum": find_checksum(values),
            "stands": {"scale": float(out.scale), "zero": out.zero} if len(out.scales) else None,
            "note": None if node["op"] != "carried" else CARRIED,
        }  # fmt: skip

    def add(self, values: NDArray[Any]) -> int:
        self.places.append(self.payload.add(values))
        return len(self.places) - 1

    def scales(self, by: Scaling, real: NDArray[np.float64] | float) -> Fields:
        """Describe how sums come to bytes: whole multipliers and shifts, and the real factor that they stand for."""
        return {
            "multiplier": self.add(by.multiplier.astype(np.int32)),
            "shift": self.add(by.shift.astype(np.int32)),
            "factor": self.add(np.atleast_1d(np.asarray(real, np.float64))),
        }


def is_bytes(*tensors: Tensor) -> bool:
    """Tell whether all tensors hold bytes."""
    return all(tensor.dtype in (np.uint8, np.int8) for tensor in tensors)


def as_map(shape: tuple[int, ...]) -> list[int]:
    """Return the shape of a tensor of one picture as (channels, height, width); what has no pixels is a row of them."""
    if len(shape) == 4:
        return [shape[3], shape[1], shape[2]]
    channels = shape[-1] if len(shape) > 1 else 1
    return [channels, 1, math.prod(shape) // channels]


def _write_convolution(describer: _Describer, operation: Operation, tensors: list[Tensor], out: Tensor) -> Fields:
    return _write_product(describer, operation, tensors, out, values_of(tensors[1]))


def _write_depthwise(describer: _Describer, operation: Operation, tensors: list[Tensor], out: Tensor) -> Fields:
    by_channel = values_of(tensors[1])[0].transpose(2, 0, 1)[..., None]  # (C, K_h, K_w, 1)
    return _write_product(describer, operation, tensors, out, by_channel)


def _write_connected(describer: _Describer, operation: Operation, tensors: list[Tensor], out: Tensor) -> Fields:
    product = _write_product(describer, operation, tensors, out, values_of(tensors[1])[:, None, None, :])
    return {**product, "roundsOnce": True}


def _write_product(
    describer: _Describer, operation: Operation, tensors: list[Tensor], out: Tensor, values: NDArray[Any]
) -> Fields:
    """Describe a product. Shape: values (C_out, K_h, K_w, C_in), C_in 1 where every channel is by itself."""
    x, weight, *rest = tensors
    bias = rest[0].values if rest else np.zeros(len(values), np.int32)
    by = product_scaling(x, weight, out)
    factor = np.float64(x.scale) * weight.scales.astype(np.float64) / np.float64(out.scale)
    window = {
        name: operation.attributes[name] for name in ("stride", "dilation", "padding") if name in operation.attributes
    }
    return {
        **window,
        **describer.scales(by, factor),
        **_range(activation_range(operation.attributes["activation"], out)),
        "kernel_size": values.shape[1:3],
        "xZero": x.zero,
        "weightZero": weight.zero,
        "weight": describer.add(np.ascontiguousarray(values)),
        "bias": describer.add(np.asarray(bias, np.int32)),
    }


def _write_add(describer: _Describer, operation: Operation, tensors: list[Tensor], out: Tensor) -> Fields:
    x, y = tensors
    scales = (float(x.scale), float(y.scale), float(out.scale))
    reals = (scales[0] / scales[2], scales[1] / scales[2], 1.0)
    return {
        "by": [describer.scales(by, real) for by, real in zip(add_scalings(scales), reals, strict=True)],
        "zeros": [x.zero, y.zero],
        **_range(activation_range(operation.attributes["activation"], out)),
    }


def _write_pool(describer: _Describer, operation: Operation, tensors: list[Tensor], out: Tensor) -> Fields:
    attributes = {name: operation.attributes[name] for name in ("stride", "padding", "kernel_size")}
    return attributes | _range(activation_range(operation.attributes["activation"], out))


def _write_mean(describer: _Describer, operation: Operation, tensors: list[Tensor], out: Tensor) -> Fields:
    (x,) = tensors
    count = math.prod(x.shape[1:3])
    by = mean_scaling(change_of_scale(x, out), count)
    real = float(x.scale) / float(out.scale) / count
    return {**describer.scales(by, real), "xZero": x.zero, **_range(full_range(out))}


def _range(to: Range) -> Fields:
    return {"zero": to.zero, "low": to.low, "high": to.high}


WRITERS: Mapping[str, Callable[[_Describer, Operation, list[Tensor], Tensor], Fields]] = {
    "conv2d": _write_convolution,
    "depthwise_conv2d": _write_depthwise,
    "fully_connected": _write_connected,
    "add": _write_add,
    "average_pool2d": _write_pool,
    "mean": _write_mean,
}
