"""Networks exported to ONNX by PyTorch's exporters, tf2onnx and Keras, and ONNX Runtime's values for them."""

from __future__ import annotations

import functools
import logging
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pytest
from frameworks import keras, tensorflow
from twins import import_torch, randomise, twin_config

import minimobile as mm

CLASSES = {
    "v1": ("MobileNetV1ForImageClassification", mm.MobileNetV1Config),
    "v2": ("MobileNetV2ForImageClassification", mm.MobileNetV2Config),
    "deeplab": ("MobileNetV2ForSemanticSegmentation", mm.MobileNetV2Config),
}


class Export(NamedTuple):
    """A network: its school, its width, the picture's size, who writes it, the operator set, and what is special."""

    network: str
    width: float
    size: int
    exporter: str
    opset: int
    special: str = ""


NEVER_FOLDED = ("training", "unfolded", "unoptimised")


def build(export: Export) -> Any:
    """Return the module of PyTorch."""
    torch, transformers = import_torch()
    if export.special in ("torchvision", "timm"):
        from torch_peers import Timm, VisionV2, settled

        version = int(export.network[1:])
        return settled(VisionV2(export.width, 5) if export.special == "torchvision" else Timm(version, export.width, 5))
    name, config = CLASSES[export.network]
    more = {"output_stride": 16} if export.network == "deeplab" else {}
    settings = config(depth_multiplier=export.width, num_labels=5, tf_padding=export.special != "symmetric", **more)
    found = getattr(transformers, name)(twin_config(settings)).eval()
    randomise(found, 0)

    class Logits(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = found

        def forward(self, x: Any) -> Any:
            return self.network(x).logits

    return Logits().eval()


def write_torch(export: Export, module: Any, path: Any) -> None:
    """Export a module of PyTorch."""
    torch, _ = import_torch()
    pixels = torch.zeros(1, 3, export.size, export.size)
    if export.exporter == "dynamo":
        pytest.importorskip("onnxscript")
    options: dict[str, Any] = {"dynamo": export.exporter == "dynamo", "opset_version": export.opset}
    if export.special == "open":
        sizes = {0: "batch", 2: "height", 3: "width"}
        dims = {axis: torch.export.Dim(name) for axis, name in sizes.items()}
        is_old = export.exporter == "torchscript"
        options |= {"dynamic_axes": {"x": sizes}} if is_old else {"dynamic_shapes": (dims,)}
    if export.special in ("training", "unfolded"):
        options |= {"do_constant_folding": False, "training": torch.onnx.TrainingMode.PRESERVE}
    if export.special == "unoptimised":
        options["optimize"] = False
    if export.special == "beside":
        options["external_data"] = True
    names = {"input_names": ["x"], "output_names": ["logits"]}
    torch.onnx.export(module, (pixels,), path, verbose=False, **names, **options)


@functools.cache
def build_keras(network: str, width: float, size: int) -> Any:
    """Return the model of Keras with weights that are not idle."""
    tensorflow()
    applications = keras().applications
    make = applications.MobileNet if network == "v1" else applications.MobileNetV2
    found = make((size, size, 3), width, weights=None, classes=5)
    generator = np.random.default_rng(0)
    for variable in found.weights:
        shape = tuple(variable.shape)
        if "variance" in variable.path or "gamma" in variable.path:
            variable.assign(generator.uniform(0.5, 1.5, shape))
        elif len(shape) < 2:
            variable.assign(generator.normal(0, 0.3, shape))
        else:
            terms = shape[:2] if "depthwise" in variable.path or "conv_dw" in variable.path else shape[:-1]
            variable.assign(generator.normal(0, np.sqrt(2 / np.prod(terms)), shape))
    return found


def write_keras(export: Export, path: Any) -> None:
    """Export a model of Keras, by tf2onnx or by Keras' own `export`, which calls it."""
    tf = tensorflow()
    network = build_keras(export.network, export.width, export.size)
    if export.exporter == "keras":
        network(np.zeros((1, export.size, export.size, 3), np.float32))
        network.export(path, format="onnx", verbose=False)
        return
    tf2onnx = pytest.importorskip("tf2onnx")
    signature = [tf.TensorSpec((1, export.size, export.size, 3), tf.float32, name="x")]
    function = tf.function(lambda x: network(x, training=False))
    options = {"inputs_as_nchw": ["x"]} if export.special == "channels first" else {}
    tf2onnx.convert.from_function(function, signature, opset=export.opset, output_path=str(path), **options)


def write(export: Export, path: Any) -> Any:
    """Export a network, quietly; return the module of PyTorch, where it is one."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if export.exporter in ("tf2onnx", "keras"):
                write_keras(export, path)
                return None
            module = build(export)
            write_torch(export, module, path)
            return module
    finally:
        logging.disable(logging.NOTSET)


def run_with_values(path: Any, feed: dict[str, Any], tensors: Sequence[str]) -> dict[str, Any]:
    """Return what ONNX Runtime computes for tensors within the graph, which it does not optimise."""
    onnx, runtime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    model = onnx.load(path)
    given = {output.name for output in model.graph.output}
    for name in tensors:
        if name not in given:
            model.graph.output.append(onnx.helper.make_empty_tensor_value_info(name))
    options = runtime.SessionOptions()
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = runtime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return dict(zip(tensors, session.run(list(tensors), feed), strict=True))
