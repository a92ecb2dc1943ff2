"""Time minimobile beside other runtimes: `python tools/bench.py [--cases ...] [--against ...] [--threads ...]`.

Needs the extra `bench`. The ratio is our minimum over the fastest rival's of the same run: below 1 we are faster. With
`--pause 20` calls come 20 ms apart, as a camera's pictures do, caches are cold, and times are medians.
`--quantized` times quantised TFLite files beside LiteRT, and the network in the integers of ONNX Runtime and OpenVINO;
`--layers` lists our own steps, and how much faster several threads do each; `--memory` measures the peak memory of a
process per runtime; `--start` times whole processes, first ones that compile the kernels and later ones; `--json`
prints one JSON document.
`--pipeline MODEL... --pictures FOLDER` counts pictures a second from JPEGs to rows, `--photograph MODEL... --pictures
FOLDER` times `classify` from a file's bytes to its labels: the mean over the pictures of a folder, or one file.
`--detections [MODEL --pictures FOLDER]` times what makes detections of a detector's predictions for COCO's 90 classes:
random ones, or a model's.
The tables of docs/scale.md are this tool's output, those of docs/speed.md that of `tools.speed`.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from minimobile.bulk.rates import compare_rates
from minimobile.comparison.bench import QUANTIZED_RIVALS, RIVALS, Timing, compare, compare_quantized, time_steps
from minimobile.comparison.memory import MEASURED, measure_memory
from minimobile.comparison.photograph import compare_photographs
from minimobile.errors import InputError, MinimobileError
from minimobile.imaging.folders import list_pictures
from tools import bench_tables as tables
from tools.bench_cases import CASES, weighted
from tools.bench_detections import time_all_detections
from tools.bench_starts import time_starts

STARTS = 11  # later processes, of which the median is told


class Report(NamedTuple):
    """What was measured: for programs, as JSON has it, and for people."""

    document: Any
    text: str


Options = argparse.Namespace


def main() -> int:
    """Measure what the options name, and print it."""
    options = read_options()
    measure = next((measure for name, measure in INSTEAD.items() if is_given(options, name)), measure_floats)
    report = measure(options)
    print(json.dumps(report.document, indent=1) if options.json else report.text)
    return 0


def read_options() -> Options:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES), metavar="CASE", help="; ".join(CASES))
    parser.add_argument("--against", nargs="+", choices=RIVALS, default=["onnxruntime", "openvino", "torch"])
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--seconds", type=float, default=4.0, help="per case and number of threads")
    parser.add_argument("--pause", type=float, default=0.0, metavar="MS", help="between calls; of --quantized, too")
    parser.add_argument("--layers", action="store_true", help="list our own steps instead")
    parser.add_argument("--start", action="store_true", help="seconds of whole processes, the first and later, instead")
    parser.add_argument("--quantized", nargs="+", metavar="FILE.tflite", help="time these files instead")
    parser.add_argument("--memory", action="store_true", help="peak memory of a process per runtime instead")
    parser.add_argument("--pipeline", nargs="+", metavar="MODEL", help="pictures a second from files instead")
    parser.add_argument("--detections", nargs="?", const="", metavar="MODEL", help="time what makes detections instead")
    parser.add_argument("--task", default="classify", help="of --pipeline")
    parser.add_argument("--photograph", nargs="+", metavar="MODEL", help="from files to their labels instead")
    parser.add_argument("--pictures", metavar="FOLDER", help="of --pipeline, --detections; or a file for --photograph")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def is_given(options: Options, name: str) -> bool:
    """Say whether an option is there, be it with an empty value."""
    return getattr(options, name) not in (None, False)


def measure_floats(options: Options) -> Report:
    """Time the float networks beside other runtimes."""
    found = {
        (case, threads): compare(*weighted(case), options.against, threads, options.seconds, options.pause)
        for case in options.cases
        for threads in options.threads
    }
    return Report(_rows(found), tables.float_table(found))


def measure_quantized(options: Options) -> Report:
    """Time quantised files beside other runtimes of integers."""
    found = {
        (Path(path).stem, threads): compare_quantized(path, QUANTIZED_RIVALS, threads, options.seconds, options.pause)
        for path in options.quantized
        for threads in options.threads
    }
    return Report(_rows(found), tables.quantized_table(found))


def measure_layers(options: Options) -> Report:
    """Time our own steps, one by one."""
    threads = max(options.threads)
    found = {case: time_steps(*weighted(case), num_threads=threads) for case in options.cases}
    return Report(found, tables.layer_lines(found, threads))


def measure_starts(options: Options) -> Report:
    """Time whole processes."""
    found = time_starts(STARTS)
    return Report(found, tables.starts_table(found))


def measure_peaks(options: Options) -> Report:
    """Measure the peak memory in MiB of a process by network and runtime."""
    rivals = [name for name in options.against if name in MEASURED]
    found = {case: measure_memory(*CASES[case], rivals) for case in options.cases}
    return Report(found, tables.lines_of(found, "{:.0f} MiB"))


def measure_pipeline(options: Options) -> Report:
    """Count pictures a second by model and runtime, from the JPEGs of a folder to rows; others only classify."""
    against = options.against if options.task == "classify" else []
    folder, threads = Path(options.pictures or "."), max(options.threads)
    pictures = sorted(path for path in folder.iterdir() if path.suffix.lower() in (".jpg", ".jpeg"))
    found = {
        Path(model).name: compare_rates(model, pictures, against, threads, task=options.task)
        for model in options.pipeline
    }
    return Report(found, tables.pipeline_table(found))


def measure_photograph(options: Options) -> Report:
    """Time `classify` from a file's bytes to its labels by model, runtime and part."""
    named = Path(options.pictures or ".")
    pictures = list_pictures(named) if named.is_dir() else [named]
    if not options.pictures or not pictures:
        raise InputError("--photograph: expected --pictures FILE or a FOLDER of pictures")
    found = {
        (Path(model).name, threads): compare_photographs(model, pictures, options.against, threads, options.seconds)
        for model in options.photograph
        for threads in options.threads
    }
    rows = [{"model": model, "threads": threads, **times._asdict()} for (model, threads), times in found.items()]
    return Report(rows, tables.photograph_table(found))


def measure_detections(options: Options) -> Report:
    """Time what makes detections of predictions, in milliseconds by what is detected and by the rules."""
    found = time_all_detections(options.detections, Path(options.pictures or "."))
    return Report(found, tables.lines_of(found, "{:.3f} ms"))


INSTEAD: Mapping[str, Callable[[Options], Report]] = {  # by the option that asks for it; the first that is given
    "start": measure_starts,
    "quantized": measure_quantized,
    "pipeline": measure_pipeline,
    "detections": measure_detections,
    "photograph": measure_photograph,
    "memory": measure_peaks,
    "layers": measure_layers,
}


def _rows(found: Mapping[tuple[str, int], list[Timing]]) -> list[dict[str, Any]]:
    return [{"case": case, **dataclasses.asdict(timing)} for (case, _), timings in found.items() for timing in timings]


if __name__ == "__main__":
    try:
        sys.exit(main())
    except MinimobileError as error:
        sys.exit(f"error: {error}")
