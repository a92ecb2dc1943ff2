"""TFLite files that we write: the same network when read again, by us and by LiteRT."""

from __future__ import annotations

import dataclasses

import frameworks
import numpy as np
import pytest
from judgement import assert_agrees
from quantized_files import random_bytes, run_litert, write_quantized
from spelling import random_weights, spell

import minimobile as mm
from minimobile import formats
from minimobile.errors import FormatError, InputError, MinimobileError
from minimobile.execution.detection import PostProcessor
from minimobile.formats.checkpoint import Checkpoint
from minimobile.formats.tflite import tflite
from minimobile.formats.tflite.flatbuffer import FlatBuffer
from minimobile.formats.tflite.flatbuffer_writer import Scalar, write_flatbuffer
from minimobile.formats.tflite.tflite_metadata import EVERYBODYS, OWN
from minimobile.formats.tflite.tflite_model import read_model
from minimobile.formats.tflite.tflite_writer import _version, write_model
from minimobile.networks.build_graph import build_graph
from minimobile.networks.ssd import ANCHORS, find_results, settings
from minimobile.quantized.network import Network, Operation, Tensor

V1, V2 = "MobileNetV1ForImageClassification", "MobileNetV2ForImageClassification"
DEEPLAB, HEADLESS = "MobileNetV2ForSemanticSegmentation", "MobileNetV1Model"
TINY = {"depth_multiplier": 0.05, "min_depth": 1, "image_size": 37}
NETWORKS = {
    "V1": (V1, {}),
    "V1, odd picture, symmetric padding": (V1, {"tf_padding": False, "image_size": (33, 47), "layer_norm_eps": 1e-5}),
    "V1, Keras' padding": (V1, {"bottom_right_padding": "all"}),
    "V1, fixed pool": (V1, {"pool_size": 2, "image_size": 64}),
    "V1, relu": (V1, {"hidden_act": "relu"}),
    "V1 without head": (HEADLESS, {}),
    "V2": (V2, {}),
    "V2, one channel": (V2, {"num_channels": 1}),
    "DeepLab": (DEEPLAB, {"output_stride": 8}),
    "DeepLab, symmetric padding": (DEEPLAB, {"output_stride": 16, "tf_padding": False}),
}
LITE, DENSE = "MobileNetV2ForObjectDetection", "MobileNetV1ForObjectDetection"
DENSE_HEADS = {"use_depthwise": False, "kernel_size": 1, "score_converter": "softmax", "max_detections": 20}
DETECTORS = {
    "SSDLite": (LITE, {}),
    "SSD, softmax, odd picture": (DENSE, {"ssd": mm.MobileNetSSDConfig(**DENSE_HEADS), "image_size": (33, 47)}),
    "SSD, class by class": (DENSE, {"ssd": mm.MobileNetSSDConfig(use_depthwise=False, use_regular_nms=True)}),
}


def make(architecture: str, fields: dict, seed: int = 0) -> Checkpoint:
    config_class = mm.MobileNetV1Config if "V1" in architecture else mm.MobileNetV2Config
    config = config_class(**{**TINY, "id2label": {0: "Käse", 1: "猫", 2: "emu"}, **fields})
    processor = {
        "do_resize": True,
        "image_mean": [0.5] * config.num_channels,
        "image_std": [0.25] * config.num_channels,
    }
    weights = random_weights(build_graph(config, architecture), seed)
    return Checkpoint(config.replace(architectures=(architecture,)), weights, architecture, processor)


def run(model: mm.MobileNetV1Model, seed: int = 0) -> np.ndarray:
    side = model.config.image_size
    size = (side, side) if isinstance(side, int) else side
    x = np.random.default_rng(seed).standard_normal((2, model.config.num_channels, *size)).astype(np.float32)
    return np.concatenate(
        [values.reshape(2, -1) for values in model.features(x, find_results(model.graph)).values()], 1
    )


def load(checkpoint: Checkpoint) -> mm.MobileNetV1Model:
    return getattr(mm, checkpoint.architecture).from_checkpoint(checkpoint)


@pytest.mark.parametrize("name", [*NETWORKS, *DETECTORS])
def test_a_network_comes_back_with_its_numbers_labels_and_settings(name, tmp_path):
    checkpoint = make(*(NETWORKS | DETECTORS)[name])
    tflite.write(tmp_path / "model.tflite", checkpoint)
    found = formats.read(tmp_path / "model.tflite")
    assert found.architecture == checkpoint.architecture
    assert found.config == checkpoint.config
    assert found.processor == checkpoint.processor
    assert found.dialect == checkpoint.dialect
    np.testing.assert_array_equal(run(load(found)), run(load(checkpoint)))


def test_the_tree_of_a_flatbuffer_is_read_as_it_was_written():
    table = {0: Scalar("bool", 1), 2: Scalar("int8", -3), 3: "Käse", 5: Scalar("float32", 0.5), 6: np.arange(3)}
    content = write_flatbuffer({1: [table, {}, table], 4: np.arange(2, dtype=np.float32)}, b"TEST")
    root = FlatBuffer(content, "a test").root(b"TEST")
    first, empty, last = root.tables(1)
    for found in (first, last):
        assert (found.number(0, "bool"), found.number(2, "int8"), found.number(5, "float32")) == (1, -3, 0.5)
        assert found.string(3) == "Käse"
        assert found.numbers(6, "int64") == (0, 1, 2)
    assert (empty.number(2, "int8"), empty.string(3)) == (0, "")
    assert root.numbers(4, "float32") == (0.0, 1.0)


def test_tables_of_one_layout_share_it_and_constants_lie_where_they_can_be_read_in_place():
    one, two = (write_flatbuffer({0: [{1: Scalar("int32", 7)}] * count}, b"TEST") for count in (1, 2))
    assert len(two) - len(one) == 12  # a reference, and a table of two fields of four bytes
    content = write_flatbuffer({0: "x", 1: np.arange(40, dtype=np.uint8)}, b"TEST")
    assert content.index(bytes(range(40))) % 16 == 0


def test_equal_texts_and_arrays_are_stored_once():
    zeros = np.zeros(1000, np.int64)
    content = write_flatbuffer(
        {0: [{0: zeros, 1: "name"}, {0: zeros.copy(), 1: "name"}], 1: ["name", "other"]}, b"TEST"
    )
    assert len(content) < 8200
    assert content.count(b"name\0") == 1
    root = FlatBuffer(content, "a test").root(b"TEST")
    for table in root.tables(0):
        assert (table.numbers(0, "int64"), table.string(1)) == ((0,) * 1000, "name")
    assert content.count(np.float32(0).tobytes() * 2000) == 1


def test_half_precision_halves_the_file_and_keeps_what_it_can_hold(tmp_path):
    checkpoint = make(V1, {"depth_multiplier": 0.5})
    sizes = {}
    for dtype in ("float32", "float16"):
        path = tmp_path / f"{dtype}.tflite"
        load(checkpoint).save(path, dtype)
        sizes[dtype] = path.stat().st_size
    assert sizes["float16"] < 0.53 * sizes["float32"]
    whole, half = (mm.load(tmp_path / f"{dtype}.tflite").state_dict() for dtype in sizes)
    for name, values in whole.items():
        if name.endswith("convolution.weight"):
            np.testing.assert_array_equal(half[name], values.astype(np.float16).astype(np.float32))


def test_what_has_no_form_in_a_file_is_named_and_nothing_is_written(tmp_path):
    path = tmp_path / "model.tflite"
    with pytest.raises(FormatError, match=r"conv_stem: expected .*relu6, relu or no activation, found silu"):
        load(make(V1, {"hidden_act": "silu"})).save(path)
    clipping = make(DENSE, {"ssd": mm.MobileNetSSDConfig(post_processing="tensorflow")})
    with pytest.raises(FormatError, match=r"expected post_processing 'tflite', .* got 'tensorflow'; `mm\.convert`"):
        load(clipping).save(path)
    others = make(LITE, {"ssd": mm.MobileNetSSDConfig(stored_anchors=3)})
    weights = {**others.weights, ANCHORS: np.zeros((3, 4), np.float32)}
    with pytest.raises(FormatError, match=r"expected 75 anchors for pictures of 37x37, found 3; set the config's"):
        tflite.write(path, dataclasses.replace(others, weights=weights))
    large = make(V1, {})
    weights = {name: values * 1e6 if "classifier" in name else values for name, values in large.weights.items()}
    with pytest.raises(FormatError, match=r"classifier.*: expected values that float16 can hold"):
        load(dataclasses.replace(large, weights=weights)).save(path, "float16")
    with pytest.raises(InputError, match="dtype: expected one of float32, float16, got 'int8'"):
        load(large).save(path, "int8")
    assert list(tmp_path.iterdir()) == []


def test_labels_that_are_no_lines_of_text_are_kept_beside_the_network(tmp_path):
    checkpoint = make(V1, {"id2label": {0: "two\nlines", 1: "b", 2: ""}})
    tflite.write(tmp_path / "model.tflite", checkpoint)
    assert not (tmp_path / "model.tflite").read_bytes().endswith(b"labels.txt")
    assert formats.read(tmp_path / "model.tflite").config.labels == checkpoint.config.labels


def test_the_metadata_says_how_a_picture_comes_in(tmp_path):
    checkpoint = make(V2, {})
    tflite.write(tmp_path / "model.tflite", checkpoint)
    metadata = read_model(tmp_path / "model.tflite").metadata
    (graph,) = FlatBuffer(metadata[EVERYBODYS], "metadata").root(b"M001").tables(3)
    ((image,), (scores,)) = graph.tables(2), graph.tables(3)
    (unit,) = image.tables(4)
    assert unit.table(1).numbers(0, "float32") == (127.5,) * 3
    assert unit.table(1).numbers(1, "float32") == (63.75,) * 3
    assert [file.string(0) for file in scores.tables(6)] == ["labels.txt"]
    assert (image.table(5).numbers(0, "float32"), image.table(5).numbers(1, "float32")) == ((2.0,) * 3, (-2.0,) * 3)


def test_a_detectors_results_are_named_as_the_task_library_looks_for_them(tmp_path):
    tflite.write(tmp_path / "model.tflite", make(LITE, {}))
    model = read_model(tmp_path / "model.tflite")
    (graph,) = FlatBuffer(model.metadata[EVERYBODYS], "metadata").root(b"M001").tables(3)
    names = [result.string(0) for result in graph.tables(3)]
    assert names == [model.tensors[number].name for number in model.outputs]
    assert names == ["location", "category", "score", "number of detections"]
    boxes, classes, *_ = graph.tables(3)
    assert boxes.table(3).table(1).numbers(0, "uint32") == (1, 0, 3, 2)
    assert [(file.string(0), file.number(2, "int8")) for file in classes.tables(6)] == [("labels.txt", 3)]
    assert model.tensors[model.outputs[0]].shape == (1, 100, 4)


def test_a_detectors_own_anchors_go_into_the_file(tmp_path):
    checkpoint = make(LITE, {"ssd": mm.MobileNetSSDConfig(stored_anchors=75)})
    anchors = np.random.default_rng(0).random((75, 4), np.float32)
    checkpoint = dataclasses.replace(checkpoint, weights={**checkpoint.weights, ANCHORS: anchors})
    tflite.write(tmp_path / "model.tflite", checkpoint)
    np.testing.assert_array_equal(mm.load(tmp_path / "model.tflite").anchors(37, 37), anchors)


def test_the_rules_of_a_frozen_graph_become_the_operators_and_the_report_says_so(tmp_path):
    checkpoint = make(LITE, {"ssd": mm.MobileNetSSDConfig(post_processing="tensorflow", iou_threshold=0.5)})
    load(checkpoint).save(tmp_path / "model.h5")
    report = mm.convert(tmp_path / "model.h5", tmp_path / "model.tflite")
    assert any("class by class with the same numbers as the source, but does not clip" in note for note in report.notes)
    rules = mm.load(tmp_path / "model.tflite").config.ssd
    assert (rules.post_processing, rules.use_regular_nms, rules.iou_threshold) == ("tflite", True, 0.5)


@pytest.mark.parametrize("text", [b"{", b"[]", b'{"config": {}, "dialect": "keras"}', b'{"config": 1}'])
def test_settings_that_are_damaged_are_refused(text, tmp_path):
    path = tmp_path / "model.tflite"
    tflite.write(path, make(V1, {}))
    network = _float_network(path)
    path.write_bytes(write_model(network, "damaged", {OWN: text}))
    with pytest.raises(MinimobileError, match=str(path)):
        formats.read(path)


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
def test_integers_come_back_as_they_were(dtype, tmp_path):
    graph = build_graph(mm.MobileNetV2Config(**TINY, num_labels=3), V2)
    path = tmp_path / "first.tflite"
    path.write_bytes(write_quantized(spell(graph, random_weights(graph), folded=True), (37, 37), dtype).write())
    first = mm.load(path)
    first.save(tmp_path / "second.tflite")
    second = mm.load(tmp_path / "second.tflite")
    x = random_bytes(3, (2, *first.quantized_input.shape[1:]), dtype)
    np.testing.assert_array_equal(second.run_quantized(x), first.run_quantized(x))
    assert_same_network(second._integers, first._integers)


def test_conversion_to_tflite_says_what_it_wrote_and_keeps_integers(tmp_path):
    tflite.write(tmp_path / "a.tflite", make(V1, {}))
    report = mm.convert(tmp_path / "a.tflite", tmp_path / "b.tflite")
    assert report.layout == "TFLite file"
    assert report.notes == ()
    assert (tmp_path / "b.tflite").read_bytes() == (tmp_path / "a.tflite").read_bytes()
    with pytest.raises(InputError, match="--force"):
        mm.convert(tmp_path / "a.tflite", tmp_path / "b.tflite")
    with pytest.raises(InputError, match="the source itself"):
        mm.convert(tmp_path / "a.tflite", tmp_path / "a.tflite", overwrite=True)
    report = mm.convert(tmp_path / "a.tflite", tmp_path / "half.tflite", dtype="float16")
    assert any("classifier" in name for name in report.rounded)
    graph = build_graph(mm.MobileNetV1Config(**TINY, num_labels=3), V1)
    integers = tmp_path / "integers.tflite"
    integers.write_bytes(write_quantized(spell(graph, random_weights(graph), folded=True), (37, 37), "int8").write())
    assert mm.convert(integers, tmp_path / "c.tflite").notes == ()
    assert_same_network(mm.load(tmp_path / "c.tflite")._integers, mm.load(integers)._integers)
    with pytest.raises(InputError, match="integers, which stay as they are"):
        mm.convert(integers, tmp_path / "d.tflite", dtype="float16")


def assert_same_network(found: Network, expected: Network) -> None:
    assert found.operations == expected.operations
    for name in {name for operation in expected.operations for name in (*operation.inputs, operation.output)}:
        theirs, ours = expected.tensors[name], found.tensors[name]
        assert (ours.shape, ours.dtype, ours.axis) == (theirs.shape, theirs.dtype, theirs.axis)
        for field in ("scales", "zero_points", "values"):
            np.testing.assert_array_equal(getattr(ours, field), getattr(theirs, field))


def _float_network(path):
    from minimobile.formats.tflite.tflite_floats import float_network

    return float_network(formats.read(path), str(path))


@pytest.mark.crosscheck
@pytest.mark.parametrize("name", NETWORKS)
def test_litert_computes_what_we_do(name, tmp_path):
    checkpoint = make(*NETWORKS[name])
    model = load(checkpoint)
    side = checkpoint.config.image_size
    size = (side, side) if isinstance(side, int) else side
    x = np.random.default_rng(4).standard_normal((1, *size, checkpoint.config.num_channels)).astype(np.float32)
    output = model.graph.outputs[-1]
    for dtype in ("float32", "float16"):
        path = tmp_path / f"{dtype}.tflite"
        model.save(path, dtype)
        own = model if dtype == "float32" else mm.load(path)
        interpreter = frameworks.litert().Interpreter(str(path))
        runner = interpreter.get_signature_runner()
        ((given, _),) = runner.get_input_details().items()
        ((result, _),) = runner.get_output_details().items()
        found = runner(**{given: x})[result]
        found = found.transpose(0, 3, 1, 2) if found.ndim == 4 else found
        assert_agrees(own, x.transpose(0, 3, 1, 2), {output: found})


@pytest.mark.crosscheck
@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("name", DETECTORS)
def test_litert_predicts_what_we_do_and_finds_our_boxes_among_its_own_predictions(name, dtype, tmp_path):
    path = tmp_path / "model.tflite"
    load(make(*DETECTORS[name])).save(path, dtype)
    model = mm.load(path)
    side = model.config.image_size
    size = (side, side) if isinstance(side, int) else side
    x = np.random.default_rng(4).standard_normal((1, *size, 3)).astype(np.float32)
    theirs = run_litert(path.read_bytes(), x)
    found = {output: theirs[output].transpose(0, 3, 1, 2) for output in model.graph.outputs}
    assert_agrees(model, x.transpose(0, 3, 1, 2), found)
    rules = PostProcessor(settings(model.config), model.config.class_count, model.anchors(*size))
    ours = rules.run(theirs["box_encodings"], theirs["class_scores"])
    count = int(ours.counts[0])
    assert count > 5
    assert theirs["number of detections"][0] == count
    for what, values in (("location", ours.boxes), ("category", ours.classes), ("score", ours.scores)):
        np.testing.assert_array_equal(theirs[what][0, :count], values[0, :count])
    run_litert(path.read_bytes(), x, "BUILTIN")  # under XNNPACK


@pytest.mark.crosscheck
@pytest.mark.parametrize(("network", "kind"), [((DEEPLAB, {}), "RESIZE_BILINEAR"), ((LITE, {}), "LOGISTIC")])
def test_tensorflows_own_analyzer_finds_a_file_sound(network, kind, tmp_path, capsys):
    path = tmp_path / "model.tflite"
    load(make(*network)).save(path)
    frameworks.tensorflow().lite.experimental.Analyzer.analyze(model_path=str(path))
    said = capsys.readouterr().out
    assert kind in said
    assert "Your TFLite model has '1' subgraph" in said


@pytest.mark.crosscheck
@pytest.mark.parametrize("dtype", ["uint8", "int8"])
def test_litert_gives_the_same_bytes_from_a_file_that_we_wrote_anew(dtype, tmp_path):
    graph = build_graph(mm.MobileNetV2Config(**TINY, num_labels=3), V2)
    original = write_quantized(spell(graph, random_weights(graph), folded=True), (37, 37), dtype).write()
    path = tmp_path / "model.tflite"
    path.write_bytes(original)
    mm.load(path).save(path)
    x = random_bytes(3, (1, 37, 37, 3), dtype)
    first, second = run_litert(original, x), run_litert(path.read_bytes(), x)
    for name in first.keys() & second.keys():
        np.testing.assert_array_equal(second[name], first[name])
    assert len(first.keys() & second.keys()) > 50


@pytest.mark.parametrize(("kind", "dtype", "attributes", "version"), [
    ("DEPTHWISE_CONV_2D", "float32", {"dilation": 1}, 1), ("DEPTHWISE_CONV_2D", "uint8", {"dilation": 2}, 2),
    ("DEPTHWISE_CONV_2D", "int8", {"dilation": 2}, 3), ("CONV_2D", "int8", {}, 3), ("CONV_2D", "uint8", {}, 1),
    ("RESIZE_BILINEAR", "uint8", {"half_pixel_centers": False}, 1),
    ("RESIZE_BILINEAR", "int8", {"half_pixel_centers": False}, 2),
    ("RESIZE_BILINEAR", "uint8", {"half_pixel_centers": True}, 3),
    ("FULLY_CONNECTED", "int8", {}, 4), ("ADD", "int8", {}, 2), ("RESHAPE", "int8", {}, 1),
])  # fmt: skip
def test_an_operator_asks_for_the_runtime_that_has_it_and_no_later_one(kind, dtype, attributes, version):
    """As LiteRT's `op_version.cc` has them: a runtime of before refuses the file, and does not compute it wrongly."""
    x = Tensor("x", (1, 2, 2, 1), np.dtype(dtype), np.ones(1, np.float32), np.zeros(1, np.int64))
    assert _version(kind, x, Operation("", ("x",), "y", attributes)) == version
