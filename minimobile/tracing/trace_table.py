"""A row of a trace, and the rows as a table, in figures short enough for a terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from minimobile.operations.operation import MapShape
from minimobile.operations.table import OPERATIONS
from minimobile.tables import Table


@dataclass(frozen=True)
class TracedLayer:
    """One row. A layer is a convolution with its batch norm and activation, or any other single node.

    `shape` is (channels, height, width) of one image, `padding` (top, bottom, left, right) in pixels at this size, None
    where nothing slides beyond an edge. `minimum`, `maximum` and `mean` (in float64) go over all images, and are NaN
    where there is NaN; `zeros` is the share of values that are 0, `at_limit` of those at the activation's upper limit
    (6 for ReLU6), None where it has none.

    `microseconds` is the time on one thread of the step of the compiled program that computes the layer in a normal
    run, and `step` all layers that this one step computes: the time is that of all of them together. It is None where a
    normal run does not compute the layer, for the reference engine, which has no program, and for quantised networks.
    """

    name: str
    operation: str
    shape: MapShape
    padding: tuple[int, int, int, int] | None
    minimum: float
    maximum: float
    mean: float
    zeros: float
    at_limit: float | None
    microseconds: float | None
    step: tuple[str, ...]


def tabulate_trace(layers: Sequence[TracedLayer], title: str = "") -> Table:
    """Return shape, padding, range, zeros, values at the limit and time of every layer, and what the marks mean."""
    rows = []
    notes = ["pad: top, bottom, left, right; 0s and 6s: in percent; us: on one thread"]
    has_shared = False
    alone = []
    for index, layer in enumerate(layers):
        is_shared = any(layer.step and later.step == layer.step for later in layers[index + 1 :])
        has_shared |= is_shared
        others = [name for name in layer.step if name not in {other.name for other in layers}]
        mark = ""
        if others and not is_shared:
            mark = "*"
            alone.append(f"* {layer.name}: in one step with {', '.join(others)}, whose time is in it")
        taken = "" if layer.microseconds is None else f"{layer.microseconds:.{1 if layer.microseconds < 100 else 0}f}"
        padding = layer.padding or ()
        rows.append(
            (
                layer.name,
                OPERATIONS[layer.operation].short_name or layer.operation,
                "x".join(map(str, layer.shape)),
                ("" if max(padding, default=0) < 10 else ",").join(map(str, padding)),
                *map(shorten, (layer.minimum, layer.maximum, layer.mean)),
                _percent(layer.zeros),
                "" if layer.at_limit is None else _percent(layer.at_limit),
                "+" if is_shared else taken + mark,
            )
        )
    if has_shared:
        notes.append("+: computed in one step with the next layer, and timed with it")
    columns = ("layer", "kind", "CxHxW#", "pad#", "min#", "max#", "mean#", "0s#", "6s#", "us#")
    return Table(columns, rows, title, (*notes, *alone))


def shorten(value: float) -> str:
    """Write a number in at most five characters.

    >>> [shorten(value) for value in (-39.14, 0.645, 12345.0, -0.0071, 0.0)]
    ['-39.1', '0.65', '1e4', '-7e-3', '0']
    """
    size = abs(value)
    if not math.isfinite(value) or value == 0:
        return f"{value:g}"
    if size >= 9999.5 or size < 0.01:
        mantissa, exponent = f"{value:.0e}".split("e")
        return f"{mantissa}e{int(exponent)}"
    return f"{value:.{2 if size < 9.995 else 1 if size < 99.95 else 0}f}"


def _percent(share: float) -> str:
    """Write a share in percent; what is neither none nor all never looks like it."""
    percent = round(100 * share)
    if share > 0 and percent == 0:
        return "<1"
    return "99" if share < 1 and percent == 100 else str(percent)
