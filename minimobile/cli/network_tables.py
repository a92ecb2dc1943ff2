"""The tables of `minimobile inspect`, each one function from a network to stdout."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from minimobile.cli import console

if TYPE_CHECKING:
    from minimobile.costs.receptive_field import ReceptiveField
    from minimobile.formats.description import Entry
    from minimobile.models.inspection import NetworkCosts


def describe_reach(network: NetworkCosts) -> list[tuple[str, str]]:
    """Return what there is to say of a network's memory and receptive field in a line each."""
    layer, size = network.peak
    field = network.receptive_fields[network.features]
    reach = "" if field is None else f"{field.height.size} x {field.width.size} pixels, every {field.height.step}"
    return [
        ("activations", f"{_megabytes(size)} MB at most, while {layer} is computed (float32, layer by layer)"),
        ("receptive field", f"{reach} pixels, of {network.features}"),
    ]


def write_paper(network: NetworkCosts) -> None:
    """Write V1's Table 1 or V2's Table 2, and a detector's maps."""
    table = network.paper_table
    title = f"{table['table']}, for this network"
    if "type_stride" in table["rows"][0]:
        rows = [
            (f"{_repeats(row)}{row['type_stride']}", row["filter_shape"], row["input_size"]) for row in table["rows"]
        ]
        console.write_table(("Type / Stride", "Filter Shape", "Input Size"), rows, title)
        _write_maps(network)
        return
    columns = ["Input", "Operator", "t#", "c#", "n#", "s#"]
    is_dilated = any(set(row["dilations"]) != {1} for row in table["rows"])
    rows = [
        (
            row["input"],
            row["operator"],
            *(_show(row[name]) for name in "tcns"),
            *([", ".join(map(str, row["dilations"]))] if is_dilated else []),
        )
        for row in table["rows"]
    ]
    console.write_table([*columns, *(["dilation"] if is_dilated else [])], rows, title)
    _write_maps(network)


def _write_maps(network: NetworkCosts) -> None:
    """Write the maps that a detector predicts from, where it is one."""
    maps = network.paper_table.get("maps")
    if not maps:
        return
    console.write_text("")
    rows = [
        tuple(row[name] for name in ("input", "source", "predictors", "anchors", "boxes", "classes")) for row in maps
    ]
    columns = ("Map", "Made by", "Predictors", "anchors#", "boxes#", "classes#")
    total = sum(row["anchors"] * _cells(row["input"]) for row in maps)
    console.write_table(columns, rows, f"The detector's maps: {total:,} anchors")


def _cells(shape: str) -> int:
    height, width, _ = (int(size) for size in shape.split(" x "))
    return height * width


def write_kinds(network: NetworkCosts) -> None:
    """Write V1's Table 2: shares of multiply-adds and parameters by kind of convolution."""
    rows = [
        (row.kind, f"{row.multiply_adds:,}", _percent(row.multiply_adds_share), f"{row.weights:,}",
         _percent(row.weights_share))
        for row in network.profile.kinds
    ]  # fmt: skip
    weights = sum(row.weights for row in network.profile.kinds)
    rows.append(("total", f"{network.profile.multiply_adds:,}", "", f"{weights:,}", ""))
    columns = ("Type", "Mult-Adds#", "share#", "Weights#", "share#")
    console.write_table(columns, rows, "By type of layer (weights without biases and batch norm)")


def write_layers(network: NetworkCosts) -> None:
    """Write what every layer makes and costs."""
    from minimobile.costs.layer_table import tabulate_layers

    console.write_rows(tabulate_layers(network.profile))


def write_geometry(network: NetworkCosts) -> None:
    """Write every layer's window: its size, stride, dilation, padding, and the receptive field behind it."""
    rows = []
    for layer in network.profile.layers:
        (top, bottom), (left, right) = layer.padding
        window = ["-"] * 4
        if layer.kernel_size is not None:
            padding = f"{top} {bottom} {left} {right}"
            window = [_shape(layer.kernel_size), str(layer.stride), str(layer.dilation), padding]
        rows.append(
            (layer.name, *window, *_reach(network.receptive_fields[layer.name]), _shape(layer.output_shape[1:]))
        )
    title = (
        "Windows: kernel k, stride s, dilation d, padding (top bottom left right)\n"
        "(field: the receptive field in pixels, and its step from value to value)"
    )
    console.write_layer_table(("k#", "s#", "d#", "t b l r#", "field#", "step#", "output#"), rows, title)


def write_memory(network: NetworkCosts) -> None:
    """Write the memory of every layer's output, and of all maps that are there while it is computed."""
    outputs = {layer.name: layer.output_shape for layer in network.profile.layers}
    peak = network.peak[0]
    rows = [
        (name, _shape(outputs[name]), f"{memory.output:,}", f"{memory.live:,}", "<- most" if name == peak else "")
        for name, memory in network.memory.items()
    ]
    title = "Memory of activations, layer by layer (live: with all that is needed later)"
    console.write_layer_table(("output#", "bytes#", "live#", ""), rows, title)


def write_arrays(entries: Sequence[Entry], limit: int | None = None) -> None:
    """Write the arrays of a file, the first `limit` of them."""
    rows = [(_shape(entry.shape) or "scalar", entry.dtype, entry.name) for entry in entries[:limit]]
    left_out = f", the first {len(rows)} (--table arrays shows all)" if len(rows) < len(entries) else ""
    console.write_table(("shape#", "type", "name"), rows, f"{len(entries)} arrays{left_out}")


def write_comparison(network: NetworkCosts, others: Sequence[NetworkCosts]) -> None:
    """Write several networks below each other, as V1's Tables 6 and 7 do, and two of a kind layer by layer, too."""
    first = network.profile
    rows = []
    for one in (network, *others):
        costs = one.profile
        rows.append(
            (
                one.title,
                f"{costs.multiply_adds / 1e6:,.1f}",
                _percent(costs.multiply_adds / first.multiply_adds),
                f"{costs.parameters / 1e6:.2f}",
                _percent(costs.parameters / first.parameters),
                _megabytes(one.peak[1]),
            )
        )
    columns = ("network", "M mult-adds#", "share#", "M params#", "share#", "MB live#")
    console.write_table(columns, rows, "Side by side (MB live: most memory of activations)")
    if len(others) == 1 and others[0].config.model_type == network.config.model_type:
        console.write_blank()
        _write_layers_of_two(network, others[0])


def _write_layers_of_two(left: NetworkCosts, right: NetworkCosts) -> None:
    sides = [{layer.name: layer for layer in one.profile.layers} for one in (left, right)]
    rows = []
    for name in dict.fromkeys([*sides[0], *sides[1]]):
        pair = [side.get(name) for side in sides]
        outputs = [_shape(layer.output_shape) if layer else "-" for layer in pair]
        costs = [f"{layer.multiply_adds:,}" if layer else "-" for layer in pair]
        rows.append((name, *outputs, *costs))
    rows.append(("total", "", "", *(f"{one.profile.multiply_adds:,}" for one in (left, right))))
    columns = ("output#", "output#", "mult-adds#", "mult-adds#")
    console.write_layer_table(columns, rows, f"Layer by layer: {left.title}, and {right.title}")


def _repeats(row: dict[str, Any]) -> str:
    return "   " if row["repeats"] is None else f"{row['repeats']}x " if row["repeats"] > 1 else ""


def _reach(field: ReceptiveField | None) -> tuple[str, str]:
    if field is None:
        return "all", "-"
    return _shape((field.height.size, field.width.size)), str(field.height.step)


def _shape(sizes: Sequence[int]) -> str:
    return "x".join(map(str, sizes))


def _show(value: float | None) -> str:
    return "-" if value is None else f"{value:g}"


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"


def _megabytes(count: int) -> str:
    return f"{count / 1e6:.2f}"
