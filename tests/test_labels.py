"""Names of classes: which count means which list, and that the lists are those that others publish."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from minimobile.formats.checkpoint import ARCHITECTURES
from minimobile.formats.labels import class_labels

CLASSIFIER = "MobileNetV1ForImageClassification"
SEGMENTER = "MobileNetV2ForSemanticSegmentation"


def test_a_thousand_classes_have_no_background_and_one_more_has() -> None:
    plain, shifted = class_labels(CLASSIFIER, 1000), class_labels(CLASSIFIER, 1001)
    assert plain is not None and shifted is not None
    # Facts that everyone who has used ImageNet models knows by heart.
    assert [plain[0], plain[281], plain[999]] == [
        "tench, Tinca tinca",
        "tabby, tabby cat",
        "toilet tissue, toilet paper, bathroom tissue",
    ]
    assert list(shifted.values()) == ["background", *plain.values()]
    assert list(plain) == list(range(1000))
    assert all(name == name.strip() != "" for name in plain.values())
    twice = {name for name in plain.values() if list(plain.values()).count(name) > 1}
    assert twice == {"crane"}, "a bird and a machine"


def test_segmentations_of_21_classes_are_pascal_voc_s() -> None:
    names = class_labels(SEGMENTER, 21)
    assert names is not None
    assert [names[0], names[3], names[15], names[20]] == ["background", "bird", "person", "tvmonitor"]
    assert list(names) == list(range(21))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("count", [0, 1, 2, 20, 22, 999, 1002])
def test_other_counts_are_nobody_s(architecture: str, count: int) -> None:
    assert class_labels(architecture, count) is None


def test_the_count_of_one_task_says_nothing_of_the_other() -> None:
    assert (
        class_labels(SEGMENTER, 1000) is class_labels(CLASSIFIER, 21) is class_labels("MobileNetV1Model", 1000) is None
    )


@pytest.mark.crosscheck
def test_names_are_those_that_others_publish(test_data: Path) -> None:
    listed = (test_data / "models" / "imagenet_labels.txt").read_text("utf-8").splitlines()
    assert class_labels(CLASSIFIER, 1001) == {index: name.strip() for index, name in enumerate(listed)}
    for path in sorted((test_data / "models" / "huggingface").glob("*/config.json")):
        config = json.loads(path.read_text())
        theirs = {int(index): name for index, name in config["id2label"].items()}
        names = class_labels(config["architectures"][0], len(theirs))
        assert names is None or names == theirs, path.parent.name
        assert (names is None) == path.parent.name.endswith("portrait")
