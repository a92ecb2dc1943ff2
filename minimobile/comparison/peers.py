"""The other side of a comparison: the same pixels through another framework, every layer's values under our names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minimobile.comparison import onnx_runs
from minimobile.comparison.float32_bounds import Grid
from minimobile.comparison.frameworks import explaining, import_framework
from minimobile.comparison.rival_tensorflow import run_tensorflow, write_tflite
from minimobile.comparison.sized_network import SizedNetwork, write_onnx
from minimobile.comparison.tensorflow_files import run_frozen_graph, run_keras
from minimobile.costs.profile import layer_names
from minimobile.errors import InputError
from minimobile.execution.definitions import run_reference
from minimobile.formats import hdf5_kinds
from minimobile.formats.onnx.layouts import CHANNELS_LAST
from minimobile.formats.onnx.onnx_file import read_layouts
from minimobile.formats.signatures import SAVED_MODEL, is_hdf5
from minimobile.models.classes import MobileNetModel
from minimobile.networks.graph import INPUT, Graph, needed_nodes
from minimobile.operations.passes import fold_batch_norm, keep_needed
from minimobile.quantized.network import Tensor

Array = NDArray[Any]

OURS_ALONE = ("model_type", "pool_size", "bottom_right_padding")  # fields that transformers' configs do not have
OWN_FILES: Mapping[str, tuple[str, ...]] = {
    "tensorflow": (".pb", ".keras", ".h5", ".hdf5"),
    "litert": (".tflite",),
    "onnxruntime": (".onnx",),
    "openvino": (".onnx",),
}
"""Endings of the files that a framework runs itself, where their endpoints are known."""


@dataclass(frozen=True)
class Peer:
    """What the other side is to run: a network as we read it, and the file itself where there is one.

    `endpoints` are those of its checkpoint: node name -> name of the tensor in the file.
    """

    model: MobileNetModel
    path: Path | None = None
    endpoints: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Observed:
    """What a side computed for one layer. Shapes: values (N, C, H, W); `grid` says of which numbers, if of integers."""

    values: Array
    grid: Grid | None = None


def compared_layers(graph: Graph) -> list[str]:
    """Return the layers that the outputs depend on: a convolution with its batch norm and activation is one."""
    layers = set(layer_names(graph).values())
    return [node.name for node in needed_nodes(graph, graph.outputs) if node.name in layers]


def run_peer(name: str, peer: Peer, pixels: Array) -> dict[str, Observed]:
    """Run the network in the framework `name`, a key of `PEERS`; returns layer name -> values, as many as it shows.

    `pixel_values` are among them where the framework had to round them. Shapes: pixels (N, C, H, W) float32. Raises
    UnavailableError where the framework is not installed.
    """
    if name not in PEERS:
        raise InputError(f"against: expected one of {', '.join(PEERS)}, got {name!r}")
    if name == "litert" and runs_file(name, peer):
        return _run_tflite(peer, pixels)
    if computes_integers(name, peer):
        return _observe_integers(peer, PEERS[name](peer, pixels), pixels)
    return {layer: Observed(as_map(np.asarray(values))) for layer, values in PEERS[name](peer, pixels).items()}


def runs_file(name: str, peer: Peer) -> bool:
    """Whether a framework runs the source's own file, and not our reading of it."""
    if peer.path is None:
        return False
    if name == "transformers":
        return (peer.path / "config.json").is_file()
    if name == "tensorflow" and (peer.path / SAVED_MODEL).is_file():
        return bool(peer.endpoints)
    if not peer.endpoints or peer.path.suffix.lower() not in OWN_FILES.get(name, ()):
        return False
    return not (is_hdf5(peer.path) and hdf5_kinds.is_ours(peer.path))


def computes_integers(name: str, peer: Peer) -> bool:
    """Whether a framework that joins operators, but for those between which it has to show something, runs integers."""
    return name in ("onnxruntime", "openvino") and runs_file(name, peer) and peer.model.is_quantized


def as_map(values: Array) -> Array:
    """Return (N, C) as (N, C, 1, 1), and anything else as it is."""
    return values[:, :, None, None] if values.ndim == 2 else values


def _reference(peer: Peer, pixels: Array) -> dict[str, Array]:
    """Run the NumPy definitions in float32."""
    graph = peer.model.graph
    found = run_reference(graph, peer.model.state_dict(), pixels.transpose(0, 2, 3, 1), compared_layers(graph))
    return {name: values.transpose(0, 3, 1, 2) for name, values in found.items()}


def _transformers(peer: Peer, pixels: Array) -> dict[str, Array]:
    """Run transformers' model on PyTorch; a Hugging Face directory is loaded by transformers itself."""
    if peer.model.graph.has("fake_quantize"):
        raise InputError(
            "transformers: expected a network of plain floats, got one trained with fake quantisation, which it does "
            "not know; compare with tensorflow or reference"
        )
    torch = import_framework("torch")
    network = _load_transformers(peer).eval()
    wanted, found = set(compared_layers(peer.model.graph)), {}

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
            with explaining(peer.path, "transformers"):
                return network_class.from_pretrained(peer.path)
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


def _onnxruntime(peer: Peer, pixels: Array) -> dict[str, Array]:
    """Run an ONNX file itself; of anything else, our graph as one, batch norm as it is trained."""
    runtime = import_framework("onnxruntime")
    if runs_file("onnxruntime", peer):
        return _run_onnx(onnx_runs.run_onnxruntime, runtime, "ONNX Runtime", peer, pixels)
    network = _every_layer(peer, pixels)
    session = runtime.InferenceSession(write_onnx(network), providers=["CPUExecutionProvider"])
    return dict(zip(network.graph.outputs, session.run(None, {INPUT: pixels}), strict=True))


def _openvino(peer: Peer, pixels: Array) -> dict[str, Array]:
    """Run an ONNX file itself, in float32; of anything else, our graph as one."""
    openvino = import_framework("openvino")
    if runs_file("openvino", peer):
        return _run_onnx(onnx_runs.run_openvino, openvino, "OpenVINO", peer, pixels)
    network, core = _every_layer(peer, pixels), openvino.Core()
    settings = {"INFERENCE_PRECISION_HINT": "f32"}  # bfloat16 would be its own choice on processors that have it
    results: Any = core.compile_model(core.read_model(write_onnx(network)), "CPU", settings)({0: pixels})
    return {name: np.array(values) for name, values in zip(network.graph.outputs, results.values(), strict=True)}


def _run_onnx(
    run: Callable[..., dict[str, Array]], framework: Any, name: str, peer: Peer, pixels: Array
) -> dict[str, Array]:
    """Run a file and turn what lies channels last in it."""
    assert peer.path is not None
    with explaining(peer.path, name):
        found: dict[str, Array] = run(framework, peer.path, peer.endpoints, pixels)
    layouts = read_layouts(peer.path)
    return {
        layer: _channels_first(values) if layouts.get(peer.endpoints[layer]) == CHANNELS_LAST else values
        for layer, values in found.items()
    }


def _observe_integers(peer: Peer, found: Mapping[str, Array], pixels: Array) -> dict[str, Observed]:
    """Say of which numbers a file's values are, as its scales have it, and to which of them it rounds pixel values."""
    network: Any = peer.model.runner.network  # type: ignore[attr-defined]  # of a runner of integers
    source, first = network.tensors[network.inputs[0]], network.operations[0]
    grid = _grid_of(network.tensors[first.output] if source.dtype.kind == "f" else source)
    observed = {
        layer: Observed(as_map(values), _grid_of(network.tensors[peer.endpoints[layer]]))
        for layer, values in found.items()
    }
    if grid is not None:
        rounded = np.clip(np.rint(pixels / np.float32(grid.step)) * grid.step, grid.low, grid.high)
        observed[INPUT] = Observed(rounded.astype(np.float32), grid)
    return observed


def _grid_of(tensor: Tensor) -> Grid | None:
    """Return the grid of a tensor, or None for one of floats."""
    if not len(tensor.scales):
        return None
    limits, scale = np.iinfo(tensor.dtype), float(tensor.scale)
    return Grid(scale, scale * (limits.min - tensor.zero), scale * (limits.max - tensor.zero))


def _every_layer(peer: Peer, pixels: Array) -> SizedNetwork:
    n, c, h, w = pixels.shape
    graph = keep_needed(peer.model.graph, compared_layers(peer.model.graph))
    if graph.has("fake_quantize"):  # the weights are rounded with batch norm folded into them
        graph = fold_batch_norm(graph)
    return SizedNetwork(graph, peer.model.state_dict(), (n, c, h, w))


def _tensorflow(peer: Peer, pixels: Array) -> dict[str, Array]:
    """Run a frozen graph or a Keras model itself; of anything else, our graph in TensorFlow's operations."""
    tensorflow = import_framework("tensorflow")
    runners = {".pb": run_frozen_graph, ".keras": run_keras, ".h5": run_keras, ".hdf5": run_keras}
    if peer.path is not None and runs_file("tensorflow", peer):
        run = run_frozen_graph if peer.path.is_dir() else runners[peer.path.suffix.lower()]
        found = run(tensorflow, peer.path, peer.endpoints, np.ascontiguousarray(pixels.transpose(0, 2, 3, 1)))
    else:
        network = _every_layer(peer, pixels)
        values = run_tensorflow(network, tensorflow.constant(pixels.transpose(0, 2, 3, 1)))
        found = dict(zip(network.graph.outputs, (value.numpy() for value in values), strict=True))
    return {name: _channels_first(values) for name, values in found.items()}


def _litert(peer: Peer, pixels: Array) -> dict[str, Array]:
    """Run our graph as TensorFlow converts it."""
    litert = import_framework("ai_edge_litert.interpreter")
    import_framework("tensorflow")  # which writes the file
    network = _every_layer(peer, pixels)
    interpreter = litert.Interpreter(model_content=write_tflite(network))
    _invoke(interpreter, np.ascontiguousarray(pixels.transpose(0, 2, 3, 1)))
    named = {details["name"]: details["index"] for details in interpreter.get_output_details()}
    names = ["Identity", *(f"Identity_{index}" for index in range(1, len(network.graph.outputs)))]
    pairs = zip(network.graph.outputs, names, strict=True)  # an output that only repeats another has no name
    return {layer: _channels_first(interpreter.get_tensor(named[name])) for layer, name in pairs if name in named}


def _run_tflite(peer: Peer, pixels: Array) -> dict[str, Observed]:
    """Run a .tflite file on LiteRT's own kernels (a delegate would keep the values between to itself).

    Of those, the reference kernels for integers: the others round otherwise. What is kept in integers comes as the
    numbers that they stand for.
    """
    litert = import_framework("ai_edge_litert.interpreter")
    kinds = litert.OpResolverType
    with explaining(Path(str(peer.path)), "LiteRT"):
        is_quantized = any(
            details["dtype"] in (np.int8, np.uint8) and len(details["shape"]) == 4
            for details in litert.Interpreter(str(peer.path)).get_tensor_details()
        )
        kernels = kinds.BUILTIN_REF if is_quantized else kinds.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        interpreter = litert.Interpreter(
            str(peer.path), experimental_op_resolver_type=kernels, experimental_preserve_all_tensors=True
        )
    entry = _invoke(interpreter, np.ascontiguousarray(pixels.transpose(0, 2, 3, 1)))
    tensors = {details["name"]: details for details in interpreter.get_tensor_details()}
    names = {layer: name for layer, name in peer.endpoints.items() if name in tensors}
    if _grid(tensors[entry]) is not None:
        names[INPUT] = entry
    return {
        layer: Observed(
            as_map(_channels_first(_dequantise(interpreter.get_tensor(tensors[name]["index"]), tensors[name]))),
            _grid(tensors[name]),
        )
        for layer, name in names.items()
    }


def _invoke(interpreter: Any, x: Array) -> str:
    """Run on x (N, H, W, C), as integers where the file wants those; returns the name of the input."""
    (entry,) = interpreter.get_input_details()
    if tuple(entry["shape"]) != x.shape:
        interpreter.resize_tensor_input(entry["index"], x.shape)
    interpreter.allocate_tensors()
    grid = _grid(entry)
    if grid is not None:
        scale, zero_point = entry["quantization"]
        limits = np.iinfo(entry["dtype"])
        x = np.clip(np.rint(x / scale) + zero_point, limits.min, limits.max).astype(entry["dtype"])
    interpreter.set_tensor(entry["index"], x)
    interpreter.invoke()
    name: str = entry["name"]
    return name


def _grid(details: Mapping[str, Any]) -> Grid | None:
    """Return the grid of a LiteRT tensor, or None for one of floats."""
    scale, zero_point = details["quantization"]
    if details["dtype"] not in (np.int8, np.uint8) or scale == 0:
        return None
    limits = np.iinfo(details["dtype"])
    return Grid(float(scale), float(scale * (limits.min - zero_point)), float(scale * (limits.max - zero_point)))


def _dequantise(values: Array, details: Mapping[str, Any]) -> Array:
    if _grid(details) is None:
        return values
    scale, zero_point = details["quantization"]
    numbers: Array = (values.astype(np.float64) - zero_point) * scale
    return numbers.astype(np.float32)


def _channels_first(values: Array) -> Array:
    return values.transpose(0, 3, 1, 2) if values.ndim == 4 else values


PEERS: Mapping[str, Callable[[Peer, Array], dict[str, Array]]] = {
    "transformers": _transformers,
    "tensorflow": _tensorflow,
    "litert": _litert,
    "onnxruntime": _onnxruntime,
    "openvino": _openvino,
    "reference": _reference,
}
