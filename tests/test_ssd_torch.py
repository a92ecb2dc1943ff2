"""SSD and SSDLite written once more, in PyTorch and from the papers alone: the same predictions at every width."""

from __future__ import annotations

import numpy as np
import pytest
from spelling import random_weights

import minimobile as mm
from minimobile.execution.definitions import ReferenceRunner
from minimobile.execution.engine import CompiledRunner
from minimobile.execution.runner import RunOptions
from minimobile.networks import ssd
from minimobile.networks.ssd_config import MobileNetSSDConfig

pytestmark = pytest.mark.crosscheck

LITE, DENSE, FLAT = (
    MobileNetSSDConfig(),
    MobileNetSSDConfig(use_depthwise=False),
    MobileNetSSDConfig(use_depthwise=False, kernel_size=1),
)
V1 = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1))
V2 = ((6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
CASES = [
    *[(1, width, LITE) for width in (0.25, 0.5, 0.75, 1.0)], (1, 0.75, FLAT), (1, 0.5, DENSE),
    *[(2, width, LITE) for width in (0.35, 0.5, 0.75, 1.0, 1.3, 1.4)], (2, 0.35, DENSE), (2, 0.5, FLAT),
]  # fmt: skip


class Twin:
    """Layers by name, from the weights; `channels` are checked against the papers' rules on the way."""

    def __init__(self, torch, weights, prefix):
        self.torch, self.functional, self.weights, self.prefix = torch, torch.nn.functional, weights, prefix

    def tensor(self, name, like):
        return self.torch.from_numpy(self.weights[name]).to(like.dtype)

    def layer(self, x, name, channels, stride=1, is_depthwise=False, activation=True, head=False):
        """Convolution with TensorFlow's SAME, batch norm, relu6."""
        path = name if head else self.prefix + name
        weight = self.tensor(f"{path}.convolution.weight", x)
        assert weight.shape[0] == channels, path
        height, width = x.shape[2:]
        kernel = weight.shape[2]
        down, across = (max((-(-size // stride) - 1) * stride + kernel - size, 0) for size in (height, width))
        x = self.functional.pad(x, (across // 2, across - across // 2, down // 2, down - down // 2))
        bias = self.tensor(f"{path}.convolution.bias", x) if f"{path}.convolution.bias" in self.weights else None
        x = self.functional.conv2d(x, weight, bias, stride, groups=channels if is_depthwise else 1)
        if bias is None:
            mean, variance, scale, shift = (
                self.tensor(f"{path}.normalization.{role}", x)
                for role in ("running_mean", "running_var", "weight", "bias")
            )
            x = self.functional.batch_norm(x, mean, variance, scale, shift, eps=1e-3)
        return self.functional.relu6(x) if activation else x

    def v1(self, x, width):
        def scale(channels):
            return max(int(channels * width), 16)

        x, first = self.layer(x, "conv_stem", scale(32), 2), None
        for index, (channels, stride) in enumerate(V1):
            x = self.layer(x, f"layer.{2 * index}", x.shape[1], stride, is_depthwise=True)
            x = self.layer(x, f"layer.{2 * index + 1}", scale(channels))
            first = x if index == 10 else first  # Conv2d_11_pointwise
        return [first, x]

    def v2(self, x, width):
        def scale(channels):
            rounded = max(16, int(channels * width + 4) // 8 * 8)
            return rounded + 8 if rounded < 0.9 * channels * width else rounded

        x = self.layer(x, "conv_stem.first_conv", scale(32), 2)
        x = self.layer(x, "conv_stem.conv_3x3", x.shape[1], is_depthwise=True)
        x, first, index = self.layer(x, "conv_stem.reduce_1x1", scale(16), activation=False), None, 0
        for t, c, n, s in V2:
            for repeat in range(n):
                y = self.layer(x, f"layer.{index}.expand_1x1", max(16, x.shape[1] * t))
                first = y if index == 12 else first  # layer_15/expansion_output
                y = self.layer(y, f"layer.{index}.conv_3x3", y.shape[1], s if repeat == 0 else 1, is_depthwise=True)
                y = self.layer(y, f"layer.{index}.reduce_1x1", scale(c), activation=False)
                x, index = x + y if repeat and x.shape == y.shape else y, index + 1
        return [first, self.layer(x, "conv_1x1", scale(1280))]

    def detector(self, maps, width, detector, classes):
        """Return box encodings (N, A, 4) and logits (N, A, classes + 1)."""
        for index, channels in enumerate((512, 256, 256, 128)):
            name, x = f"detection_head.extra.{index}", maps[-1]
            half, whole = max(int(channels / 2 * width), 16), max(int(channels * width), 16)
            x = self.layer(x, f"{name}.reduce_1x1", half, head=True)
            if detector.use_depthwise:
                x = self.layer(x, f"{name}.conv_3x3", half, 2, is_depthwise=True, head=True)
                x = self.layer(x, f"{name}.expand_1x1", whole, head=True)
            else:
                x = self.layer(x, f"{name}.conv_3x3", whole, 2, head=True)
            maps.append(x)
        found = []
        for kind, columns in (("boxes", 4), ("classes", classes + 1)):
            rows = []
            for index, x in enumerate(maps):
                name = f"detection_head.{kind}.{index}"
                if detector.use_depthwise:
                    x = self.layer(x, f"{name}.depthwise", x.shape[1], is_depthwise=True, head=True)  # noqa: PLW2901
                y = self.layer(x, f"{name}.projection", columns * (6 if index else 3), activation=False, head=True)
                rows.append(y.permute(0, 2, 3, 1).reshape(len(y), -1, columns))
            found.append(self.torch.cat(rows, 1).numpy())
        return found


@pytest.mark.parametrize(("version", "width", "detector"), CASES)
def test_predictions_are_those_of_the_twin(version, width, detector):
    torch = pytest.importorskip("torch", reason="needs PyTorch")
    torch.set_num_threads(1)
    config = (mm.MobileNetV1Config, mm.MobileNetV2Config)[version - 1](
        depth_multiplier=width, num_labels=5, ssd=detector
    )
    graph = ssd.build(config)
    weights = random_weights(graph, 3)
    x = np.random.default_rng(0).uniform(-1, 1, (2, 3, 97, 130)).astype(np.float32)

    def run_twin(kind):
        twin = Twin(torch, weights, f"mobilenet_v{version}.")
        with torch.no_grad():
            maps = (twin.v1, twin.v2)[version - 1](torch.from_numpy(x).to(kind), width)
            return twin.detector(maps, width, detector, 5)

    def run_ours(runner, pixels):
        maps = list(runner.run(pixels, graph.outputs, "channels_first").values())
        rows = [
            y.transpose(0, 2, 3, 1).reshape(2, -1, columns) for y, columns in zip(maps, [4] * 6 + [6] * 6, strict=True)
        ]
        return [np.concatenate(rows[:6], 1), np.concatenate(rows[6:], 1)]

    truth = run_twin(torch.float64)
    exact = run_ours(ReferenceRunner(graph, weights, RunOptions("reference", "float64")), x.astype(np.float64))
    for ours, theirs in zip(exact, truth, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-10 * np.abs(theirs).max())
    errors = [
        [float(np.sqrt(np.mean((part - whole) ** 2))) for part, whole in zip(found, truth, strict=True)]
        for found in (run_ours(CompiledRunner(graph, weights, RunOptions()), x), run_twin(torch.float32))
    ]
    for ours, theirs in zip(*errors, strict=True):
        assert ours <= 1.1 * theirs, errors
