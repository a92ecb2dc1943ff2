"""`pipeline`: transformers' two pipelines for these networks, by name, arguments and result format."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import twins
from PIL import Image

import minimobile as mm


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the directory of a random V1 classifier whose logits are not all alike."""
    config = mm.MobileNetV1Config(depth_multiplier=0.25, id2label={0: "cat", 1: "dog", 2: "emu"}, initializer_range=0.3)
    folder = tmp_path_factory.mktemp("spread")
    mm.MobileNetV1ForImageClassification(config, seed=1).save_pretrained(folder)
    mm.MobileNetV1ImageProcessor(size=40, crop_size=32).save_pretrained(folder)
    return folder


def test_labels_of_pictures(classifier: Path, photos: Path) -> None:
    pipe = mm.pipeline("image-classification", model=str(classifier))
    found = pipe(str(photos / "a.png"))
    assert [list(row) for row in found] == [["label", "score"]] * 3  # as many as there are classes, five at most
    expected = mm.classify(photos / "a.png", classifier)
    assert [(row["label"], row["score"]) for row in found] == [(row["label"], row["probability"]) for row in expected]
    both = [photos / "a.png", photos / "b.jpg"]
    assert pipe(both, top_k=1) == [pipe(path)[:1] for path in both] == mm.pipeline(model=pipe.model, top_k=1)(both)
    taken: list[Path] = []
    results = pipe((taken.append(path) or path for path in both), top_k=1)  # type: ignore[func-returns-value]
    assert [next(results)] == pipe(both[:1], top_k=1) and taken == both[:1]  # one by one
    assert list(results) == pipe(both[1:], top_k=1)
    with Image.open(photos / "a.png") as photo:
        assert pipe(photo) == pipe(images=photo, batch_size=8, num_workers=2, timeout=5) == found
    assert pipe.device == "cpu" and "MobileNetV1ForImageClassification" in repr(pipe)


def test_what_is_applied_to_the_logits(classifier: Path, photos: Path) -> None:
    model = mm.load(classifier)
    logits = {row["label"]: row["logit"] for row in mm.classify(photos / "a.png", model)}
    pipe = mm.pipeline("image-classification", model=model)
    for function, apply in (("none", float), ("sigmoid", lambda x: 1 / (1 + np.exp(-x)))):
        for row in pipe(photos / "a.png", function_to_apply=function):
            assert row["score"] == pytest.approx(apply(logits[row["label"]]), rel=1e-14)
    for problem, function in (("regression", "none"), ("multi_label_classification", "sigmoid")):
        other = mm.pipeline("image-classification", model=str(classifier), problem_type=problem)
        assert other(photos / "a.png") == pipe(photos / "a.png", function_to_apply=function)


def test_masks_of_pictures(segmenter: Path, photos: Path) -> None:
    pipe = mm.pipeline("image-segmentation", model=segmenter)
    found = pipe(photos / "a.png")
    expected = mm.segment(photos / "a.png", segmenter)
    assert [list(row) for row in found] == [["score", "label", "mask"]] * len(expected.shares)
    assert all(row["score"] is None and row["mask"].mode == "L" and row["mask"].size == (40, 50) for row in found)
    masks = {row["label"]: np.asarray(row["mask"]) for row in found}
    for row in expected.shares:
        assert np.array_equal(masks[row["label"]], 255 * (expected.classes == row["index"]))
    assert mm.pipeline(model=pipe.model, threshold=0.5)([photos / "a.png"], subtask="semantic")[0][0]["score"] is None


def test_another_image_processor(classifier: Path, photos: Path, tmp_path: Path) -> None:
    model = mm.load(classifier)
    other = mm.MobileNetV1ImageProcessor(size=64, crop_size=64)
    other.save_pretrained(tmp_path)
    expected = model(other(photos / "a.png", return_tensors="np")["pixel_values"]).logits[0]
    for processor in ({"image_processor": other}, {"feature_extractor": other}, {"image_processor": str(tmp_path)}):
        found = mm.pipeline("image-classification", model=model, **processor)(
            photos / "a.png", function_to_apply="none"
        )
        assert [row["score"] for row in found] == sorted(map(float, expected), reverse=True)


def test_misuse_is_one_sentence(classifier: Path, segmenter: Path, photos: Path) -> None:
    for task in ("text-classification", "image-classifcation"):
        with pytest.raises(mm.InputError, match="expected one of image-classification, image-segmentation"):
            mm.pipeline(task)
    with pytest.raises(mm.InputError, match="expected one for semantic segmentation"):
        mm.pipeline("image-segmentation", model=classifier)
    with pytest.raises(mm.InputError, match="expected one for image classification"):
        mm.pipeline("image-classification", model=segmenter)
    pipe = mm.pipeline(model=classifier)
    for wrong, message in (
        ({"top_k": 0}, "top_k"),
        ({"function_to_apply": "relu"}, "function_to_apply"),
        ({"topk": 3}, "no parameter 'topk'"),
    ):
        with pytest.raises(mm.InputError, match=message):
            pipe(photos / "a.png", **wrong)
    with pytest.raises(mm.InputError, match="subtask"):
        mm.pipeline(model=segmenter)(photos / "a.png", subtask="panoptic")
    with pytest.raises(mm.InputError, match="got None"):
        pipe(None)
    with pytest.raises(mm.InputError, match="num_threads: expected none beside a model that is loaded"):
        mm.pipeline(model=pipe.model, num_threads=1)


def test_arguments_are_for_the_model_that_the_environment_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINIMOBILE_MODEL", "demo:digits")
    assert mm.pipeline("image-classification", device="cpu", engine="reference").model.runner.__class__.__name__ == (
        "ReferenceRunner"
    )


@pytest.mark.crosscheck
def test_labels_and_scores_are_those_of_transformers(test_data: Path) -> None:
    twins.import_torch()
    import transformers

    for name in ("mobilenet_v1_0.25_128", "mobilenet_v2_1.0_224"):
        model = str(test_data / "models" / "huggingface" / name)
        pictures = [str(test_data / "images" / picture) for picture in ("grace_hopper.bmp", "parrot.jpg")]
        stem = "MobileNetV1" if "v1" in name else "MobileNetV2"
        theirs_on_pil = getattr(transformers, f"{stem}ImageProcessorPil").from_pretrained(model)
        theirs = transformers.pipeline("image-classification", model=model, image_processor=theirs_on_pil)
        ours = mm.pipeline("image-classification", model=model)
        for call in ({}, {"top_k": 2}, {"function_to_apply": "sigmoid"}, {"function_to_apply": "none"}):
            for found, expected in zip(ours(pictures, **call), theirs(pictures, **call), strict=True):
                assert [row["label"] for row in found] == [row["label"] for row in expected]
                scores = [[row["score"] for row in rows] for rows in (found, expected)]
                assert scores[0] == pytest.approx(scores[1], rel=1e-4)


def test_features_of_pictures(classifier: Path, photos: Path) -> None:
    pipe = mm.pipeline("image-feature-extraction", model=str(classifier))
    assert type(pipe.model) is mm.MobileNetV1Model  # without a head, whatever the checkpoint has
    with Image.open(photos / "a.png") as photo:
        expected = pipe.model(**pipe.model.processor(photo, return_tensors="np"))
    assert pipe(str(photos / "a.png")) == expected.last_hidden_state.tolist()
    assert pipe([photos / "a.png"], pool=True) == [expected.pooler_output.tolist()]
    wide = pipe(photos / "a.png", return_tensors=True, image_processor_kwargs={"do_center_crop": False})
    assert wide.shape == (1, 256, 2, 2) and wide.dtype == np.float32
    assert mm.pipeline(model=mm.MobileNetV1Model(mm.MobileNetV1Config())).task == pipe.task
    head = mm.pipeline("image-feature-extraction", model=mm.load(classifier))
    assert np.array(head(photos / "a.png")).shape == (1, 3)
    with pytest.raises(mm.InputError, match="pool: expected a model with a pooled output, got a MobileNetV1ForImage"):
        head(photos / "a.png", pool=True)
    with pytest.raises(mm.InputError, match="image_processor_kwargs: expected arguments by name, got"):
        pipe(photos / "a.png", image_processor_kwargs=3)
