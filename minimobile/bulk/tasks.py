"""What a row of each task holds, and how it is computed from one picture."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from minimobile.bulk.options import BulkOptions
from minimobile.errors import InputError
from minimobile.imaging.drawing import encode_png
from minimobile.models.classification import classify
from minimobile.models.detection import find_objects
from minimobile.models.outputs import require_finite
from minimobile.models.segmentation import Segmentation, find_classes


class Column(NamedTuple):
    """A column: its name, what a cell holds ("string", "int32", "file", "list<float64>", ...), and its fixed length."""

    name: str
    kind: str
    length: int = 0


COMMON = (
    Column("path", "string"),
    Column("sha256", "string"),
    Column("error", "string"),
    Column("width", "int32"),
    Column("height", "int32"),
)


@dataclass(frozen=True)
class Result:
    """What one picture gave: cells by column, whole maps by layer, files by kind (their bytes; PNG)."""

    cells: Mapping[str, Any] = field(default_factory=dict)
    maps: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    files: Mapping[str, bytes] = field(default_factory=dict)


class Photo(NamedTuple):
    """A picture in RGB, and the (height, width) that it has in its file: a draft of it is smaller."""

    picture: Image.Image
    size: tuple[int, int]


class Task(NamedTuple):
    """One task: the class of models it needs (the end of its name), its columns, and its work on one picture."""

    model: str
    columns: Callable[[Any, BulkOptions], tuple[Column, ...]]
    compute: Callable[[Any, Photo, BulkOptions], Result]


def columns_of(model: Any, options: BulkOptions) -> tuple[Column, ...]:
    """Return all columns of a run's table, in order."""
    return (*COMMON, *TASKS[options.task].columns(model, options))


def _classify(model: Any, photo: Photo, options: BulkOptions) -> Result:
    found = classify(photo.picture, model=model, top=options.top)
    return Result({name: [row[name] for row in found] for name in ("index", "label", "probability", "logit")})


def _classify_columns(model: Any, options: BulkOptions) -> tuple[Column, ...]:
    return (
        Column("index", "list<int32>"),
        Column("label", "list<string>"),
        Column("probability", "list<float64>"),
        Column("logit", "list<float32>"),
    )


def _features(model: Any, photo: Photo, options: BulkOptions) -> Result:
    asked = {name: int(name) if name.lstrip("-").isdecimal() else name for name in options.layers}
    found = model.features(model.processor.prepare(photo.picture), layers=list(asked.values()))
    cells: dict[str, Any] = {}
    maps: dict[str, NDArray[np.float32]] = {}
    for name, key in asked.items():
        require_finite(found[key], "picture", f"values of {name}")
        values = found[key][0]
        if values.ndim == 1:
            cells[name] = values
        else:
            maps[name] = values
    return Result(cells, maps)


def _features_columns(model: Any, options: BulkOptions) -> tuple[Column, ...]:
    """A layer of one pixel is a cell of fixed length; of any other the cell names the file of its maps."""
    found = _features(model, Photo(Image.new("RGB", (64, 64)), (64, 64)), options)
    return tuple(
        Column(name, "list<float32>", len(found.cells[name])) if name in found.cells else Column(name, "string")
        for name in options.layers
    )


def _segment(model: Any, photo: Photo, options: BulkOptions) -> Result:
    height, width = photo.size
    found = Segmentation(find_classes(model, photo.picture, size=photo.size), model.id2label, photo.picture)
    files = {"mask": encode_png(found.mask())}
    if options.overlay:
        whole = photo.picture if photo.picture.size == (width, height) else photo.picture.resize((width, height))
        files["overlay"] = encode_png(dataclasses.replace(found, photo=whole).overlay())
    return Result({name: [row[name] for row in found.shares] for name in ("index", "label", "share")}, files=files)


def _segment_columns(model: Any, options: BulkOptions) -> tuple[Column, ...]:
    shares = (Column("index", "list<int32>"), Column("label", "list<string>"), Column("share", "list<float64>"))
    return (*shares, *(Column(kind, "file") for kind in ("mask", *(["overlay"] if options.overlay else []))))


def _detect(model: Any, photo: Photo, options: BulkOptions) -> Result:
    found = find_objects(model, photo.picture, options.threshold, size=photo.size)
    cells = {name: [row[name] for row in found] for name in ("index", "label", "score")}
    return Result({**cells, "box": [list(row["box"].values()) for row in found]})


def _detect_columns(model: Any, options: BulkOptions) -> tuple[Column, ...]:
    """The boxes are (xmin, ymin, xmax, ymax) in pixels of the picture."""
    return (
        Column("index", "list<int32>"),
        Column("label", "list<string>"),
        Column("score", "list<float64>"),
        Column("box", "boxes"),
    )


def require_task(model: Any, options: BulkOptions, where: str) -> None:
    """Raise InputError where a model is not for the task, has no processor, or lacks a layer asked for."""
    task = TASKS[options.task]
    if not type(model).__name__.endswith(task.model):
        raise InputError(f"{where}: expected a model for the task {options.task}, got a {type(model).__name__}")
    if model.processor is None:
        raise InputError(f"{where}: expected a model with image-processor settings, got none; add their file")
    for name in options.layers:
        model.resolve(int(name) if name.lstrip("-").isdecimal() else name)


TASKS: Mapping[str, Task] = {
    "classify": Task("ForImageClassification", _classify_columns, _classify),
    "features": Task("", _features_columns, _features),
    "detect": Task("ForObjectDetection", _detect_columns, _detect),
    "segment": Task("ForSemanticSegmentation", _segment_columns, _segment),
}
