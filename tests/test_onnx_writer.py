"""ONNX files that we write: every weight's bits, names, metadata; and other runtimes' values of them."""

from __future__ import annotations

import dataclasses
import json
import platform

import numpy as np
import pytest
from onnx_files import read_parts, run_every_tensor, run_everywhere
from planted import draw_pixels, make_network
from spelling import random_weights

import minimobile as mm
from minimobile import formats
from minimobile.comparison.crosscheck import check
from minimobile.errors import FormatError, InputError
from minimobile.formats.checkpoint import Checkpoint
from minimobile.formats.dialects import DIALECTS, processor_settings
from minimobile.formats.onnx import write as onnx_file
from minimobile.networks.build_graph import build_graph
from minimobile.networks.config import ACTIVATIONS
from minimobile.networks.ssd import ANCHORS
from minimobile.networks.ssd_config import MobileNetSSDConfig
from minimobile.operations.passes import keep_needed
from minimobile.quantized import definitions
from minimobile.quantized.engine import QuantizedEngine

NETWORKS = {
    "V1": ("v1", {}),
    "V1, odd picture, symmetric padding": ("v1", {"tf_padding": False, "image_size": 47}),
    "V1, Keras' padding": ("v1", {"bottom_right_padding": "all"}),
    "V1, fixed pool": ("v1", {"pool_size": 2, "image_size": 64}),
    "V1, output stride 8": ("v1", {"output_stride": 8}),
    "V2": ("v2", {}),
    "V2, odd picture": ("v2", {"image_size": 65}),
    "DeepLab": ("deeplab", {}),
    "DeepLab, output stride 16": ("deeplab", {"output_stride": 16, "image_size": 65}),
    **{f"V1, {name}": ("v1", {"hidden_act": name}) for name in ("relu", "silu", "gelu", "leaky_relu", "hardswish")},
    **{f"V2, {name}": ("v2", {"hidden_act": name}) for name in ("sigmoid", "tanh")},
}


def make_detector(name: str) -> mm.MobileNetV1Model:
    config = {"V1": mm.MobileNetV1Config, "V2": mm.MobileNetV2Config}[name](
        depth_multiplier=0.1, num_labels=3, image_size=96, architectures=(f"MobileNet{name}ForObjectDetection",)
    )
    architecture = f"MobileNet{name}ForObjectDetection"
    weights = random_weights(build_graph(config, architecture), 0)
    return getattr(mm, architecture).from_checkpoint(Checkpoint(config, weights, architecture))


def test_every_weight_keeps_its_bits_and_its_name(tmp_path):
    model = make_network("v2", image_size=32)
    model.save(tmp_path / "model.onnx")
    nodes, constants, _ = read_parts(tmp_path / "model.onnx")
    for name, values in model.state_dict().items():
        assert constants[name].tobytes() == values.tobytes(), name
    layers = {node.name: node.op for node in model.graph.nodes}
    assert set(layers) <= set(nodes)
    assert {nodes[name] for name, op in layers.items() if op == "batch_norm"} == {"BatchNormalization"}


def test_labels_and_preprocessing_are_in_the_metadata(tmp_path):
    model = mm.load("demo:digits")
    model.save(tmp_path / "model.onnx")
    _, _, metadata = read_parts(tmp_path / "model.onnx")
    assert metadata["labels"].split("\n") == [model.id2label[index] for index in range(10)]
    assert json.loads(metadata["preprocessor_config"]) == model.to_checkpoint().processor
    assert metadata["Image.NominalPixelRange"] == "Normalized_1_1"
    assert metadata["Image.BitmapPixelFormat"] == "Rgb8"
    settings = json.loads(metadata["minimobile.settings"])
    assert settings["dialect"] == model.to_checkpoint().dialect and settings["config"]["num_labels"] == 10


def test_half_precision_halves_the_file(tmp_path):
    model = make_network("v1", depth_multiplier=0.5, min_depth=8)
    for dtype in ("float32", "float16"):
        model.save(tmp_path / f"{dtype}.onnx", dtype)
    sizes = [(tmp_path / f"{dtype}.onnx").stat().st_size for dtype in ("float16", "float32")]
    assert sizes[0] < 0.54 * sizes[1]
    _, constants, _ = read_parts(tmp_path / "float16.onnx")
    for name, values in model.state_dict().items():
        np.testing.assert_array_equal(constants[name], values.astype(np.float16))


def test_convert_writes_what_save_does_and_tells_every_array(tmp_path):
    model = make_network("v1")
    model.save(tmp_path / "model.h5")
    report = mm.convert(tmp_path / "model.h5", tmp_path / "model.onnx")
    model.save(tmp_path / "saved.onnx")
    assert (tmp_path / "model.onnx").read_bytes() == (tmp_path / "saved.onnx").read_bytes()
    assert report.layout == "ONNX file" and set(report.mapped.values()) == set(model.state_dict())
    with pytest.raises(InputError, match=r"model\.onnx: .*exists"):
        mm.convert(tmp_path / "model.h5", tmp_path / "model.onnx")


@pytest.mark.parametrize("function", sorted({*ACTIVATIONS} - {"relu6", "relu", "swish", "linear"}))
def test_every_activation_comes_back(function, tmp_path):
    model = make_network("v1", hidden_act=function, image_size=32)
    model.save(tmp_path / "model.onnx")
    again = mm.load(tmp_path / "model.onnx")
    assert again.config == model.config
    for name, values in model.state_dict().items():
        assert again.state_dict()[name].tobytes() == values.tobytes(), name


def test_a_file_whose_layers_have_different_activations_is_none_of_ours(tmp_path):
    path = tmp_path / "model.onnx"
    make_network("v1", hidden_act="hardswish", image_size=32).save(path)
    content = path.read_bytes()
    place = content.rindex(b"HardSwish")  # the last of them: a name of as many letters that is another activation
    path.write_bytes(content[:place] + b"LeakyRelu" + content[place + 9 :])
    with pytest.raises(FormatError, match=r"expected activation hardswish .*, found leaky_relu"):
        mm.load(path)


def test_what_has_no_form_in_a_file_is_named_and_nothing_is_written(tmp_path):
    model = make_network("v1")
    name = "mobilenet_v1.layer.3.convolution.weight"
    large = {**model.state_dict(), name: model.state_dict()[name] * np.float32(1e6)}
    model = type(model).from_checkpoint(dataclasses.replace(model.to_checkpoint(), weights=large))
    with pytest.raises(FormatError, match=r"model\.onnx: mobilenet_v1\.layer\.3.*float16 can hold"):
        model.save(tmp_path / "model.onnx", "float16")
    with pytest.raises(InputError, match=r"one of float32, float16, got 'int8'"):
        model.save(tmp_path / "model.onnx", "int8")
    for ending in ("onnx", "tflite"):  # and a reader could not tell it from a network whose clamps are its ranges
        with pytest.raises(FormatError, match=r"expected an activation, got hidden_act 'linear'.*NAME\.h5"):
            make_network("v1", hidden_act="linear").save(tmp_path / f"model.{ending}")
    assert not list(tmp_path.iterdir())


@pytest.mark.crosscheck
@pytest.mark.parametrize("name", NETWORKS)
def test_other_runtimes_have_our_logits(name, tmp_path):
    kind, fields = NETWORKS[name]
    model = make_network(kind, **{"image_size": 32, **fields})
    pixels = np.repeat(draw_pixels(model.config.image_size), 2, axis=0)
    pixels[1] *= -1
    for dtype in ("float32", "float16"):
        model.save(tmp_path / "model.onnx", dtype)
        rounded = {key: values.astype(dtype).astype(np.float32) for key, values in model.state_dict().items()}
        ours = type(model).from_checkpoint(dataclasses.replace(model.to_checkpoint(), weights=rounded))
        for runtime, (logits,) in run_everywhere(tmp_path / "model.onnx", pixels).items():
            report = check(ours, pixel_values=pixels, against=lambda _, y=logits: {"logits": y})
            assert report.layers[0].excess <= 1, f"{name}, {dtype}, {runtime}: {report}"


@pytest.mark.crosscheck
@pytest.mark.parametrize("name", ["V1", "V2"])
def test_other_runtimes_have_our_predictions_of_a_detector(name, tmp_path):
    model = make_detector(name)
    model.save(tmp_path / "model.onnx")
    pixels = draw_pixels(96)
    ours = model.features(pixels, list(model.graph.outputs))
    for runtime, found in run_everywhere(tmp_path / "model.onnx", pixels).items():
        for (layer, values), theirs in zip(ours.items(), found, strict=True):
            scale = np.abs(values).max()
            # A path of 50 layers: float32 loses a few of 24 bits. A wrong weight would move values by their own size.
            assert np.abs(theirs - values).max() <= 1e-4 * scale, (runtime, layer)


@pytest.mark.crosscheck
def test_other_runtimes_have_our_features_of_a_network_without_head(tmp_path):
    classifier = make_network("v2", image_size=64)
    model = mm.MobileNetV2Model.from_checkpoint(classifier.to_checkpoint())
    model.save(tmp_path / "model.onnx")
    pixels = draw_pixels(64)
    ours = model(pixels)
    for last, pooled in run_everywhere(tmp_path / "model.onnx", pixels).values():
        assert (last.shape, pooled.shape) == (ours.last_hidden_state.shape, ours.pooler_output.shape)
        np.testing.assert_allclose(last, ours.last_hidden_state, rtol=0, atol=1e-5 * np.abs(last).max())
        np.testing.assert_allclose(pooled, ours.pooler_output, rtol=0, atol=1e-5 * np.abs(pooled).max())


@pytest.mark.crosscheck
@pytest.mark.parametrize("scheme", ["int8", "uint8"])
@pytest.mark.parametrize("kind", ["v1", "v2", "deeplab"])
def test_integers_are_written_between_quantize_and_dequantize(kind, scheme, tmp_path):
    """Each tensor of bytes in ONNX Runtime is what our integers make of its own inputs, within one step of rounding."""
    photos = [np.random.default_rng(seed).integers(0, 256, (40, 40, 3), np.uint8) for seed in range(4)]
    checkpoint = make_network(kind, image_size=32).to_checkpoint()
    processor = processor_settings(DIALECTS["huggingface"], checkpoint.architecture, (32, 32))
    model = getattr(mm, checkpoint.architecture).from_checkpoint(dataclasses.replace(checkpoint, processor=processor))
    quantized = mm.quantize(model, photos, per_channel=scheme == "int8")
    for suffix in ("onnx", "tflite"):
        quantized.save(tmp_path / f"model.{suffix}")
    run_everywhere(tmp_path / "model.onnx", draw_pixels())
    network = formats.read(tmp_path / "model.tflite").quantized
    found = run_every_tensor(tmp_path / "model.onnx", draw_pixels())
    stored = {name.removesuffix(".quantized"): _channels_last(y) for name, y in found.items() if ".quantized" in name}
    for name, values in stored.items():  # maps are uint8 in the file
        if network.tensors[name].dtype == np.int8:
            stored[name] = (values.astype(np.int16) - 128).astype(np.int8)
    compared = 0
    for operation in network.operations:
        if set(operation.inputs) <= stored.keys() | {n for n, t in network.tensors.items() if t.values is not None}:
            ours = definitions.apply(operation, network.tensors, stored, "litert")
            if operation.output in stored:
                difference = ours.astype(int) - stored[operation.output].astype(int)
                assert np.abs(difference).max() <= 1, operation
                compared += 1
    assert compared > len(network.operations) // 2


@pytest.mark.crosscheck
@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="the kernels of x86-64")
@pytest.mark.parametrize("scheme", ["int8", "uint8"])
def test_onnx_runtime_computes_every_sum_in_integers_and_has_our_bytes(scheme, tmp_path):
    onnx, runtime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    pixels = np.random.default_rng(3).uniform(-1, 1, (4, 3, 32, 32)).astype(np.float32)
    model = mm.quantize(make_network("v2", image_size=32), pixels, per_channel=scheme == "int8")
    model.save(tmp_path / "model.onnx")
    options = runtime.SessionOptions()
    options.optimized_model_filepath, options.log_severity_level = str(tmp_path / "optimised.onnx"), 3
    session = runtime.InferenceSession(str(tmp_path / "model.onnx"), options, providers=["CPUExecutionProvider"])
    found = {node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node}
    moves = {"QuantizeLinear", "DequantizeLinear", "Transpose", "Flatten", "Reshape"}
    assert {op for op in found - moves if not op.startswith("QLinear") and op != "QGemm"} == set()
    read = mm.load(tmp_path / "model.onnx")
    for x in pixels[:, None]:
        np.testing.assert_array_equal(session.run(None, {"pixel_values": x})[0], read(x).logits)


def _channels_last(values):
    return np.ascontiguousarray(values.transpose(0, 2, 3, 1)) if values.ndim == 4 else values


ROUND_TRIPS = {
    "V1": ("v1", {}),
    "V1, Keras' padding, odd picture": ("v1", {"bottom_right_padding": "all", "image_size": 33}),
    "V1, Keras' padding, even picture": ("v1", {"bottom_right_padding": "depthwise"}),
    "V1, fixed pool": ("v1", {"pool_size": 2, "image_size": 64}),
    "V1, symmetric padding": ("v1", {"tf_padding": False, "layer_norm_eps": 1e-5}),
    "V2, odd picture": ("v2", {"image_size": 33}),
    "DeepLab": ("deeplab", {"image_size": 65}),
}


@pytest.mark.parametrize("name", ROUND_TRIPS)
def test_a_network_comes_back_with_every_bit_its_labels_and_its_settings(name, tmp_path):
    kind, fields = ROUND_TRIPS[name]
    model = make_network(kind, **{"image_size": 32, "id2label": {i: f"Käse {i}" for i in range(11)}, **fields})
    processor = {"do_resize": True, "image_mean": [0.5] * 3, "image_std": [0.25] * 3}
    checkpoint = dataclasses.replace(model.to_checkpoint(), processor=processor, dialect="slim")
    onnx_file.write(tmp_path / "model.onnx", checkpoint)
    found = formats.read(tmp_path / "model.onnx")
    assert found.config == model.config.replace(architectures=(checkpoint.architecture,))
    assert (found.processor, found.dialect) == (processor, "slim")
    needed = keep_needed(model.graph, model.graph.outputs).shapes
    assert set(found.weights) >= set(needed)
    for key in needed:
        assert found.weights[key].tobytes() == model.state_dict()[key].tobytes(), key
    read = type(model).from_checkpoint(found)
    pixels = draw_pixels(model.config.image_size)
    np.testing.assert_array_equal(read(pixels).logits, model(pixels).logits)


@pytest.mark.parametrize("has_own_anchors", [False, True])
def test_a_detector_comes_back_with_its_anchors(has_own_anchors, tmp_path):
    checkpoint = make_detector("V2").to_checkpoint()
    pixels = draw_pixels(96)
    count = len(getattr(mm, checkpoint.architecture).from_checkpoint(checkpoint)(pixels).pred_boxes[0])
    if has_own_anchors:
        config = checkpoint.config.replace(ssd=MobileNetSSDConfig(stored_anchors=count))
        anchors = np.random.default_rng(0).uniform(0.1, 0.9, (count, 4)).astype(np.float32)
        checkpoint = dataclasses.replace(checkpoint, config=config, weights={**checkpoint.weights, ANCHORS: anchors})
    onnx_file.write(tmp_path / "model.onnx", checkpoint)
    _, constants, _ = read_parts(tmp_path / "model.onnx")
    assert (ANCHORS in constants) == has_own_anchors
    found = formats.read(tmp_path / "model.onnx")
    assert found.config == checkpoint.config
    assert found.weights.keys() == checkpoint.weights.keys()
    for name, values in checkpoint.weights.items():
        assert found.weights[name].tobytes() == values.tobytes(), name
    boxes, expected = (getattr(mm, checkpoint.architecture).from_checkpoint(source)(pixels).pred_boxes
                       for source in (found, checkpoint))  # fmt: skip
    assert boxes.tobytes() == expected.tobytes()
    report = mm.convert(tmp_path / "model.onnx", tmp_path / "copy.onnx")
    assert (ANCHORS in report.written) == has_own_anchors
    assert (tmp_path / "copy.onnx").read_bytes() == (tmp_path / "model.onnx").read_bytes()


def test_anchors_that_are_not_there_are_missed(tmp_path):
    checkpoint = make_detector("V1").to_checkpoint()
    config = checkpoint.config.replace(ssd=MobileNetSSDConfig(stored_anchors=7))
    onnx_file.write(tmp_path / "model.onnx", dataclasses.replace(checkpoint, config=config))
    with pytest.raises(
        FormatError, match=r"detection_head.anchors: expected finite anchors \(7, 4\) of float32, found none"
    ):
        formats.read(tmp_path / "model.onnx")


def test_half_precision_comes_back_as_the_rounded_weights(tmp_path):
    model = make_network("v2", image_size=32)
    model.save(tmp_path / "model.onnx", "float16")
    for name, values in mm.load(tmp_path / "model.onnx").state_dict().items():
        np.testing.assert_array_equal(values, model.state_dict()[name].astype(np.float16).astype(np.float32))


def test_what_no_output_needs_is_accounted_for(tmp_path):
    make_network("deeplab", image_size=33).save(tmp_path / "model.h5")
    report = mm.convert(tmp_path / "model.h5", tmp_path / "model.onnx")
    _, constants, _ = read_parts(tmp_path / "model.onnx")
    assert set(report.written) == {
        name for name in constants if name.startswith(("mobilenet_v2.", "segmentation_"))
    } - {"segmentation_head.upsample.scales"}
    left_out = {name for name in report.ignored if ".conv_1x1." in name}
    assert len(left_out) == 5 and left_out == set(report.ignored)


@pytest.mark.parametrize("source", ["demo:digits", "demo:boxes"])
def test_integers_come_back_with_every_bit(source, tmp_path):
    model = mm.load(source)
    photos = [np.random.default_rng(seed).integers(0, 256, (96, 96, 3), np.uint8) for seed in range(2)]
    quantized = mm.quantize(model, photos)
    quantized.save(tmp_path / "model.onnx")
    pixels = model.processor(photos[0], return_tensors="np")["pixel_values"]
    found = mm.load(tmp_path / "model.onnx", bytes_of="litert")  # whose bytes they were: a file cannot say it
    assert found.config.replace(architectures=None) == quantized.config.replace(architectures=None)
    for ours, expected in zip(found(pixels).to_tuple(), quantized(pixels).to_tuple(), strict=True):
        assert ours.tobytes() == expected.tobytes()
    for name, values in quantized.state_dict().items():
        assert found.state_dict()[name].tobytes() == values.tobytes(), name


@pytest.mark.crosscheck
def test_other_runtimes_have_our_boxes_and_scores_of_integers(tmp_path):
    model = mm.load("demo:boxes")
    photos = [np.random.default_rng(seed).integers(0, 256, (96, 96, 3), np.uint8) for seed in range(2)]
    mm.quantize(model, photos).save(tmp_path / "model.onnx")
    pixels = model.processor(photos[1], return_tensors="np")["pixel_values"]
    network = formats.read(tmp_path / "model.onnx").quantized
    ours = QuantizedEngine(network).run(np.ascontiguousarray(pixels.transpose(0, 2, 3, 1)))
    onnx, runtime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    onnx.checker.check_model(onnx.load(tmp_path / "model.onnx"), full_check=True)
    session = runtime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    theirs = session.run(["box_encodings", "class_scores"], {"pixel_values": pixels})
    for name, values in zip(network.outputs, theirs, strict=True):
        (step,) = (network.tensors[made.inputs[0]].scale for made in network.operations if made.output == name)
        steps = np.rint(np.abs(ours[name] - values) / step)
        print(f"{np.count_nonzero(steps)} of {steps.size} differ, by {steps.max():.0f} step")
        assert steps.max() <= 2  # what its optimiser leaves in floats, as of other files in QDQ
        assert np.count_nonzero(steps) <= 0.02 * steps.size


def test_quantize_writes_an_onnx_file_of_integers(run, tmp_path):
    code, _, _ = run("quantize", "demo:digits", tmp_path / "q.onnx")
    nodes, constants, _ = read_parts(tmp_path / "q.onnx")
    assert code == 0 and list(nodes.values()).count("QuantizeLinear") > 29
    assert {values.dtype.name for values in constants.values() if values.ndim == 4} == {"int8"}
