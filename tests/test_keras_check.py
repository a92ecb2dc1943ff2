"""`check` against a Keras model in memory, live: its layers watched, its arrays under our names."""

from __future__ import annotations

import frameworks
import numpy as np
import pytest
from planted import draw_pixels

import minimobile as mm

pytestmark = [pytest.mark.crosscheck, pytest.mark.filterwarnings("ignore::DeprecationWarning")]  # of Keras


@pytest.fixture(scope="module")
def keras_model():
    keras = frameworks.keras()
    keras.utils.set_random_seed(0)
    model = keras.applications.MobileNetV2(weights=None, alpha=0.35, input_shape=(96, 96, 3), classes=7)
    random = np.random.default_rng(0)
    for layer in model.layers:
        if type(layer).__name__ == "BatchNormalization":
            layer.set_weights([random.uniform(0.5, 1.5, values.shape) for values in layer.get_weights()])
    return model


def test_a_keras_model_in_memory_is_compared_layer_by_layer(keras_model, tmp_path):
    keras_model.save(tmp_path / "model.keras")
    model = mm.load(tmp_path / "model.keras")
    report = mm.check(model, pixel_values=draw_pixels(96), against=keras_model)
    assert report.agrees and not report.differing_arrays, report
    assert len(report.layers) > 50
    layer = keras_model.get_layer("block_5_depthwise_BN")
    gamma, beta, mean, variance = layer.get_weights()
    layer.set_weights([gamma, beta, mean, variance * 1.3])
    report = mm.check(model, pixel_values=draw_pixels(96), against=keras_model)
    layer.set_weights([gamma, beta, mean, variance])
    assert report.agrees is False and report.diagnosis.startswith(
        "weights: mobilenet_v2.layer.4.conv_3x3.normalization"
    )
    assert ": 1.3 times ours, within " in report.diagnosis


def test_a_keras_model_that_scales_its_pixels_is_refused(keras_model, tmp_path):
    keras = frameworks.keras()
    keras_model.save(tmp_path / "model.keras")
    model = mm.load(tmp_path / "model.keras")
    inputs = keras.Input((96, 96, 3))
    outer = keras.Model(inputs, keras_model(keras.layers.Rescaling(1 / 127.5, -1)(inputs)))
    with pytest.raises(mm.InputError, match=r"its layer rescaling.* \(Rescaling\) changes them before the first"):
        mm.check(model, pixel_values=draw_pixels(96), against=outer)
