"""One part: its pictures read, computed by a few threads, and written whole. All that any engine of a run needs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minimobile.bulk.cells import CellReader
from minimobile.bulk.entries import Entry, describe_entry, is_address, open_address, reading_store
from minimobile.bulk.files import replace_whole
from minimobile.bulk.maps import MapFiles
from minimobile.bulk.options import BulkOptions, fingerprint
from minimobile.bulk.plan import Part
from minimobile.bulk.tables import ERROR_COUNTERS, WRITERS
from minimobile.bulk.tasks import TASKS, Photo, Result, columns_of, require_task
from minimobile.errors import FormatError, MinimobileError
from minimobile.imaging.pictures import find_whole_size, open_image
from minimobile.models.auto import load
from minimobile.models.stream import in_order
from minimobile.storage.files import read_limited

LARGEST_FILE = 2**28  # bytes of one picture's file
Killers = Mapping[int, str]


@dataclass(frozen=True)
class PartReport:
    """What became of a part: its rows, and how many of them have an error."""

    name: str
    rows: int
    errors: int


@dataclass
class _Row:
    cells: dict[str, Any]
    result: Result


class PartRunner:
    """Computes parts with one model, which it loads when it is made; may be used for any number of them.

    Args:
        options: what to compute.
        threads: how many pictures are decoded and run at the same time. No bit depends on it.

    Raises:
        InputError: a model of another kind than the task's, without a processor or the layers asked for.
        FormatError: a model that cannot be loaded.
    """

    def __init__(self, options: BulkOptions, threads: int = 1) -> None:
        self.options = options
        self.threads = threads
        self.model: Any = load(options.model, num_threads=1, **options.overrides)
        require_task(self.model, options, options.model)
        self.columns = columns_of(self.model, options)
        self.fingerprint = fingerprint(self.model, options)
        sizes = (self.model.processor.size, self.model.processor.crop_size)
        sides = [side for size in sizes if size for side in size.values()]
        self._cells = CellReader()
        is_resized = self.model.processor.do_resize or options.task == "segment"
        self._draft = max(sides, default=None) if options.draft and is_resized else None

    def run(
        self,
        part: Part,
        folder: str | Path,
        *,
        killers: Killers | None = None,
        before: Callable[[int], None] | None = None,
        after: Callable[[int], None] | None = None,
    ) -> PartReport:
        """Compute a part and write it to a folder, whole; what is there already is left as it is.

        Args:
            part: a part of a plan.
            folder: where the table lies.
            killers: {row: sentence} of pictures that must not be touched: they get that error.
            before: called with a row's number before its picture is read; pictures then come one at a time.
            after: called with the number of rows that are done.

        Raises:
            FormatError: the folder cannot be written to.
        """
        target = Path(folder) / f"{part.name}.{self.options.format}"
        if target.exists():
            return PartReport(part.name, part.count, ERROR_COUNTERS[self.options.format](target))
        entries = part.entries()
        numbers = range(len(entries))

        def compute(number: int) -> _Row:
            if killers and number in killers:
                return _Row({"path": describe_entry(entries[number]), "error": killers[number]}, Result())
            if before is not None:
                before(number)
            return self._compute(entries[number], part.root)

        rows: list[dict[str, Any]] = []
        threads = 1 if before is not None else self.threads
        with ExitStack() as stack:
            maps = MapFiles(Path(folder), part.name, len(entries), self.options.format != "parquet", stack)
            for number, row in zip(numbers, in_order(compute, numbers, threads), strict=True):
                rows.append(maps.keep(number, row.cells, row.result))
                if after is not None:
                    after(number + 1)
        with replace_whole(target) as temporary:
            WRITERS[self.options.format](temporary, self.columns, rows, self.fingerprint)
        return PartReport(part.name, len(rows), sum(row.get("error") is not None for row in rows))

    def compute(self, pictures: Iterable[str | bytes]) -> list[dict[str, Any]]:
        """Return the rows of pictures, given as paths or as the bytes of their files, without whole maps."""
        rows = in_order(lambda item: self._compute(item, ""), pictures, self.threads)
        return [{**row.cells, **row.result.files} for row in rows]

    def _compute(self, entry: Entry | bytes, root: str) -> _Row:
        """Return the row of one picture; whatever is wrong with it is the row's error."""
        name = f"image of {len(entry)} bytes" if isinstance(entry, bytes) else describe_entry(entry)
        cells: dict[str, Any] = {"path": None if isinstance(entry, bytes) else name}
        try:
            content = entry if isinstance(entry, bytes) else _read(entry, root, self._cells)
            cells["sha256"] = hashlib.sha256(content).hexdigest()
            picture = open_image(content, draft=self._draft)
            height, width = (picture.height, picture.width) if self._draft is None else find_whole_size(content)
            cells |= {"width": width, "height": height}
            result = TASKS[self.options.task].compute(self.model, Photo(picture, (height, width)), self.options)
        except MinimobileError as error:
            return _Row({**cells, "error": _say(error, name, root)}, Result())
        except MemoryError:
            return _Row(
                {**cells, "error": f"{name}: expected a picture that fits the memory, found a larger one"}, Result()
            )
        return _Row({**cells, **result.cells}, result)


def _read(entry: Entry, root: str, cells: CellReader) -> bytes:
    """Return the bytes of a picture's file, table cell or address."""
    if not isinstance(entry, str):
        table, column, row = entry
        return cells.read(str(Path(root) / table), column, row)
    if not is_address(entry):
        return read_limited(Path(root) / entry, LARGEST_FILE)
    filesystem, path = open_address(entry)
    with reading_store(entry):
        size = filesystem.size(path)
        if size is not None and size > LARGEST_FILE:
            raise FormatError(f"{entry}: expected at most {LARGEST_FILE} bytes, found {size}")
        content: bytes = filesystem.cat_file(path)
    return content


def _say(error: MinimobileError, name: str, root: str) -> str:
    """Return what an error says, with the picture's name in front of it, and not the place where the run was begun."""
    text = str(error).removeprefix(f"{Path(root) / name}: ")
    for head in ("image of ", "image", "picture", "photo"):
        if text.startswith(head):
            reason = text.partition(": ")[2] if ": " in text else text
            return f"{name}: {reason}"
    return text if text.startswith(name) else f"{name}: {text}"
