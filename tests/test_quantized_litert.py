"""Published quantised files, and what TensorFlow's converter makes: every tensor as LiteRT computes it."""

from __future__ import annotations

import itertools
import math
import warnings

import frameworks
import numpy as np
import pytest
from PIL import Image
from quantized_files import random_bytes, run_litert

import minimobile as mm
from minimobile.execution.runner import RunOptions
from minimobile.formats.tflite import tflite
from minimobile.quantized.engine import QuantizedEngine

PUBLISHED = (
    "mobilenet_v1_0.25_128_quant",
    "mobilenet_v2_1.0_224_quant",
    "mobilenet_v1_0.25_96_vww_int8",
    "deeplabv3_mnv2_dm05_pascal_quant",
)
PICTURES = ("cat.bmp", "grace_hopper.bmp", "parrot.jpg", "bird_segmentation.bmp", "cats_coco_39769.png")
RESOLVERS = {"litert": "BUILTIN_REF", "xnnpack": "AUTO"}  # AUTO: XNNPACK


def inputs_of(network, test_data):
    """Yield five pictures, and all bytes the smallest and the largest."""
    tensor = network.tensors[network.inputs[0]]
    low = int(np.iinfo(tensor.dtype).min)
    for name in PICTURES:
        with Image.open(test_data / "images" / name) as image:
            pixels = np.asarray(image.convert("RGB").resize(tensor.shape[2:0:-1]), np.int16)
        yield (pixels + low).astype(tensor.dtype)[None]
    for value in (low, low + 255):
        yield np.full(tensor.shape, value, tensor.dtype)


def assert_every_tensor(engine, content, x, resolver):
    names = [operation.output for operation in engine.network.operations]
    expected, found = run_litert(content, x, resolver), engine.run(x, names)
    for name in names:
        assert found[name].dtype == expected[name].dtype
        np.testing.assert_array_equal(found[name], expected[name], err_msg=f"{resolver}: {name}")


CASES = [
    # LiteRT's reference kernels take seconds for each picture of DeepLab's.
    pytest.param(name, bytes_of, marks=[pytest.mark.slow] if name in PUBLISHED[3:] and bytes_of == "litert" else [])
    for name, bytes_of in itertools.product(PUBLISHED, RESOLVERS)
]


@pytest.mark.crosscheck
@pytest.mark.parametrize(("name", "bytes_of"), CASES)
def test_every_tensor_of_published_files_is_litert_s(name, bytes_of, test_data):
    path = test_data / "models" / "tflite" / f"{name}.tflite"
    network = tflite.read(path).quantized
    engine = QuantizedEngine(network, RunOptions(bytes_of=bytes_of))
    for x in inputs_of(network, test_data):
        assert_every_tensor(engine, path.read_bytes(), x, RESOLVERS[bytes_of])


def literal_single_rounding(network, x):
    """Return every tensor of a V1 by TFLITE_SINGLE_ROUNDING's formulas, in Python's integers, one value at a time."""
    values = {network.inputs[0]: x}
    for operation in network.operations:
        if operation.op not in ("conv2d", "depthwise_conv2d"):
            break
        source, weight, bias = (network.tensors[name] for name in operation.inputs)
        out = network.tensors[operation.output]
        product = np.float64(np.float32(source.scale * weight.scales[0]))
        fraction, exponent = math.frexp(product / np.float64(out.scale))
        multiplier = int(fraction * 2**31 + 0.5)
        _, rows, columns, channels = out.shape
        _, height, width, _ = source.shape
        stride, kernel = operation.attributes["stride"], weight.shape[1]
        top = max((rows - 1) * stride + kernel - height, 0) // 2
        left = max((columns - 1) * stride + kernel - width, 0) // 2
        pixels = values[source.name][0].astype(int) - source.zero
        factors = weight.values.astype(int) - weight.zero
        highest = min(255, out.zero + round(6 / float(out.scale)))
        result = np.zeros(out.shape, np.uint8)
        for i, j in itertools.product(range(rows), range(columns)):
            total = bias.values.astype(int).copy()
            for ky, kx in itertools.product(range(kernel), range(kernel)):
                row, column = i * stride - top + ky, j * stride - left + kx
                if 0 <= row < height and 0 <= column < width:
                    if operation.op == "conv2d":
                        total += factors[:, ky, kx] @ pixels[row, column]
                    else:
                        total += factors[0, ky, kx] * pixels[row, column]
            for o in range(channels):
                shifted = (int(total[o]) * multiplier + (1 << (30 - exponent))) >> (31 - exponent)
                result[0, i, j, o] = min(max(shifted + out.zero, out.zero), highest)
        values[operation.output] = result
        if len(values) > 9:
            break
    return values


@pytest.mark.crosscheck
def test_single_rounding_is_its_formula_taken_literally(test_data):
    network = tflite.read(test_data / "models" / "tflite" / "mobilenet_v1_0.25_128_quant.tflite").quantized
    x = next(inputs_of(network, test_data))
    expected = literal_single_rounding(network, x)
    names = list(expected)[1:]
    found = QuantizedEngine(network, RunOptions(bytes_of="litert-single-rounding")).run(x, names)
    double = QuantizedEngine(network, RunOptions(bytes_of="litert")).run(x, names)
    for name in names:
        np.testing.assert_array_equal(found[name], expected[name], err_msg=name)
    assert any((found[name] != double[name]).any() for name in names)


@pytest.mark.crosscheck
def test_the_mask_is_litert_s(test_data):
    path = test_data / "models" / "tflite" / "deeplabv3_mnv2_dm05_pascal_quant.tflite"
    model = mm.load(path)
    with Image.open(test_data / "images" / "bird_segmentation.bmp") as image:
        photo = image.convert("RGB").resize((500, 300))
    inputs = model.processor(photo, return_tensors="np")
    stored = np.rint(inputs["pixel_values"] * 128 + 128).clip(0, 255).astype(np.uint8).transpose(0, 2, 3, 1)
    (expected,) = run_litert(path.read_bytes(), stored)["ArgMax"]
    output = model(**inputs)
    np.testing.assert_array_equal(output.classes[0], expected)
    (mask,) = model.processor.post_process_semantic_segmentation(output, target_sizes=[(300, 500)])
    assert mask.shape == (300, 500)
    assert set(np.unique(mask)) <= set(np.unique(expected))


@pytest.mark.crosscheck
def test_dequantised_v2_is_the_one_in_transformers_layout(test_data):
    ours = mm.load(test_data / "models" / "tflite" / "mobilenet_v2_1.0_224_quant.tflite", dequantize=True)
    theirs = mm.load(test_data / "models" / "huggingface" / "mobilenet_v2_1.0_224")
    x = np.random.default_rng(0).uniform(-1, 1, (2, 3, 224, 224)).astype(np.float32)
    one, other = (model(x).logits for model in (ours, theirs))
    assert np.abs(one - other).max() < 1e-4 * np.abs(other).max()


KERAS = {
    "V1 0.25 at 64": ("MobileNet", 0.25, (64, 64), "int8"),
    "V1 0.35 at odd sizes": ("MobileNet", 0.35, (65, 97), "float32"),
    "V2 0.35 at 32": ("MobileNetV2", 0.35, (32, 32), "uint8"),
    "V2 0.35 at odd sizes": ("MobileNetV2", 0.35, (47, 64), "int8"),
}


@pytest.mark.slow  # TensorFlow's converter takes 20 seconds for each
@pytest.mark.crosscheck
@pytest.mark.parametrize("case", KERAS)
def test_what_tensorflow_quantises_is_litert_s(case, tmp_path):
    name, alpha, size, ends = KERAS[case]
    tf, keras = frameworks.tensorflow(), frameworks.keras()
    keras.utils.set_random_seed(0)
    network = getattr(keras.applications, name)((*size, 3), alpha=alpha, weights=None, classes=7)
    random = np.random.default_rng(0)
    for layer in network.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            count = layer.gamma.shape[0]
            gamma, variance = (random.uniform(0.5, 1.5, count) for _ in range(2))
            layer.set_weights([gamma, random.normal(0, 0.3, count), random.normal(0, 0.3, count), variance])
    pictures = random.uniform(-1, 1, (8, 1, *size, 3)).astype(np.float32)
    converter = tf.lite.TFLiteConverter.from_keras_model(network)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([picture] for picture in pictures)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = getattr(tf, ends)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of statistics that the pictures give
        content = converter.convert()
    path = tmp_path / "model.tflite"
    path.write_bytes(content)
    model = mm.load(path)
    integers = model._runner.network
    for bytes_of, resolver in RESOLVERS.items():
        engine = QuantizedEngine(integers, RunOptions(bytes_of=bytes_of))
        for picture in pictures[:3]:
            x = picture if ends == "float32" else random_bytes(len(case), picture.shape, ends)
            assert_every_tensor(engine, content, x, resolver)
    steps = model(pictures[0].transpose(0, 3, 1, 2)).probabilities
    floats = mm.load(path, dequantize=True)(pictures[0].transpose(0, 3, 1, 2)).logits.astype(np.float64)
    scores = np.exp(floats - floats.max())
    assert np.abs(steps - scores / scores.sum()).max() < 0.1
