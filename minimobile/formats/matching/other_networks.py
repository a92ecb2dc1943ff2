"""Networks that are none of ours, told by the names in their files: a refusal that says what a file is helps more."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from minimobile.errors import FormatError

SIGNS = (  # the first row of which a word is part of a name; in lower case
    (
        "an SSD detector",
        ("boxpredictor", "box_predictor", "tflite_detection_postprocess"),
    ),
    ("a pose network", ("displacement_fwd", "heatmap", "posenet", "movenet", "blazepose")),
    ("a face detector", ("blazeface", "face_detect", "facedetect")),
    ("a MobileNet V3", ("mobilenetv3", "mobilenet_v3", "hardswish", "hard_swish", "hard_sigmoid")),
    ("a MobileNet V4", ("mobilenetv4", "mobilenet_v4")),
    ("an EfficientNet", ("efficientnet",)),
    ("a MnasNet", ("mnasnet",)),
    ("an Inception network", ("inceptionv", "inception_v", "inception_resnet")),
    ("a ResNet", ("resnet", "conv5_block", "res5a")),
    ("a NASNet", ("nasnet",)),
    ("a DenseNet", ("densenet",)),
    ("a SqueezeNet", ("squeezenet", "fire2/")),
    ("an Xception", ("xception",)),
    ("a VGG", ("vgg",)),
    ("a YOLO detector", ("yolo",)),
)


@contextmanager
def naming_others(names: Iterable[str]) -> Iterator[None]:
    """Add to a FormatError raised inside what network the `names` of a file's layers, tensors or operators are of."""
    try:
        yield
    except FormatError as error:
        kind = name_network(names)
        if kind is None:
            raise
        raise FormatError(f"{error}; by its names the file holds {kind}") from error


def name_network(names: Iterable[str]) -> str | None:
    """Return "an SSD detector" and the like, None where no name tells.

    >>> name_network(["BoxPredictor_0/ClassPredictor/BiasAdd"])
    'an SSD detector'
    """
    text = "\n".join(names).lower()
    return next((kind for kind, words in SIGNS if any(word in text for word in words)), None)
