"""Maps that end as rows of one tensor, each made where the maps are: the kernels then write them to their places."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from minimobile.quantized.layout import is_map
from minimobile.quantized.network import Operation, Tensor
from minimobile.quantized.operations.table import operation_of

Tensors = Mapping[str, Tensor]


def spread_rows(operations: Sequence[Operation], tensors: Tensors) -> tuple[list[Operation], Tensors]:
    """Return operations with the same results, and the tensors that they speak of.

    A detector's predictors end in reshapes and a concatenation of their rows, which are the maps' bytes one after the
    other; what follows byte by byte, such as a logistic function, is done to each map instead, and the rows are put
    together last, of those that are wanted. Tensors of the operations given are called as before.
    """
    spreading = _Spreading(dict(tensors))
    return [each for operation in operations for each in spreading.spread(operation)], spreading.tensors


class _Spreading:
    def __init__(self, tensors: dict[str, Tensor]) -> None:
        self.tensors = tensors
        self.maps: dict[str, tuple[str, ...]] = {}  # by tensor: those of one picture whose bytes, in a row, it is

    def spread(self, operation: Operation) -> list[Operation]:
        """Return what stands for an operation: itself, or its work on maps and then their rows."""
        out, does = self.tensors[operation.output], operation_of(operation)
        inputs = [self.tensors[name] for name in operation.inputs]
        maps = [name for x in inputs for name in self._maps_of(x)]
        if does.is_same_bytes(inputs[0], out) and inputs[0].dtype == out.dtype and maps:
            self.maps[out.name] = tuple(maps)
            return [operation] if len(maps) == 1 else [Operation("rows", tuple(maps), out.name)]
        if len(maps) < 2 or not does.is_by_byte(operation, out) or not all(x.name in self.maps for x in inputs):
            return [operation]
        made, results = [], []
        for index, name in enumerate(maps):
            results.append(name)
            if does.changes_bytes(self.tensors[name], out):
                results[-1] = f"{out.name} of map {index}"
                self.tensors[results[-1]] = replace(out, name=results[-1], shape=self.tensors[name].shape)
                made.append(replace(operation, inputs=(name,), output=results[-1]))
        self.maps[out.name] = tuple(results)
        return [*made, Operation("rows", tuple(results), out.name)]

    def _maps_of(self, tensor: Tensor) -> tuple[str, ...]:
        """Return the maps whose bytes, one after the other, are those of a tensor: maybe itself, or none."""
        is_one = is_map(tensor) and tensor.shape[0] == 1
        return self.maps.get(tensor.name, (tensor.name,) if is_one else ())
