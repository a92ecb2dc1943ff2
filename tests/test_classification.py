"""What a picture shows, the likeliest first; and what softmax and sigmoid are, with the bits of every processor."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import V1, make

import minimobile as mm
from minimobile.models.classification import MOST_RANKED, apply_sigmoid, apply_softmax, find_largest
from minimobile_kernels import exponentials
from minimobile_kernels.elementwise import SUM_WORDS, exponential


def test_classify_names_the_likeliest_first(tmp_path: Path) -> None:
    model = make(mm.MobileNetV1ForImageClassification, V1.replace(id2label=dict(enumerate("abcde"))))
    settings_ = {"size": {"shortest_edge": 36}, "crop_size": {"height": 32, "width": 32}}
    settings_["image_processor_type"] = "MobileNetV1ImageProcessor"
    model = type(model).from_checkpoint(dataclasses.replace(model.to_checkpoint(), processor=settings_))
    model.save_pretrained(tmp_path)
    image = np.random.default_rng(0).integers(0, 256, (50, 60, 3), np.uint8)
    found = mm.classify(image, tmp_path, top=3)
    logits = model(model.processor(image, return_tensors="np")["pixel_values"]).logits[0]
    assert [item["index"] for item in found] == np.argsort(-logits, kind="stable")[:3].tolist()
    assert [item["label"] for item in found] == ["abcde"[item["index"]] for item in found]
    everything = mm.classify(image, model, top=50)
    assert len(everything) == 5 and sum(item["probability"] for item in everything) == pytest.approx(1, abs=1e-12)
    json.dumps(everything)
    for top in (0, True, 1.5):
        with pytest.raises(mm.InputError, match="top"):
            mm.classify(image, model, top=top)
    with pytest.raises(mm.InputError, match="image-processor settings"):
        mm.classify(image, make(mm.MobileNetV1ForImageClassification, V1))
    with pytest.raises(mm.InputError, match="expected one for image classification"):
        mm.classify(image, make(mm.MobileNetV1Model, V1))


def test_equal_logits_are_in_the_order_of_index(classifier: Path) -> None:
    model = mm.load(classifier)
    for logits, expected in (([1, 1, 1], [0, 1, 2]), ([1, 2, 2], [1, 2, 0])):
        weights = {**model.state_dict(), "classifier.bias": np.array(logits, np.float32)}
        weights["classifier.weight"] = np.zeros_like(weights["classifier.weight"])
        image = np.zeros((40, 48, 3), np.uint8)
        found = mm.classify(image, mm.MobileNetV1ForImageClassification.from_pretrained(classifier, state_dict=weights))
        assert [item["index"] for item in found] == expected


def test_by_hand() -> None:
    assert apply_softmax(np.array([0.0, math.log(3), -math.inf])).tolist() == pytest.approx([0.25, 0.75, 0], abs=1e-16)
    assert apply_sigmoid(np.array([0.0, math.log(3), -1000.0])).tolist() == pytest.approx([0.5, 0.75, 0], abs=1e-16)


def test_near_the_math_library() -> None:
    logits = np.random.default_rng(0).uniform(-20, 20, 1001)
    weights = [math.exp(logit - logits.max()) for logit in logits]
    expected = [weight / math.fsum(weights) for weight in weights]
    np.testing.assert_allclose(apply_softmax(logits), expected, rtol=1e-14)
    np.testing.assert_allclose(apply_sigmoid(logits), [1 / (1 + math.exp(-logit)) for logit in logits], rtol=1e-14)


def test_the_bits_are_those_of_every_processor() -> None:
    logits = np.random.default_rng(1).uniform(-20, 20, 1001)
    found = {function.__name__: hash_bits(function(logits)) for function in (apply_softmax, apply_sigmoid)}
    assert found == {"apply_softmax": "c6e8281bcfb6331a", "apply_sigmoid": "dfd9bc627cf1e18e"}


@given(st.lists(st.floats(-800, 5) | st.sampled_from((0.0, 1.0, -36.0437, -36.0436, -745.0)), min_size=1, max_size=60))
def test_the_sum_is_rounded_once(logits: list[float]) -> None:
    x = np.array(logits)
    weights = exponential(x - x.max())
    np.testing.assert_array_equal(apply_softmax(x), weights / math.fsum(weights.tolist()))


@given(st.lists(st.floats(0, 1e300) | st.sampled_from((1.0, 2.0**-53, 2.0**-54, 5e-324)), min_size=1, max_size=40))
def test_any_sum_is_rounded_once(numbers: list[float]) -> None:
    """Halfway between two neighbours, too, and just beside it."""
    add, round_parts = exponentials.add_exactly.py_func, exponentials._round_parts.py_func
    half = math.ulp(math.fsum(numbers)) / 2
    words = np.full(SUM_WORDS, -1)
    with mock.patch.object(exponentials, "_round_parts", round_parts):
        for more in ([], [half], [half, 5e-324], [math.nextafter(half, 0)], [math.nextafter(half, 1), half / 2]):
            assert add(np.array([*numbers, *more]), words) == math.fsum([*numbers, *more])
        assert math.isnan(add(np.array([*numbers, -math.nan]), words))


def test_what_is_no_number_leaves_none() -> None:
    for value in (math.nan, math.inf):
        assert np.isnan(apply_softmax(np.array([0.0, value, *range(50)]))).all()


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=2 * MOST_RANKED), st.integers(1, 2 * MOST_RANKED))
def test_ranks_are_those_of_a_stable_sort(values: list[int], count: int) -> None:
    expected = sorted(range(len(values)), key=lambda index: (-values[index], index))
    for asked in (count, 1 + count % len(values)):  # the second leaves some out, and often one of equals
        assert find_largest(np.array(values, np.float64), asked).tolist() == expected[:asked]


def hash_bits(values: np.ndarray) -> str:
    return hashlib.sha256(values.tobytes()).hexdigest()[:16]
