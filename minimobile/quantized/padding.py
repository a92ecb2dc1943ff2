"""Padding that converters write as an operation of its own, done by the convolution that reads it."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from minimobile.quantized.network import Operation, Tensor
from minimobile.quantized.operations.operation import affine
from minimobile.quantized.operations.table import operation_of


def absorb_padding(
    operations: Sequence[Operation], kept: Collection[str], tensors: Mapping[str, Tensor]
) -> list[Operation]:
    """Return the operations without those that pad for one convolution alone, which then pads for itself.

    The bytes are the same: both put the zero point there, and to both they stand for the same numbers, or else the
    padding stays. Tensors in `kept` are made as they are.
    """
    uses = Counter(name for operation in operations for name in operation.inputs)
    pads = {
        operation.output: (operation.inputs[0], sides)
        for operation in operations
        if (sides := operation_of(operation).sides_padded(operation)) is not None
        and uses[operation.output] == 1 and operation.output not in kept
        and affine(tensors[operation.inputs[0]]) == affine(tensors[operation.output])
    }  # fmt: skip
    gone, result = set(), []
    for operation in operations:
        first, *others = operation.inputs
        x, sides = pads.get(first, (first, None))
        if sides is None or not operation_of(operation).can_pad(operation, sides):
            result.append(operation)
            continue
        attributes = {**operation.attributes, "padding": sides}
        result.append(dataclasses.replace(operation, inputs=(x, *others), attributes=attributes))
        gone.add(first)
    return [operation for operation in result if operation.output not in gone]
