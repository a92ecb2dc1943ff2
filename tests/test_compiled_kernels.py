"""Twins: every compiled kernel, under its definition's name and signature, gives the same bits; no engine between."""

from __future__ import annotations

import inspect

import compiled_kernels
import numpy as np
import pytest
from cases import assert_same_bits
from hypothesis import given, settings
from hypothesis import strategies as st

from minimobile_kernels import reference
from minimobile_kernels.elementwise import CLAMPS, CURVES
from minimobile_kernels.geometry import window
from minimobile_kernels.step import KINDS

TWINS = [kind for kind in KINDS if kind != "pack_pixels"]  # which only brings an image into the kernels' layout


def random_map(rng, *shape):
    x = rng.standard_normal(shape).astype(np.float32)
    x[rng.random(shape) < 0.2] = 0
    return x


def draw_arguments(kind, rng):
    """Return arguments for a kernel: small maps of all four sizes different."""
    n, height, width = rng.integers(1, 3), *rng.integers(1, 14, 2)
    channels, out_channels, kernel = rng.integers(1, 40), rng.integers(1, 40), rng.integers(1, 5)
    stride, dilation = rng.integers(1, 4, 2)
    x = random_map(rng, n, height, width, channels)
    slide = window(height, width, (kernel, kernel), stride, dilation, "SAME")
    inside = window(height, width, (min(kernel, height), min(kernel, width)), stride, 1, "VALID")
    block = int(rng.choice([16, 32, reference.BLOCK]))
    factor = None if rng.random() < 0.5 else random_map(rng, channels if kind == "depthwise_conv2d" else out_channels)
    return {
        "conv2d": lambda: (
            x, random_map(rng, out_channels, kernel, kernel, channels), random_map(rng, out_channels), slide,
            out_channels * 1000 if rng.random() < 0.3 else block, factor,
        ),
        "depthwise_conv2d": lambda: (
            x, random_map(rng, kernel, kernel, channels), random_map(rng, channels), slide, factor
        ),
        "pointwise_conv2d": lambda: (
            x, random_map(rng, out_channels, channels), random_map(rng, out_channels), block, factor
        ),
        "average_pool2d": lambda: (x, inside, str(rng.choice(["float64", "float32"]))),
        "resize_bilinear": lambda: (x, *rng.integers(1, 20, 2), bool(rng.integers(2))),
        "add": lambda: (x, random_map(rng, *x.shape)),
        "concatenate": lambda: (x, random_map(rng, n, height, width, out_channels)),
        "activation": lambda: (x, str(rng.choice([*CLAMPS, *CURVES]))),
        "fake_quantize": lambda: (x, reference.nudge_range(-rng.random(), rng.random() + 0.1)),
    }[kind]()  # fmt: skip


@pytest.mark.parametrize("kind", TWINS)
def test_a_twin_has_its_definitions_signature(kind):
    assert inspect.signature(getattr(compiled_kernels, kind)) == inspect.signature(getattr(reference, kind))


@pytest.mark.parametrize("kind", TWINS)
@settings(max_examples=40)
@given(seed=st.integers(0, 2**32 - 1))
def test_a_twin_gives_its_definitions_bits(kind, seed):
    arguments = draw_arguments(kind, np.random.default_rng(seed))
    found, defined = (getattr(family, kind)(*arguments) for family in (compiled_kernels, reference))
    assert_same_bits(found, defined, f"{kind}: draw_arguments({kind!r}, np.random.default_rng({seed}))")


def test_depthwise_weights_that_are_not_finite():
    x, weight = np.ones((1, 5, 9, 3), np.float32), np.ones((3, 3, 3), np.float32)
    weight[0, 0] = np.inf
    arguments = x, weight, np.zeros(3, np.float32), window(5, 9, (3, 3), 1, 1, "SAME")
    found, defined = (family.depthwise_conv2d(*arguments) for family in (compiled_kernels, reference))
    assert_same_bits(found, defined, "infinite weights")
    assert np.isfinite(found[0, 0, 0, 0]) and np.isinf(found[0, 2, 2, 0])
