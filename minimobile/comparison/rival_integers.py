"""The same network in integers for other runtimes: an ONNX model quantised by ONNX Runtime's static quantiser."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import numpy as np

from minimobile.comparison.sized_network import SizedNetwork, write_onnx
from minimobile.networks.graph import INPUT

IMAGES = 4  # that say which ranges to expect; speed does not depend on them


def quantize_onnx(network: SizedNetwork) -> bytes:
    """Return the network as an ONNX model with QDQ nodes: maps of uint8, weights of int8 with a scale per channel.

    The ranges are those of random images between -1 and 1. It reads and returns float32, as the network does.
    """
    quantization = import_module("onnxruntime.quantization")
    preparation = import_module("onnxruntime.quantization.shape_inference")
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)  # it advises what is done here
    try:
        with tempfile.TemporaryDirectory() as folder:
            plain, prepared, quantized = (
                str(Path(folder, f"{name}.onnx")) for name in ("plain", "prepared", "quantized")
            )
            Path(plain).write_bytes(write_onnx(network))
            preparation.quant_pre_process(plain, prepared)
            kinds, formats = quantization.QuantType, quantization.QuantFormat
            quantization.quantize_static(
                prepared, quantized, _Reader(network.shape), quant_format=formats.QDQ, per_channel=True,
                activation_type=kinds.QUInt8, weight_type=kinds.QInt8,
            )  # fmt: skip
            return Path(quantized).read_bytes()
    finally:
        root.setLevel(level)


class _Reader:
    """What the quantiser reads images from."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        rng = np.random.default_rng(0)
        images = (rng.uniform(-1, 1, shape).astype(np.float32) for _ in range(IMAGES))
        self._inputs: Iterator[dict[str, np.ndarray]] = ({INPUT: image} for image in images)

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._inputs, None)
