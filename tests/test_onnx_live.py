"""Networks exported here and now, by both of PyTorch's exporters, tf2onnx and Keras, against ONNX Runtime."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from judgement import assert_agrees
from onnx_exports import CLASSES, NEVER_FOLDED, Export, run_with_values, write
from twins import canonical_weights

import minimobile as mm
from minimobile import formats

pytestmark = pytest.mark.crosscheck
EXPORTS = [
    Export("v1", 0.25, 96, "torchscript", 7, "training"),
    Export("v1", 0.25, 224, "torchscript", 17),
    Export("v1", 0.5, 225, "torchscript", 11),
    Export("v1", 0.25, 257, "torchscript", 13, "unfolded"),
    Export("v1", 0.25, 96, "torchscript", 14, "open"),
    Export("v1", 0.25, 96, "torchscript", 9, "timm"),
    Export("v1", 0.25, 225, "dynamo", 18),
    Export("v1", 0.25, 96, "dynamo", 20, "unoptimised"),
    Export("v1", 0.25, 96, "dynamo", 18, "open"),
    Export("v1", 0.25, 96, "dynamo", 21, "beside"),
    Export("v1", 0.25, 96, "tf2onnx", 9, "channels first"),
    Export("v1", 0.25, 96, "tf2onnx", 15),
    Export("v1", 0.25, 96, "keras", 0),
    Export("v2", 0.35, 96, "torchscript", 10, "unfolded"),
    Export("v2", 0.5, 96, "torchscript", 17),
    Export("v2", 0.35, 225, "torchscript", 12),
    Export("v2", 0.35, 257, "torchscript", 16, "training"),
    Export("v2", 0.35, 96, "torchscript", 13, "symmetric"),
    Export("v2", 0.35, 96, "torchscript", 7, "torchvision"),
    Export("v2", 0.35, 97, "torchscript", 17, "timm"),
    Export("v2", 0.35, 224, "dynamo", 18),
    Export("v2", 0.35, 96, "dynamo", 19, "torchvision"),
    Export("v2", 0.35, 96, "tf2onnx", 13),
    Export("v2", 0.35, 224, "tf2onnx", 18),
    Export("v2", 0.35, 96, "keras", 0),
    Export("deeplab", 0.35, 96, "torchscript", 11),
    Export("deeplab", 0.25, 225, "torchscript", 17),
    Export("deeplab", 0.25, 257, "torchscript", 13, "training"),
    Export("deeplab", 0.25, 96, "torchscript", 16, "open"),
    Export("deeplab", 0.25, 96, "dynamo", 18),
]


def test_there_are_thirty() -> None:
    assert len(set(EXPORTS)) == 30


@pytest.mark.parametrize("export", EXPORTS, ids=lambda export: "-".join(map(str, filter(None, export))))
def test_every_layer_is_that_of_onnx_runtime(export: Export, tmp_path: Any) -> None:
    path = tmp_path / "net.onnx"
    module = write(export, path)
    checkpoint = formats.read(path)
    assert checkpoint.architecture == CLASSES[export.network][0]
    assert checkpoint.config.depth_multiplier == export.width
    if export.special != "open":
        assert checkpoint.config.image_size == export.size
    pixels = np.random.default_rng(0).normal(0, 1, (1, 3, export.size, export.size)).astype(np.float32)
    channels_last = export.exporter in ("tf2onnx", "keras") and export.special != "channels first"
    feed = {checkpoint.provenance["input"]: pixels.transpose(0, 2, 3, 1) if channels_last else pixels}
    tensors = list(dict.fromkeys(checkpoint.endpoints.values()))
    values = run_with_values(path, feed, tensors)
    theirs = {name: values[tensor] for name, tensor in checkpoint.endpoints.items()}
    assert len(theirs) >= {"v1": 28, "v2": 63, "deeplab": 67}[export.network]
    assert_agrees(mm.load(path), pixels, theirs)
    if module is not None:
        assert_weights_came_back(export, module, checkpoint, theirs)


def assert_weights_came_back(export: Export, module: Any, checkpoint: Any, theirs: Any) -> None:
    """Assert that every weight has its bits where the exporter folded nothing."""
    if export.special not in NEVER_FOLDED or not hasattr(module, "network"):
        return
    sent = canonical_weights(module.network, checkpoint.config.model_type)
    assert set(checkpoint.weights) <= set(sent)
    for name, values in checkpoint.weights.items():
        assert values.tobytes() == sent[name].tobytes(), name
