"""Detectors of object_detection as frozen graphs: preprocessor, anchors and suppression found, and replaced by ours."""

from __future__ import annotations

import frameworks
import numpy as np
import pytest
from detection_graphs import LIMITS, Entry, build_detector, change, write_graph
from judgement import assert_agrees
from PIL import Image

import minimobile as mm
from minimobile import formats
from minimobile.errors import FormatError
from minimobile.formats.tensorflow.graph_def import read_graph
from minimobile.formats.tensorflow.graph_values import evaluate
from minimobile.networks import ssd

PEDESTRIAN = "pedestrian_ssdlite_mobilenet_v2_frozen_inference_graph.pb"


LITE = mm.MobileNetV2Config(depth_multiplier=0.35, num_labels=3, image_size=32)


def save(folder, entries):
    path = folder / "detector.pb"
    path.write_bytes(write_graph(entries))
    return path


def test_a_graph_has_the_numbers_of_the_network_it_was_made_of(tmp_path):
    entries, weights = build_detector(LITE, limits=LIMITS)
    checkpoint = formats.read(save(tmp_path, entries))
    assert (checkpoint.architecture, checkpoint.dialect) == ("MobileNetV2ForObjectDetection", "object-detection")
    found = checkpoint.config.ssd
    assert (found.post_processing, found.iou_threshold, found.score_threshold) == ("tensorflow", 0.6, 1e-8)
    assert (found.detections_per_class, found.max_detections) == (7, 9)
    assert found.box_scales == (10.0, 10.0, 5.0, 5.0)
    assert (checkpoint.config.class_count, checkpoint.config.image_size) == (3, 32)
    assert checkpoint.config.folds_batch_norm is False
    name = "detection_head.classes.3.projection.convolution.weight"
    np.testing.assert_array_equal(checkpoint.weights[name], weights[name])
    assert checkpoint.processor["resize_method"] == "tf1_bilinear"
    assert (checkpoint.processor["rescale_factor"], checkpoint.processor["image_mean"]) == (2 / 255, [1.0] * 3)
    out = mm.load(tmp_path / "detector.pb")(np.zeros((1, 3, 32, 32), np.float32))
    assert out.detection_boxes.shape == (1, 9, 4)


def test_the_graphs_own_anchors_win(tmp_path):
    anchors = np.random.default_rng(3).uniform(0, 1, (42, 4)).astype(np.float32)
    entries, _ = build_detector(LITE, anchors, LIMITS)
    model = mm.load(save(tmp_path, entries))
    assert model.config.ssd.stored_anchors == 42
    found = model.anchors(32, 32)
    np.testing.assert_array_equal(found[:, 2:], anchors[:, 2:] - anchors[:, :2])


def test_a_bias_behind_a_sum_is_the_convolutions_before_it(tmp_path):
    entries, _ = build_detector(LITE, limits=LIMITS)
    expected = formats.read(save(tmp_path, entries))
    by_name = {entry.name: entry for entry in entries}
    moved = []
    for entry in entries:
        projection = by_name[entry.inputs[1]] if entry.op == "Add" and len(entry.inputs) == 2 else entry
        if entry.op != "Add" or projection.op != "BiasAdd":
            moved.append(entry)
            continue
        sources = tuple(projection.inputs[0] if name == projection.name else name for name in entry.inputs)
        moved = [other for other in moved if other.name != projection.name]
        moved += [Entry(f"{entry.name}/sum", "AddN", sources), entry._replace(
            inputs=(f"{entry.name}/sum", projection.inputs[1]))]  # fmt: skip
    assert sum(entry.op == "AddN" for entry in moved) == 10
    found = formats.read(save(tmp_path, moved))
    assert set(found.weights) == set(expected.weights)
    for name, values in expected.weights.items():
        assert found.weights[name].tobytes() == values.tobytes(), name
    assert len(set(expected.endpoints) - set(found.endpoints)) == 10  # whose values no tensor holds


DETECTOR = build_detector(LITE, limits=LIMITS)[0]


def spoil(name, **changes):
    return change(DETECTOR, name, **changes)


HOSTILE = {
    "anchors of another number": (
        spoil("anchors", value=np.ones((41, 4), np.float32)), "expected 42 anchors for pictures of 32x32, found 41"
    ),
    "anchors that are not finite": (
        spoil("anchors", value=np.full((42, 4), np.nan, np.float32)), r"expected finite anchors \(N, 4\) of float32"
    ),
    "anchors of the picture": (
        spoil("anchors", value=None, op="Identity", inputs=("image_tensor",)),
        "node image_tensor: expected a value computed from constants, found Placeholder",
    ),
    "anchors in a circle": (
        spoil("anchors", value=None, op="Add", inputs=("anchors", "ten")), "node anchors: .*found a cycle"
    ),
    "an iou threshold above 1": (
        spoil("iou", value=np.float32(1.5)), "expected iou_threshold to be above 0 and at most 1"
    ),
    "a threshold that is computed": (
        spoil("score", value=None, op="Sub", inputs=("unit", "unit")), "score: expected a constant of one number"
    ),
    "a billion detections": (spoil("in_all", value=np.array(2**30, np.int32)), "expected max_detections"),
    "a scale of zero": (spoil("ten", value=np.float32(0)), "expected box_scales to be four finite numbers"),
    "aligned corners": (
        spoil("resized", attributes={"align_corners": True}), "resized .ResizeBilinear.: expected pictures resized"
    ),
    "no scores": (spoil("scores", op="Exp"), "expected scores by sigmoid or softmax of one of two"),
    "another number of columns": (
        spoil("classes/shape", value=np.array([1, -1, 9], np.int32)), "expected 4 numbers for every box of map 0, and 9"
    ),
    **{
        f"suppression by {op}": (spoil("kept", op=op), f"node kept: expected an operation of a MobileNet, found {op}, ")
        for op in ("NonMaxSuppressionV2", "NonMaxSuppressionV4", "NonMaxSuppressionV5", "CombinedNonMaxSuppression")
    },
    "TFLite's operation": (
        [*build_detector(LITE)[0], Entry("end", "TFLite_Detection_PostProcess", ("boxes", "scores", "anchors"))],
        "node end: expected an operation of a MobileNet, found TFLite_Detection_PostProcess, which is not loaded",
    ),
    "an operation with an effect": (
        [*DETECTOR, Entry("file", "WriteFile", ("zero", "zero"))], "found WriteFile"
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_what_is_no_detector_is_refused_in_one_sentence(case, tmp_path):
    entries, sentence = HOSTILE[case]
    with pytest.raises(FormatError, match=sentence):
        formats.read(save(tmp_path, entries))


def compute(*entries):
    nodes = {node.name: node for node in read_graph(memoryview(write_graph(list(entries))), "x").nodes}
    return evaluate(nodes, entries[-1].name, "x")


def whole(name, *values):
    return Entry(name, "Const", value=np.array(values if len(values) > 1 else values[0], np.int32))


def test_a_grid_of_numbers_is_computed():
    steps = [whole("a", 0), whole("b", 3), whole("c", 1), Entry("d", "Range", ("a", "b", "c")), whole("e", 2, 1),
             Entry("f", "Reshape", ("d", "b2")), whole("b2", 1, 3)]  # fmt: skip
    np.testing.assert_array_equal(compute(*steps, Entry("g", "Tile", ("f", "e"))), [[0, 1, 2], [0, 1, 2]])


@pytest.mark.parametrize(
    "entries",
    [
        [whole("a", 0), whole("b", 2**30), whole("c", 1), Entry("d", "Range", ("a", "b", "c"))],
        [whole("a", 2**15, 2**15), whole("b", 1), Entry("c", "Fill", ("a", "b"))],
        [whole("a", 1, 2), whole("b", 2**30), Entry("c", "Tile", ("a", "b"))],
    ],
)
def test_values_that_would_take_the_memory_are_refused_before_it_is_taken(entries):
    with pytest.raises(FormatError, match="expected at most 1048576 numbers, found more"):
        compute(*entries)


@pytest.fixture(scope="module")
def pedestrian(test_data):
    return test_data / "models" / "detection" / PEDESTRIAN


def find_pictures(test_data, count):
    folder = test_data / "images"
    found = sorted(path for path in folder.rglob("*") if path.suffix in (".jpg", ".png", ".bmp"))
    assert len(found) >= count
    return found[:: max(1, len(found) // count)][:count]


def run_graph(path, names, picture):
    tf = frameworks.tensorflow()
    definition = tf.compat.v1.GraphDef()
    definition.ParseFromString(path.read_bytes())
    with tf.Graph().as_default() as graph:
        tf.compat.v1.import_graph_def(definition, name="")
    session = tf.compat.v1.Session(graph=graph)
    tensors = [f"{name}:0" for name in names]
    return dict(zip(names, session.run(tensors, {"image_tensor:0": picture[None]}), strict=True))


@pytest.mark.crosscheck
def test_a_published_graph_is_read_with_its_thresholds_and_anchors(pedestrian):
    checkpoint = formats.read(pedestrian)
    assert checkpoint.architecture == "MobileNetV2ForObjectDetection"
    assert checkpoint.dialect == "object-detection"
    found = checkpoint.config.ssd
    assert found.stored_anchors == 0  # those of the formula, to the bit
    assert (found.post_processing, found.score_converter) == ("tensorflow", "sigmoid")
    assert (found.score_threshold, found.iou_threshold) == (1e-8, 0.6)
    assert (found.detections_per_class, found.max_detections, checkpoint.config.class_count) == (100, 100, 1)
    assert checkpoint.processor["resize_method"] == "tf1_bilinear"


@pytest.mark.crosscheck
@pytest.mark.slow
def test_a_published_graph_gives_what_tensorflow_computes(pedestrian, test_data):
    model = mm.load(pedestrian)
    endpoints = formats.read(pedestrian).endpoints
    layers = {name: endpoints[name] for name in ("conv_1x1", *(model.graph.outputs[index] for index in (0, 5, 9)))}
    names = [*layers.values(), "Preprocessor/sub", "detection_boxes", "detection_scores", "detection_classes",
             "num_detections"]  # fmt: skip
    for index, path in enumerate(find_pictures(test_data, 6)):
        with Image.open(path) as photo:
            picture = np.asarray(photo.convert("RGB"))
        theirs = run_graph(pedestrian, names, picture)
        pixels = theirs["Preprocessor/sub"].transpose(0, 3, 1, 2)
        ours = model.processor(Image.fromarray(picture), return_tensors="np")["pixel_values"]
        np.testing.assert_array_equal(ours, pixels)
        if index == 0:  # a minute of float64
            shaped = {ours: theirs[name].transpose(0, 3, 1, 2) for ours, name in layers.items()}
            assert_agrees(model, pixels, shaped)
        out = model(pixels)
        count = int(theirs["num_detections"][0])
        assert int(out.num_detections[0]) == count
        np.testing.assert_array_equal(out.detection_classes[0, :count] + 1, theirs["detection_classes"][0, :count])
        np.testing.assert_allclose(out.detection_scores[0], theirs["detection_scores"][0], atol=2e-5)
        np.testing.assert_allclose(out.detection_boxes[0], theirs["detection_boxes"][0], atol=2e-4)


@pytest.mark.crosscheck
def test_converting_a_published_graph_keeps_every_bit(pedestrian, tmp_path):
    mm.convert(pedestrian, tmp_path / "copy.h5")
    first, second = (formats.read(source) for source in (pedestrian, tmp_path / "copy.h5"))
    assert {**first.config.to_dict()} == {**second.config.to_dict()}
    assert dict(first.processor) == dict(second.processor)
    assert set(first.weights) == set(second.weights)
    for name, values in first.weights.items():
        assert values.tobytes() == second.weights[name].tobytes(), name
    assert ssd.ANCHORS not in first.weights
