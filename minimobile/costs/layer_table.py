"""What every layer of a network makes and costs, as a table."""

from __future__ import annotations

from collections.abc import Sequence

from minimobile.costs.profile import Cost, Profile
from minimobile.operations.table import OPERATIONS
from minimobile.tables import Table


def tabulate_layers(profile: Profile, title: str = "") -> Table:
    """Return name, operation, output, parameters and multiply-adds of every layer, and the sums of the last two."""
    rows: list[tuple[object, ...]] = [
        (
            layer.name,
            name_operation(layer),
            show_shape(layer.output_shape),
            f"{layer.parameters:,}",
            f"{layer.multiply_adds:,}",
        )
        for layer in profile.layers
    ]
    rows.append(("total", "", "", f"{profile.parameters:,}", f"{profile.multiply_adds:,}"))
    heading = "Layers (outputs: channels x height x width)"
    columns = ("layer", "operation", "output#", "parameters#", "mult-adds#")
    return Table(columns, rows, f"{title}\n{heading}" if title else heading)


def name_operation(layer: Cost) -> str:
    """Return the operation in the papers' words, and whether a run leaves it out."""
    name = layer.kind or OPERATIONS[layer.operation].title or layer.operation
    return name if layer.is_computed else f"{name}, idle"


def show_shape(sizes: Sequence[int]) -> str:
    """Return sizes as in 32x112x112."""
    return "x".join(map(str, sizes))
