"""For the cross-checks: transformers with our config and weights, in float32 and float64, and random cases."""

from __future__ import annotations

import copy
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import strategies as st

import minimobile as mm
from minimobile.execution.runner import RunOptions
from minimobile.formats.checkpoint import Checkpoint
from minimobile.networks.config import ACTIVATIONS

CLASSES = {
    "MobileNetV1Model": mm.MobileNetV1Config,
    "MobileNetV1ForImageClassification": mm.MobileNetV1Config,
    "MobileNetV2Model": mm.MobileNetV2Config,
    "MobileNetV2ForImageClassification": mm.MobileNetV2Config,
    "MobileNetV2ForSemanticSegmentation": mm.MobileNetV2Config,
}
OURS_ALONE = ("pool_size", "bottom_right_padding", "folds_batch_norm")


def import_torch():
    """Return (torch, transformers), or skip the test with the reason."""
    torch = pytest.importorskip("torch", reason="needs PyTorch")
    transformers = pytest.importorskip("transformers", reason="needs transformers")
    torch.set_num_threads(1)
    return torch, transformers


def test_data() -> Path:
    """Return the folder of real checkpoints, or skip the test with the reason."""
    folder = os.environ.get("MINIMOBILE_TEST_DATA")
    if not folder:
        pytest.skip("MINIMOBILE_TEST_DATA names no folder with real checkpoints")
    return Path(folder)


test_data.__test__ = False


@dataclass
class Twin:
    """Our model and transformers' with the same weights."""

    ours: mm.models.MobileNetModel
    float32: object
    float64: object


def twin_config(config):
    """Return transformers' config with the values of ours."""
    _, transformers = import_torch()
    values = {key: value for key, value in config.to_dict().items() if key not in (*OURS_ALONE, "model_type")}
    return getattr(transformers, type(config).__name__)(**values)


def make_twin(class_name, config, seed=0, **options) -> Twin:
    """Make both models of `config`, with weights and batch-norm statistics that keep values in a sensible range."""
    torch, transformers = import_torch()
    theirs = getattr(transformers, class_name)(twin_config(config)).eval()
    randomise(theirs, seed)
    weights = canonical_weights(theirs, config.model_type)
    ours = getattr(mm, class_name).from_checkpoint(
        Checkpoint(config, weights, class_name), options=RunOptions(**options)
    )
    return Twin(ours, theirs, copy.deepcopy(theirs).to(torch.float64))


def randomise(model, seed):
    """Draw weights: He's scale for kernels, batch norms that are neither idle nor wild."""
    torch, _ = import_torch()
    generator = np.random.default_rng(seed)
    for name, tensor in model.state_dict().items():
        shape, role = tuple(tensor.shape), name.rpartition(".")[2]
        if role == "num_batches_tracked":
            continue
        if role == "running_var" or (".normalization." in name and role == "weight"):
            values = generator.uniform(0.5, 1.5, shape)
        elif len(shape) == 1:
            values = generator.normal(0, 0.3, shape)
        else:
            values = generator.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape)
        with torch.no_grad():
            tensor.copy_(torch.from_numpy(values))


def canonical_weights(model, model_type):
    """Return the weights of a PyTorch model under the names of our checkpoints."""
    weights = {}
    for name, tensor in model.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            is_full = name.startswith((f"{model_type}.", "classifier.", "segmentation_head."))
            weights[name if is_full else f"{model_type}.{name}"] = tensor.numpy()
    return weights


@st.composite
def cases(draw):
    """Draw (class name, config, batch shape): every field that has a meaning, and small odd images."""
    class_name = draw(st.sampled_from(sorted(CLASSES)))
    fields = {
        "num_channels": draw(st.sampled_from([3, 3, 1, 4])),
        "depth_multiplier": draw(st.sampled_from([0.1, 0.25, 0.27, 0.35, 0.5, 0.62])),
        "min_depth": draw(st.sampled_from([8, 4, 1])),
        "hidden_act": draw(st.sampled_from(["relu6"] * len(ACTIVATIONS) + list(ACTIVATIONS))),
        "tf_padding": draw(st.booleans()),
        "layer_norm_eps": draw(st.sampled_from([0.001, 1e-5])),
        "num_labels": draw(st.sampled_from([5, 1, 2, 0])),
    }
    if CLASSES[class_name] is mm.MobileNetV2Config:
        fields |= {
            "depth_divisible_by": draw(st.sampled_from([8, 1, 4])),
            "expand_ratio": draw(st.sampled_from([6.0, 1.0, 2.5])),
            "output_stride": draw(st.sampled_from([32, 16, 8, 4, 2])),
            "first_layer_is_expansion": draw(st.booleans()),
            "finegrained_output": draw(st.booleans()),
        }
    if "Segmentation" in class_name:
        fields["num_labels"] = max(fields["num_labels"], 1)
    size = st.integers(1, 49)
    shape = (draw(st.integers(1, 2)), fields["num_channels"], draw(size), draw(size))
    return class_name, CLASSES[class_name](**fields), shape


def rms(values) -> float:
    """Return the root of the mean square."""
    return float(np.sqrt(np.mean(np.square(np.asarray(values, np.float64)))))
