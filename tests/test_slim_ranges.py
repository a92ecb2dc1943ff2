"""Checkpoints of `tf.contrib.quantize`: every range found, every layer as NumPy computes what training computed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundles import write_bundle
from hostile import assert_refused
from slim import random_weights, slim_scope, slim_variables

import minimobile as mm
from minimobile import formats
from minimobile.errors import FormatError
from minimobile.formats.tensorflow import tensorflow_checkpoint
from minimobile.formats.tensorflow.slim_ranges import read_ranges
from minimobile.models.conversion import convert
from minimobile.networks.build_graph import build_graph
from minimobile.networks.config import MobileNetV1Config, MobileNetV2Config
from minimobile.operations.fake_quantization import FakeQuantization, needed_ranges

V1, V2 = "MobileNetV1ForImageClassification", "MobileNetV2ForImageClassification"
DEEPLAB = "MobileNetV2ForSemanticSegmentation"
CONFIGS: dict[str, Any] = {
    V1: MobileNetV1Config(depth_multiplier=0.1, num_labels=3),
    V2: MobileNetV2Config(depth_multiplier=0.3, num_labels=3),
    DEEPLAB: MobileNetV2Config(depth_multiplier=0.3, num_labels=3, output_stride=8),
}


def name_quantizer(key: str, version: str) -> str:
    """Return what training calls the quantiser of a weight or of a layer's values."""
    kind = "weights_quant" if key.endswith(".weight") else "act_quant"
    layer = key.removesuffix(".weight").removesuffix(".convolution")
    if layer in ("classifier", "segmentation_head.classifier"):
        scope = f"Mobilenet{version}/Logits/Conv2d_1c_1x1" if layer == "classifier" else "logits/semantic"
    elif version == "V2" and (found := re.fullmatch(r"layer\.(\d+)", layer)):
        scope, kind = f"MobilenetV2/expanded_conv_{int(found[1]) + 1}", "post_activation_bypass_quant"
    else:
        has_prefix = layer.startswith(("mobilenet", "segmentation"))
        scope = slim_scope(layer if has_prefix else f"mobilenet_{version.lower()}.{layer}")
    return f"{scope}/{kind}"


def quantizer_variables(architecture: str, seed: int = 1) -> dict[str, np.ndarray]:
    """Return the limits of everything that is rounded, so narrow that some values are cut off."""
    rng = np.random.default_rng(seed)
    variables = {}
    for key in needed_ranges(build_graph(CONFIGS[architecture], architecture)):
        low, high = rng.uniform(0.7, 1, 2) if key.endswith(".weight") else (rng.uniform(0, 2), rng.uniform(2, 4))
        name = name_quantizer(key, architecture[9:11])
        variables |= {f"{name}/min": np.float32(-low), f"{name}/max": np.float32(high)}
    return variables


def write_checkpoint(prefix: Path, architecture: str, *, without: str = "", **more: Any) -> Path:
    """Write a checkpoint of random numbers; `without` is a part of the names of variables to leave out."""
    variables = slim_variables(random_weights(CONFIGS[architecture], architecture)) | quantizer_variables(architecture)
    kept = {name: values for name, values in variables.items() if not without or without not in name}
    write_bundle(prefix, kept | more)
    return prefix


@pytest.fixture(scope="module", params=list(CONFIGS))
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """Return a class and the common name of a checkpoint for it."""
    return request.param, write_checkpoint(tmp_path_factory.mktemp("trained") / "model.ckpt-5", request.param)


def expected_rounding(x: np.ndarray, low: float, high: float, levels: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the rounded values, and how far each was from the middle of two, in steps. Source: TensorFlow 1.15."""
    step = (high - low) / levels
    zero = min(max(np.floor(-low / step + 0.5), 0), levels)
    steps = np.clip(x / step + zero, 0, levels)
    return (np.floor(steps + 0.5) - zero) * step, np.abs(steps + 0.5 - np.round(steps + 0.5))


def convolve(x: np.ndarray, weight: np.ndarray, stride: int, dilation: int) -> np.ndarray:
    """Return a convolution with TensorFlow's SAME padding. Shapes: x (H, W, I), weight (K, K, I, O)."""
    size = weight.shape[0]
    outs = [-(-side // stride) for side in x.shape[:2]]
    reach = (size - 1) * dilation + 1
    totals = [max((out - 1) * stride + reach - side, 0) for out, side in zip(outs, x.shape, strict=False)]
    padded = np.pad(x, [(total // 2, total - total // 2) for total in totals] + [(0, 0)])
    y = np.zeros((*outs, weight.shape[3]))
    for i in range(size):
        for j in range(size):
            rows = padded[i * dilation :: stride, j * dilation :: stride][: outs[0], : outs[1]]
            y += rows @ weight[i, j]
    return y


def test_every_layer_is_what_training_computes(trained: tuple[str, Path]) -> None:
    """Each from the layer's own input, so that one value rounded the other way does not change all that follow."""
    architecture, path = trained
    model = mm.load(path, num_threads=1)
    variables = {k: np.float64(v) for k, v in tensorflow_checkpoint.open_bundle(path).items()}
    image = np.random.default_rng(3).uniform(-1, 1, (1, 33, 33, 3)).astype(np.float32)
    plain = build_graph(model.config, architecture)
    nodes = {node.name: node for node in plain.nodes}
    layers = [key for key in needed_ranges(plain) if key in nodes]
    found: dict[str, Any] = {"pixel_values": image}
    sources = {node.inputs[-1] for node in plain.nodes} - {"pixel_values"}
    names = [name for name in {*layers, *sources} if name in {node.name for node in model.graph.nodes}]
    found |= model.features(image, names, data_format="channels_last")
    for layer in layers:
        name = name_quantizer(layer, architecture[9:11])
        limits = [variables[f"{name}/{limit}"] for limit in ("min", "max")]
        node, function = nodes[layer], "linear"
        if node.op == "add":
            y = np.float64(found[node.inputs[0]]) + found[node.inputs[1]]
        else:
            scope = name.rpartition("/")[0]
            while node.op in ("activation", "batch_norm"):
                function = node.attributes.get("function", function)
                node = nodes[node.inputs[0]]
            kernel = scope + ("/depthwise_weights" if f"{scope}/depthwise_weights" in variables else "/weights")
            weight, bias = variables[kernel], variables.get(f"{scope}/biases", 0)
            if f"{scope}/BatchNorm/gamma" in variables:
                gamma, beta, mean, variance = (
                    variables[f"{scope}/BatchNorm/{part}"]
                    for part in ("gamma", "beta", "moving_mean", "moving_variance")
                )
                factor = gamma / np.sqrt(variance + (1e-3 if "Mobilenet" in scope else 1e-5))
                weight = weight * (factor[:, None] if "depthwise_" in kernel else factor)
                bias = beta - mean * factor
            kernel_limits = [variables[f"{scope}/weights_quant/{limit}"] for limit in ("min", "max")]
            weight = expected_rounding(weight, *kernel_limits, 254)[0]
            if "depthwise_" in kernel:
                weight = weight * np.eye(weight.shape[2])
            x = np.float64(found[node.inputs[0]][0])
            x = x.reshape(1, 1, -1) if x.ndim == 1 else x  # pooled
            attributes = node.attributes
            y = convolve(x, weight, attributes.get("stride", 1), attributes.get("dilation", 1)) + bias
            y = np.clip(y, 0, {"relu6": 6, "relu": np.inf}[function]) if function != "linear" else y
        y, margin = expected_rounding(y, *limits, 255)
        is_clear = margin.reshape(found[layer].shape) > 1e-3
        assert np.count_nonzero(~is_clear) <= max(1, 0.1 * is_clear.size), layer
        ours = found[layer].astype(np.float64)
        np.testing.assert_allclose(ours[is_clear], y.reshape(ours.shape)[is_clear], rtol=1e-5, atol=1e-6, err_msg=layer)


def test_ranges_are_found_and_travel(trained: tuple[str, Path], tmp_path: Path) -> None:
    architecture, path = trained
    checkpoint = formats.read(path)
    assert set(checkpoint.ranges) == set(needed_ranges(build_graph(CONFIGS[architecture], architecture)))
    variables = quantizer_variables(architecture)
    assert set(variables) <= set(checkpoint.mapped)
    for key, by in checkpoint.ranges.items():
        name = name_quantizer(key, architecture[9:11])
        assert by == FakeQuantization(variables[f"{name}/min"], variables[f"{name}/max"], 8, key.endswith(".weight"))
    model = mm.load(path)
    image = np.random.default_rng(4).uniform(-1, 1, (2, 3, 33, 33)).astype(np.float32)
    model.save(tmp_path / "x.h5")
    again = mm.load(tmp_path / "x.h5")
    assert again.to_checkpoint().ranges == checkpoint.ranges
    assert np.array_equal(again(image).logits, model(image).logits)
    convert(path, tmp_path / "y.h5")
    assert formats.read(tmp_path / "y.h5").ranges == checkpoint.ranges


def test_transformers_layout_has_no_place_for_ranges(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / "x.ckpt", V1)
    with pytest.raises(FormatError, match=r"rounds as in training for quantisation; save it with"):
        mm.load(path).save_pretrained(tmp_path / "y")
    assert not (tmp_path / "y").exists()
    report = convert(path, tmp_path / "y")
    (note,) = (note for note in report.notes if "ranges of weights and values are left out" in note)
    assert "gives other numbers" in note
    assert set(quantizer_variables(V1)) == {name for name, why in report.ignored.items() if "range of training" in why}
    assert not set(report.mapped) & set(report.ignored)
    assert not formats.read(tmp_path / "y").ranges


@pytest.mark.parametrize(
    ("without", "message"),
    [
        ("Conv2d_3_depthwise/act_quant", r"none for 1 of 56 \(MobilenetV1/Conv2d_3_depthwise/act_quant/{min,max}\)"),
        ("Logits/Conv2d_1c_1x1/weights_quant", r"1 of 56 \(MobilenetV1/Logits/Conv2d_1c_1x1/weights_quant/{min,max}\)"),
        ("/act_quant", r"28 of 56 \(MobilenetV1/Conv2d_0/act_quant/{min,max}, .*, \.\.\.\)"),
        ("Conv2d_0/act_quant/max", r"expected both MobilenetV1/Conv2d_0/act_quant/min and .*/max, found .*/min alone"),
    ],
)  # fmt: skip
def test_what_training_has_not_saved_is_named(tmp_path: Path, without: str, message: str) -> None:
    path = write_checkpoint(tmp_path / "x.ckpt", V1, without=without)
    assert_refused(formats.read, path, message)


def test_names_of_operations_and_of_averages() -> None:
    state = {f"MobilenetV1/Conv2d_0/act_quant/min/{name}": np.float32(1) for name in ("biased", "local_step")}
    doubled = "MobilenetV1/MobilenetV1/Conv2d_0/act_quant"
    older = {"MobilenetV2/expanded_conv_2/project/conv_quant": "layer.1.reduce_1x1",
             "MobilenetV2/expanded_conv_2/add_quant": "layer.1", doubled: "conv_stem"}  # fmt: skip
    variables = {f"{name}/{limit}": np.float32(limit == "max") for name in older for limit in ("min", "max")}
    found = read_ranges(variables | state, "x")
    assert found.ranges == dict.fromkeys(older.values(), FakeQuantization(0.0, 1.0))
    assert found.ignored == dict.fromkeys(state, "state of a moving average")


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"MobilenetV1/Conv2d_0/act_quant/min": np.zeros(8, np.float32),
          "MobilenetV1/Conv2d_0/act_quant/max": np.zeros(8, np.float32)}, r"one number for the whole tensor, .*\(8,\)"),
        ({"MobilenetV1/Conv2d_99/act_quant/min": np.float32(0)}, "found also MobilenetV1/Conv2d_99"),
        ({"BoxPredictor_0/act_quant/min": np.float32(0)}, "quantisers of MobileNet V1, V2 or DeepLabV3"),
        ({f"MobilenetV2/Conv/{kind}/{limit}": np.float32(0) for kind in ("act_quant", "conv_quant")
          for limit in ("min", "max")}, "expected one range of conv_stem.first_conv"),
    ],
)  # fmt: skip
def test_strange_quantisers_are_refused(variables: dict[str, Any], message: str) -> None:
    with pytest.raises(FormatError, match=f"^x: .*{message}"):
        read_ranges(variables, "x")


@pytest.mark.parametrize(("low", "high"), [(0.5, 1), (-1, -0.5), (np.nan, 1), (-np.inf, 1), (1, -1)])
def test_a_range_without_zero_is_refused(tmp_path: Path, low: float, high: float) -> None:
    limits = {f"MobilenetV1/Conv2d_0/act_quant/{limit}": np.float32(x) for limit, x in (("min", low), ("max", high))}
    path = write_checkpoint(tmp_path / "x.ckpt", V1, **limits)
    assert_refused(formats.read, path, r"Conv2d_0/act_quant/{min,max}: expected a range of finite numbers around 0")


def test_a_native_file_with_damaged_ranges_is_refused(tmp_path: Path) -> None:
    import h5py

    model = mm.load(write_checkpoint(tmp_path / "x.ckpt", V1))
    model.save(tmp_path / "x.h5")
    with h5py.File(tmp_path / "x.h5", "r+") as file:
        file.attrs["ranges"] = file.attrs["ranges"].replace(b"true", b"false")
    assert_refused(formats.read, tmp_path / "x.h5", "checksum")


@pytest.mark.crosscheck
def test_the_published_checkpoint_and_its_graph_are_one_network(test_data: Path) -> None:
    stem = test_data / "models" / "tensorflow" / "deeplabv3_mobilenet_v2_0.5_513_portrait_quant"
    checkpoint, graph = (formats.read(stem.with_name(stem.name + end)) for end in (".ckpt", "_frozen.pb"))
    assert checkpoint.ranges == graph.ranges
    assert len(graph.ranges) == 120
    image = np.random.default_rng(5).uniform(-1, 1, (1, 65, 65, 3)).astype(np.float32)
    models = [mm.load(stem.with_name(stem.name + end)) for end in (".ckpt", "_frozen.pb")]
    ours, theirs = (model(image, data_format="channels_last").logits for model in models)
    assert np.array_equal(ours, theirs)


def test_a_rounded_value_is_written_out_to_the_bit(tmp_path: Path) -> None:
    model = mm.load(write_checkpoint(tmp_path / "x.ckpt", V2), num_threads=1)
    image = np.random.default_rng(8).uniform(-1, 1, (1, 3, 32, 32)).astype(np.float32)
    for layer in ("conv_stem.first_conv", "layer.3.conv_3x3", "layer.3.reduce_1x1", "layer.3", "classifier", "pooler"):
        found = model.explain(image, layer, (0, 0, 1))
        assert found.agrees, layer
        assert (found.stages[-1].name == "rounded to steps of") == (layer != "pooler")
    rows = {row.name: row for row in model.trace(image).layers}
    assert list(rows) == [row.name for row in mm.MobileNetV2ForImageClassification(model.config).trace(image).layers]
