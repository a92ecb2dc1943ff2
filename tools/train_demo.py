"""Train the two embedded models and draw the bundled pictures: `python -m tools.train_demo` in the repository's root.

Needs torch, transformers and scikit-learn (none of which the library needs) and about 25 minutes on one core. Ends
with exit code 1, and writes nothing, when a model misses its bar on held-out pictures.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import torch
import transformers
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_digits
from torch import nn

from minimobile.config import config_from_dict
from minimobile.formats import hdf5
from minimobile.formats.checkpoint import Checkpoint
from tools.demo_scenes import Bytes, draw_digit, draw_glyph, draw_scene, draw_single_badge

SEED = 20240607
DEMO = Path(__file__).resolve().parent.parent / "minimobile" / "demo"
SOURCE = (
    "Optical Recognition of Handwritten Digits (E. Alpaydin, C. Kaynak; UCI Machine Learning Repository, 1998, "
    "doi:10.24432/C50P49, CC BY 4.0), the 1797 digits of scikit-learn's load_digits; drawn as pictures by "
    "tools/demo_scenes.py"
)
DIGIT_SIDE, SCENE_SIDE, CROP_SIDE, BADGE_SIDE = 64, 160, 128, 48
DIGIT_BAR, SCENE_BAR = 0.97, 0.85  # accuracy; mean intersection over union
SIZE_BAR = 3_000_000  # bytes, everything bundled together

BUNDLED_DIGIT_SIDE, BUNDLED_SCENE_SIDE = 128, 480  # larger than the networks see: the processors scale them down
BUNDLED_DIGITS = ((37, 4), (65, 3), (85, 9), (33, 8), (40, 0), (52, 8))  # (held-out digit, seed)
BUNDLED_SCENE = 132  # seed

Draw = Callable[[int, int], tuple[Bytes, Any]]  # (part, index) to picture and target
Batch = tuple[torch.Tensor, torch.Tensor]  # pixel values (N, 3, H, W) and targets

# What the pools of pictures are drawn from: (part of the digits, stream of random numbers)
TRAIN, HELD_OUT = 0, 1


@dataclass(frozen=True)
class Digits:
    """One part of the split: glyphs, ready to draw, and which digit each of them is."""

    glyphs: list[Image.Image]
    targets: NDArray[np.int64]


@cache
def split_digits() -> tuple[Digits, Digits]:
    """Split the 1797 digits, by image and within every class, into 80 % for training and 20 % held out."""
    images, targets = load_digits(return_X_y=True)
    images = images.reshape(-1, 8, 8)
    rng = np.random.default_rng(SEED)
    held_out = np.zeros(len(targets), bool)
    for digit in range(10):
        members = rng.permutation(np.flatnonzero(targets == digit))
        held_out[members[: round(0.2 * len(members))]] = True
    parts = []
    for chosen in (~held_out, held_out):
        parts.append(Digits([draw_glyph(image) for image in images[chosen]], targets[chosen].astype(np.int64)))
    return parts[0], parts[1]


def draw_one_digit(part: int, index: int) -> tuple[Bytes, Any]:
    """Draw picture `index` of the digits' pool: the digits of the part come round in turn."""
    digits = split_digits()[part]
    which = index % len(digits.targets)
    rng = np.random.default_rng([SEED, 1, part, index])
    return draw_digit(rng, digits.glyphs[which], DIGIT_SIDE), digits.targets[which]


def draw_one_badge(part: int, index: int) -> tuple[Bytes, Any]:
    """Draw picture `index` of the badges' pool, each of the size it could have in a scene."""
    digits = split_digits()[part]
    which = index % len(digits.targets)
    rng = np.random.default_rng([SEED, 5, part, index])
    radius = SCENE_SIDE * rng.uniform(0.11, 0.17)
    return draw_single_badge(rng, digits.glyphs[which], BADGE_SIDE, radius), digits.targets[which]


def draw_one_scene(part: int, index: int) -> tuple[Bytes, Any]:
    """Draw scene `index` of the scenes' pool, with at most nine badges, and the class of each of its pixels."""
    digits = split_digits()[part]
    rng = np.random.default_rng([SEED, 2, part, index])
    which = rng.integers(0, len(digits.targets), rng.integers(4, 10))
    picture, classes, _ = draw_scene(rng, [digits.glyphs[i] for i in which], list(digits.targets[which]), SCENE_SIDE)
    return picture, classes


def draw_pool(draw: Draw, part: int, count: int, first: int = 0) -> Batch:
    """Draw pictures `first` to `first + count` in two processes: bytes (count, side, side, 3) and their targets.

    Picture i has its own seed, so the pool does not depend on who draws what.
    """
    with get_context("spawn").Pool(2) as workers:
        drawn = workers.starmap(draw, [(part, index) for index in range(first, first + count)], chunksize=64)
    pictures, targets = zip(*drawn, strict=True)
    return torch.from_numpy(np.stack(pictures)), torch.from_numpy(np.stack(targets))


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


def class_batches(draw: Draw, count: int, size: int, first: int = 0) -> Iterator[Batch]:
    """Give batches of training pictures of one digit each, without end."""
    pictures, targets = draw_pool(draw, TRAIN, count, first)
    while True:
        for chosen in torch.randperm(count)[: count // size * size].view(-1, size):
            yield vary(normalise(pictures[chosen])), targets[chosen]


def scene_batches(count: int, size: int) -> Iterator[Batch]:
    """Give batches of training scenes without end: crops, which train faster than whole scenes and vary more."""
    pictures, targets = draw_pool(draw_one_scene, TRAIN, count)
    while True:
        for chosen in torch.randperm(count)[: count // size * size].view(-1, size):
            top, left = (int(start) for start in torch.randint(0, SCENE_SIDE - CROP_SIDE + 1, (2,)))
            window = (chosen, slice(top, top + CROP_SIDE), slice(left, left + CROP_SIDE))
            yield vary(normalise(pictures[window])), targets[window].long()


def initialise(model: nn.Module) -> None:
    """Draw the convolutions anew, by He's rule for their fan-in.

    With transformers' deviation of 0.02 the optimizer's steps are as large as the weights: V2 then learns nothing in
    the first 300 steps at a rate of 4e-3.
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


def train_digits(start: Path | None) -> tuple[Any, Any]:
    """Train the classifier of digits, or train the one in `start` on; return model and processor."""
    # classifier_dropout_prob: the default 0.999 is TensorFlow's keep probability, and would drop all but a thousandth
    config = transformers.MobileNetV1Config(
        depth_multiplier=0.25, image_size=DIGIT_SIDE, classifier_dropout_prob=0.1, **make_labels(list("0123456789"))
    )
    torch.manual_seed(SEED)
    model: Any = transformers.MobileNetV1ForImageClassification(config)
    if start:  # a second cycle of the learning rate, on new pictures
        model = transformers.MobileNetV1ForImageClassification.from_pretrained(start)
        batches = class_batches(draw_one_digit, 16_000, 64, first=20_000)
        fit(model, batches, 2400, 3e-3, "digits, second cycle")
    else:
        initialise(model)
        batches = class_batches(draw_one_digit, 20_000, 64)
        fit(model, batches, 1600, 4e-3, "digits")
    recalibrate(model, batches, 100)
    return model, make_processor("V1", DIGIT_SIDE)


def train_scenes(start: Path | None) -> tuple[Any, Any]:
    """Train the segmentation of scenes; return model and processor.

    Three stages, each going on with the weights of the one before, because the early ones are cheap: the backbone
    learns to classify single badges, then the whole to segment at output stride 16, and at last at 8.
    """
    # classifier_dropout_prob: the default 0.8 is TensorFlow's keep probability, as above
    shared: dict[str, Any] = {"depth_multiplier": 0.35, "finegrained_output": False, "classifier_dropout_prob": 0.1}
    torch.manual_seed(SEED)
    config = transformers.MobileNetV2Config(image_size=BADGE_SIDE, **shared, **make_labels(list("0123456789")))
    model: Any = transformers.MobileNetV2ForImageClassification(config)
    initialise(model)
    badges = class_batches(draw_one_badge, 512 if quick else 20_000, 64)
    fit(model, badges, 5 if quick else 1000, 4e-3, "scenes, backbone")
    weights = model.state_dict()

    labels = make_labels(["background", *"0123456789"])
    scenes = scene_batches(128 if quick else 3000, 16)
    for output_stride, steps, rate in ((16, 500, 3e-3), (8, 400, 1.5e-3)):
        config = transformers.MobileNetV2Config(image_size=SCENE_SIDE, output_stride=output_stride, **shared, **labels)
        model = transformers.MobileNetV2ForSemanticSegmentation(config)
        initialise(model)
        model.load_state_dict({**model.state_dict(), **{k: v for k, v in weights.items() if k in model.state_dict()}})
        unused = model.mobilenet_v2.conv_1x1  # computed by transformers, but not looked at by segmentation
        model.mobilenet_v2.conv_1x1 = nn.Identity()
        fit(model, scenes, 5 if quick else steps, rate, f"scenes, output stride {output_stride}")
        model.mobilenet_v2.conv_1x1 = unused
        weights = model.state_dict()
    recalibrate(model, scenes, 5 if quick else 60)
    return model, make_processor("V2", SCENE_SIDE)


@torch.no_grad()
def measure_digits(model: nn.Module, processor: Any, renderings: int = 10) -> tuple[float, str]:
    """Measure the accuracy on the held-out digits, each drawn `renderings` times; return it and a sentence about it."""
    digit_count = len(split_digits()[HELD_OUT].targets)
    count = renderings * digit_count
    pictures, targets = draw_pool(draw_one_digit, HELD_OUT, count)
    hits = 0
    for start in range(0, count, 100):
        inputs = processor(list(pictures[start : start + 100].numpy()), return_tensors="pt")
        hits += int((model(**inputs).logits.argmax(1) == targets[start : start + 100]).sum())
    accuracy = hits / count
    return accuracy, f"accuracy {accuracy:.4f} on {digit_count} held-out digits, each drawn {renderings} times"


@torch.no_grad()
def measure_scenes(model: nn.Module, processor: Any, count: int = 400) -> tuple[float, str]:
    """Measure the mean intersection over union of the 11 classes on held-out scenes of held-out digits."""
    pictures, targets = draw_pool(draw_one_scene, HELD_OUT, count)
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


def describe(name: str, figure: str, seconds: float) -> dict[str, str]:
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
        "training_seconds": f"{seconds:.0f}",
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


def draw_bundle() -> None:
    """Draw the bundled pictures from held-out digits: digit_K.png shows a K, scene.png up to ten badges, one a digit.

    Which digits and seeds was chosen by eye, for their looks.
    """
    digits = split_digits()[HELD_OUT]
    for which, seed in BUNDLED_DIGITS:
        rng = np.random.default_rng([SEED, 3, which, seed])
        picture = draw_digit(rng, digits.glyphs[which], BUNDLED_DIGIT_SIDE)
        Image.fromarray(picture).save(DEMO / f"digit_{digits.targets[which]}.png", optimize=True)
    rng = np.random.default_rng([SEED, 4, BUNDLED_SCENE])
    chosen = [int(rng.choice(np.flatnonzero(digits.targets == digit))) for digit in rng.permutation(10)]
    picture, _, badges = draw_scene(
        rng, [digits.glyphs[i] for i in chosen], list(digits.targets[chosen]), BUNDLED_SCENE_SIDE
    )
    Image.fromarray(picture).save(DEMO / "scene.png", optimize=True)
    print("scene.png shows", ", ".join(f"{b.digit} at ({b.x:.0f}, {b.y:.0f})" for b in badges))


def main() -> int:
    """Train what is asked for, measure it, and write it only when it is good enough."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=("digits", "scenes", "pictures"), help="make only this")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="also save the models in transformers' layout")
    parser.add_argument("--quick", action="store_true", help="a minute's training, to try the tool: misses the bars")
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # the result depends on it; two processes, one model each, are faster than two threads
    torch.use_deterministic_algorithms(True)
    good = True
    for name, train, measure, bar in (
        ("digits", train_digits, measure_digits, DIGIT_BAR),
        ("scenes", train_scenes, measure_scenes, SCENE_BAR),
    ):
        if arguments.only not in (None, name):
            continue
        started = time.monotonic()
        model, processor = train(arguments.quick)
        round_to_half(model)
        figure, sentence = measure(model, processor)
        print(f"{name}: {sentence}; the bar is {bar}", flush=True)
        if arguments.keep:
            model.save_pretrained(arguments.keep / name)
            processor.save_pretrained(arguments.keep / name)
        if figure < bar:
            good = False
        else:
            write_native(name, model, processor, describe(name, sentence, time.monotonic() - started))
    if arguments.only in (None, "pictures"):
        draw_bundle()
    bundled = sum(path.stat().st_size for path in DEMO.iterdir() if path.suffix in {".h5", ".png"})
    print(f"{DEMO}: {bundled} bytes of {SIZE_BAR}")
    return 0 if good and bundled <= SIZE_BAR else 1


if __name__ == "__main__":
    sys.exit(main())
