"""Maps that end as rows of one tensor: the same bytes as of reshapes and a concatenation, all in one program."""

import dataclasses

import numpy as np
import pytest
from quantized_files import random_bytes

from minimobile.execution.runner import RunOptions
from minimobile.quantized.engine import QuantizedEngine
from minimobile.quantized.network import Network, Operation, Tensor

SCALES = {"large": (0.25, 7), "small": (0.5, 3), "joined": (0.375, 5), "scores": (1 / 256, 0)}


def network(dtype, is_of_one_scale, columns=(1, 4), batch=1):
    """Return a network of two maps, their rows in one tensor, and what a logistic function makes of them."""
    lowest = int(np.iinfo(dtype).min)

    def tensor(name, *shape):
        scale, zero = SCALES["joined"] if is_of_one_scale and name != "scores" else SCALES[name.split(".")[0]]
        return Tensor(name, (batch, *shape), np.dtype(dtype), np.float32([scale]), np.int64([zero + lowest]))

    window = {"kernel_size": (2, 2), "stride": 2, "padding": "VALID", "activation": "linear"}
    operations = (
        Operation("average_pool2d", ("large",), "large.pooled", window),
        Operation("reshape", ("large.pooled",), "large.rows"),
        Operation("quantize", ("large",), "small"),
        Operation("reshape", ("small",), "small.again"),
        Operation("reshape", ("small.again",), "small.rows"),
        Operation("concatenate", ("large.rows", "small.rows"), "joined", {"axis": 1}),
        Operation("reshape", ("joined",), "joined.squeezed"),
        Operation("logistic", ("joined.squeezed",), "scores"),
    )
    tensors = (
        tensor("large", 4, 6, 20), tensor("large.pooled", 2, 3, 20), tensor("large.rows", 30, *columns),
        tensor("small", 4, 6, 20), tensor("small.again", 8, 3, 20), tensor("small.rows", 120, *columns),
        tensor("joined", 150, *columns), tensor("joined.squeezed", 150, 4), tensor("scores", 150, 4),
    )  # fmt: skip
    return Network({each.name: each for each in tensors}, operations, ("large",), ("scores",))


def assert_engines_agree(made, outputs, batch=1, threads=1):
    x = random_bytes(1, (batch, 4, 6, 20), made.tensors["large"].dtype.name)
    compiled = QuantizedEngine(made, RunOptions(num_threads=threads))
    expected = QuantizedEngine(made, RunOptions(engine="reference")).run(x, outputs)
    found = compiled.run(x, outputs)
    for name in outputs:
        np.testing.assert_array_equal(found[name], expected[name], err_msg=name, strict=True)
    _, stages = compiled._plan(tuple(outputs))
    return [stage.program is not None for stage in stages]


@pytest.mark.parametrize("outputs", [("scores",), ("joined",), ("joined.squeezed", "scores"), ("small.rows", "scores")])
@pytest.mark.parametrize(("dtype", "is_of_one_scale"), [("uint8", False), ("uint8", True), ("int8", True)])
def test_rows_are_made_where_the_maps_are(dtype, is_of_one_scale, outputs):
    for columns in ((1, 4), (4,)):
        stages = assert_engines_agree(network(dtype, is_of_one_scale, columns), outputs, threads=2)
        assert stages.count(True) == 1
        assert all(stages) == ("small.rows" not in outputs)  # which is a view of a map that is kept as it is


def test_several_pictures_are_joined_by_the_definition():
    stages = assert_engines_agree(network("uint8", False, batch=2), ("joined",), batch=2)
    assert not all(stages)


def test_what_the_rows_become_may_be_a_map_again():
    made = network("uint8", False)
    total = Operation("add", ("joined", "joined"), "joined.sum", {"activation": "linear"})
    shown = {**made.tensors, total.output: dataclasses.replace(made.tensors["joined"], name=total.output)}
    twice = Network(shown, (*made.operations, total), made.inputs, ("joined.sum",))
    assert assert_engines_agree(twice, ("joined.sum", "scores")) == [True, True]
