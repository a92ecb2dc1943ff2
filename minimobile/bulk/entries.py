"""What is to be computed: folders, globs, lists, tables and buckets become one sorted list of entries, each once."""

from __future__ import annotations

import csv
import glob
import heapq
import io
import itertools
import os
import sys
from codecs import BOM_UTF8
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO, TypeAlias

from minimobile.arguments import show
from minimobile.errors import FormatError, InputError, MinimobileError, UnavailableError
from minimobile.imaging.folders import is_picture, walk_pictures
from minimobile.imaging.pictures import PICTURE_SUFFIXES
from minimobile.storage.extras import import_extra
from minimobile.storage.files import open_regular

Cell: TypeAlias = tuple[str, str, int]
Entry: TypeAlias = str | Cell
"""A path or an address (`s3://...`), or the picture in a table: (table, column, row)."""
Sources: TypeAlias = str | Path | Iterable[str | Path]

LIST_SUFFIXES = (".txt", ".list")
TABLE_SUFFIXES = (".csv", ".parquet")
COLUMNS = ("path", "file", "filename", "image", "bytes")
"""The columns that a table of pictures may call them by; the first that is there is taken."""


def read_sources(sources: Sources) -> list[str]:
    """Return the sources that a caller gives, one or several, as texts; InputError for what is no path."""
    given: list[Any]
    try:
        given = [sources] if isinstance(sources, str | bytes | Path) else list(sources)
    except TypeError:  # of some things, an array without an axis for one, only trying tells whether they hold others
        given = [sources]
    for source in given:
        if not isinstance(source, str | Path):
            raise InputError(f"sources: expected paths of folders, pictures, lists or tables, got {show(source)}")
    return [os.fspath(source) for source in given]


def list_entries(sources: Sources, column: str | None = None, stdin: TextIO | None = None) -> list[Entry]:
    """Return what the sources name, sorted, each entry once.

    A source is a folder (with all below it), a picture, a glob, a list (.txt, .list: a path a line), a table (.csv,
    .parquet), an address of a bucket, or "-" for a list on standard input. What a folder stands for says
    `imaging.folders.walk_pictures`. A folder that cannot be listed is an entry by itself: it gets a row that says so.

    Args:
        sources: what to compute.
        column: the column of tables that holds paths or, in Parquet, the bytes of pictures.
        stdin: what "-" reads (None: standard input).

    Raises:
        InputError: a source that is not there or names nothing.
        UnavailableError: a table or an address needs a package that is not installed.
    """
    texts: list[str] = []
    cells: list[Cell] = []
    for text in read_sources(sources):
        before = len(texts) + len(cells)
        for entry in _read_stdin(stdin or sys.stdin) if text == "-" else _list_source(text, column):
            if isinstance(entry, str):
                texts.append(entry)
            else:
                cells.append(entry)
        if len(texts) + len(cells) == before and text != "-":
            raise InputError(f"{text}: expected pictures ({', '.join(PICTURE_SUFFIXES)}), found none")
    texts.sort()  # in place, and no set: a million paths are held once
    cells.sort()
    found: list[Entry] = [text for text, _ in itertools.groupby(texts)]
    found += (cell for cell, _ in itertools.groupby(cells))
    return found


def leave_out(entries: Iterable[Entry], known: Sequence[Iterable[Entry]]) -> Iterator[Entry]:
    """Yield the entries that are in none of the `known` lists; all are sorted as `list_entries` does, none is held."""
    others = heapq.merge(*known, key=_order)
    other = next(others, None)
    for entry in entries:
        while other is not None and _order(other) < _order(entry):
            other = next(others, None)
        if other != entry:
            yield entry


def describe_entry(entry: Entry) -> str:
    """Return how an entry is called in its row: bytes of a name that are no UTF-8 are written as escapes."""
    text = entry if isinstance(entry, str) else f"{entry[0]}#{entry[2]}"
    return os.fsencode(text).decode("utf-8", "backslashreplace")


def is_address(text: str) -> bool:
    """Tell whether a text names something in a bucket or on a server, and no file."""
    scheme, found, _ = text.partition("://")
    return bool(found) and scheme.replace("+", "").isalnum()


def _order(entry: Entry) -> tuple[bool, str, str, int]:
    return (False, entry, "", 0) if isinstance(entry, str) else (True, *entry)


def _list_source(text: str, column: str | None) -> Iterable[Entry]:
    if is_address(text):
        return _list_addresses(text)
    path = Path(text)
    if path.is_dir():
        return walk_pictures(text)
    if path.suffix.lower() in LIST_SUFFIXES and path.exists():
        return _read_list(path)
    if path.suffix.lower() in TABLE_SUFFIXES and path.exists():
        return (_read_csv if path.suffix.lower() == ".csv" else _read_parquet)(path, column)
    if os.path.lexists(text):
        return [text]
    if glob.has_magic(text):
        found = glob.iglob(text, recursive=True)  # noqa: PTH207  # patterns of any place, not below one folder
        return (name for name in found if not Path(name).is_dir())
    raise InputError(f"{text}: expected a folder, a picture, a list, a table or a glob, found nothing of that name")


def _read_list(path: Path) -> list[str]:
    with open_regular(path) as file:
        content = file.read().removeprefix(BOM_UTF8)
    return list(_read_lines(os.fsdecode(line) for line in content.split(b"\n")))


def _read_stdin(stdin: TextIO | None) -> Iterator[str]:
    if stdin is None:  # as Python has it where the shell closed it
        raise InputError("-: expected a list of pictures on standard input, but that is closed")
    return _read_lines(stdin)


def _read_lines(lines: Iterable[str]) -> Iterator[str]:
    return (text for line in lines if (text := line.rstrip("\r\n")))


def _read_csv(path: Path, column: str | None) -> Iterator[str]:
    """Yield a column; spreadsheets write a mark before the first name, which "utf-8-sig" leaves out."""
    with open_regular(path) as file, io.TextIOWrapper(file, "utf-8-sig", "surrogateescape", newline="") as text:
        try:
            rows = csv.DictReader(text)
            chosen = _choose_column(path, list(rows.fieldnames or ()), column)
            yield from (row[chosen] for row in rows if row[chosen])
        except csv.Error as error:
            raise FormatError(f"{path}: cannot be read as CSV ({error})") from None


def _read_parquet(path: Path, column: str | None) -> Iterator[Entry]:
    parquet = import_package("pyarrow.parquet")
    types = import_package("pyarrow").types
    with reading_store(str(path)):
        schema = parquet.read_schema(path)
        chosen = _choose_column(path, schema.names, column)
        kind = schema.field(chosen).type
        kind = kind.value_type if types.is_dictionary(kind) else kind
        if types.is_struct(kind) or types.is_binary(kind) or types.is_large_binary(kind):
            yield from ((str(path), chosen, row) for row in range(parquet.read_metadata(path).num_rows))
            return
        if not (types.is_string(kind) or types.is_large_string(kind)):
            raise InputError(f"{path}: expected column {chosen} to hold paths or the bytes of pictures, found {kind}")
        for batch in parquet.ParquetFile(path).iter_batches(columns=[chosen]):
            yield from (value for value in batch.column(0).to_pylist() if value)


def _choose_column(path: Path, names: Sequence[str], column: str | None) -> str:
    wanted = COLUMNS if column is None else (column,)
    for name in wanted:
        if name in names:
            return name
    listed = ", ".join(map(repr, names[:10]))
    raise InputError(f"{path}: expected a column {' or '.join(wanted)}, found {listed}; name one with --column")


def _list_addresses(address: str) -> Iterator[str]:
    filesystem, path = open_address(address)
    scheme = address.partition("://")[0]
    with reading_store(address):
        if glob.has_magic(path):
            found = filesystem.glob(path)
        elif filesystem.isdir(path):
            found = [name for name in filesystem.find(path) if is_picture(name.removeprefix(path).lstrip("/"))]
        else:
            found = None
    if found is None:
        yield address
    else:
        yield from (f"{scheme}://{name.lstrip('/') if scheme != 'file' else name}" for name in found)


def open_address(address: str) -> tuple[Any, str]:
    """Return the file system of an address, and the path there. Raises UnavailableError for what cannot be opened."""
    fsspec = import_package("fsspec")
    try:
        filesystem, path = fsspec.core.url_to_fs(address)
    except Exception as error:  # a protocol's package that is missing, or whatever it says of the address
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise UnavailableError(f"{address}: cannot be opened ({reason[:200]})") from None
    return filesystem, str(path)


@contextmanager
def reading_store(where: str) -> Iterator[None]:
    """Have whatever a bucket, a server or a table raises be one FormatError: every store has its own errors."""
    try:
        yield
    except MinimobileError:
        raise
    except Exception as error:
        raise FormatError(f"{where}: cannot be read ({type(error).__name__}: {str(error)[:120]})") from None


def import_package(name: str) -> Any:
    """Return a package of the extra `bulk`, or say how to get it."""
    return import_extra(name, "bulk", "for tables and addresses", "; without it, take paths and --format jsonl or csv")
