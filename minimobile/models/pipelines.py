"""transformers' `pipeline` for what these networks do: pictures in; labels, masks, boxes, features out as there."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from minimobile.arguments import check_choice
from minimobile.errors import InputError
from minimobile.imaging.auto import AutoImageProcessor
from minimobile.imaging.detections import check_threshold
from minimobile.imaging.pictures import open_image
from minimobile.models.auto import (
    CLASSIFICATION,
    DETECTION,
    FEATURES,
    SEGMENTATION,
    TASKS,
    choose_model,
    load,
    require_processor,
)
from minimobile.models.base_model import MobileNetModel
from minimobile.models.classification import apply_sigmoid, apply_softmax, find_logits
from minimobile.models.detection import find_objects
from minimobile.models.segmentation import find_classes, open_photo

_FUNCTIONS: Mapping[str, Callable[[NDArray[Any]], NDArray[Any]]] = {
    "softmax": apply_softmax,
    "sigmoid": apply_sigmoid,
    "none": lambda logits: logits,
}
_WITHOUT_MEANING = frozenset({"timeout", "batch_size", "num_workers"})  # pictures are files, and go one by one


class _Pipeline:
    """What the pipelines share: a model, its image processor, and one result per picture."""

    task: ClassVar[str]

    def __init__(self, model: MobileNetModel, image_processor: Any = None, **parameters: Any) -> None:
        if not isinstance(model, MobileNetModel):
            raise InputError(f"model: expected a model, got {type(model).__name__}; mm.pipeline takes what names one")
        self.model = model
        self.image_processor = model.processor if image_processor is None else image_processor
        self._parameters = self._check(parameters)

    def __call__(self, inputs: Any = None, **parameters: Any) -> Any:
        """Return the result of one picture, or the list of those of a list of pictures.

        A picture is a path, a PIL image (turned by its EXIF orientation) or an array. A generator of pictures gives a
        generator of results, one by one. The `parameters` are those of the pipeline, for this call. Raises InputError
        for what is no parameter or no picture, FormatError for a file that cannot be read.
        """
        pictures = parameters.pop("images", inputs)
        chosen = {**self._parameters, **self._check(parameters)}
        if isinstance(pictures, list | tuple):
            return [self._run(picture, chosen) for picture in pictures]
        if isinstance(pictures, Generator):
            return (self._run(picture, chosen) for picture in pictures)
        if pictures is None:
            raise InputError(f"{self.task}: expected a picture or a list of pictures, got None")
        return self._run(pictures, chosen)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.model!r})"

    @property
    def device(self) -> str:
        """Where it runs: "cpu", always."""
        return "cpu"

    def _check(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        raise NotImplementedError

    def _run(self, picture: Any, chosen: Mapping[str, Any]) -> Any:
        raise NotImplementedError

    def _refuse_unknown(self, parameters: Mapping[str, Any], known: tuple[str, ...]) -> dict[str, Any]:
        for name in parameters:
            if name not in known and name not in _WITHOUT_MEANING:
                raise InputError(f"{self.task}: there is no parameter {name!r}; there are {', '.join(known)}")
        return {name: value for name, value in parameters.items() if name in known and value is not None}


class ImageClassificationPipeline(_Pipeline):
    """Labels of pictures: [{"label": str, "score": float}, ...], the highest score first.

    What may be given, to the pipeline or to a call of it:
        top_k: how many; 5 where not said.
        function_to_apply: "softmax", "sigmoid" or "none". Where not said: none for a regression, the sigmoid for a
            "multi_label_classification" or a single label, else the softmax; a quantised file that ends in
            probabilities has its own.
    """

    task = "image-classification"

    def _check(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        known = self._refuse_unknown(parameters, ("top_k", "function_to_apply"))
        top_k, function = known.get("top_k", 1), known.get("function_to_apply", "none")
        if isinstance(top_k, bool) or not isinstance(top_k, int | np.integer) or top_k < 1:
            raise InputError(f"top_k: expected a whole number of 1 or more, got {top_k!r}")
        if not isinstance(function, str) or function.lower() not in _FUNCTIONS:
            raise InputError(f"function_to_apply: expected one of {', '.join(_FUNCTIONS)}, got {function!r}")
        return known

    def _run(self, picture: Any, chosen: Mapping[str, Any]) -> list[dict[str, Any]]:
        logits, own = find_logits(self.model, picture, self.image_processor)
        asked = chosen.get("function_to_apply")
        if asked is None and own is not None:
            scores = own
        else:
            scores = _FUNCTIONS[(asked or self._choose_function()).lower()](logits)
        labels = self.model.id2label
        order = np.argsort(-scores, kind="stable")[: chosen.get("top_k", 5)]
        return [{"label": labels.get(int(i), f"LABEL_{i}"), "score": float(scores[i])} for i in order]

    def _choose_function(self) -> str:
        config = self.model.config
        if config.problem_type == "regression":
            return "none"
        if config.problem_type == "multi_label_classification" or config.num_labels == 1:
            return "sigmoid"
        return "softmax"


class ImageSegmentationPipeline(_Pipeline):
    """Masks of classes: [{"score": None, "label": str, "mask": PIL image}, ...], one for each class that occurs.

    A mask is a grey picture of the photo's size, 255 where its class is and 0 elsewhere. The whole picture is looked
    at, as by `segment`; transformers crops its middle and draws that mask out over the whole.

    What may be given, to the pipeline or to a call of it:
        subtask: "semantic", the only one that there is.
        threshold, mask_threshold, overlap_mask_area_threshold: for networks that find objects; no effect, as there.
    """

    task = "image-segmentation"

    def _check(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        thresholds = ("threshold", "mask_threshold", "overlap_mask_area_threshold")
        known = self._refuse_unknown(parameters, ("subtask", *thresholds))
        if known.get("subtask", "semantic") != "semantic":
            raise InputError(f"subtask: expected 'semantic', which this network is for, got {known['subtask']!r}")
        return known

    def _run(self, picture: Any, chosen: Mapping[str, Any]) -> list[dict[str, Any]]:
        photo = open_image(picture)
        where = picture if isinstance(picture, str | Path) else "image"
        classes = find_classes(self.model, photo, where, self.image_processor)
        labels = self.model.id2label
        return [
            {
                "score": None,
                "label": labels.get(int(index), f"LABEL_{index}"),
                "mask": Image.fromarray(((classes == index) * 255).astype(np.uint8)),
            }
            for index in np.unique(classes)
        ]


class ObjectDetectionPipeline(_Pipeline):
    """Objects in pictures: [{"score": float, "label": str, "box": {"xmin", "ymin", "xmax", "ymax"}}, ...].

    Boxes are whole pixels, cut towards zero, as transformers has them; classes called "???" are left out.

    What may be given, to the pipeline or to a call of it:
        threshold: what a score has to be above; 0.5 where not said.
    """

    task = "object-detection"

    def _check(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        known = self._refuse_unknown(parameters, ("threshold",))
        check_threshold(known.get("threshold", 0.5), self.task)
        return known

    def _run(self, picture: Any, chosen: Mapping[str, Any]) -> list[dict[str, Any]]:
        found = find_objects(
            self.model, open_photo(picture), chosen.get("threshold", 0.5), processor=self.image_processor
        )
        return [
            {
                "score": item["score"],
                "label": item["label"],
                "box": {name: int(side) for name, side in item["box"].items()},
            }
            for item in found
        ]


class ImageFeatureExtractionPipeline(_Pipeline):
    """The first output of a model, of a picture: of one without a head its last hidden state, (1, C, h, w).

    Nested lists of floats. What may be given, to the pipeline or to a call of it:
        pool: True for the pooled output, (1, C), in its place.
        return_tensors: True for an array, float32.
        image_processor_kwargs: arguments of the image processor, such as {"size": {"shortest_edge": 256}}.
    """

    task = "image-feature-extraction"

    def _check(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        known = self._refuse_unknown(parameters, ("pool", "return_tensors", "image_processor_kwargs"))
        named = known.get("image_processor_kwargs", {})
        if not isinstance(named, Mapping):
            raise InputError(f"image_processor_kwargs: expected arguments by name, got {named!r}")
        return known

    def _run(self, picture: Any, chosen: Mapping[str, Any]) -> Any:
        process = require_processor(self.model) if self.image_processor is None else self.image_processor
        inputs = process(open_image(picture), return_tensors="np", **chosen.get("image_processor_kwargs", {}))
        found: Any = self.model(inputs["pixel_values"], return_dict=True)
        if chosen.get("pool") and found.get("pooler_output") is None:
            raise InputError(f"pool: expected a model with a pooled output, got a {type(self.model).__name__}")
        values = found["pooler_output"] if chosen.get("pool") else found[0]
        return values if chosen.get("return_tensors") else values.tolist()


PIPELINES: Mapping[str, type[_Pipeline]] = {
    pipeline.task: pipeline
    for pipeline in (
        ImageClassificationPipeline,
        ImageSegmentationPipeline,
        ObjectDetectionPipeline,
        ImageFeatureExtractionPipeline,
    )
}
_KINDS = {  # of models; the last one has every model
    "image-classification": CLASSIFICATION,
    "image-segmentation": SEGMENTATION,
    "object-detection": DETECTION,
    "image-feature-extraction": FEATURES,
}


def pipeline(
    task: str | None = None,
    model: MobileNetModel | str | Path | None = None,
    *,
    image_processor: Any = None,
    feature_extractor: Any = None,
    model_kwargs: Mapping[str, Any] | None = None,
    **options: Any,
) -> Any:
    """Return an `ImageClassificationPipeline`, or that of another task; call it with pictures.

    Args:
        task: "image-classification", "image-segmentation", "object-detection" or "image-feature-extraction"; None is
            the one that the model is for.
        model: a model, or what `load` takes. None is what the environment's MINIMOBILE_MODEL names, else, for
            classification, google/mobilenet_v2_1.0_224 from the hub.
        image_processor: one that stands in for the model's own, or where to read it.
        feature_extractor: the older name of `image_processor`.
        model_kwargs: arguments of `load`.
        options: more of them (`revision`, `device`, `dtype`, `num_threads`, ...), and parameters of the pipeline
            (`top_k`, `function_to_apply`, `subtask`), for every call.

    Raises:
        InputError: a task that there is not, a model for another one, or an argument that has no meaning.
        FormatError: a model that cannot be loaded.
    """
    if task is not None:
        check_choice(task, "task", PIPELINES)
    parameters = {name: options.pop(name) for name in _PARAMETERS if name in options}
    if not isinstance(model_kwargs, Mapping | None):
        raise InputError(f"model_kwargs: expected arguments of `load` by name, got {type(model_kwargs).__name__}")
    arguments = {**(model_kwargs or {}), **options}
    if arguments and isinstance(model, MobileNetModel):
        raise InputError(f"{next(iter(arguments))}: expected none beside a model that is loaded; say it to its loader")
    if task is None:
        if isinstance(model, str | Path):
            model = load(model, **arguments)
        task = next((name for name, kind in _KINDS.items() if isinstance(model, TASKS[kind])), "image-classification")
    processor = feature_extractor if image_processor is None else image_processor
    if isinstance(processor, str | Path):
        processor = AutoImageProcessor.from_pretrained(processor)
    return PIPELINES[task](choose_model(model, _KINDS[task], arguments), processor, **parameters)


_PARAMETERS = (
    "top_k", "function_to_apply", "subtask", "threshold", "mask_threshold", "overlap_mask_area_threshold", "timeout",
    "batch_size", "num_workers", "pool", "return_tensors", "image_processor_kwargs",
)  # fmt: skip
