"""Padding that converters write as an operation of its own, done by the convolution that reads it."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Collection, Sequence

from minimobile.quantized.network import Operation
from minimobile.quantized.operations.table import operation_of


def absorb_padding(operations: Sequence[Operation], kept: Collection[str]) -> list[Operation]:
    """Return the operations without those that pad for one convolution alone, which then pads for itself.

    The bytes are the same: both put the zero point there. Tensors in `kept` are made as they are.
    """
    uses = Counter(name for operation in operations for name in operation.inputs)
    pads = {
        operation.output: (operation.inputs[0], sides)
        for operation in operations
        if (sides := operation_of(operation).sides_padded(operation)) is not None
        and uses[operation.output] == 1 and operation.output not in kept
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
