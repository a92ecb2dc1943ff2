"""From a picture's file to its classes in another runtime, with the preprocessing that is usual beside it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minimobile.comparison.rivals import IN_INTEGERS, Run, open_tflite, prepare, prepare_integers
from minimobile.errors import InputError
from minimobile.imaging.pictures import open_image

Classify = Callable[[Path], NDArray[Any]]
"""From a picture's file to the indices of the likeliest five classes."""


def prepare_classifier(name: str, source: str | Path, model: Any, num_threads: int) -> Classify:
    """Return what classifies a picture by the same network in the named runtime.

    Pillow decodes, resizes with the same filter and crops, NumPy normalises to -1..1, and the largest five are sorted.
    A quantised file goes to LiteRT as it is, which then takes bytes; to ONNX Runtime and OpenVINO as `prepare_integers`
    has it. Raises InputError for a quantised file in another runtime.
    """
    processor = model.processor
    crop = processor.crop_size if processor.do_center_crop else processor.size
    height, width = crop["height"], crop["width"]
    edge = processor.size.get("shortest_edge", 0)
    takes_bytes = model.is_quantized and name == "litert"
    run = _open(name, source, model, (1, 3, height, width), num_threads)

    def classify(path: Path) -> NDArray[Any]:
        image = open_image(path)
        if edge:
            scale = edge / min(image.size)
            image = image.resize((round(image.width * scale), round(image.height * scale)), processor.resample)
            left, top = (image.width - width) // 2, (image.height - height) // 2
            image = image.crop((left, top, left + width, top + height))
        else:
            image = image.resize((width, height), processor.resample)
        pixels = np.asarray(image)
        if takes_bytes:
            stored = pixels if model.quantized_input.dtype == np.uint8 else (pixels ^ np.uint8(128)).view(np.int8)
            return np.argsort(run(stored[None])[0].ravel())[-5:]
        values = (pixels.astype(np.float32) / np.float32(127.5) - np.float32(1)).transpose(2, 0, 1)[None]
        return np.argsort(run(np.ascontiguousarray(values))[0].ravel())[-5:]

    return classify


def _open(name: str, source: str | Path, model: Any, shape: tuple[int, int, int, int], num_threads: int) -> Run:
    if not model.is_quantized:
        return prepare(name, model.graph, model.state_dict(), shape, num_threads)
    if name == "litert":
        return open_tflite(source, num_threads)
    if name not in IN_INTEGERS:
        raise InputError(f"{name}: expected litert, {' or '.join(IN_INTEGERS)} for a quantised file")
    from minimobile.models.auto import load

    floats: Any = load(source, dequantize=True)
    return prepare_integers([name], floats.graph, floats.state_dict(), shape, num_threads)[name]
