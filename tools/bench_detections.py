"""Milliseconds of what makes detections of predictions for COCO's 90 classes: random ones, or a detector's."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
from PIL import Image

import minimobile as mm
from minimobile.execution.detection import PostProcessor, convert_scores
from minimobile.imaging.folders import list_pictures
from minimobile.networks.ssd_config import MobileNetSSDConfig
from minimobile_kernels import entries
from minimobile_kernels.detection_rules import pack_rules, work_sizes


def time_all_detections(source: str, folder: Path) -> dict[str, dict[str, float]]:
    """Return milliseconds by what is detected, a folder's pictures or (without a source) random boxes, and by rules."""
    if source:
        cases = find_predictions(source, folder)
    else:
        cases = {f"{count} anchors, random": draw_predictions(count) for count in (1917, 5118)}
    return {name: time_detections(*case) for name, case in cases.items()}


def draw_predictions(count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return box encodings, scores of 90 classes and a background, and anchors, at random."""
    rng = np.random.default_rng(count)
    anchors = np.concatenate([rng.uniform(0, 1, (count, 2)), rng.uniform(0.05, 0.5, (count, 2))], 1)
    logits = (2 * rng.standard_normal((count, 91)) - 5).astype(np.float32)
    encodings = rng.standard_normal((count, 4)).astype(np.float32)
    return encodings, convert_scores(logits, "sigmoid"), anchors.astype(np.float32)


def find_predictions(source: str, folder: Path) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Return the same of a detector for each picture of a folder; it has to have 90 classes."""
    model, found = mm.load(source), {}
    for path in list_pictures(folder):
        with Image.open(path) as photo:
            pixels = model.processor(photo.convert("RGB"), return_tensors="np")["pixel_values"]
        out = model(pixels)
        scores = convert_scores(out.logits[0], model.config.ssd.score_converter)
        found[path.name] = out.box_encodings[0], scores, model.anchors(*pixels.shape[2:])
    return found


def time_detections(encodings: np.ndarray, scores: np.ndarray, anchors: np.ndarray) -> dict[str, float]:
    """Return the milliseconds (minimum of 200) of decoding, sorting and suppression together, by the rules."""
    found = {}
    for name, ssd in {
        "fast": MobileNetSSDConfig(),
        "class by class": MobileNetSSDConfig(use_regular_nms=True),
        "TensorFlow's": MobileNetSSDConfig(post_processing="tensorflow"),
    }.items():
        rules = PostProcessor(ssd, 90, anchors).rules._replace(label_offset=scores.shape[1] - 90)
        shape, size = work_sizes(len(anchors), 90)
        out, count = np.zeros((ssd.max_detections, 6), np.float32), np.zeros(2, np.int64)
        call = entries.detect.bind(
            encodings, scores.reshape(-1), anchors, pack_rules(rules, ssd.box_scales), np.empty(shape, np.float32),
            np.empty(size, np.int64), out, count,
        )  # fmt: skip
        times = []
        for _ in range(200):
            start = time.perf_counter()
            call()
            times.append(time.perf_counter() - start)
        found[name] = 1e3 * min(times)
    return found
