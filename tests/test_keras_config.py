"""A Keras model's configuration as a tree, whatever is wrong in it."""

from __future__ import annotations

from typing import Any

import pytest

from minimobile.errors import FormatError
from minimobile.formats.keras.keras_config import (
    DEPTH_LIMIT,
    LAYER_LIMIT,
    NAME_LIMIT,
    count_classes,
    expect,
    parse_model,
    quote,
    walk,
)


def sequential(*layers: Any, name: str = "m") -> dict[str, Any]:
    return {"class_name": "Sequential", "config": {"name": name, "layers": list(layers)}}


def relu(name: str) -> dict[str, Any]:
    return {"class_name": "ReLU", "config": {"name": name}}


def test_a_model_is_a_tree_of_layers() -> None:
    model = parse_model(sequential(relu("a"), sequential(relu("a"), relu("b"), name="inner"), relu("c")), "x.keras")
    assert [child.name for child in model.children] == ["a", "inner", "c"]
    assert [layer.name for layer in walk(model)] == ["a", "a", "b", "c"]
    assert count_classes(model) == "ReLU 4"


def test_before_keras_2_2_3_a_sequential_models_config_was_a_list() -> None:
    model = parse_model({"class_name": "Sequential", "config": [relu("a")]}, "x.h5")
    assert [child.name for child in model.children] == ["a"]


@pytest.mark.parametrize(
    ("entry", "match"),
    [
        ({}, "class_name: expected str, found None"),
        ({"class_name": "Conv2D", "config": {}}, "expected a Sequential or Functional model, found a Conv2D"),
        ({"class_name": "Functional"}, "layers: expected list, found None"),
        ({"class_name": "Functional", "config": 3}, "config of a Functional: expected dict, found 3"),
        (sequential(3), "layer: expected dict, found 3"),
        (sequential({"class_name": "ReLU", "config": []}), "config of a ReLU: expected dict"),
        (sequential({"class_name": "ReLU", "config": {"name": 7}}), "name of a ReLU: expected str, found 7"),
        (sequential(relu("a"), relu("a")), "expected every layer's name once, found 'a' twice"),
        (sequential(relu("a" * (NAME_LIMIT + 1))), "expected names of at most 200 characters"),
        (sequential({**relu("a"), "module": "os"}), "layer 'a': expected a layer of Keras itself, found 'ReLU'"),
        (sequential({**relu("a"), "module": 3}), "module: expected str"),
        (sequential({**relu("a"), "inbound_nodes": {"b": 1}}), "inbound_nodes: expected list"),
    ],
)
def test_what_no_keras_writes_is_refused(entry: dict[str, Any], match: str) -> None:
    with pytest.raises(FormatError, match=match):
        parse_model(entry, "x.keras")


def test_depth_and_number_of_layers_are_bounded() -> None:
    model = sequential(relu("a"))
    for _ in range(DEPTH_LIMIT + 1):
        model = sequential(model)
    with pytest.raises(FormatError, match="expected at most 16 models within each other"):
        parse_model(model, "x.keras")
    with pytest.raises(FormatError, match="expected at most 5000 layers"):
        parse_model(sequential(*(relu(str(index)) for index in range(LAYER_LIMIT + 1))), "x.keras")


def test_values_in_messages_are_short() -> None:
    assert len(quote([{"a": "b" * 1000}] * 1000)) < 1000
    with pytest.raises(FormatError, match=r"^here: expected int or float, found True$"):
        expect(True, (int, float), "here")
