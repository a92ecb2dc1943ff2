"""Run random networks on random numbers of threads from random callers: no bit may differ from one thread's.

    python -m tools.soak_bits --seed 0 --minutes 30

Each round has a seed of its own, from which follow a network (V1, V2, DeepLab or SSD, in floats or in bytes), pictures,
engines that come and go while they are called, and who calls them when. What one thread computes is first compared with
the definitions in NumPy. Ends with exit code 1 where anything differs, and names the seed.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

import minimobile as mm
from minimobile.execution.runner import RunOptions
from tools.bench_cases import random_weights

Open = Callable[..., Callable[[Any], str]]
"""From `num_threads` and `engine` to a function from a picture to the hash of all that is computed from it."""
CLASSES = (
    mm.MobileNetV1ForImageClassification,
    mm.MobileNetV2ForImageClassification,
    mm.MobileNetV2ForSemanticSegmentation,
    mm.MobileNetV1ForObjectDetection,
    mm.MobileNetV2ForObjectDetection,
)
WIDTHS = (0.25, 0.35, 0.5, 0.75, 1.0, 1.3)
CALLS = 60  # of a round


@dataclasses.dataclass(frozen=True)
class Subject:
    """A network as one round runs it, and pictures for it."""

    name: str
    open: Open
    pictures: list[Any]


def hash_values(values: Sequence[Any]) -> str:
    """Return the SHA-256 of arrays."""
    digest = hashlib.sha256()
    for value in values:
        digest.update(np.ascontiguousarray(value).tobytes())
    return digest.hexdigest()


def draw_checkpoint(kind: Any, config: Any) -> Any:
    """Return a checkpoint with weights that keep values in range."""
    random_model = kind(config)
    return dataclasses.replace(random_model.to_checkpoint(), weights=random_weights(random_model.graph))


def draw_floats(chance: random.Random, rng: np.random.Generator) -> Subject:
    """Return a network in floats with random weights, and pictures of several sizes and batches."""
    kind, width = chance.choice(CLASSES), chance.choice(WIDTHS)
    config = kind.config_class(depth_multiplier=width, num_labels=chance.randint(2, 40))
    checkpoint = draw_checkpoint(kind, config)
    sizes = [(chance.randint(1, 3), 3, chance.randint(33, 160), chance.randint(33, 160)) for _ in range(3)]
    pictures = [rng.uniform(-1, 1, size).astype(np.float32) for size in sizes]

    def open_model(**options: Any) -> Callable[[Any], str]:
        model = kind.from_checkpoint(checkpoint, options=RunOptions(**options))
        return lambda picture: hash_values([value for value in model(picture).to_tuple() if value is not None])

    return Subject(f"{kind.__name__} {width} {sizes}", open_model, pictures)


def draw_bytes(chance: random.Random, rng: np.random.Generator, folder: Path) -> Subject:
    """Return a network in integers, quantised from one with random weights, and pictures of its size."""
    kind, width = chance.choice(CLASSES[:3]), chance.choice(WIDTHS)
    size, per_channel = chance.choice([64, 96, 128, 160]), chance.random() < 0.5
    config = kind.config_class(depth_multiplier=width, num_labels=chance.randint(2, 40), image_size=size)
    floats = kind.from_checkpoint(draw_checkpoint(kind, config))
    samples = rng.uniform(-1, 1, (1, 3, size, size)).astype(np.float32)
    path = folder / "model.tflite"
    mm.quantize(floats, samples, per_channel=per_channel, ranges="min_max", correct_bias=False).save(path)
    shape = mm.load(path).quantized_input.shape
    pictures = [rng.integers(0, 256, shape, np.uint8) for _ in range(3)]

    def open_model(**options: Any) -> Callable[[Any], str]:
        model = mm.load(path, **options)
        stored = model.quantized_input.dtype

        def run(picture: Any) -> str:
            found = model.run_quantized(picture.view(stored))
            return hash_values(list(found.values()) if isinstance(found, dict) else np.atleast_1d(found))

        return run

    return Subject(f"{kind.__name__} {width} {size} {per_channel=}", open_model, pictures)


def check(subject: Subject, chance: random.Random, is_defined: bool) -> int:
    """Make the calls of a round and return how many results were compared. Raises AssertionError for a difference."""
    alone = subject.open(num_threads=1)
    expected = [alone(picture) for picture in subject.pictures]
    if is_defined:
        assert subject.open(engine="reference")(subject.pictures[0]) == expected[0], "the definitions differ"
    engines = {threads: subject.open(num_threads=threads) for threads in (1, 2, 2 + chance.randrange(1, 6))}
    plan = [(chance.randrange(len(expected)), chance.choice(list(engines)), chance.random()) for _ in range(CALLS)]

    def call(step: tuple[int, int, float]) -> None:
        which, threads, luck = step
        if luck < 0.05:
            engines[threads] = subject.open(num_threads=threads)  # the one before goes while others may be calling it
        if luck > 0.9:
            time.sleep((luck - 0.9) / 50)  # helpers fall asleep
        found = engines[threads](subject.pictures[which])
        assert found == expected[which], f"picture {which} on {threads} threads differs"

    with ThreadPoolExecutor(chance.randint(1, 4)) as callers:
        list(callers.map(call, plan))
    return CALLS + is_defined


def check_child(subject: Subject) -> None:
    """Call an engine, fork, and compare what the child computes with what the parent does."""
    run = subject.open(num_threads=2)
    expected = run(subject.pictures[0])
    child = os.fork()
    if child == 0:
        is_same = False
        try:
            is_same = all(run(subject.pictures[0]) == expected for _ in range(5))
        finally:
            os._exit(0 if is_same else 1)
    _, status = os.waitpid(child, 0)
    assert status == 0, "a forked child computes something else"


def soak(seed: int, minutes: float) -> int:
    """Soak, print what was done, and return the exit code."""
    rounds = compared = 0
    end = time.monotonic() + 60 * minutes
    with tempfile.TemporaryDirectory() as folder:
        while time.monotonic() < end:
            chance, rng = random.Random(seed + rounds), np.random.default_rng(seed + rounds)
            is_bytes = chance.random() < 0.4
            subject = draw_bytes(chance, rng, Path(folder)) if is_bytes else draw_floats(chance, rng)
            try:
                compared += check(subject, chance, is_defined=rounds % 4 == 0)
                if hasattr(os, "fork") and chance.random() < 0.2:
                    check_child(subject)
            except AssertionError as error:
                sys.stdout.write(f"seed {seed + rounds}, {subject.name}: {error}\n")
                return 1
            rounds += 1
    sys.stdout.write(f"{rounds} rounds, {compared} results compared, no bit differs\n")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the command line, and soak."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=1)
    given = parser.parse_args(arguments)
    return soak(given.seed, given.minutes)


if __name__ == "__main__":
    sys.exit(main())
