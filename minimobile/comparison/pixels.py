"""Cross-checking what comes before a network: our pixel values beside those of other ways to prepare a picture."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minimobile.comparison.environment import describe_environment
from minimobile.comparison.figures import shorten
from minimobile.comparison.frameworks import import_framework
from minimobile.comparison.report_page import write_page
from minimobile.comparison.verdict import Verdict
from minimobile.errors import InputError, UnavailableError
from minimobile.imaging.image_processing import MobileNetV1ImageProcessor, MobileNetV2ImageProcessor
from minimobile.imaging.pictures import open_image
from minimobile.imaging.settings import ALIGN_CORNERS, RESIZE_METHODS
from minimobile.tables import Table, facts_table

Array = NDArray[Any]
Processor = MobileNetV1ImageProcessor | MobileNetV2ImageProcessor

OTHERS = "the other's processor"
OURS_ALONE = ("central_fraction", "resize_method", "rescale_first", "crop_rounding", "canvas_size", "canvas_value")


@dataclass(frozen=True)
class PixelComparison:
    """Our pixel values beside another way's.

    `is_equal` is None where it could not be run, and `note` says why. `max_difference` is of pixel values,
    `max_levels` the same in steps of the picture's bytes; `share` is that of the positions (row, column) where any
    channel differs, and `first` the first of them: {"channel", "row", "column", "ours", "theirs"}. Where the shapes
    differ there is only the note.
    """

    name: str
    is_equal: bool | None
    max_difference: float | None = None
    max_levels: float | None = None
    share: float | None = None
    first: Mapping[str, float] | None = None
    note: str | None = None


@dataclass(frozen=True, repr=False)
class PixelReport(Verdict):
    """What a comparison of pixel values found. It agrees where those agree that are meant to be equal to ours:
    transformers' PIL class, and another model's processor; `first_difference` names the first that is not.
    """

    pixels: tuple[PixelComparison, ...]

    def __repr__(self) -> str:
        return f"PixelReport({len(self.pixels)} ways: {self._sentences()[0]})"

    def _repr_html_(self) -> str:
        """Return the table of the command `check --pixels`, for notebooks."""
        return self.table().to_html()

    def table(self) -> Table:
        """Return by how much, and where first, each way differs from ours, and the verdict in words below."""
        return tabulate(self.pixels, self._sentences())

    def to_page(self, compared: Mapping[str, object] | None = None) -> str:
        """Return all of it as one HTML page, to be attached to a bug report; `compared` says of what, by names."""
        sections = {
            "Pixels": [tabulate(self.pixels).to_html()],
            "Versions": [facts_table(list(describe_environment().items())).to_html()],
        }
        return write_page("minimobile check, pixels", self._sentences(), sections, compared)

    def _sentences(self) -> tuple[str, ...]:
        if self.agrees:
            return ("agrees: what should be equal is equal, to the bit",)
        return f"differs: {self.first_difference}", self.diagnosis or "no difference of settings explains it"


def tabulate(pixels: Sequence[PixelComparison], notes: Sequence[str] = ()) -> Table:
    """Return by how much, and where first, each way differs from ours."""
    rows = []
    for row in pixels:
        where = ""
        if row.first is not None:
            where = f"row {row.first['row']}, column {row.first['column']}, channel {row.first['channel']}"
        share = "" if row.share is None else f"{100 * row.share:.2f} %"
        figures = (shorten(row.max_difference, 2), shorten(row.max_levels, 2))
        rows.append((row.name, *figures, share, where or row.note or "equal"))
    columns = ("way", "max#", "levels#", "differing#", "first")
    return Table(columns, rows, "our pixel values beside those of", notes)


def compare_processors(processor: Processor, other: Processor, image: Any) -> PixelComparison:
    """Prepare one picture as another model's processor does, and say by how much the result differs from ours.

    `image` is a path, the bytes of a file or a PIL image.
    """
    picture = open_image(image)
    ours = processor(picture, return_tensors="np")["pixel_values"]
    return _compare(OTHERS, ours, lambda: other(picture, return_tensors="np"), _levels(processor))


def compare_pixels(processor: Processor, image: Any, other: Processor | None = None) -> PixelReport:
    """Prepare one picture in every way there is, and say where and by how much the results differ from ours.

    The ways: transformers' class on PIL, to which ours is equal; its class on torchvision, which resizes by other
    arithmetic; `other`, the processor of another model; and our own with TensorFlow 1's two ways to resize.
    `image` is a path, the bytes of a file or a PIL image.

    Raises: UnavailableError where transformers is not installed and there is no `other`.
    """
    picture = open_image(image)
    settings = {key: value for key, value in processor.to_dict().items() if key != "image_processor_type"}
    name = type(processor).__name__
    ways: dict[str, Callable[[], Any]] = {
        "transformers, PIL": lambda: _transformers_class(name, "Pil")(**settings)(picture, return_tensors="np"),
        "transformers, torchvision": lambda: _torchvision_class(name)(**settings)(picture, return_tensors="pt"),
        "TensorFlow 1, bilinear": lambda: processor(picture, return_tensors="np", resize_method=RESIZE_METHODS[0]),
        "TensorFlow 1, align_corners": lambda: processor(picture, return_tensors="np", resize_method=ALIGN_CORNERS),
    }
    meant_equal = ["transformers, PIL"]
    if other is not None:
        ways = {OTHERS: lambda: other(picture, return_tensors="np"), **ways}
        meant_equal.append(OTHERS)
    ours = processor(picture, return_tensors="np")["pixel_values"]
    rows = tuple(_compare(name, ours, way, _levels(processor)) for name, way in ways.items())
    if all(row.is_equal is None for row in rows if row.name in meant_equal):
        raise UnavailableError(next(row.note for row in rows if row.name in meant_equal))
    first = next((row.name for row in rows if row.is_equal is False and row.name in meant_equal), None)
    own_alone = [setting for setting in OURS_ALONE if settings.get(setting) is not None]
    diagnosis = None
    if first == meant_equal[0] and own_alone:
        diagnosis = f"settings: transformers does not know {', '.join(own_alone)}"
    elif first is not None and other is not None and first == meant_equal[-1]:
        settings_differ = describe_settings(processor, other)
        diagnosis = None if settings_differ is None else f"settings: {settings_differ}"
    return PixelReport(rows, first_difference=first, diagnosis=diagnosis)


def describe_settings(processor: Processor, other: Processor) -> str | None:
    """Name the settings in which two processors differ."""
    ours, theirs = processor.to_dict(), other.to_dict()
    names = [
        name for name in {**ours, **theirs} if name != "image_processor_type" and ours.get(name) != theirs.get(name)
    ]
    differing = [f"{name} {theirs.get(name)} (ours: {ours.get(name)})" for name in names]
    return "; ".join(differing) or None


def _transformers_class(name: str, suffix: str) -> Any:
    """Return transformers' image processor; before version 5 the class on PIL had the plain name."""
    transformers = import_framework("transformers")
    return getattr(transformers, name + suffix, None) or getattr(transformers, name)


def _torchvision_class(name: str) -> Any:
    if find_spec("torchvision") is None:
        raise UnavailableError("torchvision is not installed")
    return _transformers_class(name, "")


def _levels(processor: Processor) -> float:
    """Return by how much a pixel value changes, at most, where the picture's byte changes by one."""
    factor = processor.rescale_factor if processor.do_rescale and processor.rescale_factor else 1.0
    deviations = processor.image_std if processor.do_normalize and processor.image_std else 1.0
    return float(factor / np.min(deviations))


def _compare(name: str, ours: Array, way: Callable[[], Any], level: float) -> PixelComparison:
    try:
        theirs = np.asarray(way()["pixel_values"])
    except (InputError, UnavailableError) as error:
        return PixelComparison(name, None, note=str(error))
    except Exception as error:  # transformers' own words for what it cannot do with this picture
        return PixelComparison(name, None, note=f"it fails: {' '.join(str(error).split())[:200]}")
    if theirs.shape != ours.shape:
        return PixelComparison(name, False, note=f"shape {theirs.shape}, ours is {ours.shape}")
    differs = (ours != theirs) & ~(np.isnan(ours) & np.isnan(theirs))
    if not differs.any():
        return PixelComparison(name, True, 0.0, 0.0, 0.0)
    difference = float(np.abs(ours.astype(np.float64) - theirs).max())
    row, column, channel = next(zip(*np.nonzero(differs[0].transpose(1, 2, 0)), strict=True))
    first = {
        "row": int(row),
        "column": int(column),
        "channel": int(channel),
        "ours": float(ours[0, channel, row, column]),
        "theirs": float(theirs[0, channel, row, column]),
    }
    return PixelComparison(name, False, difference, difference / level, float(differs.any(axis=1).mean()), first)
