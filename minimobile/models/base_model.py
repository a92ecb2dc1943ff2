"""What the model classes share: loading, saving, and running a graph with its weights."""

from __future__ import annotations

import dataclasses
import functools
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from minimobile.arguments import read_flag, read_whole
from minimobile.errors import ConfigError, InputError, within_memory
from minimobile.execution.pixel_bytes import PixelBytes
from minimobile.execution.runner import DEFAULTS, DataFormat, Pixels, Runner, RunOptions
from minimobile.formats.checkpoint import Checkpoint
from minimobile.formats.ranges import check_ranges, quantize
from minimobile.models.inputs import read_layers, read_pixel_values, read_stored
from minimobile.models.module_methods import ModuleMethods
from minimobile.models.outputs import ModelOutput, drop_single_pixel
from minimobile.models.requests import LoadRequest, read_request, settle_dtype
from minimobile.models.runners import make_runner
from minimobile.models.saving import Saving
from minimobile.models.sources import read_requested
from minimobile.models.stream import Streaming
from minimobile.models.weights import draw_weights, fit_weights, list_differences, redraw_mismatched, trim
from minimobile.networks.config import Config, MobileNetConfig
from minimobile.networks.graph import Graph
from minimobile.operations.fake_quantization import add_fake_quantization
from minimobile.quantized.network import Tensor
from minimobile_kernels import preparation

if TYPE_CHECKING:
    from minimobile.quantized.own_head import OwnOutput
    from minimobile.tracing.explanation import Explanation
    from minimobile.tracing.trace import Trace

Array = NDArray[Any]
AskedStates = bool | Sequence[str | int] | None
ModelT = TypeVar("ModelT", bound="MobileNetModel")
OutputT = TypeVar("OutputT", bound=ModelOutput)


class MobileNetModel(ModuleMethods, Saving, Streaming):
    """What the classes share: a config, a graph, weights, and the engine that runs them.

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
        options = RunOptions(engine, settle_dtype(dtype), num_threads)
        settled = self._check_config(self.config_class() if config is None else config)
        graph = self._build(settled, add_pooling_layer)
        weights = draw_weights(graph, settled.initializer_range, read_whole(seed, "seed"))
        self._settle(Checkpoint(settled, weights, type(self).__name__), graph, options)

    @classmethod
    def from_pretrained(
        cls: type[ModelT],
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
    ) -> ModelT:
        """Load a model from a directory, a file of any known format, a hub id, or "demo:digits", ":scenes", ":boxes".

        `config` (or where to read one) stands in for the source's own; single fields of it can be given as `overrides`
        (`output_stride=8`). So can the hub's `revision`, `cache_dir`, `token`, `local_files_only`, `force_download` and
        `subfolder`; `state_dict`, weights that stand in for the source's; `ignore_mismatched_sizes=True`, which draws
        weights of other shapes anew, with a warning; and `output_loading_info=True`, for which (model, a dict of the
        names left out) is returned. Other arguments of transformers have no effect where they cannot have one, and are
        refused by name where they would.
        `engine` is "compiled" or "reference" (NumPy; with dtype "float64" the truth). The bits do not depend on
        `num_threads` (None: all cores). A quantised file is run in integers, with the bytes that `bytes_of` names
        ("litert", "xnnpack", "onnxruntime" and more: see `quantized.engine`; None: those of its format), or, with
        `dequantize`, as the float network that it stands for. A checkpoint trained with fake quantisation is run in
        floats that are rounded as in training, or, with `quantized`, in the integers that it was trained for, on
        pictures of the config's size.
        Raises FormatError or ConfigError for what cannot be loaded, UnavailableError for a hub that cannot be reached.
        """
        request = read_request(source, config, dtype, overrides)
        options = RunOptions(engine, request.dtype, num_threads, bytes_of, dequantize, quantized)
        checkpoint = read_requested(request, cls.config_class.model_type)
        loaded: ModelT = cls.from_request(checkpoint, request, options, add_pooling_layer)
        return loaded

    @classmethod
    def from_request(
        cls: type[ModelT],
        checkpoint: Checkpoint,
        request: LoadRequest,
        options: RunOptions,
        add_pooling_layer: bool = True,
    ) -> Any:
        """Make a model of the checkpoint that a request names, as the request asks for it.

        A model, or (model, {"missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"}) where it asks for the
        loading info. Raises what `from_pretrained` does.
        """
        settled = checkpoint
        if request.ignore_mismatched_sizes:
            graph = cls._build(cls._check_config(checkpoint.config), add_pooling_layer)
            settled = dataclasses.replace(checkpoint, weights=redraw_mismatched(checkpoint.weights, graph))
        model = cls.from_checkpoint(settled, add_pooling_layer=add_pooling_layer, options=options)
        if request.output_loading_info:
            return model, list_differences(checkpoint.weights, model.state_dict())
        return model

    @classmethod
    def from_checkpoint(
        cls: type[ModelT],
        checkpoint: Checkpoint,
        *,
        add_pooling_layer: bool = True,
        options: RunOptions = DEFAULTS,
    ) -> ModelT:
        """Make a model of a checkpoint that has been read; its arrays are shared, not copied."""
        checkpoint = quantize(checkpoint) if options.quantized else checkpoint
        config = cls._check_config(checkpoint.config)
        where = checkpoint.provenance.get("source", cls.__name__)
        weights, graph = fit_weights(checkpoint.weights, cls._build(config, add_pooling_layer), where)
        if checkpoint.ranges:
            check_ranges(checkpoint.ranges, graph, where)
            graph = add_fake_quantization(graph, checkpoint.ranges)
        model = cls.__new__(cls)
        model._settle(dataclasses.replace(checkpoint, weights=weights), graph, options)
        return model

    def _settle(self, checkpoint: Checkpoint, graph: Graph, options: RunOptions) -> None:
        self.config = checkpoint.config
        self.graph = graph
        self._weights = {name: _protect(values) for name, values in checkpoint.weights.items()}
        self._checkpoint = dataclasses.replace(checkpoint, weights=self._weights)
        self._options = options
        self._runner = make_runner(self._checkpoint, graph, options)
        self._integers = None if options.dequantize else checkpoint.quantized

    def __reduce__(self) -> tuple[Callable[..., MobileNetModel], tuple[Any, ...]]:
        """Be pickled and copied as checkpoint and options: the process that reads it makes a program of its own."""
        has_pooling_layer = "pooler" in self.graph.outputs or "pooler" not in type(self).build(self.config).outputs
        options = dataclasses.replace(self._options, quantized=False)  # the checkpoint holds the integers already
        return _make_again, (type(self), self._checkpoint, options, has_pooling_layer)

    @abstractmethod
    def __call__(
        self,
        pixel_values: ArrayLike | None = None,
        *,
        labels: ArrayLike | None = None,
        output_hidden_states: AskedStates = None,
        return_dict: bool | None = None,
        data_format: DataFormat = "channels_first",
    ) -> ModelOutput:
        """Run the network on pixel values (N, C, H, W), or (N, H, W, C) for `data_format="channels_last"`.

        What comes back, and what else the arguments mean, is said by the class; which class it is follows from what was
        loaded. Arguments beyond `pixel_values` are given by name here, for their order is not that of every class.
        """

    @property
    def forward(self) -> Callable[..., ModelOutput]:
        """The call itself, arguments and all."""
        return self.__call__

    def state_dict(self) -> dict[str, Array]:
        """Return the weights as read-only arrays under canonical names (`mobilenet_v1.layer.3.convolution.weight`)."""
        return dict(self._weights)

    @property
    def dtype(self) -> str:
        """What the model computes in: "float32", or "float64" for the reference engine that was asked for it."""
        return self._options.dtype

    @property
    def id2label(self) -> dict[int, str]:
        """Class number -> name."""
        labels: dict[int, str] = self.config.labels
        return labels

    @functools.cached_property
    def processor(self) -> Any:
        """The image processor whose settings came with the weights, or None."""
        settings = self._checkpoint.processor
        if settings is None:
            return None
        from minimobile.imaging import image_processing

        processor_class = getattr(image_processing, self.config_class.__name__.replace("Config", "ImageProcessor"))
        return processor_class.from_dict(settings)

    def features(
        self, pixel_values: ArrayLike | None, layers: Sequence[str | int], data_format: DataFormat = "channels_first"
    ) -> dict[str | int, Array]:
        """Return {layer as it was asked for: its output}; nothing after the last of them is computed.

        A layer is a name of transformers (`layer.12.expand_1x1`), an endpoint of TF-slim (`layer_15/expansion_output`,
        `Conv2d_11_pointwise`) or the index of a hidden state. Outputs are (N, C, H, W), or (N, H, W, C) for
        `data_format="channels_last"`; those of `pooler` and `classifier` are (N, C) where they are one pixel. Layers of
        a quantised file may be named as its tensors are; what they hold comes as the numbers that it stands for.
        """
        asked = read_layers(layers, "layers")
        names = [self.resolve(layer) for layer in asked]
        return dict(zip(asked, self._run(pixel_values, names, data_format), strict=True))

    def resolve(self, layer: str | int) -> str:
        """Return the name of the node, or of the quantised file's tensor, that a layer's name or index means."""
        return self._runner.resolve(layer)

    @property
    def is_quantized(self) -> bool:
        """Whether the model runs in integers."""
        return self._integers is not None

    def prepare(self) -> None:
        """Have the kernels ready, compiled by two processes if they are not on disk, as the first call would by one."""
        if self._options.engine == "compiled":
            preparation.prepare("run_quantized" if self.is_quantized else "run")

    @property
    def own_outputs(self) -> tuple[OwnOutput, ...]:
        """The outputs of a quantised file whose head is its own, such as an SSD's of another school; else ()."""
        return ()

    @property
    def runner(self) -> Runner:
        """What computes the network: of floats, compiled or on the definitions, or of integers."""
        return self._runner

    @property
    def quantized_input(self) -> Tensor:
        """The shape, type and scale of what `run_quantized` takes. Raises InputError for a model in floats."""
        if self._integers is None:
            raise InputError("quantized_input: expected a model that runs in integers, got one in floats")
        return self._integers.tensors[self._integers.inputs[0]]

    def run_quantized(self, array: ArrayLike) -> Any:
        """Run a quantised file as it is: its input tensor in, its output tensor out, both in the file's types.

        Shapes: array (N, H, W, C), of the type of the file's input (uint8, int8, or float32 around a body of integers)
        -> what the file's output has for one picture, N times along the first axis. Raises InputError for another
        shape or type, and for a model that is not quantised.
        """
        return self._runner.run_stored(read_stored(array))[0]

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
        from minimobile.tracing.trace import choose_rows, trace_run

        asked = None if layers is None else read_layers(layers, "layers")
        values = self._read(pixel_values, data_format)
        rows = choose_rows(self.graph, asked, every_node)
        traced = trace_run(self.graph, self._runner, values, rows, data_format)
        tensors = {name: drop_single_pixel(name, y, data_format) for name, y in traced.tensors.items()}
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
        from minimobile.tracing.explain import explain

        values = self._read(pixel_values, data_format)
        self._require_floats("explain")
        channels_last = values if data_format == "channels_last" else values.transpose(0, 2, 3, 1)
        return explain(self.graph, self._weights, self._runner, channels_last, layer, position)

    def _take(self, pixel_values: ArrayLike | PixelBytes | None, data_format: DataFormat) -> Pixels:
        """Return pixel values as `_read` does, or for a network of integers, if they are bytes, as they are."""
        is_planar = str(data_format) == "channels_first"
        if is_planar and isinstance(pixel_values, PixelBytes) and pixel_values.shape[1] == self.graph.input_channels:
            return pixel_values if self.is_quantized else np.asarray(pixel_values, self._runner.dtype)
        return self._read(pixel_values, data_format)

    def _read(self, pixel_values: ArrayLike | PixelBytes | None, data_format: DataFormat) -> Array:
        return read_pixel_values(pixel_values, self.graph.input_channels, data_format, self._runner.dtype)

    def _require_floats(self, what: str) -> None:
        if self.is_quantized:
            raise InputError(
                f"{what}: expected a model in floats, got one that runs in integers; load it with dequantize=True, or "
                "what `minimobile convert` makes of it"
            )

    @within_memory("pixel_values")
    def _run(self, pixel_values: ArrayLike | None, names: Sequence[str], data_format: DataFormat) -> tuple[Array, ...]:
        """Return the output of each node, in the order asked."""
        self._runner.rouse()
        values = self._take(pixel_values, data_format)
        if not names:
            return ()
        found = self._runner.run(values, tuple(dict.fromkeys(names)), data_format)
        return tuple(drop_single_pixel(name, found[name], data_format) for name in names)

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

    def _find_result(self, what: str) -> tuple[str, ...]:
        """Return the tensor with the "probabilities" or "classes" in which a quantised file ends, if it does."""
        results = self._runner.results()
        return (results[what],) if what in results else ()

    def _present(self, output: OutputT, return_dict: bool | None) -> OutputT:
        wants_record = self.config.return_dict if return_dict is None else read_flag(return_dict, "return_dict")
        return output if wants_record else output.to_tuple()  # type: ignore[return-value]  # the record's tuple

    @classmethod
    def _build(cls, config: Config, add_pooling_layer: bool) -> Graph:
        graph = cls.build(config)
        if read_flag(add_pooling_layer, "add_pooling_layer"):
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
        return f"{type(self).__name__}({self.num_parameters():,} parameters)"

    def _repr_html_(self) -> str:
        """Return the layers of the command `inspect`, at the config's size of image, for notebooks."""
        from minimobile.costs.layer_table import tabulate_layers
        from minimobile.costs.profile import profile, read_size

        height, width = read_size(self.config.image_size)
        return tabulate_layers(profile(self.graph, (height, width)), f"{self!r} at {height} x {width}").to_html()


def _make_again(
    model_class: type[MobileNetModel], checkpoint: Checkpoint, options: RunOptions, add_pooling_layer: bool
) -> MobileNetModel:
    return model_class.from_checkpoint(checkpoint, options=options, add_pooling_layer=add_pooling_layer)


def _protect(values: Array) -> Array:
    view: Array = values.view()
    view.flags.writeable = False
    return view
