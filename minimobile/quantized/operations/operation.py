"""What an operation of a quantised network has to say of itself, and what it is told for that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from minimobile.quantized.layout import is_map
from minimobile.quantized.network import Network, Operation, Tensor
from minimobile.quantized.operations.reading import Reading, Shape
from minimobile_kernels.geometry import Window, window
from minimobile_kernels.quantized.reference_maps import Affine

if TYPE_CHECKING:  # who only reads a file need not wait for the compiler
    from minimobile.quantized.builder import Builder

Array = NDArray[Any]
Sides = tuple[tuple[int, int], tuple[int, int]]


class Call(NamedTuple):
    """An operation with what it reads: tensors and their arrays, in one order."""

    attributes: Mapping[str, Any]
    inputs: list[Tensor]
    arrays: list[Array]
    out: Tensor
    bytes_of: str

    @property
    def bias(self) -> Array:
        """The third array, or zeros."""
        return self.arrays[2] if len(self.arrays) > 2 else np.zeros(self.out.shape[-1], np.int32)

    def slide(self, kernel_size: Sequence[int]) -> Window:
        """Return the window of a kernel over the first array."""
        return slide(self.attributes, self.arrays[0].shape, kernel_size)


class Limits(NamedTuple):
    """What the kernels of this machine can do: channels of a vector, and of the longest softmax; and by whose rule."""

    lanes: int
    most_channels: int
    bytes_of: str


class QuantizedOperation:
    """One operation: what it demands of its tensors, its definition, and its steps for the kernels.

    An operation is a subclass in a module of its own, and a row of `OPERATIONS`. What stands here holds for one that
    only the definitions compute.
    """

    images: ClassVar[int | None] = None
    """How many inputs are maps; the others are weights. None: all."""
    keeps_numbers: ClassVar[bool] = False
    """The result stands for the same numbers as its input."""
    result: ClassVar[str | None] = None
    """What the output of a network is beyond logits, where it ends in this: "probabilities" or "classes"."""
    writes_result: ClassVar[bool] = False
    """Its steps write to the caller's result, and no map."""

    def check(self, reading: Reading, out: Tensor) -> Shape:
        """Raise FormatError for what does not fit, and return the shape that the result must have."""
        raise NotImplementedError

    def define(self, call: Call) -> Array:
        """Compute the result on its definition, the kernels' of `minimobile_kernels.quantized`."""
        raise NotImplementedError

    def has_kernel(self, operation: Operation, network: Network, limits: Limits) -> bool:
        """Tell whether the kernels can do it; what they cannot, the definition does."""
        first, *others = (network.tensors[name] for name in operation.inputs)
        out = network.tensors[operation.output]
        maps = [first, *(tensor for tensor in others if tensor.values is None), out]
        return all(is_map(tensor) for tensor in maps) and self.fits(operation, [first, *others], out, limits)

    def fits(self, operation: Operation, inputs: Sequence[Tensor], out: Tensor, limits: Limits) -> bool:
        """Tell whether the kernels can do it with maps of bytes."""
        return False

    def is_same_bytes(self, x: Tensor, out: Tensor) -> bool:
        """Tell whether the result is the bytes of its input under another name."""
        return False

    def is_by_byte(self, operation: Operation, out: Tensor) -> bool:
        """Tell whether the bytes of the result follow one by one from those of its inputs, one after the other."""
        return False

    def changes_bytes(self, x: Tensor, out: Tensor) -> bool:
        """Tell of one that is by byte whether bytes of an input may become others."""
        return True

    def reads_image(self, operation: Operation, network: Network) -> bool:
        """Tell whether its steps read the caller's image as it is."""
        return False

    def sides_padded(self, operation: Operation) -> Sides | None:
        """Return what it puts around every image, rows and columns before and after, if it does nothing else."""
        return None

    def can_pad(self, operation: Operation, sides: Sides) -> bool:
        """Tell whether its steps can do, at no cost, what puts these sides around its first input."""
        return False

    def add_steps(self, builder: Builder, operation: Operation) -> None:
        """Add the steps for the kernels."""
        raise NotImplementedError(operation.op)


def slide(attributes: Mapping[str, Any], shape: Sequence[int], kernel_size: Sequence[int]) -> Window:
    """Return the window of a kernel over a map (N, H, W, C), with an operation's stride, dilation and padding."""
    _, height, width, _ = shape
    kernel_height, kernel_width = kernel_size
    stride, dilation, padding = attributes["stride"], attributes.get("dilation", 1), attributes["padding"]
    return window(height, width, (kernel_height, kernel_width), stride, dilation, padding)


def affine(tensor: Tensor) -> Affine:
    """Return what the bytes of a tensor stand for."""
    return Affine(tensor.scale, tensor.zero)
