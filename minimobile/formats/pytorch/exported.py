"""The weights of an archive of torch.export (torch.export.save): a table in JSON, and the bytes of every storage.

Source: torch/export/pt2_archive/_package.py and torch/_export/serde/schema.py of PyTorch 2.13 (schema 8).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, BinaryIO

import numpy as np

from minimobile.errors import FormatError
from minimobile.formats.pytorch.tensors import Storage, Table, Tensor, check_tensors, make_tensor, read_byte_order
from minimobile.formats.signatures import EXPORTED_PROGRAM
from minimobile.formats.stored_zip import Member, read_member
from minimobile.storage.strict_json import FILE_LIMIT, parse_json_object

SAVE = "save the module's state_dict() instead: torch.save(torch.export.load(FILE).state_dict, 'net.pth') in PyTorch"
_KINDS = {5: "i8", 6: "f2", 7: "f4", 8: "f8", 13: "bfloat16"}  # schema.py, ScalarType
_STRIDED = 7  # schema.py, Layout
_FOLDER, _TABLE = "data/weights/", "_weights_config.json"


def is_exported(members: Mapping[str, Member]) -> bool:
    """Say whether an archive is one of torch.export, of any version."""
    return any(name.rpartition("/")[2] in EXPORTED_PROGRAM and name.count("/") <= 1 for name in members)


def read_exported(where: str, file: BinaryIO, size: int, members: Mapping[str, Member]) -> Table:
    """Return the table of an archive's weights; those that other weights share are there under every name."""
    tables = [name for name in members if _FOLDER in name and name.endswith(_TABLE)]
    if len(tables) != 1:
        raise FormatError(
            f"{where}: this is a program of torch.export with {len(tables)} tables of weights, where one is read "
            f"(as PyTorch 2.13 writes it); {SAVE}"
        )
    root, _, rest = tables[0].partition(_FOLDER)
    if root.count("/") > 1 or "/" in rest:
        raise FormatError(f"{where}: expected {_FOLDER} at the top of this archive, found {tables[0][:200]!r}")
    what = f"{where}: {rest[:200]}"
    entries = _read_object(where, file, members[tables[0]]).get("config")
    if not isinstance(entries, dict):
        raise FormatError(f"{what}: expected weights by name under 'config', found type {type(entries).__name__}")
    folder = root + _FOLDER
    storages: dict[str, Storage] = {}
    named = {
        name: _read_tensor(f"{what}: {name[:200]}", entry, folder, members, storages)
        for name, entry in entries.items()
    }  # fmt: skip
    order = read_byte_order(where, file, members, root)
    return (
        check_tensors(where, named, size),
        lambda storage: read_member(where, file, members[folder + storage.key]),
        order,
    )


def read_epsilon(where: str, file: BinaryIO, members: Mapping[str, Member]) -> float | None:
    """Return the epsilon that the batch norms of the archive's graph have; None where it has none.

    Raises FormatError where they have several, which no config can say.
    """
    found: set[float] = set()
    for name, member in members.items():
        if name.split("/")[1:2] != ["models"] or not name.endswith(".json"):
            continue
        graph = _read_object(where, file, member).get("graph_module", {})
        for node in _children(graph, "graph", "nodes"):
            if isinstance(node, dict) and "batch_norm" in str(node.get("target")):
                found.add(_find_epsilon(f"{where}: {name[:200]}", node))
    if len(found) > 1:
        raise FormatError(f"{where}: expected one epsilon in all batch norms, found {sorted(found)[:5]}")
    return found.pop() if found else None


def _find_epsilon(what: str, node: dict[str, Any]) -> float:
    given = [entry for entry in _children(node, "inputs") if isinstance(entry, dict) and entry.get("name") == "eps"]
    value = given[0].get("arg") if len(given) == 1 else None
    epsilon = value.get("as_float") if isinstance(value, dict) else None
    if not isinstance(epsilon, float) or not 0 < epsilon < 1:
        raise FormatError(f"{what}: expected a batch norm with its epsilon, a number of 0 to 1, found {epsilon!r:.80}")
    return epsilon


def _children(value: Any, *names: str) -> list[Any]:
    """Return the list at a path of keys; an empty one where there is none."""
    for name in names:
        value = value.get(name) if isinstance(value, dict) else None
    return value if isinstance(value, list) else []


def _read_object(where: str, file: BinaryIO, member: Member) -> dict[str, Any]:
    if member.size > FILE_LIMIT:
        raise FormatError(f"{where}: {member.name[:200]}: expected at most {FILE_LIMIT} bytes, found {member.size}")
    return parse_json_object(read_member(where, file, member), f"{where}: {member.name[:200]}")


def _read_tensor(
    what: str, entry: Any, folder: str, members: Mapping[str, Member], storages: dict[str, Storage]
) -> Tensor:
    meta = entry.get("tensor_meta") if isinstance(entry, dict) else None
    if not isinstance(meta, dict):
        raise FormatError(f"{what}: expected a weight's tensor_meta, found type {type(meta).__name__}")
    if entry.get("use_pickle") is not False or meta.get("layout") != _STRIDED:
        raise FormatError(f"{what}: expected a plain dense tensor, found one of another layout or class; {SAVE}")
    code, key = meta.get("dtype"), entry.get("path_name")
    kind = _KINDS.get(code) if type(code) is int else None
    if kind is None:
        raise FormatError(f"{what}: expected float16, bfloat16, float32, float64 or int64, found type {str(code)[:80]}")
    member = members.get(folder + key) if isinstance(key, str) and "/" not in key else None
    if member is None:
        raise FormatError(f"{what}: expected its bytes in {folder}, found no member of the name {repr(key)[:80]}")
    width = 2 if kind == "bfloat16" else np.dtype(kind).itemsize
    if member.size % width:
        raise FormatError(f"{what}: expected elements of {width} bytes, found {member.size} bytes in {member.name}")
    storage = Storage(str(key), kind, member.size // width)
    if storages.setdefault(storage.key, storage) != storage:
        raise FormatError(f"{what}: expected storage {storage.key} to have one type, found two")
    offset = _read_counts(what, [meta.get("storage_offset")])[0]
    shape, strides = (_read_counts(what, meta.get(name)) for name in ("sizes", "strides"))
    return make_tensor(what, (storage, offset, shape, strides), 4, 4)


def _read_counts(what: str, values: Any) -> tuple[Any, ...]:
    """Return the whole numbers of a list of schema.SymInt; what is open ("as_expr") is no number of a weight."""
    entries: list[Any] = values if isinstance(values, list) else [None]
    if not all(isinstance(entry, dict) and list(entry) == ["as_int"] for entry in entries):
        raise FormatError(f"{what}: expected sizes, strides and storage_offset as whole numbers, found something else")
    return tuple(entry["as_int"] for entry in entries)
