"""Configs: transformers' fields, files and meanings, and clear errors for values that mean nothing."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import twins

from minimobile.errors import ConfigError, FormatError
from minimobile.networks.config import (
    ACTIVATIONS,
    MobileNetV1Config,
    MobileNetV2Config,
    config_from_dict,
)
from minimobile.networks.mobilenet_v2 import make_divisible

BOTH = pytest.mark.parametrize("config_class", [MobileNetV1Config, MobileNetV2Config])
# As older and newer transformers wrote them: "torch_dtype" or "dtype", keys as strings, things of no concern to us.
FILE = {
    "_name_or_path": "somewhere",
    "architectures": ["MobileNetV2ForImageClassification"],
    "classifier_dropout": 0.3,
    "depth_multiplier": 0.75,
    "id2label": {"0": "cat", "1": "dog", "2": "eel"},
    "label2id": {"cat": 0, "dog": 1, "eel": 2},
    "image_size": [160, 192],
    "model_type": "mobilenet_v2",
    "torch_dtype": "float32",
    "transformers_version": "4.27.0",
    "use_return_dict": False,
}


def test_a_config_file_loads_as_it_is():
    config = config_from_dict(FILE)
    assert isinstance(config, MobileNetV2Config)
    assert (config.width_multiplier, config.num_labels, config.id2label[2]) == (0.75, 3, "eel")
    assert (config.dtype, config.classifier_dropout_prob, config.return_dict) == ("float32", 0.3, False)
    assert config.expand_ratio == 6.0 and config.semantic_loss_ignore_index == 255


@BOTH
def test_json_and_back_is_the_same_config(config_class):
    for config in (
        config_class(),
        config_class(num_labels=0),
        config_class(output_stride=8, pool_size=7, image_size=[96, 128], depth_multiplier=1),
        config_class(bottom_right_padding="all", folds_batch_norm=False),
        config_class(id2label={1: "b", 0: "a"}, problem_type="regression", architectures=["X"], dtype="float32"),
    ):
        assert config_from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_our_own_fields_are_written_only_where_they_say_something():
    assert not {"pool_size", "output_stride", "folds_batch_norm", "num_labels"} & set(MobileNetV1Config().to_dict())
    assert MobileNetV1Config(output_stride=8, pool_size=7).to_dict()["output_stride"] == 8


def test_old_spellings_give_way_to_new_ones():
    assert MobileNetV2Config.from_dict({"torch_dtype": "float16", "dtype": "float32"}).dtype == "float32"


@BOTH
def test_labels(config_class):
    assert config_class().id2label == {0: "LABEL_0", 1: "LABEL_1"} and config_class().num_labels == 2
    named = config_class(id2label={0: "cat", 1: "dog", 2: "eel"})
    assert named.num_labels == 3 and named.label2id == {"cat": 0, "dog": 1, "eel": 2}
    assert config_class(num_labels=1, id2label={0: "a", 1: "b"}).id2label == {0: "LABEL_0"}
    assert named.replace(num_labels=2).id2label == {0: "LABEL_0", 1: "LABEL_1"}
    assert named.replace(id2label={0: "x"}).num_labels == 1
    assert named.replace(num_labels=3).id2label == named.id2label
    assert named.replace(output_stride=8).labels == named.labels


def test_equality_and_no_hash():
    assert MobileNetV1Config() == MobileNetV1Config() != MobileNetV1Config(depth_multiplier=0.5)
    assert MobileNetV1Config() != MobileNetV2Config()
    with pytest.raises(TypeError):
        hash(MobileNetV1Config())


@BOTH
def test_a_config_does_not_change_and_says_what_to_do_instead(config_class):
    config = config_class()
    for change in (
        lambda: setattr(config, "num_labels", 5),
        lambda: config.update({"num_labels": 5}),
        lambda: setattr(config, "no_such_field", 5),
        lambda: delattr(config, "num_labels"),
    ):
        with pytest.raises(dataclasses.FrozenInstanceError, match=r"config = config\.replace\(") as caught:
            change()
        assert isinstance(caught.value, ConfigError) and isinstance(caught.value, AttributeError)
    assert config == config_class()
    with pytest.raises(ConfigError, match=r"config\.replace\(num_labels=5\)"):
        config.num_labels = 5


@BOTH
def test_the_constructor_takes_what_to_dict_gives(config_class):
    for config in (config_class(), config_class(num_labels=1), config_class(id2label={0: "a", 1: "b", 2: "c"})):
        assert config_class(**config.to_dict()) == config_class(**config.to_diff_dict()) == config
    foreign = {"transformers_version": "5.23.0", "_name_or_path": "", "output_attentions": False, "torch_dtype": None}
    assert config_class(**foreign, is_encoder_decoder=False) == config_class()
    assert config_class(dtype=np.float32).dtype == config_class(torch_dtype=np.dtype("f4")).dtype == "float32"
    with pytest.raises(ConfigError, match=r"no field 'num_lables'; did you mean num_labels\?"):
        config_class(num_lables=5)
    with pytest.raises(ConfigError, match=r"model_type 'mobilenet_v.', got 'resnet'"):
        config_class(model_type="resnet")
    with pytest.raises(ConfigError, match="by name"):
        config_class(3)


@BOTH
def test_one_label(config_class, tmp_path):
    config = config_class(num_labels=1)
    assert (config.num_labels, config.id2label, config.label2id) == (1, {0: "LABEL_0"}, {"LABEL_0": 0})
    config.save_pretrained(tmp_path)
    assert config_class.from_pretrained(tmp_path) == config_class.from_pretrained(tmp_path, num_labels=1) == config
    assert config_class.from_pretrained(tmp_path, num_labels=3).num_labels == 3


@BOTH
def test_files_of_a_config(config_class, tmp_path):
    config = config_class(depth_multiplier=0.5, id2label={0: "Möwe", 1: "b", 2: "c"})
    assert json.loads(config.to_json_string()) == json.loads(json.dumps(config.to_diff_dict()))
    assert json.loads(config.to_json_string(use_diff=False)) == json.loads(json.dumps(config.to_dict()))
    assert "return_dict" not in config.to_diff_dict() and "return_dict" in config.to_dict()
    config.to_json_file(tmp_path / "some.json")
    config.save_pretrained(str(tmp_path / "new" / "folder"))
    for read in (
        config_class.from_json_file(tmp_path / "some.json"),
        config_class.from_pretrained(tmp_path / "some.json"),
        config_class.from_pretrained(str(tmp_path / "new" / "folder")),
        config_class.from_pretrained(pretrained_model_name_or_path=tmp_path / "new" / "folder" / "config.json"),
    ):
        assert read == config
    assert config_class.from_pretrained(tmp_path / "some.json", tf_padding=False) == config.replace(tf_padding=False)
    other = MobileNetV2Config if config_class is MobileNetV1Config else MobileNetV1Config
    with pytest.raises(ConfigError, match=r"AutoConfig\.from_pretrained reads either"):
        other.from_pretrained(tmp_path / "new" / "folder")
    with pytest.raises(ConfigError, match=r"no field 'tf_paddding'; did you mean tf_padding\?"):
        config_class.from_pretrained(tmp_path / "some.json", tf_paddding=False)
    for missing in (tmp_path / "none", tmp_path / "none.json"):
        with pytest.raises(OSError, match="no such file or directory") as caught:
            config_class.from_pretrained(missing)
        assert isinstance(caught.value, FormatError)


@BOTH
def test_a_config_prints_on_a_line_or_two(config_class):
    assert repr(config_class()) == f"{config_class.__name__}()"
    labels = {index: f"a class with a name of some length, {index}" for index in range(1001)}
    text = repr(config_class(depth_multiplier=0.5, id2label=labels))
    assert text.startswith(f"{config_class.__name__}(depth_multiplier=0.5, num_labels=1001, id2label={{0: 'a class")
    assert len(text) < 320


@BOTH
@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("depth_multiplier", 0, "greater than zero"),
        ("depth_multiplier", -0.5, "greater than zero"),
        ("depth_multiplier", float("nan"), "greater than zero"),
        ("depth_multiplier", "1.0", "to be float"),
        ("depth_multiplier", True, "to be float"),
        ("output_stride", 12, "one of 2, 4, 8, 16, 32"),
        ("output_stride", 64, "one of 2, 4, 8, 16, 32"),
        ("output_stride", 1, "one of 2, 4, 8, 16, 32"),
        ("hidden_act", "swiglu", "one of relu6, relu"),
        ("num_channels", 0, "between 1 and 4096"),
        ("min_depth", 0, "between 1 and"),
        ("layer_norm_eps", -1e-3, "zero or more"),
        ("initializer_range", float("inf"), "zero or more"),
        ("classifier_dropout_prob", 2, "between 0 and 1"),
        ("tf_padding", 1, "to be bool"),
        ("pool_size", 0, "None (global) or 1 or more"),
        ("bottom_right_padding", "left", "None or one of depthwise, all"),
        ("problem_type", "guessing", "single_label_classification"),
        ("image_size", [1, 2, 3], "one or two positive integers"),
        ("image_size", "224", "to be int"),
        ("num_labels", -1, "between 0 and"),
        ("num_labels", 10**9, "between 0 and"),
        ("id2label", {0: "a", 2: "c"}, "without gaps"),
        ("id2label", {"zero": "a"}, "class numbers"),
        ("id2label", {0: 1}, "class numbers to names"),
        ("id2label", {0: "half a character: \ud800"}, "to names in UTF-8"),
    ],
)
def test_values_that_mean_nothing(config_class, field, value, message):
    with pytest.raises(ConfigError) as caught:
        config_class(**{field: value})
    assert message in str(caught.value) and config_class.__name__ in str(caught.value)


@pytest.mark.parametrize(
    ("field", "value"), [("depth_divisible_by", 0), ("depth_divisible_by", 2.5), ("expand_ratio", 0.0),
                         ("expand_ratio", -6), ("semantic_loss_ignore_index", "no")],
)  # fmt: skip
def test_values_that_mean_nothing_on_v2(field, value):
    with pytest.raises(ConfigError, match=field):
        MobileNetV2Config(**{field: value})


def test_single_label_classification_of_one_label():
    with pytest.raises(ConfigError, match="problem_type"):
        MobileNetV1Config(num_labels=1, problem_type="single_label_classification")


def test_configs_of_other_models():
    for values in ({"model_type": "resnet"}, {}, [], None):
        with pytest.raises(ConfigError, match="mobilenet_v1 or mobilenet_v2"):
            config_from_dict(values)
    with pytest.raises(ConfigError, match="load it with the class of that model"):
        MobileNetV1Config.from_dict(FILE)
    with pytest.raises(ConfigError, match="expected a JSON object, got list"):
        MobileNetV1Config.from_dict([])


def test_unknown_fields_are_ignored_in_files_but_not_as_overrides():
    assert MobileNetV1Config.from_dict({"no_such_field": 1}) == MobileNetV1Config()
    with pytest.raises(ConfigError, match="no_such_field"):
        MobileNetV1Config().replace(no_such_field=1)
    with pytest.raises(ConfigError, match="no_such_field"):
        MobileNetV1Config.from_dict({}, no_such_field=1)


@pytest.mark.parametrize(
    ("value", "divisor", "minimum", "rounded"),
    [(16, 8, 8, 16), (12, 8, 8, 16), (11, 8, 8, 16), (17, 8, 8, 16), (3, 8, 8, 8), (12, 1, 1, 12), (0, 8, None, 8),
     (67, 8, 8, 64)],
)  # fmt: skip
def test_make_divisible(value, divisor, minimum, rounded):
    assert make_divisible(value, divisor, minimum) == rounded


def test_make_divisible_never_loses_more_than_a_tenth():
    for value in range(1, 400):
        for divisor in (1, 4, 8, 16):
            rounded = make_divisible(value, divisor)
            assert rounded % divisor == 0 and rounded >= 0.9 * value and rounded - value <= max(divisor, 0.1 * value)


@pytest.mark.crosscheck
@BOTH
def test_defaults_of_transformers(config_class):
    twins.import_torch()
    import transformers

    theirs = getattr(transformers, config_class.__name__)().to_dict()
    ours = config_class().to_dict()
    assert {name: ours[name] for name in ours if name in theirs} == {
        name: theirs[name] for name in ours if name in theirs
    }
    assert set(ours) - set(theirs) == set()


LABELLED = {"id2label": {0: "a", 1: "b"}, "label2id": {"a": 0, "b": 1}}


@pytest.mark.crosscheck
@BOTH
def test_texts_and_constructors_are_those_of_transformers(config_class):
    twins.import_torch()
    import transformers

    for fields in ({}, {"num_labels": 1}, LABELLED, {"return_dict": False, "dtype": "float32"}):
        theirs, ours = getattr(transformers, config_class.__name__)(**fields), config_class(**fields)
        assert config_class(**theirs.to_dict()) == config_class(**theirs.to_diff_dict()) == ours
        expected = json.loads(theirs.to_json_string())
        del expected["transformers_version"]
        assert json.loads(ours.to_json_string()) == expected


@pytest.mark.crosscheck
@BOTH
def test_transformers_reads_what_we_write(config_class, tmp_path):
    twins.import_torch()
    import transformers

    config = config_class(depth_multiplier=1, layer_norm_eps=1, num_labels=3, image_size=(96, 128), hidden_act="silu")
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict()))
    theirs = getattr(transformers, config_class.__name__).from_pretrained(tmp_path)
    assert theirs.num_labels == 3 and theirs.layer_norm_eps == 1.0 and theirs.hidden_act == "silu"
    theirs.save_pretrained(tmp_path)
    assert config_from_dict(json.loads((tmp_path / "config.json").read_text())) == config


@pytest.mark.crosscheck
def test_activations_are_those_of_transformers():
    twins.import_torch()
    from transformers.activations import ACT2FN

    assert set(ACTIVATIONS) <= set(ACT2FN)
