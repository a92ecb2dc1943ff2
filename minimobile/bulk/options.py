"""How a run computes, and the fingerprint by which a run that goes on knows that it is the same."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import PIL.features

from minimobile.arguments import check_choice, read_flag
from minimobile.bulk.entries import import_package
from minimobile.bulk.files import create_once
from minimobile.errors import InputError
from minimobile.imaging.detections import check_threshold
from minimobile.storage.hub import part_hub_options

TASKS = ("classify", "features", "segment", "detect")
FORMATS = ("parquet", "csv", "jsonl")
RUN_FILE = "_run.json"


@dataclass(frozen=True)
class BulkOptions:
    """What decides the bytes of a run's table, and nothing else: the model's source, the task, and the table's form.

    `layers` are those whose values `features` writes, `top` the classes that `classify` lists, `threshold` what the
    objects of `detect` must score more than; `overlay` adds a picture for people to each mask of `segment`. `draft`
    lets the JPEG decoder halve pictures that will be shrunk: faster, and other pixels. `overrides` are fields of the
    model's config, and other arguments of `load`.
    """

    model: str
    task: str
    format: str = "parquet"
    layers: tuple[str, ...] = ()
    top: int = 5
    threshold: float = 0.5
    overlay: bool = False
    draft: bool = False
    overrides: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_choice(self.task, "task", TASKS)
        check_choice(self.format, "format", FORMATS)
        read_flag(self.overlay, "overlay")
        read_flag(self.draft, "draft")
        _demand(type(self.top) is int and self.top >= 1, "top", "a whole number of 1 or more", self.top)
        object.__setattr__(self, "threshold", check_threshold(self.threshold, "threshold"))
        _demand(self.task == "features" or not self.layers, "layer", f"none for the task {self.task}", self.layers)
        _demand(self.task != "features" or bool(self.layers), "layer", "at least one for the task features", "none")
        _demand(self.task == "segment" or not self.overlay, "overlay", "the task segment", self.task)
        _demand("num_threads" not in self.overrides, "num_threads", "none, for jobs says it", "one")
        for name, value in self._plain_overrides().items():
            _demand(_is_plain(value), name, "a value that JSON can hold, to be told to other processes", value)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {**dataclasses.asdict(self), "layers": list(self.layers), "overrides": self._plain_overrides()}

    def _plain_overrides(self) -> dict[str, Any]:
        return {name: str(value) if isinstance(value, Path) else value for name, value in self.overrides.items()}

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> BulkOptions:
        """Return the options that `to_dict` wrote."""
        return BulkOptions(**{**values, "layers": tuple(values["layers"])})


def fingerprint(model: Any, options: BulkOptions) -> dict[str, Any]:
    """Return all that the bytes of a table depend on but the pictures: model, processor, options, versions.

    Where the model came from is none of it, and the hub's token least of all: this is written beside the table.
    """
    told = options.to_dict()
    told["overrides"] = part_hub_options(told["overrides"])[1]
    return {
        "model": {"class": type(model).__name__, "sha256": model.digest()},
        "processor": model.processor.to_dict(),
        "options": {name: value for name, value in told.items() if name != "model"},
        "versions": _versions(options.format),
    }


def require_same_run(folder: Path, current: Mapping[str, Any]) -> None:
    """Write the fingerprint of a new run, or raise InputError where the folder holds a run of another one."""
    path = folder / RUN_FILE
    create_once(path, [json.dumps(current, indent=1, sort_keys=True, ensure_ascii=True).encode() + b"\n"])
    try:
        found = json.loads(path.read_bytes())
    except ValueError:
        raise InputError(
            f"{path}: expected the description of a run, found a damaged file; take another --out"
        ) from None
    others = list(_differences(found, json.loads(json.dumps(current)), ""))
    if others:
        raise InputError(
            f"{folder}: expected the run that was begun there to go on, but {'; '.join(others[:3])}"
            f"{' and more' if len(others) > 3 else ''}; take another --out, or begin again with what it was begun with"
        )


def _differences(old: Any, new: Any, where: str) -> list[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        return [
            sentence
            for name in sorted(old.keys() | new.keys())
            for sentence in _differences(old.get(name), new.get(name), f"{where} {name}".strip())
        ]
    return [] if old == new else [f"{where} was {_shorten(old)} and is {_shorten(new)}"]


def _versions(table_format: str) -> dict[str, str]:
    found = {
        "minimobile": importlib.metadata.version("minimobile"),
        "numpy": np.__version__,
        "pillow": PIL.__version__,
        "libjpeg": str(PIL.features.version("jpg")),
    }
    if table_format == "parquet":
        found["pyarrow"] = str(import_package("pyarrow").__version__)
    return found


def _demand(is_right: bool, name: str, expected: str, found: object) -> None:
    if not is_right:
        raise InputError(f"{name}: expected {expected}, got {found!r}")


def _is_plain(value: object) -> bool:
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        return False
    return True


def _shorten(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
