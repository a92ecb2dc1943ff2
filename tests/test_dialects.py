"""The table of schools: processor settings, sizes and labels that follow from a row."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from minimobile.errors import ConfigError, FormatError, InputError
from minimobile.formats.checkpoint import ARCHITECTURES
from minimobile.formats.deduction import build_checkpoint
from minimobile.formats.dialects import DIALECTS, find_dialect, processor_settings, read_normalization
from minimobile.imaging.auto import AutoImageProcessor
from minimobile.imaging.image_processing import MobileNetV1ImageProcessor, MobileNetV2ImageProcessor
from minimobile.models import classes
from minimobile.models.weights import draw_weights
from minimobile.networks.build_graph import build_graph

V1, V2, SEGMENTER = (
    "MobileNetV1ForImageClassification",
    "MobileNetV2ForImageClassification",
    "MobileNetV2ForSemanticSegmentation",
)
DETECTOR = "MobileNetV1ForObjectDetection"
OTHERS = {"central_fraction", "resize_method", "rescale_first", "crop_rounding", "canvas_size", "canvas_value"}


@pytest.mark.parametrize(
    ("name", "architecture", "expected"),
    [
        ("huggingface", V1, {"size": {"shortest_edge": 256}, "resample": 2, "do_center_crop": True}),
        ("slim", V1, {"central_fraction": 0.875, "resize_method": "tf1_bilinear", "rescale_first": True,
                      "size": {"height": 224, "width": 224}, "do_center_crop": False}),
        ("deeplab", SEGMENTER, {"size": {"max_height": 224, "max_width": 224}, "canvas_value": 127.5,
                                "canvas_size": {"height": 224, "width": 224}, "rescale_factor": 2 / 255,
                                "resize_method": "tf1_bilinear_align_corners", "image_mean": [1, 1, 1]}),
        ("keras", V1, {"size": {"height": 224, "width": 224}, "resample": 0, "image_mean": [0.5] * 3}),
        ("torchvision", V2, {"size": {"shortest_edge": 256}, "resample": 2, "crop_rounding": "half_even",
                             "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}),
        ("torchvision-v2", V2, {"size": {"shortest_edge": 232}, "crop_rounding": "half_even"}),
        ("timm", V2, {"size": {"shortest_edge": 256}, "resample": 3, "image_mean": [0.485, 0.456, 0.406],
                      "crop_rounding": "half_even"}),
        ("timm", V1, {"size": {"shortest_edge": 256}, "resample": 3, "image_mean": [0.5] * 3,
                      "crop_rounding": "half_even"}),
        ("tflite", V1, {"size": {"height": 224, "width": 224}, "resample": 2, "do_center_crop": False}),
        ("object-detection", DETECTOR, {"size": {"height": 224, "width": 224}, "resize_method": "tf1_bilinear",
                                        "rescale_factor": 2 / 255, "image_mean": [1] * 3}),
        ("tflite", DETECTOR, {"size": {"height": 224, "width": 224}, "resize_method": "half_pixel_bilinear",
                              "image_mean": [0.5] * 3}),
        ("torchvision", DETECTOR, {"size": {"height": 224, "width": 224}, "resize_method": "half_pixel_bilinear",
                                   "image_mean": [0.5] * 3, "image_std": [0.5] * 3}),
        ("stm32", DETECTOR, {"size": {"height": 224, "width": 224}, "resample": 0, "image_mean": [1] * 3}),
        ("face-api", DETECTOR, {"size": {"max_height": 224, "max_width": 224}, "resize_method": "tf1_bilinear",
                                "canvas_size": {"height": 224, "width": 224}, "canvas_value": 0,
                                "image_mean": [1] * 3}),
    ],
)  # fmt: skip
def test_the_processor_s_settings_of_each_school(name: str, architecture: str, expected: dict[str, object]) -> None:
    settings = processor_settings(DIALECTS[name], architecture, (224, 224))
    assert {key: settings[key] for key in expected} == expected
    assert settings["image_processor_type"] == f"{architecture[:11]}ImageProcessor"
    assert OTHERS & set(settings) == OTHERS & set(expected)


@pytest.mark.parametrize("name", DIALECTS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_settings_are_plain_and_survive_being_stored(
    name: str, architecture: str, channels: int, tmp_path: Path
) -> None:
    settings = processor_settings(find_dialect(name), architecture, (48, 64), channels)
    assert json.loads(json.dumps(settings)) == settings
    kind = MobileNetV1ImageProcessor if "V1" in architecture else MobileNetV2ImageProcessor
    processor = kind.from_dict(settings)
    processor.save_pretrained(tmp_path)
    again = AutoImageProcessor.from_pretrained(tmp_path)
    assert type(again) is kind
    assert again.to_dict() == processor.to_dict()
    assert json.loads(json.dumps({key: again.to_dict()[key] for key in settings})) == settings
    for shape in ((37, 90), (90, 37), (64, 64)) if channels == 3 else ((90, 37),):
        picture = np.random.default_rng(1).integers(0, 256, (*shape, channels), dtype=np.uint8)
        found = again(picture, input_data_format="channels_last", return_tensors="np").pixel_values
        assert found.shape == (1, channels, 48, 64)
        assert found.dtype == np.float32
    expected = processor(picture, input_data_format="channels_last", return_tensors="np").pixel_values
    assert np.array_equal(found, expected)


def test_one_channel_gets_the_average_of_three() -> None:
    grey = processor_settings(DIALECTS["torchvision"], V2, (224, 224), 1)
    assert (grey["image_mean"], grey["image_std"]) == ([0.449], [0.226])


def test_other_sizes_keep_the_school_s_proportions() -> None:
    def edge(name: str, side: int) -> int:
        return processor_settings(DIALECTS[name], V2, (side, side))["size"]["shortest_edge"]

    assert [edge("huggingface", side) for side in (96, 160, 224)] == [128, 192, 256]
    assert [edge("timm", side) for side in (96, 160, 224, 192)] == [int(side / 0.875) for side in (96, 160, 224, 192)]
    assert [edge("torchvision-v2", side) for side in (112, 448)] == [116, 464]


def test_segmentation_keeps_the_whole_picture_where_a_school_cuts_for_classes() -> None:
    for name in ("slim", "deeplab"):
        settings = processor_settings(DIALECTS[name], SEGMENTER, (513, 513))
        assert "central_fraction" not in settings
        assert settings["canvas_size"] == {"height": 513, "width": 513}
    settings = processor_settings(DIALECTS["tflite"], SEGMENTER, (257, 257))
    assert settings["size"] == settings["canvas_size"] == {"height": 257, "width": 257}


def test_an_unknown_dialect_is_refused() -> None:
    with pytest.raises(FormatError, match=r"expected one of huggingface, slim, .*, got 'caffe'"):
        find_dialect("caffe")


@pytest.mark.parametrize(
    ("count", "first", "last"), [(1000, "tench, Tinca tinca", "toilet tissue"), (1001, "background", "toilet tissue")]
)
def test_checkpoints_of_imagenet_get_its_names(count: int, first: str, last: str) -> None:
    weights = random_weights(V1, depth_multiplier=0.25, num_labels=count)
    config = build_checkpoint(weights, DIALECTS["slim"], "here").config
    assert config.labels[0] == first
    assert config.labels[count - 1].startswith(last)
    own = {index: f"class {index}" for index in range(count)}
    assert build_checkpoint(weights, DIALECTS["slim"], "here", id2label=own).config.labels == own


def test_checkpoints_of_other_counts_get_no_names() -> None:
    weights = random_weights(V1, depth_multiplier=0.25, num_labels=10)
    assert build_checkpoint(weights, DIALECTS["slim"], "here").config.labels[9] == "LABEL_9"
    weights = random_weights(SEGMENTER, depth_multiplier=0.35, num_labels=21)
    assert build_checkpoint(weights, DIALECTS["deeplab"], "here").config.labels[15] == "person"


@pytest.mark.parametrize("school", ["keras", "slim", "torchvision", "timm"])
def test_a_narrow_v2_with_a_sum_in_its_first_block_is_refused(school: str) -> None:
    """Where a map has as many channels behind the block as before it, all but transformers add the two."""
    weights = random_weights(SEGMENTER, depth_multiplier=0.25, num_labels=21)
    expected = rf"^here: expected fewer channels behind the first block than before it, found 8 in both: {school} then"
    with pytest.raises(FormatError, match=expected):
        build_checkpoint(weights, DIALECTS[school], "here")
    assert build_checkpoint(weights, DIALECTS["huggingface"], "here").config.depth_multiplier == 0.25
    weights = random_weights(SEGMENTER, depth_multiplier=0.35, num_labels=21)
    assert build_checkpoint(weights, DIALECTS[school], "here").config.depth_multiplier == 0.35


def test_a_saved_model_keeps_its_school_s_pictures(tmp_path: Path) -> None:
    weights = random_weights(V1, depth_multiplier=0.1, num_labels=4)
    checkpoint = build_checkpoint(weights, DIALECTS["slim"], "here", image_size=(32, 32))
    model = classes.MobileNetV1ForImageClassification.from_checkpoint(checkpoint)
    model.save(tmp_path / "model.h5")
    model.save_pretrained(tmp_path / "folder")
    picture = np.random.default_rng(0).integers(0, 256, (45, 70, 3), dtype=np.uint8)
    expected = model.processor(picture, return_tensors="np").pixel_values
    plain = MobileNetV1ImageProcessor(size=(32, 32), do_center_crop=False)(picture, return_tensors="np").pixel_values
    assert not np.array_equal(plain, expected)
    for source in ("model.h5", "folder"):
        for processor in (
            classes.MobileNetV1ForImageClassification.from_pretrained(tmp_path / source).processor,
            AutoImageProcessor.from_pretrained(tmp_path / source),
        ):
            assert np.array_equal(processor(picture, return_tensors="np").pixel_values, expected)


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("central_fraction", 0, "a number above 0 and at most 1, got 0"),
        ("central_fraction", 1.5, "a number above 0 and at most 1"),
        ("central_fraction", float("nan"), "a finite number"),
        (
            "resize_method",
            "bilinear",
            "one of tf1_bilinear, tf1_bilinear_align_corners, half_pixel_bilinear, got 'bilinear'",
        ),
        ("rescale_first", 1, "True or False"),
        ("crop_rounding", "up", "one of half_even"),
        ("canvas_size", {"height": 513}, "a whole number, a pair"),
        ("canvas_size", (4097, 4096), "of at most 16777216 pixels"),
        ("canvas_value", "grey", "a finite number"),
        ("canvas_value", [1, 2, 3], "a finite number"),
    ],
)
def test_wrong_settings_are_refused_by_name(setting: str, value: object, message: str) -> None:
    with pytest.raises(ConfigError, match=f"expected {setting} to be .*{message}"):
        MobileNetV2ImageProcessor.from_dict({setting: value})


def test_settings_that_need_each_other_say_so() -> None:
    picture = np.zeros((5, 5, 3), np.uint8)
    with pytest.raises(InputError, match="rescale_first=True needs resize_method, got None"):
        MobileNetV1ImageProcessor(rescale_first=True)(picture)
    with pytest.raises(InputError, match=r"canvas_size=\{.*\} needs canvas_value, got None"):
        MobileNetV1ImageProcessor(canvas_size=300)(picture)
    with pytest.raises(InputError, match="canvas_size 3x3 is smaller than the picture, 5x5; enlarge canvas_size"):
        MobileNetV1ImageProcessor(do_resize=False, do_center_crop=False, canvas_size=3, canvas_value=0)(picture)


def random_weights(architecture: str, **fields: object) -> dict[str, np.ndarray]:
    config_class = getattr(classes, architecture).config_class
    return dict(draw_weights(build_graph(config_class(**fields), architecture), 0.1, 0))


@pytest.mark.crosscheck
def test_transformers_reads_every_school_s_settings(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    picture = np.random.default_rng(1).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    for name, dialect in DIALECTS.items():
        MobileNetV2ImageProcessor.from_dict(processor_settings(dialect, V2, (48, 64))).save_pretrained(tmp_path / name)
        theirs = transformers.MobileNetV2ImageProcessorPil.from_pretrained(tmp_path / name)
        assert theirs(picture, return_tensors="np")["pixel_values"].shape[:2] == (1, 3)


def test_settings_that_say_nothing_of_normalisation_mean_transformers_defaults():
    for settings in ({}, {"image_mean": 0.5, "image_std": [0.5] * 3}):
        factor, mean, std = read_normalization(settings, 3)
        assert (factor, mean.tolist(), std.tolist()) == (1 / 255, [0.5] * 3, [0.5] * 3)
    factor, mean, std = read_normalization({"do_rescale": False, "do_normalize": False, "image_mean": [9, 9, 9]}, 3)
    assert (factor, mean.tolist(), std.tolist()) == (1.0, [0.0] * 3, [1.0] * 3)
    with pytest.raises(FormatError, match="expected image_mean and image_std of 1 or 1 numbers, found 3"):
        read_normalization({"image_mean": [0.5] * 3}, 1)
