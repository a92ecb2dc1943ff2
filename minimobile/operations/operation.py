"""What an operation of a graph has to say of itself, and what it is told for that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from minimobile.networks.graph import Node
from minimobile.operations.estimate import Estimate, Noise
from minimobile.operations.written_out import Position, Scalar, Stage, WrittenOut
from minimobile_kernels.geometry import Window, window

Array = NDArray[Any]
MapShape = tuple[int, int, int]  # channels, height, width
WeightShapes = Mapping[str, tuple[int, ...]]  # by canonical name
Weights = Mapping[str, NDArray[Any]]
Maps = Mapping[str, Array]  # (H, W, C) each, by node


class Work(NamedTuple):
    """What a convolution costs: the paper's word for it, its multiply-adds for one image, and its kernels' weights."""

    kind: str
    multiply_adds: int
    kernel_weights: int


class Rows(Protocol):
    """What the compiler of a program offers to an operation that adds its rows."""

    def add(self, kind: str, node: Node, fields: Mapping[str, Any]) -> None:
        """Add the row of a kernel (`step.KINDS`) from the map of the node's first input to its own.

        `fields` are those of `step.STEP` that do not follow from the shapes and places of the two maps.
        """

    def window(self, node: Node) -> Window:
        """Return the window of a node over its first input."""

    def second(self, node: Node) -> dict[str, int]:
        """Return the fields that say where the second input lies, if the node has one."""

    def weights(self, node: Node) -> dict[str, int]:
        """Return the fields that say where a convolution's packed weights lie, and what they are like."""

    def taps(self, node: Node) -> dict[str, int]:
        """Return the field that says where the offsets of a dense convolution's terms lie, and keep them there."""


class Operation:
    """One operation: what a node of it must have, and what every part of the library asks of it.

    An operation is a subclass in a module of its own, and a row of `OPERATIONS`. What stands here holds for those that
    compute every value from the value at the same place of their input, keep its shape, have no weights and no kernel.
    """

    inputs: ClassVar[tuple[int, ...]] = (1,)
    """How many inputs a node may have."""
    attributes: ClassVar[tuple[str, ...]] = ()
    """What it must have besides."""
    roles: ClassVar[tuple[str, ...]] = ()
    """The weights that it must have."""

    title: ClassVar[str] = ""
    """What it is called in tables; "": as in the graph. Convolutions are called as in V1's paper (`work`)."""
    short_name: ClassVar[str] = ""
    """What it is called where six letters must do."""

    is_convolution: ClassVar[bool] = False
    is_normalization: ClassVar[bool] = False
    """A convolution before it takes it in."""
    is_sum: ClassVar[bool] = False
    """A convolution that takes residuals, and makes its second term, takes it in."""
    takes_clamps: ClassVar[bool] = False
    """A clamp after it can be done with it."""
    takes_residuals: ClassVar[bool] = False
    """A sum after it can be done with it."""
    reads_pixels: ClassVar[bool] = False
    """Its kernel reads the caller's image as it is."""
    is_expansion: ClassVar[bool] = False
    """It can be done with what filters rows after it and projects them after that, band by band of rows."""
    filters_rows: ClassVar[bool] = False
    """It can be done with what projects its rows after it, band by band of rows."""
    is_projection: ClassVar[bool] = False
    """It can have what filters rows before it done with it, and an expansion before that."""
    joins: ClassVar[bool] = False
    """Its result is its inputs, side by side."""
    keeps_scale: ClassVar[bool] = False
    """Every value lies between values of its input: in bytes, both have one scale."""
    slides: ClassVar[bool] = False
    """It has a window that is told where networks are listed."""
    sees_all: ClassVar[bool] = False
    """Every value depends on the whole map."""
    is_stage: ClassVar[bool] = False
    """It changes one value that another node has made, its last input's; `stage` writes that out."""
    rounds: ClassVar[bool] = False
    """Its values are those of a grid."""
    is_step: ClassVar[bool] = False
    """It goes on with the layer of its first input, which is then rounded after it."""
    rounded_step: ClassVar[str | None] = None
    """What it is called in a layer whose last step it is where training for quantisation rounds its values, or None."""

    def check(self, node: Node) -> None:
        """Assert what every builder and pass must keep."""
        assert len(node.inputs) in self.inputs, f"{node.name} ({node.op}): {len(node.inputs)} inputs"
        missing = [name for name in self.attributes if name not in node.attributes]
        missing += [role for role in self.roles if role not in node.weights]
        assert not missing, f"{node.name} ({node.op}): without {', '.join(missing)}"

    def reads(self, node: Node) -> tuple[str, ...]:
        """Return the inputs whose values it reads."""
        return node.inputs

    def infer_shape(self, node: Node, inputs: Sequence[MapShape], weights: WeightShapes) -> MapShape:
        """Return the shape of a node's map, given those of its inputs."""
        return inputs[0]

    def window(self, node: Node, height: int, width: int) -> Window:
        """Return the window with which a node slides over a `height` x `width` map."""
        return window(height, width, (1, 1), 1, 1, "VALID")

    def work(self, node: Node, out: MapShape, weights: WeightShapes) -> Work | None:
        """Return what a node costs, None where the papers count nothing."""
        return None

    def clamp(self, node: Node) -> str | None:
        """Return the clamp that a node is and nothing more, None where it is none."""
        return None

    def attributes_as_trained(self, node: Node, weights: WeightShapes) -> dict[str, Any]:
        """Return the attributes with which a node sums as TensorFlow's training for quantisation did."""
        return {}

    def define(self, node: Node, weights: Weights, inputs: Sequence[Array]) -> Array:
        """Compute a node on its definition in `reference.py`. Shapes: inputs and result (N, H, W, C), of one dtype."""
        raise NotImplementedError(node.op)

    def evaluate(self, node: Node, weights: Weights, inputs: Sequence[Array]) -> Array:
        """Compute a node in float64; the order of summation need not be the definition's."""
        return self.define(node, weights, inputs)

    def estimate(self, node: Node, weights: Weights, inputs: Sequence[Estimate]) -> Estimate:
        """Evaluate a node in float64, and say how far float32 can be from that."""
        values = [x.value for x in inputs]
        value = self.evaluate(node, weights, values)
        error = self.error(node, inputs, value)
        own = np.hypot(*self.noise(node, weights, values, value))
        return Estimate(value, error, abs(value) + error, own + self.carry(node, inputs, value))

    def error(self, node: Node, inputs: Sequence[Estimate], value: Array) -> Array:
        """Return the bound for a node without weights: what its inputs' errors make, where it rounds nothing itself."""
        return self.evaluate(node, {}, [x.error for x in inputs])

    def noise(self, node: Node, weights: Weights, inputs: Sequence[Array], value: Array) -> Noise:
        """Return the deviations of a node's own roundings, its inputs (N, H, W, C) being exact."""
        return Noise(np.zeros_like(value), np.zeros_like(value))

    def carry(self, node: Node, inputs: Sequence[Estimate], value: Array) -> Array:
        """Return what a node without weights makes of its inputs' deviations, as if their errors had one sign."""
        return self.evaluate(node, {}, [x.deviation for x in inputs])

    def change(self, node: Node, x: Array, reach: Array, value: Array) -> Array:
        """Return by how much a function of single values changes where its input x (N, H, W, C) is off by `reach`."""
        ends = [self.evaluate(node, {}, [x + side]) for side in (-reach, reach)]
        change: Array = np.fmax(np.abs(ends[0] - value), np.abs(ends[1] - value))
        return change

    def add_rows(self, rows: Rows, node: Node) -> None:
        """Add the rows of a program that compute a node."""
        raise NotImplementedError(f"{node.name}: {node.op} has no kernel")

    def write_out(self, node: Node, weights: Weights, maps: Maps, at: Position) -> WrittenOut:
        """Write one value out, term by term: for what is no stage."""
        raise NotImplementedError(node.op)

    def stage(self, node: Node, value: Scalar, maps: Maps, at: Position) -> Stage:
        """Write out what a node makes of one value: for what is a stage."""
        raise NotImplementedError(node.op)


def window_fields(slide: Window) -> dict[str, int]:
    """Return the fields of `step.STEP` that a window gives."""
    names = ("kernel_height", "kernel_width", "stride", "dilation", "pad_top", "pad_left")
    return {name: getattr(slide, name) for name in names}
