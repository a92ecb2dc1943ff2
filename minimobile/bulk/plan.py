"""The plan of a run: which entries make which part. It is frozen when it is first made, and never changed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minimobile.bulk.entries import Entry, is_address
from minimobile.bulk.files import create_once
from minimobile.errors import FormatError

VERSION = 1


@dataclass(frozen=True)
class Part:
    """Some entries of a plan in a row: the unit that is computed, written and found done.

    `offset` is where its first entry stands in the plan's file, `root` what its relative paths begin at.
    """

    name: str
    plan: str
    offset: int
    count: int
    root: str

    def entries(self) -> list[Entry]:
        """Read the entries from the plan."""
        with Path(self.plan).open("rb") as file:
            file.seek(self.offset)
            lines = [file.readline() for _ in range(self.count)]
        return [entry if isinstance(entry, str) else (entry[0], entry[1], entry[2]) for entry in map(_decode, lines)]


@dataclass(frozen=True)
class Plan:
    """A frozen list of entries, cut in parts of `rows_per_part`; `offsets` (parts + 1) is where each begins."""

    path: Path
    root: str
    rows_per_part: int
    count: int
    offsets: NDArray[np.int64]

    @property
    def number(self) -> int:
        """Which plan of its run it is, from 1."""
        return int(self.path.stem.rpartition("-")[2])

    def parts(self) -> Iterator[Part]:
        """Yield the parts in order."""
        for index in range(len(self.offsets)):
            left = self.count - index * self.rows_per_part
            name = f"part-{self.number:04d}-{index:06d}"
            yield Part(name, str(self.path), int(self.offsets[index]), min(left, self.rows_per_part), self.root)

    def entries(self) -> Iterator[Entry]:
        """Yield all entries in order."""
        for part in self.parts():
            yield from part.entries()


def read_plans(folder: Path) -> list[Plan]:
    """Return the plans of a run, in order. Raises FormatError for one that is damaged."""
    return [read_plan(path) for path in sorted(folder.glob("_plan-[0-9]*.jsonl"))]


def freeze_plan(folder: Path, entries: Sequence[Entry], rows_per_part: int, number: int) -> Plan:
    """Write plan `number` of a run, or return the one that another process has frozen in the meantime."""
    path = folder / f"_plan-{number:04d}.jsonl"
    paths = (entry if isinstance(entry, str) else entry[0] for entry in entries)
    is_relative = any(not is_address(path) and not Path(path).is_absolute() for path in paths)
    root = str(Path.cwd()) if is_relative else ""
    header = {"version": VERSION, "root": root, "rows_per_part": rows_per_part, "entries": len(entries)}

    def lines() -> Iterator[bytes]:
        yield _encode(header)
        yield from map(_encode, entries)

    create_once(path, lines())
    return read_plan(path)


def read_plan(path: Path) -> Plan:
    """Read a plan's header, and where its parts begin."""
    with path.open("rb") as file:
        header = _read_header(path, file.readline())
        rows, offsets, count = header["rows_per_part"], [], 0
        place = file.tell()
        for line in file:
            if count % rows == 0:
                offsets.append(place)
            place += len(line)
            count += 1
    if count != header["entries"]:
        raise FormatError(
            f"{path}: expected {header['entries']} entries, found {count}; the plan is damaged, begin in another folder"
        )
    return Plan(path, header["root"], rows, count, np.array(offsets, np.int64))


def _read_header(path: Path, line: bytes) -> Mapping[str, Any]:
    try:
        header = json.loads(line)
        is_right = header["version"] == VERSION and header["rows_per_part"] >= 1 and isinstance(header["root"], str)
    except (ValueError, KeyError, TypeError):
        is_right = False
    if not is_right:
        raise FormatError(f"{path}: expected a plan of version {VERSION}, found another first line")
    found: Mapping[str, Any] = header
    return found


def _encode(value: object) -> bytes:
    """Return one line; names that are no UTF-8 travel as lone surrogates, which JSON escapes."""
    return json.dumps(value, separators=(",", ":")).encode("ascii") + b"\n"


def _decode(line: bytes) -> Any:
    return json.loads(line)
