"""How far published detectors of floats are from float64, beside TensorFlow and LiteRT, over 20 photographs.

The measure: of each of the twelve maps of predictions the rms error of ours over that of theirs, both reading the same
pixels; their geometric mean over all maps and photographs. Of one photograph alone it says little: where the network
magnifies roundings, luck decides whose are smaller.
"""

from __future__ import annotations

import frameworks
import numpy as np
import pytest
from PIL import Image
from quantized_files import run_litert
from test_tensorflow_detection import PEDESTRIAN

import minimobile as mm
from minimobile import formats
from minimobile.comparison.float64_run import run_float64

pytestmark = [pytest.mark.crosscheck, pytest.mark.slow]


def open_photographs(test_data):
    for path in sorted((test_data / "images" / "imagenet_100").glob("*.JPEG"))[::5]:
        with Image.open(path) as photo:
            yield np.asarray(photo.convert("RGB"))


def measure(model, pixels, theirs):
    """Return the logarithms of our rms error over theirs, map by map. Shapes: pixels and theirs (1, H, W, C)."""
    truth = run_float64(model.graph, model.state_dict(), pixels, list(theirs))
    ours = model.features(pixels, list(theirs), data_format="channels_last")
    errors = [
        [float(np.sqrt(np.mean((values[name] - exact) ** 2))) for values in (ours, theirs)]
        for name, exact in truth.items()
    ]
    return [np.log(mine / other) for mine, other in errors]


@pytest.mark.parametrize("kernels", ["BUILTIN_REF", "AUTO"])
def test_a_file_of_floats_is_as_near_to_float64_as_litert_is(kernels, test_data):
    path = test_data / "models" / "detection" / "ssdlite_mobilenet_v2_coco_float32.tflite"
    model = mm.load(path)
    endpoints, names = formats.read(path).endpoints, list(model.graph.outputs)
    ratios = []
    for picture in open_photographs(test_data):
        pixels = model.processor(Image.fromarray(picture), return_tensors="np")["pixel_values"]
        pixels = np.ascontiguousarray(pixels.transpose(0, 2, 3, 1))
        tensors = run_litert(path.read_bytes(), pixels, kernels)
        ratios += measure(model, pixels, {name: tensors[endpoints[name]] for name in names})
    judge(f"LiteRT, {kernels}", ratios)


def judge(who, ratios):
    """Print the mean, the least and the largest ratio of a photograph, and demand that ours is no larger."""
    each = np.exp(np.reshape(ratios, (-1, 12)).mean(1))
    print(f"{who}: {np.exp(np.mean(ratios)):.2f}, of {len(each)} photographs {each.min():.2f} to {each.max():.2f}")
    assert np.exp(np.mean(ratios)) <= 1, np.exp(np.mean(ratios))


def test_a_frozen_graph_is_as_near_to_float64_as_tensorflow_is(test_data):
    """Its batch norm scales sums, there and here; TensorFlow without oneDNN, with which its error is a fifth larger."""
    tf = frameworks.tensorflow()
    path = test_data / "models" / "detection" / PEDESTRIAN
    definition = tf.compat.v1.GraphDef()
    definition.ParseFromString(path.read_bytes())
    with tf.Graph().as_default() as graph:
        tf.compat.v1.import_graph_def(definition, name="")
    session = tf.compat.v1.Session(graph=graph)
    model = mm.load(path)
    endpoints, names = formats.read(path).endpoints, list(model.graph.outputs)
    tensors = [f"{tensor}:0" for tensor in ("Preprocessor/sub", *(endpoints[name] for name in names))]
    ratios = []
    for picture in open_photographs(test_data):
        pixels, *theirs = session.run(tensors, {"image_tensor:0": picture[None]})
        ratios += measure(model, pixels, dict(zip(names, theirs, strict=True)))
    judge("TensorFlow", ratios)
