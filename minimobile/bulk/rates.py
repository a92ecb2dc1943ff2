"""Pictures a second from files to rows: ours beside other runtimes with their usual preprocessing, in turns."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minimobile.bulk.options import BulkOptions
from minimobile.bulk.part_runner import PartRunner
from minimobile.comparison.rivals import Run, open_tflite, prepare
from minimobile.imaging.pictures import open_image

TURN = 100  # pictures
Classify = Callable[[Path], Any]


def compare_rates(
    source: str, pictures: Sequence[Path], against: Sequence[str], threads: int, rounds: int = 3
) -> dict[str, float]:
    """Return {runtime: pictures a second} of classification, the fastest of some rounds over the same pictures.

    Each picture is read, decoded, brought to the network's size and classified by one of `threads` threads, which
    compute alone; loading is not counted. Ours are whole rows of `minimobile run`, hash and labels included. The others
    get the same network: Pillow decodes, resizes with the same filter and crops, NumPy normalises, and the largest five
    are sorted.
    """
    runner = PartRunner(BulkOptions(source, "classify", "jsonl"), threads)
    contestants: dict[str, Callable[[Sequence[Path]], Any]] = {
        "minimobile": lambda some: runner.compute([str(path) for path in some])
    }
    with ThreadPoolExecutor(threads) as pool:
        for name in against:
            classify = _make_rival(name, source, runner.model)
            classify(pictures[0])  # OpenVINO never returns where its first two calls come at the same time
            contestants[name] = partial(_classify_all, pool, classify)
        for run in contestants.values():
            run(pictures[:TURN])
        seconds = {name: [0.0] * rounds for name in contestants}
        for number in range(rounds):
            for first in range(0, len(pictures), TURN):
                for name, run in contestants.items():
                    start = time.perf_counter()
                    run(pictures[first : first + TURN])
                    seconds[name][number] += time.perf_counter() - start
    return {name: len(pictures) / min(taken) for name, taken in seconds.items()}


def _make_rival(name: str, source: str, model: Any) -> Classify:
    """Return what classifies one picture; a thread gets a runtime of its own, for not all can be shared."""
    processor = model.processor
    crop = processor.crop_size if processor.do_center_crop else processor.size
    height, width = crop["height"], crop["width"]
    edge = processor.size.get("shortest_edge", 0)
    own = threading.local()

    def open_runtime() -> Run:
        if model.is_quantized:
            return open_tflite(source, 1)
        return prepare(name, model.graph, model.state_dict(), (1, 3, height, width), 1)

    def classify(path: Path) -> NDArray[Any]:
        if not hasattr(own, "run"):
            own.run = open_runtime()
        image = open_image(path)
        if edge:
            scale = edge / min(image.size)
            image = image.resize((round(image.width * scale), round(image.height * scale)), processor.resample)
            left, top = (image.width - width) // 2, (image.height - height) // 2
            image = image.crop((left, top, left + width, top + height))
        else:
            image = image.resize((width, height), processor.resample)
        pixels = np.asarray(image)
        if model.is_quantized:
            return np.argsort(own.run(pixels[None])[0].ravel())[-5:]
        values = (pixels.astype(np.float32) / np.float32(127.5) - np.float32(1)).transpose(2, 0, 1)[None]
        return np.argsort(own.run(np.ascontiguousarray(values))[0].ravel())[-5:]

    return classify


def _classify_all(pool: ThreadPoolExecutor, classify: Classify, pictures: Sequence[Path]) -> None:
    for _ in pool.map(classify, pictures):
        pass
