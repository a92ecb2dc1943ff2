"""Fake quantisation: grids by hand, the compiled kernel against its definition, both against TensorFlow run live."""

from __future__ import annotations

from collections.abc import Callable

import frameworks
import numpy as np
import pytest
from cases import assert_engines_agree, open_runner, random_weights
from hypothesis import given
from hypothesis import strategies as st

from minimobile.networks import deeplab, mobilenet_v1, mobilenet_v2
from minimobile.networks.config import MobileNetV1Config, MobileNetV2Config
from minimobile.networks.graph import INPUT, Graph, Node
from minimobile.operations.fake_quantization import FakeQuantization, add_fake_quantization, needed_ranges
from minimobile.operations.folding import NORMALIZATION, fold_as_trained, fold_weights, inverse_root
from minimobile.tracing.explain import explain
from minimobile_kernels.geometry import window
from minimobile_kernels.reference import average_pool2d, conv2d, fake_quantize, nudge_range, pointwise_conv2d

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


# By TensorFlow 2.21 on an Intel processor: x, the first eight of Rsqrt([x] * 9), and the ninth.
INVERSE_ROOTS = """
    3f09deb3 3fae6b67 3fae6b68   3727c5ac 439e1d27 439e1d28   3f800000 3f7ffffe 3f800000   40000000 3f3504f2 3f3504f3
"""


def test_inverse_roots_are_tensorflows_estimates() -> None:
    bits = np.array([int(number, 16) for number in INVERSE_ROOTS.split()], np.uint32).reshape(-1, 3)
    for x, estimated, divided in bits.view(np.float32):
        found = inverse_root(np.full(9, x, np.float32))
        assert found.tolist() == [estimated] * 8 + [divided]
    x = np.float32(10) ** np.linspace(-30, 30, 1000, dtype=np.float32)
    np.testing.assert_allclose(inverse_root(x), x.astype(np.float64) ** -0.5, rtol=3.5e-7)
    assert inverse_root(np.float32([0, np.inf] * 4)).tolist() == [np.inf, 0] * 4


def test_batch_norm_is_folded_with_a_rounding_at_every_operation() -> None:
    rng = np.random.default_rng(3)
    weight, (bias, scale, shift, mean) = rng.standard_normal((3, 2, 5, 5)), rng.standard_normal((4, 3))
    folded, moved = fold_as_trained(weight, bias, scale, shift, mean, np.float32([0.24, 3.99, 0.9999]), 0.01)
    for channel, root in enumerate(np.float32([2, 0.5, 1 / np.sqrt(1.0099)])):  # less than a vector: roots as usual
        factor = np.float32(scale[channel]) * root
        np.testing.assert_allclose(folded[channel], np.float32(weight[channel]) * factor, rtol=3e-7)
        np.testing.assert_allclose(moved[channel], shift[channel] - (mean - bias)[channel] * factor, rtol=1e-5)
    assert folded.dtype == moved.dtype == np.float32


def test_a_trained_layer_has_its_folded_weights_on_their_grid() -> None:
    rng = np.random.default_rng(4)
    weights = {name: rng.uniform(0.5, 1.5, 3).astype(np.float32) for name in ("bias", *NORMALIZATION)}
    weights["weight"] = rng.standard_normal((3, 2, 1, 1)).astype(np.float32)
    attributes = {"epsilon": 0.01, "weight_quantization": (-3.0, 3.0)}
    node = Node("node", "pointwise_conv2d", (INPUT,), attributes, {name: name for name in weights})
    folded, moved = fold_as_trained(*(weights[name] for name in ("weight", "bias", *NORMALIZATION)), 0.01)
    found, bias = fold_weights(node, weights)
    np.testing.assert_array_equal(found, fake_quantize(folded, nudge_range(-3.0, 3.0)))
    np.testing.assert_array_equal(bias, moved)


def test_one_chain_loses_what_blocks_keep() -> None:
    x = np.ones((1, 1, 1, 300), np.float32)
    x[..., 0] = 2**24  # and one more is no float32
    no_bias = np.zeros(1, np.float32)
    slide = window(1, 1, (1, 1), 1, 1, "VALID")
    for block, expected in ((128, 2**24 + 172), (300, 2**24)):
        assert pointwise_conv2d(x, np.ones((1, 300), np.float32), no_bias, block).item() == expected
        assert conv2d(x, np.ones((1, 1, 1, 300), np.float32), no_bias, slide, block).item() == expected
    column = x.reshape(1, 300, 1, 1)
    slide = window(300, 1, (300, 1), 1, 1, "VALID")
    assert average_pool2d(column, slide, "float32").item() == np.float32(2**24 / 300)
    assert average_pool2d(column, slide).item() == np.float32((2**24 + 299) / 300) != np.float32(2**24 / 300)


def test_the_kernels_sum_as_their_definitions_do() -> None:
    for block in (160, 300, 1000):
        assert_engines_agree("pointwise_conv2d", (1, 300, 9, 10), out_channels=40, block=block)
        assert_engines_agree(
            "conv2d", (1, 40, 9, 20), out_channels=33, kernel_size=3, stride=1, dilation=1, padding="SAME", block=block
        )
    assert_engines_agree("global_average_pool2d", (2, 21, 33, 30), precision="float32")
    assert_engines_agree("average_pool2d", (1, 16, 9, 9), kernel_size=7, stride=1, precision="float32")


@pytest.mark.parametrize(("layer", "terms"), [("layer.25", 256), ("pooler", 4)])
def test_a_value_is_written_out_as_it_is_summed(layer: str, terms: int) -> None:
    config = MobileNetV1Config(depth_multiplier=0.25, num_labels=3)
    graph = round_all(mobilenet_v1.build(config, "classification"))
    weights = random_weights(graph)
    image = np.random.default_rng(4).standard_normal((1, 64, 64, 3)).astype(np.float32)
    for engine in ("compiled", "reference"):
        explanation = explain(graph, weights, open_runner(graph, weights, engine=engine), image, layer, (0, 0, 7))
        assert explanation.agrees
        assert explanation.block == len(explanation.terms) == terms
        assert sum(stage.name.startswith("block") for stage in explanation.stages) == (terms > 4)


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
    for node in rounded.nodes:
        if node.op in ("conv2d", "pointwise_conv2d"):
            assert node.attributes["block"] == np.prod(graph.shapes[node.weights["weight"]][1:])
        assert ("precision" in node.attributes) == node.op.endswith("pool2d")


@pytest.mark.parametrize("index", range(3))
def test_both_engines_run_a_rounded_network_to_the_same_bits(index: int) -> None:
    graph = round_all(small_graphs()[index])
    weights = random_weights(graph)
    image = np.random.default_rng(2).standard_normal((1, 3, 33, 33)).astype(np.float32)
    names = [*graph.outputs, *graph.hidden_states]
    ours, defined = (
        open_runner(graph, weights, engine=engine).run(image, names) for engine in ("compiled", "reference")
    )
    plain = open_runner(small_graphs()[index], weights).run(image, graph.outputs)
    grid = nudge_range(-2.5, 3.1)
    for name in names:
        np.testing.assert_array_equal(ours[name], defined[name], err_msg=name)
        np.testing.assert_array_equal(ours[name], fake_quantize(ours[name], grid), err_msg=name)
    assert not np.array_equal(ours[graph.outputs[0]], plain[graph.outputs[0]])
