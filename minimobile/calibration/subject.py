"""What is to be quantised: a model in floats, its numbers, and the pictures that calibrate it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from minimobile.calibration.folding import FoldedNetwork, fold
from minimobile.calibration.judgement import LayerJudgement, compare_layers
from minimobile.calibration.pixels import Pictures, Track, input_size
from minimobile.errors import FormatError, InputError
from minimobile.formats.checkpoint import Checkpoint
from minimobile.formats.tflite.tflite_detection import settle_rules
from minimobile.models.auto import load
from minimobile.models.base_model import MobileNetModel
from minimobile.operations.passes import fold_batch_norm, fuse_activations
from minimobile.quantized.network import Network


@dataclass(frozen=True)
class Subject:
    """A model in floats with its checkpoint, and pictures or None; `notes` say what had to be changed of it."""

    model: MobileNetModel
    checkpoint: Checkpoint
    pictures: Pictures | None
    num_threads: int | None
    notes: tuple[str, ...]

    @property
    def where(self) -> str:
        """What messages begin with."""
        return self.checkpoint.provenance.get("source", self.checkpoint.architecture)

    @property
    def size(self) -> tuple[int, int]:
        """The height and width of the network's pictures."""
        return input_size(self.model)

    def fold(self) -> FoldedNetwork:
        """Return the network without batch norm. Raises FormatError for weights that are not finite."""
        folded = fold(self.model.graph, self.checkpoint.weights)
        for node in folded.convolutions():
            for role in ("weight", "bias"):
                if not np.isfinite(folded.weights[node.weights[role]]).all():
                    raise FormatError(
                        f"{self.where}: {node.name}: expected weights that are finite numbers, found others"
                    )
        return folded

    def compare(self, folded: FoldedNetwork, network: Network) -> dict[str, LayerJudgement]:
        """Return what integers make of each layer on the first pictures; {} without pictures."""
        if self.pictures is None:
            return {}
        return compare_layers(folded, network, self.pictures, self.num_threads)


def take(model_or_source: MobileNetModel | str | Path, pictures: Any, num_threads: int | None, track: Track) -> Subject:
    """Return what is to be quantised; `track` shows how far each pass over the pictures has come.

    Raises InputError for a model of integers, or one that was trained for quantisation, FormatError for an activation
    that no layer of integers has; all before a picture is read.
    """
    model = load_floats(model_or_source, num_threads)
    checkpoint, notes = settle_rules(model.to_checkpoint())
    found = None if pictures is None else Pictures(model, pictures, track)
    subject = Subject(model, checkpoint, found, num_threads, notes)
    for name, function in _unknown_activations(model):
        raise FormatError(f"{subject.where}: {name}: expected relu6, relu or no activation, found {function}")
    return subject


def load_floats(model_or_source: MobileNetModel | str | Path, num_threads: int | None) -> MobileNetModel:
    """Return a model in floats. Raises InputError for one of integers, or one that was trained for quantisation."""
    model = model_or_source
    if not isinstance(model, MobileNetModel):
        model = load(model, num_threads=num_threads)
    if model.is_quantized:
        raise InputError("quantize: expected a model in floats, got one that runs in integers already")
    if model.to_checkpoint().ranges:
        raise InputError(
            "quantize: expected a network of plain floats, got one that was trained for quantisation; "
            "load it with quantized=True, and save that"
        )
    return model


def _unknown_activations(model: MobileNetModel) -> Iterator[tuple[str, str]]:
    """Yield nodes whose activation is not part of the layer before, each with its function."""
    for node in fuse_activations(fold_batch_norm(model.graph)).nodes:
        if "function" in node.attributes:
            yield node.name, node.attributes["function"]
