"""All tables of docs/speed.md in one command: `python -m tools.speed [FILE.tflite...] --out MACHINE.json`.

Needs the extra `bench`. Times the float networks of `bench_cases`, the quantised networks of `NETWORKS`, which it makes
itself, and the files that are named, on one thread and on two, and prints the tables; `--out` keeps the figures. Then
come the tables of the other tools, one after the other (`--only-networks` leaves them out), that of photographs where
`--photograph MODEL... --pictures FOLDER` names what to classify.
`python -m tools.speed --beside MACHINE.json MACHINE.json...` prints the tables of several machines side by side.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import minimobile as mm
from minimobile.comparison.bench import QUANTIZED_RIVALS, Timing, compare, compare_quantized, measure_peak
from minimobile.costs.profile import profile
from tools.bench_cases import CASES, random_weights, v1, v2

FLOAT_RIVALS = ("onnxruntime", "openvino", "litert", "torch")
ONE_BY_ONE, IN_MEMORY = ("V1 0.25 128", "V2 0.35 224"), ("V1 1.0 224", "V2 1.0 224")
AS_FRAMES = ("V1 0.25 128", "V2 0.35 128", *IN_MEMORY)
PER_FMA = 4  # multiply-adds of bytes in the time of one of float32, where the processor multiplies four bytes at once
Row = dict[str, Any]


class Network(NamedTuple):
    """A classifier to quantise: its class, width and picture size, and whether its weights have a scale per channel."""

    model: Callable[[float], mm.MobileNetV1Model]
    width: float
    size: int
    per_channel: bool = True


NETWORKS = {
    "V1 1.0 224, int8": Network(v1, 1.0, 224),
    "V2 1.0 224, int8": Network(v2, 1.0, 224),
    "V1 0.5 224, int8": Network(v1, 0.5, 224),
    "V1 0.25 224, int8": Network(v1, 0.25, 224),
    "V1 0.25 96, int8": Network(v1, 0.25, 96),
    "V2 0.35 224, int8": Network(v2, 0.35, 224),
    "V2 0.35 128, int8": Network(v2, 0.35, 128),
    "V1 0.75 192, uint8": Network(v1, 0.75, 192, False),
    "V2 1.0 224, uint8": Network(v2, 1.0, 224, False),
}


def quantize(network: Network, path: Path) -> None:
    """Write a quantised classifier with random weights, the ranges of which are those of random pictures."""
    random = network.model(network.width)
    config = dataclasses.replace(random.config, image_size=network.size)
    checkpoint = type(random)(config, seed=0).to_checkpoint()
    weights = random_weights(random.graph)
    model = type(random).from_checkpoint(dataclasses.replace(checkpoint, weights=weights))
    pictures = np.random.default_rng(0).uniform(-1, 1, (2, 3, network.size, network.size)).astype(np.float32)
    made = mm.quantize(model, pictures, per_channel=network.per_channel, ranges="min_max", correct_bias=False)
    made.save(path)


def time_floats(threads: Sequence[int], seconds: float) -> list[Row]:
    """Return a row per float network and number of threads."""
    rows = []
    for case, (model, shape) in CASES.items():
        work = profile(model.graph, shape[2:]).multiply_adds * shape[0]
        weights = random_weights(model.graph)
        for count in threads:
            timings = compare(model.graph, weights, shape, FLOAT_RIVALS, count, seconds)
            rows.append(_row(case, count, work, timings))
    return rows


def time_integers(files: Sequence[str], threads: Sequence[int], seconds: float) -> list[Row]:
    """Return a row per quantised network, or file, and number of threads."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        made = {name: Path(folder, f"{name}.tflite") for name in NETWORKS}
        for name, path in made.items():
            quantize(NETWORKS[name], path)
        for name, path in (made | {Path(path).stem: Path(path) for path in files}).items():
            model = mm.load(path)
            work = profile(model.graph, model.quantized_input.shape[1:3]).multiply_adds
            for count in threads:
                rows.append(_row(name, count, work, compare_quantized(path, QUANTIZED_RIVALS, count, seconds)))
    return rows


def _row(case: str, threads: int, work: int, timings: Sequence[Timing]) -> Row:
    times = {timing.name: timing.minimum for timing in timings}
    return {"case": case, "threads": threads, "multiply_adds": work, "milliseconds": times}


def tables(machine: dict[str, Any]) -> str:
    """Return the Markdown tables of one machine, with every rival, and what share of its peak each network reaches."""
    peak = machine["gflops"]
    text = f"{machine['name']}; one core's peak: {peak:.0f} GFLOP/s in float32\n\n"
    text += _table(machine["floats"], ("minimobile", *FLOAT_RIVALS), {"ratio": FLOAT_RIVALS}, peak, ".2f")
    ratios = {"of LiteRT": ("litert",), "of the fastest": QUANTIZED_RIVALS}
    names = ("minimobile", *QUANTIZED_RIVALS, "minimobile float32")
    return text + "\n" + _table(machine["integers"], names, ratios, PER_FMA * peak, ".3f")


def _table(rows: list[Row], names: Sequence[str], ratios: dict[str, Any], peak: float, digits: str) -> str:
    heads = ["network", "threads", *names, *ratios, "share of peak", "of one thread"]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    single = {row["case"]: row["milliseconds"]["minimobile"] for row in rows if row["threads"] == 1}
    for row in rows:
        times = row["milliseconds"]
        cells = [row["case"], str(row["threads"])]
        cells += [format(times[name], digits) if name in times else "" for name in names]
        cells += [f"{_ratio(row, against):.2f}" for against in ratios.values()]
        cells.append(f"{row['multiply_adds'] * 2e-6 / times['minimobile'] / peak / row['threads']:.0%}")
        cells.append(f"{single[row['case']] / times['minimobile']:.2f} x" if row["case"] in single else "")
        lines.append("| " + " | ".join(cells) + " |")
    for head, against in ratios.items():
        for count in sorted({row["threads"] for row in rows}):
            found = [_ratio(row, against) for row in rows if row["threads"] == count]
            mean = math.exp(sum(map(math.log, found)) / len(found))
            lines.append(f"\nGeometric mean, {head}, threads {count}: {mean:.2f}; largest {max(found):.2f}")
    return "\n".join(lines) + "\n"


def _ratio(row: Row, against: Sequence[str]) -> float:
    """Return our time over that of the fastest of some that ran it."""
    times = row["milliseconds"]
    return times["minimobile"] / min(times[name] for name in against if name in times)  # type: ignore[no-any-return]


def side_by_side(machines: Sequence[dict[str, Any]]) -> str:
    """Return a Markdown table of several machines: our milliseconds, those of the fastest rival, and the ratio."""
    heads = ["network", "threads", *(machine["name"] for machine in machines)]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for kind, rivals in (("floats", FLOAT_RIVALS), ("integers", QUANTIZED_RIVALS)):
        found = [{(row["case"], row["threads"]): row for row in machine[kind]} for machine in machines]
        for case, count in dict.fromkeys(key for rows in found for key in rows):
            cells = []
            for rows in found:
                row = rows.get((case, count))
                ours = row["milliseconds"]["minimobile"] if row else 0.0
                ratio = _ratio(row, rivals) if row else 1.0
                cells.append(f"{ours:.3g} / {ours / ratio:.3g} = {ratio:.2f}" if row else "")
            lines.append(f"| {case} | {count} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def other_tables(files: Sequence[str], models: Sequence[str], pictures: str | None) -> dict[str, list[str]]:
    """Return what to call with Python's -m, by title, for the tables that are no rows of networks beside others."""
    tables = {
        "Two threads beside one": ["tools.scaling", *files],
        "Calls that come one by one": ["tools.two_threads", "--gaps", "row", "sleep 5", "--networks", *ONE_BY_ONE],
        "Calls 20 ms apart": ["tools.bench", "--pause", "20", "--cases", *AS_FRAMES, "--against", *FLOAT_RIVALS[:3]],
        "Detections from predictions": ["tools.bench", "--detections"],
        "Peak memory, MiB": ["tools.bench", "--memory", "--cases", *IN_MEMORY, "--against", *FLOAT_RIVALS[:3]],
        "Whole processes, seconds": ["tools.bench", "--start"],
    }
    if files:
        tables["Calls 20 ms apart, quantised files"] = ["tools.bench", "--pause", "20", "--quantized", *files]
    if models and pictures:
        rivals = ["--against", *FLOAT_RIVALS]
        tables["From the photograph"] = ["tools.bench", "--photograph", *models, "--pictures", pictures, *rivals]
    return tables


def name_processor() -> str:
    """Return what the system calls the processor."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "this machine")


def main() -> int:
    """Measure and print, or print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", metavar="FILE.tflite", help="quantised files to time as well")
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--seconds", type=float, default=2.0, help="per network and number of threads")
    parser.add_argument("--name", default=name_processor(), help="of the machine, for the tables")
    parser.add_argument("--out", metavar="MACHINE.json", help="keep the figures")
    parser.add_argument("--only-networks", action="store_true", help="no tables of other tools")
    parser.add_argument("--photograph", nargs="+", default=(), metavar="MODEL", help="to classify photographs with")
    parser.add_argument("--pictures", metavar="FOLDER", help="of photographs")
    parser.add_argument("--beside", nargs="+", metavar="MACHINE.json", help="print kept figures side by side instead")
    options = parser.parse_args()
    if bool(options.photograph) != bool(options.pictures):
        parser.error("--photograph MODEL... and --pictures FOLDER go together")
    if options.beside:
        print(side_by_side([json.loads(Path(path).read_text()) for path in options.beside]))
        return 0
    machine = {
        "name": options.name,
        "gflops": measure_peak(),
        "floats": time_floats(options.threads, options.seconds),
        "integers": time_integers(options.files, options.threads, options.seconds),
    }
    if options.out:
        Path(options.out).write_text(json.dumps(machine, indent=1) + "\n")
    print(tables(machine), flush=True)
    others = {} if options.only_networks else other_tables(options.files, options.photograph, options.pictures)
    status = 0
    for title, words in others.items():
        print(f"\n{title}\n", flush=True)
        status |= subprocess.run([sys.executable, "-m", *words], check=False).returncode
    return int(status != 0)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except mm.MinimobileError as error:
        sys.exit(f"error: {error}")
