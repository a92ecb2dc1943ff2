"""Detectors in others' ONNX files: bodies of SSD and SSDLite from PyTorch and tf2onnx, beside ONNX Runtime."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from frameworks import tensorflow
from judgement import assert_agrees
from onnx_exports import run_with_values
from twins import import_torch

import minimobile as mm
from minimobile import formats

pytestmark = pytest.mark.crosscheck


class Export(NamedTuple):
    """A detector: its network, its width, SSDLite or SSD, the picture's size, how the file ends, and who writes it."""

    version: int
    width: float
    is_lite: bool
    size: int
    ending: str
    exporter: str
    opset: int


EXPORTS = [
    Export(2, 0.35, True, 160, "sigmoid", "torchscript", 13),
    Export(2, 0.5, True, 225, "maps", "dynamo", 18),
    Export(2, 0.35, False, 160, "softmax", "dynamo", 23),
    Export(1, 0.25, True, 224, "joined", "torchscript", 11),
    Export(1, 0.25, False, 161, "sigmoid", "torchscript", 17),
    Export(1, 0.5, False, 300, "softmax", "dynamo", 20),
]


def write(export: Export, path: Path) -> Any:
    """Export a module of PyTorch, quietly; return it."""
    torch, _ = import_torch()
    from torch_peers import settled
    from torch_ssd import Detector

    module = settled(Detector(export.version, export.width, 5, export.is_lite, export.ending))
    options = {"dynamo": export.exporter == "dynamo", "opset_version": export.opset, "verbose": False}
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                module, (torch.zeros(1, 3, export.size, export.size),), path, input_names=["x"], **options
            )
    finally:
        logging.disable(logging.NOTSET)
    return module


def assert_layers_agree(path: Path, pixels: Any, channels_last: bool = False) -> None:
    """Assert that every layer is that of ONNX Runtime, judged on its own."""
    checkpoint = formats.read(path)
    feed = {checkpoint.provenance["input"]: pixels.transpose(0, 2, 3, 1) if channels_last else pixels}
    tensors = list(dict.fromkeys(checkpoint.endpoints.values()))
    values = run_with_values(path, feed, tensors)
    theirs = {name: values[tensor] for name, tensor in checkpoint.endpoints.items()}
    model = mm.load(path)
    assert set(model.graph.outputs) <= theirs.keys()
    assert_agrees(model, pixels, theirs)
    print(f"{path.name}: {len(theirs)} layers agree")


@pytest.mark.parametrize("export", EXPORTS, ids=lambda export: "-".join(map(str, export)))
def test_pytorchs_exports_load_as_detectors(export: Export, tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    module = write(export, path)
    config = formats.read(path).config
    assert (config.model_type, config.depth_multiplier) == (f"mobilenet_v{export.version}", export.width)
    assert (config.num_labels, config.image_size) == (5, export.size)
    assert config.ssd is not None
    assert (config.ssd.use_depthwise, config.ssd.kernel_size) == (export.is_lite, 3 if export.is_lite else 1)
    assert config.ssd.score_converter == ("softmax" if export.ending == "softmax" else "sigmoid")
    pixels = np.random.default_rng(0).normal(0, 1, (1, 3, export.size, export.size)).astype(np.float32)
    assert_layers_agree(path, pixels)
    if export.ending != "maps":
        torch, _ = import_torch()
        with torch.no_grad():
            boxes, scores = (found.numpy() for found in module(torch.from_numpy(pixels)))
        ours = mm.load(path)(pixels)
        convert = {"joined": lambda x: x, "sigmoid": lambda x: 1 / (1 + np.exp(-x)), "softmax": _softmax}
        found = convert[export.ending](ours.logits)
        np.testing.assert_allclose(found, scores, rtol=0, atol=1e-4 * np.abs(scores).max())  # rows in one order
        assert boxes.shape == (*found.shape[:2], 4)


def _softmax(logits: Any) -> Any:
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


@pytest.mark.parametrize("name", ["graph", "tflite"])
def test_bodies_that_tf2onnx_cuts_from_published_detectors(name: str, test_data: Path, tmp_path: Path) -> None:
    """Up to boxes and scores; what tf2onnx makes of the whole files has loops, and is no body."""
    tf2onnx = pytest.importorskip("tf2onnx")
    tf, path, folder = tensorflow(), tmp_path / "net.onnx", test_data / "models" / "detection"
    logging.disable(logging.WARNING)
    try:
        if name == "graph":
            source = folder / "pedestrian_ssdlite_mobilenet_v2_frozen_inference_graph.pb"
            graph = tf.compat.v1.GraphDef.FromString(source.read_bytes())
            tf2onnx.convert.from_graph_def(
                graph, input_names=["Preprocessor/sub:0"], output_names=["concat:0", "concat_1:0"], opset=17,
                shape_override={"Preprocessor/sub:0": [1, 300, 300, 3]}, output_path=str(path),
            )  # fmt: skip
        else:
            source = folder / "ssdlite_mobilenet_v2_coco_float32.tflite"
            ends = ["Squeeze1", "Postprocessor/convert_scores"]
            tf2onnx.convert.from_tflite(str(source), output_names=ends, opset=13, output_path=str(path))
    finally:
        logging.disable(logging.NOTSET)
    found, original = formats.read(path), formats.read(source)
    assert found.architecture == original.architecture
    assert found.config.ssd is not None
    assert original.config.ssd is not None
    settings = found.config.ssd.replace(stored_anchors=0), original.config.ssd.replace(stored_anchors=0)
    for field in ("use_depthwise", "kernel_size", "score_converter", "reduce_boxes_in_lowest_layer"):
        assert getattr(settings[0], field) == getattr(settings[1], field)
    assert found.config.num_labels == original.config.num_labels
    pixels = np.random.default_rng(0).uniform(-1, 1, (1, 3, 300, 300)).astype(np.float32)
    assert_layers_agree(path, pixels, channels_last=True)
    ours, same = mm.load(path)(pixels), mm.load(source)(pixels)
    np.testing.assert_allclose(ours.logits, same.logits, rtol=0, atol=1e-4 * np.abs(same.logits).max())
