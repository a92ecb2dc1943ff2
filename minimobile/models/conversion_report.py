"""What a conversion did: as data, and in pairs of a word and what there is to say of it."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from minimobile.tables import facts_table


@dataclass(frozen=True, repr=False)
class ConversionReport:
    """What a conversion read and wrote.

    `format`, `dialect` and `producer` are the source's. `mapped` is {name of an array in the source: canonical name},
    `ignored` {name of an array or a layer there: why it is not needed}. `missing` are the weights of the network that
    the source lacks and no output needs, `idle` those of them that were written all the same, as zeros, because the
    class that reads them has them. `rounded` are the weights that `dtype` cannot hold exactly, `written` the arrays of
    the destination, by their names there. `notes` say what the written layout cannot tell its readers. `has_integers`
    says that the source's integers were written as they are: `dtype` is then that of what they stand for.
    """

    source: str
    destination: str
    format: str
    dialect: str
    producer: str | None
    architecture: str
    layout: str
    dtype: str
    mapped: Mapping[str, str]
    ignored: Mapping[str, str]
    missing: tuple[str, ...]
    idle: tuple[str, ...]
    rounded: tuple[str, ...]
    written: tuple[str, ...]
    notes: tuple[str, ...]
    has_integers: bool = False

    def __repr__(self) -> str:
        return (
            f"ConversionReport({self.source} to {self.destination}: {self.architecture}, {len(self.mapped)} arrays "
            f"mapped, {len(self.ignored)} ignored, {len(self.written)} written)"
        )

    def _repr_html_(self) -> str:
        """Return the table of the command `convert`, for notebooks."""
        notes = [f"note: {note}" for note in self.notes]
        return dataclasses.replace(facts_table(list_facts(self)), notes=notes).to_html()

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return dataclasses.asdict(self)


def list_facts(report: ConversionReport) -> list[tuple[str, object]]:
    """Return what was read, what became of each array, and what was written."""
    origin = [report.format, f"dialect {report.dialect}", *([f"by {report.producer}"] if report.producer else [])]
    rows: list[tuple[str, object]] = [
        ("read", report.source),
        ("format", ", ".join(origin)),
        ("network", report.architecture),
        ("mapped", _count(report.mapped, "array")),
    ]
    rows += [("ignored", text) for text in _group(report.ignored)]
    if report.missing:
        became = "; written as zeros" if report.idle else ""
        rows.append(
            ("missing", f"{_count(report.missing, 'weight')} that no output needs{became}: {_list(report.missing)}")
        )
    if report.rounded:
        rows.append(("rounded", f"{_count(report.rounded, 'array')} to {report.dtype}"))
    rows.append(("wrote", report.destination))
    numbers = "integers" if report.has_integers else report.dtype
    rows.append(("format", f"{report.layout}, {_count(report.written, 'array')}, {numbers}"))
    return rows


def _group(ignored: Mapping[str, str]) -> Iterable[str]:
    names = defaultdict(list)
    for name, reason in ignored.items():
        names[reason].append(name)
    for reason, group in names.items():
        yield f"{len(group)} ({reason}): {_list(group)}"


def _count(items: Iterable[str], noun: str) -> str:
    count = len(list(items))
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _list(names: Iterable[str], shown: int = 2) -> str:
    names = list(names)
    return ", ".join(names[:shown]) + (", ..." if len(names) > shown else "")
