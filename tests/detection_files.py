"""Files that end in TFLite_Detection_PostProcess, or hold nothing else; FlexBuffers; and LiteRT's results for them."""

from __future__ import annotations

import struct
import warnings
from collections.abc import Sequence
from typing import Any

import frameworks
import numpy as np
from flatbuffer_files import TFLiteWriter, write_layers
from quantized_files import as_bytes, write_quantized
from spelling import random_weights, spell

from minimobile.networks import ssd
from minimobile.networks.anchors import make_anchors
from minimobile.operations.passes import fold_batch_norm, keep_needed
from minimobile.operations.shapes import infer_shapes

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


def open_litert(content: bytes) -> Any:
    """Return LiteRT's interpreter of a file with its reference kernels, on one thread."""
    litert = frameworks.litert()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        interpreter = litert.Interpreter(
            model_content=content, experimental_op_resolver_type=litert.OpResolverType.BUILTIN_REF, num_threads=1
        )
    interpreter.allocate_tensors()
    return interpreter


def run_litert_detection(content: bytes, *inputs: Any) -> list[Any]:
    """Return boxes, classes, scores and count as LiteRT's reference kernels give them, on one thread."""
    return run_interpreter(open_litert(content), *inputs)


def run_interpreter(interpreter: Any, *inputs: Any) -> list[Any]:
    """Return boxes, classes, scores and count for one picture, or for other inputs."""
    for detail, values in zip(interpreter.get_input_details(), inputs, strict=True):
        interpreter.set_tensor(detail["index"], values)
    interpreter.invoke()
    return [interpreter.get_tensor(detail["index"])[0].copy() for detail in interpreter.get_output_details()]


def write_detector(
    config: Any, dtype: str = "float32", options: dict[str, Any] | None = None, seed: int = 0, half: bool = False,
    moves: Sequence[str] = (),
) -> tuple[TFLiteWriter, dict[str, Any]]:  # fmt: skip
    """Return the file of a detector with random weights on pictures of 32 x 32, and the weights by canonical name.

    `moves` are operators behind the scores, QUANTIZE to steps of a fortieth and DEQUANTIZE.
    """
    graph = ssd.build(config)
    weights = random_weights(graph, seed)
    layers = spell(graph, weights, folded=True)
    nodes = [node.name for node in fold_batch_norm(keep_needed(graph, graph.outputs)).nodes]
    is_float = dtype == "float32"
    writer = write_layers(layers, half=half) if is_float else write_quantized(layers, dtype=dtype)
    numbers = {fields[3]: number for number, fields in enumerate(writer.tensors)}
    shapes = infer_shapes(graph, 32, 32)
    ends = []
    for names, columns in ((graph.outputs[:6], 4), (graph.outputs[6:], config.class_count + 1)):
        parts = []
        own = {} if is_float else {"output": as_bytes(dtype, 0.1, 128 + int(np.iinfo(dtype).min))}
        for name in names:
            source = numbers[f"op_{nodes.index(name)}" + ("" if is_float else ":0")]
            rows = int(np.prod(shapes[name])) // columns
            target = writer.add_constant(f"{name}/shape", np.array((1, rows, columns), np.int32))
            parts.append(writer.add_operator("RESHAPE", [source, target], (1, rows, columns), f"{name} in rows", **own))
        total = sum(int(writer.tensors[part][0][1]) for part in parts)
        ends.append(
            writer.add_operator("CONCATENATION", parts, (1, total, columns), f"joined {columns}", axis=1, **own)
        )
    low = 0 if is_float else int(np.iinfo(dtype).min)
    own = {} if is_float else {"output": as_bytes(dtype, 1 / 256, low)}
    ends[1] = writer.add_operator("LOGISTIC", [ends[1]], (1, total, config.class_count + 1), "scores", **own)
    for kind in moves:
        own = {"output": as_bytes(dtype, 1 / 40, low)} if kind == "QUANTIZE" else {}
        ends[1] = writer.add_operator(kind, [ends[1]], tuple(writer.tensors[ends[1]][0]), f"{kind} of scores", **own)
    if dtype == "int8":
        ends = [
            writer.add_operator("DEQUANTIZE", [end], tuple(writer.tensors[end][0]), f"numbers {end}") for end in ends
        ]
    anchors = make_anchors(ssd.settings(config), (32, 32), [shapes[name][1:] for name in graph.outputs[:6]])
    if dtype == "uint8":
        stored = np.clip(np.rint(anchors / 0.006), 0, 255).astype(np.uint8)
        ends.append(writer.add_constant("anchors", stored, scales=0.006, zeros=0))
    else:
        ends.append(writer.add_constant("anchors", anchors))
    add_post_processing(writer, ends, {**OPTIONS, "num_classes": config.class_count, **(options or {})})
    return writer, weights
