"""Detections: the compiled form against its definition, by equality, and both against what can be told by hand."""

from __future__ import annotations

import numpy as np
import pytest
from detection_files import run_litert_detection, write_single
from hypothesis import given
from hypothesis import strategies as st

from minimobile.errors import InputError
from minimobile.execution.byte_detection import ByteDetection
from minimobile.execution.detection import PostProcessor, convert_scores
from minimobile.networks.ssd_config import MobileNetSSDConfig
from minimobile_kernels import elementwise
from minimobile_kernels.detection_rules import BLOCK, pack_rules, work_sizes
from minimobile_kernels.entries import detect, sigmoid_scores
from minimobile_kernels.reference_detection import Rules, decode_boxes, overlap, partial_sort, suppress
from minimobile_kernels.reference_detection import detect as detect_by_definition

SCALES = (10.0, 10.0, 5.0, 5.0)
SCALE_NAMES = ("y_scale", "x_scale", "h_scale", "w_scale")
FAST = Rules(2, 0, 10, 1, 100, False, False, np.float32(0.1), np.float32(0.5))


def box(*sides):
    return np.array(sides, np.float32)


def run_compiled(encodings, scores, anchors, rules, scales=SCALES):
    """Return rows (box, class, score), zeros where nothing was written, and the two counts."""
    shape, size = work_sizes(len(anchors), rules.num_classes)
    out = np.zeros((rules.max_detections * rules.max_classes_per_detection, 6), np.float32)
    count = np.zeros(2, np.int64)
    work, order = np.empty(shape, np.float32), np.empty(size, np.int64)
    detect(encodings, scores.reshape(-1), anchors, pack_rules(rules, scales), work, order, out, count)
    return out, count


def run_definition(encodings, scores, anchors, rules, scales=SCALES):
    out = np.zeros((rules.max_detections * rules.max_classes_per_detection, 6), np.float32)
    boxes = decode_boxes(encodings, anchors, np.array(scales, np.float32), rules.is_tensorflow)
    columns = [np.ascontiguousarray(part) for part in (out[:, :4], out[:, 4], out[:, 5])]
    count = detect_by_definition(boxes, scores, rules, *columns)
    return np.concatenate([columns[0], columns[1][:, None], columns[2][:, None]], 1), count


def draw_case(seed):
    """Return arguments with many ties: encodings, scores and anchors are small multiples of fractions."""
    rng = np.random.default_rng(seed)
    anchors, classes, offset = (int(rng.integers(low, high)) for low, high in ((1, 60), (1, 12), (0, 2)))
    encodings = (rng.integers(-6, 7, (anchors, 4)) * rng.choice([1, 0.37])).astype(np.float32)
    scores = (rng.integers(0, rng.integers(2, 40), (anchors, classes + offset)) / 40).astype(np.float32)
    places = (rng.integers(0, 8, (anchors, 4)) / 8).astype(np.float32)
    places[:, 2:] += np.float32(rng.choice([0, 0.1]))
    is_by_class = bool(rng.integers(2))
    rules = Rules(
        classes, offset, int(rng.integers(1, 20)), int(rng.integers(1, 5)), int(rng.integers(1, 10)), is_by_class,
        is_by_class and bool(rng.integers(2)), np.float32(rng.choice([1e-8, 0.1, 0.25, 0.5])),
        np.float32(rng.choice([0.3, 0.5, 0.6, 1.0])),
    )  # fmt: skip
    return encodings, scores, places, rules


def test_an_anchor_moves_by_tenths_of_its_size_and_grows_by_powers_of_e():
    anchor = box(0.5, 0.5, 0.2, 0.4)[None]
    still = decode_boxes(box(0, 0, 0, 0)[None], anchor, box(*SCALES), False)
    np.testing.assert_allclose(still, [[0.4, 0.3, 0.6, 0.7]], rtol=1e-6)
    moved = decode_boxes(box(10, -5, 5 * np.log(2), 0)[None], anchor, box(*SCALES), False)
    np.testing.assert_allclose(
        moved, [[0.5, 0.1, 0.9, 0.5]], rtol=1e-6
    )  # a height down, half a width left, twice as high


def test_overlap_of_two_boxes():
    assert overlap(box(0, 0, 2, 2), box(1, 1, 3, 3)) == np.float32(1) / np.float32(7)
    assert overlap(box(0, 0, 1, 1), box(1, 0, 2, 1)) == 0
    assert overlap(box(0, 0, 0, 1), box(0, 0, 1, 1)) == 0  # no area


def test_the_better_of_two_overlapping_boxes_stays_and_ties_go_to_the_first():
    boxes = np.stack([box(0, 0, 1, 1), box(0, 0, 1, 0.9), box(0.9, 0.9, 2, 2)])
    assert suppress(boxes, np.array([0.5, 0.7, 0.6], np.float32), FAST, 10) == [1, 2]
    assert suppress(boxes, np.array([0.7, 0.7, 0.6], np.float32), FAST, 10) == [0, 2]
    assert suppress(boxes, np.array([0.7, 0.05, 0.1], np.float32), FAST, 10) == [0, 2]  # at the threshold is enough
    strict = FAST._replace(is_tensorflow=True)
    assert suppress(boxes, np.array([0.7, 0.05, 0.1], np.float32), strict, 10) == [0]  # and for TensorFlow it is not


@pytest.mark.parametrize("run", [run_compiled, run_definition])
@pytest.mark.parametrize(("width", "kept"), [(0.5, 2), (0.5625, 1)])
def test_an_overlap_just_at_the_threshold_is_allowed(run, width, kept):
    anchors = np.stack([box(0.5, 0.5, 1, 1), box(0.5, width / 2, 1, width)])  # the second lies in the first one
    rows, count = run(np.zeros((2, 4), np.float32), np.full((2, 2), 0.7, np.float32), anchors, FAST)
    assert np.atleast_1d(count)[0] == kept == (rows[:, 5] > 0).sum()


def test_partial_sort_leaves_ties_in_the_order_of_libstdcxx():
    values, order = np.array([0.5, 0.5, 0.25, 0.5, 0.75, 0.5, 0.75, 0.25]), np.zeros(8, np.int64)
    for count, expected in ((2, [6, 4]), (3, [4, 6, 1]), (4, [4, 6, 1, 3])):  # what a C++ program of g++ 12 prints
        partial_sort(values, order, 0, count, 8)
        assert order[:count].tolist() == expected


def test_a_box_with_a_negative_size_is_named():
    anchors = np.stack([box(0, 0, 1, 1), box(0, 0, 1, -1), box(0, 0, -1, 1)])
    out, count = run_compiled(np.zeros((3, 4), np.float32), np.ones((3, 2), np.float32), anchors, FAST)
    assert count.tolist() == [0, 1]
    assert not out.any()


@given(st.integers(0, 2**32 - 1))
def test_compiled_detections_equal_their_definition(seed):
    arguments = draw_case(seed)
    (found, counts), (expected, count) = run_compiled(*arguments), run_definition(*arguments)
    assert counts[0] == count, f"draw_case({seed})"
    np.testing.assert_array_equal(found.view(np.int32), expected.view(np.int32), err_msg=f"draw_case({seed})")


@pytest.mark.parametrize("is_by_class", [False, True])
def test_many_anchors_and_classes_equal_the_definition(is_by_class):
    rng = np.random.default_rng(7)
    scores = (1 / (1 + np.exp(-rng.normal(-3, 2, (600, 31))))).astype(np.float32)
    encodings, anchors = rng.normal(0, 2, (600, 4)).astype(np.float32), rng.random((600, 4), np.float32)
    rules = Rules(30, 1, 100, 1, 100, is_by_class, False, np.float32(1e-8), np.float32(0.6))
    (found, counts), (expected, count) = (
        run(encodings, scores, anchors, rules) for run in (run_compiled, run_definition)
    )
    assert counts.tolist() == [count, -1]
    assert count > 50
    np.testing.assert_array_equal(found.view(np.int32), expected.view(np.int32))


@pytest.mark.parametrize("is_tensorflow", [False, True])
@pytest.mark.parametrize("case", ["one box", "one score", "few classes"])
def test_what_the_best_scores_do_not_decide_is_chosen_among_all(case, is_tensorflow):
    rng = np.random.default_rng(5)
    scores, anchors = rng.random((300, 9), np.float32), rng.random((300, 4), np.float32)
    if case == "one box":  # so the best suppress one another, and the list is not full
        anchors[np.argsort(-scores.max(1))[:200]] = (0.5, 0.5, 0.1, 0.1)
    elif case == "one score":  # so the scores as good as the best are more than there is room for
        scores[:] = np.float32(0.5)
    else:
        scores[:, 1:] = np.round(scores[:, 1:] * 8) / 8
    rules = Rules(8, 1, 20, 1, 7, True, is_tensorflow, np.float32(1e-8), np.float32(0.5))
    arguments = np.zeros((300, 4), np.float32), scores, anchors, rules
    (found, counts), (expected, count) = run_compiled(*arguments), run_definition(*arguments)
    assert counts.tolist() == [count, -1]
    np.testing.assert_array_equal(found.view(np.int32), expected.view(np.int32))


def test_a_score_as_good_as_the_last_one_looked_at_is_looked_at_too():
    scores, encodings = np.full((60, 2), 0.25, np.float32), np.zeros((60, 4), np.float32)
    scores[:, 1] = scores[59, 0] = 0.5  # of the second class all, and of the first class, which is first, the last one
    anchors = np.column_stack([np.arange(60), np.arange(60), np.ones(60), np.ones(60)]).astype(np.float32)
    rules = Rules(2, 0, 1, 1, 1, True, False, np.float32(0.1), np.float32(0.5))
    for run in (run_compiled, run_definition):
        found, _ = run(encodings, scores, anchors, rules)
        assert found[0, 4:].tolist() == [0, 0.5]
        assert found[0, :2].tolist() == [58.5, 58.5]


def draw_bytes(seed):
    """Return encodings and scores of two pictures in bytes, what each byte stands for, anchors and rules."""
    rng = np.random.default_rng(seed)
    _, _, anchors, rules = draw_case(seed)
    columns = int(rng.choice([rules.num_classes, 16, 17, 40])) + rules.label_offset  # of a vector, and of several
    rules = rules._replace(num_classes=columns - rules.label_offset)
    codes = rng.integers(0, 256, (2, len(anchors), 4)).astype(np.uint8)
    scores = rng.integers(0, rng.integers(2, 257), (2, len(anchors), columns)).astype(np.uint8)
    every = np.arange(256, dtype=np.float32)
    numbers = np.float32(0.11) * (every - np.float32(128)), np.float32(rng.choice([1 / 256, 1 / 40])) * every
    return codes, scores, numbers, anchors, rules


def with_rules(rules, anchors, engine):
    chosen = PostProcessor(MobileNetSSDConfig(), rules.num_classes, anchors, engine)
    chosen.rules = rules
    return chosen


@given(st.integers(0, 2**32 - 1))
def test_detections_of_bytes_are_those_of_their_numbers(seed):
    codes, scores, numbers, anchors, rules = draw_bytes(seed)
    found = ByteDetection(with_rules(rules, anchors, "compiled"), rules.label_offset, *numbers).run(codes, scores, "")
    definition = with_rules(rules, anchors, "reference")
    expected = definition.run(numbers[0][codes], numbers[1][scores])
    for own, other in zip(found, (expected.boxes, expected.classes, expected.scores, expected.counts), strict=True):
        np.testing.assert_array_equal(own.view(np.int32), other.view(np.int32), err_msg=f"draw_bytes({seed})")


def test_a_box_with_a_negative_size_is_named_of_bytes_too():
    codes, scores, numbers, anchors, rules = draw_bytes(5)
    anchors[2, 3] = -1
    with pytest.raises(InputError, match=r"^here: expected boxes .* of anchor 2;"):
        ByteDetection(with_rules(rules, anchors, "compiled"), rules.label_offset, *numbers).run(codes, scores, "here")


def test_one_nan_and_columns_of_no_class_are_refused():
    chosen = PostProcessor(MobileNetSSDConfig(), 2, np.full((3, 4), 0.5, np.float32))
    encodings, scores = np.zeros((1, 3, 4), np.float32), np.zeros((1, 3, 2), np.float32)
    spoilt = [values.copy() for values in (encodings, scores)]
    spoilt[0][0, 1, 2] = spoilt[1][0, 2, 0] = np.nan
    with pytest.raises(InputError, match="here: expected box encodings that are numbers, got NaN"):
        chosen.run(spoilt[0], scores, "here")
    with pytest.raises(InputError, match="expected scores that are numbers, got NaN"):
        chosen.run(encodings, spoilt[1])
    with pytest.raises(InputError, match="expected scores of 2 classes, or of these and a background, got 4"):
        chosen.run(encodings, np.zeros((1, 3, 4), np.float32))


@pytest.mark.parametrize(
    ("settings", "is_by_class"),
    [({}, False), ({"use_regular_nms": True}, True), ({"post_processing": "tensorflow"}, True)],
)
def test_which_settings_suppress_class_by_class(settings, is_by_class):
    rules = PostProcessor(MobileNetSSDConfig(**settings), 2, np.zeros((3, 4), np.float32)).rules
    assert (rules.is_by_class, rules.is_tensorflow) == (is_by_class, "post_processing" in settings)


def test_shares_are_rounded_once_and_no_logit_is_too_large():
    logits = np.random.default_rng(6).normal(0, 9, (200, 5)).astype(np.float32)
    found, powers = convert_scores(logits, "softmax"), np.exp(logits.astype(np.float64))
    exact = powers / powers.sum(1, keepdims=True)
    assert (np.abs(found - exact) <= 0.5000001 * np.spacing(found)).all()
    assert convert_scores(np.float32([[3e38, 0, -3e38]]), "softmax").tolist() == [[1, 0, 0]]


def test_sigmoid_scores_equal_their_definition():
    rng = np.random.default_rng(3)
    special = [np.nan, np.inf, -np.inf, 0, -0.0, 700, -700, 699.9, -699.9, 88, 104, -88, -104, 3e38, -3e38]
    logits = np.concatenate([special, rng.normal(0, 30, 3 * BLOCK + 5)]).astype(np.float32)
    out = np.zeros_like(logits)
    sigmoid_scores(logits, np.empty(2 * BLOCK, np.int64), out)
    np.testing.assert_array_equal(out, elementwise.activate(logits, "sigmoid"))


@pytest.mark.crosscheck
@pytest.mark.parametrize("first", range(0, 3000, 500))
def test_three_thousand_files_of_one_operation_are_litert_s(first):
    for seed in range(first, first + 500):
        rng = np.random.default_rng([1, seed])
        encodings, scores, anchors, rules = draw_case(seed)
        rules = rules._replace(is_tensorflow=False)
        scales, affine = SCALES, None
        if seed % 3 == 0:
            affine = [(0.3, int(rng.integers(90, 160))), (1 / 256, 0), (0.01, 0)]
            stored = [
                rng.integers(60, 190, encodings.shape), rng.integers(0, rng.integers(2, 256), scores.shape),
                rng.integers(0, 100, anchors.shape),
            ]  # fmt: skip
            stored = [values.astype(np.uint8) for values in stored]
        else:
            stored = [encodings, scores, anchors]
        options = {
            "max_detections": rules.max_detections, "max_classes_per_detection": rules.max_classes_per_detection,
            "detections_per_class": rules.detections_per_class, "use_regular_nms": rules.is_by_class,
            "nms_score_threshold": float(rules.score_threshold), "nms_iou_threshold": float(rules.iou_threshold),
            "num_classes": rules.num_classes, **dict(zip(SCALE_NAMES, scales, strict=True)),
        }  # fmt: skip
        boxes, classes, chances, count = run_litert_detection(
            write_single(*stored, options, affine), *(v[None] for v in stored[:2])
        )
        if affine is not None:
            (a, b), (c, d), (e, f) = ((np.float32(scale), np.float32(zero)) for scale, zero in affine)
            encodings = (stored[0].astype(np.float32) - b) * a
            scores = c * (stored[1].astype(np.float32) - d)
            anchors = (stored[2].astype(np.float32) - f) * e
        found, counts = run_compiled(encodings, scores, anchors, rules, scales)
        assert counts[0] == count, f"seed {seed}"
        each = 1 if rules.is_by_class else rules.max_classes_per_detection
        rows = [row * each + rank for row in range(int(count)) for rank in range(min(each, rules.num_classes))]
        expected = np.concatenate([boxes, classes[:, None], chances[:, None]], 1)[rows]
        np.testing.assert_array_equal(found[rows].view(np.int32), expected.view(np.int32), err_msg=f"seed {seed}")
