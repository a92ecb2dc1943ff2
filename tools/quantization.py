"""What quantising costs, ours and TensorFlow's converter's: `python tools/quantization.py SOURCE... --images FOLDER`.

Needs TensorFlow and LiteRT for the converter's column. The pictures with even numbers calibrate, the others judge: the
share of top-1 (of pixels, for a segmentation; of detections of one class at IoU 0.5, for a detector) that agrees with
the float network, and the signal-to-noise ratio of the logits (of a detector's scores). With `--labels FILE.csv` (file,
class) the top-1 accuracy stands beside it. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import csv
import math
import os
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps

import minimobile as mm
from minimobile.calibration.method import Method
from minimobile.calibration.quantize import quantize_by
from minimobile.execution.detection import PostProcessor
from minimobile.imaging.folders import list_pictures
from minimobile.networks.ssd import settings

Scores = np.ndarray  # (N, classes, pixels); of a detector (N, classes and background, anchors)
LEAST_SCORE, LEAST_OVERLAP = 0.3, 0.5


class Found(NamedTuple):
    """What a network makes of the pictures; `boxes` (N, anchors, 4) are the encodings of a detector, else None."""

    scores: Scores
    boxes: np.ndarray | None = None


METHODS: Mapping[str, Method] = {
    "ours": Method(),
    "nearest rounding": Method(rounding="nearest"),
    "no bias correction": Method(correct_bias=False),
    "ranges by min/max": Method(ranges="min_max"),
    "ranges by moving averages": Method(ranges="moving_average"),
    "weights by squared error": Method(weights="squared_error"),
    "plain: min/max, nearest, no correction": Method(ranges="min_max", rounding="nearest", correct_bias=False),
    "ours without a picture": Method(ranges="batch_norm"),
    "uint8 per tensor": Method(per_channel=False),
    "uint8 per tensor, not equalised": Method(per_channel=False, equalize=False),
    "uint8 per tensor, no bias correction": Method(per_channel=False, correct_bias=False),
    "uint8 per tensor, nearest rounding": Method(per_channel=False, rounding="nearest"),
    "uint8 per tensor, plain": Method(False, "min_max", rounding="nearest", equalize=False, correct_bias=False),
}


def views(path: Path, count: int) -> list[Image.Image]:
    """Return a picture, its mirror image, and both cut closer, as many as asked for: more to judge by."""
    with Image.open(path) as file:
        whole = file.convert("RGB")
    width, height = whole.size
    closer = whole.crop((width // 10, height // 10, width - width // 10, height - height // 10))
    return [whole, ImageOps.mirror(whole), closer, ImageOps.mirror(closer)][:count]


def run(model: mm.MobileNetV1Model, pictures: Sequence[Image.Image]) -> Found:
    """Return a model's logits for every picture; a detector's scores and boxes."""
    found = [model(model.processor(picture, return_tensors="np")["pixel_values"]) for picture in pictures]
    logits = np.concatenate([each.logits for each in found]).astype(np.float64)
    if is_detector(model):
        scores = 1 / (1 + np.exp(-logits)).transpose(0, 2, 1)
        return Found(scores, np.concatenate([each.box_encodings for each in found]))
    return Found(logits.reshape(len(found), logits.shape[1], -1))


def is_detector(model: mm.MobileNetV1Model) -> bool:
    """Tell whether a model finds boxes."""
    return type(model).__name__.endswith("ForObjectDetection")


def detect(model: mm.MobileNetV1Model, found: Found) -> list[list[tuple[int, np.ndarray]]]:
    """Return class and corners of what a network finds in every picture, by the rules of the model."""
    side = model.config.image_size
    anchors = model.anchors(*((side, side) if isinstance(side, int) else side))
    rules = PostProcessor(settings(model.config), model.config.class_count, anchors)
    result = rules.run(found.boxes, found.scores.transpose(0, 2, 1).astype(np.float32))
    return [
        [(int(rows.classes[row]), rows.boxes[row]) for row in range(len(rows.scores)) if rows.scores[row] > LEAST_SCORE]
        for rows in (type(result)(*(values[index] for values in result)) for index in range(len(found.boxes)))
    ]


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    """Return the intersection of two boxes (ymin, xmin, ymax, xmax) over their union."""
    sides = np.maximum(np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2]), 0)
    areas = [np.prod(box[2:] - box[:2]) for box in (one, other)]
    return float(sides.prod() / max(sum(areas) - sides.prod(), 1e-12))


def compare_detections(ours: list, theirs: list) -> float:
    """Return twice the pairs of one class that overlap enough, over all detections: 1 where all have a partner."""
    pairs = total = 0
    for found, expected in zip(ours, theirs, strict=True):
        free = list(expected)
        for kind, box in found:
            choices = [(overlap(box, other), index) for index, (name, other) in enumerate(free) if name == kind]
            best, index = max(choices, default=(0.0, -1))
            if best >= LEAST_OVERLAP:
                free.pop(index)
                pairs += 1
        total += len(found) + len(expected)
    return 2 * pairs / max(total, 1)


def convert_by_tensorflow(model: mm.MobileNetV1Model, pictures: Sequence[Path], folder: Path) -> Path:
    """Return the file that TensorFlow's converter makes of the float network: int8 per channel, calibrated."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow as tf

    module = as_tensorflow(model, tf)
    samples = [np.ascontiguousarray(model.processor(path, return_tensors="np")["pixel_values"].transpose(0, 2, 3, 1))
               for path in pictures]  # fmt: skip
    converter = tf.lite.TFLiteConverter.from_concrete_functions([module.get_concrete_function()], None)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([sample] for sample in samples)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.float32
    path = folder / "tensorflow.tflite"
    path.write_bytes(converter.convert())
    return path


def as_tensorflow(model: mm.MobileNetV1Model, tf: object) -> Callable[..., object]:
    """Return a TensorFlow function of the float network with batch norm folded, operation by operation."""
    from minimobile.formats.tflite.tflite_floats import float_network

    network = float_network(model.to_checkpoint(), "the network")
    (source,) = network.inputs

    @tf.function(input_signature=[tf.TensorSpec(network.tensors[source].shape, tf.float32)])
    def compute(x: object) -> object:
        values = {source: x}
        for operation in network.operations:
            attributes = operation.attributes
            inputs = [values[name] if name in values else tf.constant(network.tensors[name].values)
                      for name in operation.inputs]  # fmt: skip
            y = inputs[0]
            if operation.op == "conv2d":
                y = tf.nn.conv2d(y, tf.transpose(inputs[1], (1, 2, 3, 0)), attributes["stride"], attributes["padding"],
                                 dilations=attributes["dilation"]) + inputs[2]  # fmt: skip
            elif operation.op == "depthwise_conv2d":
                stride, dilation = attributes["stride"], attributes["dilation"]
                strides, dilations = (1, stride, stride, 1), (dilation, dilation)
                filters = tf.transpose(inputs[1], (1, 2, 3, 0))
                y = tf.nn.depthwise_conv2d(y, filters, strides, attributes["padding"], dilations=dilations) + inputs[2]
            elif operation.op == "add":
                y = inputs[0] + inputs[1]
            elif operation.op == "mean":
                y = tf.reduce_mean(y, attributes["axes"], keepdims=attributes["keep_dims"])
            elif operation.op == "average_pool2d":
                y = tf.nn.avg_pool2d(y, attributes["kernel_size"], attributes["stride"], attributes["padding"])
            elif operation.op == "pad":
                y = tf.pad(y, attributes["padding"])
            elif operation.op == "concatenate":
                y = tf.concat(inputs, attributes["axis"])
            elif operation.op == "logistic":
                y = tf.sigmoid(y)
            elif operation.op == "resize_bilinear":
                size = network.tensors[operation.output].shape[1:3]
                y = tf.compat.v1.image.resize_bilinear(y, size, align_corners=attributes["align_corners"])
            else:
                y = tf.reshape(y, network.tensors[operation.output].shape)
            activation = attributes.get("activation", "linear")
            values[operation.output] = {"linear": tf.identity, "relu": tf.nn.relu, "relu6": tf.nn.relu6}[activation](y)
        return [values[name] for name in network.outputs]

    return compute


def run_tensorflow(path: Path, model: mm.MobileNetV1Model, pictures: Sequence[Image.Image]) -> Found:
    """Return LiteRT's logits, of its reference kernels, from the converter's file; a detector's scores and boxes."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    interpreter = Interpreter(str(path), experimental_op_resolver_type=OpResolverType.BUILTIN_REF)
    interpreter.allocate_tensors()
    (given,), results = interpreter.get_input_details(), interpreter.get_output_details()
    results = sorted(results, key=lambda result: -result["shape"][-1])  # scores have more columns than boxes
    found = []
    for picture in pictures:
        pixels = model.processor(picture, return_tensors="np")["pixel_values"]
        interpreter.set_tensor(given["index"], np.ascontiguousarray(pixels.transpose(0, 2, 3, 1)))
        interpreter.invoke()
        ys = [interpreter.get_tensor(result["index"]) for result in results]
        found.append([y.reshape(1, -1, y.shape[-1]) for y in ys])
    scores, *boxes = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return Found(scores.transpose(0, 2, 1).astype(np.float64), *boxes)


def tell(
    name: str, model: mm.MobileNetV1Model, found: Found, exact: Found, classes: np.ndarray | None, size: int
) -> str:
    """Return a row of the table."""
    ours, theirs = found.scores, exact.scores
    if is_detector(model):
        agreement = compare_detections(detect(model, found), detect(model, exact))
    else:
        agreement = (ours.argmax(1) == theirs.argmax(1)).mean()
    ratio = 10 * math.log10((theirs**2).sum() / max(((ours - theirs) ** 2).sum(), 1e-300))
    right = "" if classes is None else f" {(ours.argmax(1)[:, 0] == classes).mean():.1%} |"
    return f"| {name} | {agreement:.1%} | {ratio:.1f} dB |{right} {size:,} |"


def main() -> int:
    """Quantise, judge and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", nargs="+")
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--labels", type=Path)
    parser.add_argument("--views", type=int, default=4, help="how many views of each picture judge, 1 to 4")
    parser.add_argument("--all", action="store_true", help="each method with and without its parts")
    parser.add_argument("--without-tensorflow", action="store_true")
    options = parser.parse_args()
    paths = list_pictures(options.images)
    for source in options.sources:
        model = mm.load(source)
        seen, judged = paths[0::2], paths[1::2]
        pictures = [view for path in judged for view in views(path, options.views)]
        exact = run(model, pictures)
        classes = None
        if options.labels and exact.scores.shape[2] == 1:
            by_file = {row["file"]: int(row["class"]) for row in csv.DictReader(options.labels.open())}
            offset = exact.scores.shape[1] - 1000  # networks with a background class count from one
            classes = np.repeat([by_file[path.name] + offset for path in judged], options.views)
        print(f"\n{Path(source).name}: {len(seen)} pictures calibrate, {len(pictures)} views of {len(judged)} judge\n")
        head = " top-1 |" if classes is not None else ""
        print(f"| | agrees with float | logits |{head} bytes |\n|---|---|---|{'---|' if head else ''}---|")
        print(tell("float", model, exact, exact, classes, 0).replace(" 0 |", " |"), flush=True)
        if is_detector(model):
            print(f"({sum(map(len, detect(model, exact)))} detections)")
        with tempfile.TemporaryDirectory() as folder:
            for name, method in METHODS.items():
                if not options.all and name not in ("ours", "ours without a picture", "uint8 per tensor"):
                    continue
                given = None if method.ranges == "batch_norm" else seen
                try:
                    made = quantize_by(model, given, method).model
                except mm.MinimobileError as error:
                    print(f"| {name} | {error} |")
                    continue
                path = Path(folder) / "ours.tflite"
                made.save(path)
                print(tell(name, model, run(made, pictures), exact, classes, path.stat().st_size), flush=True)
            if not options.without_tensorflow:
                path = convert_by_tensorflow(model, seen, Path(folder))
                scores = run_tensorflow(path, model, pictures)
                print(tell("TensorFlow's converter", model, scores, exact, classes, path.stat().st_size), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
