"""ONNX files for tests: what lies in one, read by the wire format alone, and a run of it in another runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minimobile.formats.onnx.schema import ARRAY_TYPES, EntryField, GraphField, ModelField, NodeField, TensorField
from minimobile.formats.protobuf import fields

Array = NDArray[Any]


def _parts(content: bytes | memoryview, number: int) -> list[Any]:
    """Return the values of one field."""
    found = [value for field, _, value in fields(memoryview(content), "a test") if field == number]
    return [bytes(value) if isinstance(value, memoryview) else value for value in found]


def read_parts(path: Path) -> tuple[dict[str, str], dict[str, Array], dict[str, str]]:
    """Return the nodes' operators by name, the constants by name, and the metadata of a file."""
    content = path.read_bytes()
    (graph,) = _parts(content, ModelField.GRAPH)
    nodes = {
        _parts(node, NodeField.NAME)[0].decode(): _parts(node, NodeField.OP_TYPE)[0].decode()
        for node in _parts(graph, GraphField.NODE)
    }
    constants = {}
    for tensor in _parts(graph, GraphField.INITIALIZER):
        (kind,), (name,), (data,) = (
            _parts(tensor, field) for field in (TensorField.DATA_TYPE, TensorField.NAME, TensorField.RAW_DATA)
        )
        constants[name.decode()] = np.frombuffer(data, ARRAY_TYPES[kind]).reshape(_parts(tensor, TensorField.DIMS))
    entries = (
        [_parts(entry, field)[0].decode() for field in (EntryField.KEY, EntryField.VALUE)]
        for entry in _parts(content, ModelField.METADATA_PROPS)
    )
    return nodes, constants, dict(entries)


def run_everywhere(path: Path, pixels: Array) -> dict[str, list[Array]]:
    """Let ONNX's checker pass a file, and run it in ONNX Runtime, with and without its optimisations, and OpenVINO."""
    import onnx
    import onnxruntime
    import openvino

    onnx.checker.check_model(onnx.load(path), full_check=True)
    results = {}
    for name in ("ORT_DISABLE_ALL", "ORT_ENABLE_ALL"):
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, name)
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        results[name] = session.run(None, {"pixel_values": pixels})
    compiled = openvino.Core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    results["OpenVINO"] = list(compiled({0: pixels}).values())
    return results


def run_every_tensor(path: Path, pixels: Array) -> dict[str, Array]:
    """Return every tensor between input and output as ONNX Runtime has it without its optimisations."""
    import onnx
    import onnxruntime

    model = onnx.shape_inference.infer_shapes(onnx.load(path))
    known = {value.name for value in model.graph.output}
    model.graph.output.extend(value for value in model.graph.value_info if value.name not in known)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {"pixel_values": pixels}), strict=True))
