"""Models by what they are for: the class that a checkpoint's config names, or that a task needs."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

from minimobile.errors import ConfigError, InputError, MinimobileError
from minimobile.execution.runner import RunOptions
from minimobile.models import classes
from minimobile.models.base_model import MobileNetModel
from minimobile.models.requests import read_request
from minimobile.models.sources import read_config, read_requested
from minimobile.networks.config import Config, config_from_dict
from minimobile.quantized.own_head import describe_own_head

DEFAULT_MODEL = "google/mobilenet_v2_1.0_224"
MODEL_VARIABLE = "MINIMOBILE_MODEL"
CLASSIFICATION, SEGMENTATION, DETECTION = "image classification", "semantic segmentation", "object detection"
FEATURES = "image features"
TASKS: Mapping[str, tuple[type[MobileNetModel], ...]] = {
    CLASSIFICATION: (classes.MobileNetV1ForImageClassification, classes.MobileNetV2ForImageClassification),
    SEGMENTATION: (classes.MobileNetV2ForSemanticSegmentation,),
    DETECTION: (classes.MobileNetV1ForObjectDetection, classes.MobileNetV2ForObjectDetection),
    FEATURES: (MobileNetModel,),
}


def load(
    source: str | Path | None = None,
    *,
    config: Config | Mapping[str, Any] | str | Path | None = None,
    engine: str = "compiled",
    dtype: Any = "float32",
    num_threads: int | None = None,
    bytes_of: str | None = None,
    dequantize: bool = False,
    quantized: bool = False,
    **overrides: Any,
) -> MobileNetModel:
    """Load a model as the class that its config names.

    Args:
        source: a directory, a file of any known format, a hub id, "demo:digits", "demo:scenes" or "demo:boxes".
        config: stands in for the source's own: a config, a dict of its fields, or where to read one.
        engine: "compiled", or "reference" for the definitions in NumPy.
        dtype: "float32", or "float64" for the reference engine. float16 and bfloat16 are computed in float32.
        num_threads: None is all processors. The bits do not depend on it.
        bytes_of: whose bytes a quantised file computes: "litert" (its reference kernels), "litert-single-rounding" (the
            same built to round once), "xnnpack" (LiteRT's default kernels), "onnxruntime" or "onnxruntime-uint8" (ONNX
            Runtime's, for a file of int8 or of uint8). None: as the file's own format says, the first but for ONNX.
        dequantize: run a quantised file as the network of floats that it stands for.
        quantized: run a checkpoint that was trained with fake quantisation in integers.
        overrides: fields of the config (`output_stride=8`); `revision`, `cache_dir`, `token`, `local_files_only`,
            `force_download` and `subfolder` for the hub; `state_dict`, weights that stand in for the source's;
            `ignore_mismatched_sizes=True`, which draws weights of other shapes anew; `output_loading_info=True`, for
            (model, names left out). What else transformers takes has no effect, or is refused by name.

    Raises:
        FormatError: a source that cannot be read; MissingError, which is an OSError, too, for one that is not there.
        ConfigError: a config that has no meaning, or a field that there is not.
        InputError: an argument that has no meaning here.
        UnavailableError: a hub that cannot be reached.
    """
    request = read_request(source, config, dtype, overrides)
    options = RunOptions(engine, request.dtype, num_threads, bytes_of, dequantize, quantized)
    checkpoint = read_requested(request)
    model_class: type[MobileNetModel] = getattr(classes, checkpoint.architecture)
    loaded: MobileNetModel = model_class.from_request(checkpoint, request, options)
    return loaded


def choose_model(
    model: MobileNetModel | str | Path | None, task: str, arguments: Mapping[str, Any] | None = None
) -> MobileNetModel:
    """Return the model for a task of `TASKS`: `model` itself, or loaded with `arguments` from what it names.

    What is loaded for image features has no head. None is what the environment's MINIMOBILE_MODEL names, else, for
    image classification, `DEFAULT_MODEL`. Raises InputError for a model that is for something else, or where none is
    named.
    """
    if isinstance(model, TASKS[task]):
        return model
    named = os.environ.get(MODEL_VARIABLE) if model is None else None
    with blaming_the_variable(named):
        if not isinstance(model, MobileNetModel):
            source = (named or (DEFAULT_MODEL if task == CLASSIFICATION else None)) if model is None else model
            if source is None:
                raise InputError(
                    f"model: expected one for {task}, got none; name one, or set ${MODEL_VARIABLE} ('demo:scenes' is "
                    "one that comes with the package)"
                )
            open_model = AutoModel.from_pretrained if task == FEATURES else load
            model = open_model(source, **(arguments or {}))
        if not isinstance(model, TASKS[task]):
            own = f" and a head of its own: {describe_own_head(model.own_outputs)}" if model.own_outputs else ""
            raise InputError(f"model: expected one for {task}, got a {type(model).__name__}{own}")
    return model


def require_processor(model: MobileNetModel) -> Any:
    """Return the model's own image processor; raise InputError where its source brought no settings of one."""
    if model.processor is None:
        raise InputError(
            f"{type(model).__name__}: expected the model to come with image-processor settings, got none; "
            "add a preprocessor_config.json to its directory, or call the model with pixel_values"
        )
    return model.processor


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
    def from_pretrained(source: str | Path | None = None, **overrides: Any) -> Config:
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
        source: str | Path | None = None,
        *,
        config: Config | Mapping[str, Any] | str | Path | None = None,
        add_pooling_layer: bool = True,
        engine: str = "compiled",
        dtype: Any = "float32",
        num_threads: int | None = None,
        bytes_of: str | None = None,
        dequantize: bool = False,
        quantized: bool = False,
        **overrides: Any,
    ) -> Any:
        """Load a model; the arguments are those of the model classes' `from_pretrained`."""
        request = read_request(source, config, dtype, overrides)
        options = RunOptions(engine, request.dtype, num_threads, bytes_of, dequantize, quantized)
        checkpoint = read_requested(request)
        model_class = cls._choose(checkpoint.config.model_type)
        return model_class.from_request(checkpoint, request, options, add_pooling_layer)

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


class AutoModelForObjectDetection(_AutoModel):
    """Models that find objects."""

    classes: ClassVar = {
        "mobilenet_v1": classes.MobileNetV1ForObjectDetection,
        "mobilenet_v2": classes.MobileNetV2ForObjectDetection,
    }
