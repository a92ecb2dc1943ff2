"""`minimobile trace`: every layer of one run, one value written out as its sum, and the channels as a picture."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from minimobile.cli import console, targets
from minimobile.cli.options import Force, Format, OutputFormat, Source, path_argument, path_option
from minimobile.errors import InputError, MinimobileError, printable

if TYPE_CHECKING:
    from PIL import Image

    from minimobile.tracing.trace import Trace


class Scale(StrEnum):
    """What a scale of colours goes over."""

    LAYER = "layer"
    CHANNEL = "channel"


def trace(
    source: Source,
    image: Annotated[Path, path_argument(metavar="IMAGE", help="One picture.", show_default=False)],
    layer: Annotated[
        list[str] | None,
        typer.Option(
            "--layer",
            metavar="NAME",
            help="Only this layer, by transformers' or TF-slim's name or hidden-state index; may be repeated. The name "
            "of an inverted residual (layer.5) stands for all of its layers. Default: every layer.",
            show_default=False,
        ),
    ] = None,
    at: Annotated[
        str | None,
        typer.Option("--at", metavar="I,J,C", help="Write out the layer's value at row I, column J, channel C."),
    ] = None,
    box: Annotated[
        int | None,
        typer.Option(
            "--box", metavar="N", min=0, help="Of a detector: write out how box N comes about; 0 is the best."
        ),
    ] = None,
    every_term: Annotated[bool, typer.Option("--all", help="With --at: every term, however many.")] = False,
    nodes: Annotated[
        bool, typer.Option("--nodes", help="Convolution, batch norm and activation of a layer, each by itself.")
    ] = False,
    save: Annotated[
        Path | None,
        path_option(
            "--save", metavar="FILE", help="Write the layers' values to an .h5 or .npz file. Its folder must exist."
        ),
    ] = None,
    picture: Annotated[
        Path | None,
        path_option(
            "--picture", metavar="FILE", help="Draw the layer's channels (a PNG); needs --layer. Its folder must exist."
        ),
    ] = None,
    channels: Annotated[
        int, typer.Option(min=1, max=4096, metavar="N", help="With --picture: how many channels at most.")
    ] = 64,
    scale: Annotated[
        Scale,
        typer.Option("--scale", help="With --picture: one scale of colours for a layer, or one for each channel."),
    ] = Scale.LAYER,
    force: Force = False,
    output_format: OutputFormat = Format.TABLE,
) -> None:
    """Show every layer of a run, and any number in it.

    Prints the range, mean, share of zeros and of values at 6 (the limit of ReLU6) and time of each layer. With --at:
    one value as its sum, every pixel, weight and product in order, down to the last bit. With --box: a detection's
    anchor, what is predicted for it, and each step to its box.
    """
    from minimobile.cli.models import open_model, processor_of
    from minimobile.tracing.channel_grid import draw_channels
    from minimobile.tracing.trace_table import tabulate_trace

    layers = [int(name) if name.lstrip("-").isdecimal() else name for name in dict.fromkeys(layer or ())]
    position = _read_position(at)
    if at is not None and len(layers) != 1:
        raise typer.BadParameter(f"--at {at}: expected one --layer whose value it is, got {len(layers)}")
    if picture is not None and not layers:
        raise typer.BadParameter(f"--picture {picture}: expected a --layer to draw, got none")
    if save is not None:
        targets.check_target("--save", save, targets.ARRAY_SUFFIXES, force)
    if picture is not None:
        targets.check_target("--picture", picture, targets.PICTURE_SUFFIXES, force)
    if image.is_dir():
        raise InputError(f"{image}: expected one picture to trace, got a folder")
    network = open_model(source)
    for name in layers:
        network.graph.resolve(name)  # before the picture is read
    pixel_values = processor_of(network)(image, return_tensors="np")["pixel_values"]
    document: dict[str, Any] = {"image": str(image)}

    if box is not None:
        _explain_box(network, pixel_values, box, document, output_format)
    if position is not None:
        explanation = network.explain(pixel_values, layers[0], position)
        document["explanation"] = explanation.to_dict()
        if output_format is Format.TABLE:
            from minimobile.cli.explanation import write_explanation

            write_explanation(explanation, every_term)
        if not explanation.agrees:
            raise MinimobileError(f"{explanation.layer}: the sum and the engine differ at {at}; please report it")
    if (position is None and box is None) or save is not None or picture is not None:
        traced = network.trace(pixel_values, layers or None, every_node=nodes)
        document.update(traced.to_dict())
        if save is not None:
            _save(save, traced, type(network).__name__, image, pixel_values, force)
            document["save"] = str(save)
        if picture is not None:
            names = _name_channels(network, traced)
            drawn = {name: values[0] for name, values in traced.tensors.items()}
            _draw(picture, draw_channels(drawn, channels, names, scale is Scale.CHANNEL), force)
            document["picture"] = str(picture)
        if output_format is Format.TABLE and position is None and box is None:
            title = f"{type(network).__name__}: {_describe_pixels(pixel_values)}"
            console.write_rows(tabulate_trace(traced.layers, title), notes_apart=True)
    if output_format is Format.JSON:
        console.write_json(document)
    else:
        for path in (save, picture):
            if path is not None:
                console.write_text(f"wrote {path}")


def _explain_box(network: Any, pixel_values: Any, rank: int, document: dict[str, Any], output_format: Format) -> None:
    if not hasattr(network, "explain_box"):
        raise InputError(f"--box {rank}: expected a model for object detection, got a {type(network).__name__}")
    explanation = network.explain_box(pixel_values, rank)
    document["box"] = explanation.to_dict()
    if output_format is Format.TABLE:
        from minimobile.cli.box_explanation import write_box

        write_box(explanation, network.id2label[explanation.label], *pixel_values.shape[2:])
    if not explanation.agrees:
        raise MinimobileError(f"--box {rank}: the steps and the run differ; please report it")


def _read_position(at: str | None) -> tuple[int, int, int] | None:
    if at is None:
        return None
    try:
        row, column, channel = (int(part) for part in at.split(","))
    except ValueError:
        raise typer.BadParameter(f"--at {at}: expected row, column and channel as in 3,4,5") from None
    return row, column, channel


def _save(path: Path, traced: Trace, model: str, image: Path, pixel_values: Any, force: bool) -> None:
    arrays = {"pixel_values": pixel_values, **traced.tensors}
    attributes: dict[str, dict[str, str | int]] = {
        name: {"layout": "NCHW"[: values.ndim], "shape": "x".join(map(str, values.shape)), "dtype": str(values.dtype)}
        for name, values in arrays.items()
    }
    for layer in traced.layers:
        attributes[layer.name]["operation"] = layer.operation
    attributes[""] = {"model": model, "image": printable(image)}
    targets.write_arrays(path, arrays, attributes, force)


def _name_channels(network: Any, traced: Trace) -> dict[str, list[str]]:
    """Return the names of channels by layer: those of the classes, where the layer is what the network says of them."""
    labels = [str(label) for _, label in sorted(network.id2label.items())]
    return {
        name: labels
        for name, values in traced.tensors.items()
        if name in network.graph.outputs and values.shape[1] == len(labels)
    }


def _draw(path: Path, drawn: Image.Image, force: bool) -> None:
    from minimobile.imaging.drawing import encode_png
    from minimobile.storage.files import write_whole_bytes

    write_whole_bytes(path, encode_png(drawn), overwrite=force)


def _describe_pixels(pixel_values: Any) -> str:
    from minimobile.tracing.trace_table import shorten

    height, width = pixel_values.shape[2:]
    low, high = float(pixel_values.min()), float(pixel_values.max())
    return f"{height}x{width} pixels from {shorten(low)} to {shorten(high)}"
