"""The kernels of bytes that have weights, against their definitions: shapes, scales, zero points, threads."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from quantized_twins import assert_same, one_operation, random_bytes, tensor

from minimobile.execution.runner import RunOptions
from minimobile.quantized.engine import QuantizedEngine
from minimobile.quantized.network import Network, Operation
from minimobile.quantized.padding import absorb_padding
from minimobile_kernels.host import LANES
from minimobile_kernels.quantized import conv2d, depthwise
from minimobile_kernels.quantized.constants import SUM_BYTES
from minimobile_kernels.quantized.estimates import estimates
from minimobile_kernels.quantized.reference import scaling
from minimobile_kernels.quantized.step import BYTES_OF

POINTWISE = {"stride": 1, "dilation": 1, "padding": "VALID"}


@st.composite
def convolutions(draw, op):
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    dtype = draw(st.sampled_from(["uint8", "int8"]))
    n, height, width = draw(st.integers(1, 2)), draw(st.integers(1, 17)), draw(st.integers(1, 33))
    c_in, c_out = draw(st.integers(1, 70)), draw(st.integers(1, 70))
    kernel, stride, dilation = draw(st.sampled_from([1, 3, 3, 5])), draw(st.integers(1, 3)), draw(st.integers(1, 2))
    padding = draw(st.sampled_from(["SAME", "SAME", "VALID", ((0, 1), (0, 1)), ((1, 1), (2, 0))]))
    if op == "pointwise":
        kernel, stride, dilation, padding = 1, 1, 1, draw(st.sampled_from(["SAME", "VALID"]))
    if padding == "VALID":
        height, width = (max(size, (kernel - 1) * dilation + 1) for size in (height, width))
    if isinstance(padding, tuple):
        height, width = (max(size, (kernel - 1) * dilation) for size in (height, width))
        height, width = max(height, 1), max(width, 1)
    c_out = c_in if op == "depthwise_conv2d" else c_out
    shape = (1, kernel, kernel, c_out) if op == "depthwise_conv2d" else (c_out, kernel, kernel, c_in)
    zero = draw(st.integers(0, 255)) if dtype == "uint8" else draw(st.integers(-128, 127))
    is_per_channel = dtype == "int8" and draw(st.booleans())
    scale = np.exp(rng.uniform(-8, -2, c_out if is_per_channel else 1)).astype(np.float32)
    weight_zero = int(rng.integers(0, 256)) if dtype == "uint8" else 0
    weight = random_bytes(rng, shape, dtype)
    bias = rng.integers(-(2**18), 2**18, c_out).astype(np.int32)
    x = tensor("x", (n, height, width, c_in), dtype, np.float32(rng.uniform(0.001, 0.1)), zero)
    attributes = {"stride": stride, "dilation": dilation, "padding": padding,
                  "activation": draw(st.sampled_from(["linear", "relu", "relu6", "relu_n1_to_1"]))}  # fmt: skip
    from minimobile_kernels.geometry import window

    slide = window(height, width, (kernel, kernel), stride, dilation, padding)
    out_scale = np.float32(np.exp(rng.uniform(-6, 0)))
    out = tensor("out", (n, slide.out_height, slide.out_width, c_out), dtype, out_scale, zero)
    axis = 3 if op == "depthwise_conv2d" else 0
    tensors = [
        x,
        tensor("w", shape, dtype, scale, weight_zero, weight, axis),
        tensor("b", (c_out,), "int32", 1, 0, bias),
        out,
    ]
    network = one_operation("conv2d" if op == "pointwise" else op, tensors, attributes)
    bytes_of = draw(st.sampled_from(["litert", *BYTES_OF]))
    return network, random_bytes(rng, x.shape, dtype), bytes_of, draw(st.sampled_from([1, 1, 3]))


@pytest.mark.parametrize("op", ["conv2d", "depthwise_conv2d", "pointwise"])
@settings(max_examples=150)
@given(data=st.data())
def test_convolutions(op, data):
    assert_same(*data.draw(convolutions(op)))


@pytest.mark.parametrize("factor", [2**-2, 2**-7, 0.0123, 0.00071, 2**-14 * 1.7, 2**-20])
@pytest.mark.parametrize("bytes_of", ["litert", "litert-single-rounding"])
@pytest.mark.parametrize("activation", ["linear", "relu"])
def test_every_sum_comes_to_its_byte(factor, bytes_of, activation):
    # Sums of all whole numbers near 0, and near where the bytes end: among them every tie, and what is next to one.
    zero = -11 if activation == "linear" else -128
    ends = [(byte - zero) / factor for byte in (-128, 127)]
    bias = np.concatenate([256 * np.arange(-16, 16), *(256 * np.arange(-2, 2) + int(end) for end in ends)])
    values = np.ones((len(bias), 1, 1, 1), np.int8)
    tensors = [
        tensor("x", (1, 16, 16, 1), "int8", 1.0, -128),
        tensor("w", values.shape, "int8", 1.0, 0, values),
        tensor("b", bias.shape, "int32", 1, 0, bias.astype(np.int32)),
        tensor("out", (1, 16, 16, len(bias)), "int8", np.float32(1 / factor), zero),
    ]
    attributes = {"stride": 1, "dilation": 1, "padding": "SAME", "activation": activation}
    network = one_operation("conv2d", tensors, attributes)
    assert_same(network, np.arange(-128, 128).astype(np.int8).reshape(1, 16, 16, 1), bytes_of)


@pytest.mark.parametrize("bytes_of", ["litert", "litert-single-rounding"])
def test_sums_as_large_as_int32_holds(bytes_of):
    # At these scales half a step is as large as such sums, so that both together are beyond int32.
    bias = np.array([2**31 - 2000, 2**30 + 77, 77, -77, -(2**30) - 77, -(2**31) + 2000], np.int32)
    for out_scale in (2.0**8, 2.0**10, 2.0**11 * 1.0001):
        tensors = [
            tensor("x", (1, 1, 1, 4), "int8", 2.0**-10, 0),
            tensor("w", (6, 1, 1, 4), "int8", 2.0**-10, 0, np.ones((6, 1, 1, 4), np.int8)),
            tensor("b", bias.shape, "int32", 1, 0, bias),
            tensor("out", (1, 1, 1, 6), "int8", out_scale, 3),
        ]
        network = one_operation("conv2d", tensors, {**POINTWISE, "activation": "linear"})
        assert_same(network, np.ones((1, 1, 1, 4), np.int8), bytes_of)


def test_the_sums_of_every_tile_have_room():
    assert max(conv2d.CONV2D_SUM_BYTES, depthwise.DEPTHWISE_SUM_BYTES) <= SUM_BYTES


def test_what_is_estimated_and_what_is_not():
    by = scaling(np.array([0.7, 0.01, 2.0**-15, 2.0**-16, 0.01]))
    largest = np.array([1e3, 1e6, 1e6, 1e6, 1e7])  # the last is of a hundred thousand steps
    has_estimate = [False, True, True, False, False]
    np.testing.assert_array_equal(estimates(by, 3, largest, "litert").any(0), has_estimate)
    assert not estimates(by, 3, largest, "xnnpack").any()


def test_a_linear_layer_rounds_once_where_a_convolution_rounds_twice():
    """-86.4996 steps: counted in 512ths first, as LiteRT's convolutions do, that is a tie."""
    x = np.array([127, 127, 127, 127, 126, 120], np.int8)
    weight = np.array([-127, -127, -127, -127, -126, -1], np.int8)
    assert x.astype(int) @ weight == -80512
    scale = np.float32(80512 / 86.4996065)
    found = []
    for op, shape in (("fully_connected", (1, 6)), ("conv2d", (1, 1, 1, 6))):
        tensors = [
            tensor("x", shape, "int8"), tensor("w", shape, "int8", values=weight.reshape(shape)),
            tensor("out", (*shape[:-1], 1), "int8", scale),
        ]  # fmt: skip
        network = one_operation(op, tensors, {"stride": 1, "dilation": 1, "padding": "SAME", "activation": "linear"})
        for engine in ("reference", "compiled"):
            found.append(int(QuantizedEngine(network, RunOptions(engine=engine)).run(x.reshape(shape))["out"].item()))
    assert found == [-86, -86, -87, -87]


@settings(max_examples=60)
@given(seed=st.integers(0, 2**32 - 1), channels=st.integers(1, 200), outputs=st.integers(1, 200), n=st.integers(1, 3))
def test_fully_connected(seed, channels, outputs, n):
    rng = np.random.default_rng(seed)
    dtype = ["uint8", "int8"][seed % 2]
    zero = 0 if dtype == "int8" else 117
    tensors = [
        tensor("x", (n, channels), dtype, 0.02, 3),
        tensor("w", (outputs, channels), dtype, 0.01, zero, random_bytes(rng, (outputs, channels), dtype)),
        tensor("b", (outputs,), "int32", 1, 0, rng.integers(-9999, 9999, outputs).astype(np.int32)),
        tensor("out", (n, outputs), dtype, 0.05, 7),
    ]
    network = one_operation("fully_connected", tensors, {"activation": "linear"})
    assert_same(network, random_bytes(rng, (n, channels), dtype), threads=1 + seed % 2)


@pytest.mark.parametrize("op", ["conv2d", "depthwise_conv2d"])
@pytest.mark.parametrize(("sides", "is_absorbed"), [(((0, 1), (0, 1)), True), (((1, 1), (1, 1)), True),
                                                    (((0, 2), (3, 0)), False)])  # fmt: skip
@pytest.mark.parametrize("outputs", [("y",), ("padded", "y")])
def test_padding_of_its_own_is_done_by_the_convolution(op, sides, is_absorbed, outputs):
    rng = np.random.default_rng(4)
    height, width = (9 + sum(pair) for pair in sides)
    shape = (1, 3, 3, 20) if op == "depthwise_conv2d" else (20, 3, 3, 20)
    tensors = (
        tensor("x", (1, 9, 9, 20), "int8", 0.02, 7),
        tensor("padded", (1, height, width, 20), "int8", 0.02, 7),
        tensor("w", shape, "int8", 0.01, 0, rng.integers(-127, 128, shape).astype(np.int8)),
        tensor("y", (1, (height - 3) // 2 + 1, (width - 3) // 2 + 1, 20), "int8", 0.3, 5),
    )
    attributes = {"stride": 2, "dilation": 1, "padding": "VALID", "activation": "relu"}
    operations = (
        Operation("pad", ("x",), "padded", {"padding": ((0, 0), *sides, (0, 0))}),
        Operation(op, ("padded", "w"), "y", attributes),
    )
    network = Network({t.name: t for t in tensors}, operations, ("x",), outputs)
    found = [operation.op for operation in absorb_padding(operations, outputs, network.tensors)]
    assert found == ([op] if len(outputs) == 1 and (is_absorbed or op == "conv2d") else ["pad", op])
    x = rng.integers(-128, 128, (1, 9, 9, 20)).astype(np.int8)
    defined, found = (
        QuantizedEngine(network, RunOptions(engine=engine)).run(x) for engine in ("reference", "compiled")
    )
    for name in outputs:
        np.testing.assert_array_equal(found[name], defined[name])


def test_padding_at_a_scale_that_is_only_nearly_the_same_stays():
    # A converter's float32 may differ in the last bit: the convolution has the scale of what it reads.
    nearly = np.nextafter(np.float32(1), np.float32(0))
    tensors = (
        tensor("x", (1, 4, 4, 1), "uint8", 1.0), tensor("padded", (1, 5, 5, 1), "uint8", nearly),
        tensor("w", (1, 3, 3, 1), "uint8", 1.0, 0, np.ones((1, 3, 3, 1), np.uint8)), tensor("y", (1, 2, 2, 1), scale=2),
    )  # fmt: skip
    operations = (
        Operation("pad", ("x",), "padded", {"padding": ((0, 0), (0, 1), (0, 1), (0, 0))}),
        Operation("conv2d", ("padded", "w"), "y", {**POINTWISE, "stride": 2, "activation": "linear"}),
    )
    network = Network({t.name: t for t in tensors}, operations, ("x",), ("y",))
    assert_same(network, np.arange(16).astype(np.uint8).reshape(1, 4, 4, 1), "xnnpack")


@pytest.mark.parametrize("outputs", [("y",), ("y", "signed"), ("signed",)])
@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("same", [True, False])
def test_an_image_of_another_type(outputs, kernel, same):
    # As converters write it for uint8 in and out: with the scale kept, a change of name and no more.
    rng = np.random.default_rng(4)
    weight = rng.integers(-127, 128, (20, kernel, kernel, 3)).astype(np.int8)
    tensors = (
        tensor("x", (1, 9, 9, 3), "uint8", 0.02, 127),
        tensor("signed", (1, 9, 9, 3), "int8", 0.02 if same else 0.03, -1),
        tensor("w", weight.shape, "int8", 0.01, 0, weight),
        tensor("y", (1, 9, 9, 20), "int8", 0.3, 5),
    )
    attributes = {"stride": 1, "dilation": 1, "padding": "SAME", "activation": "relu"}
    operations = (Operation("quantize", ("x",), "signed"), Operation("conv2d", ("signed", "w"), "y", attributes))
    network = Network({t.name: t for t in tensors}, operations, ("x",), outputs)
    x = rng.integers(0, 256, (1, 9, 9, 3)).astype(np.uint8)
    defined, found = (
        QuantizedEngine(network, RunOptions(engine=engine)).run(x) for engine in ("reference", "compiled")
    )
    for name in outputs:
        np.testing.assert_array_equal(found[name], defined[name])


def test_groups_with_weights_too_large_for_a_byte_are_visited_again():
    from minimobile.quantized.packing import pack_panels

    weights = np.zeros((LANES, 8), np.int64)
    weights[2, 5] = 255
    (panel,) = pack_panels(weights)
    assert panel.groups.tolist() == [0, 1, 1, 1]
    assert panel.weights[:, 2, 1].tolist() == [0, 127, 127, 1]
    weights[2, 5] = -128
    (panel,) = pack_panels(weights)
    assert panel.groups.tolist() == [0, 1]
