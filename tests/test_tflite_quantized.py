"""Quantised TFLite files: models like any other, in every form, on every engine."""

from __future__ import annotations

import json

import numpy as np
import pytest
from flatbuffer_files import NUMBERS
from PIL import Image
from quantized_files import random_bytes, run_litert
from quantized_models import DEEPLAB, FORMS, PICTURES, V1, V2, build, save

import minimobile as mm
from minimobile.errors import InputError, MinimobileError, UnknownLayerError
from minimobile.formats.tflite import tflite


def test_a_quantised_file_is_a_model_like_any_other(tmp_path):
    model = mm.load(save(tmp_path, build(V1)))
    assert isinstance(model, mm.MobileNetV1ForImageClassification)
    stored = model.run_quantized(PICTURES)
    assert (stored.dtype, stored.shape) == (np.uint8, (2, 3))
    inputs = model.processor(list(PICTURES), do_resize=False, return_tensors="np")
    output = model(**inputs)
    np.testing.assert_array_equal(output.probabilities, stored / np.float32(256))
    assert output.logits.shape == (2, 3)
    steps = (output.logits / np.float32(0.1)).astype(np.float64)
    np.testing.assert_allclose(steps, np.rint(steps), atol=1e-4)  # they are bytes times a scale
    best = mm.classify(PICTURES[0], model=model, top=3)
    assert [found["probability"] for found in best] == sorted(output.probabilities[0].tolist(), reverse=True)


@pytest.mark.parametrize("form", ["V1 in int8", "V2 in int8, sigmoid", "DeepLab"])
def test_both_engines_agree_on_every_layer_of_every_form(form, tmp_path):
    architecture, dtype, tail, fields = FORMS[form]
    path = save(tmp_path, build(architecture, dtype, tail, **fields))
    compiled, reference = mm.load(path), mm.load(path, engine="reference")
    assert type(compiled).__name__ == architecture
    x = PICTURES if dtype == "uint8" else (PICTURES.astype(np.int16) - 128).astype(np.int8)
    expected = reference.run_quantized(x)
    np.testing.assert_array_equal(compiled.run_quantized(x), expected)
    layers = list(tflite.read(path).endpoints)
    ours, theirs = (model.features(_pixels(model, x), layers) for model in (compiled, reference))
    for name in layers:
        np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)
    assert len(np.unique(ours["layer.3"])) > 3
    if architecture == DEEPLAB:
        output = compiled(_pixels(compiled, x))
        np.testing.assert_array_equal(output.classes, expected)
        (mask,) = compiled.processor.post_process_semantic_segmentation(compiled(_pixels(compiled, x[:1])))
        np.testing.assert_array_equal(mask, expected[0])


def _pixels(model, x):
    """Return the pixel values that the input's bytes stand for."""
    tensor = model._runner.network.tensors[model._runner.network.inputs[0]]
    return ((x.astype(np.float32) - tensor.zero) * tensor.scale).transpose(0, 3, 1, 2)


def test_float_ends_around_a_body_of_integers(tmp_path):
    plain = mm.load(save(tmp_path, build(V2, "int8")))
    model = mm.load(save(tmp_path, build(V2, "int8", has_float_ends=True)))
    x = _pixels(plain, (PICTURES.astype(np.int16) - 128).astype(np.int8))
    found = model.run_quantized(x.transpose(0, 2, 3, 1))
    assert found.dtype == np.float32
    stored = plain.run_quantized((PICTURES.astype(np.int16) - 128).astype(np.int8))
    np.testing.assert_array_equal(found, (stored + np.float32(128)) / 256)
    np.testing.assert_array_equal(model(x).probabilities, found)
    np.testing.assert_array_equal(model(x).logits, plain(x).logits)


def test_layers_are_asked_for_by_every_name_they_have(tmp_path):
    path = save(tmp_path, build(V1))
    model, endpoints = mm.load(path), tflite.read(path).endpoints
    x = _pixels(model, PICTURES)
    found = model.features(x, ["layer.5", "Conv2d_3_depthwise", endpoints["layer.5"]])
    first = found.pop("layer.5")
    assert first.shape == (2, 6, 8, 8) or first.ndim == 4
    np.testing.assert_array_equal(first, found[endpoints["layer.5"]])
    assert model.trace(x)["layer.5"].shape == first.shape
    with pytest.raises(UnknownLayerError, match="dequantize=True"):
        model.features(x, ["layer.5.convolution"])


def test_what_only_floats_can_do_is_said_so(tmp_path):
    path = save(tmp_path, build(V1))
    model, floats = mm.load(path), mm.load(path, dequantize=True)
    x = _pixels(model, PICTURES)
    for attempt in (
        lambda: model.explain(x[:1], "layer.5", (0, 0, 0)),
        lambda: model.save_pretrained(tmp_path / "out"),
        lambda: mm.load(path, engine="reference", dtype="float64"),
        lambda: mm.load(path, depth_multiplier=0.2),
        lambda: mm.load(path, tf_padding=False),
    ):
        with pytest.raises(MinimobileError, match=r"quantised|integers|weight"):
            attempt()
    with pytest.raises(InputError, match="runs in integers"):
        floats.run_quantized(PICTURES)
    with pytest.raises(InputError, match=r"32x32 pixels and 3 channels.*got 64x64"):
        model(np.zeros((1, 3, 64, 64), np.float32))
    with pytest.raises(InputError, match="NaN"):
        model(np.full((1, 3, 32, 32), np.nan, np.float32))
    for wrong in (PICTURES.astype(np.int8), PICTURES[0], PICTURES[:0], PICTURES[..., :1]):
        with pytest.raises(InputError, match=r"run_quantized: expected uint8 \(N, 32, 32, 3\)"):
            model.run_quantized(wrong)
    with pytest.raises(InputError, match="bytes_of"):
        mm.load(path, bytes_of="up")


def test_dequantised_weights_are_what_the_bytes_stand_for(tmp_path):
    for dtype in ("uint8", "int8"):
        writer = build(V2, dtype)
        path = save(tmp_path, writer)
        model, floats = mm.load(path), mm.load(path, dequantize=True)
        network = model._runner.network
        stored = network.tensors["op_0/weight"]
        expected = (stored.values - stored.zero_points.reshape(-1, 1, 1, 1)) * stored.scales.reshape(-1, 1, 1, 1)
        weight = floats.state_dict()["mobilenet_v2.conv_stem.first_conv.convolution.weight"]
        np.testing.assert_array_equal(weight, expected.astype(np.float32).transpose(0, 3, 1, 2))
        x = _pixels(model, PICTURES if dtype == "uint8" else (PICTURES.astype(np.int16) - 128).astype(np.int8))
        layer = "conv_stem.first_conv"
        ours, theirs = (each.features(x, [layer])[layer] for each in (model, floats))
        assert np.abs(ours - theirs).max() <= 0.51 * 6 / 255  # one rounding to a step


@pytest.mark.crosscheck
@pytest.mark.parametrize("form", FORMS)
def test_every_tensor_is_litert_s(form, tmp_path):
    architecture, dtype, tail, fields = FORMS[form]
    content = build(architecture, dtype, tail, **fields).write()
    path = save(tmp_path, content)
    for bytes_of, resolver in (("litert", "BUILTIN_REF"), ("xnnpack", "AUTO")):  # AUTO: XNNPACK
        engine = mm.load(path, bytes_of=bytes_of)._runner.engine
        x = random_bytes(5, (1, 32, 32, 3), dtype)
        expected = run_litert(content, x, resolver)
        operations = engine.network.operations
        if bytes_of == "xnnpack" and architecture == DEEPLAB:
            operations = operations[:-2]  # XNNPACK's resizing of a few pixels rounds otherwise
        names = [operation.output for operation in operations]
        found = engine.run(x, names)
        for name in names:
            np.testing.assert_array_equal(found[name], expected[name], err_msg=f"{bytes_of} {name}")


def test_the_command_line_takes_a_quantised_file(run, tmp_path):
    path = save(tmp_path, build(V1))
    picture = tmp_path / "picture.png"
    Image.fromarray(PICTURES[0]).save(picture)
    outcome = run("classify", picture, "--model", path, "--top", 1, "--format", "json")
    assert outcome.code == 0
    (found,) = json.loads(outcome.out)[0]["predictions"]
    assert found == mm.classify(picture, model=path, top=1)[0]
    assert (found["probability"] * 256).is_integer()
    arrays = tmp_path / "out.npz"
    assert run("features", picture, "--model", path, "--layer", "layer.3", "--out", arrays).code == 0
    assert run("inspect", path).code == 0
    folder = tmp_path / "floats"
    assert run("convert", path, folder).code == 0
    floats = mm.load(folder).state_dict()
    for name, values in mm.load(path, dequantize=True).state_dict().items():
        np.testing.assert_array_equal(floats[name], values)


def test_a_shape_that_is_computed_is_not_needed(tmp_path):
    writer = build(V1, tail=("reshape", "softmax"))
    (reshape,) = (each for each in writer.operators if writer.codes[each[0][1]][3][1] == NUMBERS["RESHAPE"])
    number = writer.add_operator("SHAPE", [writer.inputs[0]], (4,), output={"dtype": "int32"})
    writer.operators.insert(0, writer.operators.pop())
    reshape[1][1] = number
    expected = mm.load(save(tmp_path, build(V1))).run_quantized(PICTURES)
    np.testing.assert_array_equal(mm.load(save(tmp_path, writer)).run_quantized(PICTURES), expected)


@pytest.mark.parametrize(("architecture", "dtype"), [(V1, "uint8"), (V1, "int8"), (V2, "uint8")])
def test_files_whose_bytes_do_the_clamping_are_what_they_are_with_activations(tmp_path, architecture, dtype):
    """Older converters leave relu6 out where the bytes end at 0 and 6 anyway."""
    fused = tflite.read(save(tmp_path, build(architecture, dtype)))
    plain = tflite.read(save(tmp_path, build(architecture, dtype, is_fused=False)))
    assert plain.architecture == fused.architecture == architecture
    assert plain.config == fused.config
    assert plain.quantized is not None
    for name, values in fused.weights.items():
        np.testing.assert_array_equal(plain.weights[name], values, err_msg=name)
    model = mm.load(tmp_path / "model.tflite")
    x = PICTURES if dtype == "uint8" else (PICTURES.astype(np.int16) - 128).astype(np.int8)
    np.testing.assert_array_equal(
        model.run_quantized(x), mm.load(tmp_path / "model.tflite", engine="reference").run_quantized(x)
    )


@pytest.mark.crosscheck
@pytest.mark.parametrize(("architecture", "dtype"), [(V1, "uint8"), (V1, "int8"), (V2, "uint8")])
def test_they_run_byte_for_byte_as_litert_runs_them(tmp_path, architecture, dtype):
    writer = build(architecture, dtype, is_fused=False)
    path = save(tmp_path, writer)
    x = PICTURES[:1] if dtype == "uint8" else (PICTURES[:1].astype(np.int16) - 128).astype(np.int8)
    theirs = run_litert(writer.write(), x)
    model = mm.load(path)
    names = tflite.read(path).endpoints
    features = model.features(_pixels(model, x), list(names))
    network = model._runner.network
    for layer, name in names.items():
        tensor = network.tensors[name]
        stored = np.rint(features[layer] / tensor.scale + tensor.zero).astype(tensor.dtype)
        np.testing.assert_array_equal(stored.reshape(theirs[name].shape) if stored.ndim < 4 else
                                      stored.transpose(0, 2, 3, 1), theirs[name], err_msg=layer)  # fmt: skip
    np.testing.assert_array_equal(model.run_quantized(x), theirs[network.outputs[0]])
