"""From weights under canonical names to the whole checkpoint: width, classes and head follow from the shapes."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping
from types import SimpleNamespace
from typing import Any

from numpy.typing import NDArray

from minimobile.errors import ConfigError, FormatError
from minimobile.formats.checkpoint import Checkpoint, name_class
from minimobile.formats.dialects import Dialect, processor_settings
from minimobile.formats.labels import class_labels
from minimobile.networks import mobilenet_v1, mobilenet_v2, ssd
from minimobile.networks.build_graph import build_graph
from minimobile.networks.config import Config, MobileNetV1Config, MobileNetV2Config

Shapes = dict[str, tuple[int, ...]]
STEMS = {
    "MobileNetV1": "mobilenet_v1.conv_stem.convolution.weight",
    "MobileNetV2": "mobilenet_v2.conv_stem.first_conv.convolution.weight",
}

FIRST_BLOCK = ("first_conv", "reduce_1x1")  # of V2's stem: the convolutions before it and at its end
DEEPLAB_OUTPUT_STRIDE = 8  # transformers' choice for TF-slim's checkpoints; weights do not tell
PUBLISHED_WIDTHS = (1.0, 0.75, 0.5, 0.25, 0.35, 1.4, 1.3)
# In the order of preference: the published, then in steps of 1/100, then of 1/1000.
_WIDTHS = tuple(
    dict.fromkeys((*PUBLISHED_WIDTHS, *(n / 100 for n in range(1, 401)), *(n / 1000 for n in range(1, 2001))))
)
_DIVISORS = (8, 1, 4, 16, 2, 32)
_EXPANSIONS = (6.0, 1.0, 2.0, 3.0, 4.0, 5.0, 7.0, 8.0, 10.0)


def build_checkpoint(
    weights: Mapping[str, NDArray[Any]],
    dialect: Dialect,
    where: str,
    *,
    config: Config | None = None,
    image_size: tuple[int, int] | None = None,
    provenance: Mapping[str, str] | None = None,
    mapped: Mapping[str, str] | None = None,
    ignored: Mapping[str, str] | None = None,
    endpoints: Mapping[str, str] | None = None,
    has_layers: bool = False,
    **known: Any,
) -> Checkpoint:
    """Return the checkpoint of weights that came without a config.

    `known` are fields of the config that the source tells (`output_stride`, `hidden_act`, ...); they go before the
    dialect's, as in `deduce_config`. `config` stands in for all of that.
    `image_size` (height, width) is 224 x 224 where the source does not tell, 513 x 513 for segmentation. A source that
    `has_layers` tells how they are connected, and was compared. Raises FormatError where no width gives the channels
    that the weights have, and where their school has a sum that our network has not.
    """
    architecture = choose_architecture(weights)
    if not has_layers:
        _check_first_block(weights, dialect, where)
    config = config or deduce_config(weights, dialect, where, image_size=image_size, **known)
    side = config.image_size
    size = (side, side) if isinstance(side, int) else (side[0], side[-1])
    processor = processor_settings(dialect, architecture, size, config.num_channels)
    return Checkpoint(
        config, dict(weights), architecture, processor, {"dialect": dialect.name, **(provenance or {})}, dialect.name,
        mapped or {}, ignored or {}, endpoints or {},
    )  # fmt: skip


def _check_first_block(weights: Mapping[str, NDArray[Any]], dialect: Dialect, where: str) -> None:
    """Refuse a narrow V2 whose first block adds its input: transformers' does not, all others' do where they can."""
    before, behind = (weights.get(f"mobilenet_v2.conv_stem.{name}.convolution.weight") for name in FIRST_BLOCK)
    if dialect.name == "huggingface" or before is None or behind is None:
        return
    if len(before) == len(behind):
        raise FormatError(
            f"{where}: expected fewer channels behind the first block than before it, found {len(before)} in both: "
            f"{dialect.name} then adds the one map to the other, which MobileNetV2's classes do not; a wider network "
            "has no such sum"
        )


def choose_architecture(weights: Mapping[str, Any]) -> str:
    """Return the class that the weights' names fit."""
    is_first = any(name.startswith("mobilenet_v1.") for name in weights)
    return name_class("MobileNetV1" if is_first else "MobileNetV2", weights)


def deduce_config(
    weights: Mapping[str, NDArray[Any]],
    dialect: Dialect,
    where: str,
    *,
    image_size: tuple[int, int] | None = None,
    called: Mapping[str, str] | None = None,
    **known: Any,
) -> Config:
    """Return the config whose network has exactly the shapes of `weights`.

    Of several widths that do, the published one, then the one with the fewest digits is taken. Where `known`, the
    fields that the source tells, has no `id2label`, the count of classes may tell it. `called` gives, by canonical
    name, what the source calls a weight, for the error.
    """
    shapes = {name: tuple(values.shape) for name, values in weights.items()}
    architecture = choose_architecture(weights)
    is_segmentation = architecture.endswith("Segmentation")
    size = image_size or ((513, 513) if is_segmentation else (224, 224))
    stem = STEMS[architecture[:11]]
    if stem not in shapes:
        raise FormatError(f"{where}: expected the first convolution of a MobileNet ({stem}), found none")
    head = "segmentation_head.classifier.convolution.weight" if is_segmentation else "classifier.weight"
    for name in (stem, head):
        if len(shapes.get(name, (0, 0))) < 2:  # a classifier may have two dimensions
            raise FormatError(f"{where}: {name}: expected the weight of a convolution, found {shapes[name]}")
    class_count = shapes[head][0] if head in shapes else None
    class_count = known.get("num_labels", class_count)
    labels = None if class_count is None else class_labels(architecture, class_count)
    fields: dict[str, Any] = {
        "num_channels": shapes[stem][1],
        "num_labels": class_count,
        "id2label": labels,
        "image_size": size[0] if size[0] == size[1] else size,
        "tf_padding": dialect.tf_padding,
        "layer_norm_eps": dialect.epsilon,
        "architectures": (architecture,),
        **({"output_stride": DEEPLAB_OUTPUT_STRIDE} if is_segmentation else {}),
        **known,
    }
    try:
        if architecture.startswith("MobileNetV1"):
            fields = {"bottom_right_padding": dialect.bottom_right_padding, **fields}
            config: Config = MobileNetV1Config(**fields, **_find_v1_width(shapes))
        else:
            config = MobileNetV2Config(**fields, **_find_v2_width(shapes))
        if config.ssd is not None:
            config = _settle_least_channels(config, shapes)
    except ConfigError as error:
        raise FormatError(f"{where}: {error}") from None
    expected = build_graph(config, architecture).shapes
    for name, shape in shapes.items():
        if shape != expected.get(name, shape):
            theirs = f"{called[name]} ({name})" if called and name in called else name
            raise FormatError(
                f"{where}: {theirs}: expected {expected[name]}, as in a {architecture} of width "
                f"{config.width_multiplier:g}, the closest there is, found {shape}"
            )
    return config


def _settle_least_channels(config: Config, shapes: Shapes) -> Config:
    """Return a detector's config with the least number of channels that fits; it holds in the backbone, too."""
    assert config.ssd is not None
    architecture = f"MobileNet{config.model_type[-2:].upper()}ForObjectDetection"

    def attempt(min_depth: int) -> Config:
        assert config.ssd is not None
        return ssd.settle(config.replace(ssd=config.ssd.replace(min_depth=min_depth)))

    def misfit(min_depth: int) -> int:
        expected = build_graph(attempt(min_depth), architecture).shapes
        return sum(shape != expected.get(name, shape) for name, shape in shapes.items())

    return attempt(*_fit(((least,) for least in (16, 8, 1)), misfit))


def _find_v1_width(shapes: Shapes) -> dict[str, Any]:
    """Return the fields that give V1's channels, or the closest to them."""
    layers = [("conv_stem", 32)]
    layers += [(f"layer.{2 * index + 1}", base) for index, (base, _) in enumerate(mobilenet_v1.SEPARABLE_LAYERS)]
    found = _read_channels(shapes, "mobilenet_v1.", layers)

    def misfit(width: float, min_depth: int) -> int:
        rule: Any = SimpleNamespace(width_multiplier=width, min_depth=min_depth)
        return sum(abs(mobilenet_v1.scale_channels(rule, base) - channels) for base, channels in found)

    width, min_depth = _fit(itertools.product(_WIDTHS, (8, 1, 16)), misfit)
    return {"depth_multiplier": width, "min_depth": min_depth}


def _find_v2_width(shapes: Shapes) -> dict[str, Any]:
    """Return the fields that give V2's channels, or the closest to them."""
    prefix = "mobilenet_v2."
    layers = [
        ("conv_stem.first_conv", mobilenet_v2.STEM_CHANNELS[0]),
        ("conv_stem.reduce_1x1", mobilenet_v2.STEM_CHANNELS[1]),
    ]
    stages = [base for base, count, _ in mobilenet_v2.STAGES for _ in range(count)]
    layers += [(f"layer.{index}.reduce_1x1", base) for index, base in enumerate(stages)]
    found = _read_channels(shapes, prefix, layers)

    last = dict(_read_channels(shapes, prefix, [("conv_1x1", mobilenet_v2.LAST_CHANNELS)]))
    is_kept_wide = all(base == channels for base, channels in last.items())
    found += [] if is_kept_wide else list(last.items())

    def misfit(divisible_by: int, width: float, min_depth: int) -> int:
        rule: Any = SimpleNamespace(width_multiplier=width, depth_divisible_by=divisible_by, min_depth=min_depth)
        return sum(abs(mobilenet_v2.scale_channels(rule, base) - channels) for base, channels in set(found))

    divisible_by, width, min_depth = _fit(itertools.product(_DIVISORS, _WIDTHS, (8, 1, 16)), misfit)
    rule: Any = SimpleNamespace(width_multiplier=width, depth_divisible_by=divisible_by, min_depth=min_depth)

    expansions = []
    for index in range(len(stages)):
        weight = shapes.get(f"{prefix}layer.{index}.expand_1x1.convolution.weight")
        expansions += [] if weight is None or len(weight) != 4 else [(weight[1], weight[0])]

    def misfit_of_expansion(ratio: float) -> int:
        return sum(abs(mobilenet_v2.scale_channels(rule, narrow, ratio) - wide) for narrow, wide in expansions)

    (ratio,) = _fit(((ratio,) for ratio in _EXPANSIONS), misfit_of_expansion)
    return {
        "depth_multiplier": width,
        "depth_divisible_by": divisible_by,
        "min_depth": min_depth,
        "expand_ratio": ratio,
        "first_layer_is_expansion": f"{prefix}conv_stem.expand_1x1.convolution.weight" not in shapes,
        "finegrained_output": is_kept_wide,
    }


def _read_channels(shapes: Shapes, prefix: str, layers: list[tuple[str, int]]) -> list[tuple[int, int]]:
    """Return (channels at width 1, channels found) of the layers that are there."""
    weights = [(base, shapes.get(f"{prefix}{name}.convolution.weight")) for name, base in layers]
    return [(base, weight[0]) for base, weight in weights if weight]


def _fit(choices: Iterable[tuple[Any, ...]], misfit: Callable[..., int]) -> tuple[Any, ...]:
    """Return the first choice that fits, else the first of those that fit best."""
    best: tuple[int, tuple[Any, ...]] | None = None
    for choice in choices:
        value = misfit(*choice)
        if value == 0:
            return choice
        if best is None or value < best[0]:
            best = value, choice
    assert best is not None
    return best[1]
