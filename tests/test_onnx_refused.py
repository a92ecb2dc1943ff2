"""ONNX files that hold no MobileNet, and hostile and damaged ones: refused in one sentence, by node."""

from __future__ import annotations

import os

import numpy as np
import pytest
from graph_writer import field
from hostile import assert_refused, flip_bytes, truncations
from onnx_models import (
    initializer,
    model,
    node,
    rewrite,
    tensor,
    tiny_layers,
    tiny_v1,
    write_layers,
)

from minimobile import formats
from minimobile.errors import MinimobileError
from minimobile.formats.onnx.onnx_file import read
from minimobile.formats.onnx.schema import AttributeField, GraphField, ModelField


@pytest.fixture
def path(tmp_path):
    return tmp_path / "net.onnx"


WRONG = {
    "another activation": ("Clip", [node("Softplus", ["op_1"], "op_2", label="/act")], "node /act: .*found Softplus"),
    "one other activation": ("Clip", [node("HardSwish", ["op_1"], "op_2")], "expected activation hardswish .*relu6"),
    "another domain": ("Clip", [node("Clip", ["op_1"], "op_2", label="/a", domain="com.x")], "found com.x::Clip"),
    "other limits": ("Clip", [initializer("top", np.float32(5)), node("Clip", ["op_1", "", "top"], "op_2")], "limits"),
    "a filter that is computed": ("Conv", [node("Relu", ["pixels"], "w"), node("Conv", ["pixels", "w"], "op_0")],
                                  "constant of four dimensions"),
    "SAME_LOWER": ("Conv", [node("Conv", ["pixels", "op_0.weight"], "op_0", auto_pad="SAME_LOWER", strides=[2, 2])],
                   "found SAME_LOWER"),
    "two strides": ("Conv", [node("Conv", ["pixels", "op_0.weight"], "op_0", strides=[2, 1])], "the same for height"),
    "groups": ("Conv", [node("Conv", ["pixels", "op_0.weight"], "op_0", group=2)], "one filter for each channel"),
    "training": ("BatchNormalization", [node("BatchNormalization", ["op_0", *[f"op_1.{role}" for role in (
        "weight", "bias", "mean", "variance")]], "op_1", training_mode=1)], "batch norm for inference"),
    "a result twice": ("Conv", [node("Conv", ["pixels", "op_0.weight"], "op_1")], "its own name"),
    "an unknown input": ("Conv", [node("Conv", ["other", "op_0.weight"], "op_0")], "found 'other'"),
    "a cycle": ("Conv", [node("Conv", ["logits", "op_0.weight"], "op_0")], "without cycles"),
    "windows beyond the edge": ("GlobalAveragePool", [
        node("AveragePool", ["op_80"], "op_81", kernel_shape=[1, 1], ceil_mode=1)], "ceil_mode 0"),
    "computed padding": ("Clip", [node("Relu", ["op_1"], "act"), initializer("pads", np.array([0, 0, 1, 1] * 2)), node(
        "ReduceMean", ["act"], "gray", keepdims=0), node("Pad", ["act", "pads", "gray"], "op_2")], "around its map"),
    "dropout in training": ("GlobalAveragePool", [initializer("on", np.array(True)), node(
        "Dropout", ["op_80", "", "on"], "d"), node("GlobalAveragePool", ["d"], "op_81")], "dropout for inference"),
    "reflected padding": ("Conv", [node("Pad", ["pixels"], "p", mode="reflect", pads=[0, 0, 1, 1, 0, 0, 1, 1]),
                                   node("Conv", ["p", "op_0.weight"], "op_0")], "zeros around"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_is_no_mobilenet_is_refused_by_its_node(path, case):
    old, new, message = WRONG[case]
    rewrite(path, old, *new)
    assert_refused(read, path, message)
    assert formats.describe(path).problem


def test_another_network_is_named(path):
    rewrite(path, "Conv", node("HardSwish", ["pixels"], "op_0", label="mobilenetv3/stem"))
    assert_refused(read, path, "a MobileNet V3")


@pytest.mark.parametrize("opset", [0, 6, 29, 2**31])
def test_an_operator_set_that_is_not_known_is_refused_with_the_way_out(path, opset):
    path.write_bytes(tiny_v1(opset=opset))
    assert_refused(read, path, f"operator set 7 to 28, which are known here, found {opset}; export with one of them")


def test_a_function_of_the_models_own_is_refused_with_the_way_out(path):
    path.write_bytes(model(more=field(ModelField.FUNCTIONS, field(1, "Block"))))
    assert_refused(read, path, "inline_local_functions")


FOUR = np.zeros(4, np.float32)


def lie(**lies):
    """Return a constant that says of itself what is not so."""
    return [initializer("x", FOUR, **lies)]


def beside(location, **entries):
    """Return a constant of four numbers in a file beside the model."""
    return lie(external={"location": location, **entries})


ENDLESS = tensor("x", np.array([1]), "typed").replace(b"\x3a\x01\x01", b"\x3a\x01\x81")
HOSTILE = {
    "a tensor larger than the file": (lie(shape=(2**30, 1)), "expected 4294967296 bytes"),
    "a shape beyond all numbers": (lie(shape=(2**62, 2**62)), "sizes of zero or more"),
    "a negative size": (lie(shape=(-4,)), "sizes of zero or more"),
    "many dimensions": (lie(shape=(1,) * 9), "at most 8"),
    "an endless fill": (
        [initializer("n", np.array([2**40, 2**20])), node("ConstantOfShape", ["n"], "x")], "far beyond"
    ),
    "an endless broadcast": (
        [initializer("a", np.zeros((2**11, 1), np.float32)), node("Transpose", ["a"], "b"),
         node("Add", ["a", "b"], "c"), *[node("Concat", ["c" * n] * 99, "c" * (n + 1), axis=0) for n in (1, 2, 3, 4)]],
        "far beyond",
    ),
    "a cast to texts": ([initializer("n", np.array([7])), node("Cast", ["n"], "x", to=8)], "cannot be applied"),
    "scales of blocks": (
        [initializer("b", np.ones((4, 4), np.int8)), initializer("s", np.ones((4, 1), np.float32)),
         node("DequantizeLinear", ["b", "s"], "x", axis=1, block_size=4)],
        "cannot be applied",
    ),
    "a wrong reshape": ([initializer("n", np.array([7])), node("Reshape", ["n", "n"], "x")], "cannot be applied"),
    "data outside": (beside("../secret"), "own folder, found"),
    "data at the root": (beside("/etc/passwd"), "own folder"),
    "data on a drive": (beside("C:secret"), "own folder"),
    "data by a hidden way": (beside("a/../../b"), "own folder"),
    "no data": (beside("none"), "no such file"),
    "data that end": (beside("data", offset="9"), "of 16"),
    "data of another length": (beside("data", length="8"), "found 8"),
    "data before the start": (beside("data", offset="-1"), "offset and a length"),
    "the same data many times": ([initializer(f"x{n}", FOUR, external={"location": "data"}) for n in range(3)],
                                 "the same bytes"),
    "a link": (beside("link"), "found a link"),
    "a pipe": (beside("pipe"), "pipe"),
    "a sparse constant": ([field(GraphField.SPARSE_INITIALIZER, b"")], "sparse"),
    "a name that is no text": ([node("Relu", ["pixels"], "\x00").replace(b"\x00", b"\xff")], "UTF-8"),
    "numbers without an end": ([field(GraphField.INITIALIZER, ENDLESS)], "a part of one"),
    "two constants of one name": (lie() * 2, "two of 'x'"),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_what_is_hostile_is_refused_in_one_sentence(tmp_path, path, case):
    (tmp_path / "data").write_bytes(bytes(16))
    (tmp_path / "link").symlink_to("data")
    os.mkfifo(tmp_path / "pipe")
    parts, message = HOSTILE[case]
    path.write_bytes(model(*parts, *write_layers(tiny_layers()[0])))
    assert_refused(read, path, message)


def test_subgraphs_are_not_gone_down_into(path):
    """If in If, thousands of them: depth costs nothing where nobody goes."""
    graph = b""
    for _ in range(3_000):
        branch = field(AttributeField.NAME, "then_branch") + field(AttributeField.G, graph)
        graph = field(GraphField.NODE, field(2, "x") + field(4, "If") + field(5, branch))
    path.write_bytes(model(graph))
    assert_refused(read, path, "found none among 1 nodes")


LONG = {
    "nodes": (model(*[node("Relu", ["pixels"], f"x{number}") for number in range(20_001)]), "at most 20000 nodes"),
    "a name": (model(node("Relu", ["pixels"], "x" * 2_000)), "at most 1000 characters"),
    "a message that ends too soon": (field(1, 8) + b"\x3a\xff\xff\xff\xff\x0f", "truncated or damaged"),
    "two graphs": (field(1, 8) + 2 * field(7, b""), "one graph"),
}


@pytest.mark.parametrize("case", LONG)
def test_length_and_number_have_an_end(path, case):
    content, message = LONG[case]
    path.write_bytes(content)
    assert_refused(read, path, message)


def test_nodes_with_more_inputs_than_any_mobilenet_are_refused(path, monkeypatch):
    monkeypatch.setattr("minimobile.formats.onnx.model.EDGE_LIMIT", 100)
    path.write_bytes(model(*[node("Concat", ["pixels"] * 20, f"x{number}") for number in range(5)]))
    assert_refused(read, path, "at most 100 inputs and outputs of nodes")


def test_100_000_nodes_are_refused_before_they_are_read(path):
    path.write_bytes(model(node("Relu", ["pixels"], "x") * 100_000))
    assert_refused(read, path, "at most 20000 nodes")


def test_a_damaged_file_gives_a_network_or_one_sentence(path):
    content = tiny_v1(pads="strided")
    path.write_bytes(content)
    for _ in flip_bytes(path, 40):
        try_to_read(path)
    for beginning in truncations(content, len(content) // 40):
        path.write_bytes(beginning)
        try_to_read(path)


def try_to_read(path):
    try:
        formats.read(path)
    except MinimobileError as error:
        assert "\n" not in str(error)
