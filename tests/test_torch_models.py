"""PyTorch files of torchvision, timm and transformers: names, wrappings, preprocessing, and equality with torch."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hostile import assert_refused, flip_bytes, truncations
from slim import random_weights

import minimobile
from minimobile import formats
from minimobile.errors import MinimobileError
from minimobile.formats import safetensors_file
from minimobile.formats.pytorch import torch_models
from minimobile.formats.pytorch.torch_names import torch_schools
from minimobile.networks.config import MobileNetV1Config, MobileNetV2Config

V1, V2 = "MobileNetV1ForImageClassification", "MobileNetV2ForImageClassification"
DEEPLAB = "MobileNetV2ForSemanticSegmentation"
CONFIGS: dict[str, Any] = {
    "torchvision's mobilenet_v2": MobileNetV2Config(depth_multiplier=0.35, num_labels=3),
    "timm's mobilenetv1": MobileNetV1Config(depth_multiplier=0.25, num_labels=3),
    "timm's mobilenetv2": MobileNetV2Config(depth_multiplier=0.35, num_labels=3),
}


@functools.cache
def foreign_weights(title: str, prefix: str = "") -> dict[str, np.ndarray]:
    """Return a small network's weights under a school's names."""
    school = next(school for school in torch_schools() if school.title == title)
    weights = random_weights(CONFIGS[title], V1 if "v1" in title else V2)
    return {prefix + name: weights[here] for name, here in school.names.items() if here in weights}


@pytest.mark.parametrize("prefix", ["", "module._orig_mod."])
@pytest.mark.parametrize("title", CONFIGS)
def test_the_school_is_told_by_the_names(tmp_path: Path, title: str, prefix: str) -> None:
    safetensors_file.write_tensors(tmp_path / "x.safetensors", foreign_weights(title, prefix))
    checkpoint = formats.read(tmp_path / "x.safetensors")
    assert checkpoint.dialect == title.partition("'")[0]
    assert not checkpoint.config.tf_padding
    assert checkpoint.config.layer_norm_eps == 1e-5
    assert checkpoint.config.depth_multiplier == CONFIGS[title].depth_multiplier
    expected = random_weights(CONFIGS[title], V1 if "v1" in title else V2)
    assert set(checkpoint.weights) == set(expected) == set(checkpoint.mapped.values())
    assert all(np.array_equal(checkpoint.weights[name], values) for name, values in expected.items())
    described = formats.describe(tmp_path / "x.safetensors")
    assert (described.dialect, described.facts["network"]) == (checkpoint.dialect, title)


@pytest.mark.parametrize("has_prefix", [True, False])
@pytest.mark.parametrize("architecture", [V1, V2, DEEPLAB])
def test_a_file_of_transformers_needs_no_config(tmp_path: Path, architecture: str, has_prefix: bool) -> None:
    kind = MobileNetV1Config if architecture == V1 else MobileNetV2Config
    weights = random_weights(kind(depth_multiplier=0.25, num_labels=3), architecture)
    names = {
        name: name if has_prefix else name.split(".", 1)[1] if name[:9] == "mobilenet" else name for name in weights
    }
    path = tmp_path / "model.safetensors"
    safetensors_file.write_tensors(path, {names[name]: values for name, values in weights.items()})
    checkpoint = formats.read(path)
    assert (checkpoint.dialect, checkpoint.architecture) == ("huggingface", architecture)
    assert checkpoint.config.depth_multiplier == 0.25
    assert set(checkpoint.weights) == set(weights)
    assert formats.describe(path).dialect == "huggingface"
    if architecture == DEEPLAB:
        assert (checkpoint.config.image_size, checkpoint.config.output_stride) == (513, 8)


def test_the_config_of_transformers_beside_a_file_goes_before_deduction(tmp_path: Path) -> None:
    config = MobileNetV1Config(depth_multiplier=0.1, num_labels=3, layer_norm_eps=0.25)
    weights = random_weights(config, V1)
    safetensors_file.write_tensors(tmp_path / "model.safetensors", weights)
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict()))
    assert formats.read(tmp_path / "model.safetensors").config.layer_norm_eps == 0.25
    assert (
        formats.read(tmp_path / "model.safetensors", config=config.replace(layer_norm_eps=0.5)).config.layer_norm_eps
        == 0.5
    )
    # Somebody else's config.json beside torchvision's weights: the names decide.
    safetensors_file.write_tensors(tmp_path / "x.safetensors", foreign_weights("torchvision's mobilenet_v2"))
    assert formats.read(tmp_path / "x.safetensors").dialect == "torchvision"
    other = MobileNetV2Config(depth_multiplier=0.1, num_labels=3, hidden_act="relu")
    assert formats.read(tmp_path / "x.safetensors", config=other).config == other


def test_torchvision_s_second_weights_are_resized_to_232(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "mobilenet.safetensors"
    safetensors_file.write_tensors(path, foreign_weights("torchvision's mobilenet_v2"))
    first = formats.read(path)
    assert first.processor is not None
    assert (first.processor["size"], first.processor["resample"]) == ({"shortest_edge": 256}, 2)
    monkeypatch.setattr(torch_models, "TORCHVISION_V2_HASH", hashlib.sha256(path.read_bytes()).hexdigest()[:8])
    second = formats.read(path)
    assert second.processor is not None
    assert second.processor["size"] == {"shortest_edge": 232}


TIMM_CONFIG = {
    "architecture": "mobilenetv2_010",
    "num_classes": 3,
    "pretrained_cfg": {
        "tag": "ra_in1k",
        "input_size": [3, 96, 128],
        "interpolation": "bilinear",
        "crop_pct": 0.9,
        "mean": [0.5, 0.25, 0.125],
        "std": [0.5, 1, 2.0],
    },
}


def timm_directory(folder: Path, **changes: Any) -> Path:
    folder.mkdir(exist_ok=True)
    told = TIMM_CONFIG["pretrained_cfg"] | changes  # type: ignore[operator]
    (folder / "config.json").write_text(json.dumps(TIMM_CONFIG | {"pretrained_cfg": told}))
    safetensors_file.write_tensors(folder / "model.safetensors", foreign_weights("timm's mobilenetv2"))
    return folder


@pytest.mark.parametrize("file", ["", "model.safetensors"])
def test_timm_s_config_tells_the_preprocessing(tmp_path: Path, file: str) -> None:
    checkpoint = formats.read(timm_directory(tmp_path / "net") / file)
    processor = checkpoint.processor
    assert checkpoint.config.image_size == (96, 128)
    assert checkpoint.provenance["architecture"] == "mobilenetv2_010"
    assert processor is not None
    assert processor["crop_size"] == {"height": 96, "width": 128}
    assert processor["size"] == {"shortest_edge": 106}, "the whole part of 96 / 0.9"
    assert processor["resample"] == 2
    assert (processor["image_mean"], processor["image_std"]) == ([0.5, 0.25, 0.125], [0.5, 1, 2.0])
    assert minimobile.AutoConfig.from_pretrained(tmp_path / "net" / file) == checkpoint.config
    assert minimobile.AutoImageProcessor.from_pretrained(tmp_path / "net" / file).size == {"shortest_edge": 106}
    model = minimobile.load(tmp_path / "net" / file)
    assert model.processor(np.zeros((50, 40, 3), np.uint8))["pixel_values"][0].shape == (3, 96, 128)


def test_without_its_config_timm_s_networks_are_preprocessed_as_timm_does(tmp_path: Path) -> None:
    for title, mean in (("timm's mobilenetv1", 0.5), ("timm's mobilenetv2", 0.485)):
        safetensors_file.write_tensors(tmp_path / "x.safetensors", foreign_weights(title))
        processor = formats.read(tmp_path / "x.safetensors").processor
        assert processor is not None
        assert (processor["image_mean"][0], processor["resample"]) == (mean, 3)
        assert processor["size"] == {"shortest_edge": 256}


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"mean": [0.5, 0.5]}, "mean to be 3 numbers"),
        ({"mean": ["a", 0, 0]}, "mean to be 3 numbers"),
        ({"std": [0, 1, 1]}, "std to be 3 numbers of 1e-06 to 1000"),
        ({"input_size": [3, 0, 96]}, "input_size to be 3 numbers"),
        ({"input_size": [3, 10**9, 96]}, "input_size to be 3 numbers"),
        ({"input_size": 224}, "input_size to be 3 numbers"),
        ({"crop_pct": 0}, "crop_pct to be a number"),
        ({"crop_pct": True}, "crop_pct to be a number"),
        ({"interpolation": "random"}, "expected one of nearest, bilinear, bicubic"),
        ({"interpolation": ["bicubic"]}, "expected one of nearest, bilinear, bicubic"),
        ({"crop_mode": "border"}, "a crop of the center"),
    ],
)
def test_a_bad_config_of_timm_is_refused(tmp_path: Path, changes: dict[str, Any], match: str) -> None:
    folder = timm_directory(tmp_path / "net", **changes)
    assert_refused(lambda _: formats.read(folder), folder / "config.json", match)


def test_other_variants_are_refused_by_their_layer(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    deeper = {
        "blocks.1.2.bn1.bias": np.ones(8, np.float32),
        "blocks.1.2.conv_pw.weight": np.ones((8, 8, 1, 1), np.float32),
    }
    for title, more, match in (
        ("timm's mobilenetv2", deeper, "found 'blocks.1.2.bn1' and 1 more"),
        ("timm's mobilenetv1", {"conv_head.weight": np.ones((8, 8, 1, 1), np.float32)}, "found 'conv_head'"),
        (
            "torchvision's mobilenet_v2",
            {"features.19.0.weight": np.ones((8, 8, 1, 1), np.float32)},
            "found 'features.19.0'",
        ),
    ):
        safetensors_file.write_tensors(path, foreign_weights(title) | more)
        assert_refused(formats.read, path, f"{title} .* {match}")
    twice = foreign_weights("timm's mobilenetv2")
    safetensors_file.write_tensors(path, twice | {"module.bn1.bias": twice["bn1.bias"]})
    assert_refused(formats.read, path, "every weight once")


def test_weights_of_another_network_are_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    for name in ("layer1.0.conv1.weight", "conv_stem.weight", "features.0.0.weight"):
        safetensors_file.write_tensors(path, {name: np.ones((8, 3, 3, 3), np.float32)})
        assert_refused(formats.read, path, f"under the names of transformers, torchvision or timm, found '{name}'")
        assert formats.describe(path).dialect is None


def test_a_missing_weight_is_named_when_a_model_is_made(tmp_path: Path) -> None:
    weights = dict(foreign_weights("timm's mobilenetv1"))
    del weights["blocks.3.2.bn1.bias"]
    safetensors_file.write_tensors(tmp_path / "x.safetensors", weights)
    with pytest.raises(MinimobileError, match=r"1 missing: mobilenet_v1.layer.14.normalization.bias"):
        minimobile.load(tmp_path / "x.safetensors")


def test_a_damaged_file_is_refused_or_read_whole(tmp_path: Path) -> None:
    path = timm_directory(tmp_path / "net") / "model.safetensors"
    content = path.read_bytes()
    for cut in truncations(content, len(content) // 8):
        path.write_bytes(cut)
        with pytest.raises(MinimobileError):
            formats.read(path)
    path.write_bytes(content)
    with (path.parent / "config.json").open("rb") as file:
        config = file.read()
    for _ in flip_bytes(path.parent / "config.json", 40):
        try:
            assert formats.read(path.parent).weights
        except MinimobileError:
            continue
    (path.parent / "config.json").write_bytes(config)
    assert formats.read(path.parent).dialect == "timm"


# ---- against torch

SAVERS: dict[str, Callable[[Any, Any, Path], None]] = {
    "plain": lambda torch, state, path: torch.save(state, path),
    "legacy": lambda torch, state, path: torch.save(state, path, _use_new_zipfile_serialization=False),
    "state_dict": lambda torch, state, path: torch.save({"epoch": 7, "best": 0.5, "state_dict": state}, path),
    "model": lambda torch, state, path: torch.save({"model": state, "args": {"lr": [0.1, None, True]}}, path),
    "model_state_dict": lambda torch, state, path: torch.save(
        {"model_state_dict": state, "optimizer": optimizer_state(torch)}, path, _use_new_zipfile_serialization=False
    ),
    "state_dict_ema": lambda torch, state, path: torch.save(
        {"state_dict": {name: values * 0 for name, values in state.items()}, "state_dict_ema": state,
         "optimizer": optimizer_state(torch)}, path,
    ),
    "module": lambda torch, state, path: torch.save({f"module.{name}": values for name, values in state.items()}, path),
}  # fmt: skip


def optimizer_state(torch: Any) -> dict[str, Any]:
    parameter = torch.nn.Parameter(torch.ones(4))
    optimizer = torch.optim.AdamW([parameter])
    parameter.sum().backward()
    optimizer.step()
    state: dict[str, Any] = optimizer.state_dict()
    return state


@pytest.mark.crosscheck
@pytest.mark.parametrize(
    ("width", "saver"), [(0.35, "state_dict"), (0.5, "model_state_dict"), (1.0, "state_dict_ema"), (1.4, "module")]
)
@pytest.mark.parametrize("kind", ["torchvision", "timm v1", "timm v2"])
def test_what_torch_saves_gives_what_torch_computes(tmp_path: Path, kind: str, width: float, saver: str) -> None:
    peers = pytest.importorskip("torch_peers")
    torch = peers.torch
    if kind == "timm v1":  # rounds to multiples of 8, which is V1's own rule at these widths alone
        width = {0.35: 0.25, 1.4: 1.25}.get(width, width)
    network = peers.VisionV2(width, 9) if kind == "torchvision" else peers.Timm(int(kind[-1]), width, 9)
    network = peers.settled(network)
    SAVERS[saver](torch, network.state_dict(), tmp_path / "x.pth")
    model = minimobile.load(tmp_path / "x.pth")
    assert model.config.width_multiplier == width
    for size in ((64, 64), (65, 49)):
        pixels = np.random.default_rng(1).uniform(-2, 2, (1, 3, *size)).astype(np.float32)
        with torch.no_grad():
            expected = network.double()(torch.from_numpy(pixels).double()).numpy()
        error = np.abs(model(pixels).logits - expected).max() / np.abs(expected).max()
        print(f"{kind} {width} {size} {saver}: {error:.1e}")
        assert error < 2e-5


@pytest.mark.crosscheck
@pytest.mark.parametrize("saver", SAVERS)
def test_every_wrapping_holds_the_same_bits(tmp_path: Path, saver: str) -> None:
    peers = pytest.importorskip("torch_peers")
    network = peers.settled(peers.VisionV2(0.35, 3))
    SAVERS[saver](peers.torch, network.state_dict(), tmp_path / "x.pth")
    safetensors_torch = pytest.importorskip("safetensors.torch")
    safetensors_torch.save_file(network.state_dict(), tmp_path / "x.safetensors")
    left, right = (formats.read(tmp_path / name).weights for name in ("x.pth", "x.safetensors"))
    assert set(left) == set(right)
    assert all(left[name].tobytes() == right[name].tobytes() for name in left)


@pytest.mark.crosscheck
def test_other_networks_of_timm_are_refused(tmp_path: Path) -> None:
    peers = pytest.importorskip("torch_peers")
    for network, match in (
        (peers.Timm(2, 0.5, 9, deeper=1), r"found 'blocks\.1\.2\.conv_pw' and 5 more"),
        (peers.Timm(1, 1.4, 9), r"conv_stem.*expected \(\d+, 3, 3, 3\).* found \(48, 3, 3, 3\)"),
    ):
        peers.torch.save(network.state_dict(), tmp_path / "x.pth")
        assert_refused(formats.read, tmp_path / "x.pth", match)
