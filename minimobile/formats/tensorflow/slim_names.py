"""TF-slim's names of variables and scopes, and what they are called and how they lie in memory here.

Source: tensorflow/models, research/slim/nets and research/deeplab; transformers 4.37, its conversion from TensorFlow.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from numpy.typing import NDArray

from minimobile.errors import FormatError
from minimobile.networks.mobilenet_v1 import SEPARABLE_LAYERS
from minimobile.networks.mobilenet_v2 import STAGES

MOVING_AVERAGE = "/ExponentialMovingAverage"

BOTTLENECK_PARTS = {"expand": "expand_1x1", "depthwise": "conv_3x3", "project": "reduce_1x1"}
CLASSIFIERS = {
    "MobilenetV1/Logits/Conv2d_1c_1x1": "classifier",
    "MobilenetV2/Logits/Conv2d_1c_1x1": "classifier",
    "logits/semantic": "segmentation_head.classifier.convolution",
}
SEGMENTATION_LAYERS = {
    "image_pooling": "segmentation_head.conv_pool",
    "aspp0": "segmentation_head.conv_aspp",
    "concat_projection": "segmentation_head.conv_projection",
}
KERNEL = (3, 2, 0, 1)  # (H, W, I, O) -> (O, I, H, W)
DEPTHWISE_KERNEL = (2, 3, 0, 1)  # (H, W, C, 1) -> (C, 1, H, W)
LAYER_VARIABLES = {
    "weights": ("convolution.weight", KERNEL),
    "depthwise_weights": ("convolution.weight", DEPTHWISE_KERNEL),
    "BatchNorm/gamma": ("normalization.weight", (0,)),
    "BatchNorm/beta": ("normalization.bias", (0,)),
    "BatchNorm/moving_mean": ("normalization.running_mean", (0,)),
    "BatchNorm/moving_variance": ("normalization.running_var", (0,)),
}
CLASSIFIER_VARIABLES = {"weights": ("weight", KERNEL), "biases": ("bias", (0,))}

_OPTIMISERS = ("Adagrad", "Adam", "Adam_1", "Momentum", "RMSProp", "RMSProp_1", "beta1_power", "beta2_power")
# The last part of a name that no network needs -> why.
NOT_NEEDED = {"global_step": "number of training steps", **dict.fromkeys(_OPTIMISERS, "state of the optimiser")}


class Target(NamedTuple):
    """What becomes of a variable: its canonical name, the order of its axes, whether its moving average is better."""

    canonical: str
    axes: tuple[int, ...]
    prefers_average: bool


def layer_scopes() -> dict[str, str]:
    """Return {scope of a layer: canonical name of the layer}: "MobilenetV1/Conv2d_0" -> "mobilenet_v1.conv_stem"."""
    scopes = {"MobilenetV1/Conv2d_0": "mobilenet_v1.conv_stem"}
    for index in range(len(SEPARABLE_LAYERS)):
        scopes[f"MobilenetV1/Conv2d_{index + 1}_depthwise"] = f"mobilenet_v1.layer.{2 * index}"
        scopes[f"MobilenetV1/Conv2d_{index + 1}_pointwise"] = f"mobilenet_v1.layer.{2 * index + 1}"
    scopes["MobilenetV2/Conv"] = "mobilenet_v2.conv_stem.first_conv"
    for scope, block in block_scopes().items():
        scopes |= {f"{scope}/{part}": f"{block}.{ours}" for part, ours in BOTTLENECK_PARTS.items()}
    scopes["MobilenetV2/Conv_1"] = "mobilenet_v2.conv_1x1"
    return scopes | SEGMENTATION_LAYERS


def block_scopes() -> dict[str, str]:
    """Return {scope of one of V2's bottlenecks: canonical name}."""
    blocks = range(sum(count for _, count, _ in STAGES))
    return {"MobilenetV2/expanded_conv": "mobilenet_v2.conv_stem"} | {
        f"MobilenetV2/expanded_conv_{index + 1}": f"mobilenet_v2.layer.{index}" for index in blocks
    }


def find_node(operation: str) -> str | None:
    """Return the node of our graph whose scope the operation is in, None for one that is in none.

    In a graph the scopes stand twice (`MobilenetV1/MobilenetV1/...`), and the last operation of a scope (`Relu6`,
    `add`) has the node's values.

    >>> find_node("MobilenetV1/MobilenetV1/Conv2d_0/Relu6"), find_node("MobilenetV2/expanded_conv_2/add")
    ('conv_stem', 'layer.1')
    """
    for name in ("MobilenetV1", "MobilenetV2"):
        operation = operation.replace(f"{name}/{name}/", f"{name}/")
    scopes = block_scopes() | layer_scopes() | CLASSIFIERS
    while operation:
        if operation in scopes:
            node = scopes[operation].removeprefix("mobilenet_v1.").removeprefix("mobilenet_v2.")
            return node.removesuffix(".convolution")
        operation = operation.rpartition("/")[0]
    return None


def variable_targets() -> dict[str, Target]:
    """Return {variable: what becomes of it} for every variable of V1, V2 and DeepLab."""
    tables = ((layer_scopes(), LAYER_VARIABLES), (CLASSIFIERS, CLASSIFIER_VARIABLES))
    return {
        f"{scope}/{variable}": Target(
            f"{layer}.{parameter}", axes, "moving_" not in variable and scope not in SEGMENTATION_LAYERS
        )
        for scopes, variables in tables
        for scope, layer in scopes.items()
        for variable, (parameter, axes) in variables.items()
    }


def is_of_quantizer(variable: str) -> bool:
    """Say whether a variable is one of those that `tf.contrib.quantize` adds.

    >>> is_of_quantizer("MobilenetV2/Conv/act_quant/min"), is_of_quantizer("MobilenetV2/Conv/weights")
    (True, False)
    """
    return "_quant/" in variable


def canonical_weights(
    variables: Mapping[str, NDArray[Any]], where: str
) -> tuple[dict[str, NDArray[Any]], dict[str, str], dict[str, str]]:
    """Return (weights by canonical name, {variable: canonical name}, {variable: why it is ignored}).

    Where a variable has a moving average, that is taken; as in transformers, not of batch norm's statistics and not in
    the segmentation head. Weights are views of the variables, in PyTorch's layouts; only those that are needed are
    looked up. Quantisers are for `slim_ranges.py`. Raises FormatError for a variable of some other network.
    """
    targets = variable_targets()
    weights, mapped, ignored = {}, {}, {}
    for name in variables:
        if is_of_quantizer(name):
            continue
        plain = name.removesuffix(MOVING_AVERAGE)
        if plain not in targets:
            ignored[name] = _find_excuse(variables, name, where)
            continue
        target = targets[plain]
        wants_average = target.prefers_average and plain + MOVING_AVERAGE in variables
        if (name != plain) is not wants_average:
            ignored[name] = "its moving average is taken" if wants_average else "the variable itself is taken"
            continue
        weights[target.canonical] = _lay_out(variables[name], target, f"{where}: {name}")
        mapped[name] = target.canonical
    return weights, mapped, ignored


def _lay_out(values: NDArray[Any], target: Target, where: str) -> NDArray[Any]:
    is_classifier = target.canonical == "classifier.weight"
    if values.ndim != len(target.axes) or (is_classifier and values.shape[:2] != (1, 1)):
        expected = "(1, 1, I, O)" if is_classifier else f"{len(target.axes)} dimensions"
        raise FormatError(f"{where}: expected {expected}, found shape {values.shape}")
    values = values.transpose(target.axes)
    return values[:, :, 0, 0] if is_classifier else values


def _find_excuse(variables: Mapping[str, NDArray[Any]], name: str, where: str) -> str:
    """Return why a variable of no layer may be ignored."""
    ending = name.rpartition("/")[2]
    if ending in NOT_NEEDED:
        return NOT_NEEDED[ending]
    if name.endswith(MOVING_AVERAGE) or variables[name].ndim == 0:
        return "no weight of a layer"
    raise FormatError(
        f"{where}: expected the variables of MobileNet V1, V2 or DeepLabV3 under TF-slim's names, found also "
        f"{name[:200]}, which belongs to another network"
    )
