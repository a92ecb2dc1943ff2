"""The model classes, with the names, arguments and results of transformers' classes."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from minimobile.errors import InputError
from minimobile.execution.runner import DataFormat, RunOptions
from minimobile.formats.checkpoint import Checkpoint
from minimobile.models.base_model import AskedStates, MobileNetModel
from minimobile.models.detectors import MobileNetV1ForObjectDetection, MobileNetV2ForObjectDetection
from minimobile.models.inputs import read_stored
from minimobile.models.losses import classification_loss, segmentation_loss
from minimobile.models.outputs import (
    BaseModelOutputWithPoolingAndNoAttention,
    ImageClassifierOutputWithNoAttention,
    SemanticSegmenterOutput,
)
from minimobile.models.weights import trim
from minimobile.networks import deeplab, mobilenet_v1, mobilenet_v2
from minimobile.networks.config import MobileNetV1Config, MobileNetV2Config
from minimobile.networks.graph import Graph
from minimobile.quantized.own_head import OwnOutput, own_outputs

Array = NDArray[Any]

__all__ = [
    "MobileNetModel",
    "MobileNetV1ForImageClassification",
    "MobileNetV1ForObjectDetection",
    "MobileNetV1Model",
    "MobileNetV2ForImageClassification",
    "MobileNetV2ForObjectDetection",
    "MobileNetV2ForSemanticSegmentation",
    "MobileNetV2Model",
]


class _Backbone(MobileNetModel):
    """A network without a head: feature maps and their mean; or in front of one that only a file in integers knows."""

    @property
    def own_outputs(self) -> tuple[OwnOutput, ...]:
        """The outputs of a quantised file whose head is its own, such as an SSD's of another school; else ()."""
        return own_outputs(self._integers)

    def run_quantized(self, array: ArrayLike) -> Any:
        """Run a quantised file as it is: its input tensor in, its output tensor out, both in the file's types.

        A file with a head of its own gives all of its outputs, {name: array}: raw, for how boxes are decoded no file
        says. `features` gives the numbers that they stand for, by the same names. The rest is as for other models.
        """
        found = self._runner.run_stored(read_stored(array))
        names = [output.name for output in self.own_outputs]
        return dict(zip(names, found, strict=True)) if names else found[0]

    def _settle(self, checkpoint: Checkpoint, graph: Graph, options: RunOptions) -> None:
        """Leave the pooling layer out where the integers have none."""
        has_none = checkpoint.quantized is not None and "pooler" not in checkpoint.endpoints
        if has_none and not options.dequantize and "pooler" in graph.outputs:
            graph = trim(dataclasses.replace(graph, outputs=graph.outputs[:1]))
        super()._settle(checkpoint, graph, options)

    def __call__(
        self,
        pixel_values: ArrayLike | None = None,
        output_hidden_states: AskedStates = None,
        return_dict: bool | None = None,
        *,
        labels: ArrayLike | None = None,
        data_format: DataFormat = "channels_first",
    ) -> BaseModelOutputWithPoolingAndNoAttention:
        """Return the features, or their tuple with `return_dict=False` (which a type checker is not told).

        `pixel_values` is (N, C, H, W), or (N, H, W, C) for `data_format="channels_last"`, which feature maps follow.
        `output_hidden_states` is True for those that transformers lists, or a list of layers: these, in this order.
        Raises InputError for arguments that do not fit, and for `labels`: there is no loss without a head.
        """
        if labels is not None:
            raise InputError(f"{type(self).__name__}: expected no labels, for a network without a head has no loss")
        found, states = self._run_with_states(pixel_values, self.graph.outputs, output_hidden_states, data_format)
        pooled = found[1] if len(found) > 1 else None
        output = BaseModelOutputWithPoolingAndNoAttention(
            last_hidden_state=found[0], pooler_output=pooled, hidden_states=states
        )
        return self._present(output, return_dict)


class _ImageClassifier(MobileNetModel):
    """A network that names pictures."""

    def __call__(
        self,
        pixel_values: ArrayLike | None = None,
        output_hidden_states: AskedStates = None,
        labels: ArrayLike | None = None,
        return_dict: bool | None = None,
        *,
        data_format: DataFormat = "channels_first",
    ) -> ImageClassifierOutputWithNoAttention:
        """Return logits (N, num_labels), or their tuple with `return_dict=False` (which a type checker is not told).

        The loss is there with `labels` (see `losses.py`). The other arguments are those of the models without a head.
        """
        names = (*self.graph.outputs, *self._find_result("probabilities"))
        found, states = self._run_with_states(pixel_values, names, output_hidden_states, data_format)
        loss = None if labels is None else classification_loss(found[0], labels, self.config)
        own = found[1].reshape(found[0].shape) if len(found) > 1 else None
        output = ImageClassifierOutputWithNoAttention(
            loss=loss, logits=found[0], hidden_states=states, probabilities=own
        )
        return self._present(output, return_dict)


class MobileNetV1Model(_Backbone):
    """transformers' class of this name: MobileNet V1 without a head."""

    config_class = MobileNetV1Config
    build = staticmethod(functools.partial(mobilenet_v1.build, head="none"))


class MobileNetV1ForImageClassification(_ImageClassifier):
    """transformers' class of this name: MobileNet V1 with a linear classifier."""

    config_class = MobileNetV1Config
    build = staticmethod(functools.partial(mobilenet_v1.build, head="classification"))


class MobileNetV2Model(_Backbone):
    """transformers' class of this name: MobileNet V2 without a head."""

    config_class = MobileNetV2Config
    build = staticmethod(functools.partial(mobilenet_v2.build, head="none"))


class MobileNetV2ForImageClassification(_ImageClassifier):
    """transformers' class of this name: MobileNet V2 with a linear classifier."""

    config_class = MobileNetV2Config
    build = staticmethod(functools.partial(mobilenet_v2.build, head="classification"))


class MobileNetV2ForSemanticSegmentation(MobileNetModel):
    """transformers' class of this name: MobileNet V2 with the reduced DeepLabV3 head."""

    config_class = MobileNetV2Config
    build = staticmethod(deeplab.build)
    config: MobileNetV2Config

    def __call__(
        self,
        pixel_values: ArrayLike | None = None,
        labels: ArrayLike | None = None,
        output_hidden_states: AskedStates = None,
        return_dict: bool | None = None,
        *,
        data_format: DataFormat = "channels_first",
    ) -> SemanticSegmenterOutput:
        """Return logits, or their tuple with `return_dict=False` (which a type checker is not told).

        Logits are (N, num_labels, h, w) at the resolution of the last block. `labels` (N, H, W) give a loss; the other
        arguments are those of the models without a head.
        """
        names = (*self.graph.outputs, *self._find_result("classes"))
        found, states = self._run_with_states(pixel_values, names, output_hidden_states, data_format)
        loss = None
        if labels is not None:
            is_last = data_format == "channels_last"
            loss = segmentation_loss(np.moveaxis(found[0], 3, 1) if is_last else found[0], labels, self.config)
        own = found[1].reshape(len(found[0]), *found[1].shape[-2:]) if len(found) > 1 else None
        output = SemanticSegmenterOutput(loss=loss, logits=found[0], hidden_states=states, classes=own)
        return self._present(output, return_dict)
