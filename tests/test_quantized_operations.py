"""Quantised operations other than convolutions: by hand, and byte for byte against LiteRT's reference kernels."""

from __future__ import annotations

import inspect
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from quantized_files import as_bytes, name_result_type, random_bytes, run_litert, start

from minimobile.errors import FormatError
from minimobile.execution.runner import RunOptions
from minimobile.formats.tflite.tflite_model import read_model
from minimobile.formats.tflite.tflite_quantized import name_tensors, to_network
from minimobile.quantized.engine import QuantizedEngine
from minimobile.quantized.layout import every_byte
from minimobile.quantized.network import Network, Operation, Tensor
from minimobile.quantized.operations.operation import Call, QuantizedOperation
from minimobile.quantized.operations.reading import Reading
from minimobile.quantized.operations.table import OPERATIONS
from minimobile.quantized.program import is_compiled
from minimobile.quantized.validation import check_network


class Mirror(QuantizedOperation):
    """An operation without a kernel of its own: the byte as far from the other end of its type."""

    def check(self, reading: Reading, out: Tensor) -> tuple[int, ...]:
        (x,) = reading.inputs(1)
        reading.check_bytes(x, out)
        return x.shape

    def define(self, call: Call) -> np.ndarray:
        return ~call.arrays[0]

    def fits(self, operation, inputs, out, limits) -> bool:
        return True

    def add_steps(self, builder, operation) -> None:
        builder.add_look_up(operation, ~every_byte(builder.tensor(operation.inputs[0])))


@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
def test_a_new_operation_is_one_class_and_a_row(monkeypatch, dtype):
    monkeypatch.setitem(OPERATIONS, "mirror", Mirror())
    shape, scale, zero = (1, 3, 5, 20), np.float32([0.5]), np.int64([3])
    tensors = {name: Tensor(name, shape, np.dtype(dtype), scale, zero) for name in ("x", "y", "z")}
    operations = (Operation("mirror", ("x",), "y"), Operation("add", ("y", "x"), "z", {"activation": "linear"}))
    network = Network(tensors, operations, ("x",), ("z",))
    check_network(network, "file")
    assert is_compiled(operations[0], network, "litert")
    x = random_bytes(1, shape, np.dtype(dtype).name)
    defined, compiled = (
        QuantizedEngine(network, RunOptions(engine=engine)).run(x, ["y", "z"]) for engine in ("reference", "compiled")
    )
    np.testing.assert_array_equal(compiled["y"], ~x)
    np.testing.assert_array_equal(compiled["z"], defined["z"])
    odd = Network({**tensors, "y": Tensor("y", (1, 3, 5, 4), np.dtype(dtype), scale, zero)}, operations, ("x",), ("z",))
    with pytest.raises(FormatError, match=r"file: mirror 'y': expected a result of shape \(1, 3, 5, 20\)"):
        check_network(odd, "file")
    double = Network(tensors, (Operation("mirror", ("x", "x"), "y"),), ("x",), ("y",))
    with pytest.raises(FormatError, match="file: mirror 'y': expected 1 inputs, found 2"):
        check_network(double, "file")


@pytest.mark.parametrize(("keeps", "shape"), [(False, (1, 3)), (True, (1, 1, 1, 3))])
def test_a_linear_layer_makes_rows_of_a_map_unless_it_keeps_its_axes(keeps, shape):
    def tensor(name, sizes, values=None):
        return Tensor(name, sizes, np.dtype(np.uint8), np.float32([0.1]), np.int64([3]), values=values)

    weight = tensor("w", (3, 4), np.arange(12, dtype=np.uint8).reshape(3, 4))
    attributes = {"activation": "linear", "keep_num_dims": keeps}
    tensors = {each.name: each for each in (tensor("x", (1, 1, 1, 4)), weight, tensor("out", shape))}
    network = Network(tensors, (Operation("fully_connected", ("x", "w"), "out", attributes),), ("x",), ("out",))
    check_network(network, "file")
    x = np.arange(4, dtype=np.uint8).reshape(1, 1, 1, 4)
    assert QuantizedEngine(network, RunOptions(engine="reference")).run(x)["out"].shape == shape


@pytest.mark.parametrize("op", OPERATIONS)
def test_an_operation_stands_in_a_module_of_its_name(op):
    path = Path(inspect.getfile(type(OPERATIONS[op])))
    assert (path.parts[-3:-1], path.stem) == (("quantized", "operations"), op)


TYPES = st.sampled_from(["uint8", "int8"])
SEEDS = st.integers(0, 2**31)
SCALES = st.floats(2**-10, 1.0, width=32)


def zeros(dtype):
    limits = np.iinfo(dtype)
    return st.integers(int(limits.min), int(limits.max))


def lowest(dtype):
    return int(np.iinfo(dtype).min)


def assert_as_litert(writer, seed, folder):
    """Run a file here, on both engines, and in LiteRT: every tensor is the same, byte for byte."""
    path = folder / "model.tflite"
    path.write_bytes(content := writer.write())
    network = to_network(name_tensors(read_model(path)), str(path))
    source = network.tensors[network.inputs[0]]
    if source.dtype == np.float32:
        x = np.random.default_rng(seed).uniform(-3, 3, source.shape).astype(np.float32)
    else:
        x = random_bytes(seed, source.shape, str(source.dtype))
    expected = run_litert(content, x)
    names = [operation.output for operation in network.operations if operation.output in expected]
    assert names
    for engine in ("reference", "compiled"):
        found = QuantizedEngine(network, RunOptions(engine=engine)).run(x, names)
        for name in names:
            ours, theirs = found[name], expected[name]
            assert ours.dtype == theirs.dtype, name
            assert ours.shape == theirs.shape, name
            differs = np.argwhere(ours != theirs)
            assert not len(differs), f"{name}: {len(differs)} of {ours.size}, first {differs[0]}: {ours[tuple(differs[0])]} {theirs[tuple(differs[0])]}"  # fmt: skip  # noqa: E501


crosscheck = pytest.mark.crosscheck
examples = settings(max_examples=40)


@crosscheck
@examples
@given(seed=SEEDS, dtype=TYPES, scale=SCALES, beta=st.sampled_from([1.0, 0.5, 3.0]), count=st.integers(1, 500))
def test_softmax_is_litert_s(tmp_path_factory, seed, dtype, scale, beta, count):
    # LiteRT's own aborts where the exponentials add up to 512 or more.
    writer = start((1, 2, 1, count), dtype, scale, 3)
    writer.add_operator("SOFTMAX", [0], (1, 2, 1, count), output=as_bytes(dtype, 1 / 256, lowest(dtype)), beta=beta)
    assert_as_litert(writer, seed, tmp_path_factory.mktemp("file"))


@crosscheck
@examples
@given(data=st.data(), seed=SEEDS, dtype=TYPES, scale=SCALES)
def test_logistic_is_litert_s(tmp_path_factory, data, seed, dtype, scale):
    writer = start((1, 4, 8, 8), dtype, scale, data.draw(zeros(dtype)))
    writer.add_operator("LOGISTIC", [0], (1, 4, 8, 8), output=as_bytes(dtype, 1 / 256, lowest(dtype)))
    assert_as_litert(writer, seed, tmp_path_factory.mktemp("file"))


@crosscheck
@examples
@given(data=st.data(), seed=SEEDS, dtype=TYPES, to=TYPES, scale=SCALES, out=SCALES)
def test_quantize_and_dequantize_are_litert_s(tmp_path_factory, data, seed, dtype, to, scale, out):
    writer = start((1, 3, 5, 7), "float32")
    x = writer.add_operator("QUANTIZE", [0], (1, 3, 5, 7), output=as_bytes(dtype, scale, data.draw(zeros(dtype))))
    x = writer.add_operator("QUANTIZE", [x], (1, 3, 5, 7), output=as_bytes(to, out, data.draw(zeros(to))))
    writer.add_operator("DEQUANTIZE", [x], (1, 3, 5, 7))
    assert_as_litert(writer, seed, tmp_path_factory.mktemp("file"))


@crosscheck
@examples
@given(data=st.data(), seed=SEEDS, dtype=TYPES, axis=st.sampled_from([3, 1, -1]), scales=st.tuples(SCALES, SCALES))
def test_concatenation_is_litert_s(tmp_path_factory, data, seed, dtype, axis, scales):
    scale, other = scales if dtype == "uint8" else (scales[0], scales[0])
    zero = data.draw(zeros(dtype))
    other_zero = data.draw(zeros(dtype)) if dtype == "uint8" else zero
    writer = start((1, 3, 5, 6), dtype, scale, zero)
    shape = (1, 6, 5, 6) if axis == 1 else (1, 3, 5, 12)
    output = as_bytes(dtype, other, other_zero)
    x = writer.add_operator("CONCATENATION", [0, 0], shape, output=output, axis=axis)
    more = (1, 12, 5, 6) if axis == 1 else (1, 3, 5, 24)
    writer.add_operator("CONCATENATION", [x, x], more, output=output, axis=axis)
    assert_as_litert(writer, seed, tmp_path_factory.mktemp("file"))


@crosscheck
@examples
@given(
    seed=SEEDS, dtype=TYPES, sizes=st.tuples(*[st.integers(1, 40)] * 4),
    choice=st.sampled_from([(False, False), (True, False), (False, True)]), channels=st.integers(1, 5),
)  # fmt: skip
def test_bilinear_resizing_is_litert_s(tmp_path_factory, seed, dtype, sizes, choice, channels):
    height, width, out_height, out_width = sizes
    writer = start((1, height, width, channels), dtype, 0.1, 5)
    size = writer.add_constant("size", np.array([out_height, out_width], np.int32))
    align_corners, half_pixel_centers = choice
    writer.add_operator(
        "RESIZE_BILINEAR", [0, size], (1, out_height, out_width, channels), output=as_bytes(dtype, 0.1, 5),
        align_corners=align_corners, half_pixel_centers=half_pixel_centers,
    )  # fmt: skip
    assert_as_litert(writer, seed, tmp_path_factory.mktemp("file"))


@crosscheck
@examples
@given(
    data=st.data(), seed=SEEDS, dtype=TYPES, scale=SCALES, out=SCALES, keeps=st.booleans(),
    axes=st.sampled_from([(1, 2), (2, 1), (3,), (-3, -2), (1, 2, 3)]), sizes=st.tuples(*[st.integers(1, 12)] * 3),
)  # fmt: skip
def test_mean_is_litert_s(tmp_path_factory, data, seed, dtype, scale, out, axes, keeps, sizes):
    shape = (1, *sizes)
    writer = start(shape, dtype, scale, data.draw(zeros(dtype)))
    number = writer.add_constant("axes", np.array(axes, np.int32))
    positive = {axis % 4 for axis in axes}
    result = tuple(1 if axis in positive else size for axis, size in enumerate(shape) if keeps or axis not in positive)
    writer.add_operator(
        "MEAN", [0, number], result, output=as_bytes(dtype, out, data.draw(zeros(dtype))), keep_dims=keeps
    )
    assert_as_litert(writer, seed, tmp_path_factory.mktemp("file"))


@crosscheck
@examples
@given(data=st.data(), seed=SEEDS, dtype=TYPES, pads=st.tuples(*[st.integers(0, 3)] * 4))
def test_pad_is_litert_s(tmp_path_factory, data, seed, dtype, pads):
    zero = data.draw(zeros(dtype))
    writer = start((1, 4, 5, 3), dtype, 0.1, zero)
    pairs = np.array([(0, 0), pads[:2], pads[2:], (0, 0)], np.int32)
    number = writer.add_constant("pads", pairs)
    shape = (1, 4 + sum(pads[:2]), 5 + sum(pads[2:]), 3)
    writer.add_operator("PAD", [0, number], shape, output=as_bytes(dtype, 0.1, zero))
    assert_as_litert(writer, seed, tmp_path_factory.mktemp("file"))


@crosscheck
@examples
@given(seed=SEEDS, dtype=TYPES, axis=st.sampled_from([3, -1, 1]), wide=st.booleans())
def test_argmax_is_litert_s(tmp_path_factory, seed, dtype, axis, wide):
    writer = start((1, 6, 5, 7), dtype)
    number = writer.add_constant("axis", np.array(axis, np.int32))
    kind = "int64" if wide else "int32"
    shape = (1, 5, 7) if axis == 1 else (1, 6, 5)
    writer.add_operator("ARG_MAX", [0, number], shape, output={"dtype": kind})
    name_result_type(writer, kind)
    assert_as_litert(writer, seed, tmp_path_factory.mktemp("file"))


@crosscheck
@examples
@given(
    seed=SEEDS, dtype=TYPES, sizes=st.tuples(*[st.integers(1, 9)] * 2), kernel=st.tuples(*[st.integers(1, 4)] * 2),
    stride=st.integers(1, 3), activation=st.sampled_from(["none", "relu", "relu6"]), channels=st.integers(1, 20),
)  # fmt: skip
def test_padded_average_pooling_is_litert_s(tmp_path_factory, seed, dtype, sizes, kernel, stride, activation, channels):
    writer = start((1, *sizes, channels), dtype, 0.03, lowest(dtype) + 11)
    shape = (1, *(-(-size // stride) for size in sizes), channels)
    writer.add_operator(
        "AVERAGE_POOL_2D", [0], shape, output=as_bytes(dtype, 0.03, lowest(dtype) + 11), padding="SAME",
        stride_h=stride, stride_w=stride, filter_h=kernel[0], filter_w=kernel[1], activation=activation,
    )  # fmt: skip
    assert_as_litert(writer, seed, tmp_path_factory.mktemp("file"))


@crosscheck
@examples
@given(seed=SEEDS, dtype=TYPES, keeps=st.booleans(), rows=st.integers(1, 4), flattens=st.booleans(), bias=st.booleans())
@example(seed=55, dtype="int8", keeps=False, rows=1, flattens=False, bias=False)  # sums that rounding twice moves
@example(seed=94, dtype="int8", keeps=False, rows=1, flattens=False, bias=False)
def test_fully_connected_is_litert_s(tmp_path_factory, seed, dtype, keeps, rows, flattens, bias):
    rng = np.random.default_rng(seed)
    writer = start((1, rows, 2, 12), dtype, 0.02, lowest(dtype) + 100)
    length = 24 * rows if flattens else 12
    keeps = keeps and not flattens
    is_signed = dtype == "int8"
    scales = rng.uniform(0.001, 0.02, 9 if is_signed else 1)
    weight = random_bytes(seed + 1, (9, length), dtype)
    inputs = [0, writer.add_constant("weight", weight, scales=scales, zeros=0 if is_signed else 120)]
    if bias:
        values = rng.integers(-3000, 3000, 9).astype(np.int32)
        inputs.append(writer.add_constant("bias", values, scales=0.02 * scales, zeros=0))
    shape = (1, rows, 2, 9) if keeps else (24 * rows // length, 9)
    writer.add_operator(
        "FULLY_CONNECTED", inputs, shape, output=as_bytes(dtype, 0.1, lowest(dtype) + 99), keep_num_dims=keeps
    )
    assert_as_litert(writer, seed, tmp_path_factory.mktemp("file"))


@crosscheck
@settings(max_examples=60)
@given(
    data=st.data(), seed=SEEDS, dtype=TYPES, sizes=st.tuples(*[st.integers(1, 12)] * 2), kernel=st.integers(1, 3),
    stride=st.integers(1, 2), dilation=st.integers(1, 3), padding=st.sampled_from(["SAME", "VALID"]),
    kind=st.sampled_from(["CONV_2D", "DEPTHWISE_CONV_2D"]), activation=st.sampled_from(["none", "relu", "relu6"]),
    channels=st.integers(1, 20),
)  # fmt: skip
def test_convolutions_are_litert_s(
    tmp_path_factory, data, seed, dtype, sizes, kernel, stride, dilation, padding, kind, activation, channels
):
    rng = np.random.default_rng(seed)
    stride = 1 if dilation > 1 else stride
    reach = (kernel - 1) * dilation + 1
    sizes = [max(size, reach) if padding == "VALID" else size for size in sizes]
    zero = data.draw(zeros(dtype))
    writer = start((1, *sizes, channels), dtype, float(rng.uniform(0.001, 0.1)), zero)
    is_depthwise = kind == "DEPTHWISE_CONV_2D"
    count = channels if is_depthwise else int(rng.integers(1, 20))
    shape = (1, kernel, kernel, channels) if is_depthwise else (count, kernel, kernel, channels)
    is_signed = dtype == "int8"
    scales = np.exp(rng.uniform(-7, -3, count if is_signed else 1))
    weight = random_bytes(seed + 1, shape, dtype)
    weight = np.maximum(weight, -127) if is_signed else weight
    weight_zero = 0 if is_signed else data.draw(zeros(dtype))
    inputs = [
        0,
        writer.add_constant("weight", weight, scales=scales, zeros=weight_zero, axis=3 if is_depthwise else 0),
        writer.add_constant(
            "bias", rng.integers(-9999, 9999, count).astype(np.int32),
            scales=np.float32(writer.tensors[0][4][2][0]) * scales.astype(np.float32), zeros=0,
        ),
    ]  # fmt: skip
    out_sizes = [(-(-size // stride) if padding == "SAME" else (size - reach) // stride + 1) for size in sizes]
    options = {f"stride_{axis}": stride for axis in "hw"} | {f"dilation_{axis}": dilation for axis in "hw"}
    if is_depthwise:
        options["depth_multiplier"] = 1
    writer.add_operator(
        kind, inputs, (1, *out_sizes, count), padding=padding, activation=activation, **options,
        output=as_bytes(dtype, float(rng.uniform(0.01, 0.5)), data.draw(zeros(dtype))),
    )  # fmt: skip
    assert_as_litert(writer, seed, tmp_path_factory.mktemp("file"))
