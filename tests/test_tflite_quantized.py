"""Quantised TFLite files: a model like any other, refused where a kernel could not rely on what they say."""

from __future__ import annotations

import json

import frameworks
import numpy as np
import pytest
from flatbuffer_files import NUMBERS, TFLiteWriter
from hostile import assert_refused, flip_bytes, truncations
from PIL import Image
from quantized_files import as_bytes, random_bytes, run_litert, start, write_quantized
from spelling import random_weights, spell

import minimobile as mm
from minimobile.errors import FormatError, InputError, MinimobileError, UnknownLayerError
from minimobile.formats.tflite import tflite
from minimobile.formats.tflite.tflite_model import read_model
from minimobile.formats.tflite.tflite_quantized import name_tensors, to_network
from minimobile.networks.build_graph import build_graph
from minimobile.networks.config import MobileNetV1Config, MobileNetV2Config

V1 = "MobileNetV1ForImageClassification"
V2 = "MobileNetV2ForImageClassification"
DEEPLAB = "MobileNetV2ForSemanticSegmentation"
TINY = {"depth_multiplier": 0.1, "min_depth": 1, "num_labels": 3}
PICTURES = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)


def build(architecture, dtype="uint8", tail=("reshape", "softmax"), has_float_ends=False, is_fused=True, **fields):
    config = (MobileNetV1Config if "V1" in architecture else MobileNetV2Config)(**{**TINY, **fields})
    graph = build_graph(config, architecture)
    layers = spell(graph, random_weights(graph), folded=True, tail=tail)
    return write_quantized(layers, dtype=dtype, has_float_ends=has_float_ends, is_fused=is_fused)


def save(folder, writer):
    path = folder / "model.tflite"
    path.write_bytes(writer.write() if isinstance(writer, TFLiteWriter) else writer)
    return path


def test_a_quantised_file_is_a_model_like_any_other(tmp_path):
    model = mm.load(save(tmp_path, build(V1)))
    assert isinstance(model, mm.MobileNetV1ForImageClassification)
    stored = model.run_quantized(PICTURES)
    assert (stored.dtype, stored.shape) == (np.uint8, (2, 3))
    inputs = model.processor(list(PICTURES), do_resize=False, return_tensors="np")
    output = model(**inputs)
    np.testing.assert_array_equal(output.probabilities, stored / np.float32(256))
    assert output.logits.shape == (2, 3)
    steps = (output.logits / np.float32(0.1)).astype(np.float64)
    np.testing.assert_allclose(steps, np.rint(steps), atol=1e-4)  # they are bytes times a scale
    best = mm.classify(PICTURES[0], model=model, top=3)
    assert [found["probability"] for found in best] == sorted(output.probabilities[0].tolist(), reverse=True)


FORMS = {
    "V1": (V1, "uint8", ("reshape", "softmax"), {}),
    "V1 in int8": (V1, "int8", ("reshape", "softmax"), {}),
    "V2": (V2, "uint8", ("reshape", "softmax"), {}),
    "V2 in int8, sigmoid": (V2, "int8", ("sigmoid",), {}),
    "V2 without softmax": (V2, "uint8", (), {}),
    "DeepLab": (DEEPLAB, "uint8", ("resize_bilinear", "argmax"), {"output_stride": 8}),
    "DeepLab in int8": (DEEPLAB, "int8", ("resize_bilinear", "argmax"), {"output_stride": 16}),
}


@pytest.mark.parametrize("form", ["V1 in int8", "V2 in int8, sigmoid", "DeepLab"])
def test_both_engines_agree_on_every_layer_of_every_form(form, tmp_path):
    architecture, dtype, tail, fields = FORMS[form]
    path = save(tmp_path, build(architecture, dtype, tail, **fields))
    compiled, reference = mm.load(path), mm.load(path, engine="reference")
    assert type(compiled).__name__ == architecture
    x = PICTURES if dtype == "uint8" else (PICTURES.astype(np.int16) - 128).astype(np.int8)
    expected = reference.run_quantized(x)
    np.testing.assert_array_equal(compiled.run_quantized(x), expected)
    layers = list(tflite.read(path).endpoints)
    ours, theirs = (model.features(_pixels(model, x), layers) for model in (compiled, reference))
    for name in layers:
        np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)
    assert len(np.unique(ours["layer.3"])) > 3
    if architecture == DEEPLAB:
        output = compiled(_pixels(compiled, x))
        np.testing.assert_array_equal(output.classes, expected)
        (mask,) = compiled.processor.post_process_semantic_segmentation(compiled(_pixels(compiled, x[:1])))
        np.testing.assert_array_equal(mask, expected[0])


def _pixels(model, x):
    """Return the pixel values that the input's bytes stand for."""
    tensor = model._runner.network.tensors[model._runner.network.inputs[0]]
    return ((x.astype(np.float32) - tensor.zero) * tensor.scale).transpose(0, 3, 1, 2)


def test_float_ends_around_a_body_of_integers(tmp_path):
    plain = mm.load(save(tmp_path, build(V2, "int8")))
    model = mm.load(save(tmp_path, build(V2, "int8", has_float_ends=True)))
    x = _pixels(plain, (PICTURES.astype(np.int16) - 128).astype(np.int8))
    found = model.run_quantized(x.transpose(0, 2, 3, 1))
    assert found.dtype == np.float32
    stored = plain.run_quantized((PICTURES.astype(np.int16) - 128).astype(np.int8))
    np.testing.assert_array_equal(found, (stored + np.float32(128)) / 256)
    np.testing.assert_array_equal(model(x).probabilities, found)
    np.testing.assert_array_equal(model(x).logits, plain(x).logits)


def test_layers_are_asked_for_by_every_name_they_have(tmp_path):
    path = save(tmp_path, build(V1))
    model, endpoints = mm.load(path), tflite.read(path).endpoints
    x = _pixels(model, PICTURES)
    found = model.features(x, ["layer.5", "Conv2d_3_depthwise", endpoints["layer.5"]])
    first = found.pop("layer.5")
    assert first.shape == (2, 6, 8, 8) or first.ndim == 4
    np.testing.assert_array_equal(first, found[endpoints["layer.5"]])
    assert model.trace(x)["layer.5"].shape == first.shape
    with pytest.raises(UnknownLayerError, match="dequantize=True"):
        model.features(x, ["layer.5.convolution"])


def test_what_only_floats_can_do_is_said_so(tmp_path):
    path = save(tmp_path, build(V1))
    model, floats = mm.load(path), mm.load(path, dequantize=True)
    x = _pixels(model, PICTURES)
    for attempt in (
        lambda: model.explain(x[:1], "layer.5", (0, 0, 0)),
        lambda: model.save_pretrained(tmp_path / "out"),
        lambda: mm.load(path, engine="reference", dtype="float64"),
        lambda: mm.load(path, depth_multiplier=0.2),
        lambda: mm.load(path, tf_padding=False),
    ):
        with pytest.raises(MinimobileError, match=r"quantised|integers|weight"):
            attempt()
    with pytest.raises(InputError, match="runs in integers"):
        floats.run_quantized(PICTURES)
    with pytest.raises(InputError, match=r"32x32 pixels and 3 channels.*got 64x64"):
        model(np.zeros((1, 3, 64, 64), np.float32))
    with pytest.raises(InputError, match="NaN"):
        model(np.full((1, 3, 32, 32), np.nan, np.float32))
    for wrong in (PICTURES.astype(np.int8), PICTURES[0], PICTURES[:0], PICTURES[..., :1]):
        with pytest.raises(InputError, match=r"run_quantized: expected uint8 \(N, 32, 32, 3\)"):
            model.run_quantized(wrong)
    with pytest.raises(InputError, match="bytes_of"):
        mm.load(path, bytes_of="up")


def test_dequantised_weights_are_what_the_bytes_stand_for(tmp_path):
    for dtype in ("uint8", "int8"):
        writer = build(V2, dtype)
        path = save(tmp_path, writer)
        model, floats = mm.load(path), mm.load(path, dequantize=True)
        network = model._runner.network
        stored = network.tensors["op_0/weight"]
        expected = (stored.values - stored.zero_points.reshape(-1, 1, 1, 1)) * stored.scales.reshape(-1, 1, 1, 1)
        weight = floats.state_dict()["mobilenet_v2.conv_stem.first_conv.convolution.weight"]
        np.testing.assert_array_equal(weight, expected.astype(np.float32).transpose(0, 3, 1, 2))
        x = _pixels(model, PICTURES if dtype == "uint8" else (PICTURES.astype(np.int16) - 128).astype(np.int8))
        layer = "conv_stem.first_conv"
        ours, theirs = (each.features(x, [layer])[layer] for each in (model, floats))
        assert np.abs(ours - theirs).max() <= 0.51 * 6 / 255  # one rounding to a step


def operators_of(kind, shape, *more, out=None, dtype="uint8", **options):
    """A quantised file of one operator, which is no MobileNet: for what `to_network` says."""
    writer = start((1, 8, 8, 4), dtype, 0.02, 0)
    inputs = [0, *(add(writer) for add in more)]
    writer.add_operator(kind, inputs, shape, "odd", output=out or as_bytes(dtype), **options)
    return writer


def constant(values, **quantization):
    return lambda writer: writer.add_constant("constant", values, **quantization)


BYTES = np.ones((4, 1, 1, 4), np.uint8)
CONV = constant(BYTES, scales=0.01)
SAME = (1, 8, 8, 4)
ODD = {
    "another operator": (operators_of("DIV", SAME, CONV), r"DIV 'odd': expected one of the operators that a quantised"),
    "floats beside integer weights": (
        operators_of("CONV_2D", SAME, CONV, out={"dtype": "float32"}),
        "of float32, beside weights of uint8",
    ),
    "int16": (
        operators_of("CONV_2D", SAME, CONV, out={"dtype": "int16"}),
        "maps of uint8 or int8, found 'odd' of int16",
    ),
    "uint8 to int8": (
        operators_of("CONV_2D", SAME, CONV, out=as_bytes("int8")),
        "'odd' of uint8 or int8, as its neighbours",
    ),
    "a result of another shape": (
        operators_of("CONV_2D", (1, 8, 8, 5), CONV),
        r"a result of shape \(1, 8, 8, 4\), found \(1, 8, 8, 5\)",
    ),
    "a larger result": (operators_of("CONV_2D", (1, 9, 8, 4), CONV), r"a result of shape \(1, 8, 8, 4\)"),
    "SAME said VALID": (
        operators_of("CONV_2D", SAME, constant(np.ones((4, 3, 3, 4), np.uint8), scales=0.1), padding="VALID"),
        r"\(1, 6, 6, 4\)",
    ),
    "weight for other channels": (
        operators_of("CONV_2D", SAME, constant(np.ones((4, 1, 1, 5), np.uint8), scales=0.1)),
        "a weight for 4 channels",
    ),
    "weight without a scale": (operators_of("CONV_2D", SAME, constant(BYTES)), "one scale of 'constant'"),
    "uint8 weight per channel": (
        operators_of("CONV_2D", SAME, constant(BYTES, scales=[0.1] * 4)),
        "one scale of 'constant'",
    ),
    "int8 weight with zero point": (
        operators_of("CONV_2D", SAME, constant(BYTES.astype(np.int8), scales=0.1, zeros=3), dtype="int8"),
        "zero points of 'constant' from 0 to 0",
    ),
    "per channel along another axis": (
        operators_of("CONV_2D", SAME, constant(BYTES.astype(np.int8), scales=[0.1] * 4, axis=3), dtype="int8"),
        "one for each of axis 0",
    ),
    "computed weight": (operators_of("CONV_2D", SAME, lambda writer: 0), "a weight that is a constant|a weight for"),
    "bias of another length": (
        operators_of("CONV_2D", SAME, CONV, constant(np.ones(5, np.int32))),
        r"a bias of int32 \(4,\)",
    ),
    "bias of bytes": (operators_of("CONV_2D", SAME, CONV, constant(np.ones(4, np.uint8))), "a bias of int32"),
    "sums beyond int32": (
        operators_of("CONV_2D", SAME, CONV, constant(np.full(4, 2**31 - 1, np.int32))),
        "within int32|stay within",
    ),
    "a scale too small": (operators_of("CONV_2D", SAME, CONV, out=as_bytes("uint8", 1e-30)), "a scale of 'odd' from"),
    "a factor too large": (operators_of("CONV_2D", SAME, CONV, out=as_bytes("uint8", 1e-11)), "the ratio"),
    "strides that differ": (operators_of("CONV_2D", SAME, CONV, stride_w=2), "one stride for both axes, found 1 x 2"),
    "dilations that differ": (operators_of("CONV_2D", SAME, CONV, dilation_w=2), "one dilation for both axes"),
    "a dilation without bounds": (
        operators_of(
            "CONV_2D",
            SAME,
            constant(np.ones((4, 3, 3, 4), np.uint8), scales=0.1),
            dilation_w=2**30,
            dilation_h=2**30,
            padding="SAME",
        ),
        "values with the padding",
    ),
    "tanh": (operators_of("CONV_2D", SAME, CONV, activation="tanh"), "one of the activations linear, relu, relu6"),
    "several filters per channel": (
        operators_of(
            "DEPTHWISE_CONV_2D",
            (1, 8, 8, 8),
            constant(np.ones((1, 3, 3, 8), np.uint8), scales=0.1),
            depth_multiplier=2,
            padding="SAME",
        ),
        "one filter per channel",
    ),
    "a filter too large": (
        operators_of(
            "DEPTHWISE_CONV_2D",
            SAME,
            constant(np.ones((1, 17, 17, 4), np.uint8), scales=0.1),
            depth_multiplier=1,
            padding="SAME",
        ),
        "at most 256 taps",
    ),
    "a pool between scales": (
        operators_of("AVERAGE_POOL_2D", SAME, out=as_bytes("uint8", 0.03)),
        "the scale 0.02 and the zero point 0 for its result",
    ),
    "shuffled weights": (
        operators_of("FULLY_CONNECTED", (64, 4), constant(np.ones((4, 4), np.uint8), scales=0.1), weights_format=1),
        "shuffled",
    ),
    "rows of another length": (
        operators_of("FULLY_CONNECTED", (64, 4), constant(np.ones((4, 7), np.uint8), scales=0.1)),
        "a weight for a map of 256 values",
    ),
    "sums of unlike shapes": (
        operators_of(
            "ADD",
            SAME,
            lambda writer: writer.add_operator("RESHAPE", [0], (1, 4, 8, 8), "turned", output=as_bytes("uint8")),
        ),
        r"a second input of shape \(1, 8, 8, 4\)",
    ),
    "a sum with a constant": (operators_of("ADD", SAME, CONV), "values computed before it, found the constant"),
    "a reshape to more": (operators_of("RESHAPE", (1, 8, 8, 5)), "a shape of as many values"),
    "softmax in other steps": (operators_of("SOFTMAX", SAME, beta=1.0), "the scale 1/256 and the zero point 0"),
    "beta 0": (operators_of("SOFTMAX", SAME, out=as_bytes("uint8", 1 / 256)), "a beta above zero"),
    "logistic in other steps": (operators_of("LOGISTIC", SAME), "the scale 1/256"),
    "concatenation along no axis": (operators_of("CONCATENATION", SAME, axis=7), "an axis of 4 dimensions"),
    "int8 between scales": (
        operators_of("CONCATENATION", SAME, out=as_bytes("int8", 0.5), dtype="int8", axis=3),
        "the scale 0.5",
    ),
    "a resize of batches": (
        operators_of("RESIZE_BILINEAR", (2, 9, 9, 4), constant(np.array([9, 9], np.int32))),
        r"\(1, 9, 9, 4\), found \(2, 9, 9, 4\)",
    ),
    "both corner rules": (
        operators_of(
            "RESIZE_BILINEAR",
            (1, 9, 9, 4),
            constant(np.array([9, 9], np.int32)),
            align_corners=True,
            half_pixel_centers=True,
        ),
        "found both",
    ),
    "a resize without bounds": (
        operators_of("RESIZE_BILINEAR", (1, 20000, 20000, 4), constant(np.array([20000, 20000], np.int32))),
        "values, found",
    ),
    "pads below 0": (
        operators_of("PAD", SAME, constant(np.array([(0, 0), (-1, 1), (0, 0), (0, 0)], np.int32))),
        "4 pairs of zero or more",
    ),
    "pads of another shape": (
        operators_of("PAD", SAME, constant(np.array([(0, 0)], np.int32))),
        "a pair .* for every axis",
    ),
    "a mean over no axis": (operators_of("MEAN", (1, 8, 8), constant(np.array([9], np.int32))), "axes of 4 dimensions"),
    "a mean over one twice": (operators_of("MEAN", (1, 8, 8), constant(np.array([3, -1], np.int32))), "each once"),
    "the largest in bytes": (
        operators_of("ARG_MAX", (1, 8, 8), constant(np.array([3], np.int32))),
        "a result of int32 or int64",
    ),
    "the largest along two": (
        operators_of("ARG_MAX", (1, 8, 8), constant(np.array([3, 2], np.int32)), out={"dtype": "int64"}),
        "one axis, found 2",
    ),
    "quantised to int64": (operators_of("QUANTIZE", SAME, out={"dtype": "int64"}), "'odd' of uint8 or int8"),
    "a requantisation without bounds": (operators_of("QUANTIZE", SAME, out=as_bytes("uint8", 1e-11)), "the ratio"),
}


@pytest.mark.parametrize("case", ODD)
def test_what_a_kernel_could_not_rely_on_is_refused(case, tmp_path):
    writer, message = ODD[case]

    def read(path):
        to_network(name_tensors(read_model(path)), str(path))

    assert_refused(read, save(tmp_path, writer), message)


def test_a_hybrid_file_can_be_dequantised_only(tmp_path):
    writer = build(V1)
    for tensor in writer.tensors:
        if "/" not in tensor[3]:
            tensor[1] = ("int8", 0)
            tensor.pop(4, None)
    path = save(tmp_path, writer)
    with pytest.raises(FormatError, match="of float32, beside weights of uint8"):
        mm.load(path)
    assert mm.load(path, dequantize=True)(np.zeros((1, 3, 32, 32), np.float32)).logits.shape == (1, 3)


def test_truncations_and_flips_are_refused_or_run(tmp_path):
    content = build(V1).write()
    path = save(tmp_path, content)
    for part in truncations(content, 97 * 32):
        path.write_bytes(part)
        with pytest.raises(FormatError, match=r"model\.tflite"):
            tflite.read(path)
    path.write_bytes(content)
    assert _count_runs(path, 15) > 5


def _count_runs(path, count):
    """Read a file with one bit turned, `count` times, and run what is read: its bytes or one error."""
    runs = 0
    for _ in flip_bytes(path, count):
        try:
            model = mm.load(path, num_threads=1)
        except MinimobileError as error:
            assert "\n" not in str(error)
            continue
        network = model._runner.network
        source = network.tensors[network.inputs[0]]
        x = random_bytes(3, source.shape, str(source.dtype))
        out = model.run_quantized(x)
        if runs % 5 == 0:
            np.testing.assert_array_equal(out, mm.load(path, engine="reference").run_quantized(x))
        runs += 1
    return runs


@pytest.mark.slow
@pytest.mark.parametrize("form", ["V1", "DeepLab in int8"])
def test_two_thousand_flips_and_every_truncation(form, tmp_path):
    architecture, dtype, tail, fields = FORMS[form]
    content = build(architecture, dtype, tail, **fields).write()
    path = save(tmp_path, content)
    for part in truncations(content):
        path.write_bytes(part)
        with pytest.raises(FormatError, match=r"model\.tflite"):
            tflite.read(path)
    path.write_bytes(content)
    assert _count_runs(path, 2000) > 500


@pytest.mark.crosscheck
@pytest.mark.parametrize("form", FORMS)
def test_every_tensor_is_litert_s(form, tmp_path):
    architecture, dtype, tail, fields = FORMS[form]
    content = build(architecture, dtype, tail, **fields).write()
    path = save(tmp_path, content)
    for bytes_of, resolver in (("litert", "BUILTIN_REF"), ("xnnpack", "AUTO")):  # AUTO: XNNPACK
        engine = mm.load(path, bytes_of=bytes_of)._runner._engine
        x = random_bytes(5, (1, 32, 32, 3), dtype)
        expected = run_litert(content, x, resolver)
        operations = engine.network.operations
        if bytes_of == "xnnpack" and architecture == DEEPLAB:
            operations = operations[:-2]  # XNNPACK's resizing of a few pixels rounds otherwise
        names = [operation.output for operation in operations]
        found = engine.run(x, names)
        for name in names:
            np.testing.assert_array_equal(found[name], expected[name], err_msg=f"{bytes_of} {name}")


def test_the_command_line_takes_a_quantised_file(run, tmp_path):
    path = save(tmp_path, build(V1))
    picture = tmp_path / "picture.png"
    Image.fromarray(PICTURES[0]).save(picture)
    outcome = run("classify", picture, "--model", path, "--top", 1, "--format", "json")
    assert outcome.code == 0
    (found,) = json.loads(outcome.out)[0]["predictions"]
    assert found == mm.classify(picture, model=path, top=1)[0]
    assert (found["probability"] * 256).is_integer()
    arrays = tmp_path / "out.npz"
    assert run("features", picture, "--model", path, "--layer", "layer.3", "--out", arrays).code == 0
    assert run("inspect", path).code == 0
    folder = tmp_path / "floats"
    assert run("convert", path, folder).code == 0
    floats = mm.load(folder).state_dict()
    for name, values in mm.load(path, dequantize=True).state_dict().items():
        np.testing.assert_array_equal(floats[name], values)


def test_a_shape_that_is_computed_is_not_needed(tmp_path):
    writer = build(V1, tail=("reshape", "softmax"))
    (reshape,) = (each for each in writer.operators if writer.codes[each[0][1]][3][1] == NUMBERS["RESHAPE"])
    number = writer.add_operator("SHAPE", [writer.inputs[0]], (4,), output={"dtype": "int32"})
    writer.operators.insert(0, writer.operators.pop())
    reshape[1][1] = number
    expected = mm.load(save(tmp_path, build(V1))).run_quantized(PICTURES)
    np.testing.assert_array_equal(mm.load(save(tmp_path, writer)).run_quantized(PICTURES), expected)


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
def test_a_bias_whose_scale_is_not_that_of_the_sums_is_refused(tmp_path, dtype):
    """LiteRT allows a fiftieth of a step of the result."""
    for share, is_refused in ((0.01, False), (0.03, True)):
        writer = build(V1, dtype)
        scales = writer.tensors[writer.operators[0][1][2]][4][2]
        scales += np.float32(share * 6 / 255)
        path = save(tmp_path, writer)
        if is_refused:
            assert_refused(tflite.read, path, r"for the bias, found .*; the file is damaged, copy it again")
        else:
            assert tflite.read(path).quantized is not None


@pytest.mark.crosscheck
def test_one_bit_of_a_scale_is_refused_where_litert_refuses_it(tmp_path):
    litert = frameworks.litert()
    rng = np.random.default_rng(0)
    writer = build(V1)
    both = 0
    for _ in range(40):
        operator = writer.operators[rng.integers(6)]
        number = (*operator[1], operator[2][0])[rng.integers(4)]
        scales = writer.tensors[number][4][2]
        before, bit = scales.copy(), np.uint32(1 << int(rng.integers(23, 31)))
        scales[:] = (scales.view(np.uint32) ^ bit).view(np.float32)
        reasons = []
        for check in (
            lambda: tflite.read(save(tmp_path, writer)),
            lambda: litert.Interpreter(
                model_content=writer.write(), experimental_op_resolver_type=litert.OpResolverType.BUILTIN_REF
            ).allocate_tensors(),
        ):
            try:
                check()
                reasons.append("")
            except (FormatError, RuntimeError) as error:
                reasons.append(str(error))
        scales[:] = before
        ours, theirs = reasons
        if "scale_diff / output_scale" in theirs:
            assert ours
            both += "for the bias, found" in ours
        if "for the bias, found" in ours:
            assert theirs
    assert both > 3


@pytest.mark.parametrize("shape", [(64,), (), (1, 8)], ids=str)
def test_a_bias_of_another_shape_is_refused(tmp_path, shape):
    writer = build(V1)
    bias = writer.operators[0][1][2]
    writer.tensors[bias][0] = np.array(shape, np.int32)
    writer.buffers[writer.tensors[bias][2][1]] = {0: np.zeros(4 * int(np.prod(shape)), np.uint8)}
    assert_refused(tflite.read, save(tmp_path, writer), r"expected shape \(\d+,\), as its weight .*, found \(")


@pytest.mark.parametrize(("architecture", "dtype"), [(V1, "uint8"), (V1, "int8"), (V2, "uint8")])
def test_files_whose_bytes_do_the_clamping_are_what_they_are_with_activations(tmp_path, architecture, dtype):
    """Older converters leave relu6 out where the bytes end at 0 and 6 anyway."""
    fused = tflite.read(save(tmp_path, build(architecture, dtype)))
    plain = tflite.read(save(tmp_path, build(architecture, dtype, is_fused=False)))
    assert plain.architecture == fused.architecture == architecture
    assert plain.config == fused.config
    assert plain.quantized is not None
    for name, values in fused.weights.items():
        np.testing.assert_array_equal(plain.weights[name], values, err_msg=name)
    model = mm.load(tmp_path / "model.tflite")
    x = PICTURES if dtype == "uint8" else (PICTURES.astype(np.int16) - 128).astype(np.int8)
    np.testing.assert_array_equal(
        model.run_quantized(x), mm.load(tmp_path / "model.tflite", engine="reference").run_quantized(x)
    )


@pytest.mark.crosscheck
@pytest.mark.parametrize(("architecture", "dtype"), [(V1, "uint8"), (V1, "int8"), (V2, "uint8")])
def test_they_run_byte_for_byte_as_litert_runs_them(tmp_path, architecture, dtype):
    writer = build(architecture, dtype, is_fused=False)
    path = save(tmp_path, writer)
    x = PICTURES[:1] if dtype == "uint8" else (PICTURES[:1].astype(np.int16) - 128).astype(np.int8)
    theirs = run_litert(writer.write(), x)
    model = mm.load(path)
    names = tflite.read(path).endpoints
    features = model.features(_pixels(model, x), list(names))
    network = model._runner.network
    for layer, name in names.items():
        tensor = network.tensors[name]
        stored = np.rint(features[layer] / tensor.scale + tensor.zero).astype(tensor.dtype)
        np.testing.assert_array_equal(stored.reshape(theirs[name].shape) if stored.ndim < 4 else
                                      stored.transpose(0, 2, 3, 1), theirs[name], err_msg=layer)  # fmt: skip
    np.testing.assert_array_equal(model.run_quantized(x), theirs[network.outputs[0]])


def test_a_range_that_ends_elsewhere_is_no_clamp(tmp_path):
    writer = build(V1, is_fused=False)
    writer.tensors[writer.operators[0][2][0]][4][2][:] = np.float32(5 / 255)
    assert_refused(
        tflite.read, save(tmp_path, writer), "expected relu6 or relu after it, found none|expected the scale"
    )
