"""What a layer of Keras is among the layers of `network.py`: one row per class, and no class that is not listed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minimobile.errors import FormatError
from minimobile.formats.keras.keras_config import KerasLayer, expect, quote
from minimobile.formats.keras.keras_graph import Call, FlatModel
from minimobile.formats.matching.network import PICTURE, Layer

Arrays = Mapping[str, NDArray[Any]]
FetchArrays = Callable[[tuple[str, ...], list[str]], tuple[Arrays, Mapping[str, str]]]
"""(path of a layer, Keras' names of its arrays) -> the arrays, and their names in the file."""

# What does nothing at inference.
IDENTITIES = frozenset(
    {"Dropout", "SpatialDropout2D", "GaussianNoise", "GaussianDropout", "AlphaDropout", "ActivityRegularization"}
    | {"Identity", "RandomFlip", "RandomRotation", "RandomZoom", "RandomTranslation", "RandomContrast"}
    | {"RandomBrightness", "RandomColorJitter", "RandomHue", "RandomSaturation", "RandomShear", "RandomErasing"}
)
_WITHOUT_TRAINING = frozenset({"Identity", "ActivityRegularization"})  # those of them that train as they infer
_ARITHMETIC = {  # of a value and a number; the words of Keras 3 and of tf.keras
    **{"Add": "add", "__operators__.add": "add", "math.add": "add"},
    **{"Subtract": "subtract", "__operators__.sub": "subtract", "math.subtract": "subtract"},
    **{"Multiply": "multiply", "__operators__.mul": "multiply", "math.multiply": "multiply"},
    **{"TrueDivide": "divide", "Divide": "divide", "__operators__.truediv": "divide", "math.truediv": "divide"},
    "math.divide": "divide",
}
_ACTIVATIONS = ("relu", "relu6", "softmax", "sigmoid")


def translate_model(model: FlatModel, fetch: FetchArrays, where: str) -> list[Layer]:
    """Return a Keras model as layers of `network.py`; what does nothing at inference is left out.

    Raises FormatError naming the first layer that no MobileNet has.
    """
    layers: list[Layer] = []
    homes: dict[str | float, str] = {PICTURE: PICTURE}  # name of a call -> name of the layer that has its result
    for call in model.calls:
        arguments: tuple[str | float, ...] = tuple(homes.get(value, value) for value in call.arguments)
        made = _translate(dataclasses.replace(call, arguments=arguments), fetch, where)
        before = next((value for value in arguments if isinstance(value, str)), PICTURE)
        homes[call.name] = made[-1].name if made else before
        layers += made
    return layers


def _translate(call: Call, fetch: FetchArrays, where: str) -> list[Layer]:
    """Return the layers that one call stands for.

    A fused activation is a layer of its own, which has the call's name; the one before it has "/linear" behind it.
    """
    place = f"{where}: layer {call.name!r}"
    layer = call.layer
    if layer.config.get("data_format") == "channels_first":
        raise FormatError(f"{place}: expected data_format channels_last, found channels_first; convert it in Keras")
    if call.is_training and _computes_otherwise(layer):
        raise FormatError(
            f"{place}: expected a layer as it is at inference, found a {layer.class_name[:80]} called with "
            "training=True for good; build the model with training=False, or without it, and save that"
        )
    operation = layer.class_name
    if operation == "TFOpLambda":  # arithmetic on tensors in tf.keras, such as preprocess_input
        operation = expect(layer.config.get("function"), str, f"{place}: function")
    inputs = tuple(value for value in call.arguments if isinstance(value, str))
    if operation in _ARITHMETIC and len(inputs) == 1 == len(call.arguments) - 1:
        scaling = _read_arithmetic(call, _ARITHMETIC[operation], place)
        return [Layer(call.name, "rescale", inputs, attributes=scaling)]
    read = _READERS.get("Add" if _ARITHMETIC.get(operation) == "add" else operation)
    if operation not in IDENTITIES and (read is None or len(inputs) != len(call.arguments)):
        raise FormatError(
            f"{place}: expected a layer that MobileNets have, found a {operation[:80]}; only convolutions, dense "
            "layers, batch norm, ReLU, sums, padding, average pools and scaling are read, and no code is run"
        )
    if read is None:
        return []
    op, attributes, roles = read(layer, place)
    if attributes.get("function") == "linear":
        return []
    arrays, array_names = fetch(call.path, [name for name, _ in roles]) if roles else ({}, {})
    ours = {role: to_pytorch(arrays[name], op, place) if role == "weight" else arrays[name] for name, role in roles}
    names = {role: array_names[name] for name, role in roles}
    if operation == "Normalization":
        return [Layer(call.name, op, inputs, {}, _read_normalization(attributes or ours, place))]
    made = Layer(call.name, op, inputs, ours, attributes, names)
    function = _read_activation(layer.config.get("activation"), place) if op in _WEIGHT_AXES else "linear"
    if function == "linear":
        return [made]
    before = dataclasses.replace(made, name=f"{call.name}/linear")
    return [before, Layer(call.name, "activation", (before.name,), attributes={"function": function})]


def _computes_otherwise(layer: KerasLayer) -> bool:
    """Say whether a layer in training computes something else; a batch norm that is not trainable does not."""
    if layer.class_name in ("BatchNormalization", "SyncBatchNormalization"):
        return bool(layer.config.get("trainable", True))
    return layer.class_name in IDENTITIES - _WITHOUT_TRAINING


Read = tuple[str, dict[str, Any], list[tuple[str, str]]]
"""The op, its attributes, and (Keras' name, our role) of its arrays in Keras' order."""

# From Keras' (K_h, K_w, I, O), (K_h, K_w, C, 1) and (I, O).
_WEIGHT_AXES = {"conv2d": (3, 2, 0, 1), "depthwise_conv2d": (2, 3, 0, 1), "dense": (1, 0)}


def to_pytorch(weight: NDArray[Any], op: str, place: str) -> NDArray[Any]:
    """Return the weight of a layer of kind `op` in PyTorch's layout: (O, I, K_h, K_w), (C, 1, K_h, K_w) or (O, I)."""
    axes = _WEIGHT_AXES.get(op)
    if axes is None:
        return weight
    if weight.ndim != len(axes):
        raise FormatError(f"{place}: expected a weight of {len(axes)} dimensions, found the shape {weight.shape}")
    return np.transpose(weight, axes)


def _read_convolution(layer: KerasLayer, place: str) -> Read:
    is_depthwise = layer.class_name == "DepthwiseConv2D"
    for name in ("groups", "depth_multiplier"):
        if layer.config.get(name, 1) != 1:
            raise FormatError(f"{place}: expected {name} 1, as in a MobileNet, found {quote(layer.config[name])}")
    attributes = {
        "stride": _read_pair(layer, "strides", place),
        "dilation": _read_pair(layer, "dilation_rate", place),
        "padding": _read_padding(layer, place),
    }
    kernel = "depthwise_kernel" if is_depthwise else "kernel"
    roles = [(kernel, "weight"), *([("bias", "bias")] if layer.config.get("use_bias", True) else [])]
    return "depthwise_conv2d" if is_depthwise else "conv2d", attributes, roles


def _read_dense(layer: KerasLayer, place: str) -> Read:
    return "dense", {}, [("kernel", "weight"), *([("bias", "bias")] if layer.config.get("use_bias", True) else [])]


def _read_batch_norm(layer: KerasLayer, place: str) -> Read:
    axis = layer.config.get("axis", -1)
    axis = axis[0] if isinstance(axis, list) and len(axis) == 1 else axis
    if axis not in (-1, 3) or layer.config.get("renorm"):
        raise FormatError(f"{place}: expected batch norm over the last axis, found axis {quote(axis)}")
    epsilon = float(expect(layer.config.get("epsilon", 1e-3), (int, float), f"{place}: epsilon"))
    if not 0 <= epsilon < 1:
        raise FormatError(f"{place}: expected an epsilon from 0 to 1, found {epsilon}")
    flags = (("scale", "gamma", "weight"), ("center", "beta", "bias"))
    roles = [(name, role) for flag, name, role in flags if layer.config.get(flag, True)]
    return "batch_norm", {"epsilon": epsilon}, [*roles, ("moving_mean", "mean"), ("moving_variance", "variance")]


def _read_relu(layer: KerasLayer, place: str) -> Read:
    limit, others = layer.config.get("max_value"), [layer.config.get(name) for name in ("negative_slope", "threshold")]
    if limit not in (None, 6) or any(other not in (None, 0) for other in others):
        raise FormatError(
            f"{place}: expected a ReLU without a limit or with the limit 6, found max_value {quote(limit)}, "
            f"negative_slope {quote(others[0])}, threshold {quote(others[1])}"
        )
    return "activation", {"function": "relu" if limit is None else "relu6"}, []


def _read_activation_layer(layer: KerasLayer, place: str) -> Read:
    return "activation", {"function": _read_activation(layer.config.get("activation"), place)}, []


def _read_softmax(layer: KerasLayer, place: str) -> Read:
    axis = layer.config.get("axis", -1)
    if axis not in (-1, [-1]):
        raise FormatError(f"{place}: expected softmax over the last axis, found axis {quote(axis)}")
    return "activation", {"function": "softmax"}, []


def _read_zero_padding(layer: KerasLayer, place: str) -> Read:
    padding = layer.config.get("padding", 1)
    pairs = [padding, padding] if isinstance(padding, int) else padding
    if isinstance(pairs, list) and len(pairs) == 2:
        pairs = [[pair, pair] if isinstance(pair, int) else pair for pair in pairs]
        sizes = [size for pair in pairs for size in (pair if isinstance(pair, list) else [pair])]
        if len(sizes) == 4 and all(type(size) is int and 0 <= size <= 64 for size in sizes):
            return "pad", {"padding": ((sizes[0], sizes[1]), (sizes[2], sizes[3]))}, []
    raise FormatError(f"{place}: expected padding ((top, bottom), (left, right)), found {quote(padding)}")


def _read_average_pool(layer: KerasLayer, place: str) -> Read:
    size = layer.config.get("pool_size", 2)
    size = [size, size] if isinstance(size, int) else size
    if not isinstance(size, list) or len(size) != 2 or any(type(side) is not int or side < 1 for side in size):
        raise FormatError(f"{place}: expected pool_size (height, width), found {quote(size)}")
    # The stride is the window's size unless it is stated; of a window that is not square it matters to nobody.
    strides = layer.config.get("strides")
    stride = max(size) if strides in (None, size) else _read_pair(layer, "strides", place)
    return "average_pool2d", {"kernel_size": tuple(size), "stride": stride, "padding": _read_padding(layer, place)}, []


def _read_plain(op: str, **attributes: Any) -> Callable[[KerasLayer, str], Read]:
    return lambda layer, place: (op, attributes, [])


def _read_rescaling(layer: KerasLayer, place: str) -> Read:
    return "rescale", {name: _read_numbers(layer.config.get(name, default), f"{place}: {name}")
                       for name, default in (("scale", 1.0), ("offset", 0.0))}, []  # fmt: skip


def _read_normalization_layer(layer: KerasLayer, place: str) -> Read:
    axis = layer.config.get("axis", -1)
    axis = axis[0] if isinstance(axis, list) and len(axis) == 1 else axis
    if axis not in (-1, 3, None, []) or layer.config.get("invert"):
        raise FormatError(f"{place}: expected a Normalization over the last axis, found axis {quote(axis)}")
    if layer.config.get("mean") is None:  # adapted to data: the file's arrays
        return "rescale", {}, [("mean", "mean"), ("variance", "variance"), ("count", "count")]
    values = {name: _read_numbers(layer.config.get(name), f"{place}: {name}") for name in ("mean", "variance")}
    return "rescale", values, []


def _read_normalization(values: Mapping[str, Any], place: str) -> dict[str, Any]:
    """Return the scale and offset that give (x - mean) / max(sqrt(variance), 1e-7)."""
    mean, variance = (np.asarray(values[name], np.float64).reshape(-1) for name in ("mean", "variance"))
    if not (np.isfinite(mean).all() and np.isfinite(variance).all() and (variance >= 0).all()):
        raise FormatError(f"{place}: expected finite means and variances of zero or more, found others")
    if mean.size != variance.size or mean.size == 0:
        raise FormatError(f"{place}: expected as many variances as means, found {variance.size} and {mean.size}")
    scale = 1 / np.maximum(np.sqrt(variance), 1e-7)
    offset = -mean * scale
    return {"scale": scale if scale.size > 1 else scale[0], "offset": offset if offset.size > 1 else offset[0]}


_READERS: Mapping[str, Callable[[KerasLayer, str], Read]] = {
    "Conv2D": _read_convolution,
    "Convolution2D": _read_convolution,
    "DepthwiseConv2D": _read_convolution,
    "Dense": _read_dense,
    "BatchNormalization": _read_batch_norm,
    "SyncBatchNormalization": _read_batch_norm,
    "ReLU": _read_relu,
    **dict.fromkeys(("Relu", "nn.relu"), _read_plain("activation", function="relu")),
    **dict.fromkeys(("Relu6", "nn.relu6"), _read_plain("activation", function="relu6")),
    "Activation": _read_activation_layer,
    "Softmax": _read_softmax,
    "Add": _read_plain("add"),
    "Concatenate": _read_plain("concatenate"),
    "Flatten": _read_plain("reshape"),
    "Reshape": _read_plain("reshape"),
    "ZeroPadding2D": _read_zero_padding,
    "AveragePooling2D": _read_average_pool,
    "GlobalAveragePooling2D": _read_plain("average_pool2d", kernel_size=None),
    "Rescaling": _read_rescaling,
    "Normalization": _read_normalization_layer,
}


def _read_arithmetic(call: Call, operation: str, place: str) -> dict[str, float]:
    """Return the scale and offset of `x + c`, `x - c`, `x * c` and `x / c`, or of the reverse where it has them."""
    is_reverse = not isinstance(call.arguments[0], str)
    number = next(float(value) for value in call.arguments if not isinstance(value, str))
    if operation == "divide" and (is_reverse or number == 0):
        raise FormatError(f"{place}: expected a division by a number other than zero, found another")
    sign = -1.0 if is_reverse else 1.0
    scale, offset = {
        "add": (1.0, number),
        "subtract": (sign, -sign * number),
        "multiply": (number, 0.0),
        "divide": (1 / number if number else 0.0, 0.0),
    }[operation]
    return {"scale": scale, "offset": offset}


def _read_activation(value: Any, place: str) -> str:
    """Return an activation's name: "linear" or one of `_ACTIVATIONS`, written as a name, a function or a layer."""
    if isinstance(value, dict):
        class_name, config = value.get("class_name"), value.get("config")
        if class_name == "function" and isinstance(config, str):
            value = config
        elif class_name in ("ReLU", "Softmax") and isinstance(config, dict):
            layer = KerasLayer("", str(class_name), config)
            return str(_READERS[layer.class_name](layer, place)[1]["function"])
        else:
            value = class_name
    value = value or "linear"
    if value != "linear" and value not in _ACTIVATIONS:
        raise FormatError(f"{place}: expected an activation among {', '.join(_ACTIVATIONS)}, found {quote(value)}")
    return str(value)


def _read_pair(layer: KerasLayer, name: str, place: str) -> int:
    """Return a stride or dilation, which is the same along both axes."""
    value = layer.config.get(name)
    value = 1 if value is None else value
    values = value if isinstance(value, list) else [value]
    if not values or any(type(item) is not int or item != values[0] or not 1 <= item <= 64 for item in values):
        raise FormatError(f"{place}: expected {name} to be one number from 1 to 64, found {quote(value)}")
    return int(values[0])


def _read_padding(layer: KerasLayer, place: str) -> str:
    value = layer.config.get("padding", "valid")
    if value not in ("same", "valid"):
        raise FormatError(f"{place}: expected padding same or valid, found {quote(value)}")
    return str(value).upper()


def _read_numbers(value: Any, place: str, depth: int = 0) -> Any:
    """Return a number, or an array of a few, whatever the nesting."""
    if isinstance(value, list) and depth < 4:
        items = [_read_numbers(item, place, depth + 1) for item in value[:64]]
        return np.concatenate([np.reshape(item, -1) for item in items]) if items else np.zeros(0)
    return float(expect(value, (int, float), place))
