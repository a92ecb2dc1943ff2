"""What LiteRT derives from scales before it runs: the factors of every operation, and the bytes of its activation."""

from __future__ import annotations

import math

import numpy as np

from minimobile.quantized.network import Tensor
from minimobile_kernels.quantized.reference import Range, Scaling, scaling

ACTIVATIONS: dict[str, tuple[float | None, float | None]] = {
    "linear": (None, None),
    "relu": (0.0, None),
    "relu6": (0.0, 6.0),
    "relu_n1_to_1": (-1.0, 1.0),
}


def product_scaling(x: Tensor, weight: Tensor, out: Tensor) -> Scaling:
    """Return how sums of products of x and weight come to the scale of `out`.

    uint8: from the float32 product of the two scales; int8: from the exact one, for every channel; both divided in
    float64. XNNPACK's factor is computed in float32 throughout. Source: LiteRT, `kernel_util.cc`,
    `GetQuantizedConvolutionMultipler` and `PopulateConvolutionQuantizationParams`.
    """
    if weight.dtype == np.uint8:
        real = (x.scale * weight.scales).astype(np.float64) / np.float64(out.scale)
    else:
        real = np.float64(x.scale) * weight.scales.astype(np.float64) / np.float64(out.scale)
    return scaling(real)._replace(scale=x.scale * weight.scales / out.scale)


def change_of_scale(x: Tensor, out: Tensor) -> Scaling:
    """Return how the bytes of x come to the scale of `out`."""
    return scaling(float(x.scale) / float(out.scale))._replace(scale=np.array([x.scale / out.scale]))


def activation_range(activation: str, out: Tensor) -> Range:
    """Return the zero point of `out`, and the bytes to which the activation clamps.

    Source: LiteRT, `kernel_util.cc`, `CalculateActivationRangeQuantized`.
    """
    limits = np.iinfo(out.dtype)
    low, high = ACTIVATIONS[activation]

    def quantize(value: float) -> int:
        steps = np.float32(value) / out.scale
        return out.zero + int(math.copysign(math.floor(abs(steps) + 0.5), steps))

    return Range(
        out.zero,
        limits.min if low is None else max(limits.min, quantize(low)),
        limits.max if high is None else min(limits.max, quantize(high)),
    )


def full_range(out: Tensor) -> Range:
    """Return the zero point of `out`, and all its bytes."""
    limits = np.iinfo(out.dtype)
    return Range(out.zero, int(limits.min), int(limits.max))
