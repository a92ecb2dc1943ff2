"""The kernels of bytes without weights, against their definitions: pools, sums, and maps that change their grid."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from quantized_twins import assert_same, one_operation, random_bytes, tensor

from minimobile.execution import recent
from minimobile.quantized.engine import QuantizedEngine
from minimobile.quantized.network import Network, Operation, Tensor
from minimobile.quantized.program import compile_program, is_compiled
from minimobile_kernels.host import LANES
from minimobile_kernels.quantized.constants import PLACE_BITS
from minimobile_kernels.quantized.estimates import addition_estimates
from minimobile_kernels.quantized.reference import BY_FLOATS, ONNX_RUNTIME
from minimobile_kernels.quantized.step import BYTES_OF


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
    assert is_compiled(network.operations[0], network, "litert")
    assert_same(network, *rest)


def test_a_map_lives_as_long_as_its_last_name():
    pooling = {"kernel_size": (1, 1), "stride": 1, "padding": "VALID", "activation": "linear"}
    operations = (
        Operation("average_pool2d", ("x",), "pooled", pooling),
        Operation("quantize", ("pooled",), "same"),
        Operation("logistic", ("same",), "shares"),  # takes the first place that is free
        Operation("quantize", ("same",), "again"),
        Operation("add", ("again", "shares"), "sum", {"activation": "linear"}),
        Operation("add", ("sum", "x"), "out", {"activation": "linear"}),
    )
    names = {name for operation in operations for name in (*operation.inputs, operation.output)}
    tensors = {name: tensor(name, (1, 4, 4, 20), scale=1 / 256 if name == "shares" else 0.1) for name in names}
    network = Network(tensors, operations, ("x",), ("out",))
    assert all(is_compiled(operation, network, "litert") for operation in operations)
    assert_same(network, np.random.default_rng(4).integers(0, 256, (1, 4, 4, 20)).astype(np.uint8))


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
    assert is_compiled(network.operations[0], network, "litert")
    steps = rng.choice([rng.normal(0, 90, shape), rng.integers(-300, 300, shape) / 2, rng.normal(0, 1e30, shape)])
    x = (steps * scale).astype(np.float32)
    x.reshape(-1)[rng.integers(x.size)] = rng.choice([np.inf, -np.inf, 0.5 * scale, np.nextafter(0.5 * scale, 0)])
    assert_same(network, x, ("litert", *ONNX_RUNTIME)[seed % 3], threads)
