"""`minimobile inspect`: what a network consists of and what it costs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from minimobile.cli import console
from minimobile.cli.options import Format, OutputFormat, Source

if TYPE_CHECKING:
    from minimobile.profile import Profile


def inspect(
    source: Source,
    size: Annotated[
        int, typer.Option(min=1, max=65536, metavar="PIXELS", help="Height and width of the input picture.")
    ] = 224,
    output_format: OutputFormat = Format.TABLE,
) -> None:
    """List a network's layers and what they cost.

    Parameters count batch norm's scale and shift, not its statistics, as transformers does; multiply-adds count the
    convolutions and the classifier, for one picture.
    """
    from minimobile.cli.models import load_model
    from minimobile.profile import profile

    network = load_model(source)
    result = profile(network.graph, size)
    if output_format is Format.JSON:
        console.write_json(result.to_dict())
    else:
        _write_table(result, f"{type(network).__name__} at {size}x{size} (outputs: C x H x W)")


def _write_table(result: Profile, title: str) -> None:
    rows = [
        (
            layer.name,
            layer.operation.removesuffix("2d"),
            "x".join(map(str, layer.output_shape)),
            f"{layer.parameters:,}",
            f"{layer.multiply_adds:,}",
        )
        for layer in result.layers
    ]
    rows.append(("total", "", "", f"{result.parameters:,}", f"{result.multiply_adds:,}"))
    console.write_table(("layer", "operation", "output#", "parameters#", "multiply-adds#"), rows, title)
