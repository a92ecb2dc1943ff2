"""Quantised network + input shape -> program: steps for the compiled kernels, their constants, and arena offsets."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from minimobile.quantized.builder import LINE, SUMS, Builder, Shape, as_image, lifted_zero
from minimobile.quantized.map_steps import (
    add_add,
    add_argmax,
    add_average_pool2d,
    add_concatenate,
    add_logistic,
    add_mean,
    add_pad,
    add_quantize,
    add_resize_bilinear,
    add_softmax,
    add_split,
    add_unpack,
)
from minimobile.quantized.network import Network, Operation, Tensor
from minimobile.quantized.product_steps import SLACK, add_conv2d, add_depthwise_conv2d, add_fully_connected, is_packing
from minimobile_kernels.quantized.scores import MOST_CHANNELS
from minimobile_kernels.quantized.step import STEP
from minimobile_kernels.simd import LANES

LEAST_SHARED = 15_000_000  # multiply-adds: a fifth of a millisecond; to call a helper takes a tenth of that


@dataclass(frozen=True)
class Program:
    """Steps and their constants for one input shape, for a number of threads.

    `places` are (offset, shape) in the arena of the maps that come from elsewhere, but for the caller's image;
    `results` the offset of every tensor that is kept, in the result.
    """

    steps: NDArray[np.void]
    num_threads: int
    constants: NDArray[np.uint8]
    arena_size: int
    result_size: int
    places: Mapping[str, tuple[int, Shape]]
    results: Mapping[str, int]


_ADDERS: Mapping[str, Callable[[Builder, Operation], None]] = {
    "conv2d": add_conv2d,
    "depthwise_conv2d": add_depthwise_conv2d,
    "fully_connected": add_fully_connected,
    "average_pool2d": add_average_pool2d,
    "mean": add_mean,
    "add": add_add,
    "resize_bilinear": add_resize_bilinear,
    "concatenate": add_concatenate,
    "quantize": add_quantize,
    "logistic": add_logistic,
    "pad": add_pad,
    "softmax": add_softmax,
}


def is_compiled(operation: Operation, network: Network) -> bool:
    """Say whether the kernels can do an operation; what they cannot, the definitions do."""
    *inputs, out = (network.tensors[name] for name in (*operation.inputs, operation.output))
    x, attributes = inputs[0], operation.attributes
    maps = [x, *(tensor for tensor in inputs[1:] if tensor.values is None), out]
    if operation.op == "argmax":
        return _is_map(x) and attributes["axis"] == len(x.shape) - 1
    if _is_from_numbers(operation, network):
        return x.name in network.inputs and _is_map(out)
    if not all(_is_map(tensor) for tensor in maps):
        return False
    if operation.op == "add":
        return len(maps) == 3 and inputs[1].shape == x.shape
    if operation.op == "average_pool2d":
        return bool(attributes["padding"] == "VALID") and int(np.prod(attributes["kernel_size"])) < 2**16
    if operation.op == "mean":
        return len(x.shape) == 4 and set(attributes["axes"]) == {1, 2} and len(out.shape) in (2, 4)
    if operation.op == "softmax":
        return x.shape[-1] <= MOST_CHANNELS
    if operation.op == "concatenate":
        is_along_channels = attributes["axis"] == len(x.shape) - 1 and len(maps) == len(inputs) + 1
        return is_along_channels and all(tensor.shape[-1] % LANES == 0 for tensor in inputs[:-1])
    if operation.op == "pad":
        padding = attributes["padding"]
        return len(padding) == 4 and not any((*padding[0], *padding[3]))
    if operation.op == "reshape":
        return as_image(x.shape) == as_image(out.shape)
    if operation.op == "fully_connected":
        return inputs[1].shape[1] == x.shape[-1]
    return operation.op in _ADDERS


def _is_from_numbers(operation: Operation, network: Network) -> bool:
    return operation.op == "quantize" and network.tensors[operation.inputs[0]].dtype == np.float32


def _is_map(tensor: Tensor) -> bool:
    return tensor.values is None and len(tensor.shape) in (2, 4) and tensor.dtype in (np.uint8, np.int8)


def compile_program(
    network: Network, operations: Sequence[Operation], kept: Sequence[str], bytes_of: str, num_threads: int
) -> Program:
    """Turn a row of operations that `is_compiled` into a program; the tensors `kept` are its results."""
    builder = Builder(network, bytes_of, num_threads)
    bases = _bases(operations, network)
    last_use = {SUMS: len(operations)}
    for index, operation in enumerate(operations):
        last_use.update((bases.get(name, name), index) for name in operation.inputs)
    sources = _sources(network, operations, bases, kept)
    for name in sources:
        builder.place(name)
        if name in network.inputs:
            add_split(builder, name)
    results, result_size = _lay_out(network, kept)
    for index, operation in enumerate(operations):
        name = operation.output
        if name in bases:
            if bases[name] in builder.places:
                builder.places[name] = builder.places[bases[name]]
        elif operation.op == "argmax":  # its numbers are no map: it writes the result itself
            add_argmax(builder, operation, results[name])
        else:
            builder.place(name)
            _ADDERS[operation.op](builder, operation)
        if name in results and name in builder.places:
            add_unpack(builder, name, results[name])
        for taken in builder.arena.names():
            if last_use.get(taken, index) <= index:
                builder.arena.release(taken)
    return Program(
        steps=np.concatenate([np.zeros(0, STEP), *builder.steps]),
        num_threads=num_threads if builder.cost >= LEAST_SHARED else 1,
        constants=builder.constants.array(),
        arena_size=builder.arena.size + SLACK,
        result_size=result_size,
        places={name: (builder.places[name], builder.shape(name)) for name in sources if name not in network.inputs},
        results=results,
    )


def _bases(operations: Sequence[Operation], network: Network) -> dict[str, str]:
    """Return the maps that are the bytes of another map under another name, and that map."""
    bases: dict[str, str] = {}
    for operation in operations:
        x, out = network.tensors[operation.inputs[0]], network.tensors[operation.output]
        if _is_from_numbers(operation, network):
            continue
        if (
            operation.op == "reshape"
            or (operation.op == "resize_bilinear" and x.shape == out.shape)
            or (operation.op == "quantize" and (x.scale, lifted_zero(x)) == (out.scale, lifted_zero(out)))
        ):
            bases[out.name] = bases.get(x.name, x.name)
    return bases


def _sources(
    network: Network, operations: Sequence[Operation], bases: Mapping[str, str], kept: Sequence[str]
) -> list[str]:
    """Return the maps that come from elsewhere, but for the caller's image where it is packed as it is."""
    made = {operation.output for operation in operations}
    is_packed: dict[str, bool] = {}
    for operation in operations:
        is_image = _is_from_numbers(operation, network)
        if operation.op == "conv2d":
            is_image = is_packing(operation, network)
        if operation.output in bases:
            is_image = operation.output not in kept
        for name in operation.inputs:
            base = bases.get(name, name)
            if base not in made and network.tensors[base].values is None:
                is_packed[base] = is_packed.get(base, base in network.inputs) and is_image
    return [name for name, is_only in is_packed.items() if not is_only]


def _lay_out(network: Network, kept: Sequence[str]) -> tuple[dict[str, int], int]:
    """Return where each kept tensor begins in the result, at a cache line, and the size of all."""
    places, size = {}, 0
    for name in kept:
        tensor = network.tensors[name]
        places[name] = size
        size += -(-int(np.prod(tensor.shape)) * tensor.dtype.itemsize // LINE) * LINE
    return places, size
