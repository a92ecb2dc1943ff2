"""A program run step by step against the clock, on one thread or by a crew."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minimobile.execution.arena import aligned_floats
from minimobile.execution.crew import Crew
from minimobile.execution.packing import PackedWeights, pack_weights
from minimobile.execution.program import Program, compile_program
from minimobile.networks.graph import Graph
from minimobile.operations.operation import Weights
from minimobile.operations.passes import lower
from minimobile_kernels import entries
from minimobile_kernels.step import STEP


class SteppedProgram:
    """What a normal run executes for inputs of `shape`, (N, C, H, W) whatever the layout, step by step."""

    def __init__(
        self,
        graph: Graph,
        weights: Weights,
        shape: tuple[int, int, int, int],
        is_channels_last: bool = False,
        num_threads: int = 1,
    ) -> None:
        lowered = lower(graph, graph.outputs)
        self._packed = pack_weights(lowered.nodes, weights)
        self._program = compile_program(lowered, self._packed, shape, is_channels_last, num_threads)
        self._crew = Crew(num_threads - 1)
        self._arena = aligned_floats(max(self._program.arena_size, 1))

    def parts(self) -> Iterator[slice]:
        """Yield the steps that are run by themselves; those that are done together are one slice."""
        start = 0
        for index, step in enumerate(self._program.steps):
            if not step["is_fused"]:
                yield slice(start, index + 1)
                start = index + 1

    def names(self, part: slice) -> tuple[str, ...]:
        """Return the names of the nodes whose maps a part computes."""
        return self._program.names[part]

    def steps(self, part: slice) -> NDArray[np.void]:
        """Return the steps of a part (`minimobile_kernels.step.STEP`)."""
        return self._program.steps[part]

    def output(self, part: slice) -> tuple[int, int, int, int]:
        """Return the shape (N, H, W, C) of what a part computes last."""
        shape: tuple[int, int, int, int] = self._program.table()[part.stop - 1]["output"]
        return shape

    def run(self, part: slice, pixels: NDArray[np.float32]) -> float:
        """Run a part and return its seconds. The parts before it must have been run once. Shape: pixels (N*C*H*W)."""
        return run_steps(self._program, self._program.steps[part], pixels, self._packed, self._arena)

    def run_together(self, part: slice, pixels: NDArray[np.float32], times: int) -> float:
        """Run a part on all threads, several times in one call, and return the seconds of one of them; see `run`.

        A call before, which is not timed, has the helpers awake.
        """
        steps = np.tile(self._program.steps[part], times).astype(STEP, copy=False)
        for each in (steps[: part.stop - part.start], steps):
            start = time.perf_counter()
            arguments = (each, pixels, self._packed.values, self._arena, self._program.taps)
            self._crew.run(entries.run, arguments)
        return (time.perf_counter() - start) / times


def run_steps(
    program: Program,
    steps: NDArray[np.void],
    pixels: NDArray[np.float32],
    packed: PackedWeights,
    arena: NDArray[np.float32],
) -> float:
    """Run steps of a program on this thread and return the seconds that it took."""
    control = np.zeros(1, np.int64)
    start = time.perf_counter()
    entries.run(steps, pixels, packed.values, arena, program.taps, control, control, 1, 0)
    return time.perf_counter() - start


def time_nodes(
    graph: Graph, weights: Weights, pixel_values: NDArray[Any], is_channels_last: bool, seconds: float = 0.1
) -> dict[tuple[str, ...], float]:
    """Return the microseconds of each step of a normal run on `pixel_values`, by the names of the nodes done in it.

    The whole program is run again and again for about `seconds`, at least three times; each step's minimum counts.
    """
    n, *sizes = pixel_values.shape
    channels, height, width = (sizes[2], *sizes[:2]) if is_channels_last else sizes
    program = SteppedProgram(graph, weights, (n, channels, height, width), is_channels_last=is_channels_last)
    pixels = np.require(pixel_values, np.float32, ["C_CONTIGUOUS", "ALIGNED"]).reshape(-1)
    parts = list(program.parts())
    rounds: list[list[float]] = []
    end = time.perf_counter() + seconds
    while len(rounds) < 3 or time.perf_counter() < end:
        rounds.append([program.run(part, pixels) for part in parts])
    fastest = np.min(rounds, axis=0) * 1e6
    return {program.names(part): float(taken) for part, taken in zip(parts, fastest, strict=True)}
