"""Models by what they are for: the class that a checkpoint's config names, and labels for one picture."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from minimobile.errors import ConfigError, InputError, MinimobileError
from minimobile.execution.runner import RunOptions
from minimobile.imaging.pictures import bring_upright
from minimobile.models import classes
from minimobile.models.base_model import MobileNetModel
from minimobile.models.outputs import require_finite
from minimobile.models.sources import Config, read_checkpoint, read_config
from minimobile.networks.config import config_from_dict

DEFAULT_MODEL = "google/mobilenet_v2_1.0_224"
MODEL_VARIABLE = "MINIMOBILE_MODEL"


def load(
    source: str | Path,
    *,
    config: Config | Mapping[str, Any] | None = None,
    engine: str = "compiled",
    dtype: str = "float32",
    num_threads: int | None = None,
    rounding: str = "double",
    dequantize: bool = False,
    quantized: bool = False,
    **overrides: Any,
) -> MobileNetModel:
    """Load a model as the class that its config names; the arguments are those of `from_pretrained`."""
    options = RunOptions(engine, dtype, num_threads, rounding, dequantize, quantized)
    checkpoint = read_checkpoint(source, config, overrides)
    model_class: type[MobileNetModel] = getattr(classes, checkpoint.architecture)
    return model_class.from_checkpoint(checkpoint, options=options)


def classify(image: Any, model: MobileNetModel | str | Path | None = None, top: int = 5) -> list[dict[str, Any]]:
    """Return the `top` likeliest classes of one picture, the likeliest first.

    `image` is a path, a PIL image (turned by its EXIF orientation, as files are) or an array (H, W, C), `model` a model
    or what `load` takes (None: the environment's MINIMOBILE_MODEL, else google/mobilenet_v2_1.0_224 from the hub).
    Each item is {"index": int, "label": str, "probability": float, "logit": float}. The probability is the softmax's,
    or the sigmoid's where the config's `problem_type` is "multi_label_classification", computed in float64; a quantised
    file that ends in probabilities has its own. Equal logits are in the order of index. Raises InputError where a logit
    is NaN or infinite.
    """
    if isinstance(top, bool) or not isinstance(top, int | np.integer) or top < 1:
        raise InputError(f"top: expected a whole number of 1 or more, got {top!r}")
    named = os.environ.get(MODEL_VARIABLE) if model is None else None
    with blaming_the_variable(named):
        if not isinstance(model, MobileNetModel):
            model = load(named or DEFAULT_MODEL if model is None else model)
        if not isinstance(model, classes.MobileNetV1ForImageClassification | classes.MobileNetV2ForImageClassification):
            raise InputError(f"model: expected one for image classification, got a {type(model).__name__}")
        if model.processor is None:
            raise InputError("model: expected one with image-processor settings, got none; call it with pixel_values")
    pixel_values = model.processor(bring_upright(image), return_tensors="np")["pixel_values"]
    output = model(pixel_values, return_dict=True)
    logits = output.logits
    if logits.shape[0] != 1 or logits.ndim != 2:
        raise InputError(f"image: expected one picture and one prediction for it, got logits {logits.shape}")
    require_finite(logits, image if isinstance(image, str | Path) else "image", "logits")
    logits = logits[0].astype(np.float64)
    with np.errstate(all="ignore"):
        if output.probabilities is not None:
            probabilities = output.probabilities[0]
        elif model.config.problem_type == "multi_label_classification":
            probabilities = 1 / (1 + np.exp(-logits))
        else:
            weights = np.exp(logits - np.max(logits, initial=-np.inf))
            probabilities = weights / np.sum(weights)
    return [
        {
            "index": int(index),
            "label": model.id2label.get(int(index), f"LABEL_{index}"),
            "probability": float(probabilities[index]),
            "logit": float(logits[index]),
        }
        for index in np.argsort(-logits, kind="stable")[:top]
    ]


@contextmanager
def blaming_the_variable(named: str | None) -> Iterator[None]:
    """Have errors say that the environment's variable named the model, if it did so (`named` is not None or empty)."""
    try:
        yield
    except MinimobileError as error:
        if not named:
            raise
        raise type(error)(f"${MODEL_VARIABLE}: {error}") from None


class AutoConfig:
    """Configs by the `model_type` of a checkpoint."""

    @staticmethod
    def from_pretrained(source: str | Path, **overrides: Any) -> Config:
        """Return the config of a directory, a file of any known format, a hub id or an embedded model."""
        return read_config(source, overrides)

    @staticmethod
    def for_model(model_type: str, **fields: Any) -> Config:
        """Return a config with default values for "mobilenet_v1" or "mobilenet_v2"."""
        return config_from_dict({"model_type": model_type}, **fields)


class _AutoModel:
    """Loads the class that a table names for the config's `model_type`."""

    classes: ClassVar[Mapping[str, type[MobileNetModel]]]

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        *,
        config: Config | Mapping[str, Any] | None = None,
        add_pooling_layer: bool = True,
        engine: str = "compiled",
        dtype: str = "float32",
        num_threads: int | None = None,
        rounding: str = "double",
        dequantize: bool = False,
        quantized: bool = False,
        **overrides: Any,
    ) -> Any:
        """Load a model; the arguments are those of the model classes' `from_pretrained`."""
        options = RunOptions(engine, dtype, num_threads, rounding, dequantize, quantized)
        checkpoint = read_checkpoint(source, config, overrides)
        model_class = cls._choose(checkpoint.config.model_type)
        return model_class.from_checkpoint(checkpoint, add_pooling_layer=add_pooling_layer, options=options)

    @classmethod
    def from_config(cls, config: Config, **options: Any) -> Any:
        """Make a model with random weights."""
        return cls._choose(getattr(config, "model_type", "none"))(config, **options)

    @classmethod
    def _choose(cls, model_type: str) -> type[MobileNetModel]:
        if model_type not in cls.classes:
            raise ConfigError(f"{cls.__name__}: expected a model_type of {', '.join(cls.classes)}, got {model_type}")
        return cls.classes[model_type]


class AutoModel(_AutoModel):
    """Models without a head."""

    classes: ClassVar = {"mobilenet_v1": classes.MobileNetV1Model, "mobilenet_v2": classes.MobileNetV2Model}


class AutoModelForImageClassification(_AutoModel):
    """Models that name pictures."""

    classes: ClassVar = {
        "mobilenet_v1": classes.MobileNetV1ForImageClassification,
        "mobilenet_v2": classes.MobileNetV2ForImageClassification,
    }


class AutoModelForSemanticSegmentation(_AutoModel):
    """Models that say what every pixel shows."""

    classes: ClassVar = {"mobilenet_v2": classes.MobileNetV2ForSemanticSegmentation}
