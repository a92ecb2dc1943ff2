"""ONNX files: a network comes back from its nodes in every spelling."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from graph_writer import field
from onnx_models import (
    assert_same_numbers,
    attribute,
    external_v1,
    initializer,
    model,
    node,
    rewrite,
    tiny_layers,
    tiny_v1,
    write_layers,
)
from spelling import random_weights, spell

import minimobile as mm
from minimobile import formats
from minimobile.formats.onnx.onnx_file import describe, read
from minimobile.formats.onnx.schema import ModelField
from minimobile.formats.onnx.write import write_network
from minimobile.formats.protobuf import fields
from minimobile.formats.signatures import is_onnx
from minimobile.models.inspection import inspect
from minimobile.networks.build_graph import build_graph


@pytest.fixture
def path(tmp_path):
    return tmp_path / "net.onnx"


SPELLINGS = {
    "operator set 17": {},
    "operator set 7": {"opset": 7},
    "operator set 11 with pads": {"opset": 11, "pads": "all"},
    "operator set 9 with pads": {"opset": 9, "pads": "strided"},
    "operator set 18": {"opset": 18, "style": "inputs"},
    "relu6 as Relu and Min": {"style": "minmax"},
    "typed numbers": {"form": "typed"},
    "a classifier that is a convolution": {"dense": False, "tail": ("reshape", "softmax")},
    "softmax": {"tail": ("softmax",)},
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_network_comes_back_bit_for_bit(path, spelling):
    path.write_bytes(tiny_v1(**SPELLINGS[spelling]))
    assert is_onnx(path)
    checkpoint = formats.read(path)
    assert checkpoint.architecture == "MobileNetV1ForImageClassification"
    assert (checkpoint.config.image_size, checkpoint.config.num_labels) == (32, 5)
    assert checkpoint.config.tf_padding
    assert checkpoint.config.bottom_right_padding is None
    assert checkpoint.provenance["input"] == "pixels"
    assert_same_numbers(checkpoint, tiny_layers()[1])
    assert set(checkpoint.mapped.values()) == set(checkpoint.weights)


FOLDED = {
    "float16": {"form": "float16"},
    "channels last": {"style": "channels last"},
    "channels last with pads": {"style": "channels last", "pads": "strided", "opset": 9},
}


@pytest.mark.parametrize("spelling", FOLDED)
def test_a_folded_network_has_the_files_own_numbers(path, spelling):
    path.write_bytes(tiny_v1(**FOLDED[spelling], folded=True))
    layers, _ = tiny_layers(folded=True)
    checkpoint = read(path)
    stem = layers[0].arrays["weight"].astype(np.float16 if spelling == "float16" else np.float32)
    np.testing.assert_array_equal(checkpoint.weights["mobilenet_v1.conv_stem.convolution.weight"], stem)
    variance = checkpoint.weights["mobilenet_v1.conv_stem.normalization.running_var"]
    assert (variance == np.float32(1 - checkpoint.config.layer_norm_eps)).all()
    assert ("numbers" in checkpoint.provenance) == (spelling == "float16")


def test_bfloat16_is_the_upper_half_of_a_float32(path):
    path.write_bytes(tiny_v1(form="bfloat16"))

    def halved(values):
        return (np.float32(values).view(np.uint32) >> 16 << 16).view(np.float32)

    assert_same_numbers(read(path), tiny_layers()[1], halved)


def test_v2_and_deeplab_come_back(path):

    config = mm.MobileNetV2Config(depth_multiplier=0.1, num_labels=5, image_size=32, output_stride=16)
    for architecture in ("MobileNetV2ForSemanticSegmentation", "MobileNetV2ForImageClassification"):
        config = config.replace(output_stride=16 if "Segmentation" in architecture else 32)
        graph = build_graph(config, architecture)
        weights = random_weights(graph)
        path.write_bytes(model(*write_layers(spell(graph, weights, pads="all", tail=()))))
        checkpoint = read(path)
        assert checkpoint.architecture == architecture
        assert checkpoint.config.output_stride == config.output_stride
        assert_same_numbers(checkpoint, {name: weights[name] for name in checkpoint.weights})


def test_what_it_computes_is_what_the_network_computes(path):
    path.write_bytes(tiny_v1())
    pixels = np.random.default_rng(0).normal(0, 1, (1, 3, 32, 32)).astype(np.float32)
    config = mm.MobileNetV1Config(depth_multiplier=0.1, num_labels=5, image_size=32)
    checkpoint = formats.Checkpoint(config, tiny_layers()[1], "MobileNetV1ForImageClassification")
    expected = mm.MobileNetV1ForImageClassification.from_checkpoint(checkpoint)(pixels).logits
    assert mm.load(path)(pixels).logits.tobytes() == expected.tobytes()


def test_weights_beside_the_model_are_the_same(tmp_path):
    external = external_v1(tmp_path)
    assert_same_numbers(read(external), tiny_layers()[1])


def test_weights_beside_the_file_are_found_in_the_hub_cache(tmp_path):
    (tmp_path / "blobs").mkdir()
    snapshot = tmp_path / "snapshots" / "1234"
    snapshot.mkdir(parents=True)
    external = external_v1(tmp_path / "blobs")
    for item in (tmp_path / "blobs").iterdir():
        (snapshot / item.name).symlink_to(f"../../blobs/{item.name}")
    assert_same_numbers(read(snapshot / external.name), tiny_layers()[1])


SCALINGS = {
    "divided and centred": ([node("Div", ["pixels", "255"], "a"), node("Sub", ["a", "means"], "b"),
                             node("Div", ["b", "deviations"], "scaled")], (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "of bytes in channels last": (
        [node("Transpose", ["pixels"], "t", perm=[0, 3, 1, 2]), node("Cast", ["t"], "c", to=1),
         node("Mul", ["c", "half"], "m"), node("Sub", ["m", "one"], "scaled")], (0.5,) * 3, (0.5,) * 3,
    ),
}  # fmt: skip


@pytest.mark.parametrize("scaling", SCALINGS)
def test_the_graphs_own_scaling_becomes_the_processors(path, scaling):
    nodes, mean, std = SCALINGS[scaling]
    column = (1, 3, 1, 1)
    constants = [
        initializer("255", np.float32(255)), initializer("half", np.float32(1 / 127.5)),
        initializer("one", np.float32(1)), initializer("means", np.float32((0.485, 0.456, 0.406)).reshape(column)),
        initializer("deviations", np.float32((0.229, 0.224, 0.225)).reshape(column)),
    ]  # fmt: skip
    parts = write_layers(tiny_layers()[0])
    stem = next(part for part in parts if field(1, "pixels") in part)
    parts[parts.index(stem)] = stem.replace(field(1, "pixels"), field(1, "scaled"))
    shape = (1, 32, 32, 3) if "last" in scaling else (1, 3, 32, 32)
    path.write_bytes(model(*constants, *nodes, *parts, shape=shape))
    settings = read(path).processor
    for x in (0.0, 255.0):
        found = (x * settings["rescale_factor"] - np.array(settings["image_mean"])) / settings["image_std"]
        np.testing.assert_allclose(found, (x / 255 - np.array(mean)) / std, rtol=1e-5, atol=1e-6)


def test_batch_norm_as_a_product_and_a_sum_joins_the_convolution(path):
    layers, _ = tiny_layers()
    scale, shift = np.float32(np.arange(1, 9)), np.float32(np.arange(8))
    constants = initializer("s", scale.reshape(8, 1, 1)), initializer("b", shift.reshape(1, 8, 1, 1))
    nodes = node("Mul", ["s", "op_0"], "product"), node("Add", ["product", "b"], "op_1")
    rewrite(path, "BatchNormalization", *constants, *nodes)
    weights = read(path).weights
    expected = layers[0].arrays["weight"] * scale[:, None, None, None]
    np.testing.assert_array_equal(weights["mobilenet_v1.conv_stem.convolution.weight"], expected)
    np.testing.assert_array_equal(weights["mobilenet_v1.conv_stem.normalization.bias"], shift)


def test_the_padding_is_said_where_it_holds_for_one_size_alone(path):
    path.write_bytes(tiny_v1())
    assert "SAME_UPPER" in read(path).provenance["padding"]
    path.write_bytes(tiny_v1(pads="all"))
    assert "written out for 32x32" in read(path).provenance["padding"]
    assert inspect(path).notes == {"padding": read(path).provenance["padding"]}


def test_open_sizes_are_open(path):
    path.write_bytes(model(*write_layers(tiny_layers()[0]), shape=("batch", 3, "height", "width")))
    assert read(path).config.image_size == 224


LAST = "/Gemm/logits"


def test_what_is_in_a_file_is_told(path):
    path.write_bytes(tiny_v1())
    description = describe(path)
    assert description.format == "ONNX"
    assert description.producer == "pytorch"
    assert description.dialect == "huggingface"
    assert description.facts["inputs"] == "pixels float32 (1, 3, 32, 32)"
    assert description.facts["operator set"] == "17"
    assert "Conv 27" in description.facts["operations"]


def test_other_files_are_none(path):
    for content in (
        b"",
        b"\x08",
        field(1, "text"),
        field(1, 0) + field(7, b""),
        field(8, b""),
        field(1, 8) + field(3, 1),
    ):
        path.write_bytes(content)
        assert not is_onnx(path)


def test_constants_of_all_forms_are_read(path):
    path.write_bytes(
        model(node("Constant", [], "x", value_ints=[0, 1]), node("Constant", [], "y", value_float=1.5),
              node("Identity", ["x"], "z"), *write_layers(tiny_layers()[0]))
    )  # fmt: skip
    assert attribute("value_float", 1.5)
    assert_same_numbers(read(path), tiny_layers()[1])


def test_sizes_that_the_graph_computes_are_computed(path):
    """As transformers' padding comes out of PyTorch's exporter at odd sizes: 3 - 33 % 2, halved, in some order."""
    parts = write_layers(tiny_layers()[0])
    at = next(index for index, part in enumerate(parts) if field(1, "pixels") in part)
    numbers = {"three": 3, "side": 33, "two": 2, "none": 0, "all": -1}
    constants = [initializer(name, np.array([number])) for name, number in numbers.items()]
    nodes = [
        node("Mod", ["side", "two"], "odd"), node("Sub", ["three", "odd"], "both"), node("Div", ["both", "two"], "one"),
        node("Sub", ["both", "one"], "other"), node("Concat", ["one", "other", "one", "other"], "pairs", axis=0),
        node("ConstantOfShape", ["four"], "zeros", value=np.array([0])), initializer("four", np.array([4])),
        node("Concat", ["pairs", "zeros"], "whole", axis=0), initializer("rows", np.array([-1, 2])),
        node("Reshape", ["whole", "rows"], "table"), initializer("end", np.array([-(2**63)])),
        node("Slice", ["table", "all", "end", "none", "all"], "back"),
        node("Transpose", ["back"], "turned", perm=[1, 0]),
        node("Reshape", ["turned", "all"], "flat"), node("Cast", ["flat"], "amounts", to=7),
        node("Pad", ["pixels", "amounts"], "padded"),
        node("Conv", ["padded", "op_0.weight"], "op_0", strides=[2, 2]),
    ]  # fmt: skip
    parts[at : at + 1] = [*constants, *nodes]
    path.write_bytes(model(*parts, shape=(1, 3, 33, 33)))
    assert_same_numbers(read(path), tiny_layers()[1])


BOXES = Path(mm.__file__).parent / "demo" / "boxes.h5"


@pytest.mark.parametrize("ending", ["maps", "joined", "scored"])
def test_the_body_of_a_detector_is_found(path, ending):
    """As it is, and as ports to PyTorch end: maps brought to rows, the rows joined, scores by softmax."""
    source = formats.read(BOXES)
    shape = (1, 3, source.config.image_size, source.config.image_size)
    graph = build_graph(source.config, source.architecture)
    written = _read_fields(write_network(graph, source.weights, shape), ModelField.GRAPH)
    names = graph.outputs
    ends = []
    for index, kind in enumerate(("boxes", "classes") if ending != "maps" else ()):
        group = names[6 * index : 6 * index + 6]
        ends += [node("Transpose", [name], f"{name}/last", perm=[0, 2, 3, 1]) for name in group]
        ends += [node("Reshape", [f"{name}/last", "rows"], f"{name}/rows") for name in group]
        ends.append(node("Concat", [f"{name}/rows" for name in group], kind, axis=1))
    if ending == "scored":
        ends.append(node("Softmax", ["classes"], "scores", axis=2))
    rows = initializer("rows", np.array([1, -1, 4]))
    path.write_bytes(field(1, 8) + field(ModelField.GRAPH, written + rows + b"".join(ends)) + field(8, field(2, 17)))
    found = read(path)
    assert found.architecture == source.architecture
    assert_same_numbers(found, source.weights)
    assert found.config.ssd.score_converter == ("softmax" if ending == "scored" else "sigmoid")
    assert found.provenance["anchors"] == "those of the formula: the file has none"
    assert found.processor["resize_method"] == "tf1_bilinear"
    assert not found.processor.get("do_center_crop")


def test_a_pixel_is_transposed_by_a_reshape(path):
    """As tf2onnx does between layers that see maps of one pixel."""
    source, last = formats.read(BOXES), "detection_head.extra.3.expand_1x1"
    graph = build_graph(source.config, source.architecture)
    shape = (1, 3, source.config.image_size, source.config.image_size)
    written = _read_fields(write_network(graph, source.weights, shape), ModelField.GRAPH)
    channels = len(source.weights[f"{last}.convolution.weight"])
    sizes = {"last": np.array([1, 1, 1, channels]), "second": np.array([-1, channels, 1, 1])}
    new = [*(initializer(name, values) for name, values in sizes.items()),
           node("Reshape", [last, "last"], "turned"), node("Reshape", ["turned", "second"], "back")]  # fmt: skip
    readers = [field(1, last) in bytes(value) for _, _, value in fields(memoryview(written), "")]
    parts = [
        field(number, bytes(value).replace(field(1, last), field(1, "back")))
        for number, _, value in fields(memoryview(written), "")
    ]
    assert sum(readers) == 2
    path.write_bytes(field(1, 8) + field(ModelField.GRAPH, b"".join([*parts, *new])) + field(8, field(2, 17)))
    assert_same_numbers(read(path), source.weights)


def _read_fields(content, number):
    return b"".join(bytes(value) for key, _, value in fields(memoryview(content), "") if key == number)


def test_our_own_file_says_what_it_is(path):
    source = formats.read(BOXES)
    mm.convert(BOXES, path)
    found = read(path)
    assert found.config.replace(architectures=None) == source.config.replace(architectures=None)
    assert (found.processor, found.dialect) == (source.processor, source.dialect)
    assert_same_numbers(found, source.weights)
