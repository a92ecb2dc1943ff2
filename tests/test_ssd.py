"""SSD and SSDLite as graphs: the paper's Table 6, the sizes of tensorflow/models' graphs, names, and anchors."""

from __future__ import annotations

import numpy as np
import pytest

from minimobile.costs.paper_tables import paper_table
from minimobile.costs.profile import profile
from minimobile.errors import ConfigError
from minimobile.formats.tflite.tflite_model import read_model
from minimobile.networks import ssd
from minimobile.networks.anchors import anchor_shapes, make_anchors
from minimobile.networks.config import MobileNetV1Config, MobileNetV2Config
from minimobile.networks.ssd_config import MobileNetSSDConfig
from minimobile.operations.shapes import infer_shapes

LITE = MobileNetSSDConfig()
DENSE = MobileNetSSDConfig(use_depthwise=False)
FLAT = MobileNetSSDConfig(use_depthwise=False, kernel_size=1)
FAMILIES = {1: MobileNetV1Config, 2: MobileNetV2Config}

# Version, width, detector, size, classes, parameters, multiply-adds.
PAPER = [
    (2, 1.0, LITE, 320, 80, 4_337_013, 788_830_144),  # Sandler et al. 2018, Table 6: 4.3M, 0.8B
    (1, 1.0, LITE, 320, 80, 5_100_661, 1_309_162_944),  # 5.1M, 1.3B
]
ORIGINAL = [  # tensorflow/models' own graphs
    (2, 1.0, LITE, 300, 90, 4_500_543, 749_503_856),
    (1, 1.0, LITE, 300, 90, 5_246_911, 1_212_977_536),
    (2, 1.0, DENSE, 320, 80, 17_000_501, 1_870_281_472),
    (2, 1.0, DENSE, 300, 90, 18_469_631, 1_904_680_496),
    (1, 1.0, FLAT, 300, 90, 6_819_839, 1_237_129_408),
    (1, 0.75, FLAT, 300, 90, 4_110_735, 728_036_496),
    (2, 1.0, LITE, 300, 80, 4_337_013, 734_610_416),
    (2, 1.0, LITE, 300, 20, 3_355_833, 645_249_776),
    (1, 1.0, LITE, 300, 80, 5_100_661, 1_200_313_216),
    (1, 1.0, LITE, 300, 20, 4_223_161, 1_124_327_296),
    (2, 0.35, LITE, 224, 90, 956_285, 116_266_744),
    (1, 0.25, LITE, 224, 90, 616_799, 63_411_504),
]


def build(version, width=1.0, detector=LITE, classes=90):
    return ssd.build(FAMILIES[version](depth_multiplier=width, num_labels=classes, ssd=detector))


def sizes_of(graph, size):
    shapes = infer_shapes(graph, *size)
    return [shapes[name][1:] for name in graph.outputs[: ssd.MAPS]]


@pytest.mark.parametrize(
    ("version", "width", "detector", "size", "classes", "parameters", "multiply_adds"), PAPER + ORIGINAL
)
def test_parameters_and_multiply_adds(version, width, detector, size, classes, parameters, multiply_adds):
    found = profile(build(version, width, detector, classes), size)
    assert (found.parameters, found.multiply_adds) == (parameters, multiply_adds)


@pytest.mark.parametrize(("size", "sides", "count"), [
    (300, [19, 10, 5, 3, 2, 1], 1917), (320, [20, 10, 5, 3, 2, 1], 2034), (224, [14, 7, 4, 2, 1, 1], 1014),
    (512, [32, 16, 8, 4, 2, 1], 5118), (160, [10, 5, 3, 2, 1, 1], 540),
])  # fmt: skip
def test_maps_and_number_of_anchors(size, sides, count):
    for version in FAMILIES:
        maps = sizes_of(build(version), (size, size))
        assert maps == [(side, side) for side in sides]
        assert make_anchors(LITE, (size, size), maps).shape == (count, 4)


def test_extra_layers_of_small_widths_are_cut_not_rounded_to_multiples_of_eight():
    graph = build(2, 0.35)
    channels = {name: shape[0] for name, shape in infer_shapes(graph, 300, 300).items()}
    assert [channels[f"detection_head.extra.{i}.expand_1x1"] for i in range(4)] == [179, 89, 89, 44]
    assert [channels[f"detection_head.extra.{i}.reduce_1x1"] for i in range(4)] == [89, 44, 44, 22]
    assert channels["conv_1x1"] == 448  # classification keeps 1280
    assert channels["conv_stem.first_conv"] == 16  # min_depth
    assert infer_shapes(build(1, 0.25), 300, 300)["conv_stem"][0] == 16


def test_layers_have_the_names_of_the_object_detection_api():
    lite, dense = build(2), build(1, detector=FLAT)
    assert lite.resolve("layer_19_2_Conv2d_2_3x3_s2_512") == "detection_head.extra.0.expand_1x1"
    assert lite.resolve("layer_19_2_Conv2d_2_3x3_s2_512_depthwise") == "detection_head.extra.0.conv_3x3"
    assert lite.resolve("layer_15/expansion_output") == "layer.12.expand_1x1"
    assert dense.resolve("Conv2d_13_pointwise_1_Conv2d_5_1x1_64") == "detection_head.extra.3.reduce_1x1"
    assert dense.resolve("BoxPredictor_5/ClassPredictor") == dense.outputs[-1] == "detection_head.classes.5.projection"


def test_scales_and_shapes_of_the_anchors_of_a_cell():
    assert anchor_shapes(LITE, 0, 6) == [(0.1, 1.0), (float(np.float32(0.2)), 2.0), (float(np.float32(0.2)), 0.5)]
    last = anchor_shapes(LITE, 5, 6)
    assert [ratio for _, ratio in last] == [1.0, 2.0, 0.5, 3.0, 0.3333, 1.0]
    assert last[-1][0] == np.sqrt(float(np.float32(0.95)))


def test_anchors_are_centred_in_their_cells_row_by_row_and_not_clipped():
    anchors = make_anchors(LITE, (300, 300), [(side, side) for side in (19, 10, 5, 3, 2, 1)])
    np.testing.assert_allclose(anchors[0], [0.5 / 19, 0.5 / 19, 0.1, 0.1], rtol=1e-6)
    np.testing.assert_allclose(anchors[4], [0.5 / 19, 1.5 / 19, 0.2 / np.sqrt(2), 0.2 * np.sqrt(2)], rtol=1e-6)
    np.testing.assert_allclose(anchors[-1], [0.5, 0.5, np.sqrt(0.95), np.sqrt(0.95)], rtol=1e-6)
    assert (anchors[:, 0] - anchors[:, 2] / 2).min() < 0


def test_an_anchor_s_size_is_that_between_its_corners_in_float32():
    """As a file has it: 0.1, but for what its corners' rounding takes or adds, another one in each row."""
    anchors = make_anchors(LITE, (300, 300), [(side, side) for side in (19, 10, 5, 3, 2, 1)])
    heights = anchors[: 19 * 19 * 3, 2].reshape(19, 19, 3)[:, 0, 0]
    centres = [np.float32(row) * np.float32(1 / 19) + np.float32(0.5 / 19) for row in range(19)]
    half = np.float32(0.5) * np.float32(0.1)
    assert heights.tolist() == [float((centre + half) - (centre - half)) for centre in centres]
    assert len(set(heights.tolist())) > 1


def test_anchors_of_a_wide_picture_keep_their_aspect_in_pixels():
    maps = sizes_of(build(2), (192, 320))
    anchors = make_anchors(LITE, (192, 320), maps)
    assert maps[0] == (12, 20)
    np.testing.assert_allclose(anchors[0, 2:] * (192, 320), [19.2, 19.2], rtol=1e-6)


@pytest.mark.parametrize(("changes", "sentence"), [
    ({"kernel_size": 5}, "expected kernel_size to be 1 or 3, got 5"),
    ({"kernel_size": 1}, "expected kernel_size to be 3 where use_depthwise is true"),
    ({"iou_threshold": 1.5}, "expected iou_threshold to be above 0 and at most 1, got 1.5"),
    ({"score_threshold": -0.1}, "expected score_threshold to be between 0 and 1, got -0.1"),
    ({"score_threshold": float("nan")}, "expected score_threshold to be between 0 and 1, got nan"),
    ({"box_scales": [1, 2, 3]}, "expected box_scales to be four finite numbers"),
    ({"box_scales": [1, 2, 3, 1e-60]}, "expected box_scales to be four finite numbers"),
    ({"box_scales": [1, 2, 3, 1e60]}, "expected box_scales to be four finite numbers"),
    ({"aspect_ratios": [10**400]}, "expected aspect_ratios to be a number that a float can hold, got more"),
    ({"min_scale": 10**400}, "expected min_scale to be a number that a float can hold, got more"),
    ({"max_detections": 0}, "expected max_detections to be between 1 and 100000, got 0"),
    ({"max_detections": 10**5, "max_classes_per_detection": 2}, "100000 rows at most"),
    ({"aspect_ratios": [0]}, "expected aspect_ratios to be 1 to 64 numbers"),
    ({"use_depthwise": 1}, "expected use_depthwise to be bool, got 1"),
])  # fmt: skip
def test_a_field_out_of_range_is_named(changes, sentence):
    with pytest.raises(ConfigError, match=sentence):
        MobileNetSSDConfig(**changes)


def test_a_detector_of_no_classes_or_another_stride_is_refused():
    with pytest.raises(ConfigError, match="expected num_labels to be 1 or more for detection, got 0"):
        ssd.build(MobileNetV2Config(num_labels=0))
    with pytest.raises(ConfigError, match="expected output_stride 32 for detection, got 16"):
        ssd.build(MobileNetV2Config(output_stride=16))
    with pytest.raises(ConfigError, match="expected fields of MobileNetSSDConfig, got 'anchor'"):
        MobileNetV2Config(ssd={"anchor": 1})


def test_a_config_with_a_detector_comes_back_from_its_dict():
    config = MobileNetV1Config(num_labels=3, ssd=FLAT.replace(max_detections=7))
    assert MobileNetV1Config.from_dict(config.to_dict()) == config
    assert "ssd" not in MobileNetV1Config().to_dict()


def test_the_papers_table_stops_at_the_backbone_and_the_maps_have_their_own():
    table = paper_table(build(2), 300)
    assert table["rows"][-1]["input"] == "10 x 10 x 320"
    assert [row["input"] for row in table["maps"]] == [
        "19 x 19 x 576", "10 x 10 x 1280", "5 x 5 x 512", "3 x 3 x 256", "2 x 2 x 256", "1 x 1 x 128",
    ]  # fmt: skip
    assert table["maps"][0] == {
        "input": "19 x 19 x 576", "source": "layer.12.expand_1x1", "predictors": "depthwise 3x3, 1x1", "anchors": 3,
        "boxes": 12, "classes": 273,
    }  # fmt: skip
    assert paper_table(build(1, detector=FLAT), 300)["maps"][5]["predictors"] == "1x1"


@pytest.mark.crosscheck
@pytest.mark.parametrize("name", ["ssdlite_mobilenet_v2_coco_float32", "ssdlite_mobilenet_v2_coco_int8"])
def test_anchors_have_the_bits_of_a_published_file(name, test_data):
    model = read_model(test_data / "models" / "detection" / f"{name}.tflite")
    (stored,) = (tensor.data for tensor in model.tensors if tensor.name == "anchors")
    anchors = make_anchors(LITE, (300, 300), sizes_of(build(2), (300, 300)))
    np.testing.assert_array_equal(anchors.view(np.int32), stored.view(np.int32))
