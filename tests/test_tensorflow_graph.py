"""Frozen TensorFlow graphs: a network comes back from its nodes."""

from __future__ import annotations

import numpy as np
import pytest
from graph_writer import (
    RELU6,
    batch_norm,
    const,
    conv,
    field,
    node,
    rewrite,
    tiny_v1,
    write,
)
from hostile import assert_refused

from minimobile import formats
from minimobile.formats.signatures import is_tensorflow_graph
from minimobile.formats.tensorflow.tensorflow_graph import describe, read


@pytest.fixture
def path(tmp_path):
    return tmp_path / "frozen.pb"


def test_a_network_comes_back_bit_for_bit(path):
    content, numbers = tiny_v1()
    path.write_bytes(content)
    assert is_tensorflow_graph(path)
    checkpoint = formats.read(path)
    assert checkpoint.architecture == "MobileNetV1ForImageClassification"
    assert checkpoint.dialect == "slim"
    assert checkpoint.config.image_size == 32
    assert checkpoint.config.num_labels == 5
    assert checkpoint.config.layer_norm_eps == 0.001
    assert checkpoint.mapped["depthwise_3/norm/v"] == "mobilenet_v1.layer.6.normalization.running_var"
    assert set(checkpoint.mapped) == set(numbers)
    for name, values in numbers.items():
        found = checkpoint.weights[checkpoint.mapped[name]]
        order = {4: (2, 3, 0, 1) if "depthwise" in name else (3, 2, 0, 1)}.get(values.ndim, (0,))
        assert found.dtype == np.float32
        assert found.tobytes() == np.ascontiguousarray(values.transpose(order)).tobytes(), name
    assert checkpoint.endpoints["layer.25"] == "pointwise_12/relu6"
    assert checkpoint.endpoints["classifier"] == "scores"
    assert checkpoint.ignored == {"flat": "changes the shape only", "probabilities": "the model gives logits"}
    assert checkpoint.provenance["input"] == "input"


def test_a_folded_network_has_the_files_own_numbers_and_batch_norms_that_do_nothing(path):
    content, numbers = tiny_v1("none")
    path.write_bytes(content)
    checkpoint = read(path)
    assert checkpoint.mapped["stem/b"] == "mobilenet_v1.conv_stem.normalization.bias"
    bias = checkpoint.weights["mobilenet_v1.conv_stem.normalization.bias"]
    assert bias.tobytes() == numbers["stem/b"].tobytes()
    variance = checkpoint.weights["mobilenet_v1.conv_stem.normalization.running_var"]
    assert (variance == np.float32(1 - checkpoint.config.layer_norm_eps)).all()


SCALINGS = {
    "tf": ([node("picture", "Mul", "input", "half"), node("scaled", "Sub", "picture", "one")], 127.5, 127.5),
    "division": ([node("picture", "Sub", "input", "127"), node("scaled", "RealDiv", "picture", "127")], 127.5, 127.5),
    "cast": ([node("picture", "Cast", "input"), node("scaled", "Mul", "half", "picture")], 0, 127.5),
    "means": ([node("picture", "Sub", "input", "means"), node("scaled", "Mul", "picture", "half")], (1, 2, 3), 127.5),
    "padded": (
        [
            node("centred", "Sub", "input", "127"),
            node("amounts", "Pack", "computed"),
            node("computed", "Shape", "input"),
            node("padded", "Pad", "centred", "amounts"),
            node("picture", "AddV2", "padded", "127"),
            node("product", "Mul", "half", "picture"),
            node("scaled", "Sub", "product", "one"),
        ],
        127.5,
        127.5,
    ),
}


@pytest.mark.parametrize("scaling", SCALINGS)
def test_the_graphs_own_scaling_becomes_the_processors(path, scaling):
    nodes, mean, std = SCALINGS[scaling]
    constants = [const("half", 1 / 127.5), const("one", 1.0), const("127", 127.5), const("means", [1.0, 2.0, 3.0])]
    content, _ = tiny_v1()
    old = conv("stem/conv", "input", "stem/weights/read", 2)
    assert old in content
    content = content.replace(old, conv("stem/conv", "scaled", "stem/weights/read", 2))
    write(path, *constants, *nodes, content)
    settings = read(path).processor
    factor = settings["rescale_factor"] if settings["do_rescale"] else 1
    for x in (0.0, 255.0):
        found = (x * factor - np.array(settings["image_mean"])) / settings["image_std"]
        np.testing.assert_allclose(found, (x - np.broadcast_to(mean, 3)) / std, rtol=1e-5, atol=1e-6)


WEIGHT = "mobilenet_v1.conv_stem.convolution.weight"
NORM = "mobilenet_v1.conv_stem.normalization."
STEM = b"".join(batch_norm("stem/norm", "stem/conv"))


@pytest.mark.parametrize("parts", ["gbmv", "bmv", "gmv", "mv"])
def test_batch_norm_written_out_keeps_its_numbers(path, parts):
    rewrite(path, STEM, *batch_norm("stem/norm", "stem/conv", parts=parts))
    weights = read(path).weights
    numbers = tiny_v1()[1]
    for role, name, default in (
        ("g", "weight", 1),
        ("b", "bias", 0),
        ("m", "running_mean", 0),
        ("v", "running_var", 1),
    ):
        expected = numbers[f"stem/norm/{role}"] if role in parts else np.full(8, default)
        np.testing.assert_array_equal(weights[NORM + name], expected)


@pytest.mark.parametrize("op", ["FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3"])
def test_fused_batch_norm_is_the_same(path, op):
    inputs = ["stem/conv", *(f"stem/norm/{role}" for role in "gbmv")]
    rewrite(path, STEM, node("stem/norm", op, *inputs, epsilon=0.001, is_training=False))
    fused = read(path)
    rewrite(path, STEM, STEM)
    plain = read(path)
    assert fused.config == plain.config
    assert all(np.array_equal(values, plain.weights[name]) for name, values in fused.weights.items())


def test_fused_batch_norm_of_a_training_graph_is_refused(path):
    inputs = ["stem/conv", *(f"stem/norm/{role}" for role in "gbmv")]
    rewrite(path, STEM, node("stem/norm", "FusedBatchNormV3", *inputs, epsilon=0.001))  # is_training is true by default
    assert_refused(read, path, "stem/norm .*is_training false")


@pytest.mark.parametrize("is_aligned", [True, False])
def test_a_batch_norm_that_the_graph_folds_is_unfolded(path, is_aligned):
    """As tf.contrib.quantize writes it; a product along the inputs' channels is no batch norm, and stays a product."""
    layer = "pointwise_0"
    content, numbers = tiny_v1()
    parts = batch_norm(f"{layer}/norm", f"{layer}/conv")
    kept = [part for part in parts[:-1] if field(2, "Mul") + field(3, f"{layer}/conv") not in part]
    assert len(kept) == len(parts) - 2
    kept += [const("shape", [8] if is_aligned else [8, 1]), node("tall", "Reshape", f"{layer}/norm/mul", "shape")]
    kept += [node("folded", "Mul", f"{layer}/weights", "tall")]
    kept += [node(f"{layer}/norm", "Add", f"{layer}/conv", f"{layer}/norm/sub")]
    content = content.replace(b"".join(parts), b"".join(kept))
    plain = conv(f"{layer}/conv", "depthwise_0/relu6", f"{layer}/weights/read")
    assert content.count(plain) == 1
    write(path, content.replace(plain, conv(f"{layer}/conv", "depthwise_0/relu6", "folded")))
    weights = read(path).weights
    variance, mean = (weights[f"mobilenet_v1.layer.1.normalization.{name}"] for name in ("running_var", "running_mean"))
    weight = weights["mobilenet_v1.layer.1.convolution.weight"]
    if is_aligned:
        np.testing.assert_array_equal(weight, numbers[f"{layer}/weights"].transpose(3, 2, 0, 1))
        np.testing.assert_array_equal(variance, numbers[f"{layer}/norm/v"])
        np.testing.assert_array_equal(mean, numbers[f"{layer}/norm/m"])
    else:
        scale = numbers[f"{layer}/norm/g"] / np.sqrt(numbers[f"{layer}/norm/v"] + 0.001)
        product = numbers[f"{layer}/weights"] * scale[:, None]
        np.testing.assert_allclose(weight, product.transpose(3, 2, 0, 1), rtol=1e-6)
        assert not mean.any()


AFFINE = {
    "bias": ([node("stem/norm", "Add", "stem/conv", "stem/norm/b")], 1, 1),
    "bias first": ([node("stem/norm", "AddV2", "stem/norm/b", "stem/conv")], 1, 1),
    "less": ([node("stem/norm", "Sub", "stem/conv", "stem/norm/b")], 1, -1),
    "factor": ([node("stem/norm", "Mul", "stem/conv", "stem/norm/g")], "g", 0),
    "both": ([node("x", "Mul", "stem/norm/g", "stem/conv"), node("stem/norm", "Sub", "x", "stem/norm/b")], "g", -1),
}


@pytest.mark.parametrize("form", AFFINE)
def test_other_sums_and_products_join_the_convolution(path, form):
    nodes, factor, sign = AFFINE[form]
    rewrite(path, STEM, *nodes)
    weights = read(path).weights
    numbers = tiny_v1()[1]
    factor = numbers["stem/norm/g"] if factor == "g" else np.float32(1)
    expected = (numbers["stem/weights"] * factor).transpose(3, 2, 0, 1)
    np.testing.assert_array_equal(weights[WEIGHT], expected)
    np.testing.assert_array_equal(weights[NORM + "bias"], sign * numbers["stem/norm/b"])


def test_relu6_by_clipping_is_relu6(path):
    clip = [
        node("low", "Relu", "stem/norm"),
        const("six", 6.0),
        const("zero", 0.0),
        node("high", "Minimum", "low", "six"),
    ]
    rewrite(path, RELU6, *clip, node("stem/relu6", "Maximum", "high", "zero"))
    assert read(path).config.hidden_act == "relu6"


def test_padding_of_a_graph_may_be_explicit(path):
    """One row below and one column on the right: SAME for the 32 pixels of this graph, but not in general."""
    old = conv("stem/conv", "input", "stem/weights/read", 2)
    sides = [0, 0, 0, 1, 0, 1, 0, 0]
    new = conv("stem/conv", "input", "stem/weights/read", 2, "EXPLICIT", explicit_paddings=sides)
    rewrite(path, old, new)
    assert read(path).config.tf_padding
    amounts = const("sides", np.reshape(sides, (4, 2)))
    pad = node("pad", "Pad", "input", "sides")
    rewrite(path, old, amounts, pad, conv("stem/conv", "pad", "stem/weights/read", 2, "VALID"))
    assert read(path).config.tf_padding


def test_a_network_trained_for_quantisation_must_be_so_throughout(path):
    limits = [const("low", 0.0), const("high", 6.0)]
    fake = node("stem/relu6", "FakeQuantWithMinMaxVars", "stem/plain", "low", "high", num_bits=8)
    rewrite(path, RELU6, node("stem/plain", "Relu6", "stem/norm"), *limits, fake)
    assert_refused(read, path, "a trained range for everything that is quantised, found none for 55 of 56")
    assert describe(path).dialect == "slim"


def test_describe_tells_what_is_in_any_graph(path):
    versions = field(4, field(1, 2209))
    write(path, tiny_v1()[0], node("leak", "WriteFile", "input"), versions)
    found = describe(path)
    assert found.format == "TensorFlow frozen graph"
    assert found.producer == "TensorFlow, graph version 2209"
    assert found.dialect is None
    assert ("stem/weights", (3, 3, 3, 8), "float32") in found.entries
    assert found.facts["inputs"] == "input"
    assert found.facts["outputs"] == "probabilities, leak"
    assert "DepthwiseConv2dNative 13" in found.facts["operations"]
