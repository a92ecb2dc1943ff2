"""torchvision's and timm's MobileNets as torch modules, written here from their tables, with their names."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
nn = torch.nn

V2_STAGES = ((6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


def divisible(value: float, divisor: int = 8) -> int:
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded


def convolution(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> Any:
    return nn.Conv2d(inputs, outputs, kernel, stride, (kernel - 1) // 2, groups=groups, bias=False)


def step(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> Any:
    return nn.Sequential(convolution(inputs, outputs, kernel, stride, groups), nn.BatchNorm2d(outputs), nn.ReLU6())


class VisionBlock(nn.Module):
    """torchvision's InvertedResidual: everything in one Sequential named `conv`."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        first = [step(inputs, hidden, 1)] if expansion != 1 else []
        last = [convolution(hidden, outputs, 1), nn.BatchNorm2d(outputs)]
        self.conv = nn.Sequential(*first, step(hidden, hidden, 3, stride, hidden), *last)
        self.has_residual = stride == 1 and inputs == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.conv(x) if self.has_residual else self.conv(x)


class VisionV2(nn.Module):
    """torchvision's mobilenet_v2."""

    def __init__(self, width: float, classes: int) -> None:
        super().__init__()
        channels = divisible(32 * width)
        layers = [step(3, channels, 3, 2)]
        for expansion, base, count, stride in ((1, 16, 1, 1), *V2_STAGES):
            for index in range(count):
                outputs = divisible(base * width)
                layers.append(VisionBlock(channels, outputs, stride if index == 0 else 1, expansion))
                channels = outputs
        last = divisible(1280 * max(1.0, width))
        self.features = nn.Sequential(*layers, step(channels, last, 1))
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(last, classes))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.features(x).mean((2, 3)))


class TimmSeparable(nn.Module):
    """timm's DepthwiseSeparableConv: `ds` in V2 (no activation at the end), `dsa` in V1."""

    def __init__(self, inputs: int, outputs: int, stride: int, has_activation: bool) -> None:
        super().__init__()
        self.conv_dw, self.bn1 = convolution(inputs, inputs, 3, stride, inputs), nn.BatchNorm2d(inputs)
        self.conv_pw, self.bn2 = convolution(inputs, outputs, 1), nn.BatchNorm2d(outputs)
        self.has_activation = has_activation
        self.has_residual = stride == 1 and inputs == outputs and not has_activation

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.bn2(self.conv_pw(nn.functional.relu6(self.bn1(self.conv_dw(x)))))
        y = nn.functional.relu6(y) if self.has_activation else y
        return x + y if self.has_residual else y


class TimmResidual(nn.Module):
    """timm's InvertedResidual."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        hidden = divisible(inputs * 6)
        self.conv_pw, self.bn1 = convolution(inputs, hidden, 1), nn.BatchNorm2d(hidden)
        self.conv_dw, self.bn2 = convolution(hidden, hidden, 3, stride, hidden), nn.BatchNorm2d(hidden)
        self.conv_pwl, self.bn3 = convolution(hidden, outputs, 1), nn.BatchNorm2d(outputs)
        self.has_residual = stride == 1 and inputs == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = nn.functional.relu6(self.bn1(self.conv_pw(x)))
        y = self.bn3(self.conv_pwl(nn.functional.relu6(self.bn2(self.conv_dw(y)))))
        return x + y if self.has_residual else y


class Timm(nn.Module):
    """timm's mobilenetv1 and mobilenetv2; `deeper` adds a block to the second stage, as mobilenetv2_110d does."""

    def __init__(self, version: int, width: float, classes: int, deeper: int = 0) -> None:
        super().__init__()
        channels = divisible(32 * width)
        self.conv_stem, self.bn1 = convolution(3, channels, 3, 2), nn.BatchNorm2d(channels)
        stages = []
        if version == 1:
            table = ((64, 1, 1), (128, 2, 2), (256, 2, 2), (512, 6, 2), (1024, 2, 2))
        else:
            table = ((16, 1, 1), *((base, count, stride) for _, base, count, stride in V2_STAGES))
        for number, (base, count, stride) in enumerate(table):
            blocks = []
            for index in range(count + (deeper if number == 1 else 0)):
                outputs, applied = divisible(base * width), stride if index == 0 else 1
                if version == 1 or number == 0:
                    blocks.append(TimmSeparable(channels, outputs, applied, version == 1))
                else:
                    blocks.append(TimmResidual(channels, outputs, applied))
                channels = outputs
            stages.append(nn.Sequential(*blocks))
        self.blocks = nn.Sequential(*stages)
        if version == 2:
            last = divisible(max(1280, 1280 * width))
            self.conv_head, self.bn2, channels = convolution(channels, last, 1), nn.BatchNorm2d(last), last
        self.classifier = nn.Linear(channels, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.blocks(nn.functional.relu6(self.bn1(self.conv_stem(x))))
        if hasattr(self, "conv_head"):
            x = nn.functional.relu6(self.bn2(self.conv_head(x)))
        return self.classifier(x.mean((2, 3)))


def settled(network: Any, seed: int = 0) -> Any:
    """Return the network for inference, with random weights and statistics that keep values in range."""
    generator = torch.Generator().manual_seed(seed)
    for name, values in network.state_dict().items():
        if name.endswith("num_batches_tracked"):
            continue
        if name.endswith("running_var") or (values.ndim == 1 and name.endswith("weight")):
            values.copy_(torch.rand(values.shape, generator=generator) + 0.5)
        else:
            scale = 0.2 if values.ndim == 1 else (2 / values[0].numel()) ** 0.5
            values.copy_(torch.randn(values.shape, generator=generator) * scale)
    return network.eval()
