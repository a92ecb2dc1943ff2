"""Table 1 of V1 and Table 2 of V2, as printed, from the graphs."""

from __future__ import annotations

import minimobile as mm
from minimobile.costs.paper_tables import body_table, paper_table, stage_table
from minimobile.networks import deeplab, mobilenet_v1, mobilenet_v2

TABLE_1 = """
1 Conv / s2 | 3 x 3 x 3 x 32 | 224 x 224 x 3
1 Conv dw / s1 | 3 x 3 x 32 dw | 112 x 112 x 32
1 Conv / s1 | 1 x 1 x 32 x 64 | 112 x 112 x 32
1 Conv dw / s2 | 3 x 3 x 64 dw | 112 x 112 x 64
1 Conv / s1 | 1 x 1 x 64 x 128 | 56 x 56 x 64
1 Conv dw / s1 | 3 x 3 x 128 dw | 56 x 56 x 128
1 Conv / s1 | 1 x 1 x 128 x 128 | 56 x 56 x 128
1 Conv dw / s2 | 3 x 3 x 128 dw | 56 x 56 x 128
1 Conv / s1 | 1 x 1 x 128 x 256 | 28 x 28 x 128
1 Conv dw / s1 | 3 x 3 x 256 dw | 28 x 28 x 256
1 Conv / s1 | 1 x 1 x 256 x 256 | 28 x 28 x 256
1 Conv dw / s2 | 3 x 3 x 256 dw | 28 x 28 x 256
1 Conv / s1 | 1 x 1 x 256 x 512 | 14 x 14 x 256
5 Conv dw / s1 | 3 x 3 x 512 dw | 14 x 14 x 512
None Conv / s1 | 1 x 1 x 512 x 512 | 14 x 14 x 512
1 Conv dw / s2 | 3 x 3 x 512 dw | 14 x 14 x 512
1 Conv / s1 | 1 x 1 x 512 x 1024 | 7 x 7 x 512
1 Conv dw / s1 | 3 x 3 x 1024 dw | 7 x 7 x 1024
1 Conv / s1 | 1 x 1 x 1024 x 1024 | 7 x 7 x 1024
1 Avg Pool / s1 | Pool 7 x 7 | 7 x 7 x 1024
1 FC / s1 | 1024 x 1000 | 1 x 1 x 1024
"""


def test_v1_paper_table_1() -> None:
    """arXiv:1704.04861; its last depthwise stride, printed as 2, is 1, as its own sizes say. Softmax is no layer."""
    rows = body_table(mobilenet_v1.build(mm.MobileNetV1Config(num_labels=1000), "classification"), 224)
    printed = [f"{row.repeats} {row.type_stride} | {row.filter_shape} | {row.input_size}" for row in rows]
    assert printed == TABLE_1.strip().splitlines()


def test_v2_paper_table_2() -> None:
    """arXiv:1801.04381."""
    rows = stage_table(mobilenet_v2.build(mm.MobileNetV2Config(num_labels=1000), "classification"), 224)
    assert [(row.input, row.operator, row.t, row.c, row.n, row.s) for row in rows] == [
        ("224 x 224 x 3", "conv2d", None, 32, 1, 2),
        ("112 x 112 x 32", "bottleneck", 1, 16, 1, 1),
        ("112 x 112 x 16", "bottleneck", 6, 24, 2, 2),
        ("56 x 56 x 24", "bottleneck", 6, 32, 3, 2),
        ("28 x 28 x 32", "bottleneck", 6, 64, 4, 2),
        ("14 x 14 x 64", "bottleneck", 6, 96, 3, 1),
        ("14 x 14 x 96", "bottleneck", 6, 160, 3, 2),
        ("7 x 7 x 160", "bottleneck", 6, 320, 1, 1),
        ("7 x 7 x 320", "conv2d 1x1", None, 1280, 1, 1),
        ("7 x 7 x 1280", "avgpool 7x7", None, None, 1, None),
        ("1 x 1 x 1280", "conv2d 1x1", None, 1000, 1, None),
    ]


def test_the_graph_decides_not_the_paper() -> None:
    config = mm.MobileNetV2Config(depth_multiplier=0.5, output_stride=8, first_layer_is_expansion=False)
    rows = stage_table(mobilenet_v2.build(config), (64, 33))
    assert (rows[1].operator, rows[1].t, rows[1].input) == ("bottleneck", 1, "32 x 17 x 16")
    stages = [(row.c, row.n, row.s, row.dilations) for row in rows if row.operator == "bottleneck"][3:]
    assert stages == [
        (32, 4, 1, (1, 2, 2, 2)), (48, 3, 1, (2, 2, 2)), (80, 3, 1, (2, 4, 4)), (160, 1, 1, (4,)),
    ]  # fmt: skip
    pool = body_table(mobilenet_v1.build(mm.MobileNetV1Config(pool_size=7)), (160, 288))[-1]
    assert (pool.filter_shape, pool.input_size) == ("Pool 5 x 7", "5 x 9 x 1024")
    dilated = body_table(mobilenet_v1.build(mm.MobileNetV1Config(output_stride=16, pool_size=7)), 224)
    assert [row.type_stride for row in dilated][-5:] == [
        "Conv dw / s1", "Conv / s1", "Conv dw / s1 rate 2", "Conv / s1", "Avg Pool / s2",
    ]  # fmt: skip


def test_a_segmentation_network_has_its_head_below() -> None:
    table = paper_table(deeplab.build(mm.MobileNetV2Config(num_labels=21, output_stride=16)), 513)
    assert table["table"] == "MobileNet V2, Table 2"
    rows = [(row["input"], row["operator"], row["c"]) for row in table["rows"]][-7:]
    assert rows == [
        ("33 x 33 x 320", "avgpool 33x33", None),
        ("1 x 1 x 320", "conv2d 1x1", 256),
        ("1 x 1 x 256", "resize", 256),
        ("33 x 33 x 320", "conv2d 1x1", 256),
        ("33 x 33 x 512", "concatenate", 512),
        ("33 x 33 x 512", "conv2d 1x1", 256),
        ("33 x 33 x 256", "conv2d 1x1", 21),
    ]
    assert not any(row["c"] == 1280 for row in table["rows"])  # conv_1x1, which nothing here depends on
