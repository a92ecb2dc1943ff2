"""The native file: one HDF5 file with config, labels, weights by canonical name, processor, provenance and checksums.

Layout, version 1. Root attributes: `format` ("minimobile"), `format_version`, `architecture`, the JSON texts `config`,
`processor` and `provenance`, and `sha256` over all of these, the labels and the table of arrays. A text too long for an
attribute (64 KiB) is a dataset of the same name. A network trained for quantisation has one text more, `ranges`: {name
of a weight or a layer: [minimum, maximum, num_bits, narrow_range]}. `labels`: (K,) text. `weights/<canonical name>`:
float32 or float16 in PyTorch's layouts (int64 for `num_batches_tracked`, where a source counted), each with the
attribute `sha256` over its little-endian bytes. A network of integers has, in place of weights, the dataset `integers`:
the bytes of a TFLite file, which has one reader and one form for them. The dialect is part of the provenance.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minimobile.arguments import check_choice
from minimobile.errors import ConfigError, FormatError
from minimobile.formats.checkpoint import ARCHITECTURES, Checkpoint
from minimobile.formats.description import Description, Entry
from minimobile.formats.dialects import DIALECTS
from minimobile.formats.guarded_hdf5 import (
    GuardedFile,
    read_hdf5,
    write_hdf5,
)
from minimobile.formats.ranges import add_ranges
from minimobile.formats.replaced_config import settle_quantized
from minimobile.formats.safetensors_file import is_counter
from minimobile.formats.tflite import tflite
from minimobile.formats.validation import WRITTEN_DTYPES
from minimobile.networks.config import Config, config_from_dict
from minimobile.operations.fake_quantization import FakeQuantization
from minimobile.storage.files import user_path
from minimobile.storage.strict_json import parse_json_object
from minimobile_kernels.quantized.step import BYTES_OF

FORMAT_VERSION = 1
DEFAULT_DIALECT = "huggingface"
DEFAULT_BYTES, _BYTES_OF = BYTES_OF[0], "bytes_of"
_WEIGHTS = "weights/"
_TEXTS = ("architecture", "config", "processor", "provenance")
_RANGES = "ranges"  # a text that most files lack
_INTEGERS = "integers"  # an array that most files lack
_LONGEST_ATTRIBUTE = 60_000  # HDF5 allows 65,536 bytes with its own overhead


def is_native(file: GuardedFile) -> bool:
    """Say whether an HDF5 file is one of ours."""
    return file.attributes[""].get("format") == "minimobile"


def write(path: str | Path, checkpoint: Checkpoint, dtype: str = "float32", *, overwrite: bool = True) -> None:
    """Write `checkpoint` to `path`, wholly or not at all; in place of a file that is there, where `overwrite` says so.

    `dtype` is how weights are stored: "float32", or "float16" at half the size. A finite value too large for it raises
    FormatError, as does float16 for integers, which are stored as they are.
    """
    path = user_path(path)
    check_choice(dtype, f"{path}: dtype", WRITTEN_DTYPES)
    if checkpoint.quantized is None:
        own = {name: _stored(f"{path}: {name}", values, dtype) for name, values in sorted(checkpoint.weights.items())}
        stored = {f"{_WEIGHTS}{name}": values for name, values in own.items()}
    elif dtype != "float32":
        raise FormatError(
            f"{path}: expected dtype float32 for a network of integers, got {dtype!r}; they stay as they are"
        )
    else:
        stored = {_INTEGERS: np.frombuffer(tflite.pack(checkpoint, str(path)), np.uint8)}
    config = checkpoint.config.to_dict()
    labels = [checkpoint.config.labels[index] for index in range(checkpoint.config.class_count)]
    if config.get("label2id") == {name: index for index, name in enumerate(labels)}:
        del config["label2id"]
    del config["id2label"]
    provenance = dict(checkpoint.provenance)
    if checkpoint.dialect != DEFAULT_DIALECT:
        provenance["dialect"] = checkpoint.dialect
    if checkpoint.quantized is not None and checkpoint.quantized.bytes_of != DEFAULT_BYTES:
        provenance[_BYTES_OF] = checkpoint.quantized.bytes_of
    texts = {
        "architecture": checkpoint.architecture,
        "config": _json_text(config),
        "processor": _json_text(checkpoint.processor),
        "provenance": _json_text(provenance),
    }
    if checkpoint.ranges:
        texts[_RANGES] = _json_text(checkpoint.ranges)
    sums = {name: _sha256(values) for name, values in stored.items()}
    attributes: dict[str, dict[str, str | int]] = {
        "": {
            "format": "minimobile",
            "format_version": FORMAT_VERSION,
            "sha256": _file_sum(texts, labels, {n: (v.shape, v.dtype) for n, v in stored.items()}, sums),
        }
    }
    arrays: dict[str, NDArray[Any]] = dict(stored)
    arrays["labels"] = np.array([_encode_label(path, label) for label in labels], dtype=np.bytes_)
    for name, text in texts.items():
        encoded = text.encode("utf-8")
        if len(encoded) <= _LONGEST_ATTRIBUTE:
            attributes[""][name] = text
        else:
            arrays[name] = np.array(encoded)
    attributes.update({name: {"sha256": value} for name, value in sums.items()})
    write_hdf5(path, arrays, attributes, overwrite=overwrite)


def read(path: str | Path, config: Config | None = None) -> Checkpoint:
    """Read a file that `write` made; weights come back as float32 arrays.

    `config` replaces the one in the file. Every checksum is compared; a file that is damaged, hostile or of a later
    format version raises FormatError.
    """
    return read_open(Path(path), read_hdf5(Path(path)), config)


def read_open(path: Path, file: GuardedFile, config: Config | None = None) -> Checkpoint:
    """Do what `read` does with a file that is open."""
    root = file.attributes[""]
    if not is_native(file):
        raise FormatError(f"{path}: expected a file that minimobile wrote, found another HDF5 file")
    if root.get("format_version") != FORMAT_VERSION:
        raise FormatError(
            f"{path}: expected format version {FORMAT_VERSION}, found {root.get('format_version')!r}; "
            "a later minimobile may read it"
        )
    has_ranges = _RANGES in root or _RANGES in file.shapes
    texts = {name: _read_text(file, name) for name in (*_TEXTS, *[_RANGES] * has_ranges)}
    labels = _read_labels(file)
    names = [name for name in file.shapes if name.startswith(_WEIGHTS) or name == _INTEGERS]
    for name in names:
        kind = file.dtypes[name]
        if kind not in _types_of(name):
            raise FormatError(f"{path}: {name}: expected {' or '.join(map(str, _types_of(name)))}, found {kind}")
    sums = {name: str(file.attributes[name].get("sha256")) for name in names}
    table = {name: (file.shapes[name], file.dtypes[name]) for name in names}
    if _file_sum(texts, labels, table, sums) != root.get("sha256"):
        raise FormatError(f"{path}: the checksum of the description does not fit; the file is damaged, copy it again")
    weights = {}
    for name in names:
        values = file.read(name)
        if _sha256(values) != sums[name]:
            raise FormatError(f"{path}: {name}: the checksum does not fit; the file is damaged, copy it again")
        is_exact = is_counter(name) or name == _INTEGERS
        weights[name.removeprefix(_WEIGHTS)] = values if is_exact else values.astype(np.float32, copy=False)
    integers = weights.pop(_INTEGERS, None)
    checkpoint = _replace_config(path, _checkpoint(path, texts, labels, weights), config)
    return checkpoint if integers is None else _add_integers(path, checkpoint, integers.tobytes())


def _types_of(name: str) -> tuple[np.dtype[Any], ...]:
    """Return the types that an array may have."""
    if name == _INTEGERS:
        return (np.dtype(np.uint8),)
    return (np.dtype(np.int64),) if is_counter(name) else (np.dtype(np.float32), np.dtype(np.float16))


def _add_integers(path: Path, checkpoint: Checkpoint, content: bytes) -> Checkpoint:
    """Return the checkpoint of a network of integers, with the weights that they stand for."""
    found = tflite.unpack(content, path)
    if found.architecture != checkpoint.architecture:
        raise FormatError(f"{path}: expected integers of a {checkpoint.architecture}, found a {found.architecture}")
    integers, bytes_of = found.quantized, checkpoint.provenance.get(_BYTES_OF, DEFAULT_BYTES)
    if bytes_of not in BYTES_OF:
        raise FormatError(f"{path}: expected {_BYTES_OF} to be one of {', '.join(BYTES_OF)}, found {bytes_of[:80]!r}")
    own = dataclasses.replace(
        checkpoint,
        weights=found.weights,
        quantized=None if integers is None else dataclasses.replace(integers, bytes_of=bytes_of),
        obstacle=found.obstacle,
        endpoints=found.endpoints,
    )
    return settle_quantized(own, found.config)


def _replace_config(path: Path, checkpoint: Checkpoint, config: Config | None) -> Checkpoint:
    if config is None:
        return checkpoint
    if config.model_type != checkpoint.config.model_type:
        raise ConfigError(
            f"{path}: expected a config of {checkpoint.config.model_type}, got one of {config.model_type}"
        )
    return dataclasses.replace(checkpoint, config=config)


def describe(path: str | Path) -> Description:
    """Say what a file that `write` made holds, without reading its weights."""
    return describe_open(Path(path), read_hdf5(Path(path), has_numbers=False))


def describe_open(path: Path, file: GuardedFile) -> Description:
    """Do what `describe` does with a file that is open."""
    root = file.attributes[""]
    arrays = [name for name in file.shapes if name.startswith(_WEIGHTS)]
    entries = tuple(Entry(name.removeprefix(_WEIGHTS), file.shapes[name], file.dtypes[name].name) for name in arrays)
    provenance = parse_json_object(_read_text(file, "provenance"), f"{path}: provenance")
    facts = {name: str(root[name]) for name in ("format_version", "architecture") if name in root}
    if _INTEGERS in file.shapes:
        facts["numbers"] = f"integers, as a TFLite file of {math.prod(file.shapes[_INTEGERS])} bytes"
    return Description(
        format="native HDF5 file",
        dialect=str(provenance.get("dialect", DEFAULT_DIALECT)),
        producer="minimobile",
        entries=entries,
        facts=facts | {f"from {name}": str(value)[:200] for name, value in provenance.items() if name != "dialect"},
    )


def _checkpoint(
    path: Path, texts: Mapping[str, str], labels: list[str], weights: dict[str, NDArray[Any]]
) -> Checkpoint:
    if texts["architecture"] not in ARCHITECTURES:
        raise FormatError(
            f"{path}: expected an architecture among {', '.join(ARCHITECTURES)}, found {texts['architecture'][:80]!r}"
        )
    values = parse_json_object(texts["config"], f"{path}: config")
    values["id2label"] = dict(enumerate(labels))
    try:
        config = config_from_dict(values)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    if not texts["architecture"].lower().startswith(config.model_type.replace("_", "")):
        raise FormatError(f"{path}: expected a {config.model_type} architecture, found {texts['architecture']}")
    processor = None if texts["processor"] == "null" else parse_json_object(texts["processor"], f"{path}: processor")
    provenance = parse_json_object(texts["provenance"], f"{path}: provenance")
    dialect = str(provenance.get("dialect", DEFAULT_DIALECT))
    checkpoint = Checkpoint(
        config, weights, texts["architecture"], processor, {k: str(v) for k, v in provenance.items()},
        dialect=dialect if dialect in DIALECTS else DEFAULT_DIALECT,
    )  # fmt: skip
    return add_ranges(checkpoint, _parse_ranges(texts.get(_RANGES, "{}"), str(path)), str(path))


def _parse_ranges(text: str, where: str) -> dict[str, FakeQuantization]:
    ranges = {}
    for key, values in parse_json_object(text, f"{where}: {_RANGES}").items():
        kinds = [type(value) for value in values] if isinstance(values, list) else []
        if kinds != [float, float, int, bool]:
            raise FormatError(
                f"{where}: {_RANGES}: {key[:100]}: expected [minimum, maximum, num_bits, narrow_range], found "
                f"{str(values)[:100]}"
            )
        ranges[key] = FakeQuantization(*values)
    return ranges


def _stored(where: str, values: NDArray[Any], dtype: str) -> NDArray[Any]:
    values = np.asarray(values)
    if is_counter(where) and values.dtype == np.int64:
        return values.astype("<i8", copy=False)
    if values.dtype.kind != "f" or "/" in where.rpartition(": ")[2]:
        raise FormatError(f"{where}: expected an array of floats under a canonical name, got {values.dtype}")
    with np.errstate(over="ignore"):
        stored = np.ascontiguousarray(values, dtype=np.dtype(dtype).newbyteorder("<"))
    overflows = np.isinf(stored) & np.isfinite(values)
    if overflows.any():
        raise FormatError(
            f"{where}: expected values that {dtype} can hold (at most {np.finfo(dtype).max:g}), "
            f"found {values[overflows].flat[0]:g}; store it as float32"
        )
    return stored.reshape(values.shape)


def _encode_label(path: Path, label: str) -> bytes:
    if "\0" in label:
        raise FormatError(f"{path}: expected labels without a NUL character, got {label[:80]!r}")
    return label.encode()


def _json_text(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True, allow_nan=False)


def _sha256(values: NDArray[Any]) -> str:
    little = np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<"))
    return hashlib.sha256(little.data).hexdigest()


def _file_sum(
    texts: Mapping[str, str],
    labels: list[str],
    table: Mapping[str, tuple[tuple[int, ...], np.dtype[Any]]],
    sums: Mapping[str, str],
) -> str:
    """Sum up what the file says about itself, so that a changed digit in the config is noticed, too."""
    arrays = [
        [name.removeprefix(_WEIGHTS), list(table[name][0]), table[name][1].name, sums[name]] for name in sorted(table)
    ]
    description = _json_text([FORMAT_VERSION, dict(texts), labels, arrays])
    return hashlib.sha256(description.encode()).hexdigest()


def _read_text(file: GuardedFile, name: str) -> str:
    value = file.attributes[""].get(name)
    if value is None and name in file.shapes and file.shapes[name] == () and file.dtypes[name].kind == "S":
        value = _decode(file.read(name).item(), f"{file.where}: {name}")
    if not isinstance(value, str):
        raise FormatError(f"{file.where}: expected the text {name!r} as an attribute of the root, found none")
    return value


def _read_labels(file: GuardedFile) -> list[str]:
    if "labels" not in file.shapes or len(file.shapes["labels"]) != 1 or file.dtypes["labels"].kind != "S":
        raise FormatError(f"{file.where}: expected 'labels', a list of texts, found none")
    return [_decode(label, f"{file.where}: labels") for label in file.read("labels").tolist()]


def _decode(text: bytes, where: str) -> str:
    try:
        return text.decode("utf-8")
    except UnicodeDecodeError as error:
        raise FormatError(f"{where}: expected text in UTF-8, found an invalid byte at {error.start}") from None
