"""SSD and SSDLite on MobileNet V1 and V2 as graphs (Liu et al., arXiv:1512.02325; Sandler et al. 2018, section 6.2).

Six feature maps: one at stride 16 inside the backbone, its last one, and four extra layers. Two predictors read each.
"""

from __future__ import annotations

from minimobile.errors import ConfigError
from minimobile.networks import mobilenet_v1, mobilenet_v2
from minimobile.networks.config import Config, MobileNetV1Config, MobileNetV2Config
from minimobile.networks.graph import Graph
from minimobile.networks.layers import Draft
from minimobile.networks.ssd_config import MobileNetSSDConfig

EXTRA_CHANNELS = (512, 256, 256, 128)  # of the extra layers at width 1; each has stride 2
MAPS = 2 + len(EXTRA_CHANNELS)
ANCHORS = "detection_head.anchors"
"""The name of anchors that come with the weights: (N, 4) float32, (y, x, h, w) relative to the picture."""
HEAD = "detection_head."
_SOURCES = {"mobilenet_v1": ("layer.21", "layer.25"), "mobilenet_v2": ("layer.12.expand_1x1", "conv_1x1")}
_SLIM_NAMES = {"mobilenet_v1": "Conv2d_13_pointwise", "mobilenet_v2": "layer_19"}


def settings(config: Config) -> MobileNetSSDConfig:
    """Return the config's detector; SSDLite by default."""
    return config.ssd or MobileNetSSDConfig()


def settle(config: Config) -> Config:
    """Return a config whose backbone's own fields say what the detector makes of it.

    The detector's `min_depth` holds everywhere, and V2's last convolution follows small widths, too, as in
    tensorflow/models' object_detection: so the backbone can be loaded without the detector.
    """
    ssd = settings(config)
    if isinstance(config, MobileNetV2Config):
        return config.replace(ssd=ssd, min_depth=ssd.min_depth, finegrained_output=False)
    return config.replace(ssd=ssd, min_depth=ssd.min_depth)


def count_anchors(ssd: MobileNetSSDConfig) -> tuple[int, ...]:
    """Return the number of anchors of one cell, for each of the six maps.

    >>> count_anchors(MobileNetSSDConfig())
    (3, 6, 6, 6, 6, 6)
    """
    each = len(ssd.aspect_ratios) + 1
    return (3 if ssd.reduce_boxes_in_lowest_layer else each, *[each] * (MAPS - 1))


def find_predictions(graph: Graph) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return which outputs of a detector's graph predict boxes and which classes, map by map; none for other graphs."""
    boxes, classes = (
        tuple(name for name in graph.outputs if name.startswith(f"{HEAD}{kind}.")) for kind in ("boxes", "classes")
    )
    return boxes, classes


def find_results(graph: Graph) -> tuple[str, ...]:
    """Return the outputs that a file of the network has to hold: a detector's predictions, or the last output."""
    boxes, classes = find_predictions(graph)
    return (*boxes, *classes) or graph.outputs[-1:]


def scale_channels(config: Config, channels: float) -> int:
    """Return an extra layer's channels at the config's width: cut to an integer, never rounded to a multiple of 8."""
    return max(int(channels * config.width_multiplier), settings(config).min_depth)


def build(config: Config) -> Graph:
    """Build the graph of `MobileNetV1ForObjectDetection` or `MobileNetV2ForObjectDetection`.

    Its outputs are the six maps of box encodings (anchor-major, then y, x, h, w) and the six of class logits
    (anchor-major, column 0 of each is the background): `detection_head.boxes.0.projection` ... and
    `detection_head.classes.0.projection` .... The backbone is that of `settle(config)`.
    """
    name = type(config).__name__
    if config.class_count < 1:
        raise ConfigError(f"{name}: expected num_labels to be 1 or more for detection, got 0")
    if config.output_stride != 32:
        raise ConfigError(f"{name}: expected output_stride 32 for detection, got {config.output_stride}")
    ssd = settings(config)
    config = settle(config)
    draft = Draft(config, prefix=f"{config.model_type}.")
    if isinstance(config, MobileNetV1Config):
        _, hidden_states = mobilenet_v1.add_backbone(draft, config)
    else:
        hidden_states = mobilenet_v2.add_backbone(draft, config)
    maps = list(_SOURCES[config.model_type])
    for index, channels in enumerate(EXTRA_CHANNELS):
        maps.append(_add_extra_layer(draft, config, index, maps[-1], channels))
    boxes, classes = [], []
    for index, (source, anchors) in enumerate(zip(maps, count_anchors(ssd), strict=True)):
        boxes.append(_add_predictor(draft, ssd, f"boxes.{index}", source, 4 * anchors))
        classes.append(_add_predictor(draft, ssd, f"classes.{index}", source, (config.class_count + 1) * anchors))
        draft.aliases[f"BoxPredictor_{index}/BoxEncodingPredictor"] = boxes[-1]
        draft.aliases[f"BoxPredictor_{index}/ClassPredictor"] = classes[-1]
    if ssd.stored_anchors:
        draft.shapes[ANCHORS] = (ssd.stored_anchors, 4)
    return draft.finish((*boxes, *classes), (*hidden_states, *maps[1:]))


def _add_extra_layer(draft: Draft, config: Config, index: int, x: str, channels: int) -> str:
    """Append 1x1 to half the channels, then 3x3 of stride 2: dense, or depthwise with a 1x1 after it."""
    name = f"{HEAD}extra.{index}"
    slim, number = _SLIM_NAMES[config.model_type], index + 2
    half, whole = scale_channels(config, channels / 2), scale_channels(config, channels)
    x = draft.add_conv_layer(f"{name}.reduce_1x1", x, half, prefix="")
    draft.aliases[f"{slim}_1_Conv2d_{number}_1x1_{half}"] = x
    if settings(config).use_depthwise:
        x = draft.add_conv_layer(f"{name}.conv_3x3", x, half, kernel_size=3, stride=2, is_depthwise=True, prefix="")
        draft.aliases[f"{slim}_2_Conv2d_{number}_3x3_s2_{whole}_depthwise"] = x
        x = draft.add_conv_layer(f"{name}.expand_1x1", x, whole, prefix="")
    else:
        x = draft.add_conv_layer(f"{name}.conv_3x3", x, whole, kernel_size=3, stride=2, prefix="")
    draft.aliases[f"{slim}_2_Conv2d_{number}_3x3_s2_{whole}"] = x
    draft.aliases[name] = x
    return x


def _add_predictor(draft: Draft, ssd: MobileNetSSDConfig, kind: str, x: str, channels: int) -> str:
    """Append one head: a convolution with a bias, after a depthwise layer of its own in SSDLite."""
    name = f"{HEAD}{kind}"
    kernel_size = ssd.kernel_size
    if ssd.use_depthwise:
        x = draft.add_conv_layer(
            f"{name}.depthwise", x, draft.channels[x], kernel_size=kernel_size, is_depthwise=True, prefix=""
        )
        kernel_size = 1
    return draft.add_conv_layer(
        f"{name}.projection", x, channels, kernel_size=kernel_size, has_normalization=False, activation="linear",
        prefix="",
    )  # fmt: skip
