"""Quantised files with a head of their own: run as networks of integers, their raw outputs by name."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
from detection_files import open_litert, write_detector
from own_head_files import NAMES, convert_pyramid, write_own_head

import minimobile as mm
from minimobile.cli import main
from minimobile.comparison.bench import compare_quantized
from minimobile.errors import FormatError, InputError
from minimobile.formats.tflite.tflite_constants import FOLDED_LIMIT, fold_constants
from minimobile.formats.tflite.tflite_model import read_model
from minimobile.networks.ssd_config import MobileNetSSDConfig
from minimobile.quantized.network import Network, Tensor
from minimobile.quantized.own_head import own_outputs

DENSE = mm.MobileNetV1Config(
    depth_multiplier=0.25, num_labels=3, image_size=32, ssd=MobileNetSSDConfig(use_depthwise=False, kernel_size=1)
)
LITE = mm.MobileNetV2Config(depth_multiplier=0.35, num_labels=3, image_size=32)
CONFIGS = {"V1": DENSE, "V2": LITE}


OFFSETS, SCORES, FEWER = (1, 42, 4), (1, 42, 3), (1, 41, 4)
HEADS = {  # shapes of outputs, which of them are constants, and what they are called
    "one output": ([OFFSETS], (), []),
    "two": ([OFFSETS, OFFSETS], (1,), ["values", "a constant"]),
    "four": ([OFFSETS, OFFSETS, SCORES, SCORES], (), ["values"] * 4),
    "boxes alone": ([OFFSETS, SCORES, SCORES], (), ["values"] * 3),
    "other rows": ([OFFSETS, FEWER, SCORES], (1,), ["values", "a constant", "values"]),
    "an SSD": ([OFFSETS, OFFSETS, SCORES], (1,), ["box offsets", "anchors", "values"]),
    "an SSD with constants": ([OFFSETS, OFFSETS, SCORES], (1, 2), ["box offsets", "anchors", "a constant"]),
}


@pytest.mark.parametrize("name", HEADS)
def test_only_what_looks_like_an_ssd_is_called_one(name):
    shapes, constants, expected = HEADS[name]
    tensors = {
        str(at): Tensor(str(at), shape, np.dtype(np.int8), values=np.zeros(shape, np.int8) if at in constants else None)
        for at, shape in enumerate(shapes)
    }
    assert [output.what for output in own_outputs(Network(tensors, (), ("x",), tuple(tensors)))] == expected


def save(folder, writer, name="detector.tflite"):
    path = folder / name
    path.write_bytes(writer if isinstance(writer, bytes) else writer.write())
    return path


def picture(seed=0, dtype="int8", side=32):
    limits = np.iinfo(dtype)
    return np.random.default_rng(seed).integers(limits.min, limits.max, (1, side, side, 3), dtype, endpoint=True)


@pytest.mark.parametrize("version", CONFIGS)
def test_the_body_is_a_mobilenet_and_the_head_gives_raw_outputs_by_name(version, tmp_path):
    path = save(tmp_path, write_own_head(CONFIGS[version]))
    models = [mm.load(path, engine=engine) for engine in ("compiled", "reference")]
    assert type(models[0]).__name__ == f"MobileNet{version}Model"
    assert [(output.name, output.what) for output in models[0].own_outputs] == list(
        zip(NAMES, ("box offsets", "scores", "anchors"), strict=True)
    )
    x = np.concatenate([picture(0), picture(1)])
    ours, expected = (model.run_quantized(x) for model in models)
    assert {name: values.shape for name, values in ours.items()} == {
        "offsets": (2, 42, 4), "scores": (2, 42, 4), "anchors": (2, 42, 4),
    }  # fmt: skip
    for name in NAMES:
        np.testing.assert_array_equal(ours[name], expected[name])
        assert ours[name].dtype == np.int8
    np.testing.assert_array_equal(ours["anchors"][0], ours["anchors"][1])
    assert np.ptp(ours["scores"].astype(int)) > 20


def test_numbers_of_the_raw_outputs_are_features_and_the_body_is_called_as_ever(tmp_path):
    model = mm.load(save(tmp_path, write_own_head(DENSE)))
    x = picture()
    pixel_values = ((x.astype(np.float32)) / 128).transpose(0, 3, 1, 2)
    numbers, raw = model.features(pixel_values, list(NAMES)), model.run_quantized(x)
    np.testing.assert_allclose(numbers["scores"], (raw["scores"].astype(np.float32) + 128) / 256, rtol=1e-6)
    np.testing.assert_allclose(numbers["offsets"], raw["offsets"] * np.float32(0.1), rtol=1e-6)
    assert model.processor.resample == 0  # pictures of the school of such heads: nearest, aspect not kept
    out = model(pixel_values)
    assert list(out) == ["last_hidden_state"]  # the file has no pooling layer
    assert out.last_hidden_state.shape == (1, 256, 1, 1)
    assert mm.load(tmp_path / "detector.tflite", dequantize=True)(pixel_values).pooler_output.shape == (1, 256)


def test_a_copy_of_the_file_gives_the_same_bytes(tmp_path):
    path = save(tmp_path, write_own_head(LITE))
    report = mm.convert(path, tmp_path / "copy.tflite")
    assert all("part of the file's own head" in reason for reason in report.ignored.values())
    ours, copy = (mm.load(source).run_quantized(picture(3)) for source in (path, tmp_path / "copy.tflite"))
    for name in NAMES:
        np.testing.assert_array_equal(ours[name], copy[name])


def test_the_commands_say_what_the_file_is(tmp_path, capsys):
    path = save(tmp_path, write_own_head(DENSE))
    assert main(["inspect", str(path)]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "an SSD's of another school, not decoded, in integers alone: offsets int8 (1, 42, 4), box offsets" in told
    assert main(["inspect", str(path), "--format", "json"]) == 0
    assert [output["name"] for output in json.loads(capsys.readouterr().out)["own_outputs"]] == list(NAMES)
    with pytest.raises(InputError, match="got a MobileNetV1Model and a head of its own: an SSD's of another school"):
        mm.detect(np.zeros((32, 32, 3), np.uint8), path)


def test_its_time_is_not_held_against_the_floats_of_the_body_alone(tmp_path):
    path = save(tmp_path, write_own_head(DENSE))
    assert [timing.name for timing in compare_quantized(path, [], 1, seconds=0.01)] == ["minimobile"]


def test_a_network_of_floats_with_a_head_of_its_own_is_refused_for_that(tmp_path):
    writer, _ = write_detector(DENSE)
    writer.operators.pop()
    writer.outputs = [find(writer, "joined 4"), find(writer, "scores")]
    path = save(tmp_path, writer)
    with pytest.raises(FormatError, match="a head of its own with 2 outputs, which runs from a quantised file alone"):
        mm.load(path)


def find(writer, name):
    return next(index for index, fields in enumerate(writer.tensors) if fields[3] == name)


def test_anchors_that_are_tiled_more_often_than_their_shape_says_are_no_constants(tmp_path):
    path = save(tmp_path, write_own_head(DENSE, repeats=2))
    with pytest.raises(FormatError, match="TILE 'tiled 0': expected one of the operators"):
        mm.load(path)


def test_more_constants_than_a_detector_can_have_are_refused(tmp_path):
    writer = write_own_head(DENSE)
    writer.tensors[find(writer, "tiled 0")][0] = np.array((1, 2**13, 2**12, 1, 1), np.int32)
    with pytest.raises(FormatError, match=f"expected at most {FOLDED_LIMIT} values made of constants, found"):
        mm.load(save(tmp_path, writer))


def test_a_result_of_another_shape_than_its_constants_make_is_refused(tmp_path):
    writer = write_own_head(DENSE)
    number = next(index for index, fields in enumerate(writer.tensors) if str(fields[3]).endswith("/shape"))
    writer.tensors[number][0] = np.array((3,), np.int32)
    with pytest.raises(FormatError, match=r"SHAPE .*: expected int32 \(4,\) of its constants, found int32 \(3,\)"):
        mm.load(save(tmp_path, writer))


def test_shapes_and_anchors_become_constants_and_nothing_else(tmp_path):
    model = read_model(save(tmp_path, write_own_head(DENSE)))
    folded = fold_constants(model, "a file")
    gone = {"SHAPE", "STRIDED_SLICE", "PACK", "TILE"}
    assert gone <= {operator.kind for operator in model.operators}
    assert not gone & {operator.kind for operator in folded.operators}
    anchors = folded.tensors[folded.outputs[2]].data
    names = [f"anchors {index}" for index in range(6)]
    expected = [tensor.data.reshape(-1, 4) for tensor in model.tensors if tensor.name in names]
    np.testing.assert_array_equal(anchors[0], np.concatenate(expected))


def assert_litert_s_bytes(path, dtype, side, seeds):
    model, interpreter = mm.load(path), open_litert(path.read_bytes())
    for seed in seeds:
        x = picture(seed, dtype, side)
        (entry,) = interpreter.get_input_details()
        interpreter.set_tensor(entry["index"], x)
        interpreter.invoke()
        ours = model.run_quantized(x)
        details = interpreter.get_output_details()
        assert [detail["name"] for detail in details] == list(ours)
        for detail in details:
            theirs = interpreter.get_tensor(detail["index"])
            assert theirs.dtype == ours[detail["name"]].dtype
            np.testing.assert_array_equal(ours[detail["name"]], theirs, err_msg=f"picture({seed}): {detail['name']}")


@pytest.mark.crosscheck
@pytest.mark.parametrize("version", CONFIGS)
def test_raw_outputs_are_litert_s(version, tmp_path):
    assert_litert_s_bytes(save(tmp_path, write_own_head(CONFIGS[version])), "int8", 32, range(20))


@pytest.mark.crosscheck
@pytest.mark.parametrize("version", ["V1", pytest.param("V2", marks=pytest.mark.slow)])
def test_feature_pyramids_as_tensorflow_converts_them_give_litert_s_bytes(version, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = convert_pyramid(version, tmp_path)
    assert_litert_s_bytes(path, "uint8", {"V1": 96, "V2": 128}[version], range(20))
    model = mm.load(path)
    assert type(model).__name__ == f"MobileNet{version}Model"
    assert {output.what for output in model.own_outputs} == {"box offsets", "scores", "anchors"}
