"""Train the embedded detector: SSDLite on MobileNet V2, which finds the badges of the digits' scenes.

Its PyTorch form walks the graph of minimobile itself, so that the trained weights have canonical names. The backbone
starts from the embedded segmentation network's. `tools/train_demo.py` calls this; needs torch and scikit-learn.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from minimobile.formats import hdf5
from minimobile.formats.checkpoint import Checkpoint
from minimobile.networks import ssd
from minimobile.networks.anchors import make_anchors
from minimobile.networks.config import MobileNetV2Config
from minimobile.networks.graph import INPUT, Graph
from minimobile.networks.ssd_config import MobileNetSSDConfig
from minimobile.operations.shapes import infer_shapes, sliding_window
from tools.demo_data import HELD_OUT, SCENE_SIDE, SEED, TRAIN, draw_one_boxed_scene, draw_pool, split_digits

BATCH = 16
# Cycles of the learning rate: whether the backbone learns, too (three times the cost), batches, top rate.
CYCLES = ((False, 800, 4e-3), (True, 300, 1.5e-3))
SCENES = 4500
POSITIVE = 0.45  # intersection over union from which an anchor has to find a badge
CONFIG = MobileNetV2Config(
    depth_multiplier=0.35,
    image_size=SCENE_SIDE,
    id2label=dict(enumerate("0123456789")),
    ssd=MobileNetSSDConfig(
        min_depth=8,  # the embedded segmentation network's
        min_scale=0.22,
        aspect_ratios=(1.0,),  # badges are round
        reduce_boxes_in_lowest_layer=False,
        iou_threshold=0.45,
        max_detections=30,
    ),
)


class Network(nn.Module):
    """A graph of minimobile as a PyTorch module; parameters have canonical names."""

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self.graph = graph
        self.steps = nn.ModuleList()
        self.names: dict[str, nn.Module] = {}  # canonical path -> module
        for node in graph.nodes:
            self.steps.append(self._make(node))

    def _make(self, node: Any) -> nn.Module:
        module: nn.Module
        if "conv2d" in node.op:
            out, inputs, kernel, _ = self.graph.shapes[node.weights["weight"]]
            module = nn.Conv2d(
                out if node.op == "depthwise_conv2d" else inputs, out, kernel, node.attributes.get("stride", 1),
                groups=out if node.op == "depthwise_conv2d" else 1, bias="bias" in node.weights,
            )  # fmt: skip
        elif node.op == "batch_norm":
            module = nn.BatchNorm2d(self.graph.shapes[node.weights["mean"]][0], eps=node.attributes["epsilon"])
        else:
            module = nn.ReLU6() if node.op == "activation" else nn.Identity()
        if node.weights:
            self.names[next(iter(node.weights.values())).rpartition(".")[0]] = module
        return module

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return box encodings (N, A, 4) and class logits (N, A, K + 1) for pixel values (N, 3, H, W)."""
        values = {INPUT: pixels}
        for node, module in zip(self.graph.nodes, self.steps, strict=True):
            x = values[node.inputs[0]]
            if node.op in ("conv2d", "depthwise_conv2d"):
                slide = sliding_window(node, x.shape[2], x.shape[3])
                bottom = (slide.out_height - 1) * slide.stride + slide.kernel_height - x.shape[2] - slide.pad_top
                right = (slide.out_width - 1) * slide.stride + slide.kernel_width - x.shape[3] - slide.pad_left
                x = nn.functional.pad(x, (slide.pad_left, max(right, 0), slide.pad_top, max(bottom, 0)))
            values[node.name] = values[node.inputs[1]] + x if node.op == "add" else module(x)
        maps = [values[name].permute(0, 2, 3, 1) for name in self.graph.outputs]
        boxes, classes = maps[: ssd.MAPS], maps[ssd.MAPS :]
        n = len(pixels)
        return (
            torch.cat([y.reshape(n, -1, 4) for y in boxes], 1),
            torch.cat([y.reshape(n, -1, CONFIG.class_count + 1) for y in classes], 1),
        )

    def weights(self) -> dict[str, NDArray[np.float32]]:
        """Return the weights by canonical name."""
        return {
            f"{path}.{name}": value.detach().contiguous().numpy()
            for path, module in self.names.items()
            for name, value in module.state_dict().items()
            if value.is_floating_point()
        }


def scene_anchors(graph: Graph) -> NDArray[np.float32]:
    """Return the anchors (A, 4) of the scenes' size."""
    shapes = infer_shapes(graph, SCENE_SIDE, SCENE_SIDE)
    sizes = [shapes[name][1:] for name in graph.outputs[: ssd.MAPS]]
    return make_anchors(ssd.settings(CONFIG), (SCENE_SIDE, SCENE_SIDE), sizes)


def overlaps(boxes: NDArray[np.float32], others: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return intersection over union (N, M) of boxes (N, 4) and others (M, 4), corners ymin, xmin, ymax, xmax."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(-1)
    areas = [(corners[:, 2:] - corners[:, :2]).prod(-1) for corners in (boxes, others)]
    result: NDArray[np.float32] = shared / (areas[0][:, None] + areas[1][None] - shared)
    return result


def assign(badges: NDArray[np.float32], anchors: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return for every anchor the class to find (0: nothing, else digit + 1), and the encoding of its box.

    An anchor has to find the badge that it overlaps most, where that is enough; the best anchor of each badge always.
    """
    classes, codes = np.zeros(len(anchors), np.int64), np.zeros((len(anchors), 4), np.float32)
    there = badges[badges[:, 0] >= 0]
    corners = np.concatenate([anchors[:, :2] - anchors[:, 2:] / 2, anchors[:, :2] + anchors[:, 2:] / 2], 1)
    shares = overlaps(corners, there[:, 1:])  # (A, B)
    best = shares.argmax(1)
    chosen = shares.max(1) >= POSITIVE
    own = shares.argmax(0)
    best[own], chosen[own] = np.arange(len(there)), True
    found = there[best[chosen]]
    centres, sizes = (found[:, 1:3] + found[:, 3:5]) / 2, found[:, 3:5] - found[:, 1:3]
    near = anchors[chosen]
    scales = ssd.settings(CONFIG).box_scales
    classes[chosen] = found[:, 0].astype(np.int64) + 1
    codes[chosen, :2] = (centres - near[:, :2]) / near[:, 2:] * scales[:2]
    codes[chosen, 2:] = np.log(sizes / near[:, 2:]) * scales[2:]
    return classes, codes


def focal_loss(logits: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    """Sum Lin et al.'s focal loss (arXiv:1708.02002, alpha 0.25, gamma 2) over sigmoids; column 0 is the background."""
    targets = nn.functional.one_hot(classes, logits.shape[-1]).float()
    entropy = nn.functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    chance = torch.sigmoid(logits)
    wrong = targets * (1 - chance) + (1 - targets) * chance
    weight = 0.25 * targets + 0.75 * (1 - targets)
    loss: torch.Tensor = (weight * wrong**2 * entropy)[..., 1:].sum()
    return loss


def vary(pixels: torch.Tensor) -> torch.Tensor:
    """Vary a batch (N, 3, H, W): negatives, and the colours' channels in another order."""
    order = torch.rand(len(pixels), 3).argsort(1)
    signs = torch.randint(0, 2, (len(pixels), 1, 1, 1)) * 2.0 - 1.0
    return torch.stack([picture[chosen] for picture, chosen in zip(pixels, order, strict=True)]) * signs


def batches(anchors: NDArray[np.float32], count: int) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Give batches of pixel values, classes and box encodings without end."""
    pictures, badges = draw_pool(draw_one_boxed_scene, TRAIN, 0, count)
    assigned = [assign(rows, anchors) for rows in badges]
    classes, codes = (torch.from_numpy(np.stack(values)) for values in zip(*assigned, strict=True))
    stored = torch.from_numpy(pictures)
    while True:
        for chosen in torch.randperm(count)[: count // BATCH * BATCH].view(-1, BATCH):
            pixels = vary(stored[chosen].permute(0, 3, 1, 2).float() / 127.5 - 1.0)
            yield pixels.contiguous(memory_format=torch.channels_last), classes[chosen], codes[chosen]


def initialise(network: Network, folder: Any) -> None:
    """Draw the weights by He's rule, then take the backbone of the embedded segmentation network in `folder`."""
    trained = hdf5.read(folder / "scenes.h5").weights
    for path, module in network.names.items():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
            if module.bias is not None:
                nn.init.constant_(module.bias, -2.0 if ".classes." in path else 0.0)
        for name, value in module.state_dict().items():
            if f"{path}.{name}" in trained and "conv_1x1" not in path:
                value.copy_(torch.from_numpy(trained[f"{path}.{name}"]))


def train(folder: Any, share: float = 1.0) -> Network:
    """Train with `share` of the full pool and steps."""
    torch.manual_seed(SEED)
    network = Network(ssd.build(CONFIG))
    initialise(network, folder)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs leave it out
    source = batches(scene_anchors(network.graph), max(BATCH, int(SCENES * share)))
    for is_whole, steps, rate in CYCLES:
        network.train()
        network.requires_grad_(True)
        if not is_whole:
            for path, module in network.names.items():
                if path.startswith("mobilenet_v2.") and "conv_1x1" not in path:
                    module.requires_grad_(False)
                    module.eval()
        fit(network, source, max(2, int(steps * share)), rate, "boxes" if is_whole else "boxes, the head alone")
    recalibrate(network, source, 100)
    return network


def fit(network: Network, source: Iterator[Any], steps: int, rate: float, name: str) -> None:
    """Train for `steps` batches: AdamW, one cycle of the learning rate up to `rate` and down to nothing."""
    learning = [p for p in network.parameters() if p.requires_grad]
    matrices, others = [p for p in learning if p.ndim > 1], [p for p in learning if p.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": 0.02}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, pct_start=0.1)
    started, means = time.monotonic(), [0.0, 0.0]
    for step, (pixels, classes, codes) in zip(range(1, steps + 1), source, strict=False):
        found_codes, logits = network(pixels)
        positive = classes > 0
        count = max(1, int(positive.sum()))
        named = focal_loss(logits, classes) / count
        placed = nn.functional.smooth_l1_loss(found_codes[positive], codes[positive], reduction="sum") / count
        optimizer.zero_grad()
        (named + 0.5 * placed).backward()
        nn.utils.clip_grad_norm_(learning, 5.0)
        optimizer.step()
        schedule.step()
        for index, loss in enumerate((named, placed)):
            means[index] += (loss.item() - means[index]) / min(step, 100)
        if step % 100 == 0 or step == steps:
            seconds = time.monotonic() - started
            print(f"{name}: step {step}/{steps}, classes {means[0]:.4f}, places {means[1]:.4f}, {seconds:.0f} s",
                  flush=True)  # fmt: skip


@torch.no_grad()
def recalibrate(network: Network, source: Iterator[Any], count: int) -> None:
    """Measure the batch norms' statistics anew, as the average over `count` batches."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None
    for _ in range(count):
        network(next(source)[0])
    network.eval()


def average_precision(hits: NDArray[np.bool_], scores: NDArray[np.float32], count: int) -> float:
    """Return the area under the curve of precision over recall, precision made to fall only (PASCAL VOC 2010).

    Shapes: hits and scores (D): the detections of one class in all pictures; `count`: the objects there are.
    """
    right = np.cumsum(hits[np.argsort(-scores, kind="stable")])
    precision = right / np.arange(1, len(right) + 1)
    highest = np.maximum.accumulate(precision[::-1])[::-1]
    recall = np.concatenate([[0.0], right / count])
    return float((np.diff(recall) * highest).sum())


def measure(model: Any, count: int = 400) -> tuple[float, str]:
    """Measure the mean average precision at an overlap of a half, of minimobile itself on held-out scenes."""
    pictures, badges = draw_pool(draw_one_boxed_scene, HELD_OUT, 0, count)
    found: list[list[tuple[float, bool]]] = [[] for _ in range(10)]
    totals = np.bincount(badges[badges[..., 0] >= 0][:, 0].astype(int), minlength=10)
    for picture, rows in zip(pictures, badges, strict=True):
        out = model(model.processor(picture, return_tensors="np")["pixel_values"])
        (listed,) = model.processor.post_process_object_detection(out, 0.01)
        corners = listed["boxes"][:, [1, 0, 3, 2]]
        shares = overlaps(corners, rows[:, 1:])
        is_taken = np.zeros(len(rows), bool)
        for row, (label, score) in enumerate(zip(listed["labels"], listed["scores"], strict=True)):
            fitting = np.where((rows[:, 0] == label) & ~is_taken, shares[row], 0)
            is_hit = bool(fitting.max() >= 0.5)
            is_taken[fitting.argmax()] |= is_hit
            found[label].append((float(score), is_hit))
    each = []
    for digit, items in enumerate(found):
        scores, hits = np.array([score for score, _ in items], np.float32), np.array([hit for _, hit in items], bool)
        each.append(average_precision(hits, scores, int(totals[digit])))
    score = float(np.mean(each))
    digits = len(split_digits()[HELD_OUT].targets)
    return score, (
        f"mAP@0.5 {score:.4f} over 10 classes (lowest class {min(each):.4f}) on {count} held-out scenes of "
        f"{SCENE_SIDE}x{SCENE_SIDE} with badges of {digits} held-out digits"
    )


def to_checkpoint(weights: dict[str, NDArray[np.float32]], provenance: dict[str, str]) -> Checkpoint:
    """Return the trained network with weights rounded to float16, as they are stored."""
    halves = {name: values.astype(np.float16).astype(np.float32) for name, values in weights.items()}
    for name, values in halves.items():
        if not np.isfinite(values).all():
            raise SystemExit(f"{name}: does not fit into float16")
    settings = {
        "image_processor_type": "MobileNetV2ImageProcessor",
        "size": {"height": SCENE_SIDE, "width": SCENE_SIDE},
        "do_center_crop": False,
    }
    return Checkpoint(ssd.settle(CONFIG), halves, "MobileNetV2ForObjectDetection", settings, provenance)
