"""What stands beside a part's table: whole maps of layers as one array a part, masks as files where cells hold none."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from minimobile.bulk.files import replace_whole
from minimobile.bulk.tasks import Result


class _MapFile(NamedTuple):
    """An array that is being written: its name, its stream, and the shape of one row."""

    name: str
    stream: BinaryIO
    shape: tuple[int, ...]


class MapFiles:
    """The arrays and folders of one part, written as its rows come, in order.

    A layer's maps become `_maps/PART.LAYER.npy`, (rows, C, H, W) float32, NaN where the row has an error, and the
    layer's cell that file's name. Masks are cells of Parquet, and else files `_mask/PART/ROW.png`, their cells those
    names. Readers of tables pass over what begins with `_`. All get their names when `stack` is left, and so before the
    part's table gets its own.
    """

    def __init__(self, folder: Path, part: str, count: int, has_files: bool, stack: ExitStack) -> None:
        self._folder = folder
        self._part = part
        self._count = count
        self._has_files = has_files
        self._stack = stack
        self._arrays: dict[str, _MapFile] = {}
        self._folders: dict[str, Path] = {}

    def keep(self, number: int, cells: dict[str, Any], result: Result) -> dict[str, Any]:
        """Store what belongs beside row `number`, and return the row's cells."""
        for layer, values in result.maps.items():
            if layer not in self._arrays:
                self._arrays[layer] = self._open(layer, number, values.shape)
            expected = self._arrays[layer].shape
            if values.shape != expected:
                sentence = (
                    f"{cells['path']}: expected {layer} of the part's first shape {expected}, got {values.shape}; this "
                    "model's processor does not crop"
                )
                known = {name: cells[name] for name in ("path", "sha256", "width", "height")}
                return self.keep(number, {**known, "error": sentence}, Result())
        kept = dict(cells)
        for layer, file in self._arrays.items():
            _write_row(file, result.maps.get(layer))
            if layer in result.maps:
                kept[layer] = file.name
        for kind, content in result.files.items():
            kept[kind] = self._write(kind, number, content) if self._has_files else content
        return kept

    def _open(self, layer: str, before: int, shape: tuple[int, ...]) -> _MapFile:
        """Begin an array, with NaN for the rows before the first that has values."""
        name = f"_maps/{self._part}.{_file_name(layer)}.npy"
        temporary = self._stack.enter_context(replace_whole(self._folder / name))
        file = _MapFile(name, self._stack.enter_context(temporary.open("wb")), shape)
        header = {"descr": "<f4", "fortran_order": False, "shape": (self._count, *shape)}
        np.lib.format.write_array_header_1_0(file.stream, header)
        for _ in range(before):
            _write_row(file, None)
        return file

    def _write(self, kind: str, number: int, content: bytes) -> str:
        if kind not in self._folders:
            temporary = self._stack.enter_context(replace_whole(self._folder / f"_{kind}" / self._part))
            temporary.mkdir()
            self._folders[kind] = temporary
        (self._folders[kind] / f"{number:06d}.png").write_bytes(content)
        return f"_{kind}/{self._part}/{number:06d}.png"


def _write_row(file: _MapFile, values: Any) -> None:
    row = np.full(file.shape, np.nan, "<f4") if values is None else np.ascontiguousarray(values, "<f4")
    file.stream.write(row.tobytes())


def _file_name(layer: str) -> str:
    return "".join(character if character.isalnum() or character in "._-" else "_" for character in layer)
