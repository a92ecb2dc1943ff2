"""Every method of quantisation against a computation written out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from spelling import random_weights

from minimobile.calibration import weight_grids
from minimobile.calibration.bias_correction import mean_shift
from minimobile.calibration.data_free import Moments, batch_norm_range, expect
from minimobile.calibration.equalization import equalize
from minimobile.calibration.folding import FoldedNetwork, Normal, fold
from minimobile.calibration.normal import clipped_moments, cumulative, density
from minimobile.calibration.observation import as_floats, observe, start
from minimobile.calibration.ranges import make_grid, min_max, moving_average, squared_error
from minimobile.calibration.rounding import Scheme, round_network, share_ranges
from minimobile.errors import FormatError
from minimobile.execution.definitions import run_reference
from minimobile.execution.engine import CompiledRunner
from minimobile.execution.runner import RunOptions
from minimobile.networks.build_graph import build_graph
from minimobile.networks.config import MobileNetV2Config
from minimobile.networks.graph import INPUT, Graph, Node
from minimobile_kernels import reference_statistics
from minimobile_kernels.entries import count_values
from minimobile_kernels.reference_statistics import BINS

WINDOW = {"kernel_size": 3, "stride": 1, "dilation": 1, "padding": "SAME"}


def two_layers(activation: str = "relu6", channels: int = 4) -> FoldedNetwork:
    """Return a depthwise convolution and a pointwise one after it, with batch norm's statistics for the first."""
    rng = np.random.default_rng(2)
    roles = [{"weight": f"{name}.weight", "bias": f"{name}.bias"} for name in ("first", "second")]
    nodes = (
        Node("first", "depthwise_conv2d", (INPUT,), {**WINDOW, "activation": activation}, roles[0]),
        Node("second", "pointwise_conv2d", ("first",), {}, roles[1]),
    )
    weights = {
        "first.weight": rng.standard_normal((channels, 1, 3, 3)) * np.array([0.1, 0.3, 1, 3]).reshape(-1, 1, 1, 1),
        "first.bias": rng.uniform(0.1, 0.3, channels),
        "second.weight": rng.standard_normal((5, channels)),
        "second.bias": rng.standard_normal(5),
    }
    graph = Graph(nodes, channels, ("second",), {name: values.shape for name, values in weights.items()})
    normals = {"first": Normal(np.linspace(-1, 2, channels), np.linspace(0.5, 2, channels))}
    return FoldedNetwork(graph, weights, normals)


def pictures(count: int = 3) -> list[np.ndarray]:
    return [np.random.default_rng(seed).uniform(0, 1, (1, 4, 6, 5)).astype(np.float32) for seed in range(count)]


def run(network: FoldedNetwork, x: np.ndarray, name: str) -> np.ndarray:
    maps = np.ascontiguousarray(x.transpose(0, 2, 3, 1))
    return run_reference(network.graph, as_floats(network.weights), maps, [name], fold=False)[name]


def test_the_range_of_a_map_is_that_of_its_values():
    seen = observe(two_layers("linear"), pictures(), 1, "a test")["second"]
    values = np.stack([run(two_layers("linear"), x, "second") for x in pictures()])
    assert min_max(seen) == (values.min(), values.max())
    np.testing.assert_allclose(seen.means, values.mean((0, 1, 2, 3), np.float64), rtol=1e-12)
    low, high = values[0].min(), values[0].max()
    for picture in values[1:]:
        low, high = low + 0.01 * (picture.min() - low), high + 0.01 * (picture.max() - high)
    np.testing.assert_allclose(moving_average(seen), (low, high), rtol=1e-6)


def test_the_range_of_least_squared_error_is_found_as_by_trying_all():
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.standard_normal(400_000), [10.0, -8.0]]).astype(np.float32)[:, None]
    seen = start(values)
    seen.add(values)
    low, high = squared_error(seen)

    def loss(low, high):
        step = (high - low) / 255
        zero = np.floor(-low / step + 0.5)
        exact = values.astype(np.float64)
        return (((np.clip(np.rint(exact / step) + zero, 0, 255) - zero) * step - exact) ** 2).sum()

    best = min(
        loss(-8 * share, 10 * other) for share in np.arange(16, 129, 8) / 128 for other in np.arange(16, 129, 8) / 128
    )
    assert loss(low, high) <= 1.05 * best
    assert loss(low, high) < 0.6 * loss(-8.0, 10.0)


def test_counts_do_not_depend_on_the_order_of_pictures_and_sums_are_those_of_the_definition():
    rng = np.random.default_rng(1)
    maps = [(rng.standard_normal((30, 3)) * size).astype(np.float32) for size in (0.1, 100, 3)]
    found = []
    for order in ((0, 1, 2), (1, 2, 0)):
        seen = start(maps[order[0]])
        for index in order:
            seen.add(maps[index])
        found.append(seen)
    np.testing.assert_array_equal(found[0].counts, found[1].counts)
    assert found[0].width == found[1].width
    assert found[0].counts.sum() == 270
    below_zero = np.float32([[-1e-20, -0.0, 1e-20]])
    for x in (*maps, below_zero):
        sums, counts = np.zeros((2, 3)), np.zeros((2, BINS), np.int64)
        count_values(x, sums[0], counts[0], 0.25)
        reference_statistics.count_values(x, sums[1], counts[1], 0.25)
        np.testing.assert_array_equal(sums[0], sums[1])
        np.testing.assert_array_equal(counts[0], counts[1])


@pytest.mark.parametrize("limits", [(-1.0, 3.0), (0.0, 6.0), (2.0, 5.0), (-4.0, -1.0), (0.0, 0.0), (-1e-20, 1e-20)])
@pytest.mark.parametrize("dtype", ["uint8", "int8"])
def test_zero_is_a_byte_of_every_grid(limits, dtype):
    grid = make_grid("x", limits, np.dtype(dtype))
    assert np.iinfo(dtype).min <= grid.zero <= np.iinfo(dtype).max
    assert np.isfinite(grid.scale)
    assert grid.scale > 0
    reach = float(grid.scale) * (np.array([np.iinfo(dtype).min, np.iinfo(dtype).max]) - grid.zero)
    if limits[1] - limits[0] > 1e-9:
        np.testing.assert_allclose(reach, (min(limits[0], 0), max(limits[1], 0)), atol=0.51 * float(grid.scale))


def test_int8_weights_are_symmetric_and_have_a_scale_per_channel():
    weight = two_layers().weights["first.weight"]
    limits = weight_grids.min_max(weight.reshape(4, -1))
    grid = weight_grids.round_per_channel(weight, limits, "nearest")
    np.testing.assert_array_equal(np.abs(grid.stored.reshape(4, -1).astype(int)).max(1), 127)
    np.testing.assert_allclose(grid.numbers(), weight, atol=np.abs(weight).max() / 250)
    rows = np.concatenate([np.random.default_rng(0).standard_normal((3, 4000)), np.full((3, 1), 6.0)], 1)
    assert (weight_grids.squared_error(rows) < weight_grids.min_max(rows)).all()


@given(st.integers(0, 10_000))
def test_balanced_rounding_keeps_sums_and_moves_nothing_further_than_a_step(seed):
    rng = np.random.default_rng(seed)
    steps = rng.uniform(-90, 90, (rng.integers(1, 5), rng.integers(1, 12)))
    rounded = weight_grids.balanced(steps)
    assert (np.abs((rounded - steps).sum(1)) <= 0.5 + 1e-9).all()
    assert (np.abs(rounded - steps) < 1).all()
    np.testing.assert_array_equal(rounded, np.rint(rounded))


def test_bias_correction_takes_off_what_rounding_adds_to_the_mean():
    network = two_layers("linear")
    x = pictures(1)[0]
    before = run(network, x, "first")
    exact, rounded = network.weights["second.weight"], np.rint(network.weights["second.weight"] * 3) / 3
    shift = mean_shift(exact, rounded, before.mean((0, 1, 2), np.float64))
    changed = network.replace({"second.weight": rounded, "second.bias": network.weights["second.bias"] - shift})
    plain = network.replace({"second.weight": rounded})
    means, corrected, moved = (run(each, x, "second").mean((0, 1, 2)) for each in (network, changed, plain))
    np.testing.assert_allclose(corrected, means, atol=1e-5)
    assert np.abs(moved - means).max() > 0.01
    by_channel = mean_shift(np.zeros((2, 1, 3, 3)), np.ones((2, 1, 3, 3)), np.array([2.0, -1.0]))
    np.testing.assert_array_equal(by_channel, [18, -9])


def test_the_normal_distribution_is_that_of_the_books():
    z = np.linspace(-7, 7, 1001)
    expected = np.exp(-z * z / 2) / np.sqrt(2 * np.pi)
    np.testing.assert_allclose(density(z), expected, atol=1e-8)
    np.testing.assert_allclose(cumulative(z), [0.5 * (1 + math.erf(each / math.sqrt(2))) for each in z], atol=2e-9)


@pytest.mark.parametrize("limits", [(0.0, 6.0), (0.0, np.inf), (-np.inf, np.inf), (-1.0, 1.0)])
def test_moments_of_clipped_values_are_those_of_a_fine_sum(limits):
    means, deviations = np.array([-2.0, 0.3, 5.0]), np.array([1.0, 2.0, 0.5])
    found = clipped_moments(means, deviations, *limits)
    for index, (mean, deviation) in enumerate(zip(means, deviations, strict=True)):
        z = (np.arange(-80_000, 80_000) + 0.5) / 10_000
        share = np.exp(-z * z / 2) / np.sqrt(2 * np.pi) / 10_000
        values = np.clip(mean + deviation * z, *limits)
        expected = (values * share).sum()
        np.testing.assert_allclose(found[0][index], expected, atol=1e-6)
        np.testing.assert_allclose(found[1][index], ((values - expected) ** 2 * share).sum(), atol=1e-5)


def test_batch_norm_tells_ranges_and_means_without_a_picture():
    network = two_layers()
    pixels = Moments(np.zeros(4), np.ones(4), -np.ones(4), np.ones(4))
    found = expect(network, pixels, "a test")
    normal = network.normals["first"]
    assert batch_norm_range(found["first"]) == (0.0, 6.0)  # 2 + 6 * 2, clipped
    np.testing.assert_allclose(found["first"].high, np.clip(normal.mean + 6 * normal.deviation, 0, 6))
    second = network.weights["second.weight"]
    np.testing.assert_allclose(found["second"].mean, second @ found["first"].mean + network.weights["second.bias"])
    np.testing.assert_allclose(found["second"].variance, second**2 @ found["first"].variance)


@pytest.mark.parametrize("activation", ["relu", "relu6", "linear"])
def test_equalised_layers_compute_the_same_and_reach_equally_far(activation):
    network = two_layers(activation)
    limits = np.max([run(network, x, "first").max((0, 1, 2)) for x in pictures()], 0).astype(np.float64)
    equalized = equalize(network, {"first": limits})
    for x in pictures():
        np.testing.assert_allclose(run(equalized, x, "second"), run(network, x, "second"), atol=1e-4)
    before = np.abs(equalized.weights["first.weight"]).reshape(4, -1).max(1)
    after = np.abs(equalized.weights["second.weight"]).max(0)
    if activation != "relu6":
        np.testing.assert_allclose(before, after, rtol=1e-6)
    else:
        first, second = (network.weights[f"{name}.weight"] for name in ("first", "second"))
        ratios = np.abs(first).reshape(4, -1).max(1) / np.abs(second).max(0)
        assert np.log(before / after).std() < np.log(ratios).std()


def test_a_channel_that_relu6_caps_is_widened_to_the_cap_and_no_further():
    network = two_layers("relu6")
    weights = {**network.weights, "second.weight": 1000 * network.weights["second.weight"]}  # it asks for wide ones
    limits = np.array([3.0, 2.0, 6.0, 1.5])
    equalized = equalize(FoldedNetwork(network.graph, weights, network.normals), {"first": limits})
    widening = equalized.weights["first.bias"] / network.weights["first.bias"]
    np.testing.assert_allclose(widening, [2, 3, 1, 4], rtol=1e-12)


def test_a_network_is_rounded_as_by_hand():
    network = two_layers()
    ranges = {INPUT: (0.0, 1.0), "first": (0.0, 6.0), "second": (-4.0, 8.0)}
    rounded = round_network(network, ranges, Scheme(rounding="nearest", weights="min_max"), None, (6, 5), "a test")
    tensors = rounded.network.tensors
    weight = network.weights["second.weight"]
    scales = (np.abs(weight).max(1) / 127).astype(np.float32)
    np.testing.assert_array_equal(tensors["second.weight"].scales, scales)
    steps = np.rint(weight / scales.astype(np.float64)[:, None])
    np.testing.assert_array_equal(tensors["second.weight"].values[:, 0, 0], steps)
    unit = np.float64(np.float32(6 / 255)) * scales.astype(np.float64)
    np.testing.assert_array_equal(
        tensors["second.bias"].values, np.floor(np.abs(network.weights["second.bias"] / unit) + 0.5)
        * np.sign(network.weights["second.bias"]),
    )  # fmt: skip
    assert tensors["second"].zero == round(-128 + 4 / (12 / 255))
    offset = round_network(network, ranges, Scheme(), {INPUT: np.zeros(4), "first": np.zeros(4)}, (6, 5), "t", 0.5)
    shift = 0.5 * offset.weights["first"].reshape(4, -1).sum(1)
    np.testing.assert_allclose(offset.biases["first"], network.weights["first.bias"] - shift)


def test_channels_of_zeros_and_biases_beyond_int32_get_a_scale_that_holds_them():
    network = two_layers()
    weight, bias = network.weights["second.weight"].copy(), network.weights["second.bias"].copy()
    weight[0], bias[0] = 0, 3.0
    weight[1], bias[1] = 1e-12, 3.0
    network = network.replace({"second.weight": weight, "second.bias": bias})
    ranges = {INPUT: (0.0, 1.0), "first": (0.0, 6.0), "second": (-4.0, 8.0)}
    rounded = round_network(network, ranges, Scheme(), None, (6, 5), "a test")
    tensors = rounded.network.tensors
    stands_for = tensors["second.bias"].values * tensors["second.bias"].scales.astype(np.float64)
    np.testing.assert_allclose(stands_for[:2], 3.0, rtol=1e-3)
    assert len(rounded.notes) == 1
    assert "second: 1 of 5 channels" in rounded.notes[0]
    spoiled = network.replace({"second.weight": weight * np.nan})
    with pytest.raises(FormatError, match="a test: second: expected weights that are finite"):
        round_network(spoiled, ranges, Scheme(), None, (6, 5), "a test")
    huge = two_layers().replace({"second.bias": np.full(5, 1e9)})
    with pytest.raises(FormatError, match=r"second: expected a bias of fewer than 2\*\*31 steps"):
        round_network(huge, ranges, Scheme(per_channel=False), None, (6, 5), "a test")


def test_maps_whose_bytes_are_moved_into_each_other_have_one_range():
    nodes = (
        Node("a", "pointwise_conv2d", (INPUT,), {}, {"weight": "w", "bias": "b"}),
        Node("pooled", "average_pool2d", ("a",), {"kernel_size": 2, "stride": 1}),
        Node("mean", "global_average_pool2d", ("pooled",), {}),
        Node("spread", "resize_bilinear", ("mean", "pooled"), {"align_corners": True}),
        Node("join", "concatenate", ("spread", "pooled"), {}),
    )
    graph = Graph(nodes, 2, ("join",), {"w": (2, 2), "b": (2,)})
    ranges = {INPUT: (0.0, 9.0), "a": (0.0, 5.0), "pooled": (0.0, 4.0), "mean": (0.0, 1.0), "spread": (0.0, 1.0)}
    shared = share_ranges(graph, {**ranges, "join": (-1.0, 4.0)})
    assert shared[INPUT] == (0.0, 9.0)
    assert {shared[name] for name in ("a", "pooled", "mean", "spread", "join")} == {(-1.0, 5.0)}


def test_folding_keeps_the_numbers_of_the_engine():
    config = MobileNetV2Config(depth_multiplier=0.05, min_depth=1, num_labels=3)
    graph = build_graph(config, "MobileNetV2ForImageClassification")
    weights = random_weights(graph)
    folded = fold(graph, weights)
    x = np.random.default_rng(0).standard_normal((1, 33, 33, 3)).astype(np.float32)
    (name,) = graph.outputs
    ours, theirs = (
        CompiledRunner(network, values, RunOptions(num_threads=1)).run(x, (name,), "channels_last")[name]
        for network, values in ((folded.graph, as_floats(folded.weights)), (graph, weights))
    )
    np.testing.assert_array_equal(ours, theirs)
