"""The same bits everywhere: hashes of every layer of fifteen networks, held against those of `tests/bits.json`.

`python tools/bits.py` runs the three embedded models and twelve random networks (V1, V2 and DeepLab, in floats,
rounded as in training for quantisation, and in integers) compiled and by the NumPy definitions. It ends with exit code
1 where a bit is another one than the file says: by another processor, another library, or a change of the code.
`--write` makes the file anew, which is right only where a definition has changed.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import minimobile as mm
from minimobile.execution.runner import RunOptions
from minimobile.models.classes import MobileNetModel
from minimobile.operations.fake_quantization import FakeQuantization, needed_ranges
from minimobile.quantized.runner import QuantizedRunner

FILE = Path(__file__).resolve().parent.parent / "tests" / "bits.json"
RUNS: Mapping[str, Mapping[str, Any]] = {
    "compiled": {},
    "compiled, one thread": {"num_threads": 1},
    "reference": {"engine": "reference"},
}
Hashes = dict[str, str]


@dataclasses.dataclass(frozen=True)
class Case:
    """One network: its class, the fields of its config, the size of its picture, and how its weights are to be read."""

    kind: str
    fields: Mapping[str, Any]
    size: tuple[int, int]
    batch: int = 1
    is_rounded: bool = False
    is_quantized: bool = False


CASES: Mapping[str, Case] = {
    "v1_0.25_96": Case("MobileNetV1ForImageClassification", {"depth_multiplier": 0.25}, (96, 96)),
    "v1_0.5_stride_8_65": Case("MobileNetV1Model", {"depth_multiplier": 0.5, "output_stride": 8}, (65, 49)),
    "v1_0.75_relu_batch_3": Case(
        "MobileNetV1ForImageClassification", {"depth_multiplier": 0.75, "hidden_act": "relu"}, (64, 64), 3
    ),
    "v1_0.3_torch_padding": Case(
        "MobileNetV1ForImageClassification",
        {"depth_multiplier": 0.3, "tf_padding": False, "pool_size": 2, "hidden_act": "hardswish"},
        (97, 80),
    ),
    "v2_0.35_96": Case("MobileNetV2ForImageClassification", {"depth_multiplier": 0.35}, (96, 96)),
    "v2_1.0_64_batch_2": Case("MobileNetV2ForImageClassification", {}, (64, 64), 2),
    "v2_0.5_stride_16_67": Case("MobileNetV2Model", {"depth_multiplier": 0.5, "output_stride": 16}, (67, 51)),
    "v2_0.35_torch_padding": Case(
        "MobileNetV2ForImageClassification",
        {"depth_multiplier": 0.35, "tf_padding": False, "hidden_act": "silu"},
        (65, 96),
    ),
    "deeplab_0.35_65": Case(
        "MobileNetV2ForSemanticSegmentation", {"depth_multiplier": 0.35, "output_stride": 8, "num_labels": 21}, (65, 65)
    ),
    "v1_0.25_rounded": Case(
        "MobileNetV1ForImageClassification", {"depth_multiplier": 0.25}, (64, 64), 2, is_rounded=True
    ),
    "v1_0.25_integers": Case(
        "MobileNetV1ForImageClassification", {"depth_multiplier": 0.25, "image_size": 64}, (64, 64), 2,
        is_rounded=True, is_quantized=True,
    ),
    "v2_0.35_integers": Case(
        "MobileNetV2ForImageClassification", {"depth_multiplier": 0.35, "image_size": 65}, (65, 65),
        is_rounded=True, is_quantized=True,
    ),
}  # fmt: skip
DEMOS: Mapping[str, tuple[int, int]] = {"demo:digits": (64, 64), "demo:scenes": (65, 65), "demo:boxes": (65, 65)}
PROCESSOR = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5], "rescale_factor": 1 / 255}


def make_models(name: str, runs: Sequence[str] = tuple(RUNS)) -> dict[str, MobileNetModel]:
    """Return a network of `CASES` or `DEMOS` in some of the ways of `RUNS`."""
    if name in DEMOS:
        return {run: mm.load(name, **RUNS[run]) for run in runs}
    case = CASES[name]
    model_class = getattr(mm, case.kind)
    config = model_class.config_class(**case.fields)
    checkpoint = model_class(config).to_checkpoint()
    random = np.random.default_rng(7)
    checkpoint = dataclasses.replace(
        checkpoint,
        weights={key: _draw(key, values.shape, random) for key, values in checkpoint.weights.items()},
        processor=PROCESSOR,
    )
    if case.is_rounded:
        keys = needed_ranges(model_class(config).graph)
        ranges = {key: _draw_range(key, checkpoint.weights) for key in keys}
        checkpoint = dataclasses.replace(checkpoint, ranges=ranges)
    return {
        run: model_class.from_checkpoint(checkpoint, options=RunOptions(quantized=case.is_quantized, **RUNS[run]))
        for run in runs
    }


def draw_pixels(name: str) -> NDArray[np.float32]:
    """Return the pixel values (N, 3, H, W) of a network: multiples of 1/128, or what bytes stand for."""
    case = CASES.get(name)
    batch, size = (1, DEMOS[name]) if case is None else (case.batch, case.size)
    steps = np.random.default_rng(11).integers(0, 256, (batch, 3, *size))
    if case is not None and case.is_quantized:
        return (steps / 127.5 - 1).astype(np.float32)
    return ((steps - 128) / 128).astype(np.float32)


def hash_layers(model: MobileNetModel, pixels: NDArray[np.float32], fuses: bool = True) -> Hashes:
    """Return a hash of every layer's bits, and of the outputs where nothing else is asked for, by name.

    What fuses layers where nobody looks in between is run a second time for the latter.
    """
    found = model.features(pixels, _find_layers(model))
    outputs = list(model.graph.outputs)
    alone = model.features(pixels, outputs) if fuses else {name: found[name] for name in outputs}
    found |= {f"outputs: {name}": values for name, values in alone.items()}
    return {str(name): hashlib.sha256(np.ascontiguousarray(y).tobytes()).hexdigest()[:16] for name, y in found.items()}


def compare(name: str, expected: Hashes, runs: Sequence[str] = tuple(RUNS)) -> Iterator[str]:
    """Yield one sentence for each way of running a network in which a layer has other bits; the first is named."""
    pixels = draw_pixels(name)
    for run, model in make_models(name, runs).items():
        found = hash_layers(model, pixels, fuses=run != "reference")
        others = [layer for layer in expected.keys() | found.keys() if expected.get(layer) != found.get(layer)]
        if others:
            first = next((layer for layer in found if layer in others), others[0])
            yield f"{name}, {run}: {len(others)} of {len(expected)} layers have other bits, first {first}"


def read_expected() -> dict[str, Hashes]:
    """Return {network: {layer: hash}} as the file has it."""
    expected: dict[str, Hashes] = json.loads(FILE.read_text(encoding="utf-8"))
    return expected


def _find_layers(model: MobileNetModel) -> list[str]:
    """Return the layers that can be asked for: a network in integers has none between a convolution and its clamp."""
    names, runner = [node.name for node in model.graph.nodes], model.runner
    return [name for name in names if name in runner.endpoints] if isinstance(runner, QuantizedRunner) else names


def _draw(name: str, shape: tuple[int, ...], random: np.random.Generator) -> NDArray[np.float32]:
    """Draw weights with which values neither die out nor all reach 6; uniform numbers alone, which no libm rounds."""
    role = name.rpartition(".")[2]
    if role == "running_var" or (role == "weight" and len(shape) == 1):
        return random.uniform(0.5, 1.5, shape).astype(np.float32)
    scale = np.sqrt(6 / np.prod(shape[1:])) if len(shape) > 1 else 0.5
    return random.uniform(-scale, scale, shape).astype(np.float32)


def _draw_range(key: str, weights: Mapping[str, NDArray[Any]]) -> FakeQuantization:
    if key in weights:
        largest = float(np.abs(weights[key]).max())
        return FakeQuantization(-largest, largest, 8, narrow_range=True)
    return FakeQuantization(-6.0, 6.0) if key.endswith(("reduce_1x1", "add", "classifier")) else FakeQuantization(0, 6)


def main() -> int:
    """Compare, or write the file, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="make the file anew")
    parser.add_argument("--run", choices=RUNS, action="append", help="only in this way; may be repeated")
    write: Callable[[str], int] = sys.stdout.write
    options = parser.parse_args()
    if options.write:
        made = {name: hash_layers(make_models(name)["reference"], draw_pixels(name)) for name in (*DEMOS, *CASES)}
        FILE.write_text(json.dumps(made, indent=0) + "\n", encoding="utf-8")
    expected, runs = read_expected(), options.run or tuple(RUNS)
    faults = [fault for name, hashes in expected.items() for fault in compare(name, hashes, runs)]
    for fault in faults:
        write(fault + "\n")
    count = sum(map(len, expected.values()))
    write(f"bits: {len(expected)} networks, {len(runs)} ways to run each, {count} hashes, {len(faults)} faults\n")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
