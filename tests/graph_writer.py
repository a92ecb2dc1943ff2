"""GraphDefs written byte by byte, as protobuf's documentation has them, and a small MobileNet V1 in one."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

TYPES = {"float32": 1, "float64": 2, "int32": 3, "uint8": 4, "string": 7, "int64": 9, "bool": 10, "float16": 19}


def varint(number: int) -> bytes:
    """Return a number, negative ones as 64 bits."""
    number %= 2**64
    parts = []
    while number >= 0x80:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*parts, number])


def field(number: int, value: bytes | str | float) -> bytes:
    """Return one field: bytes and text with their length, integers as varints, floats in 32 bits."""
    if isinstance(value, float):
        return varint(number << 3 | 5) + np.float32(value).tobytes()
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    content = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(content)) + content


def shape_proto(sizes: Iterable[int]) -> bytes:
    """Return a TensorShapeProto."""
    return b"".join(field(2, field(1, size)) for size in sizes)


def tensor_proto(values: Any, shape: tuple[int, ...] | None = None, content: bytes | None = None) -> bytes:
    """Return a TensorProto with its values as bytes; `shape` and `content` may tell lies."""
    array = np.asarray(values)
    data = array.tobytes() if content is None else content
    sizes = array.shape if shape is None else shape
    return field(1, TYPES[array.dtype.name]) + field(2, shape_proto(sizes)) + field(4, data)


def attribute(value: Any) -> bytes:
    """Return an AttrValue: bool, int, float, str, list of int, or anything ready-made as bytes."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, bool):
        return field(5, int(value))
    if isinstance(value, list):
        return field(1, field(3, b"".join(varint(entry) for entry in value)))
    number = {int: 3, float: 4, str: 2}[type(value)]
    return field(number, value)


def node(name: str, op: str, *inputs: str, **attributes: Any) -> bytes:
    """Return one node of a GraphDef."""
    entries = (field(1, key) + field(2, attribute(value)) for key, value in attributes.items())
    parts = [field(1, name), field(2, op), *(field(3, tensor) for tensor in inputs), *(field(5, e) for e in entries)]
    return field(1, b"".join(parts))


def const(name: str, values: Any) -> bytes:
    """Return a node Const; Python's floats become float32, its integers int32."""
    array = np.asarray(values)
    plain = {"float64": np.float32, "int64": np.int32}.get(array.dtype.name, array.dtype)
    return node(name, "Const", value=field(8, tensor_proto(array.astype(plain))))


def placeholder(name: str = "input", size: tuple[int, int] | None = (32, 32), channels: int = 3) -> bytes:
    """Return the picture's node."""
    return node(name, "Placeholder", shape=field(7, shape_proto((-1, *(size or (-1, -1)), channels))))


def conv(name: str, x: str, weight: str, stride: int = 1, padding: Any = "SAME", **attributes: Any) -> bytes:
    """Return a convolution; depthwise where the name says so."""
    op = "DepthwiseConv2dNative" if "depthwise" in name else "Conv2D"
    return node(name, op, x, weight, strides=[1, stride, stride, 1], padding=padding, **attributes)


def batch_norm(name: str, x: str, epsilon: float = 1e-3, parts: str = "gbmv") -> list[bytes]:
    """Return the nodes of tf.nn.batch_normalization; `name/m`, `name/v`, `name/g`, `name/b` hold its numbers."""
    scale = f"{name}/rsqrt"
    nodes = [const(f"{name}/eps", epsilon), node(f"{name}/add", "AddV2", f"{name}/v", f"{name}/eps")]
    nodes.append(node(scale, "Rsqrt", f"{name}/add"))
    if "g" in parts:
        scale = f"{name}/mul"
        nodes.append(node(scale, "Mul", f"{name}/rsqrt", f"{name}/g"))
    nodes.append(node(f"{name}/mul_1", "Mul", x, scale))
    if "b" in parts:
        nodes.append(node(f"{name}/mul_2", "Mul", f"{name}/m", scale))
        nodes.append(node(f"{name}/sub", "Sub", f"{name}/b", f"{name}/mul_2"))
    else:
        nodes.append(node(f"{name}/neg", "Neg", f"{name}/m"))
        nodes.append(node(f"{name}/sub", "Mul", f"{name}/neg", scale))
    return [*nodes, node(name, "AddV2", f"{name}/mul_1", f"{name}/sub")]


def draw_norm(random: np.random.Generator, channels: int) -> dict[str, NDArray[np.float32]]:
    """Return gamma, beta, mean and variance."""
    values = {role: random.uniform(0.5, 1.5, channels) for role in "gbmv"}
    return {role: numbers.astype(np.float32) for role, numbers in values.items()}


# Filters and stride of V1's depthwise layers; all layers of the tiny network have 8 channels.
STRIDES = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1)


@functools.cache
def tiny_v1(norm: str = "arithmetic", channels: int = 3) -> tuple[bytes, dict[str, NDArray[np.float32]]]:
    """Return MobileNet V1 with 8 channels everywhere and 5 classes as a GraphDef, and its constants by name.

    `norm` is "arithmetic" or "none" (a bias instead).
    """
    random = np.random.default_rng(0)
    numbers: dict[str, NDArray[np.float32]] = {}
    nodes = [placeholder(channels=channels)]
    x = "input"

    def add(name: str, shape: tuple[int, ...], stride: int = 1) -> str:
        numbers[f"{name}/weights"] = random.normal(0, 0.4, shape).astype(np.float32)
        convolution = conv(f"{name}/conv", x, f"{name}/weights/read", stride)
        made = [node(f"{name}/weights/read", "Identity", f"{name}/weights"), convolution]
        if norm == "none":
            numbers[f"{name}/b"] = random.normal(0, 0.5, 8).astype(np.float32)
            made.append(node(f"{name}/norm", "BiasAdd", f"{name}/conv", f"{name}/b"))
        else:
            values = draw_norm(random, 8)
            numbers.update({f"{name}/norm/{role}": array for role, array in values.items()})
            made += batch_norm(f"{name}/norm", f"{name}/conv")
        nodes.extend([*made, node(f"{name}/relu6", "Relu6", f"{name}/norm")])
        return f"{name}/relu6"

    x = add("stem", (3, 3, channels, 8), 2)
    for index, stride in enumerate(STRIDES):
        x = add(f"depthwise_{index}", (3, 3, 8, 1), stride)
        x = add(f"pointwise_{index}", (1, 1, 8, 8))
    numbers["logits/weights"] = random.normal(0, 1, (1, 1, 8, 5)).astype(np.float32)
    numbers["logits/b"] = random.normal(0, 1, 5).astype(np.float32)
    nodes += [const("axes", [1, 2]), node("pool", "Mean", x, "axes", keep_dims=True)]
    nodes += [conv("logits", "pool", "logits/weights"), node("scores", "BiasAdd", "logits", "logits/b")]
    nodes += [node("flat", "Squeeze", "scores", squeeze_dims=[1, 2]), node("probabilities", "Softmax", "flat")]
    return b"".join([const(name, values) for name, values in numbers.items()] + nodes), numbers


RELU6 = node("stem/relu6", "Relu6", "stem/norm")  # as `tiny_v1` has it


def write(path: Path, *nodes: bytes) -> Path:
    """Write a graph, and return its path."""
    path.write_bytes(b"".join(nodes))
    return path


def rewrite(path: Path, old: bytes, *new: bytes) -> Path:
    """Write the graph of `tiny_v1` with one node replaced, and return its path."""
    content, _ = tiny_v1()
    assert content.count(old) == 1
    return write(path, content.replace(old, b"".join(new)))
