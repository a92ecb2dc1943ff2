"""An operation of a graph is one file and a row of the table: every part of the library finds what it asks for."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from cases import assert_same_bits, open_runner, random_image, random_weights

from minimobile.comparison.float32_bounds import estimate, exact, excess
from minimobile.costs.profile import profile_nodes
from minimobile.costs.receptive_field import receptive_fields
from minimobile.networks.graph import INPUT, Graph, Node
from minimobile.operations.estimate import Estimate
from minimobile.operations.operation import Array, Maps, Operation, Rows, Weights
from minimobile.operations.shapes import infer_shapes, sliding_window
from minimobile.operations.table import OPERATIONS
from minimobile.operations.written_out import Position, Scalar, Stage, as_array
from minimobile.tracing.explain import explain
from minimobile_kernels import reference

CONVOLUTION = Node("deep", "pointwise_conv2d", (INPUT,), {}, {"weight": "w"})


class Relu3(Operation):
    """An operation without a kernel of its own: min(max(x, 0), 3)."""

    is_stage = True

    def define(self, node: Node, weights: Weights, inputs: Sequence[Array]) -> Array:
        return np.clip(inputs[0], 0, 3)

    def add_rows(self, rows: Rows, node: Node) -> None:
        rows.add("activation", node, {"curve": -1, "low": 0, "high": 3})

    def error(self, node: Node, inputs: Sequence[Estimate], value: Array) -> Array:
        return inputs[0].error

    def stage(self, node: Node, value: Scalar, maps: Maps, at: Position) -> Stage:
        return Stage("relu3", None, self.define(node, {}, [as_array(value)])[0])


@pytest.fixture
def graph(monkeypatch: pytest.MonkeyPatch) -> Graph:
    monkeypatch.setitem(OPERATIONS, "relu3", Relu3())  # type: ignore[arg-type]
    return Graph((CONVOLUTION, Node("cut", "relu3", ("deep",))), 5, ("cut",), {"w": (7, 5, 1, 1)})


def test_a_new_operation_is_one_class_and_a_row(graph: Graph) -> None:
    weights, image = random_weights(graph), random_image((2, 5, 4, 3))
    compiled, defined = (open_runner(graph, weights, engine=engine).run(image, ["cut"])["cut"]
                         for engine in ("compiled", "reference"))  # fmt: skip
    assert_same_bits(compiled, defined, "relu3")
    assert compiled.min() == 0 and compiled.max() == 3
    assert infer_shapes(graph, 4, 3)["cut"] == (7, 4, 3)
    assert [cost.multiply_adds for cost in profile_nodes(graph, (4, 3))] == [4 * 3 * 35, 0]
    assert receptive_fields(graph, 4)["cut"] == receptive_fields(graph, 4)[INPUT]
    pixels = image.transpose(0, 2, 3, 1)
    explanation = explain(graph, weights, open_runner(graph, weights), pixels[:1], "cut", (1, 2, 6))
    assert explanation.agrees and [stage.name for stage in explanation.stages] == ["block 0", "bias", "relu3"]
    expected = estimate(graph.nodes, weights, {INPUT: exact(pixels)})
    assert excess(expected, compiled.transpose(0, 2, 3, 1)).max() <= 1
    assert excess(expected, compiled.transpose(0, 2, 3, 1) + np.float32(1e-4)).max() > 1


@pytest.mark.parametrize("op", OPERATIONS)
def test_an_operation_stands_in_a_module_of_its_name(op: str) -> None:
    path = Path(inspect.getfile(type(OPERATIONS[op])))
    assert (path.parent.name, path.stem) == ("operations", op)


@pytest.mark.parametrize(
    ("node", "message"),
    [
        (Node("sum", "add", (INPUT,)), r"sum \(add\): 1 inputs"),
        (Node("cut", "activation", (INPUT,)), r"cut \(activation\): without function"),
        (Node("deep", "conv2d", (INPUT,), {"stride": 1, "dilation": 1, "padding": "SAME"}), "kernel_size, weight"),
        (Node("norm", "batch_norm", (INPUT,), {"epsilon": 1e-3}), "without weight, bias, mean, variance"),
    ],
)
def test_a_node_that_lacks_what_its_operation_needs_is_told(node: Node, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        infer_shapes(Graph((node,), 3, (node.name,), {}), 8, 8)


def test_an_operation_has_a_name_short_enough_for_a_terminal() -> None:
    """Six letters, in tables of traces; what a value is rounded by is never a row of its own."""
    names = {op: operation.short_name or op for op, operation in OPERATIONS.items() if op != "fake_quantize"}
    assert max(map(len, names.values())) <= 6, names


def test_an_operation_without_a_window_has_that_of_one_pixel() -> None:
    node = Node("cut", "activation", (INPUT,), {"function": "relu6"})
    assert sliding_window(node, 5, 7) == sliding_window(CONVOLUTION, 5, 7)
    assert (sliding_window(node, 5, 7).out_height, sliding_window(node, 5, 7).out_width) == (5, 7)


def test_what_trained_rounding_is_called_in_a_layer() -> None:
    """Rounded are the layers' last steps and sums; what only moves values has no range of its own."""
    named = {op: operation.rounded_step for op, operation in OPERATIONS.items() if operation.rounded_step}
    assert named == {"pointwise_conv2d": "convolution", "batch_norm": "normalization", "activation": "activation",
                     "add": "add"}  # fmt: skip


def test_the_default_error_is_that_of_an_operation_that_rounds_nothing() -> None:
    x, y = (exact(random_image((1, 4, 4, channels), seed=channels)) for channels in (3, 5))
    x = Estimate(x.value, np.full_like(x.value, 0.25), x.magnitude, x.deviation)
    node = Node("both", "concatenate", ("x", "y"))
    found = OPERATIONS["concatenate"].estimate(node, {}, [x, y])
    np.testing.assert_array_equal(found.error, reference.concatenate(x.error, y.error))
