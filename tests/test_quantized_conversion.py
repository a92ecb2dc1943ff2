"""From training to integers: bytes by hand, near the simulation layer by layer, and those of TensorFlow's converter."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import frameworks
import numpy as np
import pytest
from test_slim_ranges import CONFIGS, DEEPLAB, V1, V2, write_checkpoint

import minimobile as mm
from minimobile import formats
from minimobile.errors import FormatError, InputError
from minimobile.execution.runner import RunOptions
from minimobile.formats.checkpoint import Checkpoint
from minimobile.formats.ranges import quantize
from minimobile.formats.tflite import tflite
from minimobile.networks.graph import INPUT, Graph, Node
from minimobile.operations.fake_quantization import FakeQuantization
from minimobile.quantized.conversion import quantize_graph
from minimobile.quantized.engine import QuantizedEngine

PORTRAIT = "deeplabv3_mobilenet_v2_0.5_513_portrait_quant"
SIZE = {V1: 32, V2: 32, DEEPLAB: 33}


def test_one_layer_by_hand() -> None:
    weights = {"w": np.float32([[0.5, -0.25], [1, -1]]).reshape(2, 2, 1, 1), "b": np.float32([0.1, -0.2])}
    node = Node("out", "pointwise_conv2d", (INPUT,), {}, {"weight": "w", "bias": "b"})
    graph = Graph((node,), 2, ("out",), {name: values.shape for name, values in weights.items()})
    ranges = {"w": FakeQuantization(-1, 1, 8, narrow_range=True), "out": FakeQuantization(-2, 3.1)}
    network = quantize_graph(graph, weights, ranges, (1, 1), FakeQuantization(-1, 1), "x")
    pixels, kernel, bias, out = (network.tensors[name] for name in (INPUT, "w", "out.bias", "out"))
    assert (pixels.scale, pixels.zero) == (np.float32(2 / 255), 128)
    assert (kernel.scale, kernel.zero) == (np.float32(1 / 127), 128)
    assert kernel.values is not None
    assert kernel.values.reshape(2, 2).tolist() == [[128 + 64, 128 - 32], [255, 1]]  # 63.5 goes up
    assert bias.values is not None
    assert bias.values.tolist() == [round(0.1 * 127 * 127.5), round(-0.2 * 127 * 127.5)]
    assert (out.scale, out.zero) == (np.float32(5.1 / 255), 100)
    # Byte 255 is 127 steps of 2/255, 192 is 64 of 1/127, 96 is -32.
    (found,) = QuantizedEngine(network).run(np.full((1, 1, 1, 2), 255, np.uint8)).values()
    first = 127 * (2 / 255) * (64 - 32) / 127 + 0.1
    assert found.ravel().tolist() == [100 + round(first / 0.02), 100 + round(-0.2 / 0.02)]


def test_a_bias_is_in_steps_of_its_own_input() -> None:
    # The result's range has the input's scale in float32 and not in float64, of which this bias has half a step more.
    weights = {"w": np.ones((1, 1, 1, 1), np.float32), "b": np.float32([600.0078125])}
    node = Node("out", "pointwise_conv2d", (INPUT,), {}, {"weight": "w", "bias": "b"})
    graph = Graph((node,), 1, ("out",), {name: values.shape for name, values in weights.items()})
    ranges = {"w": FakeQuantization(-1, 1, 8, narrow_range=True), "out": FakeQuantization(-1, 1 + 1e-9)}
    network = quantize_graph(graph, weights, ranges, (1, 1), FakeQuantization(-1, 1), "x")
    assert network.tensors[INPUT].scale == network.tensors["out"].scale
    bias = network.tensors["out.bias"].values
    assert bias is not None
    assert bias.tolist() == [round(600.0078125 / (2 / 255 * (2 / 254)))] == [9715627]


@pytest.mark.parametrize("architecture", CONFIGS)
def test_integers_stay_within_a_step_of_the_simulation(architecture: str, tmp_path: Path) -> None:
    """Layer by layer: each from what the integers have before it, so that steps do not add up."""
    checkpoint = resize(formats.read(write_checkpoint(tmp_path / "x.ckpt", architecture)), SIZE[architecture])
    network: Any = quantize(checkpoint).quantized
    side = SIZE[architecture]
    picture = np.random.default_rng(6).integers(0, 256, (1, side, side, 3), dtype=np.uint8)
    names = [operation.output for operation in network.operations]
    found = QuantizedEngine(network).run(picture, names) | {INPUT: picture}
    numbers = {name: network.tensors[name].scale * (np.float32(x) - network.tensors[name].zero)
               for name, x in found.items()}  # fmt: skip
    simulation = getattr(mm, architecture).from_checkpoint(checkpoint, options=RunOptions(num_threads=1))
    nodes = {node.name: node for node in simulation.graph.nodes}
    checked = 0
    for name in (name for name in names if name in nodes and nodes[name].op == "fake_quantize"):
        nearest = run_from(simulation, numbers, name)
        steps = np.abs(nearest - numbers[name]) / network.tensors[name].scale
        assert steps.max() < 1.01, name
        assert np.count_nonzero(steps > 0.01) <= max(1, 0.05 * steps.size), name
        checked += 1
    assert checked >= len(names) - 5  # all but pools, joins and resizes


def run_from(simulation: Any, numbers: dict[str, np.ndarray], name: str) -> np.ndarray:
    """Return the values of one node of a simulation, given those of the nodes that are rounded before it."""
    from minimobile.execution.definitions import apply_node
    from minimobile.operations.passes import fold_batch_norm

    graph = fold_batch_norm(simulation.graph)
    nodes = {node.name: node for node in graph.nodes}

    def compute(wanted: str) -> np.ndarray:
        node = nodes[wanted]
        inputs = [numbers[x] if x in numbers else compute(x) for x in node.inputs]
        return apply_node(node, simulation.state_dict(), inputs)

    return compute(name)


def resize(checkpoint: Checkpoint, side: int) -> Checkpoint:
    """Return the checkpoint with another size of picture."""
    config: Any = checkpoint.config
    return dataclasses.replace(checkpoint, config=config.replace(image_size=side))


def test_a_model_in_integers_is_one_like_any_other(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / "mobilenet_v1_0.1_32.ckpt", V1)
    model = mm.load(path, quantized=True)
    picture = np.random.default_rng(7).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    settings = model.processor
    scaled = (picture * settings.rescale_factor - settings.image_mean) / settings.image_std  # what becomes of bytes
    pixels = np.float32(scaled).transpose(2, 0, 1)[None]
    stored = model.run_quantized(picture[None])
    assert stored.dtype == np.uint8
    tensor = model._runner.network.tensors["classifier"]
    logits = tensor.scale * (np.float32(stored) - tensor.zero)
    np.testing.assert_array_equal(model(pixels).logits, logits.reshape(1, 3))
    assert set(model.features(pixels, ["layer.3", "conv_stem"])) == {"layer.3", "conv_stem"}
    with pytest.raises(InputError, match="one of quantized and dequantize"):
        mm.load(path, quantized=True, dequantize=True)


def test_the_input_has_the_range_of_the_pixels_that_the_settings_make(tmp_path: Path) -> None:
    checkpoint = formats.read(write_checkpoint(tmp_path / "x.ckpt", V1))
    settings = {
        **(checkpoint.processor or {}),
        "do_rescale": False,
        "image_mean": [127.5] * 3,
        "image_std": [127.5] * 3,
    }
    made = quantize(dataclasses.replace(checkpoint, processor=settings))
    assert made.quantized is not None and made.processor is not None
    source = made.quantized.tensors[made.quantized.inputs[0]]
    assert float(source.scale) == pytest.approx(2 / 255)
    assert made.processor["do_rescale"] is True  # of what is now told in shares of 255
    plain = quantize(dataclasses.replace(checkpoint, processor={**settings, "do_normalize": False}))
    assert plain.quantized is not None
    assert float(plain.quantized.tensors[plain.quantized.inputs[0]].scale) == pytest.approx(1)


def test_what_has_no_integers_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"trained for quantisation or a quantised file, .*found one of floats"):
        mm.load("demo:digits", quantized=True)
    checkpoint = formats.read(write_checkpoint(tmp_path / "x.ckpt", V1))
    settings = {**(checkpoint.processor or {}), "image_mean": [0.1, 0.2, 0.3]}
    with pytest.raises(FormatError, match="one range of pixel values for all channels, found 3"):
        quantize(dataclasses.replace(checkpoint, processor=settings))
    with pytest.raises(
        FormatError, match="image-processor settings, which say what pixel values there are, found none"
    ):
        quantize(dataclasses.replace(checkpoint, processor=None))
    for key, by in (("layer.4", FakeQuantization(0, 0)), ("classifier", FakeQuantization(0, 1, 4))):
        with pytest.raises(FormatError, match=rf"{key}: expected a range of more than one number, in 8 bits"):
            quantize(dataclasses.replace(checkpoint, ranges={**checkpoint.ranges, key: by}))


@pytest.fixture(scope="module")
def converted(test_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return what TensorFlow's converter makes of the portrait graph, up to its logits."""
    tf = frameworks.tensorflow()
    source = test_data / "models" / "tensorflow" / f"{PORTRAIT}_frozen.pb"
    pixels, logits = "MobilenetV2/MobilenetV2/input", "logits/semantic/act_quant/FakeQuantWithMinMaxVars"
    converter = tf.compat.v1.lite.TFLiteConverter.from_frozen_graph(
        str(source), [pixels], [logits], input_shapes={pixels: [1, 513, 513, 3]}
    )
    converter.inference_type = converter.inference_input_type = tf.uint8
    converter.quantized_input_stats = {pixels: (127.5, 127.5)}
    path = tmp_path_factory.mktemp("converted") / "portrait.tflite"
    path.write_bytes(converter.convert())
    return path


@pytest.mark.crosscheck
def test_tensorflows_converter_makes_the_same_network(test_data: Path, converted: Path) -> None:
    """Every scale, zero point and kernel; of 8,000 biases one is a step off, by TensorFlow's approximate 1/sqrt."""
    checkpoint = formats.read(test_data / "models" / "tensorflow" / f"{PORTRAIT}.ckpt")
    ours: Any = quantize(checkpoint).quantized
    read = tflite.read(converted)
    theirs: Any = read.quantized
    made = {operation.output: operation for operation in theirs.operations}
    differing = 0
    for operation in ours.operations:
        if operation.output not in read.endpoints:
            continue
        other = made[read.endpoints[operation.output]]
        inputs = other.inputs[::-1] if operation.op == "add" else other.inputs
        assert operation.op == other.op
        for name, their_name in zip((*operation.inputs, operation.output), (*inputs, other.output), strict=True):
            own, their = ours.tensors[name], theirs.tensors[their_name]
            np.testing.assert_array_equal(own.scales, their.scales, err_msg=name)
            np.testing.assert_array_equal(own.zero_points, their.zero_points, err_msg=name)
            if own.dtype == np.int32:
                assert np.abs(own.values - their.values).max() <= 1, name
                differing += np.count_nonzero(own.values != their.values)
            elif own.values is not None:
                np.testing.assert_array_equal(own.values, their.values, err_msg=name)
    assert len(ours.operations) == len(theirs.operations)
    assert differing <= 1


@pytest.mark.crosscheck
def test_its_bytes_are_litert_s(test_data: Path, converted: Path) -> None:
    litert = frameworks.litert()
    from PIL import Image

    resolver = litert.OpResolverType.BUILTIN_REF
    interpreter = litert.Interpreter(str(converted), experimental_op_resolver_type=resolver)
    interpreter.allocate_tensors()
    model = mm.load(test_data / "models" / "tensorflow" / f"{PORTRAIT}.ckpt", quantized=True)
    for name in ("cat.bmp", "grace_hopper.bmp"):
        picture = Image.open(test_data / "images" / name).convert("RGB").resize((513, 513))
        stored = np.asarray(picture)[None]
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], stored)
        interpreter.invoke()
        expected = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
        found = model.run_quantized(stored)
        assert (found == expected).mean() > 0.999, name
        assert np.abs(found.astype(int) - expected).max() <= 1, name
