"""Receptive fields against published ones, and against the pixels that a run is seen to depend on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import minimobile as mm
from minimobile.costs.receptive_field import Reach, receptive_fields
from minimobile.networks import deeplab, mobilenet_v1, mobilenet_v2


def test_the_published_fields() -> None:
    """Araujo, Norris and Sim (Distill 2019) on TF-slim's networks: V1 315 pixels, stride 32, padding 126; V2 491."""
    first = receptive_fields(mobilenet_v1.build(mm.MobileNetV1Config()), 224)["layer.25"]
    assert first is not None
    assert (first.height.size, first.height.step) == (315, 32)
    second = receptive_fields(mobilenet_v2.build(mm.MobileNetV2Config()), 224)["conv_1x1"]
    assert second is not None
    assert (second.width.size, second.width.step) == (491, 32)


def test_by_hand() -> None:
    fields = receptive_fields(mobilenet_v2.build(mm.MobileNetV2Config()), (224, 225))
    found = fields["conv_stem.conv_3x3"]
    assert found is not None
    # 3 pixels at stride 2, then 3 of those: 3 + 2 * 2. Padding before: none and 1 (odd width), then 1 of step 2.
    assert found.height == Reach(size=7, step=2, start=-2)
    assert found.width == Reach(size=7, step=2, start=-3)


def test_a_pooling_window_widens_the_field() -> None:
    fields = receptive_fields(mobilenet_v1.build(mm.MobileNetV1Config(pool_size=3, output_stride=8)), 96)
    before, after = fields["layer.25"], fields["pooler"]
    assert before is not None and after is not None
    assert before.height.step == 8
    assert after.height == (before.height.size + 2 * 8, 2 * 8, before.height.start)


def test_beyond_a_global_pooling_all_is_seen() -> None:
    fields = receptive_fields(deeplab.build(mm.MobileNetV2Config(num_labels=3)), 64)
    assert fields["segmentation_head.conv_aspp"] is not None
    assert fields["segmentation_head.conv_pool"] is None
    assert fields["segmentation_head.classifier"] is None


@pytest.mark.parametrize(
    ("model_class", "fields", "layers"),
    [
        ("MobileNetV1Model", {}, [0, 3, 6, 11]),
        ("MobileNetV1Model", {"output_stride": 8}, [3, 12, 14]),
        ("MobileNetV1Model", {"bottom_right_padding": "all"}, [0, 6]),
        ("MobileNetV2Model", {"tf_padding": False}, ["conv_stem", "layer.0.conv_3x3", 1, 3]),
    ],
    ids=["V1", "V1 dilated", "V1 Keras", "V2 symmetric"],
)
def test_a_value_turns_nan_where_its_field_holds_the_nan(
    model_class: str, fields: dict[str, Any], layers: list[str | int]
) -> None:
    """A NaN spreads to every value that depends on it, and to no other."""
    config_class: Any = mm.MobileNetV1Config if "V1" in model_class else mm.MobileNetV2Config
    model = getattr(mm, model_class)(config_class(depth_multiplier=0.1, **fields), engine="reference")
    height, width = 61, 96
    names = [model.graph.resolve(layer) for layer in layers]
    reached = receptive_fields(model.graph, (height, width))
    for y, x in ((0, 0), (30, 47), (17, 90), (60, 95)):
        pixels = np.zeros((1, 3, height, width), np.float32)
        pixels[0, 1, y, x] = np.nan
        for name, values in model.features(pixels, layers=names).items():
            spread = np.isnan(values[0]).any(0)
            sees = [
                [0 <= place - reach.start - i * reach.step < reach.size for i in range(count)]
                for reach, place, count in zip(reached[name], (y, x), spread.shape, strict=True)
            ]
            np.testing.assert_array_equal(spread, np.outer(*sees), err_msg=f"{name} at {y}, {x}")
