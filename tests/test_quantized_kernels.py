"""The compiled kernels of bytes against their definitions, by equality: shapes, scales, zero points, threads."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minimobile.execution import recent
from minimobile.execution.runner import RunOptions
from minimobile.quantized import builder
from minimobile.quantized.engine import QuantizedEngine
from minimobile.quantized.network import Network, Operation, Tensor
from minimobile.quantized.padding import absorb_padding
from minimobile.quantized.program import compile_program, is_compiled
from minimobile_kernels.host import LANES
from minimobile_kernels.quantized import conv2d, depthwise, integers
from minimobile_kernels.quantized.constants import PLACE_BITS, SUM_BYTES
from minimobile_kernels.quantized.estimates import addition_estimates, estimates
from minimobile_kernels.quantized.reference import BY_FLOATS, ONNX_RUNTIME, scaling
from minimobile_kernels.quantized.step import BYTES_OF

NONE = np.zeros(0)
POINTWISE = {"stride": 1, "dilation": 1, "padding": "VALID"}


def tensor(name, shape, dtype="uint8", scale=1.0, zero=0, values=None, axis=0):
    scales, zeros = np.atleast_1d(np.float32(scale)), np.atleast_1d(np.int64(zero))
    if len(scales) > 1:
        zeros = np.zeros(len(scales), np.int64)
    return Tensor(name, tuple(shape), np.dtype(dtype), scales, zeros, axis, values)


def one_operation(op, tensors, attributes):
    """Return the network of one operation; the first tensors are read, the last is written."""
    names = tuple(t.name for t in tensors)
    images = tuple(dict.fromkeys(t.name for t in tensors[:-1] if t.values is None))
    operation = Operation(op, names[:-1], names[-1], attributes)
    return Network({t.name: t for t in tensors}, (operation,), images, (names[-1],))


def random_bytes(rng, shape, dtype):
    limits = np.iinfo(dtype)
    kind = rng.integers(4)
    if kind == 0:
        return np.full(shape, rng.choice([limits.min, limits.max]), dtype)
    return rng.integers(limits.min, limits.max + 1, shape).astype(dtype)


def assert_same(network, inputs, bytes_of="litert", threads=1):
    defined = QuantizedEngine(network, RunOptions(engine="reference", bytes_of=bytes_of))
    compiled = QuantizedEngine(network, RunOptions(bytes_of=bytes_of, num_threads=threads))
    name = network.outputs[0]
    with pytest.MonkeyPatch.context() as patch:  # cut even the smallest step into parts
        patch.setattr(builder, "LEAST_PART", 1)
        expected, found = defined.run(inputs)[name], compiled.run(inputs)[name]
    assert found.dtype == expected.dtype and found.shape == expected.shape
    differs = np.argwhere(found != expected)
    assert not len(differs), f"{len(differs)} of {found.size} differ, first at {differs[0]}: {network.operations[0]}"


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


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1), shape=st.tuples(*[st.integers(1, 9)] * 2), channels=st.integers(1, 40),
    kernel=st.tuples(*[st.integers(1, 9)] * 2), stride=st.integers(1, 2),
)  # fmt: skip
def test_average_pooling(seed, shape, channels, kernel, stride):
    rng = np.random.default_rng(seed)
    dtype = ["uint8", "int8"][seed % 2]
    kernel = tuple(min(k, size) for k, size in zip(kernel, shape, strict=True))
    sizes = [(size - k) // stride + 1 for size, k in zip(shape, kernel, strict=True)]
    tensors = [tensor("x", (2, *shape, channels), dtype, 0.1, 5), tensor("out", (2, *sizes, channels), dtype, 0.1, 5)]
    attributes = {"kernel_size": kernel, "stride": stride, "padding": "VALID", "activation": "relu6"}
    network = one_operation("average_pool2d", tensors, attributes)
    assert_same(network, random_bytes(rng, tensors[0].shape, dtype), threads=1 + seed % 3)


@settings(max_examples=60)
@given(seed=st.integers(0, 2**32 - 1), scales=st.tuples(*[st.floats(1e-3, 2.0)] * 3), channels=st.integers(1, 40))
def test_sums(seed, scales, channels):
    rng = np.random.default_rng(seed)
    dtype = ["uint8", "int8"][seed % 2]
    low = np.iinfo(dtype).min
    zeros = rng.integers(low, low + 256, 3)
    x, y, out = (
        tensor(name, (2, 3, 5, channels), dtype, scale, zero)
        for name, scale, zero in zip("xyz", scales, zeros, strict=True)
    )
    # y: the bytes of x, read at another scale
    pooling = {"kernel_size": (1, 1), "stride": 1, "padding": "VALID", "activation": "linear"}
    operations = (
        Operation("average_pool2d", ("x",), "y", pooling),
        Operation("add", ("x", "y"), "z", {"activation": "relu"}),
    )
    network = Network({t.name: t for t in (x, y, out)}, operations, ("x",), ("z",))
    bytes_of = BYTES_OF[seed % len(BYTES_OF)]
    assert_same(network, random_bytes(rng, x.shape, dtype), bytes_of, threads=1 + seed % 2)


@pytest.mark.parametrize("bytes_of", BYTES_OF)
@pytest.mark.parametrize("out_scale", [2.0**-18, 2.0**-9, 2.0**9, 2.0**10, 2.0**11, 2.0**18])
def test_sums_at_a_scale_far_from_theirs(out_scale, bytes_of):
    x = tensor("x", (1, 16, 16, 1), "uint8", 1.0, 128)
    network = one_operation("add", [x, x, tensor("out", x.shape, "uint8", out_scale, 10)], {"activation": "linear"})
    assert_same(network, np.arange(256).astype(np.uint8).reshape(x.shape), bytes_of)


@pytest.mark.parametrize("bytes_of", BYTES_OF)
@pytest.mark.parametrize(
    ("scales", "has_estimate"),
    [((0.1, 0.1, 0.1), True), ((0.05, 0.06, 0.07), True), ((1 / 3, 0.2, 0.9), True), ((0.04, 0.5, 0.1), False)],
)
def test_every_pair_of_bytes_comes_to_its_sum(scales, has_estimate, bytes_of):
    # The rows of x are the first byte and the columns before the even ones the second: pooling picks both maps from it.
    names, shapes = ("x", "wide", "first", "second", "sum"), [(511, 513), (511, 514), *[(256, 257)] * 3]
    zeros, sides = (-7, -7, -7, 30, 5), ((0, 0), (0, 0), (1, 0), (0, 0))
    every = np.float32([scales[0], scales[1], scales[0], scales[1], scales[2]])
    tensors = [
        tensor(name, (1, *shape, 1), "int8", scale, zero)
        for name, shape, scale, zero in zip(names, shapes, every, zeros, strict=True)
    ]
    pooling = {"kernel_size": (1, 1), "stride": 2, "padding": "VALID", "activation": "linear"}
    operations = (
        Operation("average_pool2d", ("x",), "first", pooling),
        Operation("pad", ("x",), "wide", {"padding": sides}),
        Operation("average_pool2d", ("wide",), "second", pooling),
        Operation("add", ("first", "second"), "sum", {"activation": "linear"}),
    )
    network = Network({t.name: t for t in tensors}, operations, ("x",), ("sum",))
    x = np.zeros((1, 511, 513, 1), np.int8)
    x[0, ::2, ::2, 0] = np.arange(-128, 128)[:, None]
    x[0, ::2, 1::2, 0] = np.arange(-128, 128)
    assert_same(network, x, bytes_of)
    has_estimate &= bytes_of not in BY_FLOATS
    assert addition_estimates(scales, (121, 158, 133), bytes_of).any() == has_estimate


ACTIVATION = {"softmax": {"beta": 0.7}, "logistic": {}, "quantize": {}}
MAP_OPERATIONS = [*ACTIVATION, "mean", "pad", "concatenate", "resize_bilinear", "argmax"]


@st.composite
def map_operations(draw, op):
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    dtype = draw(st.sampled_from(["uint8", "int8"]))
    low = np.iinfo(dtype).min
    zeros = rng.integers(low, low + 256, 3)
    scales = np.exp(rng.uniform(-5, 1, 3)).astype(np.float32)
    n, height, width, channels = draw(st.tuples(*[st.integers(1, most) for most in (2, 9, 19, 40)]))
    shape, out_dtype, attributes = (n, height, width, channels), dtype, ACTIVATION.get(op, {})
    x = tensor("x", shape, dtype, scales[0], zeros[0])
    tensors = [x]
    if op == "quantize":
        out_dtype = draw(st.sampled_from(["uint8", "int8"]))
        zeros[2] = rng.integers(np.iinfo(out_dtype).min, np.iinfo(out_dtype).max + 1)
    if op == "mean":
        shape, attributes = (n, 1, 1, channels), {"axes": draw(st.sampled_from([(1, 2), (2, 1)])), "keep_dims": True}
    if op == "pad":
        rows, columns = draw(st.tuples(*[st.tuples(st.integers(0, 3), st.integers(0, 20))] * 2))
        attributes = {"padding": ((0, 0), rows, columns, (0, 0))}
        shape, zeros[2], scales[2] = (n, height + sum(rows), width + sum(columns), channels), zeros[0], scales[0]
    if op == "concatenate":
        channels = draw(st.integers(1, 3)) * LANES
        x = tensor("x", (*shape[:3], channels), dtype, scales[0], zeros[0])
        same = draw(st.booleans())
        tensors, attributes, shape = [x, x], {"axis": 3}, (*shape[:3], 2 * channels)
        if same:
            zeros[2], scales[2] = zeros[0], scales[0]
    if op == "resize_bilinear":
        choices = draw(st.sampled_from([(True, False), (False, True), (False, False)]))
        attributes = dict(zip(("align_corners", "half_pixel_centers"), choices, strict=True))
        shape = (n, *draw(st.tuples(st.integers(1, 30), st.integers(1, 50))), channels)
    if op == "argmax":
        out_dtype, attributes, shape = draw(st.sampled_from(["int32", "int64"])), {"axis": 3}, shape[:3]
    tensors = [*tensors, tensor("out", shape, out_dtype, scales[2], zeros[2])]
    bytes_of = draw(st.sampled_from(BYTES_OF))
    return one_operation(op, tensors, attributes), random_bytes(rng, x.shape, dtype), bytes_of, draw(st.integers(1, 3))


@pytest.mark.parametrize("op", MAP_OPERATIONS)
@settings(max_examples=40)
@given(data=st.data())
def test_operations_without_weights(op, data):
    network, *rest = data.draw(map_operations(op))
    assert is_compiled(network.operations[0], network)
    assert_same(network, *rest)


def test_a_map_lives_as_long_as_its_last_name():
    rng = np.random.default_rng(4)
    pooling = {"kernel_size": (4, 4), "stride": 1, "padding": "VALID", "activation": "linear"}
    operations = (
        Operation("average_pool2d", ("x",), "pooled", pooling),
        Operation("reshape", ("pooled",), "flat"),
        Operation("reshape", ("flat",), "again"),
        Operation("average_pool2d", ("x",), "other", pooling),
        Operation(
            "average_pool2d", ("x",), "more", pooling | {"activation": "relu6"}
        ),  # takes the first place that is free
        Operation("add", ("x", "x"), "rest", {"activation": "linear"}),
        Operation("fully_connected", ("again", "w", "b"), "out", {"activation": "linear"}),
    )
    tensors = (
        tensor("x", (1, 4, 4, 20), scale=0.1),
        tensor("pooled", (1, 1, 1, 20), scale=0.1), tensor("flat", (1, 20), scale=0.1),
        tensor("again", (1, 20), scale=0.1), tensor("other", (1, 1, 1, 20), scale=0.1),
        tensor("more", (1, 1, 1, 20), scale=0.1), tensor("rest", (1, 4, 4, 20), scale=0.1),
        tensor("w", (9, 20), scale=0.1, values=random_bytes(rng, (9, 20), "uint8")),
        tensor("b", (9,), "int32", values=np.zeros(9, np.int32)), tensor("out", (1, 9), scale=20.0),
    )  # fmt: skip
    network = Network({t.name: t for t in tensors}, operations, ("x",), ("out", "other", "more", "rest"))
    x = rng.integers(0, 256, (1, 4, 4, 20)).astype(np.uint8)
    defined, found = (
        QuantizedEngine(network, RunOptions(engine=engine)).run(x) for engine in ("reference", "compiled")
    )
    np.testing.assert_array_equal(found["out"], defined["out"])


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


def test_an_argmax_of_more_channels_than_a_key_has_places_for():
    x, found = tensor("x", (1, 1, 1, (1 << PLACE_BITS) + 2)), Tensor("found", (1, 1, 1), np.dtype(np.int32))
    values = np.zeros(x.shape, np.uint8)
    values[..., -1] = 9
    assert_same(one_operation("argmax", [x, found], {"axis": 3}), values)


def test_programs_of_the_last_outputs_are_kept(monkeypatch):
    made = []
    monkeypatch.setattr(
        "minimobile.quantized.engine.compile_program", lambda *given: made.append(given) or compile_program(*given)
    )
    maps = [tensor(f"map {index}", (1, 2, 2, 4)) for index in range(recent.MOST + 2)]
    attributes = {"padding": ((0, 0),) * 4}
    steps = tuple(Operation("pad", (x.name,), y.name, attributes) for x, y in itertools.pairwise(maps))
    runner = QuantizedEngine(Network({x.name: x for x in maps}, steps, ("map 0",), ("map 1",)))
    values = np.arange(16, dtype=np.uint8).reshape(1, 2, 2, 4)
    for last in [*range(1, len(maps)), len(maps) - 1, 1]:
        np.testing.assert_array_equal(runner.run(values, [f"map {last}"])[f"map {last}"], values)
    assert len(made) == len(maps)  # the last one was there still, the first one no more


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1), shape=st.tuples(*[st.integers(1, most) for most in (2, 9, 9, 20)]),
    scale=st.floats(2**-20, 2**10, width=32), dtype=st.sampled_from(["uint8", "int8"]), threads=st.integers(1, 3),
)  # fmt: skip
def test_numbers_become_bytes(seed, shape, scale, dtype, threads):
    rng = np.random.default_rng(seed)
    zero = int(rng.integers(np.iinfo(dtype).min, np.iinfo(dtype).max + 1))
    network = one_operation("quantize", (tensor("x", shape, "float32"), tensor("out", shape, dtype, scale, zero)), {})
    assert is_compiled(network.operations[0], network)
    steps = rng.choice([rng.normal(0, 90, shape), rng.integers(-300, 300, shape) / 2, rng.normal(0, 1e30, shape)])
    x = (steps * scale).astype(np.float32)
    x.reshape(-1)[rng.integers(x.size)] = rng.choice([np.inf, -np.inf, 0.5 * scale, np.nextafter(0.5 * scale, 0)])
    assert_same(network, x, ("litert", *ONNX_RUNTIME)[seed % 3], threads)


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


@pytest.mark.parametrize(
    ("name", "features", "lanes", "expected"),
    [
        (None, ["avx512f", "avx512bw", "avx512vnni"], 16, "vpdpbusd"),
        (None, ["avx512f", "avx512bw"], 16, "pmaddwd"),
        (None, ["avx2", "avxvnni"], 8, "vpdpbusd"),
        (None, ["avx2"], 8, "pmaddwd"),
        (None, ["neon"], 4, "multiply"),
        ("cascadelake", [], 16, "vpdpbusd"),
        ("skylake-avx512", ["avx512vnni"], 16, "pmaddwd"),
        ("haswell", [], 8, "pmaddwd"),
        ("generic", ["avx2"], 4, "multiply"),
    ],
)
def test_products_follow_the_cpu(name, features, lanes, expected):
    assert integers.host_products(name, features, lanes) == expected


@pytest.mark.parametrize(
    ("name", "features", "lanes", "expected"),
    [
        (None, ["avx512f", "avx512bw", "avx512vbmi"], 16, True),
        (None, ["avx512f", "avx512bw", "avx512vnni"], 16, False),
        ("cascadelake", ["avx512vbmi"], 16, False),
        ("sapphirerapids", [], 16, True),
        ("znver4", [], 16, True),
        ("haswell", [], 8, False),
    ],
)
def test_shuffles_follow_the_cpu(name, features, lanes, expected):
    assert integers.host_shuffles(name, features, lanes) is expected


OTHERS = {
    "haswell": ("+avx2,+fma,+avx,+sse4.2", 8, "pmaddwd"),
    "skylake-avx512": ("+avx512f,+avx512bw,+avx512dq,+avx512vl,+avx2,+fma", 16, "pmaddwd"),
    "cascadelake": ("+avx512f,+avx512bw,+avx512dq,+avx512vl,+avx512vnni,+avx2,+fma", 16, "vpdpbusd"),
    "generic": ("", 4, "multiply"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHERS)
def test_code_for_other_processors_gives_the_same_bytes(name, tmp_path):
    features, lanes, products = OTHERS[name]
    cpu = {"NUMBA_CPU_NAME": name, "NUMBA_CPU_FEATURES": features, "NUMBA_CACHE_DIR": str(tmp_path)}
    environment = {**os.environ, **cpu}
    told = "from minimobile_kernels.quantized.integers import LANES, PRODUCTS; print(LANES, PRODUCTS)"
    done = subprocess.run([sys.executable, "-c", told], env=environment, check=True, capture_output=True, text=True)
    assert done.stdout.split() == [str(lanes), products]
    command = [sys.executable, "-m", "pytest", "-q", "-n0", "-p", "no:cacheprovider", "-m", "not slow", __file__]
    done = subprocess.run(command, env=environment, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:]


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
