"""`minimobile bench`: how fast a network runs here, beside other runtimes if asked."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from minimobile.cli import console, targets
from minimobile.cli.options import Force, Format, OutputFormat, Source, path_option
from minimobile.errors import InputError

if TYPE_CHECKING:
    from minimobile.comparison.bench import Timing


def bench(
    source: Source,
    against: Annotated[
        str,
        typer.Option(
            metavar="NAME,NAME",
            help="onnxruntime, openvino, openvino-bf16, litert, torch, tensorflow: on the same network, in turn "
            "(extra `bench`).",
        ),
    ] = "",
    size: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=8192,
            metavar="PIXELS",
            help="Height and width of the picture. Default: the model's own.",
            show_default=False,
        ),
    ] = None,
    batch: Annotated[int, typer.Option(min=1, max=1024, help="Pictures per call.")] = 1,
    threads: Annotated[str, typer.Option(metavar="N,N", help="Numbers of threads to try.")] = "1,2",
    seconds: Annotated[float, typer.Option(min=0.0, max=3600.0, help="Time per number of threads.")] = 4.0,
    pause: Annotated[
        float,
        typer.Option(
            min=0.0, max=10_000.0, metavar="MS", help="Milliseconds between two calls, as between a camera's pictures."
        ),
    ] = 0.0,
    layers: Annotated[bool, typer.Option("--layers", help="Our own time per step, on one thread, instead.")] = False,
    memory: Annotated[
        bool, typer.Option("--memory", help="Peak memory of a process per runtime (not torch), instead.")
    ] = False,
    picture: Annotated[
        Path | None,
        path_option(
            "--picture",
            metavar="FILE.png",
            help="With --layers: draw each step's time beside its limit. Its folder must exist.",
            show_default=False,
        ),
    ] = None,
    force: Force = False,
    output_format: OutputFormat = Format.TABLE,
) -> None:
    """Time a network, beside other runtimes if asked.

    Times are milliseconds from array to array, minimum and median. The ratio is our minimum over the rival's of the
    same run, with --pause our median over the rival's: below 1 we are faster. With --layers: microseconds, GFLOP/s, and
    the share of what one core reaches in a tile whose operands are in its nearest cache. A quantised file is timed as
    it is, at its own size, beside its floats and, if asked, LiteRT, or ONNX Runtime and OpenVINO with the same network
    quantised for them.
    """
    from minimobile.cli.models import open_model
    from minimobile.comparison.bench import RIVALS, compare, compare_quantized, draw_steps, time_steps
    from minimobile.comparison.memory import measure_memory
    from minimobile.execution.threads import check_thread_count
    from minimobile.imaging.drawing import encode_png
    from minimobile.models.inspection import picture_size
    from minimobile.storage.files import write_whole_bytes

    if picture is not None:
        if not layers:
            raise typer.BadParameter(f"--picture {picture}: expected --layers, whose times it draws")
        targets.check_target("--picture", picture, targets.PICTURE_SUFFIXES, force)
    try:
        counts = [check_thread_count(count) for count in threads.split(",")]
    except InputError:
        raise typer.BadParameter(
            f"--threads {threads}: expected whole numbers from 1 to 1024 with commas between them"
        ) from None
    rivals = [name.strip() for name in against.split(",") if name.strip()]
    for name in rivals:
        if name not in RIVALS:
            raise typer.BadParameter(f"--against {name}: expected some of {', '.join(RIVALS)}")
    model = open_model(source)
    if model.is_quantized:
        if layers or memory or size or batch > 1:
            raise InputError(
                f"{source}: expected a network of floats for --layers, --memory, --size and --batch, got a quantised "
                "file; `minimobile convert` makes a float one of it"
            )
        timings = [timing for count in counts for timing in compare_quantized(source, rivals, count, seconds, pause)]
        _write(timings, f"{type(model).__name__} in integers, one picture", output_format)
        return
    settings = None if model.processor is None else model.processor.to_dict()
    height, width = (size, size) if size else picture_size(model.config, settings)
    shape = (batch, model.config.num_channels, height, width)
    at = f"{type(model).__name__} at {height}x{width}"
    if layers:
        steps = time_steps(model.graph, model.state_dict(), shape)
        title = f"{at}, one thread"
        if picture is not None:
            write_whole_bytes(picture, encode_png(draw_steps(steps, title)), overwrite=force)
        if output_format is Format.JSON:
            console.write_json({"steps": steps, **({"picture": str(picture)} if picture else {})})
        else:
            _write_steps(steps, title)
            if picture is not None:
                console.write_text(f"wrote {picture}")
        return
    if memory:
        _write_memory(measure_memory(model, shape, rivals), at, output_format)
        return
    timings = [
        timing
        for count in counts
        for timing in compare(model.graph, model.state_dict(), shape, rivals, count, seconds, pause)
    ]
    _write(timings, f"{at}, batch {batch}", output_format)


def _write(timings: list[Timing], title: str, output_format: Format) -> None:
    if output_format is Format.JSON:
        console.write_json({"timings": [dataclasses.asdict(timing) for timing in timings]})
        return
    ours = {timing.num_threads: timing.time for timing in timings if timing.name == "minimobile"}
    rows = [
        (
            timing.name,
            timing.num_threads,
            f"{timing.minimum:.3f}",
            f"{timing.median:.3f}",
            "" if timing.name == "minimobile" else f"{ours[timing.num_threads] / timing.time:.2f}",
        )
        for timing in timings
    ]
    console.write_table(("runtime", "threads#", "minimum ms#", "median ms#", "our ratio#"), rows, title)


def _write_memory(peaks: dict[str, float], title: str, output_format: Format) -> None:
    if output_format is Format.JSON:
        console.write_json({"peak_mebibytes": peaks})
    else:
        rows = [(name, f"{peak:.0f}") for name, peak in peaks.items()]
        console.write_table(("runtime", "peak MiB#"), rows, title)


def _write_steps(steps: list[dict[str, object]], title: str) -> None:
    rows = [
        (
            step["name"],
            step["kernel"],
            "x".join(map(str, step["output"])),  # type: ignore[call-overload]
            f"{step['microseconds']:.1f}",
            f"{step['gflops']:.1f}",
            f"{step['share']:.0%}",
        )
        for step in steps
    ]
    console.write_table(("step", "kernel", "output", "us#", "GFLOP/s#", "share#"), rows, title)
