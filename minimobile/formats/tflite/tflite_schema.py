"""TFLite's schema as tables: the numbers of types, operators and fields (tensorflow/lite/schema/schema.fbs, v3)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

TENSOR_TYPES = (
    "float32", "float16", "int32", "uint8", "int64", "string", "bool", "int16", "complex64", "int8", "float64",
    "complex128", "uint64", "resource", "variant", "uint32", "uint16", "int4", "bfloat16", "int2", "uint4",
)  # fmt: skip
ARRAY_TYPES = ("float32", "float16", "float64", "uint8", "int8", "int16", "int32", "int64", "bool")
"""The types whose constants become arrays."""
QUANTIZED_RANGES = {"uint8": (0, 255), "int8": (-128, 127), "int16": (-32768, 32767), "int32": (-(2**31), 2**31 - 1)}

ACTIVATIONS = ("none", "relu", "relu_n1_to_1", "relu6", "tanh", "sign_bit")
PADDINGS = ("SAME", "VALID")
CUSTOM = 32


class Option(NamedTuple):
    """A field of an operator's options. `choices` are names for its numbers; `minimum` is the least allowed."""

    field: int
    name: str
    kind: str
    default: Any = 0
    choices: tuple[str, ...] = ()
    minimum: int | None = None


class Kind(NamedTuple):
    """An operator: its name, how many inputs it needs and takes, the number of its options' table, and their fields.

    Inputs after the needed ones may be left out. `inputs` of None: any number, none left out.
    """

    name: str
    inputs: tuple[int, int] | None = None
    options_type: int = 0
    options: tuple[Option, ...] = ()


def _activation(field: int) -> Option:
    return Option(field, "activation", "int8", 0, ACTIVATIONS)


def _count(field: int, name: str, default: int = 0) -> Option:
    return Option(field, name, "int32", default, minimum=1)


_PADDING = Option(0, "padding", "int8", 0, PADDINGS)
_STRIDES = (_count(1, "stride_w"), _count(2, "stride_h"))

KINDS: Mapping[int, Kind] = {
    0: Kind("ADD", (2, 2), 11, (_activation(0),)),
    1: Kind("AVERAGE_POOL_2D", (1, 1), 5,
            (_PADDING, *_STRIDES, _count(3, "filter_w"), _count(4, "filter_h"), _activation(5))),
    2: Kind("CONCATENATION", None, 10, (Option(0, "axis", "int32"), _activation(1))),
    3: Kind("CONV_2D", (2, 3), 1,
            (_PADDING, *_STRIDES, _activation(3), _count(4, "dilation_w", 1), _count(5, "dilation_h", 1))),
    4: Kind("DEPTHWISE_CONV_2D", (2, 3), 2,
            (_PADDING, *_STRIDES, _count(3, "depth_multiplier"), _activation(4), _count(5, "dilation_w", 1),
             _count(6, "dilation_h", 1))),
    6: Kind("DEQUANTIZE", (1, 1)),
    9: Kind("FULLY_CONNECTED", (2, 3), 8,
            (_activation(0), Option(1, "weights_format", "int8"), Option(2, "keep_num_dims", "bool", False))),
    14: Kind("LOGISTIC", (1, 1)),
    18: Kind("MUL", (2, 2), 21, (_activation(0),)),
    19: Kind("RELU", (1, 1)),
    21: Kind("RELU6", (1, 1)),
    22: Kind("RESHAPE", (1, 2)),
    23: Kind("RESIZE_BILINEAR", (2, 2), 15,
             (Option(2, "align_corners", "bool", False), Option(3, "half_pixel_centers", "bool", False))),
    25: Kind("SOFTMAX", (1, 1), 9, (Option(0, "beta", "float32", 0.0),)),
    34: Kind("PAD", (2, 2)),
    37: Kind("BATCH_TO_SPACE_ND", (3, 3)),
    38: Kind("SPACE_TO_BATCH_ND", (3, 3)),
    40: Kind("MEAN", (2, 2), 27, (Option(0, "keep_dims", "bool", False),)),
    41: Kind("SUB", (2, 2), 28, (_activation(0),)),
    42: Kind("DIV", (2, 2), 29, (_activation(0),)),
    43: Kind("SQUEEZE", (1, 1)),
    45: Kind("STRIDED_SLICE", (4, 4), 32,
             tuple(Option(field, f"{name}_mask", "int32")
                   for field, name in enumerate(("begin", "end", "ellipsis", "new_axis", "shrink_axis")))),
    56: Kind("ARG_MAX", (2, 2)),
    60: Kind("PADV2", (3, 3)),
    69: Kind("TILE", (2, 2)),
    77: Kind("SHAPE", (1, 1), 55, (Option(0, "out_type", "int8"),)),
    83: Kind("PACK", None, 59, (Option(0, "values_count", "int32"), Option(1, "axis", "int32"))),
    114: Kind("QUANTIZE", (1, 1)),
}  # fmt: skip
"""The operators that a MobileNet is made of, and those of shapes and anchors beside it. The others are known by name at
most: nothing is read of them."""

OTHER_NAMES: Mapping[int, str] = {
    17: "MAX_POOL_2D", 20: "RELU_N1_TO_1", 28: "TANH", 36: "GATHER", 39: "TRANSPOSE", 47: "EXP",
    49: "SPLIT", 50: "LOG_SOFTMAX", 53: "CAST", 54: "PRELU", 55: "MAXIMUM", 57: "MINIMUM", 65: "SLICE",
    67: "TRANSPOSE_CONV", 70: "EXPAND_DIMS", 74: "SUM", 76: "RSQRT", 97: "RESIZE_NEAREST_NEIGHBOR",
    98: "LEAKY_RELU", 117: "HARD_SWISH", 118: "IF", 119: "WHILE", 129: "CALL_ONCE", 150: "GELU",
}  # fmt: skip
