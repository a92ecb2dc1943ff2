"""`minimobile check`: the same picture through another framework, layer by layer, and what differs first; or through a
quantised file in integers and in floats, and by how many steps they differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from minimobile.cli import console, targets
from minimobile.cli.options import Force, Format, OutputFormat, Source, path_argument, path_option
from minimobile.errors import InputError
from minimobile.storage.files import write_whole_bytes

if TYPE_CHECKING:
    from minimobile.comparison.every_runtime import RuntimesReport
    from minimobile.comparison.pixels import PixelReport
    from minimobile.comparison.quantized_steps import LayerSteps
    from minimobile.comparison.report import Report


CANNOT_TELL = 3
NAMED = 5  # so many arrays are listed


class Against(StrEnum):
    """What to compare with."""

    TRANSFORMERS = "transformers"
    TENSORFLOW = "tensorflow"
    LITERT = "litert"
    ONNXRUNTIME = "onnxruntime"
    OPENVINO = "openvino"
    REFERENCE = "reference"
    DEQUANTIZED = "dequantized"
    ALL = "all"


def check(
    source: Source,
    image: Annotated[Path, path_argument(metavar="IMAGE", help="A picture.", show_default=False)],
    against: Annotated[
        Against,
        typer.Option(
            "--against",
            metavar="NAME",
            help=f"The other side, one of {', '.join(Against)} (extra `crosscheck`).",
        ),
    ] = Against.TRANSFORMERS,
    other: Annotated[
        str | None,
        typer.Option("--other", metavar="OTHER", help="What the other side runs, instead of SRC.", show_default=False),
    ] = None,
    pixels: Annotated[
        bool, typer.Option("--pixels", help="Compare what image processors make of the picture, instead.")
    ] = False,
    html: Annotated[
        Path | None,
        path_option(
            "--html",
            metavar="OUT",
            help="Write all of it as one HTML page, too. Its folder must exist.",
            show_default=False,
        ),
    ] = None,
    force: Force = False,
    output_format: OutputFormat = Format.TABLE,
) -> None:
    """Compare with another framework, layer by layer.

    Names the first layer that differs by more than float32 explains, and what the difference looks like. Columns:
    the largest and the rms difference, each side's error relative to a run in float64, the median distance in float32
    numbers, one minus the cosine, and how many times more than float32 can explain the other side is off (above 1 it
    differs; ? where rounding may hide as much as weights of fewer bits). Exit code 0: all layers agree; 1: they do
    not, or something failed; 3: that cannot be told.

    A framework runs SRC itself where it reads such files (ONNX Runtime and OpenVINO an .onnx, LiteRT a .tflite, ...),
    every tensor taken out, and otherwise the network as we read it. Against all, every runtime that is installed runs
    it: the error of each to float64, the first layer beyond rounding, milliseconds of one inference on all cores,
    and the verdict in words.

    Against dequantized, a quantised file runs in integers and as the float network that it stands for. Columns: what a
    step of the layer's bytes is worth; the largest and the mean difference in steps; its mean with the sign, integers
    minus floats; the share of bytes that the floats round to as well; and the share of values that the floats have
    beyond the bytes. There is no bound, so the exit code is 0.
    """
    if html is not None:
        targets.check_target("--html", html, targets.PAGE_SUFFIXES, force)
    if against is Against.DEQUANTIZED and not pixels:
        if html is not None:
            raise typer.BadParameter(
                "--html: a page is written of layers, runtimes or pixels, not of steps; leave it out"
            )
        if other is not None:
            raise typer.BadParameter("--other: --against dequantized compares SRC with itself; leave one of them out")
        _write_steps(_compare_steps(source, image), output_format)
        return
    from minimobile.cli.models import announce_compilation, load_model, processor_of

    report: Report | PixelReport | RuntimesReport
    if pixels:
        from minimobile.comparison.pixels import compare_pixels

        theirs = None if other is None else processor_of(load_model(other))
        report = compare_pixels(processor_of(load_model(source)), image, theirs)
    elif against is Against.ALL:
        if other is not None:
            raise typer.BadParameter("--other: --against all compares runtimes on SRC; name one of them for two files")
        from minimobile.comparison.every_runtime import check_all

        announce_compilation()
        report = check_all(source, image)
    else:
        from minimobile.comparison.crosscheck import check as compare

        announce_compilation()
        report = compare(source, image, against.value, other)
    if html is not None:
        compared = {"model": source, "picture": image, **({} if other is None else {"their model": other})}
        write_whole_bytes(html, report.to_page(compared).encode(), overwrite=force)
    if output_format is Format.JSON:
        console.write_json(report.to_dict())
    else:
        for table in report.tables():
            console.write_rows(table)
    if not report.agrees:
        raise typer.Exit(CANNOT_TELL if report.agrees is None else 1)


def _compare_steps(source: str, image: Path) -> Sequence[LayerSteps]:
    from minimobile.cli.models import announce_compilation
    from minimobile.comparison.quantized_steps import compare_with_dequantized
    from minimobile.models.sources import read_checkpoint

    checkpoint = read_checkpoint(source)
    if not checkpoint.is_quantized:
        raise InputError(f"{source}: expected a quantised file to compare with its dequantised form, got one of floats")
    announce_compilation()
    return compare_with_dequantized(checkpoint, image)


def _write_steps(layers: Sequence[LayerSteps], output_format: Format) -> None:
    if output_format is Format.JSON:
        console.write_json({"against": Against.DEQUANTIZED.value, "layers": [layer.to_dict() for layer in layers]})
        return
    from minimobile.comparison.figures import shorten

    rows = []
    for layer in layers:
        figures = (*(shorten(x, 2) for x in (layer.step, layer.largest, layer.mean)), shorten(layer.bias, 1))
        shares = (f"{100 * layer.same:.1f} %", f"{100 * layer.clipped:.2f} %")
        rows.append((layer.name, "x".join(map(str, layer.shape)), *figures, *shares))
    columns = ("shape#", "step#", "largest#", "mean#", "bias#", "same#", "clipped#")
    console.write_layer_table(columns, rows, "integers against dequantized: differences in steps")
    worst = max(layers, key=lambda layer: layer.largest)
    mean = shorten(layers[-1].mean, 2)
    console.write_text(f"largest: {shorten(worst.largest, 2)} steps at {worst.name}; the last layer's mean: {mean}")
