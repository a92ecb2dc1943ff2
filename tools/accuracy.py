"""How far float32 is from the truth, ours and PyTorch's: `python tools/accuracy.py DIRECTORY... --image PICTURE`.

Needs the extra `crosscheck`. Each DIRECTORY is a Hugging Face checkpoint; the truth is transformers' model in float64.
Prints a Markdown table: relative rms error of the logits and of all hidden states, and the ratio ours / PyTorch's.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import transformers
from PIL import Image

import minimobile as mm


def relative_error(found: np.ndarray, truth: np.ndarray) -> float:
    """Return the rms of the difference over the rms of the truth."""
    return float(np.sqrt(np.mean((found - truth) ** 2) / np.mean(truth**2)))


def compare(directory: Path, picture: Image.Image) -> tuple[list[float], list[float]]:
    """Return the relative errors of ours and of PyTorch's, the logits' first, then those of the hidden states."""
    ours = mm.load(directory)
    theirs = getattr(transformers, type(ours).__name__).from_pretrained(directory).eval()
    pixels = ours.processor(picture, return_tensors="np")["pixel_values"]
    outputs = [ours(pixels, output_hidden_states=True)]
    with torch.no_grad():
        outputs.append(theirs(torch.from_numpy(pixels), output_hidden_states=True))
        outputs.append(theirs.double()(torch.from_numpy(pixels.astype(np.float64)), output_hidden_states=True))
    found, expected, truth = ([np.asarray(x, np.float64) for x in (o.logits, *o.hidden_states)] for o in outputs)
    return (
        [relative_error(x, y) for x, y in zip(found, truth, strict=True)],
        [relative_error(x, y) for x, y in zip(expected, truth, strict=True)],
    )


def mean(values: Sequence[float]) -> float:
    """Return the geometric mean."""
    return math.exp(sum(map(math.log, values)) / len(values))


def main() -> int:
    """Compare and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directories", nargs="+", type=Path)
    parser.add_argument("--image", type=Path, required=True)
    options = parser.parse_args()
    picture = Image.open(options.image).convert("RGB")
    print("| checkpoint | logits, ours | PyTorch | all layers, ours / PyTorch |\n|---|---|---|---|")
    for directory in options.directories:
        ours, theirs = compare(directory, picture)
        ratio = mean([x / y for x, y in zip(ours, theirs, strict=True)])
        print(f"| {directory.name} | {ours[0]:.1e} | {theirs[0]:.1e} | {ratio:.2f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
