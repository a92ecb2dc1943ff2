"""What every kernel takes for granted of a quantised network, checked before any of them runs.

The compiled kernels check nothing: a shape that does not follow from the others would read beyond a map.
"""

from __future__ import annotations

import numpy as np

from minimobile.errors import FormatError
from minimobile.quantized.network import Network, Tensor, shorten
from minimobile.quantized.operations.reading import BYTES, Reading
from minimobile.quantized.operations.table import operation_of


def check_network(network: Network, where: str) -> None:
    """Raise FormatError for the first operation whose tensors do not fit each other or the kernels.

    Afterwards: one input, outputs once each; every shape follows from the shapes before it; every byte has one scale
    and zero point; weights and biases are constants of the right shape; sums of products fit int32; factors fit theirs.
    """
    if len(network.inputs) != 1:
        raise FormatError(f"{where}: expected one input of the network, found {len(network.inputs)}")
    if not network.outputs or len(set(network.outputs)) != len(network.outputs):
        raise FormatError(f"{where}: expected outputs of the network, each once, found {len(network.outputs)}")
    _check_input(network.tensors[network.inputs[0]], where)
    for operation in network.operations:
        _check_operation(Reading(network, where, operation))


def _check_input(tensor: Tensor, where: str) -> None:
    is_picture = len(tensor.shape) == 4 and tensor.shape[0] == 1 and tensor.values is None
    if not is_picture or tensor.dtype not in (*BYTES, np.float32):
        raise FormatError(
            f"{where}: expected an input of one picture (1, H, W, C) in uint8, int8 or float32, found "
            f"{tensor.dtype} {tensor.shape}"
        )


def _check_operation(reading: Reading) -> None:
    kind, out = operation_of(reading.operation), reading.tensors[reading.operation.output]
    reading.demand(out.values is None, "a result that is no constant", f"the constant {shorten(out.name)}")
    for tensor in (reading.tensors[name] for name in reading.operation.inputs[: kind.images]):
        reading.demand(tensor.values is None, "values computed before it", f"the constant {shorten(tensor.name)}")
        reading.check_map(tensor)
    reading.check_map(out)
    shape = kind.check(reading, out)
    reading.demand(min(shape, default=1) >= 1, "a result of at least one value", f"the shape {shape}")
    reading.demand(out.shape == shape, f"a result of shape {shape}", f"{out.shape}")
