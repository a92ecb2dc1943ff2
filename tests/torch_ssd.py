"""SSD and SSDLite as torch modules, written here from the papers, for pictures of one size and TensorFlow's padding."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
nn = torch.nn

V1 = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1))
V2 = ((6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


class Same(nn.Module):
    """Zeros as TensorFlow puts them, a convolution, batch norm, and relu6 unless there is none."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, is_depthwise: bool = False,
                 has_relu: bool = True) -> None:  # fmt: skip
        super().__init__()
        self.kernel, self.stride = kernel, stride
        groups = inputs if is_depthwise else 1
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, groups=groups, bias=False)
        self.norm, self.relu = nn.BatchNorm2d(outputs, eps=1e-3), nn.ReLU6() if has_relu else nn.Identity()

    def forward(self, x: Any) -> Any:
        pads: list[int] = []
        for size in (int(x.shape[3]), int(x.shape[2])):  # the exporter that traces divides whole numbers wrongly
            total = max((-(-size // self.stride) - 1) * self.stride + self.kernel - size, 0)
            pads += [total // 2, total - total // 2]
        return self.relu(self.norm(self.conv(nn.functional.pad(x, pads))))


class Residual(nn.Module):
    """V2's block, in two parts: SSD looks at what the first makes."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.expand = Same(inputs, hidden, 1)
        self.rest = nn.Sequential(Same(hidden, hidden, 3, stride, True), Same(hidden, outputs, 1, has_relu=False))
        self.has_residual = stride == 1 and inputs == outputs

    def forward(self, x: Any) -> Any:
        wide = self.expand(x)
        return (x + self.rest(wide) if self.has_residual else self.rest(wide)), wide


class Predictor(nn.Module):
    """3x3 depthwise before it in SSDLite."""

    def __init__(self, inputs: int, outputs: int, is_lite: bool) -> None:
        super().__init__()
        self.before = Same(inputs, inputs, 3, is_depthwise=True) if is_lite else nn.Identity()
        self.last = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Any) -> Any:
        return self.last(self.before(x))


class Detector(nn.Module):
    """A detector; `ending` says what it gives: "maps", or rows "joined", and these "sigmoid" or "softmax"."""

    def __init__(self, version: int, width: float, classes: int, is_lite: bool, ending: str) -> None:
        super().__init__()
        self.version, self.ending, self.columns = version, ending, (4, classes + 1)
        self.stem = Same(3, max(int(32 * width), 16), 3, 2)
        layers, channels, seen = [], max(int(32 * width), 16), 0
        if version == 1:
            for index, (outputs, stride) in enumerate(V1):
                scaled = max(int(outputs * width), 16)
                layers.append(nn.Sequential(Same(channels, channels, 3, stride, True), Same(channels, scaled, 1)))
                channels = scaled
                seen = channels if index == 10 else seen
        else:
            first = max(16, int(16 * width + 4) // 8 * 8)
            layers.append(nn.Sequential(Same(channels, channels, 3, 1, True), Same(channels, first, 1, has_relu=False)))
            channels = first
            for expansion, outputs, count, stride in V2:
                scaled = max(16, int(outputs * width + 4) // 8 * 8)
                scaled += 8 if scaled < 0.9 * outputs * width else 0
                for index in range(count):
                    layers.append(Residual(channels, scaled, stride if index == 0 else 1, expansion))
                    channels = scaled
                    seen = channels * 6 if len(layers) == 13 else seen  # what the next expands
            last = int(1280 * width + 4) // 8 * 8
            self.last, channels = Same(channels, last, 1), last
        self.layers = nn.ModuleList(layers)
        extra, sizes = [], [seen, channels]
        for outputs in (512, 256, 256, 128):
            half, whole = max(int(outputs / 2 * width), 16), max(int(outputs * width), 16)
            second = [Same(half, half, 3, 2, True), Same(half, whole, 1)] if is_lite else [Same(half, whole, 3, 2)]
            extra.append(nn.Sequential(Same(sizes[-1], half, 1), *second))
            sizes.append(whole)
        self.extra = nn.ModuleList(extra)
        self.heads = nn.ModuleList(
            nn.ModuleList(Predictor(size, columns * (6 if index else 3), is_lite) for index, size in enumerate(sizes))
            for columns in self.columns
        )

    def forward(self, x: Any) -> Any:
        x, maps = self.stem(x), []
        for index, layer in enumerate(self.layers):
            if self.version == 1:
                x = layer(x)
                maps += [x] if index == 10 else []
            else:
                x, wide = layer(x) if index else (layer(x), None)
                maps += [wide] if index == 13 else []
        maps.append(x if self.version == 1 else self.last(x))
        for layer in self.extra:
            maps.append(layer(maps[-1]))
        found = [[head(y) for head, y in zip(heads, maps, strict=True)] for heads in self.heads]
        if self.ending == "maps":
            return tuple(found[0] + found[1])
        boxes, classes = (
            torch.cat([y.permute(0, 2, 3, 1).reshape(1, -1, columns) for y in group], 1)
            for group, columns in zip(found, self.columns, strict=True)
        )
        scores = {"sigmoid": torch.sigmoid, "softmax": lambda y: torch.softmax(y, 2), "joined": lambda y: y}
        return boxes, scores[self.ending](classes)
