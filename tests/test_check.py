"""Comparing layer by layer: what agrees, where the first difference is, and what the report says of both sides."""

from __future__ import annotations

import pytest
from planted import CLASSES, draw_pixels, make_network, with_changed

from minimobile.check import check
from minimobile.peers import layer_names


@pytest.mark.parametrize("kind", CLASSES)
def test_a_network_agrees_with_its_own_definition(kind: str) -> None:
    model = make_network(kind)
    report = check(model, against="reference", pixel_values=draw_pixels())
    assert report.agrees and report.first_difference is None and report.diagnosis is None
    assert [layer.name for layer in report.layers] == layer_names(model.graph)
    for layer in report.layers:
        assert layer.agrees and layer.excess <= 1 and layer.shape == layer.their_shape
        assert layer.max_difference == layer.rms_difference == layer.max_ulps == layer.median_ulps == 0
        assert layer.our_error == layer.their_error < 1e-5
        assert layer.cosine == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("kind", CLASSES)
def test_one_variance_too_large_is_caught_at_its_layer(kind: str) -> None:
    model = make_network(kind)
    name = "layer.9" if kind == "v1" else "layer.9.reduce_1x1"

    def enlarge(variance):
        variance = variance.copy()
        variance[3] *= 1.3
        return variance

    other = with_changed(model, f"{name}.normalization.running_var", enlarge)
    report = check(model, against="reference", other=other, pixel_values=draw_pixels())
    assert report.first_difference == name
    assert [layer.name for layer in report.layers if not layer.agrees] == [name]  # later ones do right by their input
    (layer,) = [layer for layer in report.layers if layer.name == name]
    assert layer.their_error > 100 * layer.our_error
    assert report.diagnosis == "batch norm: in channel 3 as if the variance were 1.3 times ours"
