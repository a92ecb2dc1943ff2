"""MobileNet V1 as a graph (Howard et al. 2017, arXiv:1704.04861, Table 1)."""

from __future__ import annotations

from typing import Literal

from minimobile.networks.config import MobileNetV1Config
from minimobile.networks.graph import INPUT, Graph
from minimobile.networks.layers import Draft, spread_strides

# One row per depthwise separable layer: pointwise channels, depthwise stride. (The paper prints the last stride as 2;
# its own sizes, and every implementation, have 1.)
SEPARABLE_LAYERS = (
    (64, 1),
    (128, 2),
    (128, 1),
    (256, 2),
    (256, 1),
    (512, 2),
    *5 * ((512, 1),),
    (1024, 2),
    (1024, 1),
)


def scale_channels(config: MobileNetV1Config, channels: int) -> int:
    """Return a layer's channels at the config's width: cut to an integer, at least `min_depth`."""
    return max(int(channels * config.width_multiplier), config.min_depth)


def build(config: MobileNetV1Config, head: Literal["none", "classification"] = "none") -> Graph:
    """Build the graph of `MobileNetV1Model` (head "none") or `MobileNetV1ForImageClassification`.

    Layers: `conv_stem`, `layer.0` (depthwise), `layer.1` (pointwise), ..., `layer.25`, `pooler`, `classifier`.
    """
    draft = Draft(config, prefix="mobilenet_v1.")
    x, hidden_states = add_backbone(draft, config)
    pooled = draft.add_pooler(x, stride=2)
    draft.aliases["AvgPool_1a"] = pooled
    if head == "none":
        return draft.finish((x, pooled), hidden_states)
    return draft.finish((draft.add_classifier(pooled),), hidden_states)


def add_backbone(draft: Draft, config: MobileNetV1Config) -> tuple[str, list[str]]:
    """Append stem and 13 depthwise separable layers; returns the name of the last, and those of all 26 steps."""
    x = draft.add_conv_layer("conv_stem", INPUT, scale_channels(config, 32), kernel_size=3, stride=2)
    draft.aliases["Conv2d_0"] = x

    steps = spread_strides((stride for _, stride in SEPARABLE_LAYERS), config.output_stride)
    hidden_states = []
    for index, ((channels, _), (stride, dilation)) in enumerate(zip(SEPARABLE_LAYERS, steps, strict=True)):
        depthwise, pointwise = f"layer.{2 * index}", f"layer.{2 * index + 1}"
        x = draft.add_conv_layer(
            depthwise, x, draft.channels[x], kernel_size=3, stride=stride, dilation=dilation, is_depthwise=True
        )
        x = draft.add_conv_layer(pointwise, x, scale_channels(config, channels))
        hidden_states += [depthwise, pointwise]
        draft.aliases[f"Conv2d_{index + 1}_depthwise"] = depthwise
        draft.aliases[f"Conv2d_{index + 1}_pointwise"] = pointwise
    return x, hidden_states
