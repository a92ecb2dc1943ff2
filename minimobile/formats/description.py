"""What a file is and holds, for people: also where it cannot be loaded as a model."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple


class Entry(NamedTuple):
    """One array in a file: its name there, its shape and its type (such as "float32")."""

    name: str
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class Description:
    """A file's format, the school its numbers follow (a row of `dialects.DIALECTS`), who wrote it, and its arrays.

    None where the file does not tell. `facts` are further things worth knowing, such as {"operations": "CONV_2D 15"}.
    `problem` says why the file cannot be loaded as a model; None where it can.
    """

    format: str
    dialect: str | None = None
    producer: str | None = None
    entries: tuple[Entry, ...] = ()
    facts: Mapping[str, str] = field(default_factory=dict)
    problem: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; each entry is {"name", "shape", "dtype"}."""
        values = dataclasses.asdict(self)
        return values | {"entries": [entry._asdict() for entry in self.entries], "facts": dict(self.facts)}
