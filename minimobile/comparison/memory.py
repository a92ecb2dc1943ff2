"""How much memory a process takes that does nothing but load a network and run it once, in our engine and in others."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from minimobile.comparison.rival_tensorflow import write_tflite
from minimobile.comparison.sized_network import Shape, SizedNetwork, fold, write_onnx
from minimobile.errors import InputError, UnavailableError
from minimobile.models.classes import MobileNetModel

_HEAD = """
import sys
import numpy as np
path, shape = sys.argv[1], tuple(map(int, sys.argv[2:6]))
x = np.zeros(shape, np.float32)
"""
# Linux: of this process image alone; what getrusage tells there begins with the memory of the process that started it.
_TAIL = """
if sys.platform == "linux":
    line = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
    print(int(line.split()[1]) / 2**10)
else:
    import resource
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)
"""
_PROGRAMS = {
    "minimobile": """
import minimobile
minimobile.load(path, num_threads=1)(x)
""",
    "onnxruntime": """
import onnxruntime
session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
session.run(None, {session.get_inputs()[0].name: x})
""",
    "openvino": """
import openvino
openvino.Core().compile_model(path, "CPU", {"INFERENCE_NUM_THREADS": 1}).create_infer_request().infer({0: x})
""",
    "litert": """
from ai_edge_litert.interpreter import Interpreter
interpreter = Interpreter(path, num_threads=1)
interpreter.allocate_tensors()
interpreter.set_tensor(interpreter.get_input_details()[0]["index"], np.ascontiguousarray(x.transpose(0, 2, 3, 1)))
interpreter.invoke()
""",
}
_WRITERS: Mapping[str, tuple[str, Callable[[SizedNetwork], bytes]]] = {
    "onnxruntime": ("model.onnx", write_onnx),
    "openvino": ("model.onnx", write_onnx),
    "litert": ("model.tflite", write_tflite),
}
MEASURED = tuple(_PROGRAMS)


def measure_memory(model: MobileNetModel, shape: Shape, against: Sequence[str] = ()) -> dict[str, float]:
    """Return the peak resident memory in MiB of a process per runtime: ours, and those named in `against`.

    Each child process imports one runtime, loads the network from a file, runs it once on a picture of `shape`
    (N, C, H, W), and ends. Our kernels are expected to be compiled (`minimobile warmup`).
    """
    unknown = [name for name in against if name not in _WRITERS]
    if unknown:
        raise InputError(f"against: memory is measured for {', '.join(_WRITERS)}, got {unknown[0]!r}")
    if sys.platform == "win32":
        raise UnavailableError("memory: expected a system that tells a process its peak memory, found Windows")
    peaks = {}
    with TemporaryDirectory() as folder:
        native = Path(folder) / "model.h5"
        model.save(native)
        for name in ("minimobile", *against):
            path = native
            if name in _WRITERS:
                file_name, write = _WRITERS[name]
                path = Path(folder) / file_name
                path.write_bytes(write(fold(model.graph, model.state_dict(), shape)))
            command = [sys.executable, "-c", _HEAD + _PROGRAMS[name] + _TAIL, str(path), *map(str, shape)]
            child = subprocess.run(command, capture_output=True, text=True, check=False)
            if child.returncode:
                reason = (child.stderr.strip().splitlines() or ["no message"])[-1]
                raise UnavailableError(f"{name}: expected a process that runs the network, it failed ({reason[:200]})")
            peaks[name] = float(child.stdout.split()[-1])
    return peaks
