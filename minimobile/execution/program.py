"""Graph + input shape -> program: a step for each call of a kernel, with its sizes, its padding and its places."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minimobile.errors import InputError
from minimobile.execution.arena import Arena, whole_lines
from minimobile.execution.bands import Band, Block, choose_band, count_bands
from minimobile.execution.blocks import find_blocks
from minimobile.execution.packing import PackedWeights, padded, weight_key
from minimobile.execution.parts import MOST, count_parts
from minimobile.networks.graph import INPUT, Graph, Node
from minimobile.operations.operation import MapShape
from minimobile.operations.shapes import infer_shapes, sliding_window
from minimobile.operations.table import operation_of
from minimobile_kernels.elementwise import CLAMPS
from minimobile_kernels.geometry import Window
from minimobile_kernels.host import LANES
from minimobile_kernels.step import KINDS, STEP

MAXIMUM_ARENA_BYTES = 1 << 36
LEAST_PART, GOOD_PART = 50_000, 1_000_000  # multiply-adds: about a microsecond, and twenty
PER_WEIGHT = 8  # multiply-adds in the time that a weight takes to come from memory


def read_map(program: Program, arena: NDArray[np.float32], name: str, is_channels_last: bool) -> NDArray[np.float32]:
    """Return a copy of an output's map as (N, C, H, W), or (N, H, W, C) with `is_channels_last`."""
    offset, (channels, height, width) = program.places[name]
    planes = padded(channels) // LANES
    stored = arena[offset : offset + planes * program.batch * height * width * LANES]
    split = stored.reshape(planes, program.batch, height, width, LANES)
    if is_channels_last:
        y = split.transpose(1, 2, 3, 0, 4).reshape(program.batch, height, width, -1)[..., :channels]
    else:
        y = split.transpose(1, 0, 4, 2, 3).reshape(program.batch, -1, height, width)[:, :channels]
    return np.array(y, np.float32, order="C")  # a copy always: a contiguous view would stay in the arena


@dataclass(frozen=True)
class Program:
    """What the machine runs. A map of `places` lies at (offset, channels, height, width) of the arena."""

    steps: NDArray[np.void]
    names: tuple[str, ...]
    taps: NDArray[np.int64]
    arena_size: int
    batch: int
    num_threads: int
    places: Mapping[str, tuple[int, MapShape]]

    def table(self) -> list[dict[str, Any]]:
        """Return the program as rows for people: name, kernel, output shape, padding, offsets.

        `is_fused` rows are done by the row after them; their `out` is no map, but `size` floats of the first thread's
        own memory.
        """
        return [
            {
                "name": name,
                "kernel": KINDS[step["kind"]],
                "output": (self.batch, int(step["out_height"]), int(step["out_width"]), int(step["out_channels"])),
                "is_fused": bool(step["is_fused"]),
                "size": self._size(index),
                "pad": (int(step["pad_top"]), int(step["pad_left"])),
                **{field: int(step[field]) for field in ("stride", "dilation", "x", "y", "out", "weight")},
            }
            for index, (name, step) in enumerate(zip(self.names, self.steps, strict=True))
        ]

    def _size(self, index: int) -> int:
        """Return how many floats of the arena a step writes at most, from its `out` on."""
        step = self.steps[index]
        if step["is_fused"]:
            return int(self.steps[index + 1]["scratch_size"])
        return int(step["out_plane"]) * padded(int(step["out_channels"])) // LANES


def multiply_adds(step: np.void) -> int:
    """Return the multiply-adds of a convolution step; zero for others."""
    kind = KINDS[step["kind"]]
    if not kind.endswith("conv2d"):
        return 0
    taps = 1 if kind == "pointwise_conv2d" else int(step["kernel_height"]) * int(step["kernel_width"])
    inputs = 1 if kind == "depthwise_conv2d" else int(step["channels"])
    outputs = int(step["batch"]) * int(step["out_height"]) * int(step["out_width"]) * int(step["out_channels"])
    return outputs * taps * inputs


def _cut(step: np.void, num_threads: int) -> int:
    """Return the number of parts of a step."""
    if step["kind"] == KINDS.index("activation") and step["curve"] >= 0:
        return MOST * num_threads
    outputs = int(step["out_plane"]) * int(step["out_channels"]) // LANES
    if step["kind"] == KINDS.index("average_pool2d"):
        outputs *= int(step["kernel_height"]) * int(step["kernel_width"])
    work = multiply_adds(step)
    weights = work // (int(step["batch"]) * int(step["out_height"]) * int(step["out_width"]))
    return count_parts(max(work, PER_WEIGHT * weights, 4 * outputs), num_threads, LEAST_PART, GOOD_PART)


def compile_program(
    graph: Graph, packed: PackedWeights, shape: tuple[int, int, int, int], is_channels_last: bool, num_threads: int = 1
) -> Program:
    """Turn a fused graph into a program for `shape`, (N, C, H, W) of the input whatever its layout.

    The program may be run by up to `num_threads` threads.
    """
    return _Compiler(graph, packed, shape, is_channels_last, num_threads).compile()


class _Compiler:
    """One compilation: the steps so far, and where the maps that are still needed lie."""

    def __init__(
        self,
        graph: Graph,
        packed: PackedWeights,
        shape: tuple[int, int, int, int],
        is_channels_last: bool,
        num_threads: int,
    ) -> None:
        self.graph = graph
        self.num_threads = num_threads
        self.packed = packed
        self.batch, self.channels, self.height, self.width = shape
        self.is_channels_last = is_channels_last
        self.shapes = infer_shapes(graph, self.height, self.width)
        self.steps: list[NDArray[np.void]] = []
        self.names: list[str] = []
        self.offsets: list[int] = []
        self.bands: dict[str, Band] = {}
        self.fused: set[str] = set()
        self._choose_bands()
        self.joined = self._find_joined()
        self.scratch = self._find_scratch()
        self.scratch_distance = whole_lines(max((place + size for place, size in self.scratch.values()), default=0))
        self.arena = Arena(self.scratch_distance * num_threads)
        self.arena.offsets.update((name, place) for name, (place, _) in self.scratch.items())

    def compile(self) -> Program:
        self._check_maps()
        last_use = self._find_last_use()
        if any(self._reads_packed_pixels(node) for node in self.graph.nodes):
            self._place(INPUT)
            self._add_step("pack_pixels", INPUT, INPUT, self._pixel_strides())
        for index, node in enumerate(self.graph.nodes):
            self._add_node(node)
            for name in self.arena.names():
                if last_use.get(name, index) <= index:
                    self.arena.release(name)
        self._check_arena()
        return Program(
            np.concatenate(self.steps, dtype=STEP),  # of one step NumPy would make another dtype, which is not STEP
            tuple(self.names),
            np.array(self.offsets or [0], np.int64),
            self.arena.size,
            self.batch,
            self.num_threads,
            {name: (self.arena.offsets[name], self.shapes[name]) for name in self.graph.outputs},
        )

    def _check_maps(self) -> None:
        """Raise InputError where the image is so small that nothing is left of it."""
        for name, shape in self.shapes.items():
            if min(shape) < 1:
                raise InputError(
                    f"pixel_values: expected an image large enough for {name}, got {self.height}x{self.width} pixels, "
                    f"which leaves it {shape[1]}x{shape[2]}"
                )

    def _check_arena(self) -> None:
        """Raise InputError where the maps take more memory than a run may ask for."""
        if self.arena.size * 4 > MAXIMUM_ARENA_BYTES:
            raise InputError(
                f"pixel_values: expected an input whose maps fit {MAXIMUM_ARENA_BYTES >> 30} GiB, got {self.batch} "
                f"images of {self.height}x{self.width} pixels, which need {self.arena.size * 4 >> 30} GiB; "
                "use smaller batches"
            )

    def _find_last_use(self) -> dict[str, int]:
        """Return the index of the last node that needs each map; an output's lies behind all nodes."""
        last_use = {name: len(self.graph.nodes) for name in self.graph.outputs}
        for index, node in enumerate(self.graph.nodes):
            end = index
            while self.graph.nodes[end].name in self.fused:  # what is fused is computed with the node after it
                end += 1
            for name in node.inputs:
                last_use[name] = max(last_use.get(name, 0), end)
        for name, node in self.joined.items():
            last_use[node.name] = max(last_use[node.name], last_use[name])
        return last_use

    def _add_node(self, node: Node) -> None:
        """Give a node's map its place, and add its rows."""
        if node in self.joined.values():
            return  # its inputs have been written side by side
        if node.name in self.joined:
            self._place_joined(self.joined[node.name])
        elif node.name not in self.fused:
            self._place(node.name)
        operation_of(node).add_rows(self, node)

    def _reads_packed_pixels(self, node: Node) -> bool:
        """Tell whether a node needs the image in the arena's layout; a dense convolution reads it as it is."""
        return INPUT in node.inputs and (not operation_of(node).reads_pixels or node.inputs.index(INPUT) > 0)

    def _choose_bands(self) -> None:
        """Choose the bands of the blocks that are done in such, by depthwise convolution, and all that is done so."""
        for block in find_blocks(self.graph):
            for nodes in [block[start:] for start in range(len(block) - 1)]:  # without the expansion if not with it
                if band := choose_band(self._measure_block(nodes), self.num_threads):
                    self.bands[nodes[-2].name] = band
                    self.fused.update(node.name for node in nodes[:-1])
                    break

    def _measure_block(self, nodes: Sequence[Node]) -> Block:
        """Return the sizes of a block, with its expansion or without."""
        *expansion, node, project = nodes
        weights = sum(math.prod(self.graph.shapes[each.weights["weight"]]) for each in (*expansion, project))
        planes = padded(self.shapes[node.name][0]) // LANES
        return Block(planes, self.window(node), weights, self.batch, is_expanded=bool(expansion))

    def _find_joined(self) -> dict[str, Node]:
        """Return the maps that are computed where a concatenation wants them, so that nothing is left for it to do.

        That needs whole vectors of channels in the first map, and a map may be at one place only.
        """
        joined: dict[str, Node] = {}
        produced = {node.name for node in self.graph.nodes} - self.fused
        for node in self.graph.nodes:
            if not operation_of(node).joins or self.shapes[node.inputs[0]][0] % LANES:
                continue
            names = {*node.inputs, node.name}
            if len(names) == 3 and names <= produced and not names & {*joined, *(n.name for n in joined.values())}:
                joined.update(dict.fromkeys(node.inputs, node))
        return joined

    def _place_joined(self, node: Node) -> None:
        """Place the map of a concatenation, and in it those that it joins, when the first of them is computed."""
        if node.name in self.arena.offsets:
            return
        self._place(node.name)
        first, second = node.inputs
        start = self.arena.offsets[node.name]
        self.arena.offsets[first] = start
        self.arena.offsets[second] = start + self.shapes[first][0] // LANES * self._plane(first)

    def _place(self, name: str) -> None:
        channels, height, width = self.shapes[name]
        self.arena.place(name, self.batch * height * width * padded(channels))

    def _find_scratch(self) -> dict[str, tuple[int, int]]:
        """Return place and size, in each thread's own memory, of what of every fused node's map is in work at once.

        No other thread writes there in any step, so that all of it stays in the caches of the processor at work.
        """
        found, place = {}, 0
        for node, after in itertools.pairwise(self.graph.nodes):
            if node.name in self.fused:
                found[node.name] = (place, self._measure_scratch(node, after))
            place = sum(found.get(node.name, ()))  # behind what is in work at once with it
        return found

    def _measure_scratch(self, node: Node, after: Node) -> int:
        """Return how many floats a fused node has in work at once: those of a band, or a panel of what it filters."""
        return self.bands[node.name].filtered if node.name in self.bands else self.bands[after.name].expanded

    def _pixel_strides(self) -> dict[str, int]:
        pixels = self.height * self.width
        if self.is_channels_last:
            row, pixel, channel = self.width * self.channels, self.channels, 1
        else:
            row, pixel, channel = self.width, 1, pixels
        strides = {"x_image": pixels * self.channels, "x_row": row, "x_pixel": pixel, "x_channel": channel}
        return {"is_from_pixels": 1, "x": 0, **strides}

    def _plane(self, name: str) -> int:
        _, height, width = self.shapes[name]
        return self.batch * height * width * LANES

    def _map_strides(self, name: str) -> dict[str, int]:
        _, height, width = self.shapes[name]
        row = width * LANES
        return {"x": self.arena.offsets[name], "x_image": height * row, "x_row": row, "x_pixel": LANES}

    def add(self, kind: str, node: Node, fields: Mapping[str, Any]) -> None:
        """Add the row of a kernel; see `Rows.add`."""
        low, high = CLAMPS[node.attributes.get("activation", "linear")]
        own = {**self._source_strides(node), "is_fused": int(node.name in self.fused), "low": low, "high": high}
        self._add_step(kind, node.name, node.inputs[0], {**own, **fields})

    def window(self, node: Node) -> Window:
        """Return the window of a node over its first input."""
        return sliding_window(node, *self.shapes[node.inputs[0]][1:])

    def second(self, node: Node) -> dict[str, int]:
        """Return where the second input lies, if the node has one."""
        if len(node.inputs) < 2:
            return {}
        name = node.inputs[1]
        return {"y": self.arena.offsets[name], "y_channels": self.shapes[name][0], "y_plane": self._plane(name)}

    def weights(self, node: Node) -> dict[str, int]:
        """Return where a convolution's packed weights lie, and whether all are finite."""
        key = weight_key(node)
        return {"weight": self.packed.offsets[key], "is_finite": int(key in self.packed.finite)}

    def taps(self, node: Node) -> dict[str, int]:
        """Append the offset of every term (ky, kx, ci) of a dense convolution from the first pixel of its window."""
        start, source = len(self.offsets), node.inputs[0]
        strides, slide = self._source_strides(node), self.window(node)
        down, right = slide.dilation * strides["x_row"], slide.dilation * strides["x_pixel"]
        channels, plane = self.shapes[source][0], self._plane(source)

        def channel(ci: int) -> int:
            if "x_channel" in strides:
                return ci * strides["x_channel"]
            return ci // LANES * plane + ci % LANES

        self.offsets.extend(
            ky * down + kx * right + channel(ci)
            for ky in range(slide.kernel_height)
            for kx in range(slide.kernel_width)
            for ci in range(channels)
        )
        return {"taps": start}

    def _source_strides(self, node: Node) -> dict[str, int]:
        """Return where a node's first input begins, and its strides: the caller's image, or a map in the arena."""
        source = node.inputs[0]
        is_from_pixels = source == INPUT and operation_of(node).reads_pixels
        return self._pixel_strides() if is_from_pixels else self._map_strides(source)

    def _add_step(self, kind: str, name: str, source: str, fields: Mapping[str, Any]) -> None:
        channels, height, width = self.shapes[source]
        out_channels, out_height, out_width = self.shapes[name]
        step = np.zeros(1, STEP)
        values = {
            "kind": KINDS.index(kind), "y": -1, "low": -np.inf, "high": np.inf, "out": self.arena.offsets[name],
            "batch": self.batch, "channels": channels, "height": height, "width": width, "out_channels": out_channels,
            "out_height": out_height, "out_width": out_width, "out_plane": self._plane(name),
            "x_plane": self._plane(source), **fields,
        }  # fmt: skip
        if source in self.fused:
            values |= {"scratch_size": self.scratch[source][1], "scratch_distance": self.scratch_distance}
        for field, value in values.items():
            step[field] = value
        step["parts"] = _cut(step[0], self.num_threads)
        if source in self.bands:
            step["rows"] = self.bands[source].rows
            step["parts"] = count_bands(self.batch, out_height, self.bands[source].rows)
        self.steps.append(step)
        self.names.append(name)
