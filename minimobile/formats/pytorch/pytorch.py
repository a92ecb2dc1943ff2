"""PyTorch weights files (torch.save of a state dict) without torch: the zip format, and the pickles of before 1.6.

The pickle runs in `pickle_machine`, with the names below and no other. No other reader is tried when this one refuses.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from minimobile.errors import FormatError
from minimobile.formats.foreign import START_BYTES, describe_content
from minimobile.formats.pytorch.pickle_machine import Global, OrderedDict, PickleMachine
from minimobile.formats.safetensors_file import COUNTER, is_counter, native_float, widen_bfloat16
from minimobile.formats.stored_zip import Member, read_directory, read_member
from minimobile.storage.files import SPARE_BYTES, open_regular, regular_file_size

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_PROTOCOL = 1001
RANK_LIMIT = 8
WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model_state_dict", "model")  # in the order of preference
_SCRIPT = ("a TorchScript program", "torch.jit.load(FILE).state_dict()")
_EXPORTED = ("a program of torch.export", "torch.export.load(FILE).state_dict")
_PROGRAMS = (
    (b"/code/", _SCRIPT),
    (b"/constants.pkl", _SCRIPT),
    (b"/archive_format", _EXPORTED),
    (b"/serialized_exported_program.json", _EXPORTED),
    (b"serialized_exported_program.json", _EXPORTED),
)
_STORAGES = {
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


def recognise(path: Path) -> bool:
    """Say whether the file is a zip archive with a data.pkl, as torch.save writes, or any binary pickle."""
    size = regular_file_size(path)
    with open_regular(path) as file:
        start = file.read(START_BYTES)
        if start[:1] == b"\x80" and start[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
            return True
        if not start.startswith(b"PK\x03\x04"):
            return False
        file.seek(max(0, size - 2**16))
        return b"/data.pkl" in start or b"/data.pkl" in file.read()


def read_tensors(path: Path, with_counters: bool = False) -> dict[str, NDArray[Any]]:
    """Read all weights of a state dict by name: float16 and bfloat16 widened to float32, float64 as it is.

    `with_counters` adds the int64 counters `num_batches_tracked`, which no inference needs.
    Raises FormatError for anything but a state dict of plain tensors whose every element is in the file.
    """
    with open_regular(path) as file:
        tensors, read_storage, byte_order = _read_table(path, file)
        wanted = {name: tensor for name, tensor in tensors.items() if with_counters or not is_counter(name)}
        return _materialise(str(path), wanted, read_storage, byte_order)


def list_tensors(path: Path) -> dict[str, Tensor]:
    """Return every tensor of a state dict without its data; errors are those of `read_tensors`."""
    with open_regular(path) as file:
        return _read_table(path, file)[0]


def _read_table(path: Path, file: BinaryIO) -> Table:
    size = regular_file_size(path)
    start = file.read(START_BYTES)
    file.seek(0)
    if start.startswith(b"PK\x03\x04"):
        return _read_zip(str(path), file, size)
    if start[:1] == b"\x80":
        return _read_legacy(str(path), file, size)
    if start[257:262] == b"ustar":
        raise FormatError(f"{path}: this is a tar archive of PyTorch before 0.1.10, which is not supported; resave it")
    raise FormatError(f"{path}: expected a PyTorch weights file, found {describe_content(start)}")


def _refuse_programs(where: str, file: BinaryIO, size: int) -> None:
    """Name what is a whole program, by the names of its members: they are stored in ways of their own."""
    file.seek(max(0, size - 2**16))
    tail = file.read()
    names = tail[max(0, tail.find(b"PK\x01\x02")) :]  # the archive's directory
    found = [program for mark, program in _PROGRAMS if mark in names]
    if found:
        kind, weights = found[0]
        raise FormatError(
            f"{where}: this is {kind}, which is not read; save the module's state_dict() instead: "
            f"torch.save({weights}, 'net.pth') in PyTorch"
        )


def _read_zip(where: str, file: BinaryIO, size: int) -> Table:
    _refuse_programs(where, file, size)
    members = read_directory(where, file, size)
    pickles = [name for name in members if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise FormatError(f"{where}: expected one data.pkl in this archive, as torch.save writes, found {len(pickles)}")
    root = pickles[0].removesuffix("data.pkl")
    if any(not name.startswith(root) for name in members):
        raise FormatError(f"{where}: expected one directory {root!r} in this archive, found other members")
    byte_order = "little"
    if f"{root}byteorder" in members:
        byte_order = read_member(where, file, members[f"{root}byteorder"]).decode("ascii", "replace").strip()
    if byte_order not in ("little", "big"):
        raise FormatError(f"{where}: expected the byte order little or big, found {byte_order[:80]!r}")
    mark = "<" if byte_order == "little" else ">"

    def find_member(storage: Storage) -> Member:
        member = members.get(f"{root}data/{storage.key}")
        if member is None or member.size != storage.size:
            found = "none" if member is None else f"{member.size} bytes"
            raise FormatError(f"{where}: expected {storage.size} bytes in {root}data/{storage.key}, found {found}")
        return member

    content = io.BytesIO(read_member(where, file, members[pickles[0]]))
    machine = PickleMachine(where, content, _allowed(where), _storage_loader(where, 5, {}))
    state = machine.run()
    if content.read(1):
        raise FormatError(f"{where}: expected data.pkl to hold one pickle, found more behind it")
    tensors = _check_state(where, state, size)
    for tensor in tensors.values():
        find_member(tensor.storage)
    return tensors, lambda storage: read_member(where, file, find_member(storage)), mark


def _read_legacy(where: str, file: BinaryIO, size: int) -> Table:
    """Read five pickles (magic number, protocol, system, state dict, keys), then the count and data of each key."""
    storages: dict[str, Storage] = {}
    machine = PickleMachine(where, file, _allowed(where), _storage_loader(where, 6, storages))
    magic = machine.run()
    if type(magic) is not int or magic != LEGACY_MAGIC:
        raise FormatError(f"{where}: expected a file of torch.save, found a pickle of something else")
    if (protocol := machine.run()) != LEGACY_PROTOCOL:
        raise FormatError(f"{where}: expected torch's protocol {LEGACY_PROTOCOL}, found type {type(protocol).__name__}")
    machine.run()  # sizes and byte order of the writing machine; the data are little-endian all the same
    tensors = _check_state(where, machine.run(), size)
    keys = machine.run()
    if type(keys) is not list or any(type(key) is not str for key in keys) or sorted(keys) != sorted(storages):
        raise FormatError(f"{where}: expected a list of the {len(storages)} storages that the pickle refers to")
    places: dict[str, int] = {}
    for key in keys:
        header = file.read(8)
        if int.from_bytes(header, "little", signed=True) != storages[key].count or len(header) != 8:
            raise FormatError(
                f"{where}: expected {storages[key].count} elements in storage {key}, found another number"
            )
        places[key] = file.tell()
        file.seek(storages[key].size, io.SEEK_CUR)
    if file.tell() != size:
        raise FormatError(f"{where}: truncated or damaged: expected {file.tell()} bytes, found {size}")

    def read_storage(storage: Storage) -> bytes:
        file.seek(places[storage.key])
        return file.read(storage.size)

    return tensors, read_storage, "<"


def _allowed(where: str) -> dict[str, Global]:
    """Return every name that a state dict's pickle may use."""
    names = {name: Global(name) for name in _STORAGES}
    functions: tuple[tuple[str, Callable[[tuple[Any, ...]], Any]], ...] = (
        ("collections OrderedDict", lambda given: _make_dict(where, given)),
        ("torch._utils _rebuild_tensor", lambda given: _make_tensor(where, given, 4, 4)),
        ("torch._utils _rebuild_tensor_v2", lambda given: _make_tensor(where, given, 6, 7)),
        ("torch._utils _rebuild_parameter", lambda given: _unwrap_parameter(where, given)),
    )
    return names | {name: Global(name, build) for name, build in functions}


def _make_dict(where: str, given: tuple[Any, ...]) -> OrderedDict:
    if given:
        raise FormatError(f"{where}: expected an OrderedDict to be made empty, found one made from {len(given)} values")
    return OrderedDict()


def _storage_loader(where: str, length: int, storages: dict[str, Storage]) -> Callable[[Any], Storage]:
    """Return what turns a pickle's reference to a storage into one, and notes it in `storages`."""

    def load(reference: Any) -> Storage:
        storage = _load_storage(where, reference, length)
        if storages.setdefault(storage.key, storage) != storage:
            raise FormatError(f"{where}: expected storage {storage.key} to have one type and length, found two")
        return storage

    return load


def _load_storage(where: str, key: Any, length: int) -> Storage:
    is_storage = type(key) is tuple and len(key) == length and key[0] == "storage" and isinstance(key[1], Global)
    if not is_storage or key[1].name not in _STORAGES or type(key[2]) is not str or type(key[4]) is not int:
        raise FormatError(f"{where}: expected references to storages of floats, found something else")
    if length == 6 and key[5] is not None:
        raise FormatError(f"{where}: a storage that views another is of PyTorch before 0.4, which is not supported")
    if not 0 <= key[4] < 2**48 or not key[2].isalnum() or len(key[2]) > 40:
        raise FormatError(
            f"{where}: expected a storage's key and its number of elements, found {key[2][:80]!r}, {key[4]}"
        )
    return Storage(key[2], _STORAGES[key[1].name], key[4])


def _make_tensor(where: str, given: tuple[Any, ...], shortest: int, longest: int) -> Tensor:
    if not shortest <= len(given) <= longest or type(given[0]) is not Storage:
        raise FormatError(f"{where}: expected a tensor to be made of a storage, offset, shape and strides")
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


def _check_state(where: str, state: Any, size: int) -> dict[str, Tensor]:
    """Return the state dict, taken out of its wrapping, once all its claims fit the file."""
    if type(state) not in (dict, OrderedDict):
        raise FormatError(f"{where}: expected a state dict, found type {type(state).__name__}")
    wrapper = next((name for name in WRAPPERS if type(state.get(name)) in (dict, OrderedDict)), None)
    if wrapper is not None:  # a training run's file: beside the weights lie its epoch, its optimiser, ...
        state = state[wrapper]
    tensors: dict[str, Tensor] = {}
    total = 0
    for name, tensor in state.items():
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


def _materialise(
    where: str, tensors: Mapping[str, Tensor], read: Callable[[Storage], bytes], byte_order: str
) -> dict[str, NDArray[Any]]:
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
