"""What an image processor does to a picture, in one line, and the size that it gives to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from PIL.Image import Resampling

from minimobile.imaging.settings import SETTINGS


def describe_settings(settings: Mapping[str, Any]) -> str:
    """Return the steps of a preprocessor_config.json in words; what it leaves out has the processors' defaults.

    >>> describe_settings({"size": {"shortest_edge": 256}, "crop_size": {"height": 224, "width": 224}})
    'shortest edge to 256 (bilinear), crop 224 x 224, scale to [-1, 1]'
    """
    values = _complete(settings)
    steps = []
    if values["central_fraction"]:
        steps.append(f"keep the central {values['central_fraction']:g}")
    if values["do_resize"]:
        steps.append(f"{_show_size(values['size'])} ({_show_method(values)})")
    if values["do_center_crop"]:
        steps.append(f"crop {_show_size(values['crop_size'])}")
    if values["canvas_size"]:
        steps.append(f"fill up to {_show_size(values['canvas_size'])} with {values['canvas_value']:g}")
    if values["do_pad"] and values["pad_size"]:
        steps.append(f"pad to {_show_size(values['pad_size'])}")
    factor = values["rescale_factor"] if values["do_rescale"] else 1
    if values["do_normalize"]:
        steps.append(_show_range(factor, _as_list(values["image_mean"]), _as_list(values["image_std"])))
    elif values["do_rescale"]:
        steps.append(f"multiply by {_show_factor(factor)}")
    return ", ".join(steps) or "nothing"


def find_size(settings: Mapping[str, Any]) -> tuple[int, int] | None:
    """Return (height, width) that the processor brings pictures to, short of padding; None where it is each its own.

    >>> find_size({"size": {"shortest_edge": 160}, "crop_size": {"height": 128, "width": 128}})
    (128, 128)
    """
    values = _complete(settings)
    last_first = {
        "canvas_size": True,
        "crop_size": values["do_center_crop"],
        "size": values["do_resize"],
    }
    for name, is_done in last_first.items():
        size = values[name]
        if is_done and isinstance(size, Mapping) and {"height", "width"} <= set(size):
            return int(size["height"]), int(size["width"])
    return None


def _complete(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {name: setting.default for name, setting in SETTINGS.items()} | dict(settings)


def _show_size(size: Any) -> str:
    if not isinstance(size, Mapping):
        return str(size)
    edges = [f"{name.replace('_', ' ')} to {edge}" for name, edge in size.items() if name.endswith("_edge")]
    if edges:
        return ", ".join(edges)
    if "max_height" in size:
        return f"fit into {size['max_height']} x {size['max_width']}"
    return f"{size['height']} x {size['width']}"


def _show_method(values: Mapping[str, Any]) -> str:
    if values["resize_method"]:
        return str(values["resize_method"]).replace("_", " ")
    return Resampling(values["resample"]).name.lower()


def _show_range(factor: float, mean: Sequence[float], std: Sequence[float]) -> str:
    if abs(factor * 255 - 1) < 1e-6 and set(mean) == set(std) == {0.5}:
        return "scale to [-1, 1]"
    return f"multiply by {_show_factor(factor)}, subtract {_show_numbers(mean)}, divide by {_show_numbers(std)}"


def _show_factor(factor: float) -> str:
    return f"1/{1 / factor:g}" if 0 < factor < 1 else f"{factor:g}"


def _show_numbers(numbers: Sequence[float]) -> str:
    return f"{numbers[0]:g}" if len(set(numbers)) == 1 else f"({', '.join(f'{number:g}' for number in numbers)})"


def _as_list(value: Any) -> Sequence[float]:
    return value if isinstance(value, Sequence) else [value]
