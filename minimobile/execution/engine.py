"""Runs a graph: compiled, as one native call per thread, or on the NumPy definitions. Same bits in float32."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from minimobile.errors import InputError
from minimobile.execution.arena import ArenaPool, aligned_floats
from minimobile.execution.program import (
    PackedWeights,
    Program,
    compile_program,
    pack_weights,
    read_map,
    weight_key,
)
from minimobile.execution.threads import Crew, check_thread_count, default_thread_count
from minimobile.networks.graph import INPUT, Graph, Node
from minimobile.networks.passes import (
    Weights,
    fold_batch_norm,
    fuse_activations,
    fuse_residuals,
    keep_needed,
    layout_weights,
)
from minimobile.networks.shapes import CONVOLUTIONS, sliding_window
from minimobile_kernels import machine, reference, sync
from minimobile_kernels.step import STEP

DataFormat = Literal["channels_first", "channels_last"]
is_compiled = machine.is_compiled
is_kept = machine.is_kept
cache_directory = machine.cache_directory
PROGRAMS_KEPT = 16


class Engine:
    """A graph with weights, ready to run.

    `weights` maps the graph's canonical names to arrays. `engine` is "compiled" or "reference"; `dtype` "float64"
    needs the reference. `num_threads` counts the caller; None takes `MINIMOBILE_NUM_THREADS`, else all processors.
    An engine may be called from many threads at once.
    """

    def __init__(
        self,
        graph: Graph,
        weights: Weights,
        *,
        engine: str = "compiled",
        dtype: str = "float32",
        num_threads: int | None = None,
    ) -> None:
        if engine not in ("compiled", "reference"):
            raise InputError(f"engine: expected 'compiled' or 'reference', got {engine!r}")
        if dtype not in ("float32", "float64"):
            raise InputError(f"dtype: expected 'float32' or 'float64', got {dtype!r}")
        if dtype == "float64" and engine == "compiled":
            raise InputError("dtype: expected 'float32' with engine='compiled', got 'float64'; use engine='reference'")
        self.num_threads = default_thread_count() if num_threads is None else check_thread_count(num_threads)
        self.dtype = np.dtype(dtype)
        self._graph = graph
        self._weights = weights
        self._runner = _Compiled(graph, weights, self.num_threads) if engine == "compiled" else None

    @property
    def has_program(self) -> bool:
        """Whether graphs are compiled to programs; the reference engine walks them node by node."""
        return self._runner is not None

    def run(
        self, pixel_values: NDArray[Any], outputs: Sequence[str], data_format: DataFormat = "channels_first"
    ) -> dict[str, NDArray[Any]]:
        """Compute the named nodes and nothing that they do not need.

        Shapes: pixel_values (N, C, H, W), or (N, H, W, C) with "channels_last", of the engine's dtype; the results
        have the same layout.
        """
        if self._runner is not None:
            return self._runner.run(pixel_values, tuple(outputs), data_format == "channels_last")
        x = pixel_values if data_format == "channels_last" else pixel_values.transpose(0, 2, 3, 1)
        results = run_reference(self._graph, self._weights, x.astype(self.dtype), outputs)
        if data_format == "channels_first":
            results = {name: np.ascontiguousarray(y.transpose(0, 3, 1, 2)) for name, y in results.items()}
        return results


def warm_up() -> None:
    """Compile the kernels, or load them from disk, without running a network."""
    nothing = aligned_floats(16)
    steps, control = np.zeros(0, STEP), np.zeros(1, np.int64)
    machine.run(steps, nothing, nothing, nothing, np.zeros(1, np.int64), control, control, 0, 1)


def run_reference(
    graph: Graph, weights: Weights, x: NDArray[Any], outputs: Sequence[str], fold: bool = True
) -> dict[str, NDArray[Any]]:
    """Run a graph on the definitions of `reference.py`, node by node. `fold=False` keeps batch norm as it is trained.

    Shapes: x (N, H, W, C), float32 or float64, and the results likewise.
    """
    graph = keep_needed(graph, outputs)
    if fold:
        graph = fold_batch_norm(graph)
    values = {INPUT: x}
    for node in graph.nodes:
        values[node.name] = apply_node(node, weights, [values[name] for name in node.inputs])
    return {name: values[name] for name in outputs}


def apply_node(node: Node, weights: Weights, inputs: list[NDArray[Any]]) -> NDArray[Any]:
    """Compute one node on the definitions of `reference.py`. Shapes: inputs and result (N, H, W, C), of one dtype."""
    x, attributes = inputs[0], node.attributes
    if node.op in CONVOLUTIONS:
        weight, bias = layout_weights(node, weights, x.dtype.type)
        block = attributes.get("block", reference.BLOCK)
        if node.op == "pointwise_conv2d":
            return reference.pointwise_conv2d(x, weight, bias, block)
        window = sliding_window(node, x.shape[1], x.shape[2])
        if node.op == "conv2d":
            return reference.conv2d(x, weight, bias, window, block)
        return reference.depthwise_conv2d(x, weight, bias, window)
    if node.op in ("average_pool2d", "global_average_pool2d"):
        window = sliding_window(node, x.shape[1], x.shape[2])
        return reference.average_pool2d(x, window, attributes.get("precision", "float64"))
    if node.op == "batch_norm":
        scale, shift, mean, variance = (weights[node.weights[role]] for role in ("weight", "bias", "mean", "variance"))
        return reference.batch_norm(x, scale, shift, mean, variance, attributes["epsilon"])
    if node.op == "activation":
        return reference.activation(x, attributes["function"])
    if node.op == "fake_quantize":
        return reference.fake_quantize(x, reference.nudge_range(*attributes["quantization"]))
    if node.op == "resize_bilinear":
        return reference.resize_bilinear(x, inputs[1].shape[1], inputs[1].shape[2], attributes["align_corners"])
    if node.op == "add":
        return reference.add(x, inputs[1])
    assert node.op == "concatenate", node.op
    return reference.concatenate(x, inputs[1])


class _Compiled:
    """Programs by outputs and shape, packed weights, arenas and helpers of one engine."""

    def __init__(self, graph: Graph, weights: Weights, num_threads: int) -> None:
        self._graph = graph
        self._weights = weights
        self._packed: list[PackedWeights] = []
        self._programs: OrderedDict[object, tuple[Program, PackedWeights]] = OrderedDict()
        self._arenas = ArenaPool()
        self._lock = threading.Lock()
        self._crew = Crew(num_threads - 1)

    def run(
        self, pixel_values: NDArray[Any], outputs: tuple[str, ...], is_channels_last: bool
    ) -> dict[str, NDArray[np.float32]]:
        pixels = np.require(pixel_values, np.float32, ["C_CONTIGUOUS", "ALIGNED"])
        n, *sizes = pixels.shape
        channels, height, width = (sizes[2], *sizes[:2]) if is_channels_last else sizes
        key = (outputs, pixels.shape, is_channels_last)
        with self._lock:
            found = self._programs.get(key)
            if found is None:
                found = self._compile(outputs, (n, channels, height, width), is_channels_last)
                self._programs[key] = found
                if len(self._programs) > PROGRAMS_KEPT:
                    self._programs.popitem(last=False)
            self._programs.move_to_end(key)
        program, packed = found
        arena = self._arenas.take(program.arena_size)
        self._execute(program, packed, pixels.reshape(-1), arena)
        results = {name: read_map(program, arena, name, is_channels_last) for name in outputs}
        self._arenas.give_back(arena)
        return results

    def _compile(
        self, outputs: tuple[str, ...], shape: tuple[int, int, int, int], is_channels_last: bool
    ) -> tuple[Program, PackedWeights]:
        folded = fold_batch_norm(keep_needed(self._graph, outputs))
        graph = fuse_residuals(fuse_activations(folded))
        packed = self._pack(graph)
        program = compile_program(graph, packed, shape, is_channels_last, self._crew.size + 1)
        return program, packed

    def _pack(self, graph: Graph) -> PackedWeights:
        """Return packed weights that hold all of the graph's; one array serves all sets of outputs if it can."""
        needed = {weight_key(node) for node in graph.nodes if node.op in CONVOLUTIONS}
        for packed in self._packed:
            if needed <= packed.offsets.keys():
                return packed
        nodes = [*fold_batch_norm(self._graph).nodes, *graph.nodes] if not self._packed else graph.nodes
        self._packed.append(pack_weights(nodes, self._weights))
        return self._packed[-1]

    def _execute(
        self,
        program: Program,
        packed: PackedWeights,
        pixels: NDArray[np.float32],
        arena: NDArray[np.float32],
    ) -> None:
        threads = self._crew.size + 1
        control, bell = np.zeros(len(program.steps) * threads * sync.ENTRIES, np.int64), self._crew.bell
        is_over = False

        def work(thread: int) -> None:
            if not is_over:
                machine.run(program.steps, pixels, packed.values, arena, program.taps, control, bell, thread, threads)

        self._crew.invite(work)
        work(0)
        is_over = True  # a helper that comes later finds nothing left to do
