"""The other side of a comparison as it lies in memory: a module, a model, a session, or a function."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from minimobile.comparison.keras_models import is_keras_model, run_keras_model
from minimobile.comparison.peers import PEERS, Observed, as_map
from minimobile.comparison.torch_modules import is_module, run_module
from minimobile.errors import InputError, MinimobileError
from minimobile.networks.graph import Graph

Array = NDArray[Any]
OtherSide = Callable[[Array], Mapping[str, ArrayLike]]
Seen = tuple[str, dict[str, Observed], dict[str, Array] | None]


def run_in_memory(against: Any, graph: Graph, pixels: Array) -> Seen:
    """Return what to call the other side, its values by our layers' names, and its arrays under our names, if known.

    `against` is a `torch.nn.Module`, a `keras.Model`, an `onnxruntime.InferenceSession` (its outputs alone), or a
    function. Shapes: pixels and values (N, C, H, W). Raises InputError for what fails or is none of these.
    """
    if is_module(against):
        return type(against).__name__, *run_module(against, graph, pixels)
    if is_keras_model(against):
        return against.name, *run_keras_model(against, graph, pixels)
    if _is_session(against):
        return "the session given", _run_session(against, graph, pixels), None
    name = getattr(against, "__name__", "the function given")
    return name, _call(against, name, pixels), None


def _is_session(candidate: object) -> bool:
    runtime = sys.modules.get("onnxruntime")
    return runtime is not None and isinstance(candidate, runtime.InferenceSession)


def _run_session(session: Any, graph: Graph, pixels: Array) -> dict[str, Observed]:
    """Run a session; its outputs are known by our layers' names, and where there is one, as our last layer."""
    inputs, outputs = session.get_inputs(), session.get_outputs()
    if len(inputs) != 1:
        raise InputError(f"the session given: expected one input, the pixel values, got {len(inputs)}")
    shape, channels = inputs[0].shape, pixels.shape[1]
    is_last = len(shape) == 4 and shape[1] != channels and shape[3] == channels
    x = np.ascontiguousarray(pixels.transpose(0, 2, 3, 1)) if is_last else pixels
    try:
        found = session.run(None, {inputs[0].name: x})
    except Exception as error:
        raise InputError(
            f"the session given: expected it to run on pixel values {pixels.shape}, it failed "
            f"({' '.join(str(error).split())[:200]})"
        ) from error
    names = {node.name for node in graph.nodes} | set(graph.aliases)
    known = {value.name: y for value, y in zip(outputs, found, strict=True) if value.name in names}
    if not known and len(found) == 1:
        known = {graph.outputs[-1]: found[0]}
    return {name: _read_values("the session given", name, values) for name, values in known.items()}


def _call(against: Any, name: str, pixels: Array) -> dict[str, Observed]:
    """Call the function that is the other side, and read what it returns."""
    if not callable(against):
        raise InputError(
            f"against: expected the name of a framework ({', '.join(PEERS)}), a torch.nn.Module, a keras.Model, "
            f"an onnxruntime.InferenceSession or a function, got {type(against).__name__}"
        )
    try:
        found = against(pixels.copy())
    except MinimobileError:
        raise
    except Exception as error:
        raise InputError(
            f"{name}: expected a function of pixel values (N, C, H, W) in a NumPy array, it failed on {pixels.shape} "
            f"({type(error).__name__}: {' '.join(str(error).split())[:200]})"
        ) from error
    if not isinstance(found, Mapping) or not all(isinstance(layer, str) for layer in found):
        raise InputError(
            f"{name}: expected it to return {{layer name: values}}, got {type(found).__name__}; for logits alone let "
            "it return {'classifier': logits}"
        )
    return {layer: _read_values(name, layer, values) for layer, values in found.items()}


def _read_values(against: str, layer: str, values: ArrayLike) -> Observed:
    try:
        found = as_map(np.asarray(values))
    except Exception as error:  # a tensor that is not on the CPU, or wants gradients
        raise InputError(
            f"{against}: {layer}: expected values that NumPy can read, got {type(values).__name__} "
            f"({' '.join(str(error).split())[:200]})"
        ) from None
    if found.ndim != 4 or found.dtype.kind != "f" or 0 in found.shape:
        raise InputError(
            f"{against}: {layer}: expected values (N, C, H, W) or (N, C), got shape {found.shape} of {found.dtype}"
        )
    return Observed(found)
