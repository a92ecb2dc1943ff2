"""Hostile and damaged TensorFlow graphs, and files that are none: refused by name."""

from __future__ import annotations

import numpy as np
import pytest
from graph_writer import (
    RELU6,
    batch_norm,
    const,
    conv,
    draw_norm,
    field,
    node,
    placeholder,
    rewrite,
    shape_proto,
    tensor_proto,
    tiny_v1,
    varint,
    write,
)
from hostile import FOREIGN, assert_refused, flip_bytes, truncations

from minimobile.errors import MinimobileError
from minimobile.formats.signatures import is_tensorflow_graph
from minimobile.formats.tensorflow.tensorflow_graph import read


@pytest.fixture
def path(tmp_path):
    return tmp_path / "frozen.pb"


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
    "a constant for each row": (
        const("rows", np.ones((2, 1, 1))) + node("bad", "Mul", "depthwise", "rows"),
        "one number per channel, or for all",
    ),
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
    assert is_tensorflow_graph(path)
    assert_refused(read, path, match)


def test_a_picture_scaled_row_by_row_is_refused(path):
    path.write_bytes(SMALL.replace(const("half", 0.5), const("half", np.ones((3, 1, 1)))))
    assert_refused(read, path, "node scaled .*one number or 3")


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


@pytest.mark.parametrize("kind", FOREIGN)
def test_other_files_are_not_recognised(path, kind):
    path.write_bytes(FOREIGN[kind][0])
    assert not is_tensorflow_graph(path)


def test_what_only_looks_like_a_message_is_not_recognised(path):
    for content in (field(1, "only a text"), field(1, field(1, "name")), field(8, 3) + field(1, "onnx"), b"\n\xff\xff"):
        path.write_bytes(content)
        assert not is_tensorflow_graph(path)
    assert not is_tensorflow_graph(path.parent)


def assert_survives(path):
    """A changed file loads, or is refused; nothing else happens."""
    try:
        if is_tensorflow_graph(path):
            read(path)
    except MinimobileError as error:
        assert "\n" not in str(error)
        assert len(str(error)) < 2000


def test_every_truncation_is_refused(path):
    path.write_bytes(b"")
    for content, step in ((SMALL, 7), (tiny_v1("none")[0], 97)):
        for part in truncations(content, step):
            path.write_bytes(part)
            if is_tensorflow_graph(path):
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
