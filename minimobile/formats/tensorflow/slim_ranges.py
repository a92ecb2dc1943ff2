"""The variables that `tf.contrib.quantize` adds to TF-slim's and DeepLab's networks: where which range is kept.

Source: TensorFlow 1.15, tensorflow/contrib/quantize/python/{quantize,quant_ops}.py.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from numpy.typing import NDArray

from minimobile.errors import FormatError
from minimobile.formats.ranges import name_range
from minimobile.formats.tensorflow.slim_names import CLASSIFIERS, block_scopes, is_of_quantizer, layer_scopes
from minimobile.operations.fake_quantization import FakeQuantization

_LIMIT = re.compile(r"(?P<quantizer>(?P<scope>.+)/(?P<kind>\w+_quant))/(?P<limit>min|max)", re.DOTALL)
_WEIGHTS = "weights_quant"
_LAYERS = ("act_quant", "conv_quant")  # in the order in which they are looked for
_SUMS = ("post_activation_bypass_quant", "add_quant", "act_quant")
_AVERAGES = ("biased", "local_step")


class SlimRanges(NamedTuple):
    """Ranges and what their variables are called, by key; {variable: its range}, {variable: why it is ignored}."""

    ranges: dict[str, FakeQuantization]
    called: dict[str, str]
    mapped: dict[str, str]
    ignored: dict[str, str]


def quantizer_targets() -> dict[str, str]:
    """Return {quantiser: key of its range} for V1, V2 and DeepLab; the likelier names of a key stand first."""
    targets = {}
    for scope, layer in (layer_scopes() | CLASSIFIERS).items():
        kernel = f"{layer}.weight" if scope in CLASSIFIERS else f"{layer}.convolution.weight"
        targets[f"{scope}/{_WEIGHTS}"] = kernel
        targets.update(dict.fromkeys((f"{scope}/{kind}" for kind in _LAYERS), _name_node(layer)))
    for scope, block in block_scopes().items():
        targets.update(dict.fromkeys((f"{scope}/{kind}" for kind in _SUMS), _name_node(block)))
    return targets


def read_ranges(variables: Mapping[str, NDArray[Any]], where: str) -> SlimRanges:
    """Return the ranges that a checkpoint's variables hold, in eight bits, as all of slim's training has them.

    Raises FormatError for half a range, for two of one thing, for one per channel, and for a quantiser of no layer.
    """
    targets = quantizer_targets()
    called: dict[str, str] = {}
    for quantizer, key in targets.items():
        called.setdefault(key, quantizer)
    found: dict[str, dict[str, str]] = {}  # quantiser -> {limit: variable}
    ignored = {}
    for name in filter(is_of_quantizer, variables):
        match = _LIMIT.fullmatch(_shorten(name))
        if match is not None and match["quantizer"] in targets:
            found.setdefault(match["quantizer"], {})[match["limit"]] = name
        elif name.rpartition("/")[2] in _AVERAGES:
            ignored[name] = "state of a moving average"
        else:
            raise FormatError(
                f"{where}: expected the quantisers of MobileNet V1, V2 or DeepLabV3, found also {name[:200]}"
            )
    ranges: dict[str, FakeQuantization] = {}
    mapped = {}
    for quantizer, limits in found.items():
        key = targets[quantizer]
        if key in ranges:
            raise FormatError(f"{where}: expected one range of {key}, found both {called[key]} and {quantizer}")
        if len(limits) != 2:
            (there,) = limits.values()
            raise FormatError(f"{where}: expected both {quantizer}/min and {quantizer}/max, found {there} alone")
        minimum, maximum = (_read_number(variables, limits[limit], where) for limit in ("min", "max"))
        ranges[key] = FakeQuantization(minimum, maximum, narrow_range=quantizer.endswith(_WEIGHTS))
        called[key] = quantizer
        mapped.update(dict.fromkeys(limits.values(), name_range(key)))
    return SlimRanges(ranges, {key: f"{name}/{{min,max}}" for key, name in called.items()}, mapped, ignored)


def _shorten(variable: str) -> str:
    """Take one of two scopes of a name: quantisers of V1's inner scope are called after operations."""
    for scope in ("MobilenetV1", "MobilenetV2"):
        variable = variable.replace(f"{scope}/{scope}/", f"{scope}/")
    return variable


def _name_node(layer: str) -> str:
    """Return the node of a layer's canonical name ("mobilenet_v1.layer.3" -> "layer.3")."""
    return layer.removeprefix("mobilenet_v1.").removeprefix("mobilenet_v2.").removesuffix(".convolution")


def _read_number(variables: Mapping[str, NDArray[Any]], name: str, where: str) -> float:
    values = variables[name]
    if values.shape != () or values.dtype.kind != "f":
        raise FormatError(
            f"{where}: {name}: expected one number for the whole tensor, found {values.dtype} {values.shape}; ranges "
            "of single channels are not supported"
        )
    return float(values)
