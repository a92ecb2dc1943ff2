"""A detector's graph as object_detection builds it: a list of nodes, written as a GraphDef."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from graph_writer import const, field, node, shape_proto
from numpy.typing import NDArray
from spelling import random_weights, spell

from minimobile.networks import ssd
from minimobile.networks.anchors import make_anchors
from minimobile.operations.passes import fold_batch_norm, keep_needed
from minimobile.operations.shapes import infer_shapes

LIMITS = {"per_class": 7, "in_all": 9, "iou": 0.6, "score": 1e-8}


class Entry(NamedTuple):
    """One node; a constant has its `value`."""

    name: str
    op: str
    inputs: tuple[str, ...] = ()
    attributes: Mapping[str, Any] = MappingProxyType({})
    value: NDArray[Any] | None = None


def write_graph(entries: list[Entry]) -> bytes:
    """Return a GraphDef."""
    return b"".join(_write_entry(entry) for entry in entries)


def _write_entry(entry: Entry) -> bytes:
    if entry.value is not None:
        return const(entry.name, entry.value)
    if entry.op == "Placeholder":
        return node(entry.name, entry.op, shape=field(7, shape_proto(entry.attributes["shape"])))
    return node(entry.name, entry.op, *entry.inputs, **entry.attributes)


def build_body(config: Any, size: int = 32, seed: int = 0) -> tuple[list[Entry], dict[str, str], dict[str, Any], Any]:
    """Return the nodes of preprocessor and network, {our node: tensor}, the weights by name, and the maps' shapes."""
    graph = ssd.build(config)
    weights = random_weights(graph, seed)
    layers = spell(graph, weights, folded=True, tail=())
    nodes = [node.name for node in fold_batch_norm(keep_needed(graph, graph.outputs)).nodes]
    entries = preprocessor(size)
    tensors = {"input": "scaled"}
    for layer in layers:
        inputs = tuple(tensors[name] for name in layer.inputs)
        tensors[layer.name] = layer.name
        if layer.op == "activation":
            entries.append(Entry(layer.name, "Relu6", inputs))
        elif layer.op == "add":
            entries.append(Entry(layer.name, "Add", inputs))
        else:
            is_depthwise = layer.op == "depthwise_conv2d"
            weight = layer.arrays["weight"].transpose((2, 3, 0, 1) if is_depthwise else (2, 3, 1, 0))
            steps = [1, layer.attributes["stride"], layer.attributes["stride"], 1]
            op = "DepthwiseConv2dNative" if is_depthwise else "Conv2D"
            entries += [
                Entry(f"{layer.name}/weights", "Const", value=np.ascontiguousarray(weight)),
                Entry(f"{layer.name}/biases", "Const", value=layer.arrays["bias"]),
                Entry(f"{layer.name}/conv", op, (*inputs, f"{layer.name}/weights"),
                      {"strides": steps, "padding": "SAME"}),
                Entry(layer.name, "BiasAdd", (f"{layer.name}/conv", f"{layer.name}/biases")),
            ]  # fmt: skip
    named = {name: layers[index].name for index, name in enumerate(nodes)}
    return entries, named, weights, infer_shapes(graph, size, size)


def preprocessor(size: int) -> list[Entry]:
    """Return a loop over pictures, each resized, and the scaling after it."""
    zero = np.int32(0)
    return [
        Entry("image_tensor", "Placeholder", (), {"shape": (-1, -1, -1, 3)}),
        Entry("ToFloat", "Cast", ("image_tensor",)),
        Entry("count", "Const", value=np.array(1, np.int32)),
        Entry("zero", "Const", value=np.array(zero)),
        Entry("sides", "Const", value=np.array([size, size], np.int32)),
        Entry("pictures", "TensorArrayV3", ("count",)),
        Entry("results", "TensorArrayV3", ("count",)),
        Entry("scatter", "TensorArrayScatterV3", ("pictures", "zero", "ToFloat", "pictures:1")),
        Entry("enter", "Enter", ("zero",)),
        Entry("enter_results", "Enter", ("results:1",)),
        Entry("merge", "Merge", ("enter", "next")),
        Entry("merge_results", "Merge", ("enter_results", "next_results")),
        Entry("less", "Less", ("merge", "count")),
        Entry("condition", "LoopCond", ("less",)),
        Entry("switch", "Switch", ("merge", "condition")),
        Entry("switch_results", "Switch", ("merge_results", "condition")),
        Entry("enter_pictures", "Enter", ("scatter",)),
        Entry("read", "TensorArrayReadV3", ("pictures", "switch:1", "enter_pictures")),
        Entry("one", "ExpandDims", ("read", "zero")),
        Entry("resized", "ResizeBilinear", ("one", "sides"), {"align_corners": False}),
        Entry("squeezed", "Squeeze", ("resized",), {"squeeze_dims": [0]}),
        Entry("write", "TensorArrayWriteV3", ("results", "switch:1", "squeezed", "switch_results:1")),
        Entry("plus", "Add", ("switch:1", "count")),
        Entry("next", "NextIteration", ("plus",)),
        Entry("next_results", "NextIteration", ("write",)),
        Entry("exit", "Exit", ("switch_results",)),
        Entry("gathered", "TensorArrayGatherV3", ("results", "zero", "exit")),
        Entry("factor", "Const", value=np.float32(2 / 255)),
        Entry("unit", "Const", value=np.float32(1)),
        Entry("times", "Mul", ("factor", "gathered")),
        Entry("scaled", "Sub", ("times", "unit")),
    ]


def build_detector(config: Any, anchors: Any = None, limits: dict[str, float] | None = None, seed: int = 0) -> Any:
    """Return the nodes of a detector on 32 x 32, and its weights; `limits` None: without suppression in the graph."""
    entries, named, weights, shapes = build_body(config, seed=seed)
    outputs = ssd.build(config).outputs
    columns = config.class_count + 1
    for kind, names, last in (("boxes", outputs[:6], [1, 4]), ("classes", outputs[6:], [columns])):
        target = np.array([1, -1, *last], np.int32)
        entries.append(Entry(f"{kind}/shape", "Const", value=target))
        entries += [
            Entry(f"{kind}/{index}", "Reshape", (named[name], f"{kind}/shape")) for index, name in enumerate(names)
        ]
        entries += [Entry(f"{kind}/axis", "Const", value=np.array(1, np.int32))]
        entries += [Entry(kind, "ConcatV2", (*(f"{kind}/{index}" for index in range(6)), f"{kind}/axis"))]
    if anchors is None:
        found = make_anchors(ssd.settings(config), (32, 32), [shapes[name][1:] for name in outputs[:6]])
        half = found[:, 2:] / np.float32(2)
        anchors = np.concatenate([found[:, :2] - half, found[:, :2] + half], 1)
    entries += [
        Entry("anchors", "Const", value=anchors), Entry("turn", "Const", value=np.array([1, 0], np.int32)),
        Entry("scores", "Sigmoid", ("classes",)), Entry("flat", "Squeeze", ("boxes",), {"squeeze_dims": [2]}),
        Entry("codes/turned", "Transpose", ("flat", "turn")), Entry("codes", "Unpack", ("codes/turned",), {"num": 4}),
        Entry("corners/turned", "Transpose", ("anchors", "turn")),
        Entry("corners", "Unpack", ("corners/turned",), {"num": 4}),
        Entry("height", "Sub", ("corners:2", "corners")), Entry("width", "Sub", ("corners:3", "corners:1")),
        Entry("ten", "Const", value=np.float32(10)), Entry("five", "Const", value=np.float32(5)),
        Entry("fifth", "Const", value=np.float32(0.2)),
        Entry("ty", "RealDiv", ("codes", "ten")), Entry("tx", "RealDiv", ("codes:1", "ten")),
        Entry("th", "RealDiv", ("codes:2", "five")), Entry("tw", "Mul", ("codes:3", "fifth")),
        Entry("dy", "Mul", ("ty", "height")), Entry("dx", "Mul", ("tx", "width")),
        Entry("growth", "Exp", ("th",)), Entry("growth_1", "Exp", ("tw",)),
    ]  # fmt: skip
    if limits is not None:
        entries += [
            Entry("per_class", "Const", value=np.array(limits["per_class"], np.int32)),
            Entry("in_all", "Const", value=np.array(limits["in_all"], np.int32)),
            Entry("iou", "Const", value=np.float32(limits["iou"])),
            Entry("score", "Const", value=np.float32(limits["score"])), Entry("there", "Size", ("flat",)),
            Entry("most", "Minimum", ("per_class", "there")), Entry("most_1", "Minimum", ("in_all", "there")),
            Entry("kept", "NonMaxSuppressionV3", ("dy", "scores", "most", "iou", "score")),
            Entry("ranks", "Range", ("zero", "most_1", "count")), Entry("best", "GatherV2", ("kept", "ranks", "zero")),
        ]  # fmt: skip
    return entries, weights


def change(entries: list[Entry], name: str, **changes: Any) -> list[Entry]:
    """Return the nodes with one of them changed."""
    assert name in {entry.name for entry in entries}
    return [entry._replace(**changes) if entry.name == name else entry for entry in entries]
