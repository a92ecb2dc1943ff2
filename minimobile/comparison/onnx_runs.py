"""An ONNX file in ONNX Runtime and OpenVINO, every tensor between its input and its output taken out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minimobile.formats.onnx.expose import Exposed, expose

Array = NDArray[Any]


def run_onnxruntime(runtime: Any, path: Path, endpoints: Mapping[str, str], pixels: Array) -> dict[str, Array]:
    """Return the values of the endpoints (layer -> tensor) in ONNX Runtime. Shapes: pixels (N, C, H, W)."""
    exposed = expose(path, endpoints.values())
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(path.parent))
    session = runtime.InferenceSession(exposed.content, options, providers=["CPUExecutionProvider"])
    shape = next(value.shape for value in session.get_inputs() if value.name == exposed.entry)

    def run(x: Array) -> list[Array]:
        found: list[Array] = session.run(list(exposed.outputs), {exposed.entry: x})
        return found

    return _collect(run, shape, exposed, endpoints, pixels)


def run_openvino(openvino: Any, path: Path, endpoints: Mapping[str, str], pixels: Array) -> dict[str, Array]:
    """Return the values of the endpoints (layer -> tensor) in OpenVINO. Shapes: pixels (N, C, H, W)."""
    exposed = expose(path, endpoints.values())
    core = openvino.Core()
    model = core.read_model(exposed.content)
    compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    (entry,) = compiled.inputs
    shape = [size.get_length() if size.is_static else None for size in entry.get_partial_shape()]

    def run(x: Array) -> list[Array]:
        found = compiled({0: x})
        return [np.array(found[compiled.output(name)]) for name in exposed.outputs]

    return _collect(run, shape, exposed, endpoints, pixels)


def _collect(
    run: Callable[[Array], list[Array]],
    shape: Iterable[int | str | None],
    exposed: Exposed,
    endpoints: Mapping[str, str],
    pixels: Array,
) -> dict[str, Array]:
    """Run with the picture laid out as the file has it."""
    sizes = list(shape)
    channels = pixels.shape[1]
    is_last = len(sizes) == 4 and sizes[1] != channels and sizes[3] == channels
    x = np.ascontiguousarray(pixels.transpose(0, 2, 3, 1)) if is_last else pixels
    found = dict(zip(exposed.tensors, run(x), strict=True))
    return {layer: found[name] for layer, name in endpoints.items() if name in found}
