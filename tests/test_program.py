"""Programs: how many steps, no map overwritten while it is needed, and how weights are packed."""

import numpy as np
import pytest
from cases import random_weights

from minimobile.errors import InputError
from minimobile.execution import bands
from minimobile.execution.packing import pack_weights, padded
from minimobile.execution.program import compile_program
from minimobile.networks import deeplab, mobilenet_v1, mobilenet_v2
from minimobile.networks.config import MobileNetV1Config, MobileNetV2Config
from minimobile.networks.graph import INPUT
from minimobile.operations.passes import lower
from minimobile_kernels.host import LANES

V1 = mobilenet_v1.build(MobileNetV1Config(depth_multiplier=0.25, num_labels=4), "classification")
V2 = mobilenet_v2.build(MobileNetV2Config(depth_multiplier=0.35, num_labels=5), "classification")
GRAPHS = {
    "v1": V1,
    "v2": V2,
    "deeplab": deeplab.build(MobileNetV2Config(depth_multiplier=0.35, output_stride=8)),
}


def compiled(graph, outputs, shape=(2, 3, 64, 48), num_threads=2):
    graph = lower(graph, outputs)
    packed = pack_weights(graph.nodes, random_weights(graph))
    return graph, packed, compile_program(graph, packed, shape, is_channels_last=False, num_threads=num_threads)


def last_uses(graph, program):
    """Return, by step, the index of the last step that needs its value; what is left at the end is beyond all."""
    order = [row["name"] for row in program.table()]
    last_use = dict.fromkeys(graph.outputs, len(order))
    for node in reversed(graph.nodes):
        if node.name not in order:  # two maps that lie side by side: nothing to compute, and they live as long
            index = last_use[node.name]
        else:
            index = order.index(node.name)
            while program.table()[index]["is_fused"]:  # what it reads must live until the step after it has ended
                index += 1
        for source in node.inputs:
            last_use[source] = max(last_use.get(source, 0), index)
    return last_use


def test_v1_is_28_steps_and_a_pool():
    _, _, program = compiled(V1, V1.outputs)
    kernels = [row["kernel"] for row in program.table()]
    assert kernels == ["conv2d", *["depthwise_conv2d", "pointwise_conv2d"] * 13, "average_pool2d", "pointwise_conv2d"]
    assert program.table()[0]["output"] == (2, 32, 24, 8)


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("all_layers", [False, True])
@pytest.mark.parametrize("most", [0, bands.MOST_WEIGHT_BYTES])
def test_no_map_is_overwritten_while_it_is_needed(name, all_layers, most, monkeypatch):
    monkeypatch.setattr(bands, "MOST_WEIGHT_BYTES", most)  # with 0 two convolutions are done together, and never three
    outputs = [*GRAPHS[name].outputs, *(GRAPHS[name].hidden_states if all_layers else ())]
    graph, _, program = compiled(GRAPHS[name], outputs)
    places = {row["name"]: (row["out"], row["out"] + row["size"]) for row in program.table()}
    own = program.steps["scratch_distance"].max()
    for row in program.table():  # each thread's own memory lies before all maps
        first, last = places[row["name"]]
        assert last <= own if row["is_fused"] else first >= own * program.num_threads
    order = [row["name"] for row in program.table()]
    last_use = last_uses(graph, program)
    for index, name_now in enumerate(order):
        first, last = places[name_now]
        assert last <= program.arena_size
        for other in order[:index]:
            if last_use[other] >= index:
                assert last <= places[other][0] or first >= places[other][1], f"{name_now} overwrites {other}"


def test_what_a_concatenation_joins_is_computed_side_by_side():
    graph, _, program = compiled(GRAPHS["deeplab"], GRAPHS["deeplab"].outputs)
    rows = {row["name"]: row for row in program.table()}
    node = graph.node("segmentation_head.concat")
    pooled, aspp = (rows[name] for name in node.inputs)
    assert node.name not in rows
    assert aspp["out"] == pooled["out"] + pooled["size"]
    assert rows["segmentation_head.conv_projection"]["x"] == pooled["out"]


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("most", [0, bands.MOST_WEIGHT_BYTES])
def test_a_place_is_given_out_again_as_soon_as_nobody_needs_it(name, most, monkeypatch):
    monkeypatch.setattr(bands, "MOST_WEIGHT_BYTES", most)
    graph, _, program = compiled(GRAPHS[name], GRAPHS[name].outputs, shape=(1, 3, 224, 224), num_threads=1)
    rows = program.table()
    last_use = last_uses(graph, program)
    live = [
        sum(row["size"] for row in rows[: index + 1] if last_use[row["name"]] >= index and not row["is_fused"])
        for index in range(len(rows))
    ]
    needed = max(live) + program.steps["scratch_distance"].max()
    assert needed <= program.arena_size <= 1.3 * needed  # what first fit leaves between


def test_packed_panel_holds_weights_then_factor_and_bias():
    graph, packed, program = compiled(V1, V1.outputs)
    weights = random_weights(graph)
    start = int(program.steps[-1]["weight"])
    panel = packed.values[start : start + 258 * min(2 * LANES, padded(4))].reshape(258, -1)
    assert np.array_equal(panel[:-2, :4], weights["classifier.weight"].T)
    assert (panel[-2, :4] == 1).all()
    assert np.array_equal(panel[-1, :4], weights["classifier.bias"])
    assert not panel[:, 4:].any()


def test_an_image_that_leaves_nothing_is_refused():
    from cases import one_node_graph

    graph = one_node_graph("depthwise_conv2d", 3, kernel_size=5, stride=1, dilation=1, padding="VALID")
    packed = pack_weights(graph.nodes, random_weights(graph))
    with pytest.raises(InputError, match="large enough for node, got 4x9 pixels"):
        compile_program(graph, packed, (1, 3, 4, 9), is_channels_last=False)


def test_every_number_of_the_packed_weights_is_written(monkeypatch):
    """Beside the last channels of a panel zeros: what lay there before could be NaN, and would be computed with."""
    monkeypatch.setattr(f"{pack_weights.__module__}.aligned_floats", lambda size: np.full(size, np.nan, np.float32))
    for graph in (V1, V2):
        _, packed, _ = compiled(graph, graph.outputs)
        assert not np.isnan(packed.values).any()
        assert packed.finite == packed.offsets.keys()


def test_an_absurd_batch_is_refused_before_memory_is_taken():
    graph, packed, _ = compiled(V1, V1.outputs)
    with pytest.raises(InputError, match="use smaller batches"):
        compile_program(graph, packed, (100_000, 3, 512, 512), is_channels_last=False)
    assert INPUT not in graph.outputs
