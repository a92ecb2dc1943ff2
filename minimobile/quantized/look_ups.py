"""Look-ups of bytes one after the other, such as a change of scale and a logistic function, made one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from minimobile.quantized.definitions import apply
from minimobile.quantized.layout import every_byte, is_map
from minimobile.quantized.network import Operation, Tensor
from minimobile.quantized.operations.table import operation_of


def join_look_ups(
    operations: Sequence[Operation], kept: Collection[str], tensors: Mapping[str, Tensor], bytes_of: str
) -> list[Operation]:
    """Return operations with the same results, of which none looks up what another looked up for it alone.

    What becomes of a byte is computed for all 256 on the definitions. Tensors in `kept` are made as they are.
    """
    uses = Counter(name for operation in operations for name in operation.inputs)
    made: dict[str, Operation] = {}
    for operation in operations:
        x = operation.inputs[0]
        is_alone = uses[x] == 1 and x not in kept and x in made
        is_joined = is_alone and _is_look_up(operation, tensors) and _is_look_up(made[x], tensors)
        made[operation.output] = _join(made.pop(x), operation, tensors, bytes_of) if is_joined else operation
    return list(made.values())


def _is_look_up(operation: Operation, tensors: Mapping[str, Tensor]) -> bool:
    maps = [tensors[name] for name in (*operation.inputs, operation.output)]
    return len(maps) == 2 and all(map(is_map, maps)) and operation_of(operation).is_by_byte(operation, maps[1])


def _join(first: Operation, second: Operation, tensors: Mapping[str, Tensor], bytes_of: str) -> Operation:
    """Return the look-up of what the second makes of what the first makes of a byte."""
    x = tensors[first.inputs[0]]
    every = every_byte(x).reshape(*(1,) * (len(x.shape) - 1), 256)  # a pixel of 256 channels
    between = apply(first, tensors, {x.name: every}, bytes_of)
    results = apply(second, tensors, {first.output: between}, bytes_of).reshape(256)
    return Operation("look_up", first.inputs, second.output, {"results": results})
