"""MobileNet V2 as a graph (Sandler et al. 2018, arXiv:1801.04381, Table 2)."""

from __future__ import annotations

from typing import Literal

from minimobile.networks.config import MobileNetV2Config
from minimobile.networks.graph import INPUT, Graph
from minimobile.networks.layers import Draft, spread_strides

# One row per stage of inverted residuals: output channels c, repetitions n, stride s of the first. The paper's t is
# `config.expand_ratio`. Its first bottleneck (t=1, c=16) is part of the stem here, as in transformers.
STEM_CHANNELS = (32, 16)
STAGES = (
    (24, 2, 2),
    (32, 3, 2),
    (64, 4, 2),
    (96, 3, 1),
    (160, 3, 2),
    (320, 1, 1),
)
LAST_CHANNELS = 1280


def make_divisible(value: float, divisor: int = 8, minimum: int | None = None) -> int:
    """Round `value` to the nearest multiple of `divisor`, at least `minimum`, and never more than 10 % down.

    Source: TF-slim, `conv_blocks.py`; transformers' function of the same name.

    >>> make_divisible(33), make_divisible(12), make_divisible(3, 8, 16)
    (32, 16, 16)
    """
    rounded = max(minimum if minimum is not None else divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded


def scale_channels(config: MobileNetV2Config, channels: int, factor: float | None = None) -> int:
    """Return `channels` times the width multiplier (or `factor`), rounded by the config's rule.

    The rounding to an integer before `make_divisible` is transformers'; TF-slim has none. At the published widths
    both give the same.
    """
    scaled = round(channels * (config.width_multiplier if factor is None else factor))
    return make_divisible(scaled, config.depth_divisible_by, config.min_depth)


def build(config: MobileNetV2Config, head: Literal["none", "classification"] = "none") -> Graph:
    """Build the graph of `MobileNetV2Model` (head "none") or `MobileNetV2ForImageClassification`.

    Layers: `conv_stem`, `layer.0` ... `layer.15` with `expand_1x1`, `conv_3x3`, `reduce_1x1` in each, `conv_1x1`,
    `pooler`, `classifier`.
    """
    draft = Draft(config, prefix="mobilenet_v2.")
    hidden_states = add_backbone(draft, config)
    pooled = draft.add_pooler("conv_1x1", stride=1)
    if head == "none":
        return draft.finish(("conv_1x1", pooled), hidden_states)
    return draft.finish((draft.add_classifier(pooled),), hidden_states)


def add_backbone(draft: Draft, config: MobileNetV2Config) -> list[str]:
    """Append stem, 16 inverted residuals and the last convolution; returns the names of the 16 blocks' outputs."""
    wide, narrow = (scale_channels(config, channels) for channels in STEM_CHANNELS)
    x = draft.add_conv_layer("conv_stem.first_conv", INPUT, wide, kernel_size=3, stride=2)
    draft.aliases["layer_1"] = x
    if config.first_layer_is_expansion:  # the first convolution does the work of the first block's expansion
        x = _add_bottleneck(draft, "conv_stem", x, None, narrow, 1, 1, has_residual=False)
    else:
        x = _add_bottleneck(draft, "conv_stem", x, wide, narrow, 1, 1, has_residual=False)
    _add_slim_names(draft, "conv_stem", "layer_2")

    blocks = [(c, s if first == 0 else 1) for c, n, s in STAGES for first in range(n)]
    steps = spread_strides((s for _, s in blocks), config.output_stride)
    hidden_states = []
    for index, ((c, _), (stride, dilation)) in enumerate(zip(blocks, steps, strict=True)):
        name = f"layer.{index}"
        channels = scale_channels(config, c)
        expanded = scale_channels(config, draft.channels[x], config.expand_ratio)
        # Asked of the applied stride: a smaller output stride, like a small width, can make a residual possible.
        has_residual = stride == 1 and draft.channels[x] == channels
        x = _add_bottleneck(draft, name, x, expanded, channels, stride, dilation, has_residual)
        _add_slim_names(draft, name, f"layer_{index + 3}")
        hidden_states.append(x)

    is_kept_wide = config.finegrained_output and config.width_multiplier < 1.0
    last_channels = LAST_CHANNELS if is_kept_wide else scale_channels(config, LAST_CHANNELS)
    x = draft.add_conv_layer("conv_1x1", x, last_channels)
    draft.aliases.update(dict.fromkeys(("layer_19", "embedding", "last_hidden_state"), x))
    return hidden_states


def _add_bottleneck(
    draft: Draft,
    name: str,
    x: str,
    expanded: int | None,
    channels: int,
    stride: int,
    dilation: int,
    has_residual: bool,
) -> str:
    """Append expand (1x1) -> depthwise (3x3) -> reduce (1x1, linear), and the sum with the input where there is one."""
    y = x
    if expanded is not None:
        y = draft.add_conv_layer(f"{name}.expand_1x1", y, expanded)
    y = draft.add_conv_layer(
        f"{name}.conv_3x3", y, draft.channels[y], kernel_size=3, stride=stride, dilation=dilation, is_depthwise=True
    )
    y = draft.add_conv_layer(f"{name}.reduce_1x1", y, channels, activation="linear")
    if has_residual:
        return draft.add(name, "add", (x, y), channels)
    draft.aliases[name] = y
    return y


def _add_slim_names(draft: Draft, name: str, slim_name: str) -> None:
    """Give a bottleneck TF-slim's endpoint names (`layer_15/expansion_output`)."""
    output = draft.aliases.get(name, name)
    draft.aliases.update(
        {slim_name: output, f"{slim_name}/output": output, f"{slim_name}/depthwise_output": f"{name}.conv_3x3"}
    )
    if f"{name}.expand_1x1" in draft.channels:
        draft.aliases[f"{slim_name}/expansion_output"] = f"{name}.expand_1x1"
