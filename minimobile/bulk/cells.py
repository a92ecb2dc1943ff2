"""Pictures in the cells of Parquet tables: rows are decoded a group at a time, and each group once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

from minimobile.bulk.entries import import_package
from minimobile.errors import FormatError

KEPT = 2  # groups of rows: where one ends, threads still read in it while others are in the next


class _Table(NamedTuple):
    file: Any
    ends: tuple[int, ...]
    """The number of rows up to the end of each group."""


class CellReader:
    """Reads cells of tables, in rows that mostly follow one another; may be used by several threads.

    A cell's bytes cannot be had without decoding its group, which in a table of a thousand photographs takes a hundred
    times as long as classifying one.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: Callable[[str], _Table] = lru_cache(maxsize=KEPT)(_open)
        self._decode: Callable[[str, str, int], Any] = lru_cache(maxsize=KEPT)(self._decode_group)

    def read(self, table: str, column: str, row: int) -> bytes:
        """Return the bytes of the picture in a row of a table. Raises FormatError for a cell without any."""
        try:
            with self._lock:
                ends = self._open(table).ends
                group = next((number for number, end in enumerate(ends) if row < end), None)
                start = ends[group - 1] if group else 0
                value = None if group is None else self._decode(table, column, group)[row - start].as_py()
        except Exception as error:  # Arrow has its own errors
            raise FormatError(f"{table}: cannot be read ({type(error).__name__}: {str(error)[:120]})") from None
        if isinstance(value, dict):
            value = value.get("bytes")
        if not isinstance(value, bytes):
            raise FormatError(f"{table}: expected the bytes of a picture in column {column}, found none")
        return value

    def _decode_group(self, table: str, column: str, group: int) -> Any:
        return self._open(table).file.read_row_group(group, columns=[column]).column(0)


def _open(table: str) -> _Table:
    file = import_package("pyarrow.parquet").ParquetFile(table)
    ends, total = [], 0
    for group in range(file.num_row_groups):
        total += file.metadata.row_group(group).num_rows
        ends.append(total)
    return _Table(file, tuple(ends))
