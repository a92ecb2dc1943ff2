"""The weights of a TensorFlow.js model: a manifest that lists them, and shards beside it that hold their bytes.

Source: tfjs-core's io/types.ts and io_utils.ts (decodeWeights).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray

from minimobile.errors import FormatError
from minimobile.storage.files import path_beside, read_limited, regular_file_size

SHARD_LIMIT = 2**30  # bytes; the largest MobileNet has 25 MB in all
ENTRY_LIMIT = 20_000  # shards, or weights
RANK_LIMIT = 8
DTYPES = ("float32", "int32", "bool", "uint8", "float16")
QUANTIZED_DTYPES = ("uint8", "uint16", "float16")


class WeightSpec(NamedTuple):
    """One weight of a manifest: as it is used, and the type in which the shards store it.

    Of stored bytes or 16-bit integers q, the value is q * scale + minimum.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    stored: str
    scale: float
    minimum: float

    @property
    def byte_count(self) -> int:
        """Return how many bytes of the shards it takes."""
        return math.prod(self.shape) * np.dtype(self.stored).itemsize


def read_weights(groups: Any, folder: Path, where: str) -> dict[str, NDArray[Any]]:
    """Return the weights by name; `groups` is the `weightsManifest` of the model in `folder`.

    Raises FormatError for a manifest that is none, for shards that are missing, links, outside the folder, or of
    another size than the weights in them: sizes are compared before anything is read.
    """
    weights: dict[str, NDArray[Any]] = {}
    seen: set[Path] = set()
    for specs, paths in read_manifest(groups, folder, where):
        if seen & set(paths) or len(set(paths)) < len(paths):
            _fail(where, "each shard to be named once", "one that is named twice")
        seen.update(paths)
        found, expected = sum(map(_measure, paths)), sum(spec.byte_count for spec in specs)
        if found != expected:
            names = ", ".join(path.name for path in paths[:3]) + (", ..." if len(paths) > 3 else "")
            _fail(where, f"{expected} bytes for {len(specs)} weights in the shards {names}", f"{found} bytes")
        content = memoryview(b"".join(read_limited(path, SHARD_LIMIT) for path in paths))
        position = 0
        for spec in specs:
            if spec.name in weights:
                _fail(where, "each weight to have its own name", f"two of {spec.name[:80]!r}")
            weights[spec.name] = _decode(spec, content[position : position + spec.byte_count], where)
            position += spec.byte_count
    return weights


def read_manifest(groups: Any, folder: Path, where: str) -> list[tuple[list[WeightSpec], list[Path]]]:
    """Return, for each group of a manifest, its weights and the paths of its shards; nothing is opened."""
    if not isinstance(groups, list) or len(groups) > ENTRY_LIMIT:
        _fail(where, "weightsManifest to be a list of groups", type(groups).__name__)
    read = []
    count = 0
    for group in groups:
        paths, entries = (group.get(key) if isinstance(group, Mapping) else None for key in ("paths", "weights"))
        if not isinstance(paths, list) or not isinstance(entries, list):
            _fail(where, "groups of weightsManifest with lists of paths and weights", "others")
        count += len(paths) + len(entries)
        if count > ENTRY_LIMIT:
            _fail(where, f"at most {ENTRY_LIMIT} shards and weights", "more")
        specs = [_read_spec(entry, where) for entry in entries]
        read.append((specs, [path_beside(folder, name, f"{where}: shard") for name in paths]))
    return read


def _measure(path: Path) -> int:
    size = regular_file_size(path)
    if size > SHARD_LIMIT:
        raise FormatError(f"{path}: expected at most {SHARD_LIMIT} bytes, found {size}")
    return size


def _read_spec(entry: Any, where: str) -> WeightSpec:
    values = entry if isinstance(entry, Mapping) else {}
    name, shape, dtype = (values.get(key) for key in ("name", "shape", "dtype"))
    if not isinstance(name, str) or not 0 < len(name) <= 400:
        _fail(where, "a name for every weight", repr(name)[:80])
    sizes = shape if isinstance(shape, list) and len(shape) <= RANK_LIMIT else [-1]
    if not all(type(size) is int and 0 <= size < 2**31 for size in sizes):
        _fail(where, f"the weight {name[:80]} to have a shape of up to {RANK_LIMIT} sizes", repr(shape)[:80])
    if dtype not in DTYPES:
        _fail(where, f"the weight {name[:80]} to be of {', '.join(DTYPES)}", repr(dtype)[:80])
    by = values.get("quantization")
    if by is None:
        stored = "uint8" if dtype == "bool" else dtype
        return WeightSpec(name, tuple(sizes), dtype, stored, 1.0, 0.0)
    stored = by.get("dtype") if isinstance(by, Mapping) else None
    if stored not in QUANTIZED_DTYPES or dtype not in ("float32", "int32"):
        _fail(where, f"the weight {name[:80]} to be quantised to {', '.join(QUANTIZED_DTYPES)}", repr(stored)[:80])
    scale, minimum = (by.get(key, default) for key, default in (("scale", 1.0), ("min", 0.0)))
    is_number = all(isinstance(number, int | float) and not isinstance(number, bool) for number in (scale, minimum))
    if not is_number or (stored != "float16" and not {"scale", "min"} <= set(by)):
        _fail(where, f"the weight {name[:80]} to be quantised with numbers scale and min", "others")
    return WeightSpec(name, tuple(sizes), dtype, stored, float(scale), float(minimum))


def _decode(spec: WeightSpec, content: memoryview, where: str) -> NDArray[Any]:
    """Return the values of one weight; of quantised ones computed in float64 and rounded once, as in JavaScript."""
    values: NDArray[Any] = np.frombuffer(content, np.dtype(spec.stored).newbyteorder("<")).reshape(spec.shape)
    if spec.stored == spec.dtype:
        return values
    if spec.stored == "float16":
        with np.errstate(all="ignore"):
            return values.astype(spec.dtype)
    if spec.dtype == "bool":
        flags: NDArray[np.bool_] = np.not_equal(values, 0)
        return flags
    with np.errstate(all="ignore"):
        numbers = values.astype(np.float64) * spec.scale + spec.minimum
        if spec.dtype == "float32":
            narrow: NDArray[np.float32] = numbers.astype(np.float32)
            return narrow
    rounded = np.floor(numbers + 0.5)
    if not (np.abs(rounded) < 2**31).all():
        _fail(where, f"the weight {spec.name[:80]} to hold numbers of int32", "others")
    return rounded.astype(np.int32)


def _fail(where: str, expected: str, found: str) -> NoReturn:
    raise FormatError(f"{where}: expected {expected}, found {found}")
