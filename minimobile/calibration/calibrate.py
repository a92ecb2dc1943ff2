"""From a network and what is known of its maps to the network of integers: ranges, means, and rounding by them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from minimobile.calibration import data_free
from minimobile.calibration.equalization import equalize as equalize_layers
from minimobile.calibration.folding import Doubles, FoldedNetwork, has_statistics
from minimobile.calibration.method import BATCH_NORM, Method
from minimobile.calibration.observation import Observed, observe
from minimobile.calibration.pixels import expect_pixels, is_single, pixel_range
from minimobile.calibration.ranges import RANGES, Range, include_zero, make_grid, min_max
from minimobile.calibration.rounding import Rounded, round_network
from minimobile.calibration.subject import Subject
from minimobile.errors import FormatError, InputError
from minimobile.networks.graph import INPUT


class Calibration(NamedTuple):
    """A network in floats, perhaps equalised, and what is known of its maps: ranges and means by node."""

    folded: FoldedNetwork
    ranges: Mapping[str, Range]
    means: Mapping[str, Doubles]


def calibrate(subject: Subject, method: Method, choice: str) -> Calibration:
    """Return the network that is to be rounded, with a range and means for each of its maps; `choice` is of ranges."""
    checkpoint, pictures, where = subject.checkpoint, subject.pictures, subject.where
    folded = subject.fold()
    channels = checkpoint.config.num_channels
    limits = pixel_range(checkpoint.processor, channels)
    settled = None if limits is None else include_zero((limits[0].min(), limits[1].max()))
    if choice == BATCH_NORM:
        if not has_statistics(subject.model.graph, checkpoint.weights):
            raise FormatError(
                f"{where}: expected batch norm's statistics of training, found them folded in; give pictures"
            )
        if settled is None or checkpoint.processor is None:
            raise InputError(f"{where}: expected image-processor settings, found none; give pictures")
        pixels = expect_pixels(checkpoint.processor, channels, settled)
        if method.is_equalized:
            expected = data_free.expect(folded, pixels, where)
            folded = equalize_layers(folded, {name: moments.high for name, moments in expected.items()})
        moments = data_free.expect(folded, pixels, where)
        ranges = {name: data_free.batch_norm_range(each) for name, each in moments.items()}
        means = {name: each.mean for name, each in moments.items()}
    else:
        assert pictures is not None
    if pictures is not None:
        seen = observe(folded, pictures, subject.num_threads, where)
        if method.is_equalized and choice != BATCH_NORM:
            folded = equalize_layers(folded, {name: each.maxima.astype(np.float64) for name, each in seen.items()})
            seen = observe(folded, pictures, subject.num_threads, where)
        means = {name: each.means for name, each in seen.items()}
        if choice != BATCH_NORM:
            ranges = _choose_ranges(folded, seen, choice)
    return Calibration(folded, ranges if settled is None else {**ranges, INPUT: settled}, means)


def _choose_ranges(folded: FoldedNetwork, seen: Mapping[str, Observed], choice: str) -> dict[str, Range]:
    """Return the range of every map.

    The network's result keeps its largest values, for these are what is asked for. By squared error, so do maps without
    values below zero: what is cut off on one side alone moves the mean, and adds up from layer to layer.
    """
    kept = set(folded.graph.outputs)
    if choice == "squared_error":
        kept |= {name for name, each in seen.items() if each.minimum >= 0}
    return {name: (min_max if name in kept else RANGES[choice])(each) for name, each in seen.items()}


def round_calibrated(subject: Subject, calibration: Calibration, method: Method) -> Rounded:
    """Return the integers of a calibrated network."""
    means = calibration.means if method.correct_bias else None
    scheme = method.scheme()
    offset = 0.0
    limits = pixel_range(subject.checkpoint.processor, calibration.folded.graph.input_channels)
    if limits is not None and is_single(limits):
        grid = make_grid(INPUT, calibration.ranges[INPUT], scheme.dtype)
        first_byte = int(np.iinfo(scheme.dtype).min)
        offset = float(grid.scale) * (first_byte - grid.zero) - float(limits[0][0])
    return round_network(calibration.folded, calibration.ranges, scheme, means, subject.size, subject.where, offset)
