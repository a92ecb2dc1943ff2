"""Runs a quantised network: compiled where the kernels can, on the definitions elsewhere, or on these alone."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minimobile.execution.account import Account
from minimobile.execution.arena import ArenaPool
from minimobile.execution.crew import Crew
from minimobile.execution.recent import Recent
from minimobile.execution.runner import DEFAULTS, RunOptions
from minimobile.networks.graph import sweep_back
from minimobile.quantized.definitions import apply
from minimobile.quantized.layout import Shape, lift
from minimobile.quantized.look_ups import join_look_ups
from minimobile.quantized.network import Network, Operation, Tensor
from minimobile.quantized.operations.table import operation_of
from minimobile.quantized.padding import absorb_padding
from minimobile.quantized.program import Program, compile_program, is_compiled
from minimobile.quantized.rows import spread_rows
from minimobile_kernels import entries
from minimobile_kernels.host import LANES
from minimobile_kernels.quantized.step import STEP

Array = NDArray[Any]
is_ready = entries.run_quantized.is_ready
is_kept = entries.run_quantized.is_kept


@dataclasses.dataclass(frozen=True)
class _Stage:
    """Neighbouring operations of one kind: those of a program, or one for the definitions; and the plan's tensors."""

    tensors: Mapping[str, Tensor]
    operations: tuple[Operation, ...]
    reads: tuple[str, ...]
    program: Program | None
    account: Account


class QuantizedEngine:
    """A quantised network, ready to run. The options' `bytes_of` says whose bytes it computes, None: the network's own.

    - "litert": those of LiteRT's reference kernels, `OpResolverType.BUILTIN_REF`: sums are rounded twice on their way.
    - "litert-single-rounding": those of the same kernels built with TFLITE_SINGLE_ROUNDING, which round once.
    - "xnnpack": those of LiteRT's default, XNNPACK: sums are multiplied by a float32 factor and rounded, halves to
      even; additions and changes of scale have integer rules of their own.
    - "onnxruntime", "onnxruntime-uint8": those of ONNX Runtime's operators of integers on x86-64, in a file of int8 or
      of uint8: factors as XNNPACK's, additions in float32 (which of the two types the file has can tip a tie there).

    An engine may be called from many threads at once.
    """

    def __init__(self, network: Network, options: RunOptions = DEFAULTS) -> None:
        self.network = network
        self.bytes_of = options.bytes_of or network.bytes_of
        self.num_threads = options.thread_count
        self._is_compiled = options.engine == "compiled"
        self._crew = Crew(self.num_threads - 1)
        self._plans: Recent[tuple[dict[str, Array], list[_Stage]]] = Recent()
        self._arenas = ArenaPool()

    def run(self, x: Array, outputs: Sequence[str] | None = None) -> dict[str, Array]:
        """Compute the named tensors (None: the network's outputs) and nothing that they do not need.

        Shapes: x as the network's input tensor says, and of its type; the results likewise as their tensors say.
        """
        names = tuple(self.network.outputs if outputs is None else outputs)
        constants, stages = self._plans.find(names, lambda: self._plan(names))
        values: dict[str, Array] = {**constants, self.network.inputs[0]: x}
        for stage in stages:
            if stage.program is None:
                (operation,) = stage.operations
                values[operation.output] = apply(operation, stage.tensors, values, self.bytes_of)
            else:
                values.update(self._execute(stage, stage.program, values))
        return {name: values[name] for name in names}

    def rouse(self) -> None:
        """Wake the helpers; see `Runner.rouse`."""
        self._crew.rouse()

    def _plan(self, names: tuple[str, ...]) -> tuple[dict[str, Array], list[_Stage]]:
        """Return those of the tensors that are constants, and what computes the others."""
        network = self.network
        values = {name: network.tensors[name].values for name in names}
        needed: Sequence[Operation] = needed_operations(network.operations, names)
        if self._is_compiled:
            spread, tensors = spread_rows(absorb_padding(needed, names, network.tensors), network.tensors)
            network = dataclasses.replace(network, tensors=tensors)
            needed = join_look_ups(needed_operations(spread, names), names, tensors, self.bytes_of)
        groups: list[tuple[bool, list[Operation]]] = []
        written: set[str] = set()  # by the last group, to the result: no map that it could read
        for operation in self._gather(needed, network):
            has_kernel = self._has_kernel(operation, network)
            if not (has_kernel and groups and groups[-1][0]) or written.intersection(operation.inputs):
                groups.append((has_kernel, []))
                written.clear()
            groups[-1][1].append(operation)
            if operation_of(operation).writes_result:
                written.add(operation.output)
        stages = []
        for index, (has_kernel, group) in enumerate(groups):
            later = {name for _, rest in groups[index + 1 :] for operation in rest for name in operation.inputs}
            made = [operation.output for operation in group]
            kept = tuple(name for name in made if name in later or name in names)
            reads = tuple(
                dict.fromkeys(
                    name for operation in group for name in operation.inputs
                    if name not in made and network.tensors[name].values is None
                )
            )  # fmt: skip
            program = None
            if has_kernel:
                program = compile_program(network, group, kept, self.bytes_of, self.num_threads)
            stages.append(_Stage(network.tensors, tuple(group), reads, program, Account()))
        return {name: value for name, value in values.items() if value is not None}, stages

    def _has_kernel(self, operation: Operation, network: Network) -> bool:
        return self._is_compiled and is_compiled(operation, network, self.bytes_of)

    def _gather(self, operations: Sequence[Operation], network: Network) -> list[Operation]:
        """Return the operations in an order in which as many as can be that have kernels are neighbours.

        What has none waits until nothing else can be computed: a detector's files reshape every predictor's map before
        the next predictor, which would cut their program into a dozen.
        """
        waiting, ordered = list(operations), []
        missing = {operation.output for operation in operations}
        while waiting:
            ready = [operation for operation in waiting if not missing.intersection(operation.inputs)]
            kernels = [operation for operation in ready if self._has_kernel(operation, network)]
            chosen = kernels or ready[:1]
            ordered += chosen
            missing -= {operation.output for operation in chosen}
            waiting = [operation for operation in waiting if operation.output in missing]
        return ordered

    def _execute(self, stage: _Stage, program: Program, values: Mapping[str, Array]) -> dict[str, Array]:
        memory = self._arenas.take(-(-program.arena_size // 4))
        arena = memory.view(np.uint8)
        image = arena[:0]
        for name in stage.reads:
            if name in program.places:
                write_map(arena, program.places[name], values[name])
            else:
                image = np.ascontiguousarray(values[name]).view(np.uint8).reshape(-1)
        result = np.empty(program.result_size, np.uint8)
        arguments = (program.steps, image, program.constants, arena, result)
        self._crew.run(entries.run_quantized, arguments, stage.account)
        self._arenas.give_back(memory)
        found = {}
        for name, place in program.results.items():
            tensor = stage.tensors[name]
            stop = place + math.prod(tensor.shape) * tensor.dtype.itemsize
            found[name] = result[place:stop].view(tensor.dtype).reshape(tensor.shape)
        return found


def warm_up() -> None:
    """Compile the kernels of bytes, or load them from disk, without running a network."""
    steps, nothing = np.zeros(0, STEP), np.zeros(0, np.uint8)
    control = np.zeros(1, np.int64)
    entries.run_quantized(steps, nothing, nothing, nothing, nothing, control, control, 1, 0)


def needed_operations(operations: Sequence[Operation], names: Sequence[str]) -> tuple[Operation, ...]:
    """Return those of the operations that the tensors `names` need, in order."""
    return sweep_back(operations, names, lambda each: (each.output,), lambda each: each.inputs)


def write_map(arena: NDArray[np.uint8], place: tuple[int, Shape], values: Array) -> None:
    """Write a map of bytes, signed or not, to its place as planes of LANES channels."""
    offset, (n, height, width, channels) = place
    planes = -(-channels // LANES)
    padded = np.zeros((n, height, width, planes * LANES), np.uint8)
    padded[..., :channels] = values.reshape(n, height, width, channels).view(np.uint8) ^ lift(values.dtype)
    split = padded.reshape(n, height, width, planes, LANES).transpose(3, 0, 1, 2, 4)
    arena[offset : offset + split.size] = split.reshape(-1)
