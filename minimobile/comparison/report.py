"""What a comparison of layers found, as data and as a table."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from minimobile.comparison.answers import Answers
from minimobile.comparison.array_differences import ArrayComparison, list_differences
from minimobile.comparison.array_differences import tabulate as tabulate_arrays
from minimobile.comparison.array_relations import EQUAL
from minimobile.comparison.figures import shorten
from minimobile.comparison.pixels import PixelComparison
from minimobile.comparison.pixels import tabulate as tabulate_pixels
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
    cannot be told, and `doubt` says why. `arrays` says of every array what the other side has for it, where those are
    at hand, whether that shows or not; `pixels` what the other's image processor makes of the picture, and `processors`
    in which settings the two differ, which a comparison on the same pixels does not see. `worst` is the value that is
    farthest off, of the first layer that differs; `environment` has versions and the processor. `answers` says of a
    file of integers, where layers that are shown leave a doubt, whether the last is ours when nothing else is shown.
    """

    against: str
    layers: tuple[LayerComparison, ...]
    arrays: tuple[ArrayComparison, ...] = ()
    processors: str | None = None
    pixels: PixelComparison | None = None
    worst: WorstValue | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    answers: Answers | None = None

    def __repr__(self) -> str:
        return f"Report(against {self.against}: {self.sentences()[0]})"

    def _repr_html_(self) -> str:
        """Return the table of the command `check`, for notebooks."""
        return self.table().to_html()

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        plain = dataclasses.asdict(dataclasses.replace(self, worst=None))
        return {"agrees": self.agrees, **plain, "worst": None if self.worst is None else self.worst.to_dict()}

    @property
    def differing_arrays(self) -> tuple[ArrayComparison, ...]:
        """The arrays between which there is more than float32's rounding."""
        return tuple(array for array in self.arrays if array.differs)

    def to_page(self, compared: Mapping[str, object] | None = None) -> str:
        """Return all of it as one HTML page, to be attached to a bug report; `compared` says of what, by names."""
        sections = {**self.sections(), "Versions": [facts_table(list(self.environment.items())).to_html()]}
        return write_page(f"minimobile check, against {self.against}", self.sentences(), sections, compared)

    def sections(self) -> dict[str, list[str]]:
        """Return what there is to see, as HTML under its headings: arrays first, then pixels, then layers."""
        arrays = [tabulate_arrays(self.arrays).to_html()] if self.arrays else []
        if any(array.kind != EQUAL for array in self.arrays):
            arrays.append(list_differences(self.arrays).to_html())
        table = self.table()
        return {
            "Arrays": arrays,
            "Pixels": [] if self.pixels is None else [tabulate_pixels([self.pixels]).to_html()],
            "Layers": [Table(table.columns, table.rows).to_html(), f"<p>{_COLUMNS}</p>"],
            "The value that is farthest off": [] if self.worst is None else write_worst(self.worst),
        }

    def tables(self) -> tuple[Table, ...]:
        """Return arrays and pixels, where both sides' are at hand, and the layers with the verdict below."""
        arrays = (tabulate_arrays(self.arrays),) if self.arrays else ()
        return *arrays, *(() if self.pixels is None else (tabulate_pixels([self.pixels]),)), self.table()

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
        return Table(columns, rows, f"against {self.against}", self.sentences())

    def sentences(self) -> tuple[str, ...]:
        """Return the verdict in words."""
        return tuple(self._sentences())

    def _sentences(self) -> Iterator[str]:
        if self.agrees is False:
            count = sum(layer.agrees is False for layer in self.layers)
            yield f"differs: first at {self.first_difference}, in {count} of {len(self.layers)} layers (*)"
            if self.worst is not None:
                yield str(self.worst)
            yield self.diagnosis or "no known fault explains it"
        elif self.agrees is None:
            yield f"cannot tell: {self.doubt}" + ("" if self.answers is None else f"; {self.answers}")
        elif self.answers is not None:
            yield f"agrees: {self.answers}; where its layers are shown, rounding explains every difference in them"
        else:
            yield f"agrees: rounding explains every difference in {len(self.layers)} layers"
        if self.processors is not None:
            yield f"the image processors differ, and both sides got our pixels: {self.processors}"
        if self.agrees is not False:
            yield from self._weights_sentences()

    def _weights_sentences(self) -> Iterator[str]:
        for is_same, words in ((False, ""), (True, "; with batch norm folded in they come to the same")):
            names = [array.name for array in self.differing_arrays if array.is_same_folded is is_same]
            if names:
                more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
                yield f"weights that are not ours, on the other side: {', '.join(names[:_NAMED])}{more}{words}"
