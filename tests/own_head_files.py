"""Quantised files of detectors with a head of their own: offsets, scores and anchors as outputs, not decoded."""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import Any

import frameworks
import numpy as np
from flatbuffer_files import TFLiteWriter
from quantized_files import as_bytes, write_quantized
from spelling import random_weights, spell

from minimobile.formats.signatures import TFLITE
from minimobile.formats.tflite.flatbuffer import FlatBuffer
from minimobile.networks import ssd
from minimobile.operations.passes import fold_batch_norm, keep_needed
from minimobile.operations.shapes import infer_shapes

TILE, INT32 = 69, 2  # in TFLite's schema
NAMES = ("offsets", "scores", "anchors")


def write_own_head(config: Any, dtype: str = "int8", repeats: int = 1) -> TFLiteWriter:
    """Return a detector on pictures of 32 x 32 as Keras leaves it: shapes are computed, and anchors tiled by them."""
    graph = ssd.build(config)
    writer = write_quantized(spell(graph, random_weights(graph, 0), folded=True), dtype=dtype)
    nodes = [node.name for node in fold_batch_norm(keep_needed(graph, graph.outputs)).nodes]
    numbers = {fields[3]: number for number, fields in enumerate(writer.tensors)}
    shapes = infer_shapes(graph, 32, 32)
    integer = {"output": {"dtype": "int32"}}
    own = {"output": as_bytes(dtype, 0.1, 128 + int(np.iinfo(dtype).min))}
    places = {"output": as_bytes(dtype, 0.01, 0)}
    rng = np.random.default_rng(0)

    def add_rows(source: int, rank: int, rows: int, columns: int, quantization: dict[str, Any]) -> tuple[int, int]:
        name = writer.tensors[source][3]
        shape = writer.add_operator("SHAPE", [source], (rank,), f"{name}/shape", out_type=INT32, **integer)
        ends = [writer.add_constant(f"{name}/{at}", np.array([at], np.int32)) for at in (0, 1, 1)]
        first = [shape, *ends]
        batch = writer.add_operator("STRIDED_SLICE", first, (), f"{name}/batch", shrink_axis_mask=1, **integer)
        sizes = [writer.add_constant(f"{name}/size {size}", np.int32(size)) for size in (rows, columns)]
        target = writer.add_operator("PACK", [batch, *sizes], (3,), f"{name}/rows", values_count=3, **integer)
        result = writer.add_operator("RESHAPE", [source, target], (1, rows, columns), f"{name} in rows", **quantization)
        return result, batch

    parts: dict[str, list[int]] = {name: [] for name in NAMES}
    for index, name in enumerate(graph.outputs):
        source = numbers[f"op_{nodes.index(name)}:0"]
        _, height, width = shapes[name]
        columns = 4 if index < ssd.MAPS else config.class_count + 1
        count = math.prod(shapes[name]) // height // width // columns
        rows, batch = add_rows(source, 4, height * width * count, columns, own)
        parts["scores" if index >= ssd.MAPS else "offsets"].append(rows)
        if index < ssd.MAPS:
            low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
            cells = rng.integers(low, high, (1, height, width, count, 4), dtype, endpoint=True)
            anchors = writer.add_constant(f"anchors {index}", cells, scales=0.01, zeros=0)
            ones = [writer.add_constant(f"one {index}.{at}", np.int32(repeats)) for at in range(4)]
            times = writer.add_operator("PACK", [batch, *ones], (5,), f"times {index}", values_count=5, **integer)
            tiled = writer.add_operator("TILE", [anchors, times], cells.shape, f"tiled {index}", **places)
            parts["anchors"].append(add_rows(tiled, 5, height * width * count, 4, places)[0])
    ends = []
    for name, quantization in (("offsets", own), ("scores", own), ("anchors", places)):
        first = writer.tensors[parts[name][0]]
        total = sum(int(writer.tensors[part][0][1]) for part in parts[name])
        shape = (1, total, int(first[0][2]))
        joined = f"{name} joined" if name == "scores" else name
        end = writer.add_operator("CONCATENATION", parts[name], shape, joined, axis=1, **quantization)
        if name == "scores":
            shares = {"output": as_bytes(dtype, 1 / 256, int(np.iinfo(dtype).min))}
            end = writer.add_operator("SOFTMAX", [end], shape, name, beta=1.0, **shares)
        ends.append(end)
    writer.outputs = ends
    return writer


def convert_pyramid(version: str, folder: Path) -> Path:
    """Return TensorFlow's int8 file of a Keras MobileNet with a feature pyramid and separate outputs, random weights.

    V1: top-down additions from a global pool, padded once, with dense 3x3 heads; V2: separable layers and heads.
    """
    tf, layers = frameworks.tensorflow(), frameworks.keras().layers
    side = {"V1": 96, "V2": 128}[version]
    model = (_pyramid_v1 if version == "V1" else _pyramid_v2)(frameworks.keras(), layers, side)
    rng = np.random.default_rng(0)
    for weight in model.weights:
        if "variance" in weight.name:
            weight.assign(rng.uniform(0.5, 1.5, weight.shape))
        elif any(name in weight.name for name in ("beta", "mean", "bias")):
            weight.assign(rng.normal(0, 0.2, weight.shape))
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    shape = (1, side, side, 3)
    converter.representative_dataset = lambda: ([rng.uniform(-1, 1, shape).astype(np.float32)] for _ in range(4))
    converter.inference_input_type = tf.uint8
    converter.inference_output_type = tf.float32 if version == "V1" else tf.int8
    path = folder / f"{version}.tflite"
    path.write_bytes(lower_tile(converter.convert()))
    return path


def lower_tile(content: bytes) -> bytes:
    """Return a file whose TILE says version 2: the third is the same for bytes, and LiteRT has no reference of it."""
    out = bytearray(content)
    for code in FlatBuffer(content, "a file").root(TFLITE).tables(1):
        if max(code.number(0, "int8"), code.number(3, "int32")) == TILE:
            struct.pack_into("<i", out, code._find(2, 4), 2)
    return bytes(out)


def _pyramid_v1(keras: Any, layers: Any, side: int) -> Any:
    base = keras.applications.MobileNet((side, side, 3), alpha=0.25, include_top=False, weights=None)
    maps = [base.get_layer(f"conv_pw_{index}_relu").output for index in (5, 11, 13)]
    sides = [layers.BatchNormalization()(layers.Conv2D(32, 1)(x)) for x in maps]
    pooled = layers.Reshape((1, 1, 256))(layers.GlobalAveragePooling2D()(maps[-1]))
    top = layers.BatchNormalization()(layers.Conv2D(32, 1)(pooled))
    found = [top]
    for x in sides[::-1]:
        above = layers.UpSampling2D(2, interpolation="bilinear")(top)
        if above.shape[1] == x.shape[1] - 1:
            above = layers.ZeroPadding2D(((1, 0), (1, 0)))(above)
        top = layers.Add()([x, above])
        found.append(top)
    return _end(keras, layers, base.input, found[::-1], is_depthwise=False)


def _pyramid_v2(keras: Any, layers: Any, side: int) -> Any:
    base = keras.applications.MobileNetV2((side, side, 3), alpha=0.35, include_top=False, weights=None)

    def separable(x: Any, stride: int = 1) -> Any:
        x = layers.BatchNormalization()(layers.DepthwiseConv2D(3, strides=stride, padding="same")(x))
        return layers.ReLU(6.0)(layers.BatchNormalization()(layers.Conv2D(32, 1)(x)))

    maps = [base.get_layer(name).output for name in ("block_5_add", "block_12_add", "out_relu")]
    low, middle, high = (layers.BatchNormalization()(layers.Conv2D(32, 1)(x)) for x in maps)
    middle = separable(layers.Add()([middle, layers.UpSampling2D(2, interpolation="bilinear")(high)]))
    low = separable(layers.Add()([low, layers.UpSampling2D(2, interpolation="bilinear")(middle)]))
    found = [separable(x) for x in (low, middle, high, separable(high, 2))]
    return _end(keras, layers, base.input, found, is_depthwise=True)


def _end(keras: Any, layers: Any, picture: Any, maps: list[Any], is_depthwise: bool) -> Any:
    """Return the model with predictors of five anchors a cell: offsets, shares of two classes, anchors."""
    tf = frameworks.tensorflow()

    class Tiled(layers.Layer):
        def __init__(self, values: Any) -> None:
            super().__init__()
            self.values = values

        def call(self, x: Any) -> Any:
            return tf.tile(tf.constant(self.values)[None], tf.stack([tf.shape(x)[0], 1, 1, 1, 1]))

        def compute_output_shape(self, shape: Any) -> Any:
            return (None, *self.values.shape)

    def predict(x: Any, columns: int) -> Any:
        if is_depthwise:
            x = layers.BatchNormalization()(layers.DepthwiseConv2D(3, padding="same")(x))
        x = layers.Conv2D(5 * columns, 1 if is_depthwise else 3, padding="same")(x)
        return layers.BatchNormalization()(x)

    rng = np.random.default_rng(0)
    parts: tuple[list[Any], ...] = ([], [], [])
    for x in maps:
        _, height, width, _ = x.shape
        rows = height * width * 5
        offsets = predict(x, 4)
        cells = rng.uniform(0, 1, (height, width, 5, 4)).astype(np.float32)
        found = (offsets, predict(x, 2), Tiled(cells)(offsets))
        for part, values, columns in zip(parts, found, (4, 2, 4), strict=True):
            part.append(layers.Reshape((rows, columns))(values))
    offsets, scores, anchors = (layers.Concatenate(axis=1)(part) for part in parts)
    return keras.Model(picture, [offsets, layers.Softmax()(scores), anchors])
