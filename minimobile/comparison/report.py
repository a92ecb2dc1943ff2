"""What a comparison of layers found, as data and as a table."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from minimobile.comparison.array_differences import ArrayDifference
from minimobile.comparison.figures import shorten
from minimobile.comparison.report_page import write_page, write_worst
from minimobile.comparison.verdict import Verdict
from minimobile.comparison.worst_value import WorstValue
from minimobile.tables import Table, facts_table

_NAMED = 3  # so many arrays are worth naming
_COLUMNS = (
    "max and rms: differences of the two sides; ours and theirs: relative error of each to a run in float64; ulps: how "
    "many float32 numbers lie between them (median); bound: how many times more than float32 can explain the other "
    "side is off, on its own inputs. Above 1 a layer differs (*)."
)


@dataclass(frozen=True)
class LayerComparison:
    """One layer on both sides. Shapes are (N, C, H, W); what cannot be told, because they differ, is None.

    `agrees` is None where the limits are so wide that weights of fewer bits (float16) would pass as well.
    `max_difference` and `rms_difference` are between the sides; `our_error` and `their_error` are the rms distance of
    each from the float64 run, relative to that run's rms; `max_ulps` and `median_ulps` count the float32 numbers from
    one side's value to the other's; `cosine` is that of the angle between them. `excess` is how many times more than
    what float32 (or, in a quantised file, a step of the tensor's grid) explains their values are off, on their own
    inputs: above 1 the layer differs.
    """

    name: str
    shape: tuple[int, ...]
    their_shape: tuple[int, ...]
    agrees: bool | None
    excess: float
    max_difference: float | None = None
    rms_difference: float | None = None
    our_error: float | None = None
    their_error: float | None = None
    max_ulps: int | None = None
    median_ulps: float | None = None
    cosine: float | None = None


@dataclass(frozen=True, repr=False)
class Report(Verdict):
    """What a comparison of layers found; `first_difference` names a layer.

    `agrees` is whether rounding, that of float32 or of a tensor's integers, explains every difference; None where that
    cannot be told, and `doubt` says why. `arrays` are those that the other side has otherwise, where they are at hand,
    whether that shows or not; `processors` says in what the image processors differ, which a comparison on the same
    pixels does not see. `worst` is the value that is farthest off, of the first layer that differs; `environment` has
    versions and the processor.
    """

    against: str
    layers: tuple[LayerComparison, ...]
    arrays: tuple[ArrayDifference, ...] = ()
    processors: str | None = None
    worst: WorstValue | None = None
    environment: Mapping[str, str] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"Report(against {self.against}: {next(self._sentences())})"

    def _repr_html_(self) -> str:
        """Return the table of the command `check`, for notebooks."""
        return self.table().to_html()

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        plain = dataclasses.asdict(dataclasses.replace(self, worst=None))
        return {"agrees": self.agrees, **plain, "worst": None if self.worst is None else self.worst.to_dict()}

    def to_page(self) -> str:
        """Return all of it as one HTML page, to be attached to a bug report."""
        table = self.table()
        rows = [(array.name, f"{array.count} of {array.size}", array.how) for array in self.arrays]
        arrays = [Table(("array", "values#", "what differs"), rows).to_html()] if rows else []
        sections = {
            "Layers": [Table(table.columns, table.rows).to_html(), f"<p>{_COLUMNS}</p>"],
            "Arrays": arrays,
            "The value that is farthest off": [] if self.worst is None else write_worst(self.worst),
            "Versions": [facts_table(list(self.environment.items())).to_html()],
        }
        return write_page(self.against, table.notes, sections)

    def table(self) -> Table:
        """Return differences, errors and bounds of every layer, and the verdict in words below."""
        rows = []
        for layer in self.layers:
            shape = "x".join(map(str, layer.shape[1:]))
            if layer.shape != layer.their_shape:
                shape += " / " + "x".join(map(str, layer.their_shape[1:]))
            angle = None if layer.cosine is None else abs(1 - layer.cosine)
            mark = {True: "", False: "*", None: "?"}[layer.agrees]
            rows.append(
                (
                    layer.name,
                    shape,
                    *(shorten(x, 1) for x in (layer.max_difference, layer.rms_difference)),
                    *(shorten(x, 2) for x in (layer.our_error, layer.their_error)),
                    *(shorten(x, 1) for x in (layer.median_ulps, angle)),
                    mark + shorten(layer.excess, 1),
                )
            )
        columns = ("layer", "shape#", "max#", "rms#", "ours#", "theirs#", "ulps#", "1-cos#", "bound#")
        return Table(columns, rows, f"against {self.against}", tuple(self._sentences()))

    def _sentences(self) -> Iterator[str]:
        if self.agrees is False:
            count = sum(layer.agrees is False for layer in self.layers)
            yield f"differs: first at {self.first_difference}, in {count} of {len(self.layers)} layers (*)"
            if self.worst is not None:
                yield str(self.worst)
            yield self.diagnosis or "no known fault explains it"
        elif self.agrees is None:
            yield f"cannot tell: {self.doubt}"
        else:
            yield f"agrees: rounding explains every difference in {len(self.layers)} layers"
        if self.processors is not None:
            yield f"the image processors differ, and both sides got our pixels: {self.processors}"
        if self.arrays and self.agrees is not False:
            names = ", ".join(array.name for array in self.arrays[:_NAMED])
            more = f" and {len(self.arrays) - _NAMED} more" if len(self.arrays) > _NAMED else ""
            yield f"weights that are not ours, on the other side: {names}{more}"
