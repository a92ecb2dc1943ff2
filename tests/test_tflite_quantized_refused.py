"""Quantised TFLite files that a kernel could not rely on, and damaged ones: refused, or run as they say."""

from __future__ import annotations

import frameworks
import numpy as np
import pytest
from hostile import assert_refused, flip_bytes, truncations
from quantized_files import as_bytes, random_bytes, start
from quantized_models import FORMS, V1, build, save

import minimobile as mm
from minimobile.errors import FormatError, MinimobileError
from minimobile.formats.tflite import tflite
from minimobile.formats.tflite.tflite_model import read_model
from minimobile.formats.tflite.tflite_quantized import name_tensors, to_network


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


def test_a_range_that_ends_elsewhere_is_no_clamp(tmp_path):
    writer = build(V1, is_fused=False)
    writer.tensors[writer.operators[0][2][0]][4][2][:] = np.float32(5 / 255)
    assert_refused(
        tflite.read, save(tmp_path, writer), "expected relu6, relu or a curve after it, found none|expected the scale"
    )
