"""The graph: what is computed, in which order, from which weights. It knows no image size, no file and no kernel."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, TypeVar

from minimobile.errors import UnknownLayerError

INPUT = "pixel_values"
Step = TypeVar("Step")


@dataclass(frozen=True)
class Node:
    """One operation. `weights` maps a role ("weight", "bias", "mean", ...) to the canonical name of an array."""

    name: str
    op: str
    inputs: tuple[str, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    weights: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Graph:
    """Nodes in topological order; the first input is `pixel_values` with `input_channels` channels.

    `shapes` gives the shape of every weight under its canonical name (transformers' state-dict name and layout).
    `aliases` maps further names (TF-slim's endpoints, module paths without an own node) to node names.
    `outputs` are the nodes whose values a run returns; `hidden_states` are those that transformers lists, in its order.
    """

    nodes: tuple[Node, ...]
    input_channels: int
    outputs: tuple[str, ...]
    shapes: Mapping[str, tuple[int, ...]]
    aliases: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    hidden_states: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        validate(self)

    def node(self, name: str) -> Node:
        """Return the node of that name (node names only; see `resolve` for aliases)."""
        return next(node for node in self.nodes if node.name == name)

    def has(self, op: str) -> bool:
        """Tell whether there is a node of that operation."""
        return any(node.op == op for node in self.nodes)

    def resolve(self, layer: str | int) -> str:
        """Return the node name for a layer given as a module path, a TF-slim endpoint name or a hidden-state index."""
        if isinstance(layer, int) and not isinstance(layer, bool):
            if -len(self.hidden_states) <= layer < len(self.hidden_states):
                return self.hidden_states[layer]
            raise UnknownLayerError(
                f"layer {layer}: expected a hidden-state index between 0 and {len(self.hidden_states) - 1}, got {layer}"
            )
        if not isinstance(layer, str):
            raise UnknownLayerError(
                f"layer {layer!r}: expected a layer's name or a hidden-state index, got {type(layer).__name__}"
            )
        names = {node.name for node in self.nodes}
        for candidate in (layer, layer.removeprefix("mobilenet_v1.").removeprefix("mobilenet_v2.")):
            if candidate in names:
                return candidate
            if candidate in self.aliases:
                return self.aliases[candidate]
        known = sorted(names | set(self.aliases))
        by_lower_case = {name.lower(): name for name in known}
        import difflib  # for a mistake alone

        close = difflib.get_close_matches(layer.lower(), by_lower_case, n=3, cutoff=0.5)
        hint = f"; did you mean {', '.join(by_lower_case[name] for name in close)}?" if close else ""
        raise UnknownLayerError(
            f"layer {layer!r}: expected one of the network's {len(known)} layer names{hint or '; see inspect for all'}"
        )


def validate(graph: Graph) -> None:
    """Assert what every builder and pass must keep: unique names, inputs defined before use, known weights, outputs."""
    defined = {INPUT}
    for node in graph.nodes:
        assert node.name not in defined, f"{node.name}: defined twice"
        missing = [name for name in node.inputs if name not in defined]
        assert not missing, f"{node.name}: input {missing} is not defined before it"
        unknown = [name for name in node.weights.values() if name not in graph.shapes]
        assert not unknown, f"{node.name}: weight {unknown} has no shape"
        defined.add(node.name)
    for name in (*graph.outputs, *graph.aliases.values(), *graph.hidden_states):
        assert name in defined, f"{name}: named as an output, an alias or a hidden state, but no node"


def needed_nodes(graph: Graph, outputs: Iterable[str]) -> tuple[Node, ...]:
    """Return the nodes that the given outputs depend on, in order."""
    return sweep_back(graph.nodes, outputs, lambda node: (node.name,), lambda node: node.inputs)


def sweep_back(
    steps: Sequence[Step],
    wanted: Iterable[Hashable],
    makes: Callable[[Step], Iterable[Hashable]],
    reads: Callable[[Step], Iterable[Hashable]],
) -> tuple[Step, ...]:
    """Return, in order, the steps that make something wanted: by the caller, or by a later step that is kept.

    >>> sweep_back(["b<a", "c<a", "d<b"], ["d"], lambda step: step[0], lambda step: step[2])
    ('b<a', 'd<b')
    """
    needed, kept = set(wanted), []
    for step in reversed(steps):
        if not needed.isdisjoint(makes(step)):
            kept.append(step)
            needed.update(reads(step))
    return tuple(reversed(kept))
