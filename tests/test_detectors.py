"""Detectors as models: outputs, post-processing of the processor, `detect`, the pipeline and the drawing of boxes."""

from __future__ import annotations

import math

import numpy as np
import pytest
from PIL import Image

import minimobile as mm
from minimobile.errors import ConfigError, InputError
from minimobile.formats.dialects import DIALECTS, processor_settings
from minimobile.imaging.box_drawing import draw_boxes
from minimobile.models.detection import find_objects
from minimobile.networks import ssd

LABELS = {0: "cup", 1: "???", 2: "pen"}
CONFIG = mm.MobileNetV2Config(depth_multiplier=0.35, id2label=LABELS, initializer_range=0.3)
CLASSES = {"V1": mm.MobileNetV1ForObjectDetection, "V2": mm.MobileNetV2ForObjectDetection}


def make(version="V2", **changes):
    """Return a detector whose scores are not all a half."""
    config_class = CLASSES[version].config_class
    fields = {"depth_multiplier": 0.25 if version == "V1" else 0.35, "id2label": LABELS, "initializer_range": 0.3}
    return CLASSES[version](config_class(**{**fields, **changes}), seed=1)


def pixels(seed=0, size=(64, 96)):
    return np.random.default_rng(seed).standard_normal((2, 3, *size)).astype(np.float32)


class Processor(mm.MobileNetV2ImageProcessor):
    """Pictures of 64 x 96, whole."""

    def __init__(self):
        super().__init__(size={"height": 64, "width": 96}, do_center_crop=False)


@pytest.mark.parametrize("version", CLASSES)
def test_a_detector_of_random_weights_gives_a_row_for_every_anchor(version):
    model = make(version)
    out = model(pixels())
    anchors = model.anchors(64, 96)
    assert out.logits.shape == (2, len(anchors), 4)
    assert out.pred_boxes.shape == out.box_encodings.shape == (2, len(anchors), 4)
    assert out.detection_boxes.shape == (2, 100, 4)
    assert out.num_detections.min() > 0
    assert list(out) == [
        "logits", "pred_boxes", "box_encodings", "detection_boxes", "detection_classes", "detection_scores",
        "num_detections",
    ]  # fmt: skip
    assert model(pixels(), return_dict=False)[0].shape == out.logits.shape


def test_the_layout_of_pixels_threads_and_engine_do_not_change_a_bit():
    model, x = make(), pixels()
    expected = model(x)
    weights = model.to_checkpoint()
    variants = {
        "channels_last": model(x.transpose(0, 2, 3, 1), data_format="channels_last"),
        "one picture": model(x[:1]),
        "reference": type(model).from_checkpoint(weights, options=reference())(x),
    }
    for name, found in variants.items():
        for field in expected:
            np.testing.assert_array_equal(
                found[field], expected[field][: len(found[field])], err_msg=f"{name}: {field}"
            )


def reference():
    from minimobile.execution.runner import RunOptions

    return RunOptions("reference")


def test_boxes_follow_from_encodings_and_anchors_and_the_best_score_leads():
    model = make()
    out, anchors = model(pixels()), model.anchors(64, 96)
    centres = out.box_encodings[..., 1] / 10 * anchors[:, 3] + anchors[:, 1]
    heights = np.exp(out.box_encodings[..., 2] / 5) * anchors[:, 2]
    np.testing.assert_allclose(out.pred_boxes[..., 0], centres, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(out.pred_boxes[..., 3], heights, rtol=1e-4)
    best = 1 / (1 + np.exp(-out.logits[..., 1:].astype(np.float64)))
    np.testing.assert_allclose(out.detection_scores[:, 0], best.max((1, 2)), rtol=1e-6)
    assert (np.diff(out.detection_scores) <= 0).all()


def test_a_softmax_detector_shares_each_rows_scores_out():
    model = make(ssd=mm.MobileNetSSDConfig(score_converter="softmax"))
    out = model(pixels())
    powers = np.exp(out.logits.astype(np.float64))
    expected = (powers / powers.sum(-1, keepdims=True))[..., 1:]
    np.testing.assert_allclose(out.detection_scores[:, 0], expected.max((1, 2)), rtol=1e-6)


def test_hidden_states_and_features_are_those_of_the_backbone_and_the_maps():
    model = make()
    out = model(pixels(), output_hidden_states=["layer_19", "layer_19_2_Conv2d_5_3x3_s2_128".replace("128", "44")])
    assert [state.shape[2:] for state in out.hidden_states] == [(2, 3), (1, 1)]
    assert len(model(pixels(), output_hidden_states=True).hidden_states) == 16 + 5


def test_the_processor_keeps_what_scores_more_than_the_threshold_in_pixels():
    model, processor = make(), Processor()
    out = model(pixels())
    different = np.unique(out.detection_scores[0])
    limit = float(different[len(different) // 2])  # one that has just this score is left out
    relative, pixelled = (
        processor.post_process_object_detection(out, limit, sizes) for sizes in (None, [(100, 200), (10, 10)])
    )
    assert len(relative) == len(pixelled) == 2
    assert sorted(relative[0]) == ["boxes", "labels", "scores"]
    assert len(relative[0]["scores"]) == int((out.detection_scores[0] > limit).sum()) > 0
    np.testing.assert_array_equal(relative[0]["boxes"][0], out.detection_boxes[0, 0, [1, 0, 3, 2]])
    np.testing.assert_allclose(pixelled[0]["boxes"], relative[0]["boxes"] * (200, 100, 200, 100), rtol=1e-6)
    assert relative[0]["labels"].dtype == np.int64


def test_boxes_on_a_canvas_come_back_to_the_picture():
    processor = mm.MobileNetV1ImageProcessor.from_dict(
        processor_settings(DIALECTS["face-api"], "MobileNetV1ForObjectDetection", (512, 512))
    )
    outputs = {
        "detection_boxes": np.array([[[0, 0, 1, 1], [0.125, 0.25, 0.375, 0.5]]], np.float32),
        "detection_classes": np.zeros((1, 2), np.float32),
        "detection_scores": np.full((1, 2), 0.9, np.float32),
    }
    for size, side in (((300, 400), 400), ((800, 200), 800)):
        (found,) = processor.post_process_object_detection(outputs, 0.5, [size])
        np.testing.assert_allclose(found["boxes"] / side, [[0, 0, 1, 1], [0.25, 0.125, 0.5, 0.375]], rtol=1e-6)
    (found,) = processor.post_process_object_detection(outputs)
    assert found["boxes"].tolist() == [[0, 0, 1, 1], [0.25, 0.125, 0.5, 0.375]]  # relative to what the detector saw


def test_detect_lists_objects_by_name_and_leaves_out_those_without():
    model, photo = make(), Image.fromarray(np.random.default_rng(3).integers(0, 256, (80, 120, 3), np.uint8))
    found = find_objects(model, photo, 0.1, processor=Processor())
    assert found
    assert {item["label"] for item in found} <= {"cup", "pen"}
    assert list(found[0]) == ["score", "label", "index", "box"]
    assert list(found[0]["box"]) == ["xmin", "ymin", "xmax", "ymax"]
    whole = mm.pipeline("object-detection", model, image_processor=Processor(), threshold=0.1)(photo)
    assert [item["score"] for item in whole] == [item["score"] for item in found]
    assert all(isinstance(side, int) for item in whole for side in item["box"].values())


@pytest.mark.parametrize("threshold", [-0.1, 1.5, float("nan"), "0.5", True])
def test_a_threshold_out_of_range_is_refused(threshold):
    with pytest.raises(InputError, match="expected a threshold between 0 and 1, got"):
        mm.detect("nowhere.png", make(), threshold=threshold)
    with pytest.raises(InputError, match="expected a threshold between 0 and 1, got"):
        mm.pipeline("object-detection", make(), threshold=threshold)


def test_what_is_no_detector_is_refused():
    with pytest.raises(InputError, match="expected one for object detection, got a MobileNetV1ForImageClassification"):
        mm.detect("nowhere.png", mm.load("demo:digits"))
    with pytest.raises(InputError, match="expected the outputs of a detector"):
        Processor().post_process_object_detection({"logits": np.zeros((1, 2))})
    for nothing in (None, 3, object()):
        with pytest.raises(InputError, match="expected the outputs of a detector"):
            Processor().post_process_object_detection(nothing)
    with pytest.raises(InputError, match=r"expected target_sizes to be 2 pairs"):
        Processor().post_process_object_detection(make()(pixels()), 0.5, [(1, 2)])
    with pytest.raises(ConfigError, match="expected a MobileNetV1Config"):
        mm.MobileNetV1ForObjectDetection(mm.MobileNetV2Config())


def test_a_fresh_model_has_no_anchors_of_its_own():
    model = make(ssd=mm.MobileNetSSDConfig(stored_anchors=5))
    assert ssd.ANCHORS not in model.state_dict()
    assert model.anchors(64, 96).shape[0] == make().anchors(64, 96).shape[0]


def test_auto_classes_choose_by_the_config(tmp_path):
    model = make("V1")
    model.save_pretrained(tmp_path)
    for loaded in (mm.load(tmp_path), mm.AutoModelForObjectDetection.from_pretrained(tmp_path)):
        assert type(loaded) is mm.MobileNetV1ForObjectDetection
        np.testing.assert_array_equal(loaded(pixels()).logits, model(pixels()).logits)
    assert loaded.config.ssd == model.config.ssd
    assert mm.AutoModel.from_pretrained(tmp_path)(pixels()).last_hidden_state.shape[1] == 256


@pytest.mark.parametrize("shade", [0, 128, 255])
def test_a_box_and_its_caption_stand_out_on_any_background(shade):
    photo = Image.new("RGB", (200, 150), (shade,) * 3)
    box = {"xmin": 40.0, "ymin": 50.0, "xmax": 120.0, "ymax": 130.0}
    drawn = np.asarray(draw_boxes(photo, [{"score": 0.9, "label": "cup", "index": 4, "box": box}])).astype(int)
    line = drawn[90, 36:46]  # across the left side
    contrast = np.abs(line - shade).max()
    assert contrast > 100
    assert (np.ptp(line, axis=0) > 100).any()  # dark and coloured beside each other
    caption = drawn[36:49, 42:60].reshape(-1, 3)
    assert (caption.sum(1) < 30).any()  # letters
    assert (caption.max(1) > 240).any()  # on a bright field
    np.testing.assert_array_equal(drawn[:20], shade)


def test_boxes_that_reach_beyond_the_picture_are_drawn_as_far_as_it_goes():
    box = {"xmin": -50.0, "ymin": -50.0, "xmax": 500.0, "ymax": 500.0}
    gone = {"xmin": 300.0, "ymin": 10.0, "xmax": 200.0, "ymax": 20.0}
    endless = {"xmin": -math.inf, "ymin": 3.0, "xmax": math.inf, "ymax": math.inf}
    unknown = {**box, "ymax": math.nan}
    items = [
        {"score": 0.9, "label": "cup", "index": index, "box": sides}
        for index, sides in enumerate((box, gone, endless, unknown))
    ]
    assert draw_boxes(Image.new("RGB", (30, 20)), items).size == (30, 20)


def test_a_caption_that_does_not_fit_in_the_picture_is_left_out():
    box = {"xmin": 2.0, "ymin": 2.0, "xmax": 10.0, "ymax": 10.0}
    found = [{"score": 0.9, "label": "cup", "index": 4, "box": box}]
    for size in ((17, 13), (90, 8), (12, 400)):
        drawn = np.asarray(draw_boxes(Image.new("RGB", size), found))
        assert drawn.any() and not drawn[:, 12:].any() and not drawn[12:].any()  # the box, and nothing beside it
        assert not drawn[4:6, 4:9].any()  # nor in it


@pytest.mark.parametrize("version", CLASSES)
def test_a_box_written_out_step_by_step_is_that_of_the_run(version):
    model, x = make(version), pixels()[:1]
    out = model(x)
    for rank in (0, 3):
        told = model.explain_box(x, rank)
        assert told.agrees
        assert told.box == tuple(out.detection_boxes[0, rank].tolist())
        assert told.score == pytest.approx(1 / (1 + np.exp(-told.logit)), abs=1e-6)
        index, row, column, _ = told.place
        height, width = [(4, 6), (2, 3), (1, 2), (1, 1), (1, 1), (1, 1)][index]
        np.testing.assert_allclose(told.anchor_box[:2], ((row + 0.5) / height, (column + 0.5) / width), rtol=1e-6)
        assert [step.name for step in told.steps[:4]] == ["centre y", "half h", "ymin", "ymax"]
    with pytest.raises(InputError, match=r"expected a detection between 0 and .*, got 1000"):
        model.explain_box(x, 1000)
    with pytest.raises(InputError, match="expected one picture, got 2"):
        model.explain_box(pixels())


def test_a_box_as_tensorflow_decodes_it_is_written_out_and_clipped():
    model, x = make(ssd=mm.MobileNetSSDConfig(post_processing="tensorflow")), pixels()[:1]
    out = model(x)
    explained = [model.explain_box(x, rank) for rank in range(int(out.num_detections[0]))]
    assert all(told.agrees for told in explained)
    assert any({0.0, 1.0} & set(told.box) for told in explained)
    for rank, told in enumerate(explained):
        assert told.box == tuple(out.detection_boxes[0, rank].tolist())
        assert told.score == pytest.approx(1 / (1 + np.exp(-told.logit)), abs=1e-6)
