"""What `mm.quantize` is given: pictures of any kind, and what is refused by name."""

from __future__ import annotations

import dataclasses
import shutil
import tracemalloc

import numpy as np
import pytest
from quantizable import SCHEMES, V1, make, photographs

import minimobile as mm
from minimobile.calibration.quantize import quantize_by
from minimobile.errors import FormatError, InputError


@pytest.fixture(scope="module")
def digits() -> mm.MobileNetV1ForImageClassification:
    return mm.load("demo:digits", num_threads=1)


@pytest.fixture(scope="module")
def pictures() -> list[str]:
    return [f"minimobile/demo/digit_{digit}.png" for digit in (0, 2, 3, 5, 7, 9)]


def test_bad_pictures_are_reported_and_left_out(digits, pictures, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"no picture")
    shutil.copy(pictures[0], tmp_path / "good.png")
    with pytest.warns(UserWarning, match=r"bad\.png: expected a picture"):
        model = mm.quantize(digits, tmp_path)
    assert model.is_quantized
    (tmp_path / "good.png").unlink()
    with pytest.raises(InputError, match="pictures: expected at least one that can be used, got 1 that cannot"):
        mm.quantize(digits, tmp_path)
    with pytest.raises(InputError, match="pictures: expected at least one"):
        mm.quantize(digits, [])
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"empty: expected a picture or a folder of pictures, got a folder with none"):
        mm.quantize(digits, tmp_path / "empty")


def test_what_cannot_be_quantised_is_refused_by_name(digits, pictures):
    with pytest.raises(InputError, match="got one that runs in integers already"):
        mm.quantize(mm.quantize(digits, pictures[:1]), pictures)
    with pytest.raises(FormatError, match=r"conv_stem: expected relu6, relu or no activation, found silu"):
        mm.quantize(make(V1, {"hidden_act": "silu"}), photographs(1))
    with pytest.raises(InputError, match="ranges: expected one of batch_norm, min_max"):
        mm.quantize(digits, pictures, ranges="widest")
    with pytest.raises(InputError, match="ranges: expected 'batch_norm' without pictures, got 'min_max'"):
        mm.quantize(digits, ranges="min_max")
    with pytest.raises(InputError, match="input_type: expected one of uint8, int8, float32, got 'int16'"):
        mm.quantize(digits, pictures, input_type="int16")
    with pytest.raises(InputError, match=r"pixel_values: expected finite pixel values \(1, 3, 33, 33\), got"):
        mm.quantize(make(V1, {}), np.zeros((1, 3, 32, 32), np.float32))
    model = make(V1, {})
    weights = model.state_dict()
    weights["mobilenet_v1.layer.3.convolution.weight"] = np.full_like(
        weights["mobilenet_v1.layer.3.convolution.weight"], np.nan
    )
    with pytest.warns(UserWarning, match="NaN"):
        spoiled = type(model).from_checkpoint(dataclasses.replace(model.to_checkpoint(), weights=weights))
    with pytest.raises(FormatError, match=r"layer\.3: expected weights that are finite numbers"):
        mm.quantize(spoiled, photographs(1))


def spoil(model, name: str, values: float):
    """Return the model with one number for all of a weight."""
    checkpoint = model.to_checkpoint()
    weights = {**checkpoint.weights, name: np.full_like(checkpoint.weights[name], values)}
    return type(model).from_checkpoint(dataclasses.replace(checkpoint, weights=weights))


def test_layers_of_zeros_become_integers_and_values_beyond_float32_are_refused(tmp_path):
    model = make(V1, {"hidden_act": "relu"})
    dead = spoil(model, "mobilenet_v1.layer.3.convolution.weight", 0.0)
    dead = spoil(dead, "mobilenet_v1.layer.3.normalization.running_mean", 0.0)
    dead = spoil(dead, "mobilenet_v1.layer.3.normalization.bias", 0.0)  # its range is 0 to 0
    dead = spoil(dead, "mobilenet_v1.layer.5.convolution.weight", 0.0)
    for method in SCHEMES.values():
        found = quantize_by(dead, photographs(2), method)
        found.model.save(tmp_path / "model.tflite")
        grid = found.rounded.network.tensors["layer.3"]
        assert (float(grid.scale) * 255, grid.zero) == (pytest.approx(1), int(np.iinfo(grid.dtype).min))
        values = dead.processor(photographs(1, 4)[0], return_tensors="np")["pixel_values"]
        assert not mm.load(tmp_path / "model.tflite").features(values, ["layer.3"])["layer.3"].any()
    endless = spoil(model, "mobilenet_v1.layer.3.normalization.weight", 1e25)
    endless = spoil(endless, "mobilenet_v1.layer.5.normalization.weight", 1e25)
    with pytest.raises(
        FormatError, match=r"layer\.\d+: expected finite values for every picture, found NaN or infinity"
    ):
        mm.quantize(endless, photographs(1))
    folded = spoil(model, "mobilenet_v1.layer.3.normalization.weight", 3e38)  # beyond float32 once it is folded in
    with pytest.raises(FormatError, match=r"layer\.3: expected weights that are finite numbers"):
        mm.quantize(folded, photographs(1))


@pytest.mark.parametrize(
    ("pictures", "sentence"),
    [
        (3, "expected a path, bytes, a PIL image or an array, got int"),
        (b"no picture", "expected a picture"),
        (["setup.cfg"], r"setup\.cfg: expected a picture"),
        (["nowhere.png"], r"nowhere\.png: no such file"),
        ([np.zeros((40, 40))], r"expected an array \(H, W, C\)"),
        (np.zeros((4, 4, 5)), r"expected pixel values \(N, C, H, W\) or a list of pictures, got \(4, 4, 5\)"),
        (np.zeros((1, 1, 33, 33)), r"expected finite pixel values \(1, 3, 33, 33\), got \(1, 1, 33, 33\)"),
        (np.full((1, 3, 33, 33), np.inf), "got NaN or infinity"),
    ],
)
def test_pictures_of_another_kind_are_named(pictures, sentence):
    with pytest.raises(InputError, match=sentence):
        mm.quantize(make(V1, {}), pictures)


def test_grey_pictures_and_transparent_ones_calibrate_as_the_processor_takes_them():
    model = make(V1, {})
    (photo,) = photographs(1)
    for mode in ("L", "RGBA", "P"):
        assert quantize_by(model, [photo.convert(mode)]).used == 1


def test_memory_does_not_grow_with_the_number_of_pictures(digits, pictures):
    peaks = []
    for times in (1, 1, 12):  # the first compiles
        tracemalloc.start()
        mm.quantize(digits, pictures * times, num_threads=1)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[2] < 1.03 * peaks[1]


def test_the_same_pictures_give_the_same_bytes_on_any_number_of_threads(digits, pictures, tmp_path):
    files = []
    for threads in (1, 2, 3):
        mm.quantize(digits, pictures, num_threads=threads).save(tmp_path / "model.tflite")
        files.append((tmp_path / "model.tflite").read_bytes())
    assert files[0] == files[1] == files[2]
