"""A folded network with a range for every map -> the network of integers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from minimobile.calibration.bias_correction import mean_shift
from minimobile.calibration.folding import Doubles, FoldedNetwork
from minimobile.calibration.ranges import Range, make_grid
from minimobile.calibration.sums import sum_in_order
from minimobile.calibration.weight_grids import LIMITS, ROUNDINGS, WeightGrid, round_per_channel, round_per_tensor
from minimobile.errors import FormatError, InputError
from minimobile.networks.graph import INPUT, Graph, Node
from minimobile.networks.ssd import find_predictions
from minimobile.operations.table import CONVOLUTIONS, operation_of
from minimobile.quantized.assembly import as_stored, assemble
from minimobile.quantized.network import Network, Tensor
from minimobile.quantized.validation import check_network

_INT32 = np.dtype(np.int32)
_BIAS_STEPS = 2.0**30  # half of int32: the sum of products needs the rest
_FINE = 2.0**-10  # steps of a sum per step of a byte, where weights are all zero and any scale will do


@dataclass(frozen=True)
class Scheme:
    """How weights become bytes: int8 with a scale per output channel, or uint8 with one scale and a zero point.

    `weights` is how far a channel's int8 weights reach, a name of `LIMITS`, `rounding` one of `ROUNDINGS`.
    """

    per_channel: bool = True
    weights: str = "squared_error"
    rounding: str = "balanced"

    def __post_init__(self) -> None:
        for name, choices in (("weights", LIMITS), ("rounding", ROUNDINGS)):
            if getattr(self, name) not in choices:
                raise InputError(f"{name}: expected one of {', '.join(choices)}, got {getattr(self, name)!r}")

    @property
    def dtype(self) -> np.dtype[np.int8 | np.uint8]:
        """The type of all bytes."""
        return np.dtype(np.int8 if self.per_channel else np.uint8)


@dataclass(frozen=True)
class Rounded:
    """Integers; by node of a convolution what its bytes stand for; and what had to be done on the way."""

    network: Network
    weights: Mapping[str, Doubles]
    biases: Mapping[str, Doubles]
    notes: tuple[str, ...]


def round_network(
    folded: FoldedNetwork,
    ranges: Mapping[str, Range],
    scheme: Scheme,
    means: Mapping[str, Doubles] | None,
    size: tuple[int, int],
    where: str,
    input_offset: float = 0.0,
) -> Rounded:
    """Return the network of integers for pictures of `size` (height, width).

    `ranges` are by node; `means`, by node (C), are those of the float network, for bias correction (None: without).
    `input_offset` is by how much the numbers of the input's bytes are above the pixel values that they are taken for.
    Biases are int32 in steps of the input's scale times the weight's; a channel whose bias has no place there gets
    coarser weights, and a note says so. Raises FormatError for what has no form in bytes.
    """
    shared = share_ranges(folded.graph, ranges)
    grids = {name: make_grid(name, limits, scheme.dtype) for name, limits in shared.items()}
    rounding = _Rounding(folded, grids, scheme, means, where, input_offset)
    kernels = {node.name: rounding.round_kernel(node) for node in folded.convolutions()}
    network = assemble(folded.graph, size, grids, kernels, where)
    check_network(network, where)
    return Rounded(network, rounding.weights, rounding.biases, tuple(rounding.notes))


def share_ranges(graph: Graph, ranges: Mapping[str, Range]) -> dict[str, Range]:
    """Return the ranges with one for all maps whose bytes are moved into each other: the widest reach of any.

    The maps of a detector's boxes are joined behind the graph, and so are those of its classes.
    """
    moved = [(node.name, *operation_of(node).reads(node)) for node in graph.nodes if _is_moved(node)]
    group = {name: name for name in ranges}
    for first, *others in (*moved, *filter(None, find_predictions(graph))):
        for other in others:
            group = {member: group[first] if by == group[other] else by for member, by in group.items()}
    return {
        name: (min(ranges[other][0] for other in group if group[other] == by),
               max(ranges[other][1] for other in group if group[other] == by))
        for name, by in group.items()
    }  # fmt: skip


def _is_moved(node: Node) -> bool:
    """Tell whether LiteRT has a node's bytes on its input's grid; a mean over the whole map has a grid of its own."""
    operation = operation_of(node)
    return operation.joins or (operation.keeps_scale and not operation.sees_all)


class _Rounding:
    def __init__(
        self,
        folded: FoldedNetwork,
        grids: Mapping[str, Tensor],
        scheme: Scheme,
        means: Mapping[str, Doubles] | None,
        where: str,
        input_offset: float,
    ) -> None:
        self.folded = folded
        self.grids = grids
        self.scheme = scheme
        self.means = means
        self.where = where
        self.input_offset = input_offset
        self.notes: list[str] = []
        self.weights: dict[str, Doubles] = {}
        self.biases: dict[str, Doubles] = {}

    def round_kernel(self, node: Node) -> tuple[Tensor, Tensor]:
        """Return weight and bias of a convolution as a network holds them."""
        weight, bias = (self.folded.weights[node.weights[role]] for role in ("weight", "bias"))
        if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
            found = "NaN or infinity"
            raise FormatError(f"{self.where}: {node.name}: expected weights that are finite numbers, found {found}")
        x_scale, out_scale = (float(self.grids[name].scale) for name in (node.inputs[0], node.name))
        grid = self.round_weight(node, weight, bias, x_scale, out_scale)
        numbers = grid.numbers()
        if self.means is not None:
            bias = bias - mean_shift(weight, numbers, self.means[node.inputs[0]])
            if node.inputs[0] == INPUT:
                bias = bias - self.input_offset * sum_in_order(numbers.reshape(len(numbers), -1))
        scales = (np.float32(x_scale) * grid.scales).astype(np.float32)
        exact = bias / (np.float64(np.float32(x_scale)) * grid.scales.astype(np.float64))
        steps = np.copysign(np.floor(np.abs(exact) + 0.5), exact)
        if not (np.abs(steps) < 2**31).all():
            raise FormatError(
                f"{self.where}: {node.name}: expected a bias of fewer than 2**31 steps of {scales.min():g}, found "
                f"{np.abs(bias).max():g}; one scale for all channels is too small for it, take per_channel"
            )
        self.weights[node.name], self.biases[node.name] = numbers, bias
        return _weight_tensor(node, grid), Tensor(
            node.weights["bias"], bias.shape, _INT32, scales, np.zeros(len(scales), np.int64),
            values=steps.astype(np.int32),
        )  # fmt: skip

    def round_weight(self, node: Node, weight: Doubles, bias: Doubles, x_scale: float, out_scale: float) -> WeightGrid:
        if not self.scheme.per_channel:
            return round_per_tensor(weight, self.scheme.rounding)
        limits = LIMITS[self.scheme.weights](weight.reshape(len(weight), -1))
        limits = np.where(limits > 0, limits, 127 * _FINE * out_scale / x_scale)
        least = np.abs(bias) / (x_scale * _BIAS_STEPS) * 127
        if (limits < least).any():
            count = int((limits < least).sum())
            self.notes.append(
                f"{node.name}: {count} of {len(bias)} channels have a bias beyond 2**30 steps of their weights' scale; "
                "their weights are rounded more coarsely"
            )
        return round_per_channel(weight, np.maximum(limits, least), self.scheme.rounding)


def _weight_tensor(node: Node, grid: WeightGrid) -> Tensor:
    """Return a weight in the layout of networks: (C_out, K_h, K_w, C_in), depthwise (1, K_h, K_w, C)."""
    operation = CONVOLUTIONS[node.op]
    stored, axis = as_stored(node.op, operation.arrange(grid.stored)), 3 if operation.is_by_channel else 0
    zeros = np.full(len(grid.scales), grid.zero, np.int64)
    return Tensor(
        node.weights["weight"], stored.shape, stored.dtype, grid.scales, zeros, axis if len(zeros) > 1 else 0,
        np.ascontiguousarray(stored),
    )  # fmt: skip
