"""How to run a network, as data, and what every way to run it has in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from minimobile.arguments import check_choice, read_flag
from minimobile.errors import InputError
from minimobile.execution.pixel_bytes import PixelBytes
from minimobile.execution.threads import check_thread_count, default_thread_count
from minimobile.networks.graph import Graph
from minimobile_kernels.quantized.step import BYTES_OF

Array = NDArray[Any]
Pixels = Array | PixelBytes
DataFormat = Literal["channels_first", "channels_last"]
ENGINES = ("compiled", "reference")
DTYPES = ("float32", "float64")


@dataclass(frozen=True)
class RunOptions:
    """How to run: what callers of `load` ask for by name travels as one of these. Raises InputError for no such way.

    `engine` is "compiled" or "reference" (the NumPy definitions); `dtype` "float64" needs the reference. `num_threads`
    counts the caller; None takes `MINIMOBILE_NUM_THREADS`, else all processors. `bytes_of` says whose
    bytes a network of integers computes (see `QuantizedEngine`); None: those that its file means. `dequantize` runs the
    floats that a quantised file stands for, `quantized` the integers that a network was trained for.
    """

    engine: str = "compiled"
    dtype: str = "float32"
    num_threads: int | None = None
    bytes_of: str | None = None
    dequantize: bool = False
    quantized: bool = False

    def __post_init__(self) -> None:
        check_choice(self.engine, "engine", ENGINES)
        check_choice(self.dtype, "dtype", DTYPES)
        if self.dtype == "float64" and self.engine == "compiled":
            raise InputError("dtype: expected 'float32' with engine='compiled', got 'float64'; use engine='reference'")
        if self.num_threads is not None:
            check_thread_count(self.num_threads)
        if self.bytes_of is not None:
            check_choice(self.bytes_of, "bytes_of", BYTES_OF)
        flags = [read_flag(self.quantized, "quantized"), read_flag(self.dequantize, "dequantize")]
        if all(flags):
            raise InputError("quantized: expected one of quantized and dequantize, got both")

    @property
    def thread_count(self) -> int:
        """The threads of a run, the caller's among them."""
        return default_thread_count() if self.num_threads is None else check_thread_count(self.num_threads)


DEFAULTS = RunOptions()


class Runner(Protocol):
    """A network that is ready to run, in one of the ways there are; it may be called from many threads at once.

    In floats: compiled (`CompiledRunner`) or on the definitions in NumPy (`ReferenceRunner`), of float32 or float64; a
    network trained for quantisation runs in either with the graph of `add_fake_quantization`. In integers:
    `QuantizedRunner`.
    """

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of pixel values."""

    def resolve(self, layer: str | int) -> str:
        """Return the name under which `run` knows a layer. Raises UnknownLayerError."""

    def run(
        self, pixel_values: Pixels, outputs: Sequence[str], data_format: DataFormat = "channels_first"
    ) -> dict[str, Array]:
        """Compute the named layers and nothing that they do not need.

        Shapes: pixel_values (N, C, H, W), or (N, H, W, C) with "channels_last", of `dtype`, or "channels_first" as
        bytes with what they stand for; the results have the same layout.
        """

    def rouse(self) -> None:
        """Say that a run comes at once: threads that shall help wake while the caller prepares its pixel values."""

    def time_steps(self, pixel_values: Array, data_format: DataFormat) -> dict[tuple[str, ...], float]:
        """Return the microseconds of each step of a run by the names of the nodes done in it; {} without a program."""

    def results(self) -> Mapping[str, str]:
        """Return what is computed beyond logits: {"probabilities" or "classes": its name}, or nothing.

        Of a detector in integers: the names of its "box_encodings", "scores" and "logits".
        """

    def run_stored(self, x: Array, names: Sequence[str] | None = None) -> tuple[Array, ...]:
        """Run a network of integers from its input tensor to the tensors `names`, None: its outputs, all as stored.

        Raises InputError for another shape or type, and for a network in floats.
        """


class FloatRunner:
    """What the runners of a graph of floats share."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph

    def resolve(self, layer: str | int) -> str:
        """Return the name of a node, given as one of its names or as the index of a hidden state."""
        return self.graph.resolve(layer)

    def rouse(self) -> None:
        """Do nothing: nobody helps."""

    def results(self) -> Mapping[str, str]:
        """Return nothing: a graph of floats ends in logits or features."""
        return {}

    def run_stored(self, x: Array, names: Sequence[str] | None = None) -> tuple[Array, ...]:
        """Raise InputError: nothing is stored in another form than floats."""
        raise InputError("run_quantized: expected a model that runs in integers, got one in floats")
