"""A part as a file: rows to JSON lines, CSV or Parquet, the same bytes for the same rows."""

from __future__ import annotations

import base64
import csv
import io
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from minimobile.bulk.entries import import_package
from minimobile.bulk.tasks import Column

Row = Mapping[str, Any]
# By hand, for the standard library's reader refuses cells of 128 KiB, such as all labels of a large classifier.
_CSV_CELL = rb'(?:"[^"]*+(?:""[^"]*+)*+"|[^",\r\n]*+)'
_CSV_ROW = re.compile(rb"%b,%b,(?P<error>%b)(?:,%b)*+\r\n" % ((_CSV_CELL,) * 4))  # path, sha256, error, ...
ROWS_PER_GROUP = 10_000
BYTES_PER_GROUP = 16 * 2**20


def write_jsonl(path: Path, columns: Sequence[Column], rows: Sequence[Row], facts: Mapping[str, Any]) -> None:
    """Write one JSON object a line, columns in order; absent cells are null."""
    with path.open("wb") as file:
        for row in rows:
            values = {column.name: _plain(row.get(column.name)) for column in columns}
            file.write(json.dumps(values, separators=(",", ":")).encode("ascii") + b"\n")


def write_csv(path: Path, columns: Sequence[Column], rows: Sequence[Row], facts: Mapping[str, Any]) -> None:
    """Write a header and one line a row (RFC 4180); lists are JSON in their cell, absent cells are empty."""
    stream = io.StringIO(newline="")
    writer = csv.writer(stream)
    writer.writerow([column.name for column in columns])
    for row in rows:
        writer.writerow([_cell(_plain(row.get(column.name))) for column in columns])
    path.write_bytes(stream.getvalue().encode("utf-8", "backslashreplace"))


def write_parquet(path: Path, columns: Sequence[Column], rows: Sequence[Row], facts: Mapping[str, Any]) -> None:
    """Write a Parquet file whose metadata says what made it; groups of rows stay small where cells are large."""
    arrow, parquet = import_package("pyarrow"), import_package("pyarrow.parquet")
    fields = [arrow.field(column.name, _arrow_type(arrow, column)) for column in columns]
    metadata = {key: json.dumps(value, sort_keys=True) for key, value in facts.items()}
    schema = arrow.schema(fields, metadata=metadata)
    with parquet.ParquetWriter(path, schema, compression="zstd", use_dictionary=True) as writer:
        for group in _cut(columns, rows):
            cells = [[_plain_arrow(row.get(column.name)) for row in group] for column in columns]
            arrays = [arrow.array(values, field.type) for values, field in zip(cells, fields, strict=True)]
            writer.write_table(arrow.Table.from_arrays(arrays, schema=schema))


def count_jsonl_errors(path: Path) -> int:
    """Return how many rows of a part have an error."""
    with path.open("rb") as file:
        return sum(json.loads(line)["error"] is not None for line in file)


def count_csv_errors(path: Path) -> int:
    """Return how many rows of a part have an error."""
    rows = _CSV_ROW.finditer(path.read_bytes())
    next(rows, None)  # the names of the columns
    return sum(bool(row["error"]) for row in rows)


def count_parquet_errors(path: Path) -> int:
    """Return how many rows of a part have an error."""
    column = import_package("pyarrow.parquet").read_table(path, columns=["error"]).column(0)
    return len(column) - int(column.null_count)


WRITERS: Mapping[str, Callable[[Path, Sequence[Column], Sequence[Row], Mapping[str, Any]], None]] = {
    "jsonl": write_jsonl,
    "csv": write_csv,
    "parquet": write_parquet,
}
ERROR_COUNTERS: Mapping[str, Callable[[Path], int]] = {
    "jsonl": count_jsonl_errors,
    "csv": count_csv_errors,
    "parquet": count_parquet_errors,
}


def _cut(columns: Sequence[Column], rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
    """Yield groups of rows, each of at most `ROWS_PER_GROUP` and about `BYTES_PER_GROUP`; at least one group."""
    start, size = 0, 0
    large = [column.name for column in columns if column.kind == "file" or column.length]
    for index, row in enumerate(rows):
        cells = [row.get(name) for name in large]
        size += sum(len(cell) if isinstance(cell, bytes) else getattr(cell, "nbytes", 0) for cell in cells)
        if index + 1 - start == ROWS_PER_GROUP or size > BYTES_PER_GROUP:
            yield rows[start : index + 1]
            start, size = index + 1, 0
    if start < len(rows) or not rows:
        yield rows[start:]


def _arrow_type(arrow: Any, column: Column) -> Any:
    simple = {"string": arrow.string, "int32": arrow.int32, "file": arrow.binary}
    if column.kind in simple:
        return simple[column.kind]()
    if column.kind == "boxes":
        return arrow.list_(arrow.list_(arrow.float64(), 4))
    if column.length:
        return arrow.list_(arrow.float32(), column.length)
    return arrow.list_(getattr(arrow, column.kind.removeprefix("list<").removesuffix(">"))())


def _plain_arrow(value: Any) -> Any:
    """Return a value as Arrow takes it: what UTF-8 cannot hold of a text is written as escapes."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    return [_plain_arrow(item) for item in value] if isinstance(value, list) else value


def _plain(value: Any) -> Any:
    """Return a value as JSON has it; a float32 as the shortest decimal that is it."""
    if isinstance(value, np.ndarray):
        return [float(str(item)) if value.dtype == np.float32 else item for item in value]
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    return value


def _cell(value: Any) -> Any:
    if value is None:
        return ""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list) else value
