"""What a TFLite file computes of its constants alone: shapes, and the anchors of a detector that has them as an output.

Keras' reshapes of a batch of open size compute their shapes, and `tile` repeats anchors as often as there are pictures.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minimobile.errors import FormatError
from minimobile.formats.tflite.tflite_model import ABSENT, Model, Operator, Tensor
from minimobile_kernels.quantized.reference_maps import Affine, dequantize

Array = NDArray[Any]
FOLDED_LIMIT = 2**24
"""The most values that are computed of a file's constants; 5,118 anchors are 20,472."""


def fold_constants(model: Model, where: str) -> Model:
    """Return the model without the operators that read nothing but constants; their results are constants.

    The shape of a tensor is one, for sizes are fixed and there is one picture. What is not among these operators, or
    brings constants of several scales together, stays. Raises FormatError for results of another shape than the file
    says, and for more than `FOLDED_LIMIT` values.
    """
    tensors = list(model.tensors)
    operators = []
    total = 0
    for operator in model.operators:
        fold, number = _FOLDS.get(operator.kind), operator.outputs[0]
        inputs, out = [tensors[index] for index in operator.inputs if index != ABSENT], tensors[number]
        if fold is None or (operator.kind != "SHAPE" and any(tensor.data is None for tensor in inputs)):
            operators.append(operator)
            continue
        total += math.prod(out.shape)
        if total > FOLDED_LIMIT:
            raise FormatError(f"{where}: expected at most {FOLDED_LIMIT} values made of constants, found {total}")
        data = fold(operator, inputs, out)
        if data is None:
            operators.append(operator)
        elif data.shape != out.shape or data.dtype != out.dtype:
            name = out.name[:200]
            expected = f"{where}: {operator.kind} {name!r}: expected {data.dtype} {data.shape} of its constants"
            raise FormatError(f"{expected}, found {out.dtype} {out.shape}")
        else:
            tensors[number] = dataclasses.replace(out, data=data, is_constant=True)
    return dataclasses.replace(model, tensors=tuple(tensors), operators=tuple(operators))


def _shape(operator: Operator, inputs: list[Tensor], out: Tensor) -> Array | None:
    return np.array(inputs[0].shape, out.dtype) if out.dtype in ("int32", "int64") else None


def _strided_slice(operator: Operator, inputs: list[Tensor], out: Tensor) -> Array | None:
    masks = operator.options
    x, *places = (_data(tensor) for tensor in inputs)
    are_plain = x.ndim == 1 and all(place.dtype.kind == "i" and place.shape == (1,) for place in places)
    if not are_plain or masks["ellipsis_mask"] or masks["new_axis_mask"] or places[2][0] != 1:
        return None
    begin, end = (int(place[0]) for place in places[:2])
    if masks["shrink_axis_mask"]:
        return np.array(x[begin]) if -len(x) <= begin < len(x) else None
    return x[None if masks["begin_mask"] else begin : None if masks["end_mask"] else end]


def _pack(operator: Operator, inputs: list[Tensor], out: Tensor) -> Array | None:
    values = [_data(tensor) for tensor in inputs]
    is_plain = all(value.shape == () and value.dtype == values[0].dtype for value in values)
    return np.stack(values) if is_plain and operator.options["axis"] == 0 else None


def _tile(operator: Operator, inputs: list[Tensor], out: Tensor) -> Array | None:
    x, times = (_data(tensor) for tensor in inputs)
    is_right = times.shape == (x.ndim,) and times.dtype.kind == "i" and (times >= 0).all()
    if not is_right or tuple(size * int(count) for size, count in zip(x.shape, times, strict=True)) != out.shape:
        return None
    return np.tile(x, times) if _share_a_scale(inputs[0], out) else None


def _reshape(operator: Operator, inputs: list[Tensor], out: Tensor) -> Array | None:
    x = _data(inputs[0])
    is_right = x.size == math.prod(out.shape) and _share_a_scale(inputs[0], out)
    return x.reshape(out.shape) if is_right else None


def _concatenation(operator: Operator, inputs: list[Tensor], out: Tensor) -> Array | None:
    values, axis, rank = [_data(tensor) for tensor in inputs], operator.options["axis"], len(out.shape)
    if not -rank <= axis < rank or operator.options["activation"] != "none":
        return None
    rests = {(value.dtype, *np.delete(value.shape, axis % rank)) for value in values if value.ndim == rank}
    are_alike = len(rests) == 1 and all(value.ndim == rank for value in values)
    return np.concatenate(values, axis) if are_alike and all(_share_a_scale(x, out) for x in inputs) else None


def _dequantize(operator: Operator, inputs: list[Tensor], out: Tensor) -> Array | None:
    x, by = _data(inputs[0]), inputs[0].quantization
    if by is None or len(by.scales) != 1 or x.dtype not in (np.uint8, np.int8):
        return None
    return dequantize(x, Affine(by.scales[0], int(by.zero_points[0])))


def _data(tensor: Tensor) -> Array:
    assert tensor.data is not None
    return tensor.data


def _share_a_scale(one: Tensor, other: Tensor) -> bool:
    mine, its = one.quantization, other.quantization
    if mine is None or its is None:
        return mine is its
    return np.array_equal(mine.scales, its.scales) and np.array_equal(mine.zero_points, its.zero_points)


_FOLDS: Mapping[str, Callable[[Operator, list[Tensor], Tensor], Array | None]] = {
    "SHAPE": _shape,
    "STRIDED_SLICE": _strided_slice,
    "PACK": _pack,
    "TILE": _tile,
    "RESHAPE": _reshape,
    "CONCATENATION": _concatenation,
    "DEQUANTIZE": _dequantize,
}
