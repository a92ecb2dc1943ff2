"""Frozen graphs, SavedModels and Keras models in TensorFlow: the file itself, every endpoint taken out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minimobile.comparison.frameworks import explaining, import_framework
from minimobile.formats.tensorflow.saved_model import SERVING

Array = NDArray[Any]


def run_frozen_graph(tensorflow: Any, path: Path, endpoints: Mapping[str, str], x: Array) -> dict[str, Array]:
    """Fetch the endpoints of a frozen graph, or of what a SavedModel serves, its functions inlined by TensorFlow.

    It is fed where its first convolution reads, after any scaling. Shapes: x and the results (N, H, W, C).
    """
    definition = tensorflow.compat.v1.GraphDef()
    with explaining(path, "TensorFlow"):
        if path.is_dir():
            freezing = import_framework("tensorflow.python.framework.convert_to_constants")
            loaded = tensorflow.saved_model.load(str(path))  # which keeps its variables alive
            signatures = loaded.signatures
            served = signatures[SERVING] if SERVING in signatures else next(iter(signatures.values()))
            definition = freezing.convert_variables_to_constants_v2(served).graph.as_graph_def()
        else:
            definition.ParseFromString(path.read_bytes())
        endpoints = _find_endpoints(definition, endpoints)
    graph = tensorflow.Graph()
    with graph.as_default():
        tensorflow.import_graph_def(definition, name="")
        fetched = {node: graph.get_tensor_by_name(f"{name.partition(':')[0]}:0") for node, name in endpoints.items()}
        entry = next(iter(fetched.values()))  # after the first convolution
        while entry.op.type != "Conv2D":
            entry = entry.op.inputs[0]
        entry = entry.op.inputs[0]
        while entry.op.type in ("Pad", "PadV2", "Identity"):
            entry = entry.op.inputs[0]
        with tensorflow.compat.v1.Session(graph=graph) as session:
            return session.run(fetched, {entry: x})  # type: ignore[no-any-return]


def _find_endpoints(definition: Any, endpoints: Mapping[str, str]) -> dict[str, str]:
    """Return the endpoints as nodes are called here: TensorFlow leaves out the outermost call of what it serves."""
    names = {node.name for node in definition.node}
    found = {}
    for layer, tensor in endpoints.items():
        name = tensor.partition(":")[0]
        while name not in names and "/" in name:
            name = name.partition("/")[2]
        if name in names:
            found[layer] = name
    return found


def run_keras(tensorflow: Any, path: Path, endpoints: Mapping[str, str], x: Array) -> dict[str, Array]:
    """Let Keras load its file and return the outputs of the layers. Shapes: x and the results (N, H, W, C)."""
    keras = import_framework("keras")
    depthwise = keras.layers.DepthwiseConv2D

    def build(cls: Any, config: dict[str, Any]) -> Any:  # Keras 2 wrote `groups`, which Keras 3 does not take
        return depthwise(**{key: value for key, value in config.items() if key != "groups"})

    older = {"DepthwiseConv2D": type("DepthwiseConv2D", (depthwise,), {"from_config": classmethod(build)})}
    with explaining(path, "Keras"):
        loaded = keras.models.load_model(path, custom_objects=older, compile=False)
    outputs = {node: loaded.get_layer(name).output for node, name in endpoints.items()}
    return {node: np.asarray(y) for node, y in keras.Model(loaded.inputs, outputs)([x]).items()}
