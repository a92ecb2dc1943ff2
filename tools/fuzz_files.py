"""Damaged files for `fuzz.py`: for each format a sound file, and which ways of `fuzz_damage` are used on it.

The sound files are those of the tests, a V1 with a tenth of the channels; nothing is downloaded.
"""

from __future__ import annotations

import functools
import io
import struct
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import onnx_models
from bundles import write_bundle
from detection_files import write_detector
from flatbuffer_files import TFLiteWriter, write_layers
from graph_writer import tiny_v1
from keras_files import chain_config, v1_layers, write_archive, write_legacy
from quantized_files import write_quantized
from saved_models import write_saved_model
from slim import random_weights as slim_weights
from slim import slim_variables
from spelling import random_weights, spell
from tensorflow_js_files import graph_topology, write_model
from test_onnx_integers import write_integers
from test_pytorch import state, storage, tensor, zipped
from test_tflite_detection import DENSE, LITE
from test_torch_programs import entry as exported_entry
from test_torch_programs import exported, meta, module, norm, script

from minimobile.formats import hdf5, huggingface
from minimobile.formats.checkpoint import Checkpoint
from minimobile.networks.build_graph import build_graph
from minimobile.networks.config import MobileNetV1Config
from tools.fuzz_damage import (
    ODD,
    Random,
    damage_address,
    damage_array_address,
    damage_bytes,
    damage_graph,
    damage_json,
    damage_member,
    damage_protobuf,
    damage_safetensors,
    damage_tflite,
)

V1 = "MobileNetV1ForImageClassification"
Files = dict[str, bytes]
"""Name in the scratch folder -> content."""


class Subject(NamedTuple):
    """A format under test: which path is read, a maker of mutants, and whether other weights have to be noticed.

    `mutate` returns the damaged files and whether they may be a sound file of other weights: where the damage is to
    bytes under a checksum, or to an address, they may not. `more` are further sound files, read and run before
    the time counts: the kernels are compiled then.
    """

    path: str
    sound: Callable[[], Files]
    mutate: Callable[[Files, Random], tuple[Files, bool]]
    has_weights: bool = True
    more: Callable[[], Iterable[Files]] = tuple


def config() -> MobileNetV1Config:
    """Return the config of the network in all files."""
    return MobileNetV1Config(depth_multiplier=0.1, num_labels=3, image_size=32)


def checkpoint() -> Checkpoint:
    """Return the network with weights drawn at random."""
    return Checkpoint(config(), slim_weights(config(), V1), V1, {"do_resize": False}, {"format": "fuzz"})


def one_file(name: str, *ways: Callable[[bytes, Random], tuple[bytes, bool]]) -> Any:
    """Return a `mutate` that damages one file in one of the ways."""

    def mutate(files: Files, random: Random) -> tuple[Files, bool]:
        content, may_differ = ways[random.integers(len(ways))](files[name], random)
        return {**files, name: content}, may_differ

    return mutate


def by_bytes(may_differ: bool) -> Callable[[bytes, Random], tuple[bytes, bool]]:
    """Return the way that knows nothing of the format."""
    return lambda content, random: (damage_bytes(content, random), may_differ)


def written(write: Callable[[Path], object], *names: str) -> Callable[[], Files]:
    """Return a maker of files that writes them to a folder and reads them back."""

    def make() -> Files:
        with tempfile.TemporaryDirectory() as folder:
            write(Path(folder))
            return {name: (Path(folder) / name).read_bytes() for name in names}

    return make


def _layers(tail: tuple[str, ...] = ("reshape", "softmax")) -> Any:
    graph = build_graph(config(), V1)
    return spell(graph, random_weights(graph), folded=True, tail=tail)


_TFLITE: Mapping[str, Callable[[], TFLiteWriter]] = {
    "float": lambda: write_layers(_layers()),
    "uint8": lambda: write_quantized(_layers()),
    "int8": lambda: write_quantized(_layers(), dtype="int8"),
}
_DETECTORS: Mapping[str, Callable[[], TFLiteWriter]] = {
    "SSDLite in floats": lambda: write_detector(LITE)[0],
    "SSD in uint8": lambda: write_detector(DENSE, "uint8")[0],
    "SSD in int8": lambda: write_detector(DENSE, "int8")[0],
}


@functools.cache
def _writer(kind: str) -> TFLiteWriter:
    return {**_TFLITE, **_DETECTORS}[kind]()


def mutate_tflite(kinds: Iterable[str]) -> Callable[[Files, Random], tuple[Files, bool]]:
    """Return what changes a TFLite file of one of the kinds at the level of its objects, or by bytes."""
    choices = list(kinds)

    def mutate(files: Files, random: Random) -> tuple[Files, bool]:
        writer = _writer(choices[random.integers(len(choices))])
        if random.random() < 0.2:
            return {"net.tflite": damage_bytes(writer.write(), random)}, True
        try:
            return {"net.tflite": damage_tflite(writer, random).write()}, True
        except (OverflowError, struct.error, ValueError):  # what the writer cannot write is no file
            return {"net.tflite": damage_bytes(writer.write(), random)}, True

    return mutate


def write_torch(folder: Path) -> None:
    """Write a state dict as torch.save does."""
    weights = _weights()
    entries = {}
    for key, (name, values) in enumerate(weights.items()):
        entries[name] = tensor(storage(str(key), values.size), 0, values.shape, _strides(values))
    data = {str(key): values.tobytes() for key, values in enumerate(weights.values())}
    (folder / "net.bin").write_bytes(zipped(state(**entries), data))


def _weights() -> Mapping[str, Any]:
    return {name: np.asarray(values, "<f4") for name, values in checkpoint().weights.items()}


def write_script() -> bytes:
    """Return the network as torch.jit.save writes it: tensors as attributes of modules in modules."""
    data, tree = {}, {}
    for key, (name, values) in enumerate(_weights().items()):
        *path, last = name.split(".")
        branch = functools.reduce(lambda found, part: found.setdefault(part, {}), path, tree)
        branch[last] = tensor(storage(str(key), values.size), 0, values.shape, _strides(values))
        data[str(key)] = values.tobytes()
    return script(_write_modules(tree), data)


def _write_modules(branch: Mapping[str, Any]) -> bytes:
    return module(**{f"_{name}": entry if isinstance(entry, bytes) else _write_modules(entry)
                     for name, entry in branch.items()})  # fmt: skip


def write_exported() -> bytes:
    """Return the network as torch.export.save writes it: a table of tensors, and a program with batch norms."""
    weights = _weights()
    table = {
        name: exported_entry(f"weight_{key}", meta(7, list(values.shape), list(_strides(values))))
        for key, (name, values) in enumerate(weights.items())
    }
    data = {f"weight_{key}": values.tobytes() for key, values in enumerate(weights.values())}
    return exported(table, data, [norm(1e-3)])


def _strides(values: Any) -> tuple[int, ...]:
    return tuple(stride // 4 for stride in values.strides)


def _variables() -> Mapping[str, Any]:
    return slim_variables(slim_weights(config(), V1))


def mutate_checkpoint(files: Files, random: Random) -> tuple[Files, bool]:
    """Change what a TensorFlow checkpoint's index says, under right checksums, or any of its bytes."""
    if random.random() < 0.5:
        name = list(files)[random.integers(len(files))]
        return {**files, name: damage_bytes(files[name], random)}, False
    names = sorted(_variables())
    wrong = names[random.integers(len(names))]

    def change(name: str, entry: dict[int, Any]) -> dict[int, Any]:
        if name == wrong:
            field = int(random.choice(list(entry)))
            if isinstance(entry[field], int):
                entry[field] = int(ODD[random.integers(len(ODD))]) if random.random() < 0.5 else entry[field] + 1
            elif field == 2:
                entry[2] = {2: [{1: int(ODD[random.integers(len(ODD))])} for _ in range(int(random.integers(5)))]}
            else:
                entry[6] = ("fixed32", int(random.integers(2**32)))
        return entry

    return written(lambda folder: write_bundle(folder / "net.ckpt", _variables(), change=change), *files)(), True


PICTURES = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP")


def mutate_picture(files: Files, random: Random) -> tuple[Files, bool]:
    """Change bytes of a picture of a kind that is read."""
    kind = PICTURES[random.integers(len(PICTURES))]
    out = io.BytesIO()
    pixels = random.integers(0, 256, (9, 13, 3), np.uint8)
    Image.fromarray(pixels).save(out, kind)
    return {"picture": damage_bytes(out.getvalue(), random)}, True


def _keras(folder: Path) -> None:
    specs = v1_layers(3)
    write_legacy(folder / "net.h5", specs, chain_config(specs, "keras2"), "earliest")


def _archive(folder: Path) -> None:
    specs = v1_layers(3)
    write_archive(folder / "net.keras", specs, chain_config(specs, "keras3"))


def _tensorflow_js() -> Files:
    with tempfile.TemporaryDirectory() as folder:
        write_model(Path(folder) / "net", *graph_topology(tiny_v1()[0]))
        return {f"net/{path.name}": path.read_bytes() for path in Path(folder, "net").iterdir()}


SUBJECTS: Mapping[str, Subject] = {
    "hdf5": Subject(
        "net.h5", written(lambda folder: hdf5.write(folder / "net.h5", checkpoint()), "net.h5"),
        one_file("net.h5", by_bytes(False), lambda c, r: (damage_address(c, r)[0], False)),
    ),
    "keras-hdf5": Subject(
        "net.h5", written(_keras, "net.h5"),
        one_file("net.h5", by_bytes(True), damage_address, damage_array_address, damage_array_address),
    ),
    "keras": Subject(
        "net.keras", written(_archive, "net.keras"),
        one_file("net.keras", by_bytes(True), damage_member("config.json", damage_json),
                 damage_member("config.json", damage_json), damage_member("model.weights.h5", damage_bytes)),
    ),
    "tflite": Subject("net.tflite", lambda: {"net.tflite": _writer("float").write()}, mutate_tflite(_TFLITE),
        more=lambda: [{"net.tflite": _writer(kind).write()} for kind in _TFLITE],
    ),
    "tflite-detector": Subject(
        "net.tflite", lambda: {"net.tflite": _writer("SSDLite in floats").write()}, mutate_tflite(_DETECTORS),
        more=lambda: [{"net.tflite": _writer(kind).write()} for kind in _DETECTORS],
    ),
    "safetensors": Subject(
        "net", written(lambda folder: huggingface.write(folder / "net", checkpoint()),
                       "net/config.json", "net/model.safetensors", "net/preprocessor_config.json"),
        lambda files, random: one_file(*[
            ("net/model.safetensors", damage_safetensors, by_bytes(True)),
            ("net/model.safetensors", damage_safetensors),
            ("net/config.json", lambda c, r: (damage_json(c, r), True), by_bytes(True)),
        ][random.integers(3)])(files, random),
    ),
    "tensorflow-checkpoint": Subject(
        "net.ckpt", written(lambda folder: write_bundle(folder / "net.ckpt", _variables()),
                            "net.ckpt.index", "net.ckpt.data-00000-of-00001"),
        mutate_checkpoint,
    ),
    "tensorflow-graph": Subject(
        "net.pb", lambda: {"net.pb": tiny_v1()[0]}, one_file("net.pb", by_bytes(True), damage_graph, damage_graph)
    ),
    "saved-model": Subject(
        "net", written(lambda folder: write_saved_model(folder / "net"), "net/saved_model.pb", *(
            f"net/variables/variables.{end}" for end in ("index", "data-00000-of-00001"))),
        lambda files, random: one_file(*[
            ("net/saved_model.pb", damage_protobuf, by_bytes(True)),
            ("net/variables/variables.index", by_bytes(True)),
        ][int(random.random() < 0.1)])(files, random),
    ),
    "tensorflow-js": Subject(
        "net", _tensorflow_js,
        lambda files, random: one_file(*[
            ("net/model.json", lambda c, r: (damage_json(c, r), True), by_bytes(True)),
            (sorted(files)[0], by_bytes(True)),
        ][int(random.random() < 0.1)])(files, random),
    ),
    "onnx": Subject(
        "net.onnx", lambda: {"net.onnx": onnx_models.tiny_v1(pads="strided", style="inputs", opset=18)},
        one_file("net.onnx", by_bytes(True), damage_protobuf, damage_protobuf),
    ),
    "onnx-integers": Subject(
        "net.onnx", lambda: {"net.onnx": write_integers("QDQ", np.uint8)},
        lambda files, random: one_file("net.onnx", by_bytes(True), damage_protobuf, damage_protobuf)(
            {"net.onnx": write_integers(("QDQ", "QOperator")[random.integers(2)], np.int8, bool(random.integers(2)))},
            random,
        ),
    ),
    "onnx-beside": Subject(
        "net.onnx", written(onnx_models.external_v1, "net.onnx", "net.onnx.data"),
        lambda files, random: one_file(*[
            ("net.onnx", damage_protobuf, by_bytes(True)), ("net.onnx.data", by_bytes(True)),
        ][int(random.random() < 0.1)])(files, random),
    ),
    "pytorch": Subject(
        "net.bin", written(write_torch, "net.bin"),
        one_file("net.bin", by_bytes(True), damage_member("archive/data.pkl", damage_bytes),
                 damage_member("archive/data.pkl", damage_bytes)),
    ),
    "torchscript": Subject(
        "net.pt", lambda: {"net.pt": write_script()},
        one_file("net.pt", by_bytes(True), *[damage_member("net/data.pkl", damage_bytes)] * 2),
    ),
    "torch-export": Subject(
        "net.pt2", lambda: {"net.pt2": write_exported()},
        one_file("net.pt2", by_bytes(True), damage_member("net/models/model.json", damage_json),
                 *[damage_member("net/data/weights/model_weights_config.json", damage_json)] * 2),
    ),
    "picture": Subject("picture", lambda: {"picture": b""}, mutate_picture, has_weights=False),
}  # fmt: skip
