"""Runs a graph compiled, as one native call per thread: the bits of the definitions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minimobile.execution.account import Account
from minimobile.execution.arena import ArenaPool, aligned_floats
from minimobile.execution.crew import Crew
from minimobile.execution.packing import PackedWeights, pack_weights, weight_key
from minimobile.execution.program import Program, compile_program, read_map
from minimobile.execution.recent import Recent
from minimobile.execution.runner import DEFAULTS, DataFormat, FloatRunner, Pixels, RunOptions
from minimobile.execution.timing import time_nodes
from minimobile.networks.graph import Graph, needed_nodes
from minimobile.operations.operation import Weights
from minimobile.operations.passes import fold_batch_norm, lower
from minimobile.operations.table import is_convolution
from minimobile_kernels import entries
from minimobile_kernels.mailbox import make_mailbox
from minimobile_kernels.step import STEP


@dataclass
class _Plan:
    """What a runner knows of runs for one set of outputs and one shape of images."""

    graph: Graph
    shape: tuple[int, int, int, int]  # of the image: (N, C, H, W), whatever its layout
    is_channels_last: bool
    packed: PackedWeights
    shared: Program  # for all threads of the runner
    account: Account

    def __post_init__(self) -> None:
        self.alone: Program | None = None  # the program for one thread: made when a call is to go alone
        self.arena_size = self.shared.arena_size  # for either

    def find_alone(self) -> Program:
        """Return the program for one thread, made now if need be; one for several does more than one thread needs."""
        if self.alone is None:
            alone = compile_program(self.graph, self.packed, self.shape, self.is_channels_last)
            self.arena_size = max(self.arena_size, alone.arena_size)  # before anybody sees the program
            self.alone = alone
        return self.alone


class CompiledRunner(FloatRunner):
    """A graph with weights, compiled: programs by outputs and shape, packed weights, arenas and helpers.

    `weights` maps the graph's canonical names to arrays. It may be called from many threads at once.
    """

    dtype = np.dtype(np.float32)

    def __init__(self, graph: Graph, weights: Weights, options: RunOptions = DEFAULTS) -> None:
        super().__init__(graph)
        self._weights = weights
        self._packed: list[PackedWeights] = []
        self._plans: Recent[_Plan] = Recent()
        self._arenas = ArenaPool()
        self._crew = Crew(options.thread_count - 1)

    def run(
        self, pixel_values: Pixels, outputs: Sequence[str], data_format: DataFormat = "channels_first"
    ) -> dict[str, NDArray[Any]]:
        """Compute the named nodes; see `Runner.run`."""
        names, is_channels_last = tuple(outputs), data_format == "channels_last"
        pixels = np.require(pixel_values, np.float32, ["C_CONTIGUOUS", "ALIGNED"])
        n, *sizes = pixels.shape
        channels, height, width = (sizes[2], *sizes[:2]) if is_channels_last else sizes
        plan = self._plans.find(
            (names, pixels.shape, is_channels_last),
            lambda: self._plan(names, (n, channels, height, width), is_channels_last),
        )
        is_for_all = plan.account.to_share > 0
        program = plan.shared if is_for_all else plan.alone or plan.find_alone()
        arena = self._arenas.take(plan.arena_size)
        arguments = (program.steps, pixels.reshape(-1), plan.packed.values, arena, program.taps)
        self._crew.run(entries.run, arguments, plan.account, is_for_all)
        results = {name: read_map(program, arena, name, is_channels_last) for name in names}
        self._arenas.give_back(arena)
        return results

    def rouse(self) -> None:
        """Wake the helpers; see `Runner.rouse`."""
        self._crew.rouse()

    def time_steps(self, pixel_values: NDArray[Any], data_format: DataFormat) -> dict[tuple[str, ...], float]:
        """Return the microseconds of each step of a run on one thread; see `Runner.time_steps`."""
        return time_nodes(self.graph, self._weights, pixel_values, data_format == "channels_last")

    def _plan(self, outputs: tuple[str, ...], shape: tuple[int, int, int, int], is_channels_last: bool) -> _Plan:
        graph = lower(self.graph, outputs)
        packed = self._pack(graph)
        shared = compile_program(graph, packed, shape, is_channels_last, self._crew.size + 1)
        return _Plan(graph, shape, is_channels_last, packed, shared, Account())

    def _pack(self, graph: Graph) -> PackedWeights:
        """Return packed weights that hold all of the graph's; one array serves all sets of outputs if it can.

        Where somebody asks for sums before batch norm, too, the next one has the plain weights of all convolutions: who
        looks at one of these sums soon looks at others.
        """
        needed = {weight_key(node) for node in graph.nodes if is_convolution(node)}
        for packed in self._packed:
            if needed <= packed.offsets.keys():
                return packed
        nodes = [*fold_batch_norm(self.graph).nodes, *graph.nodes]
        if self._packed:
            nodes += needed_nodes(self.graph, self.graph.outputs)
        self._packed.append(pack_weights(nodes, self._weights))
        return self._packed[-1]


def is_compiled() -> bool:
    """Tell whether the kernels are in memory, or on disk for this very source, processor and Numba."""
    return entries.run.is_ready() and entries.serve.is_ready()


def is_kept() -> bool:
    """Tell whether the kernels are on disk, so that the next process need not compile them."""
    return entries.run.is_kept() and entries.serve.is_kept()


def warm_up() -> None:
    """Compile the kernels, or load them from disk, without running a network."""
    nothing = aligned_floats(16)
    steps, control = np.zeros(0, STEP), np.zeros(1, np.int64)
    entries.run(steps, nothing, nothing, nothing, np.zeros(1, np.int64), control, control, 1, 0)
    entries.serve(make_mailbox(1), 0, 1)
