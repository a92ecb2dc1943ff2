"""The names of the classes that most checkpoints without names of their own were trained on.

ImageNet's 1000 are in `imagenet_classes.txt`, in the order of their WordNet ids: the lemmas of WordNet 3.0 (WordNet 3.0
licence, Princeton University), taken from timm 1.0 (Apache-2.0). PASCAL VOC's 21 are those of its development kit.
"""

from __future__ import annotations

from importlib import resources

BACKGROUND = "background"
PASCAL_VOC = (
    BACKGROUND,
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog"),
    *("horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)


def class_labels(architecture: str, count: int) -> dict[int, str] | None:
    """Return the names of `count` classes, or None where the count is nobody's.

    Classifiers of 1000 classes have ImageNet's, those of 1001 the background before them; segmentations of 21 classes
    have PASCAL VOC's, the first of which is the background.
    """
    names: tuple[str, ...] = ()
    if architecture.endswith("ForSemanticSegmentation"):
        names = PASCAL_VOC
    elif architecture.endswith("ForImageClassification") and count in (1000, 1001):
        text = (resources.files("minimobile.formats") / "imagenet_classes.txt").read_text("utf-8")
        names = (*(BACKGROUND,) * (count - 1000), *text.splitlines())
    return dict(enumerate(names)) if names and len(names) == count else None
