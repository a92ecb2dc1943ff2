"""`mm.quantize`: a model in integers from one in floats, the file of it, and what is refused."""

from __future__ import annotations

import dataclasses
import json

import frameworks
import numpy as np
import pytest
from PIL import Image
from quantizable import NETWORKS, SCHEMES, V2, make, photographs
from quantized_files import run_litert

import minimobile as mm
from minimobile import formats
from minimobile.calibration.method import Method
from minimobile.calibration.quantize import quantize_by
from minimobile.calibration.report import make_report
from minimobile.comparison.quantized_steps import compare_with_dequantized
from minimobile.errors import FormatError
from minimobile.formats import hdf5
from minimobile.networks.build_graph import build_graph
from minimobile.networks.ssd import find_results
from minimobile.quantized.engine import QuantizedEngine


@pytest.fixture(scope="module")
def digits() -> mm.MobileNetV1ForImageClassification:
    return mm.load("demo:digits", num_threads=1)


@pytest.fixture(scope="module")
def pictures() -> list[str]:
    return [f"minimobile/demo/digit_{digit}.png" for digit in (0, 2, 3, 5, 7, 9)]


def test_the_digit_reader_reads_digits_in_integers(digits, pictures, tmp_path):
    model = mm.quantize(digits, pictures)
    assert model.is_quantized
    for picture in pictures:
        expected, found = (mm.classify(picture, model=each, top=1)[0] for each in (digits, model))
        assert found["index"] == expected["index"]
        assert abs(found["probability"] - expected["probability"]) < 0.1
    model.save(tmp_path / "digits.tflite")
    again = mm.load(tmp_path / "digits.tflite")
    assert again.config == model.config.replace(architectures=again.config.architectures)
    assert again.processor.to_dict() == model.processor.to_dict()
    x = np.random.default_rng(0).integers(0, 256, (2, *model.quantized_input.shape[1:]), np.uint8)
    np.testing.assert_array_equal(again.run_quantized(x), model.run_quantized(x))
    floats = mm.load(tmp_path / "digits.tflite", dequantize=True).state_dict()
    for name, values in model.state_dict().items():
        np.testing.assert_array_equal(floats[name], values, err_msg=name)


def test_the_box_finder_finds_digits_in_integers(tmp_path):
    floats, scene = mm.load("demo:boxes", num_threads=1), "minimobile/demo/scene.png"
    model = mm.quantize(floats, [scene])
    model.save(tmp_path / "boxes.tflite")
    found, again = (mm.detect(scene, each, 0.3) for each in (model, mm.load(tmp_path / "boxes.tflite")))
    assert found == again
    expected = mm.detect(scene, floats, 0.5)
    assert len(expected) == 6
    for one in expected:
        corners = [list(other["box"].values()) for other in found if other["label"] == one["label"]]
        assert np.abs(np.subtract(corners, list(one["box"].values()))).max(1).min() < 3  # pixels of 480


def test_a_pictures_bytes_go_in_as_they_are(digits, pictures):
    for input_type in ("uint8", "int8", "float32"):
        model = mm.quantize(digits, pictures, input_type=input_type)
        assert model.quantized_input.dtype == input_type
        pixels = model.processor(pictures[0], return_tensors="np", do_rescale=False, do_normalize=False)["pixel_values"]
        stored = pixels.transpose(0, 2, 3, 1).astype(np.uint8)
        given = {"uint8": stored, "int8": (stored.astype(int) - 128).astype(np.int8)}
        values = model.processor(pictures[0], return_tensors="np")["pixel_values"]
        x = given.get(input_type, values.transpose(0, 2, 3, 1).astype(np.float32))
        output = model.run_quantized(x)
        assert output.dtype == input_type
        logits = model(values).logits
        if input_type == "float32":
            np.testing.assert_array_equal(output, logits)
        else:
            np.testing.assert_array_equal(output.argmax(1), logits.argmax(1))


@pytest.mark.parametrize(
    ("name", "scheme"),
    [("V1, symmetric padding, relu", "int8"), ("V1 without head", "uint8"), ("V2", "int8"), ("DeepLab", "int8"),
     ("DeepLab", "uint8"), ("SSDLite on V2", "int8"), ("SSDLite on V2", "uint8")],
)  # fmt: skip
def test_every_network_runs_and_comes_back_from_its_file(name, scheme, tmp_path):
    floats = make(*NETWORKS[name])
    result = quantize_by(floats, photographs(3), SCHEMES[scheme])
    result.model.save(tmp_path / "model.tflite")
    again = mm.load(tmp_path / "model.tflite")
    x = np.random.default_rng(1).integers(0, 256, result.model.quantized_input.shape, np.uint8)
    for ours, theirs in zip(again.run_quantized(x), result.model.run_quantized(x), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    values = floats.processor(photographs(1, 9)[0], return_tensors="np")["pixel_values"]
    names = find_results(floats.graph)
    exact, found = (
        np.concatenate([each.reshape(-1) for each in model.features(values, names).values()])
        for model in (floats, again)
    )
    error = np.sqrt(np.mean((found - exact) ** 2) / np.mean(exact**2))
    assert error < (0.15 if scheme == "int8" and "SSD" not in name else 0.5)  # the deepest are the furthest off
    assert_dequantized(tmp_path / "model.tflite", values)


@pytest.mark.parametrize(("name", "input_type"), [("DeepLab", "uint8"), ("SSDLite on V2", "float32")])
def test_integers_come_back_from_the_native_file_with_every_bit(name, input_type, tmp_path):
    model = quantize_by(make(*NETWORKS[name]), photographs(3), Method(input_type=input_type)).model
    path = tmp_path / "model.h5"
    model.save(path)
    again = mm.load(path)
    assert again.is_quantized
    assert again.config == model.config
    assert again.processor.to_dict() == model.processor.to_dict()
    x = np.random.default_rng(1).integers(0, 256, model.quantized_input.shape, np.uint8).astype(input_type)
    for ours, theirs in zip(again.run_quantized(x), model.run_quantized(x), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    for weight, values in again.state_dict().items():  # all that a result needs
        np.testing.assert_array_equal(model.state_dict()[weight], values, err_msg=weight)
    assert again.digest() == model.digest() or "DeepLab" in name  # which has layers behind those that it needs
    assert not mm.load(path, dequantize=True).is_quantized
    assert path.stat().st_size < 0.5 * sum(values.nbytes for values in model.state_dict().values())
    with pytest.raises(FormatError, match="expected dtype float32 for a network of integers, got 'float16'"):
        model.save(path, "float16")


def test_damaged_integers_of_a_native_file_are_refused(digits, pictures, tmp_path):
    path = tmp_path / "model.h5"
    mm.quantize(digits, pictures[:1]).save(path)
    assert hdf5.describe(path).facts["numbers"].startswith("integers, as a TFLite file of")
    content = bytearray(path.read_bytes())
    content[content.index(b"TFL3") + 400] ^= 1
    path.write_bytes(content)
    with pytest.raises(FormatError, match=r"checksum does not fit|damaged"):
        mm.load(path)
    checkpoint = mm.quantize(digits, pictures[:1])._as_checkpoint()
    with pytest.raises(FormatError, match=r"expected integers of a MobileNetV1Model, found a MobileNetV1ForImageClass"):
        hdf5.write(path, dataclasses.replace(checkpoint, architecture="MobileNetV1Model"))
        mm.load(path)


def test_without_a_picture_batch_norm_says_what_to_expect(digits, pictures, tmp_path):
    model = mm.quantize(digits)
    for picture in pictures:
        expected, found = (mm.classify(picture, model=each, top=1)[0]["index"] for each in (digits, model))
        assert found == expected
    digits.save(tmp_path / "folded.tflite")
    with pytest.raises(FormatError, match="batch norm's statistics of training, found them folded in; give pictures"):
        mm.quantize(tmp_path / "folded.tflite")


def test_torchvisions_normalisation_of_each_channel_stays_with_the_processor(tmp_path):
    floats = make(V2, {}, "torchvision")
    model = mm.quantize(floats, photographs(3))
    assert model.processor.image_std == floats.processor.image_std
    model.save(tmp_path / "model.tflite")
    values = floats.processor(photographs(1, 4)[0], return_tensors="np")["pixel_values"]
    np.testing.assert_array_equal(mm.load(tmp_path / "model.tflite")(values).logits, model(values).logits)


def test_the_report_says_what_each_step_gained(digits, pictures):
    result = quantize_by(digits, pictures, Method(per_channel=False, equalize=True))
    report = make_report(result)
    assert report.pictures == 6
    layer = report.layers[-1]
    assert list(layer.steps) == ["plain", "ranges", "equalized", "balanced", "bias"]
    assert layer.steps["bias"] > layer.steps["plain"]
    assert json.loads(json.dumps(report.to_dict()))["layers"][-1]["name"] == "classifier"
    without = make_report(quantize_by(digits))
    assert without.layers[1].steps == {}
    assert without.layers[1].weights > 20


def test_the_command_writes_the_file_that_the_function_makes(run, digits, pictures, tmp_path):
    digits.save(tmp_path / "digits.h5")
    out, chart, bad = tmp_path / "out.tflite", tmp_path / "chart.png", tmp_path / "bad.png"
    bad.write_bytes(b"no picture")
    command = ["quantize", str(tmp_path / "digits.h5"), str(out), "--report", "--picture", str(chart)]
    done = run(*command, *[word for picture in pictures for word in ("--calibrate", picture)])
    assert done.code == 0, done.err
    assert "calibrated  6 pictures" in done.out
    header = next(line for line in done.out.splitlines() if line.startswith("layer"))
    assert header.split()[-4:] == ["balanced", "bias", "beyond", "shift"]
    with Image.open(chart) as image:
        assert image.size == (960, 400)
    mm.quantize(tmp_path / "digits.h5", pictures).save(tmp_path / "same.tflite")
    assert out.read_bytes() == (tmp_path / "same.tflite").read_bytes()
    taken = run(*command[:3])
    assert taken.code == 1
    assert "--force" in taken.err
    calibrate = ["--calibrate", pictures[0], "--calibrate", str(bad)]
    done = run(*command[:4], "--force", *calibrate, "--format", "json")
    assert done.code == 1
    assert "bad.png" in done.err
    facts = json.loads(done.out)
    assert (facts["pictures"], facts["bytes"], len(facts["skipped"])) == (1, out.stat().st_size, 1)
    few = json.loads(run(*command[:3], "--force", "--format", "json").out)
    assert few.keys() == facts.keys() - {"layers"}  # which take a run for every step
    assert run("quantize", "demo:digits", str(tmp_path / "x.h5")).code == 2


def test_floats_are_not_lost_to_their_own_integers(run, digits, tmp_path):
    floats = tmp_path / "digits.onnx"
    digits.save(floats)
    before = floats.read_bytes()
    code, out, err = run("quantize", str(floats), str(floats), "--force")
    assert (code, out) == (1, "")
    assert err == f"error: {floats}: expected a destination apart from the source, found the source itself\n"
    assert floats.read_bytes() == before


def assert_dequantized(path, pixels) -> None:
    """Run `check --against dequantized`: every layer that the file holds, the first one off by rounding alone."""
    rows = compare_with_dequantized(path, pixel_values=pixels)
    found = formats.read(path)
    names = {node.name for node in build_graph(found.config, found.architecture).nodes}
    assert {row.name for row in rows} == names & found.endpoints.keys()
    first = rows[0]
    assert first.name.startswith("conv_stem")
    assert first.mean < 0.3
    assert first.same > 0.6
    assert all(row.mean < 40 and row.clipped < 0.25 for row in rows)


def assert_bytes_of_litert(model, path, batch: int) -> int:
    """Compare every tensor that LiteRT computes with ours, for a batch."""
    content = path.read_bytes()
    network = model._integers
    x = np.random.default_rng(5).integers(0, 256, (batch, *model.quantized_input.shape[1:]), np.uint8)
    theirs = run_litert(content, x) if batch == 1 else run_litert_batch(content, x)
    names = [operation.output for operation in network.operations]
    compared = 0
    for name in names:
        if name not in theirs:
            continue
        engine = QuantizedEngine(network)
        ours = np.concatenate([engine.run(x[index : index + 1], (name,))[name] for index in range(batch)])
        np.testing.assert_array_equal(theirs[name].reshape(ours.shape), ours, err_msg=name)
        compared += 1
    return compared


def run_litert_batch(content, x):
    litert = frameworks.litert()
    interpreter = litert.Interpreter(
        model_content=content, experimental_op_resolver_type=litert.OpResolverType.BUILTIN_REF,
        experimental_preserve_all_tensors=True, num_threads=1,
    )  # fmt: skip
    interpreter.resize_tensor_input(interpreter.get_input_details()[0]["index"], x.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x)
    interpreter.invoke()
    return {tensor["name"]: interpreter.get_tensor(tensor["index"]) for tensor in interpreter.get_tensor_details()}


@pytest.mark.crosscheck
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("name", NETWORKS)
def test_litert_gives_our_bytes_in_every_tensor(name, scheme, tmp_path):
    model = quantize_by(make(*NETWORKS[name]), photographs(3), SCHEMES[scheme]).model
    path = tmp_path / "model.tflite"
    model.save(path)
    is_detector = "Detection" in type(model).__name__
    for batch in (1,) if is_detector else (1, 4):  # the operator that finds boxes takes one picture
        assert assert_bytes_of_litert(model, path, batch) > 25
    x = np.random.default_rng(5).integers(0, 256, model.quantized_input.shape, np.uint8)
    run_litert(path.read_bytes(), x, "BUILTIN")  # under XNNPACK
    assert_dequantized(path, model.processor(photographs(1, 9)[0], return_tensors="np")["pixel_values"])
    if is_detector:
        theirs, (boxes, classes, scores, count) = run_litert(path.read_bytes(), x), model.run_quantized(x)
        found = int(count[0])
        assert theirs["number of detections"][0] == found > 5
        for what, values in (("location", boxes), ("category", classes), ("score", scores)):
            np.testing.assert_array_equal(theirs[what][:, :found], values[:, :found])


REAL = ("keras/mobilenet_v1_0.25_224.keras", "huggingface/mobilenet_v2_1.0_224",
        "huggingface/deeplabv3_mobilenet_v2_0.5_257", "detection/ssdlite_mobilenet_v2_coco_float32.tflite")  # fmt: skip


@pytest.mark.crosscheck
@pytest.mark.parametrize("source", REAL)
def test_litert_gives_our_bytes_in_every_tensor_of_real_networks(source, test_data, tmp_path):
    photos = sorted((test_data / "images" / "imagenet_100").glob("*.JPEG"))[:2]
    model = quantize_by(mm.load(test_data / "models" / source), photos, Method()).model
    path = tmp_path / "model.tflite"
    model.save(path)
    assert assert_bytes_of_litert(model, path, 1) > 25
    assert_dequantized(path, model.processor(photos[0], return_tensors="np")["pixel_values"])
