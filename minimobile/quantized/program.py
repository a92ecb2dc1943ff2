"""Quantised network + input shape -> program: steps for the compiled kernels, their constants, and arena offsets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from minimobile.quantized.builder import LINE, SUMS, Builder
from minimobile.quantized.layout import Shape
from minimobile.quantized.network import Network, Operation
from minimobile.quantized.operations.conv2d import SLACK
from minimobile.quantized.operations.operation import Limits
from minimobile.quantized.operations.table import operation_of
from minimobile_kernels.host import LANES
from minimobile_kernels.quantized.constants import MOST_CHANNELS
from minimobile_kernels.quantized.step import STEP


@dataclass(frozen=True)
class Program:
    """Steps and their constants for one input shape, for a number of threads.

    `places` are (offset, shape) in the arena of the maps that come from elsewhere, but for the caller's image;
    `results` the offset of every tensor that is kept, in the result.
    """

    steps: NDArray[np.void]
    constants: NDArray[np.uint8]
    arena_size: int
    result_size: int
    places: Mapping[str, tuple[int, Shape]]
    results: Mapping[str, int]


def is_compiled(operation: Operation, network: Network, bytes_of: str) -> bool:
    """Say whether the kernels can do an operation; what they cannot, the definitions do."""
    return operation_of(operation).has_kernel(operation, network, Limits(LANES, MOST_CHANNELS, bytes_of))


def compile_program(
    network: Network, operations: Sequence[Operation], kept: Sequence[str], bytes_of: str, num_threads: int
) -> Program:
    """Turn a row of operations that `is_compiled` into a program; the tensors `kept` are its results."""
    results, result_size = _lay_out(network, kept)
    builder = Builder(network, results, bytes_of, num_threads)
    bases = _bases(operations, network)
    last_use = {SUMS: len(operations)}
    for index, operation in enumerate(operations):
        last_use.update((bases.get(name, name), index) for name in operation.inputs)
    sources = _sources(network, operations, bases, kept)
    for name in sources:
        builder.place(name)
        if name in network.inputs:
            builder.add_step("split", name, name, 4 * int(np.prod(builder.shape(name))))  # the caller's image
    for index, operation in enumerate(operations):
        name = operation.output
        if name in bases:
            if bases[name] in builder.places:
                builder.places[name] = builder.places[bases[name]]
        else:
            if not operation_of(operation).writes_result:
                builder.place(name)
            operation_of(operation).add_steps(builder, operation)
        if name in results and name in builder.places:
            builder.add_step("unpack", name, name, int(np.prod(builder.shape(name))), out=results[name])
        for taken in builder.arena.names():
            if last_use.get(taken, index) <= index:
                builder.arena.release(taken)
    return Program(
        steps=np.concatenate([np.zeros(0, STEP), *builder.steps]),
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
        if operation_of(operation).is_same_bytes(x, out):
            bases[out.name] = bases.get(x.name, x.name)
    return bases


def _sources(
    network: Network, operations: Sequence[Operation], bases: Mapping[str, str], kept: Sequence[str]
) -> list[str]:
    """Return the maps that come from elsewhere, but for the caller's image where it is packed as it is."""
    made = {operation.output for operation in operations}
    is_packed: dict[str, bool] = {}
    for operation in operations:
        is_image = operation_of(operation).reads_image(operation, network)
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
