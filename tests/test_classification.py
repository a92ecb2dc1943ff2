"""Probabilities: what softmax and sigmoid are, with the same bits on every processor."""

from __future__ import annotations

import hashlib
import math

import numpy as np
import pytest

from minimobile.models.classification import apply_sigmoid, apply_softmax


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


def hash_bits(values: np.ndarray) -> str:
    return hashlib.sha256(values.tobytes()).hexdigest()[:16]
