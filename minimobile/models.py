"""The five model classes, with the names, arguments and results of transformers' classes."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from minimobile import deeplab, mobilenet_v1, mobilenet_v2
from minimobile.config import MobileNetConfig, MobileNetV1Config, MobileNetV2Config
from minimobile.engine import Engine
from minimobile.errors import ConfigError, InputError
from minimobile.explain import explain
from minimobile.explanation import Explanation
from minimobile.formats import hdf5, huggingface
from minimobile.formats.checkpoint import Checkpoint
from minimobile.graph import Graph
from minimobile.inputs import DataFormat, read_layers, read_pixel_values
from minimobile.losses import classification_loss, segmentation_loss
from minimobile.outputs import (
    BaseModelOutputWithPoolingAndNoAttention,
    ImageClassifierOutputWithNoAttention,
    ModelOutput,
    SemanticSegmenterOutput,
)
from minimobile.sources import Config, read_checkpoint
from minimobile.trace import Trace, choose_rows, trace_run
from minimobile.weights import draw_weights, fit_weights, trim

Array = NDArray[Any]
AskedStates = bool | Sequence[str | int] | None
ModelT = TypeVar("ModelT", bound="MobileNetModel")

_POOLED = ("pooler", "classifier")  # nodes whose single pixel is dropped: (N, C, 1, 1) -> (N, C)


class MobileNetModel:
    """What the five classes share: a config, a graph, weights, and the engine that runs them.

    A model does not change after it is made, and may be called from several threads at once.
    """

    config_class: ClassVar[type[MobileNetConfig]]
    build: ClassVar[Callable[..., Graph]]

    def __init__(
        self,
        config: Config | None = None,
        add_pooling_layer: bool = True,
        *,
        seed: int = 0,
        engine: str = "compiled",
        dtype: str = "float32",
        num_threads: int | None = None,
    ) -> None:
        """Make a model with random weights, drawn as transformers draws them; the same ones for the same `seed`.

        `add_pooling_layer=False` leaves out the pooling layer of a model without a head (`pooler_output` is None).
        """
        settled = self._check_config(self.config_class() if config is None else config)
        graph = self._build(settled, add_pooling_layer)
        weights = draw_weights(graph, settled.initializer_range, seed)
        self._settle(Checkpoint(settled, weights, type(self).__name__), graph, engine, dtype, num_threads)

    @classmethod
    def from_pretrained(
        cls: type[ModelT],
        source: str | Path,
        *,
        config: Config | Mapping[str, Any] | None = None,
        add_pooling_layer: bool = True,
        engine: str = "compiled",
        dtype: str = "float32",
        num_threads: int | None = None,
        **overrides: Any,
    ) -> ModelT:
        """Load a model from a directory, a file of any known format, a hub id, "demo:digits" or "demo:scenes".

        `config` stands in for the source's own; single fields of it can be given as `overrides` (`output_stride=8`),
        and so can the hub's `revision` and `cache_dir`.
        `engine` is "compiled" or "reference" (NumPy; with dtype "float64" the truth). The bits do not depend on
        `num_threads` (None: all cores). Raises FormatError or ConfigError for what cannot be loaded, UnavailableError
        for a hub that cannot be reached.
        """
        checkpoint = read_checkpoint(source, config, overrides, cls.config_class.model_type)
        return cls.from_checkpoint(
            checkpoint, add_pooling_layer=add_pooling_layer, engine=engine, dtype=dtype, num_threads=num_threads
        )

    @classmethod
    def from_checkpoint(
        cls: type[ModelT],
        checkpoint: Checkpoint,
        *,
        add_pooling_layer: bool = True,
        engine: str = "compiled",
        dtype: str = "float32",
        num_threads: int | None = None,
    ) -> ModelT:
        """Make a model of a checkpoint that has been read; its arrays are shared, not copied."""
        config = cls._check_config(checkpoint.config)
        where = checkpoint.provenance.get("source", cls.__name__)
        weights, graph = fit_weights(checkpoint.weights, cls._build(config, add_pooling_layer), where)
        model = cls.__new__(cls)
        model._settle(dataclasses.replace(checkpoint, weights=weights), graph, engine, dtype, num_threads)
        return model

    def _settle(self, checkpoint: Checkpoint, graph: Graph, engine: str, dtype: str, num_threads: int | None) -> None:
        self.config = checkpoint.config
        self.graph = graph
        self._weights = {name: _protect(values) for name, values in checkpoint.weights.items()}
        self._processor_values = checkpoint.processor
        self._provenance = checkpoint.provenance
        self._dtype = dtype
        self._engine = Engine(graph, self._weights, engine=engine, dtype=dtype, num_threads=num_threads)

    def save_pretrained(self, directory: str | Path) -> None:
        """Write config.json, model.safetensors and preprocessor_config.json, as transformers reads them."""
        huggingface.write(directory, self.to_checkpoint())

    def save(self, path: str | Path, dtype: str = "float32") -> None:
        """Write our native HDF5 file; `dtype="float16"` halves it."""
        hdf5.write(path, self.to_checkpoint(), dtype)

    def to_checkpoint(self) -> Checkpoint:
        """Return the model as data, as the formats write it."""
        name = type(self).__name__
        config = self.config.replace(architectures=(name,))
        return Checkpoint(config, self._weights, name, self._processor_values, self._provenance)

    def state_dict(self) -> dict[str, Array]:
        """Return the weights as read-only arrays under canonical names (`mobilenet_v1.layer.3.convolution.weight`)."""
        return dict(self._weights)

    @property
    def id2label(self) -> dict[int, str]:
        """Class number -> name."""
        return self.config.labels

    @functools.cached_property
    def processor(self) -> Any:
        """The image processor whose settings came with the weights, or None."""
        if self._processor_values is None:
            return None
        from minimobile import image_processing

        processor_class = getattr(image_processing, self.config_class.__name__.replace("Config", "ImageProcessor"))
        return processor_class.from_dict(self._processor_values)

    def features(
        self, pixel_values: ArrayLike | None, layers: Sequence[str | int], data_format: DataFormat = "channels_first"
    ) -> dict[str | int, Array]:
        """Return {layer as it was asked for: its output}; nothing after the last of them is computed.

        A layer is a name of transformers (`layer.12.expand_1x1`), an endpoint of TF-slim (`layer_15/expansion_output`,
        `Conv2d_11_pointwise`) or the index of a hidden state. Outputs are (N, C, H, W), or (N, H, W, C) for
        `data_format="channels_last"`; those of `pooler` and `classifier` are (N, C) where they are one pixel.
        """
        asked = read_layers(layers, "layers")
        names = [self.graph.resolve(layer) for layer in asked]
        return dict(zip(asked, self._run(pixel_values, names, data_format), strict=True))

    def trace(
        self,
        pixel_values: ArrayLike | None,
        layers: Sequence[str | int] | None = None,
        *,
        every_node: bool = False,
        data_format: DataFormat = "channels_first",
    ) -> Trace:
        """Return the range, the time and the values of every layer of a run, or of the `layers` asked for.

        A layer is named as for `features`; the name of an inverted residual (`layer.5`) stands for all of its layers.
        `every_node` adds the convolutions and batch norms inside each. The values are those of any other run, to the
        bit; a convolution before its batch norm, which a run skips, is computed from unfolded weights.
        """
        asked = None if layers is None else read_layers(layers, "layers")
        values = read_pixel_values(pixel_values, self.graph.input_channels, data_format, self._dtype)
        rows = choose_rows(self.graph, asked, every_node)
        traced = trace_run(self.graph, self._weights, self._engine, values, rows, data_format)
        tensors = {name: _drop_single_pixel(name, y, data_format) for name, y in traced.tensors.items()}
        return dataclasses.replace(traced, tensors=tensors)

    def explain(
        self,
        pixel_values: ArrayLike | None,
        layer: str | int,
        position: Sequence[int],
        *,
        data_format: DataFormat = "channels_first",
    ) -> Explanation:
        """Write out one value of a layer, at `position` (row, column, channel), as its sum; for one image.

        Its terms, block sums, bias, residual and activation give the engine's value to the bit; beside it stands how
        the value comes about from unfolded weights and batch norm. `pooler` and `classifier` have row and column 0.
        """
        values = read_pixel_values(pixel_values, self.graph.input_channels, data_format, self._dtype)
        channels_last = values if data_format == "channels_last" else values.transpose(0, 2, 3, 1)
        return explain(self.graph, self._weights, self._engine, channels_last, layer, position)

    def _run(self, pixel_values: ArrayLike | None, names: Sequence[str], data_format: DataFormat) -> tuple[Array, ...]:
        """Return the output of each node, in the order asked."""
        values = read_pixel_values(pixel_values, self.graph.input_channels, data_format, self._dtype)
        if not names:
            return ()
        found = self._engine.run(values, tuple(dict.fromkeys(names)), data_format)
        return tuple(_drop_single_pixel(name, found[name], data_format) for name in names)

    def _run_with_states(
        self, pixel_values: ArrayLike | None, names: Sequence[str], asked_states: AskedStates, data_format: DataFormat
    ) -> tuple[tuple[Array, ...], tuple[Array, ...] | None]:
        """Return the outputs of the nodes `names`, and the hidden states (None where none are asked for)."""
        asked: Any = self.config.output_hidden_states if asked_states is None else asked_states
        if not isinstance(asked, bool | np.bool_):
            states = tuple(self.graph.resolve(layer) for layer in read_layers(asked, "output_hidden_states"))
        elif asked:
            states = self.graph.hidden_states
        else:
            return self._run(pixel_values, names, data_format), None
        found = self._run(pixel_values, (*names, *states), data_format)
        return found[: len(names)], found[len(names) :]

    def _present(self, output: ModelOutput, return_dict: bool | None) -> Any:
        wants_record = self.config.return_dict if return_dict is None else return_dict
        return output if wants_record else output.to_tuple()

    @classmethod
    def _build(cls, config: Config, add_pooling_layer: bool) -> Graph:
        graph = cls.build(config)
        if add_pooling_layer:
            return graph
        if "pooler" not in graph.outputs:
            raise InputError(f"{cls.__name__}: expected add_pooling_layer=False only for a model without a head")
        return trim(dataclasses.replace(graph, outputs=graph.outputs[:1]))

    @classmethod
    def _check_config(cls, config: object) -> Any:
        if not isinstance(config, cls.config_class):
            raise ConfigError(f"{cls.__name__}: expected a {cls.config_class.__name__}, got {type(config).__name__}")
        return config

    def __repr__(self) -> str:
        parameters = sum(values.size for name, values in self._weights.items() if ".running_" not in name)
        return f"{type(self).__name__}({parameters:,} parameters)"


class _Backbone(MobileNetModel):
    """A network without a head: feature maps and their mean."""

    def __call__(
        self,
        pixel_values: ArrayLike | None = None,
        *,
        output_hidden_states: AskedStates = None,
        return_dict: bool | None = None,
        data_format: DataFormat = "channels_first",
    ) -> Any:
        """Return `BaseModelOutputWithPoolingAndNoAttention`, or its tuple with `return_dict=False`.

        `pixel_values` is (N, C, H, W), or (N, H, W, C) for `data_format="channels_last"`, which feature maps follow.
        `output_hidden_states` is True for those that transformers lists, or a list of layers: these, in this order.
        """
        found, states = self._run_with_states(pixel_values, self.graph.outputs, output_hidden_states, data_format)
        return self._present(BaseModelOutputWithPoolingAndNoAttention(*_pad(found), hidden_states=states), return_dict)


class _ImageClassifier(MobileNetModel):
    """A network that names pictures."""

    def __call__(
        self,
        pixel_values: ArrayLike | None = None,
        *,
        labels: ArrayLike | None = None,
        output_hidden_states: AskedStates = None,
        return_dict: bool | None = None,
        data_format: DataFormat = "channels_first",
    ) -> Any:
        """Return `ImageClassifierOutputWithNoAttention`, or its tuple with `return_dict=False`.

        The loss is there with `labels` (see `losses.py`). The other arguments are those of the models without a head.
        """
        found, states = self._run_with_states(pixel_values, self.graph.outputs, output_hidden_states, data_format)
        loss = None if labels is None else classification_loss(found[0], labels, self.config)
        return self._present(ImageClassifierOutputWithNoAttention(loss, found[0], states), return_dict)


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
        *,
        labels: ArrayLike | None = None,
        output_hidden_states: AskedStates = None,
        return_dict: bool | None = None,
        data_format: DataFormat = "channels_first",
    ) -> Any:
        """Return `SemanticSegmenterOutput`, or its tuple with `return_dict=False`.

        Logits are (N, num_labels, h, w) at the resolution of the last block. `labels` (N, H, W) give a loss; the other
        arguments are those of the models without a head.
        """
        found, states = self._run_with_states(pixel_values, self.graph.outputs, output_hidden_states, data_format)
        loss = None
        if labels is not None:
            is_last = data_format == "channels_last"
            loss = segmentation_loss(np.moveaxis(found[0], 3, 1) if is_last else found[0], labels, self.config)
        return self._present(SemanticSegmenterOutput(loss, found[0], states), return_dict)


def _pad(found: tuple[Array, ...]) -> tuple[Array | None, Array | None]:
    return found[0], found[1] if len(found) > 1 else None


def _protect(values: Array) -> Array:
    view: Array = values.view()
    view.flags.writeable = False
    return view


def _drop_single_pixel(name: str, values: Array, data_format: DataFormat) -> Array:
    height, width = values.shape[2:] if data_format == "channels_first" else values.shape[1:3]
    return values.reshape(len(values), -1) if name in _POOLED and height == width == 1 else values
