"""A PyTorch module in memory as the other side of `check`: transformers', and such as name their parts otherwise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import twins
from planted import make_network

import minimobile as mm
from minimobile.comparison.crosscheck import check

pytestmark = pytest.mark.crosscheck

PIXELS = np.random.default_rng(1).uniform(-1, 1, (1, 3, 65, 49)).astype(np.float32)


@pytest.fixture(scope="module")
def peers() -> Any:
    return pytest.importorskip("torch_peers")


def saved(network: Any, peers: Any, path: Path) -> Any:
    """Return our model of a module's state dict."""
    peers.torch.save(network.state_dict(), path / "x.pth")
    return mm.load(path / "x.pth")


@pytest.mark.parametrize("class_name", ["MobileNetV1ForImageClassification", "MobileNetV2ForImageClassification",
                                        "MobileNetV2ForSemanticSegmentation", "MobileNetV1Model"])  # fmt: skip
def test_transformers_modules_show_every_layer(class_name: str) -> None:
    config = (mm.MobileNetV1Config if "V1" in class_name else mm.MobileNetV2Config)(depth_multiplier=0.35, num_labels=5)
    twin = twins.make_twin(class_name, config)
    report = check(twin.ours, against=twin.float32, pixel_values=PIXELS)
    assert report.agrees, (report.first_difference, report.diagnosis, report.doubt)
    assert report.against == class_name and report.differing_arrays == () and len(report.layers) > 25


@pytest.mark.parametrize("kind", ["torchvision", "timm v1", "timm v2"])
def test_other_modules_show_what_their_convolutions_read(kind: str, peers: Any, tmp_path: Path) -> None:
    network = peers.VisionV2(0.5, 9) if kind == "torchvision" else peers.Timm(int(kind[-1]), 0.5, 9)
    network = peers.settled(network)
    model = saved(network, peers, tmp_path)
    report = check(model, against=network, pixel_values=PIXELS)
    assert report.agrees, (report.first_difference, report.diagnosis, report.doubt)
    assert report.differing_arrays == () and len(report.layers) > 25
    names = [layer.name for layer in report.layers]
    assert names[-1] == "classifier" and names[0].startswith("conv_stem")


def test_the_arrays_of_a_module_are_compared_first(peers: Any, tmp_path: Path) -> None:
    network = peers.settled(peers.VisionV2(0.5, 9))
    model = saved(network, peers, tmp_path)
    network.features[3].conv[1][1].running_var[3] *= 1.3
    report = check(model, against=network, pixel_values=PIXELS)
    assert report.agrees is False
    (array,) = report.differing_arrays
    assert array.name.endswith(".conv_3x3.normalization.running_var") and array.count == 1
    assert report.diagnosis == f"weights: {array}" and array.how.endswith(", 1.3 times ours")


def test_a_fault_in_what_a_module_does_is_named(peers: Any, tmp_path: Path) -> None:
    network = peers.settled(peers.Timm(1, 0.5, 9))
    model = saved(network, peers, tmp_path)
    for module in network.modules():
        if isinstance(module, peers.nn.BatchNorm2d):
            module.eps = 1e-3
    report = check(model, against=network, pixel_values=PIXELS)
    assert report.first_difference == "conv_stem" and report.differing_arrays == ()
    assert report.diagnosis == "batch norm: epsilon 0.001; ours is 1e-05"


def test_a_module_that_cannot_be_compared_is_one_sentence(peers: Any, tmp_path: Path) -> None:
    network = peers.settled(peers.Timm(1, 0.5, 9))
    model, nn = saved(network, peers, tmp_path), peers.nn
    with pytest.raises(mm.InputError, match=r"Timm: expected a module in evaluation mode, .* call \.eval\(\) first"):
        check(model, against=network.train(), pixel_values=PIXELS)
    assert network.training, "left as it was"
    for other, words in (
        (
            nn.Sequential(nn.Linear(7, 3)),
            r"Sequential: expected a module that runs on pixel values \(1, 3, 65, 49\)",
        ),
        (nn.Sequential(nn.Conv2d(3, 8, 3)), "expected a MobileNet of our 28 convolutions and linear layers, 1 of its"),
        (type(network), "expected the name of a framework|failed on"),
    ):
        with pytest.raises(mm.InputError, match=words):
            check(model, against=other.eval() if isinstance(other, nn.Module) else other, pixel_values=PIXELS)
    assert not any(module._forward_hooks for module in network.modules()), "no hook is left behind"


def test_a_module_with_another_network_s_shapes_differs(peers: Any, tmp_path: Path) -> None:
    model = saved(peers.settled(peers.Timm(1, 0.5, 9)), peers, tmp_path)
    report = check(model, against=peers.settled(peers.Timm(1, 0.25, 9)), pixel_values=PIXELS)
    assert report.agrees is False and report.layers[0].shape != report.layers[0].their_shape


def test_a_half_precision_module_is_told(peers: Any) -> None:
    model = make_network("v1")
    twin = twins.make_twin("MobileNetV1ForImageClassification", model.config)
    network = twin.float32.half().float()
    report = check(twin.ours, against=network, pixel_values=PIXELS)
    assert report.agrees is False and "float16" in str(report.diagnosis)


def test_a_module_within_another_and_zeros_put_on_apart(peers: Any, tmp_path: Path) -> None:
    """transformers' V1 pads as TensorFlow before its convolutions; wrapped for an export, it has another name, too."""
    nn = peers.torch.nn
    twin = twins.make_twin("MobileNetV1ForImageClassification", mm.MobileNetV1Config(depth_multiplier=0.35))

    class Wrapper(nn.Module):
        def __init__(self, network: Any) -> None:
            super().__init__()
            self.network = network

        def forward(self, pixels: Any) -> Any:
            return self.network(pixels).logits, pixels

    report = check(twin.ours, against=Wrapper(twin.float32).eval(), pixel_values=PIXELS)
    assert report.agrees and len(report.layers) > 25, (report.first_difference, report.diagnosis)

    class Renamed(nn.Module):  # convolutions in order, each with its zeros before it
        def __init__(self, network: Any) -> None:
            super().__init__()
            self.one = network.mobilenet_v1
            self.two = network.classifier

        def forward(self, pixels: Any) -> Any:
            return self.two(self.one(pixels).pooler_output)

    renamed = Renamed(twin.float32).eval()
    report = check(twin.ours, against=renamed, pixel_values=PIXELS)
    assert report.agrees and len(report.layers) > 25, (report.first_difference, report.diagnosis)
