"""Memory of activations: by hand, and against a run that frees every map after its last use."""

from __future__ import annotations

import math

import pytest

import minimobile as mm
from minimobile.costs.activation_memory import activation_memory
from minimobile.networks import deeplab, mobilenet_v1, mobilenet_v2
from minimobile.networks.graph import INPUT, Graph, needed_nodes
from minimobile.operations.shapes import infer_shapes


def test_by_hand() -> None:
    """V2's paper, section 5.1: a bottleneck's inner tensors decide; 96 channels at 112 and at 56 pixels here."""
    memory = activation_memory(mobilenet_v2.build(mm.MobileNetV2Config()), 224)
    assert memory["layer.0.conv_3x3"].live == 4 * 96 * (112**2 + 56**2)
    assert memory["layer.0.conv_3x3"].output == 4 * 96 * 56**2
    # the residual is still there while the depthwise convolution runs
    assert memory["layer.1.conv_3x3"].live == 4 * (144 + 144 + 24) * 56**2
    assert memory["layer.1"].live == 4 * 3 * 24 * 56**2
    assert memory["conv_stem.first_conv"].live == 4 * (3 * 224**2 + 32 * 112**2)


def live_bytes(graph: Graph, size: tuple[int, int]) -> dict[str, int]:
    """Run node by node and free what nobody needs; batch norm and activation take the place of their input."""
    shapes = infer_shapes(graph, *size)
    nodes = needed_nodes(graph, graph.outputs)
    held = {INPUT: INPUT}  # node -> the buffer that it lives in
    found: dict[str, int] = {}
    for place, node in enumerate(nodes):
        in_place = node.op in ("batch_norm", "activation")
        held[node.name] = held[node.inputs[0]] if in_place else node.name
        buffers = {held[name]: 4 * math.prod(shapes[name]) for name in held}
        found[node.name] = sum(buffers.values())
        wanted = {name for later in nodes[place + 1 :] for name in later.inputs} | set(graph.outputs)
        held = {name: buffer for name, buffer in held.items() if name in wanted}
    return found


@pytest.mark.parametrize(
    "graph",
    [
        mobilenet_v1.build(mm.MobileNetV1Config(depth_multiplier=0.25), "classification"),
        mobilenet_v2.build(mm.MobileNetV2Config(depth_multiplier=0.35)),
        deeplab.build(mm.MobileNetV2Config(depth_multiplier=0.35, output_stride=8, num_labels=5)),
    ],
)
def test_against_a_run_that_frees(graph: Graph) -> None:
    memory = activation_memory(graph, (65, 48))
    run = live_bytes(graph, (65, 48))
    for layer, (_, live) in memory.items():
        steps = [run[name] for name in (f"{layer}.convolution", f"{layer}.normalization", layer) if name in run]
        assert live == max(steps), layer
    assert max(live for _, live in memory.values()) == max(run.values())


def test_what_no_output_needs_takes_none() -> None:
    assert "conv_1x1" not in activation_memory(deeplab.build(mm.MobileNetV2Config(num_labels=5)), 64)
