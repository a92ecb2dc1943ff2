"""Losses: by hand, by laws, and as a cross-check by PyTorch."""

from __future__ import annotations

import math

import numpy as np
import pytest
import twins
from hypothesis import given, settings
from hypothesis import strategies as st

from minimobile.errors import InputError
from minimobile.models.losses import classification_loss, infer_problem_type, segmentation_loss
from minimobile.networks.config import MobileNetV1Config, MobileNetV2Config

LOGITS = np.array([[0.0, np.log(3.0)], [0.0, 0.0]], np.float32)


def config(count, problem_type=None):
    return MobileNetV1Config(num_labels=count, problem_type=problem_type)


def test_cross_entropy_by_hand():
    # softmax gives (1/4, 3/4) and (1/2, 1/2)
    loss = classification_loss(LOGITS, [1, 0], config(2))
    assert loss == np.float32(-(math.log(3 / 4) + math.log(1 / 2)) / 2) and loss.dtype == np.float32


def test_regression_by_hand():
    loss = classification_loss(np.array([[1.0], [4.0]], np.float32), [[2.0], [2.0]], config(1))
    assert loss == np.float32(2.5)
    wide = classification_loss(LOGITS[1:], [[1.0, 2.0]], config(2, "regression"))
    assert wide == np.float32(2.5)


def test_binary_cross_entropy_by_hand():
    loss = classification_loss(np.zeros((1, 2), np.float32), [[1.0, 0.0]], config(2))
    assert loss == np.float32(math.log(2))
    extreme = classification_loss(np.array([[1e4, -1e4]], np.float32), [[0.0, 1.0]], config(2))
    assert extreme == np.float32(1e4)


def test_problem_type_as_transformers_infers_it():
    assert infer_problem_type(config(1), [1]) == "regression"
    assert infer_problem_type(config(3), [1]) == "single_label_classification"
    assert infer_problem_type(config(3), np.zeros(1, np.uint8)) == "single_label_classification"
    assert infer_problem_type(config(3), [1.0]) == "multi_label_classification"
    assert infer_problem_type(config(0), [1]) == "multi_label_classification"
    assert infer_problem_type(config(3, "regression"), [1]) == "regression"


def test_ignored_images_count_for_nothing():
    assert classification_loss(LOGITS, [-100, 0], config(2)) == classification_loss(LOGITS[1:], [0], config(2))
    assert np.isnan(classification_loss(LOGITS, [-100, -100], config(2)))


def test_one_image_may_have_a_scalar_label():
    assert classification_loss(LOGITS[1:], 1, config(2)) == np.float32(math.log(2))


def test_the_type_of_the_logits_is_kept():
    assert classification_loss(LOGITS.astype(np.float64), [1, 0], config(2)).dtype == np.float64


def test_segmentation_by_hand():
    logits = np.array([0.0, np.log(3.0)]).reshape(1, 2, 1, 1)
    loss = segmentation_loss(logits, [[[1, 1, 0, 255]]], MobileNetV2Config(num_labels=2))
    assert loss == pytest.approx(-(2 * math.log(3 / 4) + math.log(1 / 4)) / 3, rel=1e-15)


def test_segmentation_at_the_logits_own_size_is_cross_entropy_of_pixels():
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(2, 3, 4, 5))
    labels = generator.integers(0, 3, (2, 4, 5))
    pixels = logits.transpose(0, 2, 3, 1).reshape(-1, 3)
    expected = classification_loss(pixels, labels.reshape(-1), config(3))
    assert segmentation_loss(logits, labels, MobileNetV2Config(num_labels=3)) == pytest.approx(expected, rel=1e-14)


def test_segmentation_without_any_pixel_that_counts():
    logits = np.zeros((1, 2, 3, 3), np.float32)
    assert np.isnan(segmentation_loss(logits, np.full((1, 4, 4), 255), MobileNetV2Config(num_labels=2)))
    other = MobileNetV2Config(num_labels=2, semantic_loss_ignore_index=-1)
    with pytest.raises(InputError, match="got 255"):
        segmentation_loss(logits, np.full((1, 4, 4), 255), other)


@pytest.mark.parametrize(
    ("labels", "count", "problem_type", "message"),
    [
        ([0, 2], 2, None, "between 0 and 1 (or -100 to leave out), got 2"),
        ([0, -1], 2, None, "got -1"),
        ([0], 2, None, "2 class numbers, one per image, got shape (1,)"),
        ([[0, 1], [1, 0]], 2, None, "one per image, got shape (2, 2)"),
        ([0.0, 1.0], 2, None, "shape (2, 2) for multi_label_classification, got (2,)"),
        ([[0.0, 1.5]] * 2, 2, None, "between 0 and 1"),
        ([[0.0, float("nan")]] * 2, 2, None, "between 0 and 1"),
        ([0.5, 1.0], 2, "single_label_classification", "integer type, got float64"),
        ([1.0, 2.0, 3.0], 1, None, "shape (2,) for regression, got (3,)"),
        (["a", "b"], 2, None, "expected numbers, got <U1"),
        ([[1], [1, 2]], 2, None, "that NumPy cannot read"),
        ([1j, 2j], 1, None, "expected numbers, got complex128"),
    ],
)  # fmt: skip
def test_labels_that_do_not_fit(labels, count, problem_type, message):
    with pytest.raises(InputError) as caught:
        classification_loss(LOGITS[:, :count], labels, config(count, problem_type))
    assert message in str(caught.value) and str(caught.value).startswith("labels: ")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.zeros((1, 4, 4)), "integer type, got float64"),
        (np.zeros((2, 4, 4), int), "expected shape (1, height, width), got (2, 4, 4)"),
        (np.zeros((4, 4), int), "got (4, 4)"),
        (np.zeros((1, 0, 4), int), "got (1, 0, 4)"),
        (np.full((1, 4, 4), 3), "between 0 and 2 (or 255 to leave out), got 3"),
    ],
)
def test_maps_of_labels_that_do_not_fit(labels, message):
    with pytest.raises(InputError) as caught:
        segmentation_loss(np.zeros((1, 3, 2, 2), np.float32), labels, MobileNetV2Config(num_labels=3))
    assert message in str(caught.value)


def test_segmentation_needs_two_labels():
    with pytest.raises(InputError, match="more than one label"):
        segmentation_loss(np.zeros((1, 1, 2, 2), np.float32), np.zeros((1, 4, 4), int), MobileNetV2Config(num_labels=1))


@pytest.mark.crosscheck
@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(st.integers(0, 10**6), st.integers(1, 5), st.integers(1, 4), st.sampled_from([None, "regression", "multi"]))
def test_classification_against_transformers(seed, batch, count, kind):
    torch, _ = twins.import_torch()
    from transformers.loss.loss_utils import ForSequenceClassificationLoss

    generator = np.random.default_rng(seed)
    logits = generator.normal(0, 5, (batch, count))
    if kind is None and count > 1:
        labels = generator.choice([-100, *range(count)], batch)
    else:
        labels = generator.uniform(0, 1, (batch, count))
    ours_config = config(count, "regression" if kind == "regression" else None)
    theirs_config = twins.twin_config(ours_config)
    expected = float(ForSequenceClassificationLoss(torch.from_numpy(labels), torch.from_numpy(logits), theirs_config))
    assert infer_problem_type(ours_config, labels) == theirs_config.problem_type
    assert classification_loss(logits, labels, ours_config) == pytest.approx(expected, rel=1e-12, nan_ok=True)


@pytest.mark.crosscheck
@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(st.integers(0, 10**6), st.tuples(*[st.integers(1, 9)] * 2), st.tuples(*[st.integers(1, 140)] * 2))
def test_segmentation_against_pytorch(seed, size, label_size):
    torch, _ = twins.import_torch()
    generator = np.random.default_rng(seed)
    logits = generator.normal(0, 5, (2, 3, *size))
    labels = generator.choice([0, 1, 2, 255], (2, *label_size))
    resized = torch.nn.functional.interpolate(
        torch.from_numpy(logits), size=label_size, mode="bilinear", align_corners=False
    )
    expected = float(torch.nn.functional.cross_entropy(resized, torch.from_numpy(labels), ignore_index=255))
    found = segmentation_loss(logits, labels, MobileNetV2Config(num_labels=3))
    assert found == pytest.approx(expected, rel=1e-12, nan_ok=True)
