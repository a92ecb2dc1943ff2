"""What the tests of the file formats share: a tiny checkpoint, and the demands on how a bad file is refused."""

from __future__ import annotations

import io
import json
import struct
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import numpy as np
import pytest

from minimobile.errors import FormatError, MinimobileError
from minimobile.formats import huggingface, safetensors_file
from minimobile.formats.checkpoint import Checkpoint
from minimobile.formats.hdf5_child import RefusalError
from minimobile.formats.hdf5_child.arrays import read_array
from minimobile.formats.hdf5_child.objects import examine
from minimobile.formats.hdf5_process import Contents
from minimobile.networks.config import MobileNetV1Config
from minimobile.storage.files import SPARE_BYTES

SECONDS = 10.0  # of processor time for a file of less than 1 MB: the slowest takes 0.5 traced, an endless loop for ever


def tiny_checkpoint(**config: Any) -> Checkpoint:
    """Not a whole network: what a file format has to carry, in a few hundred bytes."""
    rng = np.random.default_rng(0)
    shapes = {
        "classifier.bias": (3,),
        "classifier.weight": (3, 8),
        "mobilenet_v1.conv_stem.convolution.weight": (8, 3, 1, 1),
        "mobilenet_v1.conv_stem.normalization.running_mean": (8,),
    }
    weights = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    labels = {0: "background", 1: "Käse", 2: "猫"}
    return Checkpoint(
        MobileNetV1Config(depth_multiplier=0.25, id2label=labels, **config),
        weights,
        "MobileNetV1ForImageClassification",
        {"do_resize": True, "size": {"shortest_edge": 256}},
        {"format": "test", "source": "tiny"},
    )


def fetch_here(where: str, source: BinaryIO | bytes, size: int, has_numbers: bool = True) -> Contents:
    """Read an HDF5 file as the child process does, but in this one: for tests of hundreds of files."""
    file = io.BytesIO(source) if isinstance(source, bytes) else source
    try:
        with h5py.File(file, "r") as root:
            found = examine(root, file, size)
            arrays = {name: read_array(item, name) for name, item in found.datasets.items()}
    except RefusalError as error:
        raise FormatError(f"{where}: {error}") from None
    except (OSError, RuntimeError, LookupError, ValueError, TypeError, ArithmeticError, struct.error) as error:
        raise FormatError(f"{where}: damaged ({error})") from error
    return Contents(found.attributes, {name: (item.dtype, item.shape) for name, item in arrays.items()}, arrays)


def assert_same(left: Checkpoint, right: Checkpoint) -> None:
    """Compare all but the provenance, weights by equality of bits."""
    assert left.config == right.config
    assert left.architecture == right.architecture
    assert left.processor == right.processor
    assert set(left.weights) == set(right.weights)
    for name, values in left.weights.items():
        assert values.shape == right.weights[name].shape, name
        assert values.dtype == right.weights[name].dtype, name
        assert values.tobytes() == right.weights[name].tobytes(), name


def assert_refused(read: Callable[[Path], object], path: Path, match: str) -> None:
    """One error with one line that names the file; in time; and no memory beyond the file's size and 64 MB."""
    start = time.process_time()  # the machine may be busy
    tracemalloc.start()
    try:
        with pytest.raises(MinimobileError, match=match) as caught:
            read(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert time.process_time() - start < SECONDS
    assert peak <= (path.stat().st_size if path.is_file() else 0) + SPARE_BYTES
    message = str(caught.value)
    assert "\n" not in message
    assert path.name in message, message
    assert len(message) < 2000


def truncations(content: bytes, step: int = 97) -> Iterator[bytes]:
    """Every `step`th beginning of a file, the empty one first."""
    return (content[:end] for end in range(0, len(content), step))


def flip_bytes(path: Path, count: int, seed: int = 0) -> Iterator[int]:
    """Turn one bit of one byte of the file, yield the place, turn it back; `count` times."""
    rng = np.random.default_rng(seed)
    size = path.stat().st_size
    with path.open("r+b", buffering=0) as file:
        for place, bit in zip(rng.integers(size, size=count), rng.integers(8, size=count), strict=True):
            file.seek(int(place))
            byte = file.read(1)
            file.seek(int(place))
            file.write(bytes([byte[0] ^ 1 << int(bit)]))
            yield int(place)
            file.seek(int(place))
            file.write(byte)


FOREIGN = {
    "PNG": (b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 4, "a PNG picture"),
    "JPEG": (b"\xff\xd8\xff\xe0" + bytes(range(256)) * 4, "a JPEG picture"),
    "HTML": (b"<!DOCTYPE html>\n<html><head><title>404</title></head></html>" + b" " * 500, "an HTML page"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 14199388\n", "a git-lfs pointer"),
    "text": (b"just a text\n" * 50, "a text"),
    "zeros": (bytes(1000), "nothing but zeros"),
    "empty": (b"", "an empty file"),
}


def shard(directory: Path, places: dict[str, Any] | None = None) -> Path:
    """Write the tiny checkpoint in two shards, with `places` changed in the index."""
    huggingface.write(directory, tiny_checkpoint())
    weights = safetensors_file.read_tensors(directory / "model.safetensors")
    (directory / "model.safetensors").unlink()
    names = sorted(weights)
    files = {"model-00001-of-00002.safetensors": names[:2], "model-00002-of-00002.safetensors": names[2:]}
    for file, kept in files.items():
        safetensors_file.write_tensors(directory / file, {name: weights[name] for name in kept})
    weight_map: dict[str, Any] = {name: file for file, kept in files.items() for name in kept}
    index = directory / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map | (places or {})}))
    return index
