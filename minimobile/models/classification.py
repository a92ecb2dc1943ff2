"""What a picture shows: labels, the likeliest first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minimobile.errors import InputError
from minimobile.imaging.pictures import bring_upright
from minimobile.models.auto import CLASSIFICATION, choose_model, require_processor
from minimobile.models.base_model import MobileNetModel
from minimobile.models.outputs import require_finite
from minimobile_kernels.elementwise import SUM_WORDS, sigmoid
from minimobile_kernels.entries import rank, softmax

Array = NDArray[Any]
MOST_RANKED = 100  # beyond it NumPy sorts all of them


def classify(image: Any, model: MobileNetModel | str | Path | None = None, top: int = 5) -> list[dict[str, Any]]:
    """Return the `top` likeliest classes of one picture, the likeliest first.

    `image` is a path, a PIL image (turned by its EXIF orientation, as files are) or an array (H, W, C), `model` a model
    or what `load` takes (None: the environment's MINIMOBILE_MODEL, else google/mobilenet_v2_1.0_224 from the hub).
    Each item is {"index": int, "label": str, "probability": float, "logit": float}. The probability is the softmax's,
    or the sigmoid's where the config's `problem_type` is "multi_label_classification", computed in float64; a quantised
    file that ends in probabilities has its own. Equal logits are in the order of index. Raises InputError where a logit
    is NaN or infinite.
    """
    if isinstance(top, bool) or not isinstance(top, int | np.integer) or top < 1:
        raise InputError(f"top: expected a whole number of 1 or more, got {top!r}")
    model = choose_model(model, CLASSIFICATION)
    model.prepare()
    logits, probabilities = find_logits(model, image)
    if probabilities is None:
        is_multi_label = model.config.problem_type == "multi_label_classification"
        probabilities = apply_sigmoid(logits) if is_multi_label else apply_softmax(logits)
    labels = model.config.id2label
    return [
        {
            "index": index,
            "label": labels.get(index, f"LABEL_{index}"),
            "probability": float(probabilities[index]),
            "logit": float(logits[index]),
        }
        for index in find_largest(logits, top).tolist()
    ]


def find_logits(model: MobileNetModel, image: Any, processor: Any = None) -> tuple[Array, Array | None]:
    """Return the logits of one picture, (num_labels,) float64, and the probabilities of a file that ends in them.

    `processor` stands in for the model's own. Raises InputError for several pictures, and for NaN or infinity.
    """
    process = require_processor(model) if processor is None else processor
    output: Any = model(process.prepare(bring_upright(image)), return_dict=True)
    logits = output.logits
    if logits.shape[0] != 1 or logits.ndim != 2:
        raise InputError(f"image: expected one picture and one prediction for it, got logits {logits.shape}")
    require_finite(logits, image if isinstance(image, str | Path) else "image", "logits")
    return logits[0].astype(np.float64), None if output.probabilities is None else output.probabilities[0]


def find_largest(logits: Array, count: int) -> Array:
    """Return where the largest `count` of (num_labels,) float64 are, the largest first, equal ones in their order."""
    if count > MOST_RANKED:
        return np.argsort(-logits, kind="stable")[:count]
    order = np.empty(min(count, len(logits)), np.int64)
    rank(logits, order)
    return order


def apply_softmax(logits: Array) -> Array:
    """Return exp(logits) over their sum, (num_labels,) float64: NumPy's exp has other last bits on other processors."""
    probabilities = np.empty(logits.shape)
    softmax(np.ascontiguousarray(logits, np.float64), np.empty(len(logits) + SUM_WORDS, np.int64), probabilities)
    return probabilities


def apply_sigmoid(logits: Array) -> Array:
    """Return 1 / (1 + exp(-logits)), (num_labels,) float64."""
    with np.errstate(all="ignore"):
        probabilities: Array = sigmoid(logits)
    return probabilities
