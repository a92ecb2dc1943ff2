"""DeepLabV3 with its reduced head on MobileNet V2 (arXiv:1801.04381, section 6.3); transformers: "DeepLabV3Plus"."""

from __future__ import annotations

from minimobile.errors import ConfigError
from minimobile.networks.config import MobileNetV2Config
from minimobile.networks.graph import Graph
from minimobile.networks.layers import Draft
from minimobile.networks.mobilenet_v2 import add_backbone

HEAD_CHANNELS = 256
HEAD_EPSILON = 1e-5  # TF-slim DeepLab's; the config's epsilon is the backbone's alone


def build(config: MobileNetV2Config) -> Graph:
    """Build the graph of `MobileNetV2ForSemanticSegmentation`: logits at the resolution of the last block.

    The head has two branches, the pooled image spread out again and a 1x1 convolution, joined in this order. It reads
    `layer.15`; `conv_1x1` is part of the checkpoint, but nothing here depends on it.
    """
    if config.class_count < 1:
        raise ConfigError("MobileNetV2Config: expected num_labels to be 1 or more for segmentation, got 0")
    draft = Draft(config, prefix="mobilenet_v2.")
    hidden_states = add_backbone(draft, config)
    x = hidden_states[-1]

    def add_head_layer(name: str, x: str) -> str:
        path = f"segmentation_head.{name}"
        return draft.add_conv_layer(path, x, HEAD_CHANNELS, activation="relu", epsilon=HEAD_EPSILON, prefix="")

    pooled = draft.add("segmentation_head.avg_pool", "global_average_pool2d", (x,), draft.channels[x])
    pooled = add_head_layer("conv_pool", pooled)
    attributes = {"align_corners": True}  # of a single pixel: a copy
    pooled = draft.add("segmentation_head.upsample", "resize_bilinear", (pooled, x), HEAD_CHANNELS, attributes)
    aspp = add_head_layer("conv_aspp", x)
    joined = draft.add("segmentation_head.concat", "concatenate", (pooled, aspp), 2 * HEAD_CHANNELS)
    projection = add_head_layer("conv_projection", joined)
    logits = draft.add_conv_layer(
        "segmentation_head.classifier",
        projection,
        config.class_count,
        has_normalization=False,
        activation="linear",
        prefix="",
    )

    draft.aliases.update({"image_pooling": "segmentation_head.conv_pool", "aspp0": aspp})
    draft.aliases.update({"concat_projection": projection, "logits/semantic": logits, "logits": logits})
    draft.aliases.update({"Logits": logits, "segmentation_head": logits})
    return draft.finish((logits,), hidden_states)
