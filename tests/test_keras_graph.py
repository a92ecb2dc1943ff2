"""The graph of a Keras model: connections as the file states them, in the words of Keras 2 and Keras 3."""

from __future__ import annotations

from typing import Any

import pytest

from minimobile.errors import FormatError
from minimobile.formats.keras.keras_config import parse_model
from minimobile.formats.keras.keras_graph import FlatModel, flatten
from minimobile.formats.matching.network import PICTURE

INPUT = {"class_name": "InputLayer", "config": {"name": "in", "batch_shape": [None, 8, 9, 3]}, "inbound_nodes": []}


def layer(name: str, *nodes: Any, class_name: str = "ReLU") -> dict[str, Any]:
    return {"class_name": class_name, "config": {"name": name}, "inbound_nodes": list(nodes)}


def old(*names: Any, **keywords: Any) -> list[Any]:
    """Return a call as Keras 2 writes it; a name stands for its first call."""
    return [[name, 0, 0, keywords] if isinstance(name, str) else [*name, 0, keywords] for name in names]


def new(*values: Any, **keywords: Any) -> dict[str, Any]:
    """Return a call as Keras 3 writes it."""

    def record(value: Any) -> Any:
        if isinstance(value, list):
            return [record(item) for item in value]
        if isinstance(value, str):
            return {"class_name": "__keras_tensor__", "config": {"keras_history": [value, 0, 0]}}
        return value

    return {"args": [record(value) for value in values], "kwargs": keywords}


def model(*layers: dict[str, Any], output: Any = ("c", 0, 0), inputs: Any = ("in", 0, 0)) -> dict[str, Any]:
    ends = {"input_layers": [list(inputs)], "output_layers": [list(output)]}
    return {"class_name": "Functional", "config": {"name": "m", "layers": list(layers), **ends}}


def read(config: dict[str, Any]) -> FlatModel:
    return flatten(parse_model(config, "x.keras"), "x.keras")


def arguments(flat: FlatModel) -> dict[str, tuple[Any, ...]]:
    return {call.name: call.arguments for call in flat.calls}


@pytest.mark.parametrize(("node", "is_kept"), [(old, True), (new, False)])
def test_a_call_of_keras_2_is_for_training_where_it_says_so_or_the_model_around_it_is(node: Any, is_kept: bool) -> None:
    """Keras 3 overrides what it notes, in `predict`."""
    inner = model(INPUT, layer("a", node("in")), layer("b", node("a", training=False)), output=("b", 0, 0))
    inner["config"]["name"] = "inner"
    for outer, expected in ((True, is_kept), (None, False), (False, False)):
        nested = inner | {"inbound_nodes": [node("in", training=outer)]}
        calls = read(model(INPUT, nested, layer("c", node("inner")))).calls
        assert [call.is_training for call in calls] == [expected, False, False]


@pytest.mark.parametrize("node", [old, new])
def test_layers_are_ordered_by_their_connections(node: Any) -> None:
    join = layer("c", node("b", "a") if node is old else node(["b", "a"]), class_name="Add")
    flat = read(model(join, layer("b", node("a")), INPUT, layer("a", node("in"))))
    assert arguments(flat) == {"a": (PICTURE,), "b": ("a",), "c": ("b", "a")}
    assert list(arguments(flat)) == ["a", "b", "c"]
    assert (flat.output, flat.input_shape) == ("c", (8, 9, 3))


def test_what_the_output_does_not_need_is_left_out() -> None:
    flat = read(model(INPUT, layer("c", old("in")), layer("aside", old("c"))))
    assert list(arguments(flat)) == ["c"]


def test_a_layer_called_twice_is_two_calls() -> None:
    flat = read(model(INPUT, layer("a", old("in"), old("b")), layer("b", old("a")), layer("c", old(("a", 1)))))
    first, middle, second, last = flat.calls
    assert (first.name, first.path, second.path) == ("a", ("a",), ("a",))
    assert second.name != "a"
    assert (middle.arguments, second.arguments, last.arguments) == (("a",), ("b",), (second.name,))


@pytest.mark.parametrize("number", [0, 1])
def test_a_nested_model_is_opened_where_it_is_called(number: int) -> None:
    inner = model(INPUT, layer("c", old("in")))
    inner = {**inner, "config": {**inner["config"], "name": "inner"}, "inbound_nodes": [old("a")]}
    flat = read(model(INPUT, layer("a", old("in")), inner, layer("c", old(("inner", number)))))
    assert arguments(flat) == {"a": (PICTURE,), "inner/c": ("a",), "c": ("inner/c",)}
    assert flat.calls[1].path == ("inner", "c")


def test_numbers_among_the_arguments_keep_their_place() -> None:
    flat = read(model(INPUT, layer("a", new("in", 127.5)), layer("b", new(1.0, "a")), layer("c", old("b", y=2))))
    assert arguments(flat) == {"a": (PICTURE, 127.5), "b": (1.0, "a"), "c": ("b", 2.0)}


def test_the_second_operand_of_a_sum_in_tf_keras_may_be_a_layer() -> None:
    flat = read(model(INPUT, layer("a", old("in")), layer("b", old("a")), layer("c", old("b", y=["a", 0, 0]))))
    assert arguments(flat)["c"] == ("b", "a")


def test_a_sequential_model_is_a_chain_and_may_state_the_shape_in_its_first_layer() -> None:
    first = {"class_name": "ReLU", "config": {"name": "a", "batch_input_shape": [None, None, 5, 1]}}
    flat = read({"class_name": "Sequential", "config": {"layers": [first, layer("input"), layer("b")]}})
    assert [call.arguments for call in flat.calls] == [(PICTURE,), ("a",), (flat.calls[1].name,)]
    assert flat.calls[1].name != PICTURE  # a layer may be called what the picture is called here
    assert flat.input_shape == (None, 5, 1)


C = layer("c", old("in"))
DAMAGED: dict[str, tuple[dict[str, Any], str]] = {
    "cycle": (model(INPUT, layer("a", old("b")), layer("b", old("a")), layer("c", old("a"))), "without cycles"),
    "itself": (model(INPUT, layer("c", old("c"))), "without cycles"),
    "unknown-layer": (model(INPUT, layer("c", old("x"))), "a reference to 'x'"),
    "unknown-call": (model(INPUT, layer("c", old(("a", 2))), layer("a", old("in"))), "one of its 1 calls"),
    "unknown-output": (model(INPUT, C, output=("x", 0, 0)), "a reference to 'x'"),
    "second-output": (model(INPUT, C, output=("c", 0, 1)), "expected the name of a layer and two numbers"),
    "no-outputs": ({"class_name": "Functional", "config": {"layers": [INPUT, C]}}, "input_layers and output_layers"),
    "two-inputs": (
        {**model(INPUT, C), "config": {**model(INPUT, C)["config"], "input_layers": [["in", 0, 0], ["x", 0, 0]]}},
        "expected one input and one output, found 2 and 1",
    ),
    "no-input-read": (model(INPUT, layer("c", new(1.0))), "expected an output that depends on the one input"),
    "a-text-as-argument": (model(INPUT, layer("c", {"args": [["x"]]})), "expected int or float, found 'x'"),
    "no-shape": (model({**INPUT, "config": {"name": "in", "batch_shape": [None, 8, 8]}}, C), r"expected pictures"),
    "negative-shape": (model({**INPUT, "config": {"name": "in", "batch_shape": [None, -1, 8, 3]}}, C), "pictures"),
    "empty": ({"class_name": "Sequential", "config": {"layers": []}}, "expected a model with layers"),
    "history-no-list": (
        model(INPUT, layer("c", {"args": [{"class_name": "__keras_tensor__", "config": {"keras_history": 3}}]})),
        "expected the name of a layer and two numbers, found 3",
    ),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_a_damaged_graph_is_refused(case: str) -> None:
    config, match = DAMAGED[case]
    with pytest.raises(FormatError, match=match):
        read(config)


def test_a_layer_that_is_called_ten_thousand_times_is_refused() -> None:
    calls = [old("in"), *(old(("a", number)) for number in range(9_999))]
    with pytest.raises(FormatError, match="expected at most 5000 layers"):
        read(model(INPUT, layer("a", *calls), layer("c", old(("a", 9_999)))))
