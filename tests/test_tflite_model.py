"""TFLite's tensors and operators: read as written, and nothing out of place gets through (H25, H27-H29)."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from flatbuffer_files import TFLiteWriter, write_flatbuffer
from hostile import assert_refused, flip_bytes, truncations

from minimobile.errors import FormatError
from minimobile.formats.tflite.tflite_model import ABSENT, read_model
from minimobile.formats.tflite.tflite_schema import TENSOR_TYPES


def small(**conv):
    """One padded convolution, pooled."""
    writer = TFLiteWriter((8, 6), 2)
    (x,) = writer.inputs
    pads = writer.add_constant("pads", np.array([(0, 0), (0, 1), (0, 1), (0, 0)], np.int32))
    x = writer.add_operator("PAD", [x, pads], (1, 9, 7, 2), "padded")
    weight = writer.add_constant("weight", np.arange(4 * 9 * 2, dtype=np.float32).reshape(4, 3, 3, 2))
    bias = writer.add_constant("bias", np.ones(4, np.float32))
    options = {"stride_w": 2, "stride_h": 2, "padding": "VALID", "activation": "relu6", **conv}
    x = writer.add_operator("CONV_2D", [x, weight, bias], (1, 4, 3, 4), "map", **options)
    axes = writer.add_constant("axes", np.array([1, 2], np.int32))
    writer.add_operator("MEAN", [x, axes], (1, 4), "mean")
    return writer


def save(path, content):
    file = path / "model.tflite"
    file.write_bytes(content)
    return file


def test_what_was_written_is_read(tmp_path):
    model = read_model(save(tmp_path, small().write()))
    assert [operator.kind for operator in model.operators] == ["PAD", "CONV_2D", "MEAN"]
    assert model.operators[1].options == {
        "padding": "VALID", "stride_w": 2, "stride_h": 2, "activation": "relu6", "dilation_w": 1, "dilation_h": 1,
    }  # fmt: skip
    padded, weight, bias = (model.tensors[number] for number in model.operators[1].inputs)
    assert (padded.name, padded.shape, padded.dtype, padded.data) == ("padded", (1, 9, 7, 2), "float32", None)
    np.testing.assert_array_equal(weight.data, np.arange(72, dtype=np.float32).reshape(4, 3, 3, 2))
    assert bias.is_constant
    assert [model.tensors[number].name for number in (*model.inputs, *model.outputs)] == ["picture", "mean"]
    assert model.description == "a test"
    assert model.metadata == {}


def test_quantisation_open_sizes_and_metadata_are_read(tmp_path):
    writer = small()
    numbers = {2: np.array([0.5, 0.25, 1, 2], np.float32), 3: np.array([0, 0, 0, 0]), 6: ("int32", 0)}
    weight = writer.add_tensor("q", (4, 3), np.zeros((4, 3), np.int8), "int8")
    writer.tensors[weight][4] = numbers
    writer.tensors[writer.inputs[0]][7] = np.array([-1, 8, -1, 2], np.int32)
    writer.buffers.append({0: np.frombuffer(b"1.5.0", np.uint8)})
    writer.root[6] = [{0: "min_runtime_version", 1: ("uint32", len(writer.buffers) - 1)}]
    writer.outputs = [weight - 1]
    model = read_model(save(tmp_path, writer.write()))
    quantization = model.tensors[weight].quantization
    assert quantization.scales.tolist() == [0.5, 0.25, 1.0, 2.0]
    assert quantization.zero_points.tolist() == [0, 0, 0, 0]
    assert quantization.dimension == 0
    assert model.tensors[model.inputs[0]].open_sizes == (0, 2)
    assert model.metadata == {"min_runtime_version": b"1.5.0"}


def test_a_buffer_may_lie_behind_the_flatbuffer(tmp_path):
    writer = small()
    values = np.arange(4, dtype=np.float32)
    bias = next(tensor for tensor in writer.tensors if tensor[3] == "bias")
    buffer = writer.buffers[bias[2][1]]
    buffer.clear()
    buffer.update({1: ("uint64", 2**20), 2: ("uint64", 16)})
    content = writer.write()
    with pytest.raises(FormatError, match="buffer 3 inside the file"):
        read_model(save(tmp_path, content))
    model = read_model(save(tmp_path, content + bytes(2**20 - len(content)) + values.tobytes()))
    np.testing.assert_array_equal(next(tensor.data for tensor in model.tensors if tensor.name == "bias"), values)


def test_constants_may_share_zeros_but_not_megabytes(tmp_path):
    writer = small()
    values = np.zeros(10**6, np.uint8)
    first = writer.add_constant("zeros 0", values)
    for index in range(1, 3):
        shared = writer.add_tensor(f"zeros {index}", values.shape, None, "uint8")
        writer.tensors[shared][2] = writer.tensors[first][2]
    writer.outputs = [first - 1]
    path = save(tmp_path, writer.write())
    assert len(read_model(path).tensors) == shared + 1
    for index in range(3, 9):
        shared = writer.add_tensor(f"zeros {index}", values.shape, None, "uint8")
        writer.tensors[shared][2] = writer.tensors[first][2]
    assert_refused(read_model, save(tmp_path, writer.write()), "in buffers that they share")


def tensor(writer, name):
    return next(found for found in writer.tensors if found[3] == name)


def spoil_tensor(name, field, value):
    return lambda writer: tensor(writer, name).__setitem__(field, value)


def spoil_operator(index, field, value):
    return lambda writer: writer.operators[index].__setitem__(field, value)


def spoil_option(field, value):
    return lambda writer: writer.operators[1][4].__setitem__(field, value)


def quantize(scales, zeros, **more):
    def spoil(writer):
        number = writer.add_tensor("q", (2, 3), np.zeros((2, 3), np.uint8), "uint8")
        scale, zero = np.array(scales, np.float32), np.array(zeros, np.int64)
        writer.tensors[number][4] = {2: scale, 3: zero, 6: ("int32", more.get("dimension", 0))}
        writer.outputs = [number - 1]

    return spoil


def cycle(writer):
    writer.operators[0][1][0] = writer.operators[2][2][0]


INT = np.int32
HOSTILE = {
    # H27
    "size of 2^31 - 1": (spoil_tensor("padded", 0, np.array([1, 2**31 - 1, 9, 2], INT)), "at most 8 sizes"),
    "size of -1": (spoil_tensor("padded", 0, np.array([1, -1, 9, 2], INT)), "at most 8 sizes"),
    "product overflows": (spoil_tensor("padded", 0, np.array([2**16, 2**16, 2**16, 2**16], INT)), "at most 8 sizes"),
    "ten thousand sizes": (spoil_tensor("padded", 0, np.full(10_000, 2, INT)), "at most 8 sizes"),
    "constant longer than its shape": (spoil_tensor("weight", 0, np.array([4, 3, 3, 1], INT)), "144 bytes for .*288"),
    "constant shorter than its shape": (spoil_tensor("weight", 0, np.array([4, 3, 3, 9], INT)), "1296 bytes .*288"),
    "size of 0 in a constant": (spoil_tensor("weight", 0, np.array([4, 3, 3, 0], INT)), None),
    "type unknown": (spoil_tensor("weight", 1, ("int8", 77)), "one of the 21 known types, found type 77"),
    "type negative": (spoil_tensor("weight", 1, ("int8", -1)), "known types"),
    "sparse": (spoil_tensor("weight", 6, {}), "stored densely"),
    # H28
    "buffer": (spoil_tensor("weight", 2, ("uint32", 99)), "in one of 5 buffers, found it in buffer 99"),
    "tensor": (spoil_operator(1, 1, np.array([1, 99, 2], INT)), "inputs of operator 1"),
    "tensor below -1": (spoil_operator(1, 1, np.array([1, -2, 2], INT)), "inputs of operator 1"),
    "output left out": (spoil_operator(1, 2, np.array([-1], INT)), "outputs of operator 1"),
    "no output": (spoil_operator(1, 2, np.array([], INT)), "outputs of operator 1"),
    "weight left out": (spoil_operator(1, 1, np.array([2, ABSENT, ABSENT], INT)), "2 to 3 inputs and one output"),
    "one input": (spoil_operator(1, 1, np.array([2], INT)), "2 to 3 inputs and one output"),
    "two outputs": (spoil_operator(1, 2, np.array([5, 7], INT)), "2 to 3 inputs and one output"),
    "operator code": (spoil_operator(1, 0, ("uint32", 3)), "with one of 3 codes, found code 3"),
    "two operators with one output": (lambda w: w.operators.append(w.operators[0]), "one source of .*padded"),
    "an operator writes a constant": (spoil_operator(0, 2, np.array([3], INT)), "one source of the tensor 'weight'"),
    "cycle": (cycle, "'mean' of operator 0 .* computed before it"),
    "input that is a constant": (lambda w: w.inputs.__setitem__(0, 3), "no constants, each once"),
    "input outside": (lambda w: w.inputs.__setitem__(0, 99), "inputs of the network"),
    "no inputs": (lambda w: w.inputs.clear(), "inputs of the network"),
    "the same input twice": (lambda w: w.inputs.append(w.inputs[0]), "each once"),
    "output that nobody computes": (
        lambda w: w.outputs.append(w.add_tensor("lost", (1,))), "outputs that an operator computes"),
    "output outside": (lambda w: w.outputs.append(99), "outputs of the network"),
    "metadata": (lambda w: w.root.__setitem__(6, [{1: ("uint32", 99)}]), "the metadata in one of 5 buffers"),
    "no graph": (lambda w: w.root.__setitem__(2, []), "one subgraph, as a MobileNet has, found 0"),
    "subgraphs that can call each other": (lambda w: w.root.__setitem__(2, [{}, {}]), "one subgraph"),
    "version": (lambda w: w.root.__setitem__(0, ("uint32", 4)), "schema version 3, found 4"),
    # H29
    "stride 0": (spoil_option(1, ("int32", 0)), "known stride_w of at least 1, found 0"),
    "stride below 0": (spoil_option(2, ("int32", -1)), "known stride_h of at least 1"),
    "dilation 0": (spoil_option(4, ("int32", 0)), "known dilation_w of at least 1"),
    "padding": (spoil_option(0, ("int8", 2)), "known padding, found 2"),
    "activation": (spoil_option(3, ("int8", -1)), "known activation, found -1"),
    "options of another operator": (spoil_operator(1, 3, ("uint8", 2)), "options of type 1, found type 2"),
    "no options": (spoil_operator(1, 3, ("uint8", 0)), "known stride_w"),
    "scale 0": (quantize([0], [0]), "finite scales above zero"),
    "scale NaN": (quantize([np.nan], [0]), "finite scales above zero"),
    "scale below 0": (quantize([-1], [0]), "finite scales above zero"),
    "scale infinite": (quantize([np.inf], [0]), "finite scales above zero"),
    "zero point outside": (quantize([1], [256]), "zero points from 0 to 255"),
    "too many scales": (quantize([1, 1, 1], [0, 0, 0]), "one scale and zero point, or 2 of each"),
    "zero points of another number": (quantize([1, 1], [0, 0, 0]), "one scale and zero point"),
    "quantised along an axis that is not there": (quantize([1, 1], [0, 0], dimension=7), "or 1 of each"),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_models_are_refused(case, tmp_path):
    spoil, message = HOSTILE[case]
    writer = small()
    spoil(writer)
    path = save(tmp_path, writer.write())
    if message is None:
        assert next(tensor for tensor in read_model(path).tensors if tensor.name == "weight").data.size == 0
    else:
        assert_refused(read_model, path, message)


@pytest.mark.parametrize("content", [b"", b"\x18\0\0\0TFL3", b"TFL3", bytes(8), write_flatbuffer({}), b"\xff" * 99])
def test_what_only_looks_like_a_model_is_refused(content, tmp_path):
    assert_refused(read_model, save(tmp_path, content), "expected")


def test_truncations_and_flips_are_refused_or_read(tmp_path):
    content = small().write()
    path = save(tmp_path, content)
    whole = read_model(path)
    for part in truncations(content, 7):
        path.write_bytes(part)
        with pytest.raises(FormatError, match=r"model\.tflite"):
            read_model(path)
    path.write_bytes(content)
    read = refused = 0
    for _ in flip_bytes(path, 2000):
        try:
            model = read_model(path)
            read += len(model.tensors) == len(whole.tensors)
        except FormatError:
            refused += 1
    assert read > 100
    assert refused > 100


def test_types_are_numbered_as_in_the_schema():
    assert [TENSOR_TYPES.index(name) for name in ("float32", "uint8", "int8", "int4")] == [0, 3, 9, 17]
    assert struct.calcsize("<f") == np.dtype(np.float32).itemsize
