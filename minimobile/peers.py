"""The other side of a comparison: the same pixels through another framework, every layer's values under our names."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minimobile.engine import run_reference
from minimobile.errors import FormatError, InputError, UnavailableError
from minimobile.graph import Graph, needed_nodes
from minimobile.models import MobileNetModel

Array = NDArray[Any]

OURS_ALONE = ("model_type", "pool_size", "bottom_right_padding")  # fields that transformers' configs do not have
QUIET = {"TF_CPP_MIN_LOG_LEVEL": "3", "TF_ENABLE_ONEDNN_OPTS": "0", "CUDA_VISIBLE_DEVICES": "-1"}


@dataclass(frozen=True)
class Peer:
    """What the other side is to run: a network as we read it, and the file itself where there is one.

    `endpoints` are those of its checkpoint: node name -> name of the tensor in the file.
    """

    model: MobileNetModel
    path: Path | None = None
    endpoints: Mapping[str, str] = field(default_factory=dict)


def layer_names(graph: Graph) -> list[str]:
    """Return the layers that the outputs depend on: a convolution with its batch norm and activation is one."""
    nodes = needed_nodes(graph, graph.outputs)
    names = {node.name for node in nodes}
    inner = {f"{name}.{step}" for name in names for step in ("convolution", "normalization")}
    return [node.name for node in nodes if node.name not in inner]


def run_peer(name: str, peer: Peer, pixels: Array) -> dict[str, Array]:
    """Run the network in the framework `name`, a key of `PEERS`; returns layer name -> values, as many as it shows.

    Shapes: pixels (N, C, H, W) float32, and the values likewise. Raises UnavailableError where it is not installed.
    """
    if name not in PEERS:
        raise InputError(f"against: expected one of {', '.join(PEERS)}, got {name!r}")
    return {layer: as_map(np.asarray(values)) for layer, values in PEERS[name](peer, pixels).items()}


def as_map(values: Array) -> Array:
    """Return (N, C) as (N, C, 1, 1), and anything else as it is."""
    return values[:, :, None, None] if values.ndim == 2 else values


def import_framework(name: str) -> Any:
    """Import a framework quietly, or raise UnavailableError that names the extra."""
    for variable, value in QUIET.items():
        os.environ.setdefault(variable, value)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return import_module(name)
        except ImportError:
            package = name.partition(".")[0]
            raise UnavailableError(
                f"{package}: expected this package to compare with, it is not installed; "
                "python -m pip install 'minimobile[crosscheck]'"
            ) from None


def _reference(peer: Peer, pixels: Array) -> dict[str, Array]:
    """Run the NumPy definitions in float32."""
    graph = peer.model.graph
    found = run_reference(graph, peer.model.state_dict(), pixels.transpose(0, 2, 3, 1), layer_names(graph))
    return {name: values.transpose(0, 3, 1, 2) for name, values in found.items()}


def _transformers(peer: Peer, pixels: Array) -> dict[str, Array]:
    """Run transformers' model on PyTorch; a Hugging Face directory is loaded by transformers itself."""
    torch = import_framework("torch")
    network = _load_transformers(peer).eval()
    wanted, found = set(layer_names(peer.model.graph)), {}

    def watch(name: str) -> Callable[..., None]:
        def keep(module: Any, inputs: Any, output: Any) -> None:
            found[name] = output.numpy().copy()

        return keep

    for path, module in network.named_modules():
        name = path.removeprefix(f"{peer.model.config.model_type}.")
        if name in wanted:
            module.register_forward_hook(watch(name))
    with torch.inference_mode():
        network(torch.from_numpy(pixels))
    return found


def _load_transformers(peer: Peer) -> Any:
    torch, transformers = import_framework("torch"), import_framework("transformers")
    network_class = getattr(transformers, type(peer.model).__name__)
    if peer.path is not None and (peer.path / "config.json").is_file():
        bars = transformers.utils.logging
        had_bars = bars.is_progress_bar_enabled()
        bars.disable_progress_bar()
        try:
            return network_class.from_pretrained(peer.path)
        except Exception as error:
            reason = str(error).strip().partition("\n")[0]
            raise FormatError(f"{peer.path}: transformers cannot load it ({reason[:200]})") from None
        finally:
            if had_bars:
                bars.enable_progress_bar()
    config = peer.model.config
    values = {key: value for key, value in config.to_dict().items() if key not in OURS_ALONE}
    network = network_class(getattr(transformers, type(config).__name__)(**values))
    own_names = network.state_dict()
    weights = {name: torch.tensor(array) for name, array in peer.model.state_dict().items()}
    bare = {name.removeprefix(f"{config.model_type}."): values for name, values in weights.items()}
    network.load_state_dict(
        {name: values for name, values in (weights | bare).items() if name in own_names}, strict=False
    )
    return network


PEERS: Mapping[str, Callable[[Peer, Array], dict[str, Array]]] = {
    "transformers": _transformers,
    "reference": _reference,
}
