"""Time minimobile beside other runtimes: `python tools/bench.py [--cases ...] [--against ...] [--threads ...]`.

Needs the extra `bench`. The ratio is our minimum over the fastest rival's of the same run: below 1 we are faster.
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
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import minimobile as mm
from minimobile.bulk.rates import compare_rates
from minimobile.comparison.bench import (
    QUANTIZED_RIVALS,
    RIVALS,
    Timing,
    compare,
    compare_quantized,
    time_steps,
)
from minimobile.comparison.memory import MEASURED, measure_memory
from minimobile.comparison.photograph import PhotographTimes, compare_photographs
from minimobile.comparison.sized_network import Shape
from minimobile.execution.detection import PostProcessor, convert_scores
from minimobile.imaging.folders import list_pictures
from minimobile.models.classes import MobileNetModel
from minimobile.networks.graph import Graph
from minimobile.networks.ssd_config import MobileNetSSDConfig
from minimobile_kernels import entries
from minimobile_kernels.detection_rules import pack_rules, work_sizes


def v1(width: float) -> MobileNetModel:
    """Return the V1 classifier with 1001 classes."""
    return mm.MobileNetV1ForImageClassification(mm.MobileNetV1Config(depth_multiplier=width, num_labels=1001))


def v2(width: float) -> MobileNetModel:
    """Return the V2 classifier with 1001 classes."""
    return mm.MobileNetV2ForImageClassification(mm.MobileNetV2Config(depth_multiplier=width, num_labels=1001))


def segmentation() -> MobileNetModel:
    """Return DeepLabV3+ on V2 1.0 at output stride 16 with 21 classes."""
    return mm.MobileNetV2ForSemanticSegmentation(mm.MobileNetV2Config(num_labels=21, output_stride=16))


def detector() -> MobileNetModel:
    """Return SSDLite on V2 1.0 with COCO's 90 classes; its predictors' twelve maps are computed."""
    return mm.MobileNetV2ForObjectDetection(mm.MobileNetV2Config(num_labels=90))


CASES: dict[str, tuple[MobileNetModel, Shape]] = {
    "V1 1.0 224": (v1(1.0), (1, 3, 224, 224)),
    "V2 1.0 224": (v2(1.0), (1, 3, 224, 224)),
    "V1 0.25 128": (v1(0.25), (1, 3, 128, 128)),
    "V2 0.35 128": (v2(0.35), (1, 3, 128, 128)),
    "V2 1.0 224 batch 8": (v2(1.0), (8, 3, 224, 224)),
    "DeepLab V2 1.0 513": (segmentation(), (1, 3, 513, 513)),
    "SSDLite V2 1.0 300": (detector(), (1, 3, 300, 300)),
}


def random_weights(graph: Graph) -> dict[str, np.ndarray]:
    """Return weights that keep a deep network's values in range; speed does not depend on them."""
    rng = np.random.default_rng(0)
    weights = {}
    for name, shape in graph.shapes.items():
        if name.endswith("running_var"):
            values = rng.uniform(0.5, 2.0, shape)
        elif len(shape) > 1:
            values = rng.standard_normal(shape) * math.sqrt(2 / math.prod(shape[1:]))
        else:
            values = rng.standard_normal(shape) * 0.3 + name.endswith("normalization.weight")
        weights[name] = values.astype(np.float32)
    return weights


def best_rival(timings: list[Timing]) -> float:
    """Return the smallest minimum among the float32 rivals."""
    return min(timing.minimum for timing in timings[1:] if not timing.name.endswith("bf16"))


def table(results: dict[tuple[str, int], list[Timing]]) -> str:
    """Return a Markdown table: milliseconds (minimum) of everyone, and our ratio to the fastest float32 rival."""
    names = [timing.name for timing in next(iter(results.values()))]
    lines = ["| network | threads | " + " | ".join(names) + " | ratio |", "|---" * (len(names) + 3) + "|"]
    ratios = []
    for (case, threads), timings in results.items():
        ratios.append(timings[0].minimum / best_rival(timings))
        times = " | ".join(f"{timing.minimum:.2f}" for timing in timings)
        lines.append(f"| {case} | {threads} | {times} | {ratios[-1]:.2f} |")
    mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
    return "\n".join(lines) + f"\n\nGeometric mean of the ratios: {mean:.2f}"


PROCESSOR = {"image_processor_type": "MobileNetV2ImageProcessor", "size": {"shortest_edge": 256}}
CLASSIFY = "import sys, minimobile; minimobile.classify(sys.argv[1], sys.argv[2])"


def time_starts(runs: int) -> dict[str, list[float]]:
    """Return the seconds of whole processes: those that find no machine code, twice, and later ones, `runs` times.

    What is classified is a photograph of 375 x 500 by V2 1.0 224, a directory as transformers writes it.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model, photo, overlay = folder / "model", folder / "photo.jpg", folder / "overlay.png"
        CASES["V2 1.0 224"][0].save_pretrained(model)
        (model / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
        pixels = np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8)
        Image.fromarray(pixels).resize((500, 375)).save(photo)
        python, command = [sys.executable, "-c"], [sys.executable, "-m", "minimobile"]
        classify = [*python, CLASSIFY, str(photo), str(model)]
        later = {
            "classify in Python": classify,
            "minimobile classify": [*command, "classify", str(photo), "--model", str(model)],
            "minimobile demo": [*command, "demo", "--out", str(overlay), "--force"],
            "minimobile --help": [*command, "--help"],
            "import numpy": [*python, "import numpy"],
        }
        seconds: dict[str, list[float]] = {}
        for title in ("classify in Python", "minimobile demo"):
            empty = [folder / f"{title} {run}" for run in range(2)]
            seconds[f"first run ever: {title}"] = [_time_process(later[title], kernels) for kernels in empty]
        for words in later.values():
            _time_process(words, empty[-1])  # Python keeps its bytecode
        for _ in range(runs):
            for title, words in later.items():
                seconds.setdefault(title, []).append(_time_process(words, empty[-1]))
    return seconds


def _time_process(command: list[str], kernels: Path) -> float:
    """Return the seconds of a process that keeps machine code in `kernels`, and bytecode as Python does by default."""
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(kernels)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, env=environment)
    return time.perf_counter() - start


def starts_table(seconds: dict[str, list[float]]) -> str:
    """Return a Markdown table: seconds of whole processes, minimum and median."""
    rows = [f"| {title} | {min(found):.2f} | {statistics.median(found):.2f} |" for title, found in seconds.items()]
    return "\n".join(["| process | minimum | median |", "|---|---|---|", *rows])


def quantized_table(results: dict[tuple[str, int], list[Timing]]) -> str:
    """Return a Markdown table of quantised files: milliseconds (minimum), and our ratios to LiteRT and the fastest."""
    names = ("minimobile", *QUANTIZED_RIVALS, "minimobile float32")
    heads = ["file", "threads", *names, "of LiteRT", "of the fastest"]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    ratios = []
    for (case, threads), timings in results.items():
        times = {timing.name: timing.minimum for timing in timings}
        ours, litert = times["minimobile"], times["litert"]
        ratios.append(ours / litert)
        fastest = min(times[name] for name in QUANTIZED_RIVALS if name in times)
        cells = " | ".join(f"{times[name]:.3f}" if name in times else "" for name in names)
        lines.append(f"| {case} | {threads} | {cells} | {ratios[-1]:.2f} | {ours / fastest:.2f} |")
    mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
    return "\n".join(lines) + f"\n\nGeometric mean of the ratios to LiteRT: {mean:.2f}"


def pipeline_rates(
    models: list[str], folder: Path, against: list[str], threads: int, task: str
) -> dict[str, dict[str, float]]:
    """Return pictures a second by model and runtime, from the JPEGs of a folder to rows; others only classify."""
    against = against if task == "classify" else []
    pictures = sorted(path for path in folder.iterdir() if path.suffix.lower() in (".jpg", ".jpeg"))
    return {Path(model).name: compare_rates(model, pictures, against, threads, task=task) for model in models}


def pipeline_table(rates: dict[str, dict[str, float]]) -> str:
    """Return a Markdown table: pictures a second, and ours over the fastest of the others."""
    names = list(next(iter(rates.values())))
    lines = ["| model | " + " | ".join(names) + " | ratio |", "|---" * (len(names) + 2) + "|"]
    for model, (ours, *others) in ((model, row.values()) for model, row in rates.items()):
        found = " | ".join(f"{rate:.0f}" for rate in (ours, *others))
        ratio = f"{ours / max(others):.2f}" if others else ""
        lines.append(f"| {model} | {found} | {ratio} |")
    return "\n".join(lines)


def draw_predictions(count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return box encodings, scores of 90 classes and a background, and anchors, at random."""
    rng = np.random.default_rng(count)
    anchors = np.concatenate([rng.uniform(0, 1, (count, 2)), rng.uniform(0.05, 0.5, (count, 2))], 1)
    logits = (2 * rng.standard_normal((count, 91)) - 5).astype(np.float32)
    encodings = rng.standard_normal((count, 4)).astype(np.float32)
    return encodings, convert_scores(logits, "sigmoid"), anchors.astype(np.float32)


def find_predictions(source: str, folder: Path) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Return the same of a detector for each picture of a folder; it has to have 90 classes."""
    model, found = mm.load(source), {}
    for path in sorted(path for path in folder.iterdir() if path.suffix.lower() in (".jpg", ".jpeg", ".png", ".bmp")):
        with Image.open(path) as photo:
            pixels = model.processor(photo.convert("RGB"), return_tensors="np")["pixel_values"]
        out = model(pixels)
        scores = convert_scores(out.logits[0], model.config.ssd.score_converter)
        found[path.name] = out.box_encodings[0], scores, model.anchors(*pixels.shape[2:])
    return found


def time_detections(encodings: np.ndarray, scores: np.ndarray, anchors: np.ndarray) -> dict[str, float]:
    """Return the milliseconds (minimum of 200) of decoding, sorting and suppression together, by the rules."""
    found = {}
    for name, ssd in {
        "fast": MobileNetSSDConfig(),
        "class by class": MobileNetSSDConfig(use_regular_nms=True),
        "TensorFlow's": MobileNetSSDConfig(post_processing="tensorflow"),
    }.items():
        rules = PostProcessor(ssd, 90, anchors).rules._replace(label_offset=scores.shape[1] - 90)
        shape, size = work_sizes(len(anchors), 90)
        out, count = np.zeros((ssd.max_detections, 6), np.float32), np.zeros(2, np.int64)
        call = entries.detect.bind(
            encodings, scores.reshape(-1), anchors, pack_rules(rules, ssd.box_scales), np.empty(shape, np.float32),
            np.empty(size, np.int64), out, count,
        )  # fmt: skip
        times = []
        for _ in range(200):
            start = time.perf_counter()
            call()
            times.append(time.perf_counter() - start)
        found[name] = 1e3 * min(times)
    return found


def detections_table(source: str, folder: str | None) -> dict[str, dict[str, float]]:
    """Return milliseconds by what is detected and by the rules."""
    if source:
        cases = find_predictions(source, Path(folder or "."))
    else:
        cases = {f"{count} anchors, random": draw_predictions(count) for count in (1917, 5118)}
    return {name: time_detections(*case) for name, case in cases.items()}


def photograph_table(results: dict[tuple[str, int], PhotographTimes]) -> str:
    """Return a Markdown table: means over photographs of milliseconds, our ratios to the fastest, what ours are of."""
    names = list(dict.fromkeys(name for found in results.values() for name in found.whole))
    heads = ["model", "threads", *names, "ratio", "median", "decoding", "network", "rest"]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for (model, threads), found in results.items():
        means = found.means
        times = " | ".join(f"{means[name]:.2f}" if name in means else "" for name in names)
        parts = (found.ratio, found.median_ratio, *map(statistics.fmean, (found.decoding, found.network)), found.rest)
        lines.append(f"| {model} | {threads} | {times} | " + " | ".join(f"{part:.2f}" for part in parts) + " |")
    return "\n".join(lines)


def memory_table(cases: list[str], against: list[str]) -> dict[str, dict[str, float]]:
    """Return the peak memory in MiB of a process by network and runtime."""
    rivals = [name for name in against if name in MEASURED]
    return {case: measure_memory(*CASES[case], rivals) for case in cases}


def main() -> int:
    """Run the comparison and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES), metavar="CASE", help="; ".join(CASES))
    parser.add_argument("--against", nargs="+", choices=RIVALS, default=["onnxruntime", "openvino", "torch"])
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--seconds", type=float, default=4.0, help="per case and number of threads")
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
    options = parser.parse_args()
    if options.start:
        seconds = time_starts(11)
        print(json.dumps(seconds) if options.json else starts_table(seconds))
        return 0
    if options.quantized:
        found = {
            (Path(path).stem, threads): compare_quantized(path, QUANTIZED_RIVALS, threads, options.seconds)
            for path in options.quantized
            for threads in options.threads
        }
        print(json.dumps(_rows(found), indent=1) if options.json else quantized_table(found))
        return 0
    if options.pipeline:
        folder = Path(options.pictures or ".")
        rates = pipeline_rates(options.pipeline, folder, options.against, max(options.threads), options.task)
        print(json.dumps(rates) if options.json else pipeline_table(rates))
        return 0
    if options.detections is not None:
        rows = detections_table(options.detections, options.pictures)
        print(json.dumps(rows) if options.json else "\n".join(
            f"{name}: " + ", ".join(f"{rules} {each:.3f} ms" for rules, each in row.items())
            for name, row in rows.items()
        ))  # fmt: skip
        return 0
    if options.photograph:
        named = Path(options.pictures or ".")
        pictures = list_pictures(named) if named.is_dir() else [named]
        if not options.pictures or not pictures:
            parser.error("--photograph needs --pictures FILE or a FOLDER of pictures")
        photographs = {
            (Path(model).name, threads): compare_photographs(model, pictures, options.against, threads, options.seconds)
            for model in options.photograph
            for threads in options.threads
        }
        rows_of = [
            {"model": model, "threads": threads, **found._asdict()} for (model, threads), found in photographs.items()
        ]
        print(json.dumps(rows_of) if options.json else photograph_table(photographs))
        return 0
    if options.memory:
        peaks = memory_table(options.cases, options.against)
        print(
            json.dumps(peaks)
            if options.json
            else "\n".join(
                f"{case}: " + ", ".join(f"{name} {peak:.0f} MiB" for name, peak in row.items())
                for case, row in peaks.items()
            )
        )
        return 0
    if options.layers:
        threads = max(options.threads)
        rows = {case: time_steps(*_case(case), num_threads=threads) for case in options.cases}
        if options.json:
            json.dump(rows, sys.stdout, indent=1)
            return 0
        for case, steps in rows.items():
            print(f"{case}: {sum(step['microseconds'] for step in steps) / 1e3:.2f} ms")
            for step in steps:
                shared = f"  {threads} threads x {step['speedup']:.2f}, {step['parts']} parts" if threads > 1 else ""
                print(f"  {step['name']:34} {step['kernel']:34} {step['output']!s:22} {step['microseconds']:8.1f} us "
                      f"{step['gflops']:6.1f} GFLOP/s {step['share']:4.0%}{shared}")  # fmt: skip
        return 0
    results = {
        (case, threads): compare(*_case(case), options.against, threads, options.seconds)
        for case in options.cases
        for threads in options.threads
    }
    if options.json:
        json.dump(_rows(results), sys.stdout, indent=1)
    else:
        print(table(results))
    return 0


def _rows(results: dict[tuple[str, int], list[Timing]]) -> list[dict[str, Any]]:
    return [
        {"case": case, **dataclasses.asdict(timing)} for (case, _), timings in results.items() for timing in timings
    ]


def _case(name: str) -> tuple[Graph, dict[str, np.ndarray], Shape]:
    model, shape = CASES[name]
    return model.graph, random_weights(model.graph), shape


if __name__ == "__main__":
    try:
        sys.exit(main())
    except mm.MinimobileError as error:
        sys.exit(f"error: {error}")
