"""What quantising did to every layer, and what each step of the method gained."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from minimobile.calibration.calibrate import calibrate, round_calibrated
from minimobile.calibration.folding import FoldedNetwork
from minimobile.calibration.judgement import LayerJudgement
from minimobile.calibration.method import BATCH_NORM, Method
from minimobile.calibration.quantize import Quantized
from minimobile.calibration.rounding import Rounded
from minimobile.calibration.sums import sum_in_order


@dataclass(frozen=True)
class LayerReport:
    """One layer: what its bytes stand for, from `low` to `high` in steps of `scale`, and what they lost.

    `weight_scales` are the least and the largest, `weights` the signal-to-noise ratio of its weights in decibels; None
    for a layer without. `steps` is that ratio of its values after each step of the method, `saturated` the share of
    values beyond the range and `shift` that of the mean, in parts of the values' rms; none without pictures.
    """

    name: str
    scale: float
    zero: int
    low: float
    high: float
    weight_scales: tuple[float, float] | None
    weights: float | None
    steps: Mapping[str, float]
    saturated: float | None
    shift: float | None


@dataclass(frozen=True)
class QuantizationReport:
    """The method, how many pictures it saw, what was left out, and the layers in order."""

    method: Method
    ranges: str
    is_equalized: bool
    pictures: int
    skipped: tuple[str, ...]
    notes: tuple[str, ...]
    layers: tuple[LayerReport, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return dataclasses.asdict(self)


def list_steps(method: Method, ranges: str, is_equalized: bool) -> dict[str, tuple[Method, str]]:
    """Return the steps from the plainest method to one, each with the method so far and its ranges, by name."""
    plain = dataclasses.replace(
        method, ranges=None, weights="min_max", rounding="nearest", equalize=False, correct_bias=False
    )
    steps = {"plain": (plain, ranges if ranges == BATCH_NORM else "min_max")}

    def add(name: str, **changes: Any) -> None:
        last, choice = list(steps.values())[-1]
        chosen = str(changes.pop("choice", choice))
        reached = dataclasses.replace(last, **changes)
        if (reached, chosen) != (last, choice):
            steps[name] = reached, chosen

    add("ranges", choice=ranges, weights=method.weights)
    add("equalized", equalize=is_equalized)
    add("balanced", rounding=method.rounding)
    add("bias", correct_bias=method.correct_bias)
    return steps


def make_report(result: Quantized) -> QuantizationReport:
    """Return the report on what `quantize_by` made: the network after each step of the method, on the pictures."""
    subject = result.subject
    judged: dict[str, Mapping[str, LayerJudgement]] = {}
    if subject.pictures is not None:
        for name, (method, choice) in list_steps(result.method, result.range_choice, result.is_equalized).items():
            found = calibrate(subject, method, choice)
            rounded = round_calibrated(subject, found, method)
            judged[name] = subject.compare(found.folded, rounded.network)
    pictures = result.pictures
    return QuantizationReport(
        method=result.method,
        ranges=result.range_choice,
        is_equalized=result.is_equalized,
        pictures=result.used,
        skipped=pictures.skipped if pictures else (),
        notes=result.rounded.notes,
        layers=tuple(_report_layer(result, node.name, judged) for node in result.calibration.folded.graph.nodes),
    )


def _report_layer(result: Quantized, name: str, judged: Mapping[str, Mapping[str, LayerJudgement]]) -> LayerReport:
    rounded, folded = result.rounded, result.calibration.folded
    tensor = rounded.network.tensors[name]
    limits = np.iinfo(tensor.dtype)
    low, high = (float(tensor.scale) * (int(limit) - tensor.zero) for limit in (limits.min, limits.max))
    last = list(judged.values())[-1][name] if judged else None
    scales = None
    if name in rounded.weights:
        found = rounded.network.tensors[folded.graph.node(name).weights["weight"]].scales
        scales = float(found.min()), float(found.max())
    return LayerReport(
        name=name,
        scale=float(tensor.scale),
        zero=tensor.zero,
        low=low,
        high=high,
        weight_scales=scales,
        weights=_weight_ratio(folded, rounded, name),
        steps={step: layers[name].signal_to_noise for step, layers in judged.items()},
        saturated=None if last is None else last.saturated,
        shift=None if last is None else last.shift,
    )


def _weight_ratio(folded: FoldedNetwork, rounded: Rounded, name: str) -> float | None:
    """Return the signal-to-noise ratio of a layer's weights in decibels; None where it has none."""
    if name not in rounded.weights:
        return None
    weight = folded.weights[folded.graph.node(name).weights["weight"]]
    noise = float(sum_in_order((rounded.weights[name] - weight).reshape(-1) ** 2))
    signal = float(sum_in_order(weight.reshape(-1) ** 2))
    return 10 * math.log10(signal / noise) if signal > 0 and noise > 0 else math.inf
