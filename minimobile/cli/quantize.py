"""`minimobile quantize`: from a model in floats to a TFLite file of integers."""

from __future__ import annotations

import dataclasses
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from minimobile.cli import console, targets
from minimobile.cli.options import Force, Format, OutputFormat, Source, path_argument, path_option

if TYPE_CHECKING:
    from minimobile.calibration.report import QuantizationReport

SUFFIXES = (".tflite", ".onnx")


class Ranges(StrEnum):
    """How the range of every map is chosen."""

    MIN_MAX = "min_max"
    MOVING_AVERAGE = "moving_average"
    SQUARED_ERROR = "squared_error"
    BATCH_NORM = "batch_norm"


class InputType(StrEnum):
    """The type of what goes in and comes out."""

    UINT8 = "uint8"
    INT8 = "int8"
    FLOAT32 = "float32"


def quantize(
    source: Source,
    destination: Annotated[
        Path,
        path_argument(
            metavar="OUT.tflite", help="The file to write, or OUT.onnx. Its folder must exist.", show_default=False
        ),
    ],
    calibrate: Annotated[
        list[Path] | None,
        path_option(
            "--calibrate",
            metavar="PICTURE",
            help="A picture like those that the model will see, or a folder with all below it; may be given again. "
            "Without any, batch norm's statistics tell what to expect.",
            show_default=False,
        ),
    ] = None,
    per_tensor: Annotated[
        bool, typer.Option("--per-tensor", help="uint8 with one scale for all channels, for old accelerators.")
    ] = False,
    ranges: Annotated[
        Ranges | None,
        typer.Option(help="How ranges are chosen. Default: squared_error, or batch_norm without pictures."),
    ] = None,
    equalize: Annotated[
        bool | None,
        typer.Option(
            "--equalize/--no-equalize", help="Make channels alike first. Default: with --per-tensor, if it helps."
        ),
    ] = None,
    bias_correction: Annotated[
        bool, typer.Option(help="Take off the biases by how much rounding the weights moves each layer's mean.")
    ] = True,
    input_type: Annotated[InputType, typer.Option(help="The type of input and output.")] = InputType.UINT8,
    report: Annotated[bool, typer.Option("--report", help="Show what each step gained, layer by layer.")] = False,
    picture: Annotated[
        Path | None,
        path_option(
            "--picture", metavar="FILE.png", help="Draw the report. Its folder must exist.", show_default=False
        ),
    ] = None,
    force: Force = False,
    output_format: OutputFormat = Format.TABLE,
) -> None:
    """Turn a model's floats into integers, in a TFLite file.

    Every runtime of TFLite takes it. Scales come from pictures (fifty to a few hundred photographs) or from batch
    norm's statistics. Pictures that cannot be read are reported and left out. The same pictures give the same bytes on
    every machine.
    """
    from minimobile.calibration.method import Method
    from minimobile.calibration.quantize import quantize_by
    from minimobile.calibration.report import make_report
    from minimobile.storage.files import check_apart, user_path

    targets.check_target("OUT.tflite", destination, SUFFIXES, force)
    check_apart(user_path(source, "source"), destination)
    if picture is not None:
        targets.check_target("--picture", picture, targets.PICTURE_SUFFIXES, force)
    method = Method(
        per_channel=not per_tensor,
        ranges=None if ranges is None else ranges.value,
        equalize=equalize,
        correct_bias=bias_correction,
        input_type=input_type.value,
    )

    def track(items: Any) -> Any:
        return console.track(items, "calibrating")

    result = quantize_by(source, list(calibrate) if calibrate else None, method, track=track)
    found = make_report(result) if report or picture else None
    result.model.save(destination)
    if picture is not None and found is not None:
        from minimobile.calibration.chart import draw_report
        from minimobile.imaging.drawing import encode_png
        from minimobile.storage.files import write_whole_bytes

        write_whole_bytes(picture, encode_png(draw_report(found)))
    for sentence in result.pictures.skipped if result.pictures else ():
        console.report_error(sentence)
    for note in result.rounded.notes:
        console.note(f"note: {note}")
    if found is not None and report and output_format is Format.TABLE:
        _write_table(found)
    if output_format is Format.JSON:
        console.write_json(_to_json(source, destination, result, found))
    else:
        console.write_facts(_tell(source, destination, result))
    if result.pictures and result.pictures.skipped:
        raise typer.Exit(1)


def _to_json(source: str, destination: Path, result: Any, report: QuantizationReport | None) -> dict[str, Any]:
    """Return what was done; the layers, which take a run for each step of the method, where a report was asked for."""
    facts = {"source": source, "destination": str(destination), "bytes": destination.stat().st_size}
    if report is not None:
        return {**facts, **report.to_dict()}
    return {
        **facts,
        "method": dataclasses.asdict(result.method),
        "ranges": result.range_choice,
        "is_equalized": result.is_equalized,
        "pictures": result.used,
        "skipped": list(result.pictures.skipped) if result.pictures else [],
        "notes": list(result.rounded.notes),
    }


def _tell(source: str, destination: Path, result: Any) -> list[tuple[str, object]]:
    method = result.method
    scheme = "int8, a scale per output channel" if method.per_channel else "uint8, a scale per tensor"
    steps = [f"ranges by {result.range_choice}", *(["equalised"] if result.is_equalized else [])]
    steps += [f"{method.rounding} rounding", *(["bias correction"] if method.correct_bias else [])]
    seen = f"{result.used} pictures" if result.pictures else "no pictures, batch norm's statistics"
    return [
        ("read", source),
        ("scheme", f"{scheme}; {method.input_type} in and out"),
        ("calibrated", seen),
        ("method", ", ".join(steps)),
        ("wrote", f"{destination}, {destination.stat().st_size:,} bytes"),
    ]


def _write_table(report: QuantizationReport) -> None:
    steps = list(report.layers[-1].steps)
    columns = ["range", "step#", "weights#", *(f"{step}#" for step in steps)]
    columns += ["beyond#", "shift#"] if steps else []
    rows = []
    for layer in report.layers:
        row: list[object] = [layer.name, f"{layer.low:.2g} to {layer.high:.2g}", f"{layer.scale:.2g}"]
        row.append("" if layer.weights is None else f"{layer.weights:.1f}")
        row += [f"{ratio:.1f}" for ratio in layer.steps.values()]
        row += [] if layer.saturated is None else [f"{layer.saturated:.1%}", f"{layer.shift:+.3f}"]
        rows.append(row)
    title = "signal-to-noise ratio in decibels of weights, and of values in integers after each step of the method"
    console.write_layer_table(columns, rows, title if steps else "ranges and weights")
