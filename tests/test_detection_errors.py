"""How far published detectors of floats are from float64, beside TensorFlow and LiteRT, over several photographs.

Of one photograph alone the ratio says little: where the network magnifies roundings, luck decides whose are smaller.
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

pytestmark = [pytest.mark.crosscheck, pytest.mark.slow]


def open_photographs(test_data):
    for path in sorted((test_data / "images" / "imagenet_100").glob("*.JPEG"))[::16]:
        with Image.open(path) as photo:
            yield np.asarray(photo.convert("RGB"))


def measure(ours, theirs, truth):
    """Return the logarithms of our rms error over theirs, layer by layer."""
    errors = [
        [float(np.sqrt(np.mean((values[name] - exact) ** 2))) for values in (ours, theirs)]
        for name, exact in truth.items()
    ]
    return [np.log(mine / other) for mine, other in errors]


@pytest.mark.parametrize("kernels", ["BUILTIN_REF", "AUTO"])
def test_a_file_of_floats_is_as_near_to_float64_as_litert_is(kernels, test_data):
    path = test_data / "models" / "detection" / "ssdlite_mobilenet_v2_coco_float32.tflite"
    model, exact = mm.load(path), mm.load(path, engine="reference", dtype="float64")
    endpoints, names = formats.read(path).endpoints, list(model.graph.outputs)
    ratios = []
    for picture in open_photographs(test_data):
        pixels = model.processor(Image.fromarray(picture), return_tensors="np")["pixel_values"]
        tensors = run_litert(path.read_bytes(), np.ascontiguousarray(pixels.transpose(0, 2, 3, 1)), kernels)
        theirs = {name: tensors[endpoints[name]].transpose(0, 3, 1, 2) for name in names}
        truth = exact.features(pixels.astype(np.float64), names)
        ratios += measure(model.features(pixels, names), theirs, truth)
    assert np.exp(np.mean(ratios)) <= 1, np.exp(np.mean(ratios))


def test_a_graph_with_its_batch_norm_costs_us_no_more_than_its_folding(test_data):
    """TensorFlow computes this graph unfolded; rounding folded weights once costs a tenth (docs/exactness.md)."""
    tf = frameworks.tensorflow()
    path = test_data / "models" / "detection" / PEDESTRIAN
    definition = tf.compat.v1.GraphDef()
    definition.ParseFromString(path.read_bytes())
    with tf.Graph().as_default() as graph:
        tf.compat.v1.import_graph_def(definition, name="")
    session = tf.compat.v1.Session(graph=graph)
    model, exact = mm.load(path), mm.load(path, engine="reference", dtype="float64")
    endpoints, names = formats.read(path).endpoints, list(model.graph.outputs)
    tensors = [f"{tensor}:0" for tensor in ("Preprocessor/sub", *(endpoints[name] for name in names))]
    ratios = []
    for picture in open_photographs(test_data):
        found = session.run(tensors, {"image_tensor:0": picture[None]})
        pixels, *theirs = (values.transpose(0, 3, 1, 2) for values in found)
        truth = exact.features(pixels.astype(np.float64), names)
        ratios += measure(model.features(pixels, names), dict(zip(names, theirs, strict=True)), truth)
    assert np.exp(np.mean(ratios)) <= 1.25, np.exp(np.mean(ratios))
