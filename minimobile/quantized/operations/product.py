"""What operations with weights have in common: sums of products of bytes, and how these come to bytes again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from minimobile.quantized.arithmetic import activation_range, product_scaling
from minimobile.quantized.layout import as_image, lifted_zero, values_of
from minimobile.quantized.network import Operation, Tensor
from minimobile.quantized.operations.operation import Call, QuantizedOperation
from minimobile_kernels.geometry import Window

if TYPE_CHECKING:
    from minimobile.quantized.builder import Builder

TILED_SPEED = 8  # times that of other products: in fewer parts, as each of them gathers its pixels


class Product(QuantizedOperation):
    """An operation on a map, a weight and perhaps a bias. Its attribute "activation" is a key of `ACTIVATIONS`."""

    images = 1


def definition_arguments(call: Call, slide: Window) -> tuple[Any, ...]:
    """Return what follows the weight's zero point in the definitions of convolutions."""
    x, weight = call.inputs[:2]
    to = activation_range(call.attributes["activation"], call.out)
    return call.bias, slide, product_scaling(x, weight, call.out), to, call.bytes_of


def operands(builder: Builder, operation: Operation) -> tuple[Tensor, Tensor, NDArray[np.int64], Tensor]:
    """Return x, weight, the values of the bias, and the output of a product."""
    x, weight = (builder.tensor(name) for name in operation.inputs[:2])
    out = builder.tensor(operation.output)
    if len(operation.inputs) > 2:
        return x, weight, values_of(builder.tensor(operation.inputs[2])).astype(np.int64), out
    return x, weight, np.zeros(as_image(out.shape)[3], np.int64), out


def put_scales(
    builder: Builder, operation: Operation, weights: NDArray[np.int64], bytes_of: str | None = None
) -> dict[str, int]:
    """Keep how sums of products with weights (C_out, terms) come to bytes, by whose rule (None: the network's).

    The bias takes in what the zero point of x adds, by the sums of the weights.
    """
    x, weight, bias, out = operands(builder, operation)
    bias = bias - lifted_zero(x) * weights.sum(1)
    return builder.put_estimates(product_scaling(x, weight, out), bias, weights, lifted_zero(out), bytes_of)


def add_product(builder: Builder, operation: Operation, values: NDArray[np.int64], bytes_of: str | None = None) -> None:
    """Add a product of a map's pixels and a matrix (C_out, C_in): all pixels are one row."""
    x, _, _, out = operands(builder, operation)
    n, height, width, channels = builder.shape(x.name)
    first = np.arange(0, channels, builder.group)
    offsets = first // builder.lanes * builder.plane(x.name) + first % builder.lanes
    terms = builder.tile_terms(channels, n * height * width)
    padded = np.zeros((len(values), max(terms, len(first) * builder.group)), np.int64)
    padded[:, :channels] = values
    offsets = np.pad(offsets, (0, padded.shape[1] // builder.group - len(first)))
    scales = put_scales(builder, operation, values, bytes_of)
    cost = values.size * n * height * width // (TILED_SPEED if terms else 1)
    builder.add_step(
        "conv2d", x.name, out.name, cost,
        activation_range(operation.attributes["activation"], out), batch=1, out_height=1, out_width=n * height * width,
        x_pixel=builder.lanes, tile_terms=terms, **builder.put_panels(padded, offsets), **scales,
    )  # fmt: skip
