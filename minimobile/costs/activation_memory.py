"""Memory of activations: what each layer's output takes, and how much must be there while a layer is computed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from minimobile.costs.profile import layer_names, read_size
from minimobile.networks.graph import INPUT, Graph, needed_nodes
from minimobile.operations.shapes import infer_shapes

BYTES = 4  # float32


class LayerMemory(NamedTuple):
    """Bytes for one image: a layer's output, and all maps that are there while it is computed."""

    output: int
    live: int


def activation_memory(graph: Graph, image_size: int | Sequence[int]) -> dict[str, LayerMemory]:
    """Return {layer: its memory}, in order, for the layers that the outputs need, computed one after the other.

    Live are a layer's inputs, its output, and what later layers or the caller still need; batch norm and activation
    work in place. That is the measure of V2's paper (section 5.1). It is no measure of the engine, which fuses layers
    and never holds some of these maps at all.
    """
    shapes = infer_shapes(graph, *read_size(image_size))
    names = layer_names(graph)
    sizes = {INPUT: math.prod(shapes[INPUT]) * BYTES}
    inputs: dict[str, set[str]] = {}
    for node in needed_nodes(graph, graph.outputs):
        layer = names[node.name]
        inputs.setdefault(layer, set()).update({names.get(name, name) for name in node.inputs} - {layer})
        sizes[layer] = math.prod(shapes[node.name]) * BYTES
    order = {layer: place for place, layer in enumerate(inputs)}
    last_use = {name: max([order[user] for user in inputs if name in inputs[user]], default=-1) for name in sizes}
    last_use |= {names[name]: len(order) for name in graph.outputs}
    return {
        layer: LayerMemory(
            sizes[layer],
            sum(
                size for name, size in sizes.items() if name == layer or (order.get(name, -1) < place <= last_use[name])
            ),
        )
        for layer, place in order.items()
    }
