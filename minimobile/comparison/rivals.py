"""The same network in other runtimes, to compare speed and values: ONNX Runtime, OpenVINO, LiteRT, PyTorch, TensorFlow.

Each gets the same weights and geometry. A runtime is imported when it is asked for, and never otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from minimobile.comparison.rival_integers import quantize_onnx
from minimobile.comparison.rival_tensorflow import prepare_tensorflow, write_tflite
from minimobile.comparison.rival_torch import run_torch
from minimobile.comparison.sized_network import Shape, SizedNetwork, fold, write_onnx
from minimobile.errors import UnavailableError
from minimobile.networks.graph import INPUT, Graph
from minimobile.operations.operation import Weights

Run: TypeAlias = Callable[[NDArray[Any]], list[NDArray[Any]]]
"""From an input to all outputs, in the order that the runtime has them in."""
PACKAGES = {
    "onnxruntime": "onnxruntime",
    "openvino": "openvino",
    "litert": "ai_edge_litert",
    "torch": "torch",
    "tensorflow": "tensorflow",
}
IN_INTEGERS = ("onnxruntime", "openvino")  # which run the network that a quantised file holds, quantised once more


def prepare(name: str, graph: Graph, weights: Weights, shape: Shape, num_threads: int) -> Run:
    """Return a function that computes the graph's `compared_outputs` from float32 (N, C, H, W) in the named runtime.

    `name` is a key of `PACKAGES`, or "openvino-bf16".
    """
    _check_installed(name)
    network = fold(graph, weights, shape)
    builders: Mapping[str, Callable[[SizedNetwork, int], Run]] = {
        "onnxruntime": _onnxruntime,
        "openvino": _openvino,
        "openvino-bf16": _openvino_bf16,
        "litert": _litert,
        "torch": run_torch,
        "tensorflow": prepare_tensorflow,
    }
    return builders[name](network, num_threads)


def prepare_integers(
    names: Sequence[str], graph: Graph, weights: Weights, shape: Shape, num_threads: int
) -> dict[str, Run]:
    """Return the same for some of `IN_INTEGERS`, with the network in integers as `quantize_onnx` has it."""
    for name in names:
        _check_installed(name)
    model = quantize_onnx(fold(graph, weights, shape)) if names else b""
    builders = {"onnxruntime": _open_onnxruntime, "openvino": _open_openvino}
    return {name: builders[name](model, num_threads) for name in names}


def _check_installed(name: str) -> None:
    package = PACKAGES[name.removesuffix("-bf16")]
    try:
        import_module(package)
    except ImportError:
        raise UnavailableError(
            f"{name}: expected the package {package}, which is not installed; pip install 'minimobile[bench]'"
        ) from None


def _onnxruntime(network: SizedNetwork, num_threads: int) -> Run:
    return _open_onnxruntime(write_onnx(network), num_threads)


def _open_onnxruntime(model: bytes, num_threads: int) -> Run:
    runtime = import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = num_threads
    session = runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return lambda x: list(session.run(None, {INPUT: x}))


def _openvino(network: SizedNetwork, num_threads: int) -> Run:
    return _open_openvino(write_onnx(network), num_threads)


def _open_openvino(model: bytes, num_threads: int, precision: str = "f32") -> Run:
    core = import_module("openvino").Core()
    settings = {
        "INFERENCE_NUM_THREADS": num_threads,
        "INFERENCE_PRECISION_HINT": precision,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
    }
    request = core.compile_model(core.read_model(model), "CPU", settings).create_infer_request()
    return lambda x: list(request.infer({0: x}).values())


def _openvino_bf16(network: SizedNetwork, num_threads: int) -> Run:
    return _open_openvino(write_onnx(network), num_threads, "bf16")


def _litert(network: SizedNetwork, num_threads: int) -> Run:
    """Run with LiteRT's default kernels (XNNPACK). LiteRT's layout is (N, H, W, C)."""
    interpreter_module = import_module("ai_edge_litert.interpreter")
    interpreter = interpreter_module.Interpreter(model_content=write_tflite(network), num_threads=num_threads)
    interpreter.allocate_tensors()
    first = interpreter.get_input_details()[0]["index"]
    results = [detail["index"] for detail in interpreter.get_output_details()]

    def run(x: NDArray[Any]) -> list[NDArray[Any]]:
        interpreter.set_tensor(first, np.ascontiguousarray(x.transpose(0, 2, 3, 1)))
        interpreter.invoke()
        return [interpreter.get_tensor(number).transpose(0, 3, 1, 2) for number in results]

    return run


def open_tflite(path: str | Path, num_threads: int) -> Run:
    """Return a function that runs a TFLite file in LiteRT's default kernels, from input to output as they are."""
    try:
        interpreter_module = import_module("ai_edge_litert.interpreter")
    except ImportError:
        raise UnavailableError(
            "litert: expected the package ai_edge_litert, which is not installed; pip install 'minimobile[bench]'"
        ) from None
    interpreter = interpreter_module.Interpreter(str(path), num_threads=num_threads)
    interpreter.allocate_tensors()
    source = interpreter.get_input_details()[0]["index"]
    results = [detail["index"] for detail in interpreter.get_output_details()]

    def run(x: NDArray[Any]) -> list[NDArray[Any]]:
        interpreter.set_tensor(source, x)
        interpreter.invoke()
        return [interpreter.get_tensor(number) for number in results]

    return run
