"""Fake quantisation: grids by hand, the compiled kernel against its definition, both against TensorFlow run live."""

from __future__ import annotations

from collections.abc import Callable

import frameworks
import numpy as np
import pytest
from cases import assert_engines_agree, random_weights
from hypothesis import given
from hypothesis import strategies as st

from minimobile import deeplab, mobilenet_v1, mobilenet_v2
from minimobile.config import MobileNetV1Config, MobileNetV2Config
from minimobile.engine import Engine
from minimobile.fake_quantization import FakeQuantization, add_fake_quantization, needed_ranges
from minimobile.graph import Graph
from minimobile_kernels.reference import fake_quantize, nudge_range

FLOATS = st.floats(0, 1e4, width=32, allow_subnormal=False)
RANGES = st.builds(lambda low, high, bits, narrow: FakeQuantization(-low, high, bits, narrow),
                   FLOATS.filter(lambda x: x == 0 or x > 1e-3), FLOATS.filter(lambda x: x > 1e-3),
                   st.integers(2, 16), st.booleans())  # fmt: skip


def test_by_hand() -> None:
    grid = nudge_range(-1.25, 6.5, num_bits=3)  # 7.75 / 7 a step: zero is at 1.13 of them, and moves to 1
    assert [float(value) for value in grid] == pytest.approx([-7.75 / 7, 6 * 7.75 / 7, 7.75 / 7, 1])
    x = np.array([-9, -1.25, -0.5, 0, 0.55, 0.56, 6.5, 9, np.nan], np.float32)
    steps = [-1, -1, 0, 0, 0, 1, 6, 6, np.nan]
    np.testing.assert_array_equal(fake_quantize(x, grid), np.float32(steps) * grid.step)
    assert fake_quantize(x.astype(np.float64), grid).dtype == np.float64


def test_a_narrow_range_has_one_number_less_and_none_has_one() -> None:
    narrow = nudge_range(-1, 1, 8, narrow_range=True)
    assert (float(narrow.low), float(narrow.high), float(narrow.zero)) == (-1, 1, 127)
    assert np.array_equal(fake_quantize(np.float32([-5, 0, 5]), nudge_range(0, 0)), [0, 0, 0])


def test_halves_go_up() -> None:
    grid = nudge_range(-128, 127)
    assert fake_quantize(np.float32([-2.5, -1.5, -0.5, 0.5, 1.5]), grid).tolist() == [-2, -1, 0, 1, 2]


@pytest.mark.parametrize("channels", [3, 16, 21])
@pytest.mark.parametrize("by", [(-1.3, 4.1, 8, False), (-0.4, 0.7, 4, True), (0.0, 6.0, 8, False)])
def test_the_kernel_gives_the_bits_of_its_definition(channels: int, by: tuple[float, float, int, bool]) -> None:
    assert_engines_agree("fake_quantize", (2, channels, 5, 7), quantization=FakeQuantization(*by))


@given(RANGES, st.integers(0, 2**32 - 1))
def test_laws(by: FakeQuantization, seed: int) -> None:
    grid = nudge_range(*by)
    x = (np.random.default_rng(seed).standard_normal(100) * max(-by.minimum, by.maximum)).astype(np.float32)
    y = fake_quantize(x, grid)
    assert fake_quantize(np.zeros(1, np.float32), grid) == 0, "zero is on every grid"
    assert grid.low <= 0 <= grid.high
    assert len(np.unique(y)) <= 2**by.num_bits - by.narrow_range
    order = np.argsort(x)
    assert (np.diff(y[order]) >= 0).all(), "the order stays"
    inside = (x > grid.low) & (x < grid.high)
    assert (np.abs(x - y)[inside] <= grid.step * (0.5 + 1e-6 * 2**by.num_bits)).all()


@pytest.mark.crosscheck
def test_tensorflow_gives_the_same_bits() -> None:
    tf = frameworks.tensorflow()
    rng = np.random.default_rng(1)
    for case in range(150):
        low = -abs(rng.standard_normal()) * 10 ** rng.uniform(-3, 3) if case % 3 else 0.0
        high = abs(rng.standard_normal()) * 10 ** rng.uniform(-3, 3)
        by = FakeQuantization(float(np.float32(low)), float(np.float32(high)), (8, 8, 4, 16)[case % 4], bool(case % 2))
        grid = nudge_range(*by)
        x = (rng.standard_normal(4001) * max(-low, high)).astype(np.float32)
        x[:4] = [np.inf, -np.inf, np.nan, -0.0]
        ties = rng.integers(0, 2**by.num_bits, 2000) + np.float32(0.5)
        x[2001:] = (ties * grid.step + grid.low).astype(np.float32)
        expected = tf.quantization.fake_quant_with_min_max_vars(x, *by[:2], by.num_bits, by.narrow_range).numpy()
        np.testing.assert_array_equal(fake_quantize(x, grid), expected, err_msg=repr(by))


def small_graphs() -> list[Graph]:
    """Return a V1, a V2 with sums and a DeepLab."""
    v1 = mobilenet_v1.build(MobileNetV1Config(depth_multiplier=0.1, num_labels=3), "classification")
    v2 = mobilenet_v2.build(MobileNetV2Config(depth_multiplier=0.1, num_labels=3), "classification")
    return [v1, v2, deeplab.build(MobileNetV2Config(depth_multiplier=0.1, num_labels=3, output_stride=8))]


def round_all(graph: Graph) -> Graph:
    """Return a graph with ranges on everything that training rounds."""
    ranges = {
        key: FakeQuantization(-1.2, 1.4, 8, True) if key in graph.shapes else FakeQuantization(-2.5, 3.1)
        for key in needed_ranges(graph)
    }
    return add_fake_quantization(graph, ranges)


@pytest.mark.parametrize("build", [mobilenet_v1.build, mobilenet_v2.build])
def test_every_layer_and_every_sum_is_rounded(build: Callable[..., Graph]) -> None:
    config = MobileNetV1Config if build is mobilenet_v1.build else MobileNetV2Config
    graph = build(config(num_labels=3), "classification")
    kernels = [name for name, shape in graph.shapes.items() if len(shape) > 1]
    keys = needed_ranges(graph)
    assert [key for key in keys if key in graph.shapes] == kernels
    sums = [node.name for node in graph.nodes if node.op == "add"]
    assert len(keys) == 2 * len(kernels) + len(sums)
    rounded = round_all(graph)
    assert rounded.outputs == graph.outputs
    assert {node.name for node in graph.nodes} <= {node.name for node in rounded.nodes} | set(rounded.aliases)
    assert sum("weight_quantization" in node.attributes for node in rounded.nodes) == len(kernels)


@pytest.mark.parametrize("index", range(3))
def test_both_engines_run_a_rounded_network_to_the_same_bits(index: int) -> None:
    graph = round_all(small_graphs()[index])
    weights = random_weights(graph)
    image = np.random.default_rng(2).standard_normal((1, 3, 33, 33)).astype(np.float32)
    names = [*graph.outputs, *graph.hidden_states]
    ours, defined = (Engine(graph, weights, engine=engine).run(image, names) for engine in ("compiled", "reference"))
    plain = Engine(small_graphs()[index], weights).run(image, graph.outputs)
    grid = nudge_range(-2.5, 3.1)
    for name in names:
        np.testing.assert_array_equal(ours[name], defined[name], err_msg=name)
        np.testing.assert_array_equal(ours[name], fake_quantize(ours[name], grid), err_msg=name)
    assert not np.array_equal(ours[graph.outputs[0]], plain[graph.outputs[0]])
