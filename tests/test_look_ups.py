"""Look-ups of bytes that follow each other: one with the same bytes, unless what lies between is read."""

import itertools

import numpy as np
import pytest
from test_rows import network

from minimobile.quantized.definitions import apply
from minimobile.quantized.engine import QuantizedEngine
from minimobile.quantized.look_ups import join_look_ups
from minimobile.quantized.network import Operation, Tensor


def chain(dtype, scales, zeros):
    """Return maps of those scales and zero points, made of each other by changes of scale; the last is of shares."""
    names = [f"map {index}" for index in range(len(scales))]
    pairs = zip(names, scales, zeros, strict=True)
    tensors = [Tensor(name, (1, 4, 8, 8), np.dtype(dtype), np.float32([s]), np.int64([z])) for name, s, z in pairs]
    operations = [Operation("concatenate", (x,), out, {"axis": 1}) for x, out in itertools.pairwise(names[:-1])]
    return {each.name: each for each in tensors}, [*operations, Operation("logistic", (names[-2],), names[-1])]


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
@pytest.mark.parametrize("count", [3, 4])
def test_every_byte_becomes_what_it_became_one_look_up_after_the_other(dtype, count):
    rng, lowest = np.random.default_rng(count), int(np.iinfo(dtype).min)
    for case in range(20):
        scales = [*2.0 ** rng.uniform(-6, 0, count - 1), 1 / 256]
        zeros = [*rng.integers(0, 256, count - 1) + lowest, lowest]
        tensors, operations = chain(dtype, scales, zeros)
        (joined,) = join_look_ups(operations, (operations[-1].output,), tensors, "litert")
        values = {"map 0": (np.arange(256) + lowest).astype(dtype).reshape(1, 4, 8, 8)}
        for operation in operations:
            values[operation.output] = apply(operation, tensors, values, "litert")
        found = apply(joined, tensors, values, "litert")
        np.testing.assert_array_equal(found, values[joined.output], err_msg=f"case {case}", strict=True)


def test_what_is_kept_or_read_by_another_is_made():
    tensors, operations = chain("uint8", (0.25, 0.5, 1 / 256), (3, 7, 0))
    assert join_look_ups(operations, ("map 1", "map 2"), tensors, "litert") == operations
    twice = [*operations, Operation("add", ("map 1", "map 1"), "sum", {"activation": "linear"})]
    assert join_look_ups(twice, ("map 2", "sum"), {**tensors, "sum": tensors["map 1"]}, "litert") == twice


def test_a_concatenation_of_two_is_looked_up_by_nobody():
    tensors, operations = chain("uint8", (0.25, 0.5, 1 / 256), (3, 7, 0))
    joined = [Operation("concatenate", ("map 0", "map 0"), "map 1", {"axis": 1}), operations[-1]]
    assert join_look_ups(joined, ("map 2",), tensors, "litert") == joined


def test_the_scores_of_each_map_are_looked_up_once():
    engine = QuantizedEngine(network("uint8", is_of_one_scale=False))
    _, (stage,) = engine._plan(("scores",))
    assert [operation.op for operation in stage.operations].count("look_up") == 2  # of two maps
    assert not {"concatenate", "logistic"} & {operation.op for operation in stage.operations}
