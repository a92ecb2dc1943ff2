"""Every layer of one run: what it is, the range of its values, the time it took, and the values themselves."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minimobile.arguments import read_flag
from minimobile.costs.profile import layer_names, node_padding
from minimobile.errors import UnknownLayerError, within_memory
from minimobile.execution.runner import DataFormat, Runner
from minimobile.networks.graph import Graph, Node, needed_nodes
from minimobile.operations.operation import MapShape
from minimobile.operations.shapes import infer_shapes
from minimobile.operations.table import operation_of
from minimobile.tracing.trace_table import TracedLayer, tabulate_trace
from minimobile_kernels.elementwise import CLAMPS

Array = NDArray[Any]

_PROJECTION = ".reduce_1x1"  # the last convolution of an inverted residual


@dataclass(frozen=True, eq=False, repr=False)
class Trace:
    """The rows of a run, in the network's order, and the values: `trace["layer.3"]`, by any name that the layer has.

    `tensors` holds the values by the rows' names. They are (N, C, H, W), or as `data_format` was asked for; those of
    `pooler` and `classifier` (N, C) where they are one pixel: what `features` returns, to the bit.
    """

    layers: tuple[TracedLayer, ...]
    tensors: Mapping[str, Array]
    graph: Graph

    def __getitem__(self, layer: str | int) -> Array:
        name = self.graph.resolve(layer)
        if name not in self.tensors:
            raise UnknownLayerError(
                f"layer {layer!r}: expected one of the {len(self.tensors)} layers that were traced; ask trace for it"
            )
        return self.tensors[name]

    def __repr__(self) -> str:
        taken = sum(layer.microseconds for layer in self.layers if layer.microseconds is not None)
        shown = ", ".join(layer.name for layer in self.layers[:3]) + (", ..." if len(self.layers) > 3 else "")
        return f"Trace({len(self.layers)} layers: {shown}; {taken:.0f} us)"

    def _repr_html_(self) -> str:
        """Return the table of the command `trace`, for notebooks."""
        return tabulate_trace(self.layers).to_html()

    def to_dict(self) -> dict[str, Any]:
        """Return the rows as plain values for JSON: {"layers": [...]}."""
        return {"layers": [dataclasses.asdict(layer) for layer in self.layers]}


def choose_rows(
    graph: Graph, layers: Sequence[str | int] | None = None, every_node: bool = False
) -> dict[str, tuple[Node, ...]]:
    """Return the nodes of each row of a trace by the row's name, in the graph's order.

    The rows are the layers that the outputs need, or those asked for, where the name of an inverted residual stands for
    all of its layers. With `every_node` each node of these layers is a row.
    """
    gathered = gather_layers(graph)
    if layers is None:
        needed = {node.name for node in needed_nodes(graph, graph.outputs)}
        wanted = needed & gathered.keys()
    else:
        wanted = {name for layer in layers for name in block_layers(graph, layer)}
    if read_flag(every_node, "every_node"):
        wanted |= {node.name for name in wanted & gathered.keys() for node in gathered[name]}
    return {
        node.name: (node,) if every_node else gathered.get(node.name, (node,))
        for node in graph.nodes
        if node.name in wanted
    }


def gather_layers(graph: Graph) -> dict[str, tuple[Node, ...]]:
    """Return the nodes of each layer by its name: a convolution, its batch norm and its activation go together."""
    names = layer_names(graph)
    layers: dict[str, tuple[Node, ...]] = {}
    for node in graph.nodes:
        layers[names[node.name]] = (*layers.get(names[node.name], ()), node)
    return layers


def block_layers(graph: Graph, layer: str | int) -> tuple[str, ...]:
    """Return the layers of an inverted residual for its name, in order; for any other name the one layer.

    >>> from minimobile import MobileNetV2Config
    >>> from minimobile.networks import mobilenet_v2
    >>> block_layers(mobilenet_v2.build(MobileNetV2Config()), "layer_4")  # as TF-slim calls it
    ('layer.1.expand_1x1', 'layer.1.conv_3x3', 'layer.1.reduce_1x1', 'layer.1')
    """
    name = graph.resolve(layer)
    block = name.removesuffix(_PROJECTION)
    parts = tuple(other for other in gather_layers(graph) if other == block or other.startswith(f"{block}."))
    is_block = f"{block}{_PROJECTION}" in parts
    is_meant = isinstance(layer, str) and (layer.endswith(block) or re.fullmatch(r"layer_\d+", layer))
    return parts if is_block and is_meant else (name,)


@within_memory("pixel_values")
def trace_run(
    graph: Graph,
    runner: Runner,
    pixel_values: Array,
    rows: Mapping[str, Sequence[Node]],
    data_format: DataFormat,
) -> Trace:
    """Run a graph once for the values of the `rows` chosen, and some more times for the time of each step.

    Shape: pixel_values (N, C, H, W), or (N, H, W, C) with `data_format` "channels_last".
    """
    values = runner.run(pixel_values, tuple(rows), data_format) if rows else {}
    times = runner.time_steps(pixel_values, data_format)
    steps = _find_steps(graph, times)
    height, width = pixel_values.shape[1:3] if data_format == "channels_last" else pixel_values.shape[2:]
    shapes = infer_shapes(graph, height, width)
    traced = [
        _describe(name, nodes, shapes, values[name], *steps.get(name, ((), None))) for name, nodes in rows.items()
    ]
    return Trace(tuple(traced), values, graph)


def _describe(
    name: str,
    nodes: Sequence[Node],
    shapes: Mapping[str, MapShape],
    values: Array,
    step: tuple[str, ...],
    microseconds: float | None,
) -> TracedLayer:
    limit = CLAMPS.get(nodes[-1].attributes.get("function", "linear"), CLAMPS["linear"])[1]
    with np.errstate(all="ignore"):
        minimum, maximum, mean = float(values.min()), float(values.max()), float(values.mean(dtype=np.float64))
    return TracedLayer(
        name,
        nodes[0].op,
        shapes[name],
        _find_padding(nodes[0], shapes),
        minimum,
        maximum,
        mean,
        float((values == 0).mean()),
        float((values == limit).mean()) if math.isfinite(limit) else None,
        microseconds,
        step,
    )


def _find_padding(node: Node, shapes: Mapping[str, MapShape]) -> tuple[int, int, int, int] | None:
    if "padding" not in node.attributes:
        return None
    top_bottom, left_right = node_padding(node, shapes[node.inputs[0]])
    return *top_bottom, *left_right


def _find_steps(
    graph: Graph, times: Mapping[tuple[str, ...], float]
) -> dict[str, tuple[tuple[str, ...], float | None]]:
    """Return, for every node of a normal run, the layers that its step computes, and the step's microseconds.

    A node that the passes have fused with the one that reads it is done in that one's step. A concatenation that is in
    no step costs nothing: its inputs are computed side by side.
    """
    step_of_name = {name: step for step in times for name in step}
    needed = needed_nodes(graph, graph.outputs)
    readers = {name: node.name for node in needed for name in node.inputs}
    steps: dict[str, tuple[str, ...]] = {}
    for node in needed if times else ():
        name = node.name
        while name not in step_of_name and not operation_of(node).joins:
            name = readers[name]
        steps[node.name] = step_of_name.get(name, (name,))
    parts = {
        name: tuple(dict.fromkeys(steps[node.name] for node in nodes if node.name in steps))
        for name, nodes in gather_layers(graph).items()
    }  # a layer that is rounded has two
    layers: dict[tuple[str, ...], list[str]] = {}
    for name, done in parts.items():
        for step in done:
            layers.setdefault(step, []).append(name)
    found: dict[str, tuple[tuple[str, ...], float | None]] = {}
    for name, step in steps.items():
        done = parts.get(name, (step,))  # of a layer all, of any other node its own
        together = dict.fromkeys(layer for part in done for layer in layers[part])
        found[name] = tuple(together), sum(times.get(part, 0.0) for part in done)
    return found
