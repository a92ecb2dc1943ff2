"""ONNX files: activations are found however they are spelled, and no others."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from onnx_models import assert_same_numbers, initializer, model, node, tiny_layers, write_layers

import minimobile as mm
from minimobile import formats
from minimobile.formats.onnx.curves import CURVE, join_curves
from minimobile.formats.onnx.model import Node, read_model


@pytest.fixture
def path(tmp_path):
    return tmp_path / "net.onnx"


ACTIVATIONS = [
    ("gelu", 20, "inputs"),
    ("gelu", 17, "inputs"),
    ("sigmoid", 20, "inputs"),
    ("silu", 20, "inputs"),
    ("hardswish", 20, "inputs"),
    ("hardswish", 20, "torch"),
    ("sigmoid", 20, "channels last"),
    ("silu", 20, "channels last"),
    ("hardswish", 20, "channels last"),
]


def write_activated(path, function, opset, style):
    """Write a V1 with another activation than relu6, and return its layers and weights."""
    is_last = style == "channels last"  # where there is no batch norm
    layers, weights = tiny_layers(pads="all", folded=is_last)
    for layer in layers:
        if layer.attributes.get("function") == "relu6":
            layer.attributes["function"] = function
    shape = (1, 32, 32, 3) if is_last else (1, 3, 32, 32)
    path.write_bytes(model(*write_layers(layers, opset, style=style), opset=opset, shape=shape))
    return layers, weights


@pytest.mark.parametrize(("function", "opset", "style"), ACTIVATIONS)
def test_other_activations_stand_before_pads_and_a_mean(path, function, opset, style):
    layers, weights = write_activated(path, function, opset, style)
    checkpoint = formats.read(path)
    assert checkpoint.config.hidden_act == function
    if style != "channels last":
        assert_same_numbers(checkpoint, weights)
    sent = {layer.arrays["weight"].tobytes() for layer in layers if layer.op in ("conv2d", "depthwise_conv2d")}
    assert len(sent) == 27 and sent <= {values.tobytes() for values in checkpoint.weights.values()}


@pytest.mark.crosscheck
@pytest.mark.parametrize(("function", "opset", "style"), ACTIVATIONS)
def test_other_activations_are_those_of_onnx_runtime(path, function, opset, style):
    onnxruntime = pytest.importorskip("onnxruntime")
    write_activated(path, function, opset, style)
    pixels = np.random.default_rng(0).normal(0, 1, (1, 3, 32, 32)).astype(np.float32)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    fed = pixels.transpose(0, 2, 3, 1) if style == "channels last" else pixels
    theirs = session.run(None, {"pixels": fed})[0]
    ours = mm.load(path)(pixels).logits
    np.testing.assert_allclose(ours, theirs.reshape(ours.shape), rtol=0, atol=2e-6 * np.abs(theirs).max())
    report = mm.check(path, pixel_values=pixels, against="onnxruntime")  # maps of 8x8 pixels have 8 channels
    assert report.agrees, report


def operation(op, inputs, name, **attributes):
    return Node(name, op, tuple(inputs), attributes, "a test", "", (name,))


def test_transposes_that_do_not_lead_back_make_no_activation():
    x = np.random.default_rng(0).normal(size=(2, 2, 2, 2))
    count = 0
    orders = list(itertools.permutations(range(4)))
    for there, back, aside in itertools.product(orders, orders, [(0, 1, 2, 3), (0, 2, 3, 1)]):
        nodes = [
            operation("Transpose", ["x"], "there", perm=there),
            operation("Sigmoid", ["there"], "factor"),
            operation("Transpose", ["factor"], "back", perm=back),
            operation("Transpose", ["x"], "aside", perm=aside),
            operation("Mul", ["back", "aside"], "product"),
        ]
        found = join_curves(nodes, {})
        is_silu = np.array_equal(x.transpose(there).transpose(back), x.transpose(aside))
        kept = ["Transpose", CURVE] if is_silu else ["Transpose", "Sigmoid", "Transpose", "Transpose", "Mul"]
        assert [each.op for each in found] == kept
        assert not is_silu or (found[-1].inputs, found[-1].text("function", "")) == (("aside",), "silu")
        count += is_silu
    assert count == 24 * 2


def hard_sigmoid(*changes, **numbers):
    """Return the nodes of x * relu6(x + 3) / 6 and its constants, `changes` being (name of a node, what it is)."""
    values = {"three": 3.0, "low": 0.0, "high": 6.0, "sixth": 1 / 6, "six": 6.0} | numbers
    nodes = {
        "raised": operation("Add", ["three", "x"], "raised"),
        "clipped": operation("Clip", ["raised", "low", "high"], "clipped"),
        "factor": operation("Mul", ["clipped", "sixth"], "factor"),
        "product": operation("Mul", ["x", "factor"], "product"),
    } | {node.name: node for node in changes}
    return list(nodes.values()), {name: np.float32(value) for name, value in values.items()}


@pytest.mark.parametrize(
    ("given", "is_hardswish"),
    [
        (hard_sigmoid(), True),
        (hard_sigmoid(operation("Div", ["clipped", "six"], "factor")), True),
        (hard_sigmoid(operation("Clip", ["raised"], "clipped", min=0.0, max=6.0)), True),
        (hard_sigmoid(operation("Mul", ["clipped", "x"], "factor"), operation("Div", ["factor", "six"], "product")),
         True),
        (hard_sigmoid(operation("HardSigmoid", ["x"], "factor", alpha=1 / 6)), True),
        (hard_sigmoid(operation("HardSigmoid", ["x"], "factor")), False),
        (hard_sigmoid(operation("Div", ["six", "clipped"], "factor")), False),
        (hard_sigmoid(operation("Clip", ["raised"], "clipped", min=0.0)), False),
        (hard_sigmoid(operation("Clip", ["raised", "low", ""], "clipped")), False),
        (hard_sigmoid(operation("Mul", ["y", "factor"], "product")), False),
        (hard_sigmoid(three=2.5), False),
        (hard_sigmoid(high=6.5), False),
        (hard_sigmoid(sixth=0.2), False),
    ],
)  # fmt: skip
def test_hardswish_is_what_has_its_numbers(given, is_hardswish):
    nodes, values = given
    found = [(node.op, node.inputs, node.text("function", "")) for node in join_curves(nodes, values)]
    assert (found[-1] == (CURVE, ("x",), "hardswish")) == is_hardswish
    assert ("factor" in [node.name for node in join_curves(nodes, values)]) != is_hardswish


@pytest.mark.parametrize("reader", [("HardSwish", "Sigmoid", []), ("Add", "Add", ["one"])])
def test_what_others_read_of_a_joined_activation_stays(path, reader):
    """The sigmoid of a silu that another activation reads; the sum of a gelu that is added to it."""
    op, part, more = reader
    if part == "Sigmoid":
        nodes = [node(part, ["pixels"], "part"), node("Mul", ["pixels", "part"], "curve")]
    else:
        nodes = [node("Mul", ["pixels", "root"], "scaled"), node("Erf", ["scaled"], "erf")]
        nodes += [node(part, ["erf", "one"], "part"), node("Mul", ["pixels", "half"], "halved")]
        nodes.append(node("Mul", ["halved", "part"], "curve"))
    constants = {"one": np.float32(1), "half": np.float32(0.5), "root": np.sqrt(np.float32(0.5))}
    nodes = [
        *(initializer(name, number) for name, number in constants.items()),
        *nodes,
        node(op, ["part", *more], "other"),
    ]
    path.write_bytes(model(*nodes, node("Add", ["curve", "other"], "logits")))
    joined = join_curves(read_model(path).nodes, constants)
    assert [each.op for each in joined if each.name == "curve"] == [CURVE]
    made = {"pixels", *constants, *(each.name for each in joined)}
    assert made.issuperset(name for each in joined for name in each.inputs)


def test_a_gelu_by_tanh_and_another_slope_are_other_functions(path):
    cases = [("Gelu", {"approximate": "tanh"}, "Gelu"), ("Gelu", {"approximate": "none"}, CURVE), ("Gelu", {}, CURVE)]
    cases += [("LeakyRelu", {"alpha": slope}, op) for slope, op in ((0.1, "LeakyRelu"), (0.01, CURVE))]
    for written, attributes, op in cases:
        path.write_bytes(model(node(written, ["pixels"], "logits", **attributes)))
        (found,) = join_curves(read_model(path).nodes, {})
        assert found.op == op
