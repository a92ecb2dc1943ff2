"""A network as a file spells it out: layers under the file's own names, in an order in which they can be computed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

PICTURE = "input"
"""The name under which layers refer to the network's input."""


@dataclass(frozen=True)
class Layer:
    """One operation. `name` is unique; `inputs` are names of earlier layers or `PICTURE`; `tensor` is what the file
    calls the result (the name where it is the same).

    | op | arrays, in PyTorch's layouts | attributes |
    |---|---|---|
    | conv2d | weight (O, I, K_h, K_w), bias (O,) or none | stride, dilation, padding |
    | depthwise_conv2d | weight (C, 1, K_h, K_w), bias (C,) or none | stride, dilation, padding |
    | dense | weight (O, I), bias (O,) or none | |
    | batch_norm | any of weight, bias; mean, variance (C,) | epsilon |
    | activation | | function: relu6, relu, softmax, sigmoid, a curve |
    | add, concatenate | | |
    | average_pool2d | | kernel_size (K_h, K_w) or None for the whole map; stride, padding |
    | resize_bilinear | | align_corners, half_pixel_centers, size (H, W) |
    | pad | | padding ((top, bottom), (left, right)) |
    | space_to_batch | | block (h, w), padding ((top, bottom), (left, right)) |
    | batch_to_space | | block (h, w), crop ((top, bottom), (left, right)) |
    | rescale | | scale, offset: the result is scale * input + offset |
    | fake_quantize | | quantization: minimum, maximum, num_bits, narrow_range (`FakeQuantization`) |
    | reshape, argmax | | |
    | other | | kind: the file's word for it |

    `padding` is "SAME", "VALID" or ((top, bottom), (left, right)). Bias and activation of a file's fused operation are
    a `bias` array and a layer "activation" of its own. A convolution whose weight, with batch norm folded into it, is
    rounded in training has the same record as its attribute `weight_quantization`. One whose bias the file adds after
    the sum behind it has the attribute `is_tensor_partial`: no tensor in the file holds its values. What does
    nothing at inference (dropout, identity) is left out.
    """

    name: str
    op: str
    inputs: tuple[str, ...]
    arrays: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    attributes: Mapping[str, Any] = field(default_factory=dict)
    array_names: Mapping[str, str] = field(default_factory=dict)
    """Role of an array -> its name in the file."""
    tensor: str = ""
