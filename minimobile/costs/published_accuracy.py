"""What MobileNets reach on ImageNet, as their authors published it with the checkpoints, to stand beside the costs."""

from __future__ import annotations

from collections.abc import Mapping

PUBLISHED: Mapping[str, Mapping[float, Mapping[int, float]]] = {
    "mobilenet_v1": {
        1.0: {224: 70.9, 192: 70.0, 160: 68.0, 128: 65.2},
        0.75: {224: 68.4, 192: 67.2, 160: 65.3, 128: 62.1},
        0.5: {224: 63.3, 192: 61.7, 160: 59.1, 128: 56.3},
        0.25: {224: 49.8, 192: 47.7, 160: 45.5, 128: 41.5},
    },
    "mobilenet_v2": {
        1.4: {224: 75.0},
        1.3: {224: 74.4},
        1.0: {224: 71.8, 192: 70.7, 160: 68.8, 128: 65.3, 96: 60.3},
        0.75: {224: 69.8, 192: 68.7, 160: 66.4, 128: 63.2, 96: 58.8},
        0.5: {224: 65.4, 192: 63.9, 160: 61.0, 128: 57.7, 96: 51.2},
        0.35: {224: 60.3, 192: 58.2, 160: 55.7, 128: 50.8, 96: 45.5},
    },
}
"""Top-1 accuracy in percent, one crop, by model type, width multiplier and size of the picture.

Source: tensorflow/models, `research/slim/nets/mobilenet_v1.md` and `research/slim/nets/mobilenet/README.md`.
"""


def published_accuracy(model_type: str, width_multiplier: float, size: tuple[int, int]) -> float | None:
    """Return the published top-1 accuracy in percent of a network at (height, width); None where there is none.

    >>> published_accuracy("mobilenet_v2", 1.0, (224, 224)), published_accuracy("mobilenet_v2", 1.0, (224, 225))
    (71.8, None)
    """
    by_size = PUBLISHED.get(model_type, {}).get(width_multiplier, {})
    return by_size.get(size[0]) if size[0] == size[1] else None
