"""The names of the classes that most checkpoints without names of their own were trained on.

ImageNet's 1000 are in `imagenet_classes.txt`, in the order of their WordNet ids: the lemmas of WordNet 3.0 (WordNet 3.0
licence, Princeton University), taken from timm 1.0 (Apache-2.0). PASCAL VOC's 21 are those of its development kit,
COCO's 80 those of its annotations, at their numbers there less one; ten of the 90 numbers have no object.
"""

from __future__ import annotations

from importlib import resources

BACKGROUND = "background"
PASCAL_VOC = (
    BACKGROUND,
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog"),
    *("horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
UNNAMED = "???"
"""The name of a class that has none."""
COCO = (
    *("person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light"),
    *("fire hydrant", UNNAMED, "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow"),
    *("elephant", "bear", "zebra", "giraffe", UNNAMED, "backpack", "umbrella", UNNAMED, UNNAMED, "handbag", "tie"),
    *("suitcase", "frisbee", "skis", "snowboard", "sports ball", "kite", "baseball bat", "baseball glove"),
    *("skateboard", "surfboard", "tennis racket", "bottle", UNNAMED, "wine glass", "cup", "fork", "knife", "spoon"),
    *("bowl", "banana", "apple", "sandwich", "orange", "broccoli", "carrot", "hot dog", "pizza", "donut", "cake"),
    *("chair", "couch", "potted plant", "bed", UNNAMED, "dining table", UNNAMED, UNNAMED, "toilet", UNNAMED, "tv"),
    *("laptop", "mouse", "remote", "keyboard", "cell phone", "microwave", "oven", "toaster", "sink", "refrigerator"),
    *(UNNAMED, "book", "clock", "vase", "scissors", "teddy bear", "hair drier", "toothbrush"),
)


def class_labels(architecture: str, count: int) -> dict[int, str] | None:
    """Return the names of `count` classes, or None where the count is nobody's.

    Classifiers of 1000 classes have ImageNet's, those of 1001 the background before them; segmentations of 21 classes
    have PASCAL VOC's, the first of which is the background; detectors of 90 classes have COCO's.
    """
    names: tuple[str, ...] = ()
    if architecture.endswith("ForSemanticSegmentation"):
        names = PASCAL_VOC
    elif architecture.endswith("ForObjectDetection"):
        names = COCO
    elif architecture.endswith("ForImageClassification") and count in (1000, 1001):
        text = (resources.files("minimobile.formats") / "imagenet_classes.txt").read_text("utf-8")
        names = (*(BACKGROUND,) * (count - 1000), *text.splitlines())
    return dict(enumerate(names)) if names and len(names) == count else None
