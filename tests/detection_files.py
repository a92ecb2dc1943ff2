"""Files that end in TFLite_Detection_PostProcess, or hold nothing else; FlexBuffers; and LiteRT's results for them."""

from __future__ import annotations

import struct
import warnings
from typing import Any

import frameworks
import numpy as np
from flatbuffer_files import TFLiteWriter

OPERATOR = "TFLite_Detection_PostProcess"
OPTIONS = {
    "max_detections": 10,
    "max_classes_per_detection": 1,
    "nms_score_threshold": 1e-8,
    "nms_iou_threshold": 0.6,
    "num_classes": 3,
    "y_scale": 10.0,
    "x_scale": 10.0,
    "h_scale": 5.0,
    "w_scale": 5.0,
}


def write_flexbuffer(values: dict[str, Any]) -> bytes:
    """Return a map of numbers and truth values, every one of them in four bytes."""
    out, places = bytearray(), {}
    for key in sorted(values):
        places[key] = len(out)
        out += key.encode() + b"\0"
    out += bytes(-len(out) % 4) + struct.pack("<I", len(values))
    keys = len(out)
    for key in sorted(values):
        out += struct.pack("<I", len(out) - places[key])
    out += struct.pack("<I", len(out) - keys) + struct.pack("<II", 4, len(values))
    start = len(out)
    types = bytearray()
    for key in sorted(values):
        value = values[key]
        kind = 26 if isinstance(value, bool) else 1 if isinstance(value, int) else 3
        out += struct.pack("<f" if kind == 3 else "<i", value)
        types.append(kind << 2 | 2)
    out += types
    out += bytes(-len(out) % 4)
    out += struct.pack("<I", len(out) - start) + bytes([9 << 2 | 2, 4])
    return bytes(out)


def add_post_processing(writer: TFLiteWriter, inputs: list[int], options: dict[str, Any] | bytes) -> None:
    """Append the operator with its four outputs, which become those of the network."""
    content = options if isinstance(options, bytes) else write_flexbuffer(options)
    names = [OPERATOR, *(f"{OPERATOR}:{number}" for number in (1, 2, 3))]
    outputs = [writer.add_tensor(name, ()) for name in names]
    writer.codes.append({0: ("int8", 32), 1: OPERATOR, 3: ("int32", 32)})
    writer.operators.append(
        {
            0: ("uint32", len(writer.codes) - 1),
            1: np.array(inputs, np.int32),
            2: np.array(outputs, np.int32),
            5: np.frombuffer(content, np.uint8),
        }
    )
    writer.outputs = outputs


def write_single(encodings: Any, scores: Any, anchors: Any, options: dict[str, Any], affine: Any = None) -> bytes:
    """Return a file of this operator alone; `affine` gives (scale, zero) of the three where they are bytes."""
    writer = TFLiteWriter()
    writer.tensors.clear()
    affine = affine or [(None, 0)] * 3
    numbers = []
    for name, values, (scale, zero) in zip(("boxes", "scores"), (encodings, scores), affine, strict=False):
        numbers.append(writer.add_tensor(name, (1, *values.shape), None, str(values.dtype), scale, zero))
    writer.inputs = numbers
    anchor_number = writer.add_constant("anchors", anchors, scales=affine[2][0], zeros=affine[2][1])
    add_post_processing(writer, [*numbers, anchor_number], options)
    return writer.write()


def run_litert_detection(content: bytes, *inputs: Any) -> list[Any]:
    """Return boxes, classes, scores and count as LiteRT's reference kernels give them, on one thread."""
    litert = frameworks.litert()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        interpreter = litert.Interpreter(
            model_content=content, experimental_op_resolver_type=litert.OpResolverType.BUILTIN_REF, num_threads=1
        )
    interpreter.allocate_tensors()
    for detail, values in zip(interpreter.get_input_details(), inputs, strict=True):
        interpreter.set_tensor(detail["index"], values)
    interpreter.invoke()
    return [interpreter.get_tensor(detail["index"])[0].copy() for detail in interpreter.get_output_details()]
