"""Image processors as settings: defaults, files of every age, saving, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drawn import PROCESSORS, draw

from minimobile.errors import ConfigError, FormatError, InputError, MinimobileError
from minimobile.formats import hdf5
from minimobile.formats.checkpoint import Checkpoint
from minimobile.imaging.auto import AutoImageProcessor
from minimobile.imaging.image_processing import (
    MobileNetV1FeatureExtractor,
    MobileNetV1ImageProcessor,
    MobileNetV2FeatureExtractor,
    MobileNetV2ImageProcessor,
)
from minimobile.networks.config import MobileNetV1Config
from minimobile.storage import hub


def test_defaults_and_dictionary() -> None:
    expected = {
        "do_resize": True,
        "size": {"shortest_edge": 256},
        "crop_size": {"height": 224, "width": 224},
        "resample": 2,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": (0.5, 0.5, 0.5),
        "image_std": (0.5, 0.5, 0.5),
        "do_center_crop": True,
        "image_processor_type": "MobileNetV1ImageProcessor",
    }
    assert MobileNetV1ImageProcessor().to_dict() == expected
    second = {**expected, "do_reduce_labels": False, "image_processor_type": "MobileNetV2ImageProcessor"}
    assert MobileNetV2ImageProcessor().to_dict() == second
    assert json.loads(repr(MobileNetV1ImageProcessor()).split(" ", 1)[1])["resample"] == 2
    assert MobileNetV1FeatureExtractor is MobileNetV1ImageProcessor
    assert MobileNetV2FeatureExtractor is MobileNetV2ImageProcessor


def test_settings_of_one_processor_are_its_own() -> None:
    first = MobileNetV1ImageProcessor()
    first.size["shortest_edge"] = 9
    assert MobileNetV1ImageProcessor().to_dict()["size"] == {"shortest_edge": 256}
    first.crop_size = 7
    assert first(draw(20, 20)).pixel_values[0].shape == (3, 7, 7)


def test_older_files_load(tmp_path: Path) -> None:
    old = {"feature_extractor_type": "MobileNetV2FeatureExtractor", "size": 280, "crop_size": 257, "resample": 3}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({**old, "reduce_labels": True, "shiny": [1]}))
    processor = AutoImageProcessor.from_pretrained(tmp_path)
    assert isinstance(processor, MobileNetV2ImageProcessor)
    stored = processor.to_dict()
    assert stored["size"] == {"shortest_edge": 280}
    assert stored["crop_size"] == {"height": 257, "width": 257}
    assert stored["do_reduce_labels"] is True
    assert "shiny" not in stored
    square = MobileNetV1ImageProcessor.from_pretrained(tmp_path / "preprocessor_config.json", default_to_square=True)
    assert square.to_dict()["size"] == {"height": 280, "width": 280}
    assert (
        MobileNetV1ImageProcessor.from_pretrained(str(tmp_path), do_resize=False, use_fast=True).to_dict()["do_resize"]
        is False
    )


def test_the_class_follows_the_file(tmp_path: Path) -> None:
    path = tmp_path / "preprocessor_config.json"
    for named, expected in (
        ({"image_processor_type": "MobileNetV1ImageProcessorFast"}, MobileNetV1ImageProcessor),
        ({"image_processor_type": "MobileNetV2ImageProcessorPil"}, MobileNetV2ImageProcessor),
        ({"feature_extractor_type": "MobileNetV1FeatureExtractor"}, MobileNetV1ImageProcessor),
    ):
        path.write_text(json.dumps(named))
        assert type(AutoImageProcessor.from_pretrained(tmp_path)) is expected
    path.write_text("{}")
    (tmp_path / "config.json").write_text('{"model_type": "mobilenet_v2"}')
    assert type(AutoImageProcessor.from_pretrained(tmp_path)) is MobileNetV2ImageProcessor
    path.write_text('{"image_processor_type": "ViTImageProcessor"}')
    with pytest.raises(ConfigError, match="expected the processor of a MobileNet V1 or V2, got 'ViTImageProcessor'"):
        AutoImageProcessor.from_pretrained(tmp_path)
    path.unlink()
    nested = {"image_processor": {"image_processor_type": "MobileNetV1ImageProcessor", "size": 99}}
    (tmp_path / "processor_config.json").write_text(json.dumps(nested))
    assert AutoImageProcessor.from_pretrained(tmp_path).to_dict()["size"] == {"shortest_edge": 99}
    with pytest.raises(ConfigError, match=r"use AutoImageProcessor\.from_pretrained"):
        AutoImageProcessor()


def test_a_native_file_holds_its_processor(tmp_path: Path) -> None:
    checkpoint = Checkpoint(MobileNetV1Config(), {}, "MobileNetV1Model", {"size": 99})
    hdf5.write(tmp_path / "net.h5", checkpoint)
    processor = AutoImageProcessor.from_pretrained(tmp_path / "net.h5")
    assert type(processor) is MobileNetV1ImageProcessor
    assert processor.to_dict()["size"] == {"shortest_edge": 99}
    hdf5.write(tmp_path / "bare.h5", Checkpoint(MobileNetV1Config(), {}, "MobileNetV1Model"))
    with pytest.raises(FormatError, match=r"bare\.h5: holds no image-processor settings"):
        AutoImageProcessor.from_pretrained(tmp_path / "bare.h5")


def test_a_hub_id_goes_through_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    MobileNetV2ImageProcessor(size=77).save_pretrained(tmp_path)
    asked = []

    def locate(source: str, names: Any, options: Any) -> Path:
        asked.append((source, tuple(names)))
        return tmp_path / names[0]

    monkeypatch.setattr(hub, "locate", locate)
    assert AutoImageProcessor.from_pretrained("owner/net").to_dict()["size"] == {"shortest_edge": 77}
    assert asked == [("owner/net", ("preprocessor_config.json", "processor_config.json"))]


@pytest.mark.parametrize("kind", PROCESSORS)
def test_saving_and_loading_is_the_identity(kind: type[MobileNetV1ImageProcessor], tmp_path: Path) -> None:
    processor = kind(size={"height": 9, "width": 8}, image_mean=[0.1, 0.2, 0.3], resample=0, do_center_crop=False)
    (written,) = processor.save_pretrained(tmp_path / "new" / "place")
    assert [path.name for path in Path(written).parent.iterdir()] == ["preprocessor_config.json"]
    assert kind.from_pretrained(tmp_path / "new" / "place").to_dict() == processor.to_dict()
    assert kind.from_dict(processor.to_dict()).to_dict() == processor.to_dict()
    with pytest.raises(FormatError):
        processor.save_pretrained(written)  # a file, not a directory
    with pytest.raises(InputError, match="save_pretrained: expected a directory, got NoneType"):
        processor.save_pretrained(None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("size", {"height": 10.5, "width": 3}, "size to be made of whole numbers"),
        ("size", {"shortest_edge": 0}, "size to be made of whole numbers"),
        ("size", {"shortest_edge": 10**10}, r"size to be made of whole numbers in 1\.\.65536"),
        ("size", {"height": 5}, "size to be a whole number, a pair"),
        ("size", [1, 2, 3], "size to be a whole number, a pair"),
        ("size", "256", "size to be a whole number, a pair"),
        ("crop_size", {"shortest_edge": 5}, "crop_size to be a whole number, a pair"),
        ("crop_size", 60_000, "crop_size to be of at most 268435456 pixels"),
        ("crop_size", True, "crop_size to be a whole number, a pair"),
        ("resample", 17, "resample to be one of PIL's filters"),
        ("resample", "bilinear", "resample to be one of PIL's filters"),
        ("do_resize", 1, "do_resize to be True or False"),
        ("rescale_factor", "1/255", "rescale_factor to be a finite number"),
        ("rescale_factor", 10**400, "rescale_factor to be a finite number"),
        ("data_format", np.zeros((2, 2)), "data_format to be one of channels_first, channels_last"),
        ("rescale_factor", float("nan"), "rescale_factor to be a finite number"),
        ("image_mean", ["a"], "image_mean to be a finite number"),
        ("image_mean", [], "image_mean to be a number or a list"),
        ("image_std", [0.5, 0.0, 0.5], "image_std to be different from zero"),
    ],
)
def test_wrong_settings_are_refused_everywhere(setting: str, value: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        MobileNetV1ImageProcessor(**{setting: value})
    with pytest.raises(ConfigError, match=message):
        MobileNetV2ImageProcessor.from_dict({setting: value})
    with pytest.raises(InputError, match=message):
        MobileNetV2ImageProcessor()(draw(8, 8), **{setting: value})


def test_one_number_stands_for_all_channels() -> None:
    picture, one = draw(8, 8), {"image_mean": 0.25, "image_std": 2}
    several = {name: [value] * 3 for name, value in one.items()}
    found, expected = (MobileNetV1ImageProcessor(**each)(picture)["pixel_values"][0] for each in (one, several))
    np.testing.assert_array_equal(found, expected)


def test_a_size_that_leaves_nothing_of_a_picture_is_refused() -> None:
    processor = MobileNetV1ImageProcessor(size={"max_height": 10, "max_width": 10})
    with pytest.raises(InputError, match=r"resizing 1000x1 by .* would give 10x0; enlarge size"):
        processor(np.zeros((1000, 1, 3), np.uint8))


def test_settings_are_a_dictionary() -> None:
    with pytest.raises(ConfigError, match="expected a dictionary of settings, got list"):
        MobileNetV1ImageProcessor.from_dict([])


def test_unknown_settings_are_suggested() -> None:
    with pytest.raises(ConfigError, match=r"there is no setting 'do_resise'; did you mean do_resize\?"):
        MobileNetV1ImageProcessor(do_resise=True)
    with pytest.raises(InputError, match=r"there is no setting 'crop'; (did you mean crop_size\?|there are)"):
        MobileNetV1ImageProcessor()(draw(8, 8), crop=3)


@pytest.mark.parametrize(
    ("step", "needed"), [("do_resize", "size"), ("do_normalize", "image_std"), ("do_rescale", "rescale_factor")]
)
def test_a_step_without_what_it_needs(step: str, needed: str) -> None:
    with pytest.raises(InputError, match=f"{step}=True needs {needed}, got None"):
        MobileNetV1ImageProcessor()(draw(8, 8), **{needed: None})
    assert MobileNetV1ImageProcessor()(draw(300, 300), **{needed: None, step: None}).pixel_values


def test_files_that_are_no_settings(tmp_path: Path) -> None:
    path = tmp_path / "preprocessor_config.json"
    for content in (
        b"",
        b"{",
        b"[1]",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"size": 1' + b"0" * 5000 + b"}",
        b'{"rescale_factor": NaN}',
    ):
        path.write_bytes(content)
        with pytest.raises(MinimobileError, match=r"preprocessor_config\.json"):
            AutoImageProcessor.from_pretrained(tmp_path)
    path.unlink()
    for source in (tmp_path, tmp_path / "none", "a\0b", 5):
        with pytest.raises(FormatError):
            AutoImageProcessor.from_pretrained(source)  # type: ignore[arg-type]
