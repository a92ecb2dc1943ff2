"""`minimobile inspect`: what a file holds, and its network as the papers print it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from minimobile.cli import console, network_tables, targets
from minimobile.cli.options import Force, Format, OutputFormat, Source, path_option

if TYPE_CHECKING:
    from minimobile.models.inspection import Inspection, NetworkCosts


ARRAYS_SHOWN = 12  # of a file that cannot be loaded, unless all are asked for


class TableName(StrEnum):
    """The tables that can be asked for."""

    PAPER = "paper"
    KINDS = "kinds"
    LAYERS = "layers"
    GEOMETRY = "geometry"
    MEMORY = "memory"
    ARRAYS = "arrays"
    ALL = "all"


_WRITERS: Mapping[TableName, Callable[[NetworkCosts], None]] = {
    TableName.PAPER: network_tables.write_paper,
    TableName.KINDS: network_tables.write_kinds,
    TableName.LAYERS: network_tables.write_layers,
    TableName.GEOMETRY: network_tables.write_geometry,
    TableName.MEMORY: network_tables.write_memory,
}


def inspect(
    source: Source,
    size: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=65536,
            metavar="PIXELS",
            help="Height and width of the input picture. Default: the model's own.",
            show_default=False,
        ),
    ] = None,
    tables: Annotated[
        list[TableName] | None,
        typer.Option(
            "--table",
            help="What to show; may be repeated. geometry: windows, padding and receptive fields; memory: that of "
            "activations; arrays: what the file holds. Default: paper and kinds.",
            show_default=False,
        ),
    ] = None,
    compare: Annotated[
        list[str] | None,
        typer.Option(
            metavar="OTHER",
            help="Show another network beside this one: the same at another width (0.5), size (@160) or both "
            "(0.5@160), or another SRC; may be repeated.",
            show_default=False,
        ),
    ] = None,
    picture: Annotated[
        Path | None,
        path_option(
            "--picture",
            metavar="FILE.png",
            help="With --compare: draw accuracy, where one was published, against cost. Its folder must exist.",
            show_default=False,
        ),
    ] = None,
    force: Force = False,
    output_format: OutputFormat = Format.TABLE,
) -> None:
    """Say what a file holds and what its network costs.

    The file's format, school and producer, also where it cannot be loaded, and the network as its paper prints it.
    Parameters count batch norm's scale and shift, not its statistics, as transformers does; multiply-adds count the
    convolutions and the classifier, for one picture.
    """
    from minimobile.models import inspection

    if picture is not None:
        if not compare:
            raise typer.BadParameter(f"--picture {picture}: expected --compare, whose networks it draws")
        targets.check_target("--picture", picture, targets.PICTURE_SUFFIXES, force)
    found = inspection.inspect(source, size, tuple(compare or ()))
    if picture is not None and found.network is not None:
        _draw(picture, (found.network, *found.others), force)
    if output_format is Format.JSON:
        console.write_json({**found.to_dict(), **({"picture": str(picture)} if picture else {})})
        return
    default = () if found.others else (TableName.PAPER, TableName.KINDS)
    wanted = set(tables or default)
    console.write_facts(list(_facts(found)))
    if found.network is not None:
        if found.others:
            console.write_blank()
            network_tables.write_comparison(found.network, found.others)
        for name, write in _WRITERS.items():
            if wanted & {name, TableName.ALL}:
                console.write_blank()
                write(found.network)
    asks_for_arrays = bool(wanted & {TableName.ARRAYS, TableName.ALL})
    if found.description.entries and (asks_for_arrays or found.network is None):
        console.write_blank()
        network_tables.write_arrays(found.description.entries, None if asks_for_arrays else ARRAYS_SHOWN)
    if picture is not None:
        console.write_text(f"wrote {picture}")


def _draw(path: Path, networks: Sequence[NetworkCosts], force: bool) -> None:
    from minimobile.imaging.drawing import encode_png
    from minimobile.models.cost_chart import draw_costs
    from minimobile.storage.files import write_whole_bytes

    write_whole_bytes(path, encode_png(draw_costs(networks)), overwrite=force)


def _facts(found: Inspection) -> list[tuple[str, str]]:
    from minimobile.quantized.own_head import describe_own_head

    description, network = found.description, found.network
    dialect = found.checkpoint.dialect if found.checkpoint else description.dialect
    origin = [description.format, *([f"dialect {dialect}"] if dialect else [])]
    origin += [f"by {description.producer}"] if description.producer else []
    facts = [("file", found.source), ("format", ", ".join(origin))]
    if network is None:
        facts += list(description.facts.items())
        return [*facts, ("not loaded", str(description.problem).removeprefix(f"{found.source}: "))]
    config, costs = network.config, network.profile
    height, width = network.image_size
    labels = ", ".join(label.split(",")[0] for label in network.labels[:3])
    stride = f"width {config.width_multiplier}, output stride {config.output_stride}"
    facts += [("network", f"{network.architecture}, {stride}")]
    count = len(network.labels)
    own = describe_own_head(found.own_outputs) if found.own_outputs else ""
    facts += [("head", own)] if own else []
    none = "its head is its own" if own else "none: it has no head"
    facts += [("classes", f"{count}: {labels}, ..." if count > 3 else labels or none)]
    facts += [("pictures", found.preprocessing or "the file does not say how they are prepared")]
    facts += found.notes.items()
    facts += [(f"at {height} x {width}", f"{costs.multiply_adds:,} multiply-adds, {costs.parameters:,} parameters")]
    return [*facts, *network_tables.describe_reach(network)]
