"""A model's weights: drawn from a seed, shared, written and read bit for bit, refused where they do not fit."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from tiny_models import CLASSES, V1, V2, make

import minimobile as mm
from minimobile.formats.checkpoint import Checkpoint


def test_random_weights_follow_the_seed():
    one, same, other = (mm.MobileNetV1Model(V1, seed=seed).state_dict() for seed in (1, 1, 2))
    name = "mobilenet_v1.layer.3.convolution.weight"
    assert np.array_equal(one[name], same[name]) and not np.array_equal(one[name], other[name])
    assert np.std(one["mobilenet_v1.layer.25.convolution.weight"]) == pytest.approx(0.02, rel=0.05)
    assert set(np.unique(one["mobilenet_v1.layer.3.normalization.running_var"])) == {1.0}


def test_weights_are_shared_and_cannot_be_changed(pixels):
    model = make(mm.MobileNetV1ForImageClassification, V1)
    twin = mm.MobileNetV1Model.from_checkpoint(model.to_checkpoint())
    name = "mobilenet_v1.conv_stem.convolution.weight"
    assert np.shares_memory(model.state_dict()[name], twin.state_dict()[name])
    with pytest.raises(ValueError, match="read-only"):
        model.state_dict()[name][0] = 1
    assert np.array_equal(twin(pixels).pooler_output, model.features(pixels, ["pooler"])["pooler"])


@pytest.mark.parametrize(("model_class", "config"), CLASSES)
def test_saving_and_loading_keeps_every_bit(model_class, config, pixels, tmp_path):
    model = make(model_class, config.replace(id2label={i: f"name {i}" for i in range(5)}))
    model.save_pretrained(tmp_path / "directory")
    model.save(tmp_path / "native.h5")
    expected = model(pixels)[0]
    for name in ("directory", "native.h5"):
        loaded = mm.load(tmp_path / name)
        assert type(loaded) is model_class and loaded.id2label[3] == "name 3" and loaded.processor is None
        assert np.array_equal(loaded(pixels)[0], expected)
        assert loaded.config == model.config.replace(architectures=(model_class.__name__,))
    auto = mm.AutoConfig.from_pretrained(tmp_path / "directory", output_stride=8)
    assert auto == mm.AutoConfig.from_pretrained(tmp_path / "native.h5", output_stride=8) and auto.output_stride == 8


def test_config_overrides(pixels, tmp_path):
    make(mm.MobileNetV2ForImageClassification, V2).save_pretrained(tmp_path)
    plain = mm.load(tmp_path)
    for loaded in (
        mm.load(tmp_path, tf_padding=False, output_stride=8),
        mm.MobileNetV2ForImageClassification.from_pretrained(tmp_path, tf_padding=False, output_stride=8),
        mm.AutoModelForImageClassification.from_pretrained(
            tmp_path, config=plain.config.replace(tf_padding=False, output_stride=8)
        ),
        mm.MobileNetV2ForImageClassification.from_pretrained(
            tmp_path, config={**plain.config.to_dict(), "tf_padding": False}, output_stride=8
        ),
    ):
        assert (loaded.config.tf_padding, loaded.config.output_stride) == (False, 8)
        assert loaded.features(pixels, [-1])[-1].shape[2:] == (5, 5)
    with pytest.raises(mm.ConfigError, match="output_strides"):
        mm.load(tmp_path, output_strides=8)
    with pytest.raises(mm.FormatError, match=r"classifier\.weight"):
        mm.load(tmp_path, num_labels=7)


def test_a_head_may_be_left_out_but_not_made_up(tmp_path):
    make(mm.MobileNetV1ForImageClassification, V1).save_pretrained(tmp_path / "full")
    bare = mm.MobileNetV1Model.from_pretrained(tmp_path / "full")
    assert "classifier.weight" not in bare.state_dict()
    bare.save_pretrained(tmp_path / "bare")
    with pytest.raises(mm.FormatError, match=r"expected the head classifier\.weight, classifier\.bias"):
        mm.MobileNetV1ForImageClassification.from_pretrained(tmp_path / "bare")


def test_missing_unexpected_and_misshapen_weights_are_all_named():
    weights = make(mm.MobileNetV1ForImageClassification, V1).state_dict()
    del weights["mobilenet_v1.layer.3.convolution.weight"], weights["mobilenet_v1.layer.4.normalization.bias"]
    weights["mobilenet_v1.layer.26.convolution.weight"] = np.zeros((1, 1, 3, 3), np.float32)
    weights["classifier.bias"] = np.zeros(7, np.float32)
    with pytest.raises(mm.FormatError) as caught:
        mm.MobileNetV1ForImageClassification.from_checkpoint(
            Checkpoint(V1, weights, "MobileNetV1ForImageClassification")
        )
    for name in (
        "layer.3.convolution.weight",
        "layer.4.normalization.bias",
        "layer.26.convolution.weight",
        "(7,)",
        "(5,)",
    ):
        assert name in str(caught.value)


def test_segmentation_does_without_the_last_convolution(pixels):
    model = make(mm.MobileNetV2ForSemanticSegmentation, V2)
    weights = {name: values for name, values in model.state_dict().items() if ".conv_1x1." not in name}
    lean = mm.MobileNetV2ForSemanticSegmentation.from_checkpoint(
        Checkpoint(V2, weights, "MobileNetV2ForSemanticSegmentation")
    )
    assert np.array_equal(lean(pixels).logits, model(pixels).logits)
    with pytest.raises(mm.UnknownLayerError):
        lean.features(pixels, ["conv_1x1"])


def test_a_model_of_another_generation(tmp_path):
    make(mm.MobileNetV1Model, V1).save_pretrained(tmp_path)
    with pytest.raises(mm.ConfigError, match="expected a MobileNetV2Config, got MobileNetV1Config"):
        mm.MobileNetV2Model.from_pretrained(tmp_path)
    with pytest.raises(mm.ConfigError, match="AutoModelForSemanticSegmentation: expected a model_type of mobilenet_v2"):
        mm.AutoModelForSemanticSegmentation.from_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "model_type": "resnet"}))
    with pytest.raises(mm.ConfigError, match="resnet"):
        mm.load(tmp_path)
    shutil.rmtree(tmp_path)
    with pytest.raises(mm.FormatError, match="no such file"):
        mm.load(tmp_path)


@pytest.mark.parametrize(
    ("source", "message"),
    [("", "expected a path, a hub id"), (None, "got None"), ("demo:letters", "demo:digits, demo:scenes")],
)
def test_sources_that_are_none(source, message):
    with pytest.raises(mm.FormatError, match=message):
        mm.load(source)


def test_auto_classes_from_a_config():
    assert type(mm.AutoModel.from_config(V2)) is mm.MobileNetV2Model
    assert type(mm.AutoModelForImageClassification.from_config(V1)) is mm.MobileNetV1ForImageClassification
    assert type(mm.AutoModelForSemanticSegmentation.from_config(V2)) is mm.MobileNetV2ForSemanticSegmentation
    assert mm.AutoConfig.for_model("mobilenet_v1", num_labels=3).num_labels == 3
    with pytest.raises(mm.ConfigError):
        mm.AutoConfig.for_model("bert")
