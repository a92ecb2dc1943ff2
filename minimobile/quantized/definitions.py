"""One operation of a quantised network on the definitions of the kernels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from minimobile.quantized.network import Operation, Tensor
from minimobile.quantized.operations.operation import Call
from minimobile.quantized.operations.table import operation_of

Array = NDArray[Any]


def apply(operation: Operation, tensors: Mapping[str, Tensor], values: Mapping[str, Array], bytes_of: str) -> Array:
    """Return the output of one operation; `values` are those of the tensors that are no constants."""
    inputs = [tensors[name] for name in operation.inputs]
    arrays = [values[tensor.name] if tensor.values is None else tensor.values for tensor in inputs]
    call = Call(operation.attributes, inputs, arrays, tensors[operation.output], bytes_of)
    return operation_of(operation).define(call)
