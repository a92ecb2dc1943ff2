"""PyTorch weights files without torch: torch.save of a state dict (the zip format, and the pickles of before 1.6),
torch.jit.save and torch.export.save.

The pickle runs in `pickle_machine`, with the names below and no other. No other reader is tried when this one refuses.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, BinaryIO

from numpy.typing import NDArray

from minimobile.errors import FormatError
from minimobile.formats.foreign import START_BYTES, describe_content
from minimobile.formats.pytorch import exported, torchscript
from minimobile.formats.pytorch.pickle_machine import OrderedDict, PickleMachine
from minimobile.formats.pytorch.tensors import (
    Storage,
    Table,
    Tensor,
    allowed_names,
    check_tensors,
    materialise,
    read_byte_order,
    storage_loader,
)  # fmt: skip
from minimobile.formats.pytorch.torch_names import common_wrapper
from minimobile.formats.safetensors_file import is_counter
from minimobile.formats.stored_zip import Member, read_directory, read_member
from minimobile.storage.files import open_regular, regular_file_size

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_PROTOCOL = 1001
WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model_state_dict", "model")  # in the order of preference


def read_tensors(path: Path, with_counters: bool = False) -> dict[str, NDArray[Any]]:
    """Read all weights of a state dict by name: float16 and bfloat16 widened to float32, float64 as it is.

    `with_counters` adds the int64 counters `num_batches_tracked`, which no inference needs.
    Raises FormatError for anything but a state dict of plain tensors whose every element is in the file.
    """
    with open_regular(path) as file:
        tensors, read_storage, byte_order = _read_table(path, file)
        wanted = {name: tensor for name, tensor in tensors.items() if with_counters or not is_counter(name)}
        return materialise(str(path), wanted, read_storage, byte_order)


def read_epsilon(path: Path) -> float | None:
    """Return the epsilon of the batch norms where the file tells it, as a program of torch.export does; else None."""
    with open_regular(path) as file:
        if not file.read(START_BYTES).startswith(b"PK\x03\x04"):
            return None
        members = read_directory(str(path), file, regular_file_size(path), unread=torchscript.CODE)
        return exported.read_epsilon(str(path), file, members) if exported.is_exported(members) else None


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


def _read_zip(where: str, file: BinaryIO, size: int) -> Table:
    members = read_directory(where, file, size, unread=torchscript.CODE)
    if exported.is_exported(members):
        tensors, read_storage, mark = exported.read_exported(where, file, size, members)
        return _without_wrapper(tensors), read_storage, mark
    pickles = [name for name in members if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise FormatError(f"{where}: expected one data.pkl in this archive, as torch.save writes, found {len(pickles)}")
    root = pickles[0].removesuffix("data.pkl")
    if any(not name.startswith(root) for name in members):
        raise FormatError(f"{where}: expected one directory {root!r} in this archive, found other members")
    mark = read_byte_order(where, file, members, root)
    is_script = f"{root}constants.pkl" in members or any(
        name.startswith(f"{root}{torchscript.CODE}/") for name in members
    )

    def find_member(storage: Storage) -> Member:
        member = members.get(f"{root}data/{storage.key}")
        if member is None or member.size != storage.size:
            found = "none" if member is None else f"{member.size} bytes"
            raise FormatError(f"{where}: expected {storage.size} bytes in {root}data/{storage.key}, found {found}")
        return member

    content = io.BytesIO(read_member(where, file, members[pickles[0]]))
    names = allowed_names(where) | (torchscript.script_names(where) if is_script else {})
    machine = torchscript.ScriptMachine if is_script else PickleMachine
    state = machine(where, content, names, storage_loader(where, 5, {})).run()
    if is_script:
        state = _without_wrapper(torchscript.flatten_module(where, state))
    if content.read(1):
        raise FormatError(f"{where}: expected data.pkl to hold one pickle, found more behind it")
    tensors = _check_state(where, state, size)
    for tensor in tensors.values():
        find_member(tensor.storage)
    return tensors, lambda storage: read_member(where, file, find_member(storage)), mark


def _without_wrapper(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a program's tensors without the name of the module that was put around the network."""
    count = len(common_wrapper(tensors))
    return OrderedDict({name[count:]: tensor for name, tensor in tensors.items()})


def _read_legacy(where: str, file: BinaryIO, size: int) -> Table:
    """Read five pickles (magic number, protocol, system, state dict, keys), then the count and data of each key."""
    storages: dict[str, Storage] = {}
    machine = PickleMachine(where, file, allowed_names(where), storage_loader(where, 6, storages))
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


def _check_state(where: str, state: Any, size: int) -> dict[str, Tensor]:
    """Return the state dict, taken out of its wrapping, once all its claims fit the file."""
    if type(state) not in (dict, OrderedDict):
        raise FormatError(f"{where}: expected a state dict, found type {type(state).__name__}")
    wrapper = next((name for name in WRAPPERS if type(state.get(name)) in (dict, OrderedDict)), None)
    if wrapper is not None:  # a training run's file: beside the weights lie its epoch, its optimiser, ...
        state = state[wrapper]
    return check_tensors(where, state, size)
