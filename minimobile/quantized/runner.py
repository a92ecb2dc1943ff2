"""The runner of a quantised network: pixel values in, the numbers that its bytes stand for out."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minimobile.errors import InputError, UnknownLayerError
from minimobile.execution.pixel_bytes import PixelBytes
from minimobile.execution.runner import DEFAULTS, DataFormat, Pixels, RunOptions
from minimobile.networks.graph import Graph
from minimobile.quantized.engine import QuantizedEngine
from minimobile.quantized.network import Network, Tensor
from minimobile.quantized.operations.operation import affine
from minimobile.quantized.operations.table import operation_of
from minimobile.quantized.own_head import find_maker
from minimobile_kernels.quantized.reference_maps import Affine, dequantize, quantize

Array = NDArray[Any]


class QuantizedRunner:
    """A network of integers that stands for a graph of floats; `endpoints` names a tensor of it for nodes of the graph.

    Raises InputError for options that ask for anything but float32 of the numbers that bytes stand for.
    """

    dtype = np.dtype(np.float32)

    def __init__(
        self, graph: Graph, network: Network, endpoints: Mapping[str, str], options: RunOptions = DEFAULTS
    ) -> None:
        if options.dtype != "float32":
            raise InputError(f"dtype: expected 'float32' for what a quantised network computes, got {options.dtype!r}")
        self.graph = graph
        self.network = network
        self.endpoints = endpoints
        self.engine = QuantizedEngine(network, options)

    def resolve(self, layer: str | int) -> str:
        """Return the name of a tensor, or of a node of the graph by any of its names."""
        return layer if isinstance(layer, str) and layer in self.network.tensors else self.graph.resolve(layer)

    def run(
        self, pixel_values: Pixels, outputs: Sequence[str], data_format: DataFormat = "channels_first"
    ) -> dict[str, Array]:
        """Return the numbers that the bytes of nodes or tensors stand for, each picture computed by itself.

        Pixel values become bytes by the scale and zero point of the input: the nearest, halves away from zero, clamped.

        Shapes: pixel_values (N, C, H, W), or (N, H, W, C) with "channels_last", float32, or as bytes with what they
        stand for; the results have the same layout, in float32; a tensor without channels keeps its type.
        """
        tensors = {name: self.find_tensor(name) for name in outputs}
        stored = self.store(pixel_values, data_format)
        found = self._run_each(stored, tuple(dict.fromkeys(tensors.values())))
        return {
            name: _as_numbers(self.network.tensors[tensor], found[tensor], data_format)
            for name, tensor in tensors.items()
        }

    def store(self, pixel_values: Pixels, data_format: DataFormat = "channels_first") -> Array:
        """Return pixel values as the network's input tensor has them, (N, H, W, C); errors as of `run`.

        Where they are bytes already, what becomes of each is looked up.
        """
        source = self.network.tensors[self.network.inputs[0]]
        is_bytes = isinstance(pixel_values, PixelBytes) and source.dtype != np.float32
        x = pixel_values if is_bytes else np.asarray(pixel_values)
        shape = x.shape if data_format == "channels_last" else (x.shape[0], *x.shape[2:], x.shape[1])
        if shape[1:] != source.shape[1:]:
            height, width, channels = source.shape[1:]
            raise InputError(
                f"pixel_values: expected pictures of {height}x{width} pixels and {channels} channels, for which this "
                f"quantised network is made, got {shape[1]}x{shape[2]} and {shape[3]}"
            )
        if isinstance(x, PixelBytes):
            table = _quantize_table(x.values.tobytes(), affine(source), source.dtype)
            if table is not None:
                return x.look_up(table).view(source.dtype)
            x = np.asarray(x)
        if np.isnan(x).any():
            raise InputError("pixel_values: expected numbers, which a quantised network turns into bytes, got NaN")
        x = x if data_format == "channels_last" else x.transpose(0, 2, 3, 1)
        return np.ascontiguousarray(x if source.dtype == np.float32 else quantize(x, affine(source), source.dtype))

    def rouse(self) -> None:
        """Wake the helpers; see `Runner.rouse`."""
        self.engine.rouse()

    def run_tensors(self, stored: Array, names: Sequence[str]) -> dict[str, Array]:
        """Return tensors of one picture as they are stored, for input as `store` gives it."""
        return self.engine.run(stored, tuple(names))

    @property
    def bytes_of(self) -> str:
        """Whose bytes it computes: see `QuantizedEngine`."""
        return self.engine.bytes_of

    def time_steps(self, pixel_values: Array, data_format: DataFormat) -> dict[tuple[str, ...], float]:
        """Return nothing: the steps of its programs are not timed."""
        return {}

    def run_stored(self, x: Array, names: Sequence[str] | None = None) -> tuple[Array, ...]:
        """Return tensors, None: the network's outputs, as they are stored, for input as its tensor has it."""
        source, asked = self.network.tensors[self.network.inputs[0]], tuple(names or self.network.outputs)
        if x.dtype != source.dtype or x.ndim != 4 or x.shape[1:] != source.shape[1:] or not len(x):
            raise InputError(
                f"run_quantized: expected {source.dtype} (N, {', '.join(map(str, source.shape[1:]))}), as the file's "
                f"input {source.name[:100]!r}, got {x.dtype} {x.shape}"
            )
        if source.dtype == np.float32 and np.isnan(x).any():
            raise InputError("run_quantized: expected numbers, which the network turns into bytes, got NaN")
        found = self._run_each(x, asked)
        return tuple(found[name] for name in asked)

    def find_tensor(self, name: str) -> str:
        """Return the tensor of a node of the model's graph, or of its own name."""
        tensor = self.endpoints.get(name, name)
        if tensor not in self.network.tensors:
            raise UnknownLayerError(
                f"layer {name!r}: expected one of the {len(self.endpoints)} whose values this quantised network holds, "
                "after batch norm and activation; load it with dequantize=True for the others"
            )
        return tensor

    def results(self) -> dict[str, str]:
        """Return what the network's outputs are beyond logits, by name: see `Runner.results`."""
        return self._results

    @functools.cached_property
    def _results(self) -> dict[str, str]:
        if len(self.network.outputs) == 2:  # a detector's
            boxes, scores = self.network.outputs
            maker = find_maker(self.network, scores)
            is_made = maker is not None and operation_of(maker).result == "probabilities"
            logits = maker.inputs[0] if maker is not None and is_made else scores
            return {"box_encodings": boxes, "scores": scores, "logits": logits}
        maker = find_maker(self.network, self.network.outputs[0])
        what = None if maker is None else operation_of(maker).result
        return {} if what is None else {what: self.network.outputs[0]}

    def _run_each(self, x: Array, tensors: tuple[str, ...]) -> dict[str, Array]:
        runs = [self.engine.run(x[index : index + 1], tensors) for index in range(len(x))]
        return {
            name: np.concatenate([run[name] for run in runs]) if len(runs) > 1 else runs[0][name] for name in tensors
        }


@functools.lru_cache(maxsize=16)
def _quantize_table(values: bytes, to: Affine, dtype: np.dtype[Any]) -> NDArray[np.uint8] | None:
    """Return the byte for each of the values of a picture's bytes, (C, 256), or None where one of them is NaN."""
    numbers = np.frombuffer(values, np.float32).reshape(-1, 256)
    return None if np.isnan(numbers).any() else quantize(numbers, to, dtype).view(np.uint8)


def _as_numbers(tensor: Tensor, values: Array, data_format: DataFormat) -> Array:
    """Return what stored values stand for, maps in the layout asked for; (N, C) becomes a map of one pixel."""
    numbers = dequantize(values, affine(tensor)) if tensor.dtype in (np.uint8, np.int8) else values
    is_last = data_format == "channels_last"
    if numbers.ndim == 2:
        return numbers[:, None, None, :] if is_last else numbers[:, :, None, None]
    return numbers if is_last or numbers.ndim != 4 else np.ascontiguousarray(numbers.transpose(0, 3, 1, 2))
