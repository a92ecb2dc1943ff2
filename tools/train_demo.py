"""Train the three embedded models and draw the bundled pictures: `python -m tools.train_demo` in the repository's root.

Needs torch, transformers and scikit-learn (the library needs none of them) and under an hour on one core; `--only
digits` and `--only scenes` can run side by side. A model below its bar on held-out pictures is not written (exit 1).
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import torch
import transformers
from torch import nn

from minimobile.formats import hdf5
from minimobile.formats.checkpoint import Checkpoint
from minimobile.models.classes import MobileNetV2ForObjectDetection
from minimobile.networks.config import config_from_dict
from tools import train_detector
from tools.demo_data import (
    BADGE_SIDE,
    DIGIT_SIDE,
    HELD_OUT,
    SCENE_SIDE,
    SEED,
    SOURCE,
    TRAIN,
    Draw,
    draw_bundle,
    draw_one_badge,
    draw_one_digit,
    draw_one_scene,
    draw_pool,
    split_digits,
)

DEMO = Path(__file__).resolve().parent.parent / "minimobile" / "demo"

DIGIT_BAR, SCENE_BAR, BOX_BAR = 0.97, 0.85, 0.80  # accuracy; mean intersection over union; mAP@0.5
SIZE_BAR = 3_500_000  # bytes, everything bundled together

# Cycles of the learning rate, each going on with the weights of the one before.
DIGIT_CYCLES = (  # new pictures, whether jolted, batches of 64, top rate
    (20_000, False, 1600, 4e-3),
    (16_000, False, 2400, 3e-3),
    (16_000, True, 2200, 3e-3),
)
BADGE_CYCLES = ((20_000, False, 1000, 4e-3),)  # the same, for the backbone of the scenes
SCENE_CYCLES = (  # output stride, new scenes, side of the crop, batches of 16, top rate
    (16, 3000, 128, 500, 3e-3),
    (8, 3000, 128, 400, 1.5e-3),
    (16, 4000, 128, 1000, 3e-3),
    (8, 3000, 128, 300, 1.5e-3),
    (8, 3000, 160, 400, 1.5e-3),
)

Batch = tuple[torch.Tensor, torch.Tensor]  # pixel values (N, 3, H, W) and targets


def load_pool(draw: Draw, part: int, first: int, count: int) -> Batch:
    """Draw a pool of pictures and return it as tensors."""
    pictures, targets = draw_pool(draw, part, first, count)
    return torch.from_numpy(pictures), torch.from_numpy(targets)


def normalise(pictures: torch.Tensor) -> torch.Tensor:
    """Do what the stored processors do to a picture of the right size: bytes (N, H, W, 3) to (N, 3, H, W), -1 to 1."""
    return pictures.permute(0, 3, 1, 2).float() / 127.5 - 1.0  # the result is channels_last in memory


def vary(pixels: torch.Tensor) -> torch.Tensor:
    """Vary a batch (N, 3, H, W) without drawing it anew: negatives, and the colours' channels in another order."""
    count = len(pixels)
    order = torch.rand(count, 3).argsort(1)
    signs = torch.randint(0, 2, (count, 1, 1, 1)) * 2.0 - 1.0
    shuffled = pixels.permute(0, 2, 3, 1).gather(3, order[:, None, None, :].expand(-1, *pixels.shape[2:], -1))
    return shuffled.permute(0, 3, 1, 2) * signs


def jolt(pixels: torch.Tensor) -> torch.Tensor:
    """Turn, scale and shift every picture of a batch (N, 3, H, W) a little, and stretch or squeeze its brightness.

    Without it the classifier learns the pool by heart: loss 0.03 there, 0.11 on new pictures of the same digits.
    """
    count = len(pixels)
    angle = (torch.rand(count) - 0.5) * 0.28  # 8 degrees either way
    scale = 0.87 + 0.26 * torch.rand(count)
    cosine, sine = torch.cos(angle) * scale, torch.sin(angle) * scale
    shift = (torch.rand(2, count) - 0.5) * 0.2  # of half the side, either way 0.1
    affine = torch.stack([cosine, -sine, shift[0], sine, cosine, shift[1]], 1).view(count, 2, 3)
    grid = nn.functional.affine_grid(affine, list(pixels.shape), align_corners=False)
    moved = nn.functional.grid_sample(pixels, grid, padding_mode="reflection", align_corners=False)
    contrast, brightness = 0.7 + 0.3 * torch.rand(count, 1, 1, 1), torch.rand(count, 1, 1, 1) - 0.5
    return moved * contrast + brightness * (1.0 - contrast) * 2.0


def class_batches(draw: Draw, first: int, count: int, jolted: bool) -> Iterator[Batch]:
    """Give batches of training pictures of one digit each, without end."""
    pictures, targets = load_pool(draw, TRAIN, first, count)
    while True:
        for chosen in torch.randperm(count)[: count // 64 * 64].view(-1, 64):
            pixels = normalise(pictures[chosen])
            varied = vary(jolt(pixels) if jolted else pixels)
            yield varied.contiguous(memory_format=torch.channels_last), targets[chosen]


def scene_batches(first: int, count: int, crop: int) -> Iterator[Batch]:
    """Give batches of crops of training scenes without end; they train faster than whole scenes and vary more."""
    pictures, targets = load_pool(draw_one_scene, TRAIN, first, count)
    while True:
        for chosen in torch.randperm(count)[: count // 16 * 16].view(-1, 16):
            top, left = (int(start) for start in torch.randint(0, SCENE_SIDE - crop + 1, (2,)))
            window = (chosen, slice(top, top + crop), slice(left, left + crop))
            yield vary(normalise(pictures[window])), targets[window].long()


def initialise(model: nn.Module) -> None:
    """Draw the convolutions anew, by He's rule for their fan-in.

    transformers' deviation of 0.02 is small against the optimizer's first steps. (Loss of V2 after 300 batches of
    badges: 2.33 with it, 2.26 with He's; neither learns much before, every picture being as likely a negative.)
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and module.bias is None:
            nn.init.kaiming_normal_(module.weight)


def set_momentum(model: nn.Module, momentum: float | None) -> None:
    """Set the momentum of every batch norm.

    transformers has 0.9997 and 0.997 there, TensorFlow's decay: in PyTorch's sense nearly every batch would replace
    the running statistics. None makes them the plain average over batches.
    """
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = momentum


def fit(model: nn.Module, batches: Iterator[Batch], steps: int, rate: float, name: str) -> None:
    """Train for `steps` batches: AdamW, one cycle of the learning rate up to `rate` and down to nothing."""
    matrices = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]  # biases and batch norm are not decayed
    groups = [{"params": matrices, "weight_decay": 0.02}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, pct_start=0.15)
    set_momentum(model, 0.1)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs leave it out
    model.train()
    started, mean_loss = time.monotonic(), 0.0
    for step, (pixels, targets) in zip(range(1, steps + 1), batches, strict=False):
        loss = model(pixel_values=pixels, labels=targets).loss
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        schedule.step()
        mean_loss += (loss.item() - mean_loss) / min(step, 100)
        if step % 100 == 0 or step == steps:
            seconds = time.monotonic() - started
            print(f"{name}: step {step}/{steps}, loss {mean_loss:.4f}, {seconds:.0f} s", flush=True)


@torch.no_grad()
def recalibrate(model: nn.Module, batches: Iterator[Batch], count: int) -> None:
    """Measure the batch norms' statistics anew, with the final weights, as the average over `count` batches."""
    set_momentum(model, None)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
    model.train()
    for _ in range(count):
        model(pixel_values=next(batches)[0])
    model.eval()


@torch.no_grad()
def round_to_half(model: nn.Module) -> None:
    """Round all that is stored to float16 and back, so that what is measured is what users will run.

    Statistics too small for float16's normal range are harmless: batch norm adds its epsilon (1e-3, or 1e-5) to them,
    and float16's smallest step is 6e-8. Too large ones would become infinite, and are refused.
    """
    for name, value in model.state_dict().items():
        if value.is_floating_point():
            value.copy_(value.half().float())
            if not torch.isfinite(value).all():
                raise SystemExit(f"{name}: does not fit into float16")


def make_labels(names: list[str]) -> dict[str, Any]:
    """Make the label fields of a config."""
    return {"id2label": dict(enumerate(names)), "label2id": {name: index for index, name in enumerate(names)}}


def make_processor(kind: str, side: int) -> Any:
    """Make the image processor whose result the models are trained on; `kind` is "V1" or "V2"."""
    settings = {"size": {"shortest_edge": side}, "crop_size": {"height": side, "width": side}}
    return getattr(transformers, f"MobileNet{kind}ImageProcessorPil")(
        **settings
    )  # mean and deviation are 0.5 by default


def fit_cycles(
    model: nn.Module, draw: Draw, cycles: Sequence[tuple[int, bool, int, float]], share: float
) -> Iterator[Batch]:
    """Train a classifier for some cycles, each on a pool of its own, and return the batches of the last."""
    first = 0
    for count, jolted, steps, rate in cycles:
        batches = class_batches(draw, first, int(count * share), jolted)
        fit(model, batches, int(steps * share), rate, draw.__name__)
        first += count
    return batches


def train_digits(share: float) -> tuple[Any, Any]:
    """Train the classifier of digits with `share` of the full pools and steps; return model and processor."""
    # classifier_dropout_prob: the default 0.999 is TensorFlow's keep probability, and would drop all but a thousandth
    config = transformers.MobileNetV1Config(
        depth_multiplier=0.25, image_size=DIGIT_SIDE, classifier_dropout_prob=0.1, **make_labels(list("0123456789"))
    )
    torch.manual_seed(SEED)
    model: Any = transformers.MobileNetV1ForImageClassification(config)
    initialise(model)
    recalibrate(model, fit_cycles(model, draw_one_digit, DIGIT_CYCLES, share), 100)
    return model, make_processor("V1", DIGIT_SIDE)


def train_scenes(share: float) -> tuple[Any, Any]:
    """Train the segmentation of scenes; arguments and result as above.

    The cheap stages come first: the backbone learns to classify single badges, then the whole to segment crops at
    output stride 16 and 8, and at last whole scenes (crops teach that a badge near the border runs on to it).
    """
    # classifier_dropout_prob: the default 0.8 is TensorFlow's keep probability, as above
    shared: dict[str, Any] = {"depth_multiplier": 0.35, "finegrained_output": False, "classifier_dropout_prob": 0.1}
    torch.manual_seed(SEED)
    config = transformers.MobileNetV2Config(image_size=BADGE_SIDE, **shared, **make_labels(list("0123456789")))
    model: Any = transformers.MobileNetV2ForImageClassification(config)
    initialise(model)
    fit_cycles(model, draw_one_badge, BADGE_CYCLES, share)
    weights = model.state_dict()

    labels = make_labels(["background", *"0123456789"])
    first = 0
    for output_stride, count, crop, steps, rate in SCENE_CYCLES:
        scenes = scene_batches(first, int(count * share), crop)
        first += count
        config = transformers.MobileNetV2Config(image_size=SCENE_SIDE, output_stride=output_stride, **shared, **labels)
        model = transformers.MobileNetV2ForSemanticSegmentation(config)
        initialise(model)
        model.load_state_dict({**model.state_dict(), **{k: v for k, v in weights.items() if k in model.state_dict()}})
        unused = model.mobilenet_v2.conv_1x1  # computed by transformers, but not looked at by segmentation
        model.mobilenet_v2.conv_1x1 = nn.Identity()
        fit(model, scenes, int(steps * share), rate, f"scenes, output stride {output_stride}")
        model.mobilenet_v2.conv_1x1 = unused
        weights = model.state_dict()
    recalibrate(model, scenes, 60)
    return model, make_processor("V2", SCENE_SIDE)


@torch.no_grad()
def measure_digits(model: nn.Module, processor: Any, renderings: int = 10) -> tuple[float, str]:
    """Measure the accuracy on the held-out digits, each drawn `renderings` times; return it and a sentence about it."""
    digit_count = len(split_digits()[HELD_OUT].targets)
    count = renderings * digit_count
    pictures, targets = load_pool(draw_one_digit, HELD_OUT, 0, count)
    hits = 0
    for start in range(0, count, 100):
        inputs = processor(list(pictures[start : start + 100].numpy()), return_tensors="pt")
        hits += int((model(**inputs).logits.argmax(1) == targets[start : start + 100]).sum())
    accuracy = hits / count
    return accuracy, f"accuracy {accuracy:.4f} on {digit_count} held-out digits, each drawn {renderings} times"


@torch.no_grad()
def measure_scenes(model: nn.Module, processor: Any, count: int = 400) -> tuple[float, str]:
    """Measure the mean intersection over union of the 11 classes on held-out scenes of held-out digits."""
    pictures, targets = load_pool(draw_one_scene, HELD_OUT, 0, count)
    confusion = torch.zeros(11, 11, dtype=torch.int64)
    for start in range(0, count, 10):
        truth = targets[start : start + 10].long()
        inputs = processor(list(pictures[start : start + 10].numpy()), return_tensors="pt")
        found = processor.post_process_semantic_segmentation(model(**inputs), [(SCENE_SIDE, SCENE_SIDE)] * len(truth))
        confusion += torch.bincount((truth * 11 + torch.stack(found)).ravel(), minlength=121).view(11, 11)
    both = confusion.diagonal().double()
    per_class = both / (confusion.sum(0) + confusion.sum(1) - both)
    score, lowest = float(per_class.mean()), float(per_class.min())
    digit_count = len(split_digits()[HELD_OUT].targets)
    return score, (
        f"mean IoU {score:.4f} over 11 classes (lowest class {lowest:.4f}) on {count} held-out scenes "
        f"of {SCENE_SIDE}x{SCENE_SIDE} with badges of {digit_count} held-out digits"
    )


def describe(name: str, figure: str, training: str) -> dict[str, str]:
    """Put together the provenance that is stored in the model's file."""
    modules = {"torch": torch.__version__, "transformers": transformers.__version__, "numpy": np.__version__}
    versions = {"python": platform.python_version(), **modules, "pillow": PIL.__version__}
    return {
        "format": "minimobile",
        "source": f"demo:{name}",
        "producer": "tools/train_demo.py of minimobile",
        "data": SOURCE,
        "split": "by digit image, within every class: 80 % for training, 20 % held out",
        "held_out": f"{figure}, weights rounded to float16",
        "seed": str(SEED),
        "training": f"cycles, as in tools/train_demo.py: {training}",
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
    }


def write_native(name: str, model: Any, processor: Any, provenance: dict[str, str]) -> None:
    """Write a model as minimobile's own file, weights in float16 and batch norm as it was trained, not folded."""
    weights = {
        key: value.contiguous().numpy() for key, value in model.state_dict().items() if value.is_floating_point()
    }
    config = config_from_dict(json.loads(model.config.to_json_string()))
    settings = json.loads(processor.to_json_string())
    checkpoint = Checkpoint(config, weights, type(model).__name__, settings, provenance)
    hdf5.write(DEMO / f"{name}.h5", checkpoint, dtype="float16")


def make_boxes(share: float) -> bool:
    """Train the detector with `share` of the full training, measure it as users run it, and write it if good enough."""
    weights = train_detector.train(DEMO, share).weights()
    return write_boxes(weights)


def write_boxes(weights: dict[str, Any]) -> bool:
    """Measure trained weights of the detector, and write them if they reach the bar."""
    model = MobileNetV2ForObjectDetection.from_checkpoint(train_detector.to_checkpoint(weights, {}))
    figure, sentence = train_detector.measure(model)
    print(f"boxes: {sentence}; the bar is {BOX_BAR}", flush=True)
    if figure < BOX_BAR:
        return False
    provenance = describe("boxes", sentence, f"backbone of demo:scenes, then {train_detector.CYCLES}")
    hdf5.write(DEMO / "boxes.h5", train_detector.to_checkpoint(weights, provenance), dtype="float16")
    return True


def main() -> int:
    """Train what is asked for, measure it, and write it only when it is good enough."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=("digits", "scenes", "boxes", "pictures"), help="make only this")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="also save the models in transformers' layout")
    parser.add_argument(
        "--quick", action="store_true", help="a fiftieth of the training, to try the tool; misses the bars"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # the result depends on it; two processes, one model each, are faster than two threads
    torch.use_deterministic_algorithms(True)
    good = True
    for name, train, measure, bar, cycles in (
        ("digits", train_digits, measure_digits, DIGIT_BAR, str(DIGIT_CYCLES)),
        ("scenes", train_scenes, measure_scenes, SCENE_BAR, f"{BADGE_CYCLES}, {SCENE_CYCLES}"),
    ):
        if arguments.only not in (None, name):
            continue
        model, processor = train(0.02 if arguments.quick else 1.0)
        round_to_half(model)
        figure, sentence = measure(model, processor)
        print(f"{name}: {sentence}; the bar is {bar}", flush=True)
        if arguments.keep:
            model.save_pretrained(arguments.keep / name)
            processor.save_pretrained(arguments.keep / name)
        if figure < bar:
            good = False
        else:
            write_native(name, model, processor, describe(name, sentence, cycles))
    if arguments.only in (None, "boxes"):
        good &= make_boxes(0.02 if arguments.quick else 1.0)
    if arguments.only in (None, "pictures"):
        draw_bundle(DEMO)
    bundled = sum(path.stat().st_size for path in DEMO.iterdir() if path.suffix in {".h5", ".png"})
    print(f"{DEMO}: {bundled} bytes of {SIZE_BAR}")
    return 0 if good and bundled <= SIZE_BAR else 1


if __name__ == "__main__":
    sys.exit(main())
