"""Frozen TensorFlow graphs: a network comes back from its nodes; what is hostile or no MobileNet is refused by name."""

from __future__ import annotations

import numpy as np
import pytest
from graph_writer import (
    batch_norm,
    const,
    conv,
    draw_norm,
    field,
    node,
    placeholder,
    shape_proto,
    tensor_proto,
    tiny_v1,
    varint,
)
from hostile import FOREIGN, assert_refused, flip_bytes, truncations

from minimobile import formats
from minimobile.errors import MinimobileError
from minimobile.formats.tensorflow.tensorflow_graph import describe, read, recognise


@pytest.fixture
def path(tmp_path):
    return tmp_path / "frozen.pb"


def write(path, *nodes):
    path.write_bytes(b"".join(nodes))
    return path


def test_a_network_comes_back_bit_for_bit(path):
    content, numbers = tiny_v1()
    path.write_bytes(content)
    assert recognise(path)
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


def rewrite(path, old, *new):
    """Write the tiny network with one node replaced."""
    content, _ = tiny_v1()
    assert content.count(old) == 1
    return write(path, content.replace(old, b"".join(new)))


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


RELU6 = node("stem/relu6", "Relu6", "stem/norm")


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


def small_graph():
    """Return no whole network: what a reader has to understand, in 1,500 bytes."""
    random = np.random.default_rng(0)
    nodes = [placeholder(), const("half", 0.5), node("scaled", "Mul", "input", "half")]
    nodes += [const("stem/weights", random.normal(0, 1, (3, 3, 3, 2)))]
    nodes += [const(f"norm/{role}", values) for role, values in draw_norm(random, 2).items()]
    nodes += [conv("stem", "scaled", "stem/weights", 2), *batch_norm("norm", "stem"), node("relu", "Relu6", "norm")]
    nodes += [
        const("block", [2, 2]),
        const("pads", [[2, 2], [2, 2]]),
        const("depthwise/weights", np.ones((3, 3, 2, 1))),
    ]
    nodes += [node("blocks", "SpaceToBatchND", "relu", "block", "pads")]
    nodes += [conv("depthwise", "blocks", "depthwise/weights", padding="VALID", dilations=[1, 1, 1, 1])]
    nodes += [node("joined", "BatchToSpaceND", "depthwise", "block", "pads"), const("axes", [1, 2])]
    nodes += [node("pool", "Mean", "joined", "axes"), node("end", "Softmax", "pool")]
    return b"".join(nodes) + field(4, varint(8) + varint(2209))


SMALL = small_graph()


# What is refused: nodes beside the small graph's, and words of the refusal.
EFFECTS = [
    "ReadFile",
    "WriteFile",
    "PyFunc",
    "PrintV2",
    "SaveV2",
    "DatasetFromGraph",
    "PartitionedCall",
    "LookupTableFindV2",
]
HUGE = shape_proto([2**20, 2**20])


def deep(count):
    """Return an attribute of functions in functions."""
    parts, size = [], 0
    for _ in range(count):
        for number, before in ((2, field(1, "f")), (2, b""), (10, b"")):  # from the innermost outwards
            parts.append(before + varint(number << 3 | 2) + varint(size))
            size += len(parts[-1])
    return b"".join(reversed(parts))


ADDED = {
    **{op: (node("bad", op, "input"), f"node bad: .* found {op}") for op in EFFECTS},
    "library": (field(2, field(1, b"")), "library of 1 functions"),
    "two of a name": (placeholder(), "two of 'input'"),
    "no such input": (node("bad", "Relu", "nobody"), "node bad: its input 'nobody' is no node"),
    "no name": (node("", "Relu", "input"), "a name and an operation"),
    "a long name": (node("n" * 500, "Relu", "input"), "a name and an operation"),
    "itself": (node("bad", "Relu", "bad"), "cycle"),
    "a cycle": (node("a", "Relu", "b") + node("b", "Add", "input", "a"), "cycle"),
    "a long cycle": (
        node("c0", "Relu", "c299") + b"".join(node(f"c{n}", "Relu", f"c{n - 1}") for n in range(1, 300)),
        "cycle",
    ),
    "content too short": (node("bad", "Const", value=field(8, tensor_proto(np.ones(3, np.float32), (4,)))), "16 bytes"),
    "content too long": (node("bad", "Const", value=field(8, tensor_proto(np.ones(3, np.float32), (2,)))), "8 bytes"),
    "a negative size": (node("bad", "Const", value=field(8, tensor_proto(np.ones(1, np.float32), (-1,)))), "shape"),
    "a huge shape": (node("bad", "Const", value=field(8, field(1, 1) + field(2, HUGE))), "shape of a constant"),
    "many dimensions": (
        node("bad", "Const", value=field(8, field(1, 1) + field(2, shape_proto([1] * 40)))),
        "at most 8 dimensions",
    ),
    "too many values": (
        node("bad", "Const", value=field(8, field(1, 1) + field(2, shape_proto([2])) + field(5, bytes(40)))),
        "at most 2 values",
    ),
    "a bomb of varints": (
        node("bad", "Const", value=field(8, field(1, 3) + field(2, shape_proto([10**6])) + field(7, bytes(10**6)))),
        "at most 65536 variable-length numbers",
    ),
    "a bomb of repetition": (
        b"".join(
            node(f"bad{n}", "Const", value=field(8, field(1, 1) + field(2, shape_proto([2**30])) + field(5, 1.0)))
            for n in range(3)
        ),
        "about as large as the file",
    ),
    "an outer product": (
        const("row", np.ones((1, 10_000)))
        + const("column", np.ones((10_000, 1)))
        + node("bad", "Mul", "row", "column"),
        "fitting shapes",
    ),
    "a bomb of sums": (
        const("a0", np.ones(10**6)) + b"".join(node(f"a{n}", "Add", f"a{n - 1}", "a0") for n in range(1, 40)),
        "about as large as the file",
    ),
    "a wrong reshape": (const("a", [1.0, 2.0]) + const("s", [3]) + node("bad", "Reshape", "a", "s"), "node bad"),
    "an attribute of another type": (
        conv("bad", "scaled", "stem/weights", padding=[1, 2]),
        "padding: expected an attribute of type str, found tuple",
    ),
    "another layout": (conv("bad", "scaled", "stem/weights", data_format="NCHW"), "the data format NHWC"),
    "strides that differ": (
        node("bad", "Conv2D", "scaled", "stem/weights", strides=[1, 1, 2, 1], padding="SAME"),
        "same for height and width",
    ),
    "a second network": (conv("bad", "scaled", "stem/weights"), "one 3x3 convolution here"),
    "a layer of another kind": (
        node("odd", "Exp", "relu") + conv("bad", "odd", "depthwise/weights"),
        "node odd .Exp.: expected an operation of a MobileNet before bad",
    ),
    "a weight that is computed": (conv("bad", "relu", "relu"), "node bad .*a constant of four dimensions"),
    "limits that are missing": (
        node("bad", "FakeQuantWithMinMaxVars", "stem/weights", "half"),
        "node bad .*the smallest and the largest value",
    ),
    "two inputs": (
        placeholder("second") + conv("bad", "second", "stem/weights"),
        "computed from the picture that the other convolutions see",
    ),
}


@pytest.mark.parametrize("case", ADDED)
def test_what_is_hostile_is_refused_by_name(path, case):
    added, match = ADDED[case]
    write(path, SMALL, added)
    assert recognise(path)
    assert_refused(read, path, match)


def test_a_million_nodes_are_refused_before_they_are_read(path):
    path.write_bytes(placeholder() + 10**6 * field(1, field(1, "n") + field(2, "NoOp")))
    assert_refused(read, path, "at most 20000 nodes")


def test_functions_in_functions_are_not_followed(path):
    assert_refused(read, write(path, node("first", "PartitionedCall", f=deep(5_000))), "found PartitionedCall")
    rewrite(path, RELU6, node("stem/relu6", "Relu6", "stem/norm", f=deep(5_000)))
    assert read(path).config.hidden_act == "relu6"


def test_a_graph_without_convolutions_is_refused(path):
    assert_refused(
        read, write(path, placeholder(), node("end", "Relu", "input")), "convolutions of a MobileNet, found none"
    )


def test_operations_are_checked_before_anything_else(path):
    """The constant before it is damaged, but the operation that reads files is what matters."""
    bad = node("bad", "Const", value=field(8, tensor_proto(np.ones(3, np.float32), (4,))))
    assert_refused(read, write(path, bad, node("worse", "ReadFile", "bad")), "found ReadFile")


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


@pytest.mark.parametrize("kind", FOREIGN)
def test_other_files_are_not_recognised(path, kind):
    path.write_bytes(FOREIGN[kind][0])
    assert not recognise(path)


def test_what_only_looks_like_a_message_is_not_recognised(path):
    for content in (field(1, "only a text"), field(1, field(1, "name")), field(8, 3) + field(1, "onnx"), b"\n\xff\xff"):
        path.write_bytes(content)
        assert not recognise(path)
    assert not recognise(path.parent)


def assert_survives(path):
    """A changed file loads, or is refused; nothing else happens."""
    try:
        if recognise(path):
            read(path)
    except MinimobileError as error:
        assert "\n" not in str(error)
        assert len(str(error)) < 2000


def test_every_truncation_is_refused(path):
    path.write_bytes(b"")
    for content, step in ((SMALL, 7), (tiny_v1("none")[0], 97)):
        for part in truncations(content, step):
            path.write_bytes(part)
            if recognise(path):
                with pytest.raises(MinimobileError):
                    read(path)


def test_flipped_bits_are_refused_or_load(path):
    path.write_bytes(SMALL)
    with np.errstate(all="ignore"):
        for _ in flip_bytes(path, 2000):
            assert_survives(path)


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["arithmetic", "none"])
@pytest.mark.filterwarnings("ignore")
def test_flipped_bits_of_a_whole_network_are_refused_or_load(path, norm):
    path.write_bytes(tiny_v1(norm)[0])
    for _ in flip_bytes(path, 2000):
        assert_survives(path)
