"""Losses of logits and labels: computed in float64, rounded once to the type of the logits."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from minimobile.arrays import read_array
from minimobile.errors import InputError, within_memory
from minimobile.networks.config import MobileNetConfig, MobileNetV2Config
from minimobile_kernels.reference import blend, interpolation_points

Array = NDArray[Any]
Scalar = np.floating[Any]

IGNORED_LABEL = -100  # PyTorch's default: an image with this label counts for nothing
_BAND_ROWS = 64  # rows of an upsampled map held in memory at a time


def infer_problem_type(config: MobileNetConfig, labels: ArrayLike) -> str:
    """Return the config's problem type, or the one transformers infers from the number and the type of the labels."""
    if config.problem_type is not None:
        return config.problem_type
    if config.class_count == 1:
        return "regression"
    is_integer = _read_array(labels).dtype.kind in "iu"
    return "single_label_classification" if config.class_count > 1 and is_integer else "multi_label_classification"


@within_memory("labels")
def classification_loss(logits: Array, labels: ArrayLike, config: MobileNetConfig) -> Scalar:
    """Return the mean loss of logits (N, num_labels) for the config's problem type, as transformers defines it.

    - regression: mean squared error; labels (N,) or (N, 1) for one label, else (N, num_labels).
    - single_label_classification: cross entropy; integer labels (N,), -100 leaves an image out (NaN if all are).
    - multi_label_classification: binary cross entropy of each label; labels (N, num_labels) between 0 and 1.

    Unlike transformers, the inferred problem type is not written into the config.
    """
    if logits.ndim != 2:
        raise InputError(
            f"labels: expected logits (N, {config.class_count}) for a loss, got {logits.shape}; "
            "use an image size or pool_size that pools to a single pixel"
        )
    problem_type = infer_problem_type(config, labels)
    if problem_type == "single_label_classification":
        targets = np.atleast_1d(_read_integers(labels))
        if targets.size != len(logits):
            raise InputError(f"labels: expected {len(logits)} class numbers, one per image, got shape {targets.shape}")
        targets = targets.reshape(-1)
        _check_range(targets, logits.shape[1], IGNORED_LABEL)
        total, count = _cross_entropy(logits.astype(np.float64), targets, IGNORED_LABEL)
        return _round_once(_divide(total, count), logits)

    values = _read_numbers(labels)
    scores = logits.astype(np.float64)
    if problem_type == "regression" and logits.shape[1] == 1:
        scores, values = scores.squeeze(), values.squeeze()
    if scores.shape != values.shape:
        raise InputError(f"labels: expected shape {scores.shape} for {problem_type}, got {values.shape}")
    with np.errstate(all="ignore"):
        if problem_type == "regression":
            return _round_once(np.mean((scores - values) ** 2), logits)
        if not np.all((values >= 0) & (values <= 1)):
            raise InputError("labels: expected numbers between 0 and 1 for multi_label_classification, got others")
        losses = np.maximum(scores, 0) - scores * values + np.log1p(np.exp(-np.abs(scores)))
        return _round_once(np.mean(losses), logits)


@within_memory("labels")
def segmentation_loss(logits: Array, labels: ArrayLike, config: MobileNetV2Config) -> Scalar:
    """Return the mean cross entropy over the pixels of labels (N, H, W), for logits (N, num_labels, h, w).

    The logits are resized to the labels' size (bilinear, half-pixel centres, `align_corners=False`). Pixels of
    `semantic_loss_ignore_index` are left out; NaN if there are no others.
    """
    if config.class_count == 1:
        raise InputError("labels: expected a network with more than one label for a segmentation loss, got one label")
    targets = _read_integers(labels)
    if targets.ndim != 3 or len(targets) != len(logits) or targets.size == 0:
        raise InputError(f"labels: expected shape ({len(logits)}, height, width), got {targets.shape}")
    _check_range(targets, logits.shape[1], config.semantic_loss_ignore_index)
    height, width = targets.shape[1:]
    columns, next_columns, right = interpolation_points(logits.shape[3], width, align_corners=False)
    rows, next_rows, below = interpolation_points(logits.shape[2], height, align_corners=False)
    total, count = 0.0, 0
    for raw, image in zip(logits.astype(np.float64), targets, strict=True):
        scores = blend(raw[:, :, columns], raw[:, :, next_columns], right)  # (C, h, W)
        for start in range(0, height, _BAND_ROWS):
            band = slice(start, start + _BAND_ROWS)
            x = blend(scores[:, rows[band]], scores[:, next_rows[band]], below[band, None])  # (C, rows, W)
            pixels = np.moveaxis(x, 0, -1).reshape(-1, len(scores))
            more, pixel_count = _cross_entropy(pixels, image[band].reshape(-1), config.semantic_loss_ignore_index)
            total, count = total + more, count + pixel_count
    return _round_once(_divide(total, count), logits)


def _cross_entropy(scores: Array, targets: Array, ignored: int) -> tuple[float, int]:
    """Return the sum of -log softmax(scores)[target] over the rows whose target counts, and their number."""
    counts = targets != ignored
    scores, targets = scores[counts], targets[counts]
    with np.errstate(all="ignore"):
        largest = np.max(scores, axis=1, keepdims=True, initial=-np.inf)
        log_sums = np.log(np.sum(np.exp(scores - largest), axis=1)) + largest[:, 0]
        losses = log_sums - scores[np.arange(len(scores)), targets]
    return float(np.sum(losses)), len(scores)


def _read_integers(labels: ArrayLike) -> Array:
    values = _read_array(labels)
    if values.dtype.kind not in "iu":
        raise InputError(f"labels: expected class numbers of an integer type, got {values.dtype}")
    return values.astype(np.int64)


def _read_numbers(labels: ArrayLike) -> Array:
    values = _read_array(labels)
    if values.dtype.kind not in "biuf":
        raise InputError(f"labels: expected numbers, got {values.dtype}")
    return values.astype(np.float64)


def _read_array(labels: ArrayLike) -> Array:
    return read_array(labels, "labels", "an array or evenly nested lists")


def _check_range(targets: Array, class_count: int, ignored: int) -> None:
    is_wrong = ((targets < 0) | (targets >= class_count)) & (targets != ignored)
    if np.any(is_wrong):
        raise InputError(
            f"labels: expected class numbers between 0 and {class_count - 1} (or {ignored} to leave out), "
            f"got {targets[is_wrong].flat[0]}"
        )


def _divide(total: float, count: int) -> float:
    return total / count if count else float("nan")


def _round_once(loss: Any, logits: Array) -> Scalar:
    rounded: Scalar = logits.dtype.type(loss)
    return rounded
