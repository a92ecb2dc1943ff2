"""What an image processor can be told: one table of settings with their checks, for constructors, calls and files."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral, Real
from typing import Any, NamedTuple

import numpy as np
from PIL.Image import Resampling

from minimobile.arguments import show
from minimobile.errors import MinimobileError

MAX_EDGE = 65_536
MAX_AREA = 1 << 28
MAX_CANVAS_AREA = 1 << 24  # scores of every class are computed for each pixel of it
LAYOUTS = ("channels_first", "channels_last")
FRAMEWORKS = ("np", "pt", "tf", "jax")
ALIGN_CORNERS = "tf1_bilinear_align_corners"
HALF_PIXEL = "half_pixel_bilinear"
RESIZE_METHODS = ("tf1_bilinear", ALIGN_CORNERS, HALF_PIXEL)
CROP_ROUNDINGS = ("half_even",)
_SIZE_KEYS = (
    {"height", "width"},
    {"shortest_edge"},
    {"shortest_edge", "longest_edge"},
    {"longest_edge"},
    {"max_height", "max_width"},
)


class _RefusedError(Exception):
    """A value that fails its check; the message is what was expected instead."""


class Setting(NamedTuple):
    """One setting: its default and the check that brings a value to its canonical form."""

    default: Any
    check: Callable[[Any], Any]


def standardize(
    values: Mapping[str, Any],
    table: Mapping[str, Setting],
    *,
    square: bool,
    where: str,
    error: type[MinimobileError],
) -> dict[str, Any]:
    """Bring settings to their canonical form; None stays None.

    Args:
        values: the settings by name; every name must be in `table`.
        table: the settings there are.
        square: read an integer `size` as height and width (else as the shortest edge); `crop_size` always is.
        where: the beginning of the error message.
        error: the class of the error.

    Raises:
        MinimobileError: of class `error`, for an unknown name or a value of the wrong type or range.
    """
    standard = {}
    for name, value in values.items():
        if name not in table:
            import difflib  # for a mistake alone

            close = difflib.get_close_matches(name, table, 1)
            advice = f"did you mean {close[0]}?" if close else f"there are {', '.join(table)}"
            raise error(f"{where}: there is no setting {name!r}; {advice}")
        check = _check_crop_size if name == "size" and square and _is_whole(value) else table[name].check
        try:
            standard[name] = None if value is None else check(value)
        except _RefusedError as refusal:
            raise error(f"{where}: expected {name} to be {refusal}, got {show(value)}.") from None
    return standard


def _is_whole(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _check_flag(value: Any) -> bool:
    if not isinstance(value, (bool, np.bool_)):
        raise _RefusedError("True or False")
    return bool(value)


def _check_edge(value: Any) -> int:
    if not _is_whole(value) or not 1 <= value <= MAX_EDGE:
        raise _RefusedError(f"made of whole numbers in 1..{MAX_EDGE}")
    return int(value)


def _check_size(value: Any) -> dict[str, int]:
    """Bring a size to a dictionary: an integer is the shortest edge, a pair is (height, width)."""
    if _is_whole(value):
        return {"shortest_edge": _check_edge(value)}
    if isinstance(value, (list, tuple)) and len(value) == 2:
        return {"height": _check_edge(value[0]), "width": _check_edge(value[1])}
    if isinstance(value, Mapping) and set(value) in _SIZE_KEYS:
        return {key: _check_edge(edge) for key, edge in value.items()}
    raise _RefusedError(
        "a whole number, a pair (height, width), or a dictionary with height and width, "
        "shortest_edge (and longest_edge), or max_height and max_width"
    )


def _check_crop_size(value: Any, limit: int = MAX_AREA) -> dict[str, int]:
    size = _check_size({"height": value, "width": value} if _is_whole(value) else value)
    if set(size) != {"height", "width"}:
        raise _RefusedError("a whole number, a pair (height, width), or a dictionary with height and width")
    if size["height"] * size["width"] > limit:
        raise _RefusedError(f"of at most {limit} pixels")
    return size


def _check_canvas_size(value: Any) -> dict[str, int]:
    return _check_crop_size(value, MAX_CANVAS_AREA)


def _check_resample(value: Any) -> Resampling:
    if not _is_whole(value) or value not in list(Resampling):
        names = ", ".join(f"{choice.value} {choice.name.lower()}" for choice in Resampling)
        raise _RefusedError(f"one of PIL's filters ({names})")
    return Resampling(int(value))


def _check_number(value: Any) -> float:
    try:
        number = float(value) if isinstance(value, Real) and not isinstance(value, (bool, np.bool_)) else math.nan
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise _RefusedError("a finite number")
    return number


def _check_fraction(value: Any) -> float:
    number = _check_number(value)
    if not 0 < number <= 1:
        raise _RefusedError("a number above 0 and at most 1")
    return number


def _check_numbers(value: Any) -> float | tuple[float, ...]:
    """Check one number for all channels, or one per channel."""
    if isinstance(value, np.ndarray) and value.ndim == 1:
        value = value.tolist()
    if not isinstance(value, Sequence) or isinstance(value, str):
        return _check_number(value)
    if not value:
        raise _RefusedError("a number or a list of numbers, one per channel")
    return tuple(_check_number(number) for number in value)


def _check_divisors(value: Any) -> float | tuple[float, ...]:
    numbers = _check_numbers(value)
    if 0 in (numbers if isinstance(numbers, tuple) else (numbers,)):
        raise _RefusedError("different from zero, for it divides")
    return numbers


def _one_of(choices: Sequence[str]) -> Callable[[Any], str]:
    def check(value: Any) -> str:
        text = getattr(value, "value", value)  # transformers' enumerations
        if not isinstance(text, str) or text not in choices:
            raise _RefusedError(f"one of {', '.join(choices)}")
        return text

    return check


def _ignore(value: Any) -> None:
    return None


SETTINGS: Mapping[str, Setting] = {
    "do_convert_rgb": Setting(None, _check_flag),
    "do_resize": Setting(True, _check_flag),
    "size": Setting({"shortest_edge": 256}, _check_size),
    "default_to_square": Setting(False, _check_flag),
    "crop_size": Setting({"height": 224, "width": 224}, _check_crop_size),
    "resample": Setting(Resampling.BILINEAR, _check_resample),
    "do_rescale": Setting(True, _check_flag),
    "rescale_factor": Setting(1 / 255, _check_number),
    "do_normalize": Setting(True, _check_flag),
    "image_mean": Setting((0.5, 0.5, 0.5), _check_numbers),
    "image_std": Setting((0.5, 0.5, 0.5), _check_divisors),
    "do_pad": Setting(None, _check_flag),
    "pad_size": Setting(None, _check_crop_size),
    "do_center_crop": Setting(True, _check_flag),
    "data_format": Setting(None, _one_of(LAYOUTS)),
    "input_data_format": Setting(None, _one_of(LAYOUTS)),
    "return_tensors": Setting(None, _one_of(FRAMEWORKS)),
    # What other schools do and transformers does not: None by default, and ignored by transformers where a file has it.
    "central_fraction": Setting(None, _check_fraction),
    "resize_method": Setting(None, _one_of(RESIZE_METHODS)),
    "rescale_first": Setting(None, _check_flag),
    "crop_rounding": Setting(None, _one_of(CROP_ROUNDINGS)),
    "canvas_size": Setting(None, _check_canvas_size),
    "canvas_value": Setting(None, _check_number),
    # These steer transformers' torchvision processors; they have no bearing on the result.
    "device": Setting(None, _ignore),
    "disable_grouping": Setting(None, _ignore),
    "image_seq_length": Setting(None, _ignore),
}
SEGMENTATION_SETTINGS: Mapping[str, Setting] = {**SETTINGS, "do_reduce_labels": Setting(False, _check_flag)}

NEEDS = {
    "do_resize": ("size", "resample"),
    "do_center_crop": ("crop_size",),
    "do_rescale": ("rescale_factor",),
    "do_normalize": ("image_mean", "image_std"),
    "rescale_first": ("resize_method",),
    "canvas_size": ("canvas_value",),
}
"""What each step cannot do without."""
