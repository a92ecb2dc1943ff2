"""From a model in floats to one in integers: `quantize`."""

from __future__ import annotations

import dataclasses
import warnings
from pathlib import Path
from typing import Any, NamedTuple

from minimobile.calibration.calibrate import Calibration, calibrate, round_calibrated
from minimobile.calibration.integers import as_checkpoint
from minimobile.calibration.method import DEFAULT_METHOD, Method
from minimobile.calibration.pixels import Pictures, Track
from minimobile.calibration.rounding import Rounded
from minimobile.calibration.subject import Subject, take
from minimobile.execution.runner import RunOptions
from minimobile.models import classes
from minimobile.models.base_model import MobileNetModel


class Quantized(NamedTuple):
    """The model of integers, what it was made of, and how; `used` is how many pictures calibrated it."""

    model: MobileNetModel
    subject: Subject
    calibration: Calibration
    rounded: Rounded
    method: Method
    range_choice: str
    is_equalized: bool
    used: int

    @property
    def pictures(self) -> Pictures | None:
        """The pictures, and which of them were left out."""
        return self.subject.pictures


def quantize(
    model_or_source: MobileNetModel | str | Path,
    pictures: Any = None,
    *,
    per_channel: bool = True,
    ranges: str | None = None,
    equalize: bool | None = None,
    correct_bias: bool = True,
    input_type: str = "uint8",
    num_threads: int | None = None,
) -> MobileNetModel:
    """Return a model that computes in integers what a model in floats does, as from a quantised file.

    The result runs in integers (`run_quantized`, `trace`, ...), and `save("model.tflite")` writes them. The same model
    and pictures give the same bytes on every machine.

    Args:
        model_or_source: a model in floats, or what `load` takes.
        pictures: photographs like those that it will see, fifty to a few hundred: paths, folders, PIL images or arrays,
            or pixel values (N, C, H, W). Those that cannot be read are left out, with a warning. None: batch norm's
            statistics say what values to expect.
        per_channel: int8 with a scale for each output channel; False: uint8 with one for each tensor, for old
            accelerators, which costs accuracy.
        ranges: how the range of each map is chosen: "min_max", "moving_average" or "squared_error" (None: the last), or
            "batch_norm", which needs no picture.
        equalize: make the channels of neighbouring layers alike first. None: not with a scale per channel, and with one
            for all where it loses less on the pictures.
        correct_bias: take off each bias by how much rounding the weights moves a layer's mean.
        input_type: of input and output: "uint8", "int8" or "float32".
        num_threads: None: all cores. The bytes do not depend on it.

    Raises:
        InputError: a model that is quantised already, an option that is none, or no picture that can be used.
        FormatError: a network that has no form in integers, or has numbers that are not finite.
    """
    method = Method(per_channel, ranges, equalize=equalize, correct_bias=correct_bias, input_type=input_type)
    result = quantize_by(model_or_source, pictures, method, num_threads)
    for sentence in result.pictures.skipped if result.pictures else ():
        warnings.warn(sentence, stacklevel=2)
    for sentence in result.rounded.notes:
        warnings.warn(sentence, stacklevel=2)
    return result.model


def quantize_by(
    model_or_source: MobileNetModel | str | Path,
    pictures: Any = None,
    method: Method = DEFAULT_METHOD,
    num_threads: int | None = None,
    track: Track = iter,
) -> Quantized:
    """Do what `quantize` does, by a `method`, and return all that there is to say of it. `track` shows the progress."""
    subject = take(model_or_source, pictures, num_threads, track)
    choice = method.choose_ranges(subject.pictures is not None)
    is_equalized, calibration, rounded = _round_best(subject, method, choice)
    rounded = dataclasses.replace(rounded, notes=(*subject.notes, *rounded.notes))
    settled = as_checkpoint(subject.checkpoint, rounded.network, method.input_type, subject.where)
    model_class: type[MobileNetModel] = getattr(classes, settled.architecture)
    made = model_class.from_checkpoint(settled, options=RunOptions(num_threads=num_threads))
    used = subject.pictures.used if subject.pictures is not None else 0
    return Quantized(made, subject, calibration, rounded, method, choice, is_equalized, used)


def _round_best(subject: Subject, method: Method, choice: str) -> tuple[bool, Calibration, Rounded]:
    """Return whether channels were made alike, the network and its integers.

    Where neither way is asked for and there is one scale for all channels, that is tried which loses less of the
    network's results on the pictures; without pictures they are made alike.
    """
    is_tried = method.equalize is None and not method.per_channel and subject.pictures is not None
    best: tuple[float, bool, Calibration, Rounded] | None = None
    for is_equalized in (False, True) if is_tried else (method.is_equalized,):
        way = dataclasses.replace(method, equalize=is_equalized)
        calibration = calibrate(subject, way, choice)
        rounded = round_calibrated(subject, calibration, way)
        kept = 0.0
        if is_tried:
            judged = subject.compare(calibration.folded, rounded.network)
            kept = sum(judged[name].signal_to_noise for name in calibration.folded.graph.outputs)
        if best is None or kept > best[0]:
            best = kept, is_equalized, calibration, rounded
    assert best is not None
    return best[1:]
