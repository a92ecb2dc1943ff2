"""The bound on float32: it holds for every order of summation, and it is not so wide that a fault could hide in it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minimobile.comparison.float32_bounds import estimate, exact, excess
from minimobile.networks.config import ACTIVATIONS
from minimobile.networks.graph import Node
from minimobile.operations.activation import CURVE_ROUNDINGS
from minimobile.operations.estimate import Estimate
from minimobile.operations.fake_quantization import FakeQuantization
from minimobile_kernels import reference

NORMALIZATION = {role: role for role in ("weight", "bias", "mean", "variance")}


def layer(op: str, activation: str = "linear", **attributes) -> list[Node]:
    return [
        Node("convolution", op, ("x",), attributes, {"weight": "kernel"}),
        Node("normalization", "batch_norm", ("convolution",), {"epsilon": 1e-3}, NORMALIZATION),
        Node("activation", "activation", ("normalization",), {"function": activation}),
    ]


def draw(random: np.random.Generator, channels: int, outputs: int) -> dict[str, np.ndarray]:
    drawn = {
        "kernel": random.normal(size=(outputs, channels, 1, 1)),
        "weight": random.normal(size=outputs),
        "bias": random.normal(size=outputs),
        "mean": random.normal(size=outputs) * 3,
        "variance": random.uniform(0, 2, outputs),
    }
    return {name: values.astype(np.float32) for name, values in drawn.items()}


@settings(max_examples=40)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 2, 7, 64, 300]), st.booleans(), st.booleans())
def test_float32_stays_within_the_bound_in_any_order_folded_or_not(seed, channels, is_folded, is_backwards) -> None:
    random = np.random.default_rng(seed)
    weights, x = draw(random, channels, 3), random.normal(size=(1, 2, 2, channels)).astype(np.float32)
    expected = estimate(layer("pointwise_conv2d", "relu6"), weights, {"x": exact(x)})
    kernel = weights["kernel"][..., 0, 0]
    scale = weights["weight"] / np.sqrt(weights["variance"] + np.float32(1e-3))
    if is_folded:
        kernel = kernel * scale[:, None]
    found = np.zeros((1, 2, 2, 3), np.float32)
    for channel in range(channels)[:: -1 if is_backwards else 1]:
        found += x[..., channel, None] * kernel[:, channel]
    found = found - weights["mean"] * scale + weights["bias"] if is_folded else (
        (found - weights["mean"]) * scale + weights["bias"]
    )  # fmt: skip
    assert found.dtype == np.float32
    assert excess(expected, np.clip(found, 0, 6)).max() <= 1


def test_a_change_of_a_ten_thousandth_does_not_fit() -> None:
    random = np.random.default_rng(0)
    weights, x = draw(random, 64, 8), random.normal(size=(1, 5, 5, 64)).astype(np.float32)
    nodes = layer("pointwise_conv2d")
    expected = estimate(nodes, weights, {"x": exact(x)})
    changed = {**weights, "kernel": weights["kernel"] * np.float32(1.0001)}
    found = estimate(nodes, changed, {"x": exact(x)}).value.astype(np.float32)
    assert excess(expected, expected.value.astype(np.float32)).max() <= 1
    assert excess(expected, found).max() > 1


@pytest.mark.parametrize("function", ACTIVATIONS)
def test_an_activation_spreads_errors_no_more_than_its_steepest_slope(function: str) -> None:
    x = np.linspace(-9, 9, 20001).reshape(1, 1, -1, 1)
    spread = np.full_like(x, 1e-3)
    node = Node("y", "activation", ("x",), {"function": "silu" if function == "swish" else function})
    middle = estimate([node], {}, {"x": Estimate(x, spread, np.abs(x), spread)})
    for moved in (x - spread, x + spread):
        assert excess(middle, estimate([node], {}, {"x": exact(moved)}).value).max() < 1 + 1e-9
    assert CURVE_ROUNDINGS > 8


def test_errors_pass_through_sums_means_joins_and_resizes() -> None:
    random = np.random.default_rng(1)
    x, y = (random.normal(size=(1, 4, 5, 3)) for _ in range(2))
    inputs = {name: Estimate(values, *3 * [np.full_like(values, 1e-3)]) for name, values in (("x", x), ("y", y))}
    moved = {"x": exact(x + 1e-3), "y": exact(y - 1e-3)}
    for op, names, attributes in (
        ("add", ("x", "y"), {}),
        ("concatenate", ("x", "y"), {}),
        ("global_average_pool2d", ("x",), {}),
        ("average_pool2d", ("x",), {"kernel_size": 3, "stride": 2}),
        ("resize_bilinear", ("x", "y"), {"align_corners": False}),
    ):
        node = Node("z", op, names, attributes)
        expected, found = estimate([node], {}, inputs), estimate([node], {}, moved).value
        assert excess(expected, found).max() < 1 + 1e-9
        assert excess(expected, found + 4e-3).max() > 1, op


def test_what_is_not_a_number_is_judged_by_equality() -> None:
    expected = Estimate(np.array([np.nan, np.inf, 1.0, 1.0, 0.0]), np.zeros(5), np.ones(5), np.zeros(5))
    found = np.array([np.nan, np.inf, np.nan, 1.0, 1e-30], np.float32)
    assert excess(expected, found).tolist() == [0, 0, np.inf, 0, np.inf]


def test_values_between_two_steps_may_go_either_way_and_others_not() -> None:
    """Two versions of TensorFlow divide by a step, or multiply by its inverse: near the middle they part."""
    low, high = -22.861738204956055, 25.324981689453125
    quantization = FakeQuantization(low, high)
    grid = reference.nudge_range(*quantization)
    middles = grid.low + (np.arange(255) + 0.5) * float(grid.step)
    x = np.float32(middles * (1 + np.random.default_rng(0).uniform(-3e-7, 3e-7, (40, 255)))).reshape(1, 1, -1, 1)
    newer = reference.fake_quantize(x, grid)
    step, start = np.float32(grid.step), np.float32(grid.low)
    older = np.floor((x - start) * (np.float32(1) / step) + np.float32(0.5)) * step + start
    expected = estimate([Node("y", "fake_quantize", ("x",), {"quantization": quantization})], {}, {"x": exact(x)})
    assert np.abs(newer - older).max() > 0.9 * grid.step, "they part somewhere"
    assert max(excess(expected, newer).max(), excess(expected, older).max()) <= 1
    far = exact(x + np.float32(0.01 * grid.step))
    sure = estimate([Node("y", "fake_quantize", ("x",), {"quantization": quantization})], {}, {"x": far})
    assert excess(sure, (sure.value + grid.step).astype(np.float32)).min() > 1, "but not a hundredth of a step away"
