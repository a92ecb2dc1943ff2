"""Networks of one operation and of many, for tests and benchmarks: random weights, both engines, comparison of bits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st

from minimobile.execution.runner import Runner, RunOptions
from minimobile.models.runners import FLOAT_RUNNERS
from minimobile.networks.graph import INPUT, Graph, Node

CONVOLUTIONS = ("conv2d", "depthwise_conv2d", "pointwise_conv2d")
# Of all sizes, but most often those that have kernels of their own.
KERNEL_SIZES, DILATIONS = st.sampled_from([3, 3, 3, 1, 2, 4, 5]), st.sampled_from([1, 1, 2, 3])
PADDINGS = st.one_of(
    st.sampled_from(["SAME", "VALID"]),
    st.tuples(st.tuples(st.integers(0, 3), st.integers(0, 3)), st.tuples(st.integers(0, 3), st.integers(0, 3))),
)


def one_node_graph(op: str, channels: int, out_channels: int = 0, **attributes: Any) -> Graph:
    """Return the graph that does one operation on the image."""
    size = attributes.get("kernel_size", 1)
    shapes = {
        "conv2d": (out_channels, channels, size, size),
        "depthwise_conv2d": (channels, 1, size, size),
        "pointwise_conv2d": (out_channels, channels, 1, 1),
    }
    weights: dict[str, str] = {}
    weight_shapes: dict[str, tuple[int, ...]] = {}
    if op in shapes:
        weights = {"weight": "w", "bias": "b"}
        weight_shapes = {"w": shapes[op], "b": (shapes[op][0],)}
    inputs = (INPUT, INPUT) if op in ("add", "concatenate") else (INPUT,)
    node = Node("node", op, inputs, attributes, weights)
    return Graph((node,), channels, ("node",), weight_shapes)


def random_weights(graph: Graph, seed: int = 0) -> dict[str, np.ndarray]:
    """Return weights that keep a deep network's values in range."""
    rng = np.random.default_rng(seed)
    weights = {}
    for name, shape in graph.shapes.items():
        if name.endswith("running_var"):
            values = rng.uniform(0.5, 2.0, shape)
        elif len(shape) > 1:
            values = rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))
        else:
            values = rng.standard_normal(shape) * 0.3 + name.endswith("normalization.weight")
        weights[name] = values.astype(np.float32)
    return weights


def random_image(shape: Sequence[int], seed: int = 0) -> np.ndarray:
    """Return a float32 image, about a fifth of it exact zeros, as after a relu."""
    rng = np.random.default_rng(seed)
    image = rng.standard_normal(shape).astype(np.float32)
    image[rng.random(shape) < 0.2] = 0
    return image


def open_runner(graph: Graph, weights: Mapping[str, np.ndarray], **options: Any) -> Runner:
    """Return what runs a graph of floats; `options` are those of `RunOptions`."""
    settled = RunOptions(**options)
    return FLOAT_RUNNERS[settled.engine](graph, weights, settled)


def run(graph: Graph, weights: Mapping[str, np.ndarray], image: np.ndarray, engine: str, **options: Any) -> np.ndarray:
    """Run a graph with one output."""
    return open_runner(graph, weights, engine=engine, **options).run(image, graph.outputs)[graph.outputs[0]]


def assert_same_bits(found: np.ndarray, defined: np.ndarray, case: str) -> None:
    """Compare bit patterns; `case` is code that can be pasted back as a test."""
    assert found.shape == defined.shape, f"{case}: shape {found.shape}, defined {defined.shape}"
    assert found.dtype == defined.dtype == np.float32, f"{case}: {found.dtype}, {defined.dtype}"
    differs = found.view(np.int32) != defined.view(np.int32)
    if differs.any():
        place = tuple(int(index) for index in np.argwhere(differs)[0])
        raise AssertionError(
            f"{case}\n{int(differs.sum())} of {differs.size} values differ, first at {place}: "
            f"{found[place]!r}, defined {defined[place]!r}"
        )


def assert_engines_agree(
    op: str, shape: tuple[int, int, int, int], out_channels: int = 0, threads: int = 1, seed: int = 0, **attributes: Any
) -> None:
    """Run one operation on (N, C, H, W) with both engines and compare bits."""
    case = (
        f"assert_engines_agree({op!r}, {shape}, out_channels={out_channels}, threads={threads}, seed={seed}, "
        + ", ".join(f"{name}={value!r}" for name, value in attributes.items())
        + ")"
    )
    graph = one_node_graph(op, shape[1], out_channels, **attributes)
    weights, image = random_weights(graph, seed), random_image(shape, seed)
    compiled = run(graph, weights, image, "compiled", num_threads=threads)
    assert_same_bits(compiled, run(graph, weights, image, "reference"), case)


def fits(height: int, width: int, kernel_size: int, dilation: int, padding: Any) -> bool:
    """Tell whether a window lies inside a padded image."""
    reach = (kernel_size - 1) * dilation + 1
    if padding == "SAME":
        return True
    (top, bottom), (left, right) = ((0, 0), (0, 0)) if padding == "VALID" else padding
    return top + height + bottom >= reach and left + width + right >= reach
