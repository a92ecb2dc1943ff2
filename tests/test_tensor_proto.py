"""Constants of TensorFlow's graphs, in every way in which their values can be spelled out."""

from __future__ import annotations

import frameworks
import numpy as np
import pytest
from graph_writer import TYPES, attribute, field, shape_proto, tensor_proto, varint

from minimobile.errors import FormatError
from minimobile.formats.tensorflow.tensor_proto import Shape, read_attribute


def read(content):
    return read_attribute(memoryview(content), "here")


def test_values_come_as_bytes_packed_or_one_by_one():
    bytes_, packed, single = (field(8, field(1, 1) + field(2, shape_proto([2])) + values) for values in (
        field(4, np.array([1, -2], np.float32).tobytes()),
        field(5, np.array([1, -2], np.float32).tobytes()),
        field(5, 1.0) + field(5, -2.0),
    ))  # fmt: skip
    for content in (bytes_, packed, single):
        tensor = read(content)
        assert (tensor.dtype, tensor.shape) == ("float32", (2,))
        np.testing.assert_array_equal(tensor.values, [1, -2])


# type: number of the field, its content, the values
LISTED = {
    "int32": (7, varint(3) + varint(-1), [3, -1]),
    "uint8": (7, varint(3) + varint(255), [3, 255]),
    "int64": (10, varint(2**40) + varint(-(2**40)), [2**40, -(2**40)]),
    "bool": (11, varint(1) + varint(0), [True, False]),
    "float16": (13, varint(0x3C00) + varint(0xC000), [1, -2]),
    "float64": (6, np.array([0.1, -1e300]).tobytes(), [0.1, -1e300]),
}


@pytest.mark.parametrize("dtype", LISTED)
def test_every_type_has_its_own_field(dtype):
    number, content, values = LISTED[dtype]
    tensor = read(field(8, field(1, TYPES[dtype]) + field(2, shape_proto([2])) + field(number, content)))
    assert tensor.values.dtype == dtype
    np.testing.assert_array_equal(tensor.values, np.array(values, dtype))


def test_the_last_value_stands_for_those_that_are_missing():
    def repeat(shape, content):
        return read(field(8, field(1, 1) + field(2, shape_proto(shape)) + content)).values

    np.testing.assert_array_equal(repeat([2, 2], field(5, 1.0) + field(5, 3.0)), [[1, 3], [3, 3]])
    many = repeat([10**4, 10**4], field(5, 3.0))
    assert many.shape == (10**4, 10**4)
    assert many.strides == (0, 0)  # one number in memory
    assert not repeat([3], b"").any()


def test_texts_have_no_values():
    assert read(field(8, field(1, 7) + field(8, "a text"))).values is None


def test_attributes_become_pythons_values():
    for value in (True, 3, -1, "NHWC", 0.5):
        assert read(attribute(value)) == value
    assert read(attribute([1, -2, 3])) == (1, -2, 3)
    assert read(field(1, field(3, 5) + field(3, 6))) == (5, 6)
    assert read(field(7, shape_proto([1, -1]))) == Shape((1, -1))
    assert read(field(7, field(3, 1))) == Shape(None)
    assert read(field(6, 1)) == "float32"
    assert read(b"") is None


@pytest.mark.parametrize(
    "content",
    [
        field(8, 5),
        field(3, b"text"),
        field(8, field(1, 1) + field(2, shape_proto([1])) + field(5, 3)),
        field(8, field(1, 1) + field(2, shape_proto([1])) + field(5, b"abc")),
        field(8, field(1, 3) + field(2, shape_proto([1])) + field(7, 1.0)),
        field(8, field(2, field(3, 1))),
        field(8, tensor_proto(np.ones(2, np.float32), (2**16, 2**16))),
    ],
)
def test_what_contradicts_itself_is_refused(content):
    with pytest.raises(FormatError, match=r"^here: expected"):
        read(content)


@pytest.mark.crosscheck
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int32", "uint8", "int64", "bool"])
@pytest.mark.parametrize("shape", [(), (1,), (0, 3), (3, 1, 2)])
def test_tensorflows_own_constants_come_back(dtype, shape):
    tf = frameworks.tensorflow()
    values = np.random.default_rng(0).integers(0, 200, shape).astype(dtype)
    for proto in (tf.make_tensor_proto(values), tf.make_tensor_proto(values.ravel().tolist(), dtype, shape)):
        tensor = read(field(8, proto.SerializeToString()))
        assert (tensor.dtype, tensor.shape) == (dtype, shape)
        np.testing.assert_array_equal(tensor.values, values)
