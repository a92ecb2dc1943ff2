"""A PyTorch module as the other side: its layers watched through hooks, its arrays under our names.

Whoever wrote it named its modules in his own way, but a MobileNet runs its convolutions in one order. What comes into
one of them is what our graph has before it, wherever the activation in between was done.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from minimobile.comparison.frameworks import import_framework
from minimobile.comparison.peers import Observed, as_map, compared_layers
from minimobile.errors import InputError
from minimobile.networks.graph import Graph, Node, needed_nodes
from minimobile.operations.shapes import infer_shapes
from minimobile.operations.table import is_convolution, operation_of

Array = NDArray[Any]


class _Call(NamedTuple):
    """One convolution, linear layer or batch norm as it ran: the module, its values before and after it."""

    name: str
    module: Any
    before: Array
    after: Array


def is_module(candidate: object) -> bool:
    """Whether something is a `torch.nn.Module`, without importing PyTorch for the question."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(candidate, torch.nn.Module)


def run_module(module: Any, graph: Graph, pixels: Array) -> tuple[dict[str, Observed], dict[str, Array]]:
    """Run a module; returns what it shows of our layers, by name, and its arrays under our canonical names.

    transformers' modules have our names, wherever they lie within it; of any other, the convolutions are taken in the
    order in which they run. Shapes: pixels and values (N, C, H, W). Raises InputError for a module that trains, fails,
    or is another network.
    """
    kind = type(module).__name__
    if module.training:
        raise InputError(f"{kind}: expected a module in evaluation mode, got one that is training; call .eval() first")
    with _watching(module) as (calls, named):
        result = _forward(module, kind, pixels)
    nodes = needed_nodes(graph, graph.outputs)
    wanted = set(compared_layers(graph))
    convolutions = [node for node in nodes if is_convolution(node)]
    places = _find_places(convolutions, [call.name for call in calls], named)
    if places is not None:
        prefix, by_name = places
        pairs = [(node, by_name[node.name]) for node in convolutions]
        found = {ours: values for name, values in named.items() if (ours := _as_ours(name, prefix)) in wanted}
    else:
        theirs = [index for index, call in enumerate(calls) if not hasattr(call.module, "running_var")]
        pairs = pair_convolutions(kind, convolutions, theirs)
        shapes = infer_shapes(graph, *pixels.shape[2:])
        found = {
            node.inputs[0]: _without_zeros(calls[index].before, shapes[node.inputs[0]])
            for node, index in pairs
            if node.inputs[0] in wanted
        }
        found[graph.outputs[-1]] = result if result is not None else calls[pairs[-1][1]].after
    return {name: Observed(as_map(values)) for name, values in found.items()}, _arrays(nodes, calls, pairs)


def _find_places(
    convolutions: Sequence[Node], calls: Sequence[str], names: Iterable[str]
) -> tuple[str, dict[str, int]] | None:
    """Return the name of transformers' model within a module (as a prefix), and its calls by our names; or None."""
    for prefix in ("", *(f"{name}." for name in names if name)):
        own = [_as_ours(name, prefix) for name in calls]
        places = {name.removesuffix(".convolution"): index for index, name in enumerate(own)}
        places |= {name: index for index, name in enumerate(own)}
        if all(node.name in places for node in convolutions):
            return prefix, places
    return None


def _as_ours(name: str, prefix: str) -> str:
    return name.removeprefix(prefix).removeprefix("mobilenet_v1.").removeprefix("mobilenet_v2.")


def _without_zeros(before: Array, shape: tuple[int, int, int]) -> Array:
    """Return what a convolution reads as it was before zeros were put around it. Shapes: before (N, C, H, W)."""
    sizes = before.shape[2:]
    extra = [found - size for found, size in zip(sizes, shape[1:], strict=True)] if before.ndim == 4 else [0, 0]
    if not any(extra) or min(extra) < 0:
        return before
    for top, left in itertools.product(*map(_offsets, extra)):
        inner = (..., slice(top, top + shape[1]), slice(left, left + shape[2]))
        border = before.copy()
        border[inner] = 0
        if not border.any():
            return before[inner]
    return before


def _offsets(extra: int) -> list[int]:
    """Return how many of the zeros may come before a map: as PyTorch pads, half of them, first; an odd one is behind.

    >>> _offsets(1), _offsets(2)
    ([0, 1], [1, 0, 2])
    """
    return sorted(range(extra + 1), key=lambda before: abs(2 * before + 0.5 - extra))


@contextmanager
def _watching(module: Any) -> Iterator[tuple[list[_Call], dict[str, Array]]]:
    """Keep what convolutions, linear layers and batch norms see, in the order of calls, and all values by name."""
    nn = import_framework("torch").nn
    calls: list[_Call] = []
    named: dict[str, Array] = {}
    kinds = (nn.Conv2d, nn.Linear, nn.BatchNorm2d)

    def watch(name: str) -> Any:
        def keep(watched: Any, inputs: Sequence[Any], output: Any) -> None:
            if not hasattr(output, "detach"):
                return
            named[name] = output.detach().float().cpu().numpy().copy()
            if isinstance(watched, kinds) and len(inputs) == 1:
                before = inputs[0].detach().float().cpu().numpy().copy()
                calls.append(_Call(name, watched, before, named[name]))

        return keep

    hooks = [part.register_forward_hook(watch(name)) for name, part in module.named_modules()]
    try:
        yield calls, named
    finally:
        for hook in hooks:
            hook.remove()


def _forward(module: Any, kind: str, pixels: Array) -> Array | None:
    """Run the module on its own device and in its own type; returns what it gives back, if that is one tensor."""
    torch = import_framework("torch")
    first = next(module.parameters(), None)
    x = torch.from_numpy(pixels.copy())
    try:
        with torch.inference_mode():
            output = module(x if first is None else x.to(device=first.device, dtype=first.dtype))
    except Exception as error:
        raise InputError(
            f"{kind}: expected a module that runs on pixel values {pixels.shape}, it failed "
            f"({type(error).__name__}: {' '.join(str(error).split())[:200]})"
        ) from error
    output = getattr(output, "logits", output)
    return output.detach().float().cpu().numpy() if hasattr(output, "detach") else None


def pair_convolutions(kind: str, nodes: Sequence[Node], theirs: Sequence[int]) -> list[tuple[Node, int]]:
    """Pair our convolutions with those of the other side, `theirs` by number, in the order in which both run.

    Raises InputError where there are not as many.
    """
    if len(theirs) != len(nodes):
        raise InputError(
            f"{kind}: expected a MobileNet of our {len(nodes)} convolutions and linear layers, {len(theirs)} of its "
            "layers ran"
        )
    return list(zip(nodes, theirs, strict=True))


def _arrays(nodes: Sequence[Node], calls: Sequence[_Call], pairs: Sequence[tuple[Node, int]]) -> dict[str, Array]:
    """Return the module's arrays under our names: of each convolution, and of a batch norm that ran right after it."""
    normalizations = {node.inputs[0]: node for node in nodes if operation_of(node).is_normalization}
    arrays: dict[str, Array] = {}
    for node, index in pairs:
        _read(arrays, node, calls[index].module, {"weight": "weight", "bias": "bias"})
        after = calls[index + 1].module if index + 1 < len(calls) else None
        if node.name in normalizations and hasattr(after, "running_var"):
            roles = {"weight": "weight", "bias": "bias", "mean": "running_mean", "variance": "running_var"}
            _read(arrays, normalizations[node.name], after, roles)
    return arrays


def _read(arrays: dict[str, Array], node: Node, module: Any, roles: Mapping[str, str]) -> None:
    for role, attribute in roles.items():
        values = getattr(module, attribute, None)
        if role in node.weights and values is not None:
            arrays[node.weights[role]] = np.array(values.detach().float().cpu().numpy())
