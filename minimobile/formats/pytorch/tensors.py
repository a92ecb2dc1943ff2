"""What a pickle of PyTorch may name besides plain values: storages, and the tensors that look into them.

Every claim is compared with the file before an array is made. Nothing here opens a file.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from minimobile.errors import FormatError
from minimobile.formats.pytorch.pickle_machine import Global, OrderedDict
from minimobile.formats.safetensors_file import COUNTER, is_counter, native_float, widen_bfloat16
from minimobile.formats.stored_zip import Member, read_member
from minimobile.storage.files import SPARE_BYTES

RANK_LIMIT = 8
STORAGES = {
    "torch FloatStorage": "f4",
    "torch HalfStorage": "f2",
    "torch DoubleStorage": "f8",
    "torch BFloat16Storage": "bfloat16",
    "torch LongStorage": "i8",
}


@dataclass(frozen=True)
class Storage:
    """A run of numbers of one type that tensors look into: where to find it, its type and its length."""

    key: str
    kind: str
    count: int

    @property
    def size(self) -> int:
        """The number of bytes."""
        return self.count * (2 if self.kind == "bfloat16" else int(self.kind[1:]))

    @property
    def dtype_name(self) -> str:
        """The type as NumPy calls it ("float32"), or "bfloat16"."""
        return "bfloat16" if self.kind == "bfloat16" else np.dtype(self.kind).name


@dataclass(frozen=True)
class Tensor:
    """A view into a storage, counted in elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


Table = tuple[dict[str, Tensor], Callable[[Storage], bytes], str]
"""The tensors of a file that passed every check, what gives a storage's bytes, and their order."""


def allowed_names(where: str) -> dict[str, Global]:
    """Return every name that a state dict's pickle may use."""
    names = {name: Global(name) for name in STORAGES}
    functions: tuple[tuple[str, Callable[[tuple[Any, ...]], Any]], ...] = (
        ("collections OrderedDict", lambda given: _make_dict(where, given)),
        ("torch._utils _rebuild_tensor", lambda given: make_tensor(where, given, 4, 4)),
        ("torch._utils _rebuild_tensor_v2", lambda given: make_tensor(where, given, 6, 7)),
        ("torch._utils _rebuild_parameter", lambda given: _unwrap_parameter(where, given)),
    )
    return names | {name: Global(name, build) for name, build in functions}


def _make_dict(where: str, given: tuple[Any, ...]) -> OrderedDict:
    if given:
        raise FormatError(f"{where}: expected an OrderedDict to be made empty, found one made from {len(given)} values")
    return OrderedDict()


def storage_loader(where: str, length: int, storages: dict[str, Storage]) -> Callable[[Any], Storage]:
    """Return what turns a pickle's reference to a storage into one, and notes it in `storages`."""

    def load(reference: Any) -> Storage:
        storage = _load_storage(where, reference, length)
        if storages.setdefault(storage.key, storage) != storage:
            raise FormatError(f"{where}: expected storage {storage.key} to have one type and length, found two")
        return storage

    return load


def _load_storage(where: str, key: Any, length: int) -> Storage:
    is_storage = type(key) is tuple and len(key) == length and key[0] == "storage" and isinstance(key[1], Global)
    if not is_storage or key[1].name not in STORAGES or type(key[2]) is not str or type(key[4]) is not int:
        raise FormatError(f"{where}: expected references to storages of floats, found something else")
    if length == 6 and key[5] is not None:
        raise FormatError(f"{where}: a storage that views another is of PyTorch before 0.4, which is not supported")
    if not 0 <= key[4] < 2**48 or not key[2].isalnum() or len(key[2]) > 40:
        raise FormatError(
            f"{where}: expected a storage's key and its number of elements, found {key[2][:80]!r}, {key[4]}"
        )
    return Storage(key[2], STORAGES[key[1].name], key[4])


def make_tensor(where: str, given: tuple[Any, ...], shortest: int, longest: int) -> Tensor:
    """Return the tensor of (storage, offset, shape, strides, ...) where it fits its storage and does not overlap."""
    if not shortest <= len(given) <= longest or type(given[0]) is not Storage:
        raise FormatError(f"{where}: expected a tensor to be made of a storage, offset, shape and strides")
    if len(given) == 7 and given[6]:  # the bits "neg" and "conj"
        raise FormatError(
            f"{where}: expected tensors that are the numbers of their storage, found one that stands for their "
            "negative or conjugate; save tensor.resolve_neg() in its place"
        )
    storage, offset, shape, strides = given[:4]
    if not all(_are_counts(numbers) for numbers in ((offset,), shape, strides)) or len(shape) != len(strides):
        raise FormatError(f"{where}: expected a tensor's offset, shape and strides to be whole numbers in tuples")
    last = offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
    if last >= storage.count or not all(shape):
        raise FormatError(
            f"{where}: a tensor of shape {shape}, strides {strides} and offset {offset} does not fit its storage of "
            f"{storage.count} elements"
        )
    reach = 0  # how far the dimensions so far extend; the next one must step beyond, or elements coincide
    for step, n in sorted((step, n) for n, step in zip(shape, strides, strict=True) if n > 1):
        if step <= reach:
            raise FormatError(f"{where}: a tensor of shape {shape} and strides {strides} overlaps itself")
        reach += (n - 1) * step
    return Tensor(storage, offset, shape, strides)


def _are_counts(numbers: object) -> bool:
    is_short = type(numbers) is tuple and len(numbers) <= RANK_LIMIT
    return is_short and all(type(n) is int and 0 <= n < 2**48 for n in numbers)  # type: ignore[attr-defined]


def _unwrap_parameter(where: str, given: tuple[Any, ...]) -> Tensor:
    if len(given) != 3 or type(given[0]) is not Tensor:
        raise FormatError(f"{where}: expected a parameter to be made of a tensor")
    return given[0]


def check_tensors(where: str, named: Mapping[Any, Any], size: int) -> dict[str, Tensor]:
    """Return `named` where it is names and tensors that no more than the file's `size` bytes can hold."""
    tensors: dict[str, Tensor] = {}
    total = 0
    for name, tensor in named.items():
        if type(name) is not str or type(tensor) is not Tensor:
            raise FormatError(
                f"{where}: expected a state dict of tensors, found type {type(tensor).__name__} under "
                f"the name {str(name)[:80]!r}; save the model's state_dict() alone"
            )
        if (tensor.storage.kind == "i8") is not is_counter(name):
            raise FormatError(
                f"{where}: {name[:200]}: expected floats, or int64 for {COUNTER}, found {tensor.storage.kind}"
            )
        tensors[name] = tensor
        total += math.prod(tensor.shape) * (tensor.storage.size // tensor.storage.count)
    if total > size + SPARE_BYTES:
        raise FormatError(f"{where}: expected no more data than the file can hold, found {total} bytes")
    return tensors


def materialise(
    where: str, tensors: Mapping[str, Tensor], read: Callable[[Storage], bytes], byte_order: str
) -> dict[str, NDArray[Any]]:
    """Return the arrays of `tensors`, each storage read once; 16-bit floats are widened."""
    weights: dict[str, NDArray[Any]] = {}
    contents: dict[str, NDArray[Any]] = {}
    for name, tensor in tensors.items():
        storage = tensor.storage
        if storage.key not in contents:
            content = read(storage)
            if len(content) != storage.size:
                raise FormatError(
                    f"{where}: {name}: expected {storage.size} bytes, the file ended after {len(content)}"
                )
            kind = "u2" if storage.kind == "bfloat16" else storage.kind
            contents[storage.key] = np.frombuffer(content, np.dtype(byte_order + kind))
        numbers = contents[storage.key][tensor.offset :]
        steps = tuple(step * numbers.itemsize for step in tensor.strides)
        values = np.ascontiguousarray(as_strided(numbers, tensor.shape, steps, writeable=False)).reshape(tensor.shape)
        weights[name] = widen_bfloat16(values) if storage.kind == "bfloat16" else native_float(values)
    return weights


def read_byte_order(where: str, file: BinaryIO, members: Mapping[str, Member], root: str) -> str:
    """Return the order that an archive's member `byteorder` tells, as NumPy writes it; little where there is none."""
    order = "little"
    if f"{root}byteorder" in members:
        order = read_member(where, file, members[f"{root}byteorder"]).decode("ascii", "replace").strip()
    if order not in ("little", "big"):
        raise FormatError(f"{where}: expected the byte order little or big, found {order[:80]!r}")
    return "<" if order == "little" else ">"
