"""From a file's own layers to a checkpoint: what `recognition.py` finds is named, and checked against our graph."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minimobile.errors import FormatError
from minimobile.formats.checkpoint import HEADS, Checkpoint
from minimobile.formats.deduction import build_checkpoint, deduce_config
from minimobile.formats.dialects import Dialect
from minimobile.formats.matching.detector import DetectorEnds, detector_fields, recognise_detector, settle_anchors
from minimobile.formats.matching.network import Layer
from minimobile.formats.matching.own_head import recognise_body
from minimobile.formats.matching.recognition import Finding, describe_layer, recognise_network
from minimobile.formats.matching.simplification import simplify
from minimobile.formats.ranges import add_ranges
from minimobile.networks.build_graph import build_graph
from minimobile.networks.config import ACTIVATIONS, OUTPUT_STRIDES, Config, MobileNetV1Config
from minimobile.networks.deeplab import HEAD_EPSILON
from minimobile.networks.graph import INPUT, Graph, Node
from minimobile.operations.fake_quantization import FakeQuantization
from minimobile.operations.passes import fold_batch_norm, fuse_activations
from minimobile.operations.shapes import infer_shapes
from minimobile.operations.table import is_convolution, operation_of
from minimobile_kernels.geometry import axis_padding, pad_amounts

Size = tuple[int, int]
HEAD = "segmentation_head."
# What a file's padding may mean, for any size of picture: (tf_padding, bottom_right_padding).
_SAME, _SYMMETRIC, _BOTTOM_RIGHT = (True, None), (False, None), ((True, "depthwise"), (True, "all"))


def match_network(
    layers: Sequence[Layer],
    dialect: Dialect,
    where: str,
    *,
    image_size: Size | None = None,
    provenance: Mapping[str, str] | None = None,
    config: Config | None = None,
    detector: DetectorEnds | None = None,
    has_own_head: bool = False,
) -> Checkpoint:
    """Return the checkpoint of a MobileNet V1, V2 or DeepLab that a file spells out as layers, whatever their names.

    `layers` are in an order in which they can be computed; `image_size` (height, width) is the size that the file is
    made for, None where it takes any. `config` stands in for the one that is found, as in `build_checkpoint`.
    Convolutions without batch norm get an idle one that folds back to the file's numbers bit for bit. A scaling of the
    picture at the start becomes the processor's. `detector` says where the predictors of an SSD end; with
    `has_own_head` the MobileNet may be the body of a network whose other layers are ignored. Raises FormatError naming
    the first layer that no MobileNet has.
    """
    simple = simplify(layers, where)
    finding = _recognise(simple, detector, has_own_head, where)
    size = image_size or _size_of_fixed_pool(finding)
    common = _common_epsilon(finding, where)
    known = _read_fields(finding, where) | {"layer_norm_eps": dialect.epsilon if common is None else common}
    if detector is not None:
        known |= detector_fields(finding, detector, where)
    weights, mapped = _name_weights(finding, config.layer_norm_eps if config else known["layer_norm_eps"], where)
    found = deduce_config(
        weights, dialect, where, image_size=size, called={theirs: ours for ours, theirs in mapped.items()},
        **known,
    )  # fmt: skip
    _check_graph(_build_fused(found, finding), finding, where)
    found = _settle_padding(found, finding, image_size, dialect, where)
    found = _settle_pool(found, finding, size, where)
    if detector is not None:
        found, weights = settle_anchors(found, weights, detector, image_size, where)
    checkpoint = build_checkpoint(
        weights, dialect, where,
        config=config or found,
        provenance=provenance,
        mapped=mapped,
        ignored=finding.after_logits,
        has_layers=True,
        endpoints={
            node: layer.tensor or layer.name
            for node, layer in finding.layers.items()
            if not layer.attributes.get("is_tensor_partial")
        },
    )  # fmt: skip
    checkpoint = add_ranges(checkpoint, _read_ranges(finding), where)
    return checkpoint if finding.scale is None else _scale_in_processor(checkpoint, finding, where)


def _recognise(layers: Sequence[Layer], detector: DetectorEnds | None, has_own_head: bool, where: str) -> Finding:
    if detector is not None:
        return recognise_detector(layers, detector, where)
    try:
        return recognise_network(layers, where)
    except FormatError:
        if not has_own_head:
            raise
    return recognise_body(layers, where)


def _read_ranges(finding: Finding) -> dict[str, FakeQuantization]:
    """Return the ranges to which training for quantisation rounded weights and values, where it did."""
    ranges: dict[str, FakeQuantization] = {}
    for node, layer in finding.layers.items():
        if "weight_quantization" in layer.attributes:
            ranges[_name_kernel(finding, node)] = layer.attributes["weight_quantization"]
        if "quantization" in layer.attributes:
            ranges[node] = layer.attributes["quantization"]
    return ranges


def _name_kernel(finding: Finding, node: str) -> str:
    """Return the canonical name of a node's weight."""
    graph_prefix = "mobilenet_v1." if finding.architecture.startswith("MobileNetV1") else "mobilenet_v2."
    if node == "classifier":
        return "classifier.weight"
    return f"{node if node.startswith(HEADS) else graph_prefix + node}.convolution.weight"


def _read_fields(finding: Finding, where: str) -> dict[str, Any]:
    """Return the config's fields that strides, activations and the end of the network tell."""
    stem = finding.layers.get("conv_stem") or finding.layers["conv_stem.first_conv"]
    activation = stem.attributes.get("activation", "linear")
    if "weight" not in stem.arrays:
        raise FormatError(
            f"{where}: layer {stem.name!r}: expected no sum behind the first block, as in MobileNetV2's classes, found "
            "one, for there are as many channels behind it as before it; a wider network has no such sum"
        )
    if activation not in ACTIVATIONS or activation == "linear":  # in bytes, none may be a clamp that nobody names
        found = "none" if activation == "linear" else activation
        raise FormatError(f"{where}: layer {stem.name!r}: expected relu6, relu or a curve after it, found {found}")
    stride = _total_stride(finding)
    return {
        "hidden_act": activation,
        "output_stride": stride if stride in OUTPUT_STRIDES else 32,  # where it is none, a layer is wrong: named later
        **({"problem_type": "multi_label_classification"} if finding.has_sigmoid else {}),
    }


def _total_stride(finding: Finding) -> int:
    """Return the product of all convolutions' strides; a pool's does not count."""
    convolutions = (layer for layer in finding.layers.values() if "weight" in layer.arrays)
    return math.prod(layer.attributes.get("stride", 1) for layer in convolutions)


def _common_epsilon(finding: Finding, where: str) -> float | None:
    """Return the epsilon that the backbone's batch norms have in common, None where all are folded."""
    common = None
    for node, layer in finding.layers.items():
        if "epsilon" not in layer.attributes:
            continue
        epsilon = _shortest(layer.attributes["epsilon"])
        if not 0 <= epsilon < math.inf:
            raise FormatError(f"{where}: layer {layer.name!r}: expected an epsilon of zero or more, found {epsilon}")
        if node.startswith(HEAD):
            continue
        if common not in (None, epsilon):
            raise FormatError(f"{where}: layer {layer.name!r}: expected the epsilon {common} of the layers before "
                              f"it, found {epsilon}")  # fmt: skip
        common = epsilon
    return common


def _shortest(value: float) -> float:
    """Return the shortest decimal that is the same float32: what its author wrote."""
    with np.errstate(over="ignore"):
        return float(str(np.float32(value)))


def _name_weights(finding: Finding, epsilon: float, where: str) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """Return weights by canonical name, and {the file's name: canonical name}."""
    prefix = "mobilenet_v1." if finding.architecture.startswith("MobileNetV1") else "mobilenet_v2."
    weights: dict[str, NDArray[Any]] = {}
    mapped: dict[str, str] = {}
    for node, layer in finding.layers.items():
        if "weight" not in layer.arrays:
            continue
        names = {role: layer.array_names.get(role, f"{layer.name}/{role}") for role in layer.arrays}
        if node in ("classifier", f"{HEAD}classifier") or node.endswith(".projection"):
            own = _plain_weights(node, layer, where)
            mapped.update(
                {names[role]: name for role, name in zip(("weight", "bias"), own, strict=True) if role in names}
            )
        else:
            path = node if node.startswith(HEADS) else prefix + node
            own = _normalized_weights(path, layer, HEAD_EPSILON if node.startswith(HEAD) else epsilon)
            is_folded = "epsilon" not in layer.attributes
            mapped[names["weight"]] = f"{path}.convolution.weight"
            files = {"scale": "weight", "shift": "bias", "mean": "running_mean", "variance": "running_var"}
            files["bias"] = "bias" if is_folded else "running_mean"
            mapped.update({names[role]: f"{path}.normalization.{files[role]}" for role in names if role != "weight"})
        with np.errstate(over="ignore", invalid="ignore"):
            weights.update({name: np.ascontiguousarray(values, np.float32) for name, values in own.items()})
    return weights, mapped


def _plain_weights(node: str, layer: Layer, where: str) -> dict[str, NDArray[Any]]:
    """Return weight and bias of a layer that has no batch norm."""
    if "epsilon" in layer.attributes:
        raise FormatError(f"{where}: layer {layer.name!r}: expected no batch norm after the classifier, found one")
    weight = layer.arrays["weight"]
    bias = layer.arrays.get("bias", np.zeros(weight.shape[0]))
    if node == "classifier":
        return {"classifier.weight": weight.reshape(weight.shape[:2]), "classifier.bias": bias}
    return {f"{node}.convolution.weight": weight, f"{node}.convolution.bias": bias}


def _normalized_weights(path: str, layer: Layer, epsilon: float) -> dict[str, NDArray[Any]]:
    """Return a convolution with the batch norm that, with `epsilon`, does what the file's layer does."""
    channels = layer.arrays["weight"].shape[0]
    zeros, ones = np.zeros(channels), np.ones(channels)
    with np.errstate(invalid="ignore"):
        bias = layer.arrays.get("bias", zeros).astype(np.float64)
    if "epsilon" in layer.attributes:
        scale, shift = layer.arrays.get("scale", ones), layer.arrays.get("shift", zeros)
        surplus = _shortest(layer.attributes["epsilon"]) - epsilon
        with np.errstate(invalid="ignore"):
            mean = layer.arrays["mean"] - bias
            variance = layer.arrays["variance"].astype(np.float64) + surplus
    else:
        scale, shift, mean, variance = ones, bias, zeros, ones - epsilon
    values = {"weight": scale, "bias": shift, "running_mean": mean, "running_var": variance}
    return {
        f"{path}.convolution.weight": layer.arrays["weight"],
        **{f"{path}.normalization.{role}": array for role, array in values.items()},
    }


def _size_of_fixed_pool(finding: Finding) -> Size | None:
    """Return the picture's size of a DeepLab that does not tell, but pools and resizes maps of one size."""
    pool, resize = (finding.layers.get(f"{HEAD}{name}") for name in ("avg_pool", "upsample"))
    if pool is None or resize is None or pool.attributes["kernel_size"] is None:
        return None
    if tuple(pool.attributes["kernel_size"]) != tuple(resize.attributes.get("size") or ()):
        return None
    stride = _total_stride(finding)
    height, width = ((side - 1) * stride + 1 for side in pool.attributes["kernel_size"])
    return height, width


def _settle_padding(config: Config, finding: Finding, size: Size | None, dialect: Dialect, where: str) -> Config:
    """Return the config with the padding that the file's layers have.

    A rule that holds for every size of picture goes before one that gives the same at the file's own size; but V2 with
    Keras' zeros, which are chosen so as to equal SAME at that size, is SAME. transformers chooses all zeros by size:
    what equals SAME at the file's own is SAME.
    """
    anywhere = [_SAME, _SYMMETRIC]
    exact = [*anywhere, *_BOTTOM_RIGHT]
    if dialect.name == "huggingface" and size is not None:
        attempts = [(_SAME, size), (_SYMMETRIC, None), *[(rule, known) for known in (None, size) for rule in exact]]
    elif isinstance(config, MobileNetV1Config):
        attempts = [(rule, None) for rule in exact] + [(rule, size) for rule in exact]
    else:
        attempts = [(rule, None) for rule in anywhere] + [(rule, size) for rule in exact]
    faults = []
    for (tf_padding, bottom_right), known_size in attempts:
        attempt: Config = config.replace(tf_padding=tf_padding, bottom_right_padding=bottom_right)
        fault = _find_padding_fault(attempt, finding, known_size)
        if fault is None:
            return attempt
        faults.append(fault)
    raise FormatError(f"{where}: {faults[-len(exact)]}")


def _find_padding_fault(config: Config, finding: Finding, size: Size | None) -> str | None:
    graph = build_graph(config, finding.architecture)
    shapes = infer_shapes(graph, *size) if size else {}
    for node in _build_fused(config, finding).nodes:
        layer = finding.layers.get(node.name)
        if layer is None or not is_convolution(node) or layer.op == "dense":
            continue
        ours = node.attributes.get("padding", "VALID")
        theirs = layer.attributes["padding"]
        map_size = shapes[node.inputs[0]][1:] if shapes else None
        if _pads(ours, node, map_size) != _pads(theirs, node, map_size):
            return f"layer {layer.name!r}: expected padding {ours} ({node.name}), found {theirs}"
    return None


def _pads(padding: Any, node: Node, map_size: Size | None) -> Any:
    """Return zeros before and after on both axes, or "SAME" where that depends on a size which is not known."""
    kernel, stride, dilation = (node.attributes.get(name, 1) for name in ("kernel_size", "stride", "dilation"))
    if padding == "SAME" and stride > 1 and map_size is None:
        return "SAME"
    sizes = map_size or (1, 1)  # with a stride of 1, SAME is the same for every size
    return tuple(pad_amounts(sizes[axis], kernel, stride, dilation, axis_padding(padding, axis)) for axis in (0, 1))


def _settle_pool(config: Config, finding: Finding, size: Size | None, where: str) -> Config:
    """Return the config with the fixed window of the file's pool, if it has one that is not the whole map."""
    pool = finding.layers.get("pooler") or finding.layers.get(f"{HEAD}avg_pool")
    if pool is None or pool.attributes["kernel_size"] is None:
        return config
    kernel = tuple(pool.attributes["kernel_size"])
    stride, padding = pool.attributes.get("stride"), pool.attributes.get("padding", "VALID")
    whole = None
    if size is not None:
        graph = build_graph(config, finding.architecture)
        source = next(node for node in graph.nodes if operation_of(node).sees_all).inputs[0]
        whole = infer_shapes(graph, *size)[source][1:]
    if kernel == whole and padding in ("VALID", ((0, 0), (0, 0))):
        return config
    expected = 2 if isinstance(config, MobileNetV1Config) else 1
    is_ours = (
        not finding.architecture.endswith("Segmentation")
        and kernel[0] == kernel[1]
        and padding in ("VALID", ((0, 0), (0, 0)))
        and (whole is None or kernel[0] <= min(whole))
        and stride == expected
    )
    if not is_ours:
        raise FormatError(
            f"{where}: layer {pool.name!r}: expected the mean of the whole map{f' of {whole}' if whole else ''} or a "
            f"square window with stride {expected} and no padding, found a window of {kernel} with stride {stride} "
            f"and padding {padding}"
        )
    return config.replace(pool_size=kernel[0])


def _build_fused(config: Config, finding: Finding) -> Graph:
    """Return our graph as a file's layers are: each convolution with its batch norm and activation."""
    return fuse_activations(fold_batch_norm(build_graph(config, finding.architecture)), has_curves=True)


def _check_graph(graph: Graph, finding: Finding, where: str) -> None:
    """Compare every node of our graph with the layer found for it: connections, strides, dilations, activations."""
    names = {INPUT: finding.start}
    for node in graph.nodes:
        layer = finding.layers.get(node.name)
        if layer is None:
            if node.name == "pooler":
                continue  # a backbone without a pool
            before = names[node.inputs[-1]]
            raise FormatError(f"{where}: layer {before!r}: expected a sum with its block's input after it "
                              f"({node.name}), found none")  # fmt: skip
        names[node.name] = layer.name
        inputs = tuple(names[name] for name in operation_of(node).reads(node))
        found = layer.inputs
        if operation_of(node).is_sum:
            inputs, found = tuple(sorted(inputs)), tuple(sorted(found))
        if inputs != found:
            raise FormatError(
                f"{where}: layer {layer.name!r} ({describe_layer(layer)}): expected the inputs {list(inputs)} "
                f"({node.name}), found {list(found)[:9]}"
            )
        if is_convolution(node):
            for name, default in _DEFAULTS.items():
                value, other = (attributes.get(name, default) for attributes in (node.attributes, layer.attributes))
                if value != other:
                    raise FormatError(f"{where}: layer {layer.name!r}: expected {name} {value} ({node.name}), "
                                      f"found {other}")  # fmt: skip
    for name, layer in finding.layers.items():
        if name not in names:
            raise FormatError(f"{where}: layer {layer.name!r}: expected no sum here ({name}), found one")


_DEFAULTS = {"stride": 1, "dilation": 1, "activation": "none"}


def _scale_in_processor(checkpoint: Checkpoint, finding: Finding, where: str) -> Checkpoint:
    """Let the processor do the scaling that the file does itself: scale * x + offset = (x / 255 - mean) / std.

    Pictures are taken to hold 0 to 255, or 0 to 1 where the file's scale would else give values beyond 16. Settings
    that do the same already stay as they are.
    """
    assert finding.scale is not None
    assert finding.offset is not None
    channels = checkpoint.config.num_channels
    if not {finding.scale.size, finding.offset.size} <= {1, channels}:
        raise FormatError(f"{where}: expected the picture to be scaled by 1 or {channels} numbers, found "
                          f"{finding.scale.size} and {finding.offset.size}")  # fmt: skip
    scale, offset = (np.broadcast_to(values.reshape(-1), (channels,)) for values in (finding.scale, finding.offset))
    unit = 255 if (255 * scale <= 16).all() else 1
    settings = {**(checkpoint.processor or {})}
    std = np.asarray(settings.get("image_std", 1.0), np.float64)
    usual_scale = settings.get("rescale_factor", 1.0) * 255 / unit / std
    usual_offset = -np.asarray(settings.get("image_mean", 0.0)) / std
    if not (np.allclose(scale, usual_scale, rtol=1e-5) and np.allclose(offset, usual_offset, rtol=1e-5, atol=1e-6)):
        settings |= {
            "rescale_factor": 1 / 255,
            "image_mean": [_six_digits(value) for value in -offset / scale / unit],
            "image_std": [_six_digits(value) for value in 1 / scale / unit],
        }
    scalings = dict.fromkeys(f"{s:.6g} * x {o:+.6g}" for s, o in zip(scale, offset, strict=True))
    said = {"input_scaling": f"{', '.join(scalings)} of pixels up to {unit}, done by the processor"}
    return dataclasses.replace(
        checkpoint,
        processor=settings,
        provenance={**checkpoint.provenance, **said},
    )


def _six_digits(value: float) -> float:
    """Return 0.5 for 0.49999997: the file's numbers may have been float32 on their way."""
    short = float(f"{value:.6g}") + 0.0  # -0 becomes 0
    return short if math.isclose(short, value, rel_tol=3e-7, abs_tol=1e-9) else float(value)
