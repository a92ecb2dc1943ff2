"""Our values of layers beside those found elsewhere: a verdict on each, and on the whole."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from minimobile.comparison.array_differences import ArrayComparison, compare_arrays
from minimobile.comparison.diagnosis import diagnose
from minimobile.comparison.environment import describe_environment
from minimobile.comparison.float32_bounds import largest_excess, quantise
from minimobile.comparison.float64_run import run_float64
from minimobile.comparison.peers import Observed, as_map, compared_layers
from minimobile.comparison.report import LayerComparison, Report
from minimobile.comparison.suspect import Suspect, isolate
from minimobile.comparison.worst_value import find_worst
from minimobile.errors import InputError
from minimobile.models.classes import MobileNetModel
from minimobile.networks.graph import INPUT, Graph, needed_nodes
from minimobile.operations.operation import Weights
from minimobile.tracing.explanation import count_ulps

Array = NDArray[Any]

NAMED = 3  # so many arrays are worth naming


def compare_layers(
    model: MobileNetModel,
    pixels: Array,
    found: Mapping[str, Observed],
    against: str,
    other: MobileNetModel | None = None,
    their_weights: Weights | None = None,
) -> Report:
    """Compare a model's layers with values found elsewhere, by layer name; `other` is what was run there, if not this.

    `their_weights` are arrays of theirs under our names, where there is no `other`.
    Shapes: pixels (N, C, H, W) float32.
    """
    graph, weights = model.graph, model.state_dict()
    fed = found.get(INPUT, Observed(pixels)).values
    found = {graph.resolve(name): observed for name, observed in found.items() if name != INPUT}
    theirs = {name: _channels_last(observed.values) for name, observed in found.items()}
    names = [name for name in compared_layers(graph) if name in theirs]
    known = {INPUT: _channels_last(fed), **{name: theirs[name] for name in names}}
    if not names:
        raise InputError(
            f"{against}: expected values of some of our layers ({', '.join(compared_layers(graph)[:3])}, ...), got "
            f"{', '.join(list(found)[:3]) or 'none'}"
        )
    ours = {name: _channels_last(as_map(values)) for name, values in model.features(pixels, names).items()}
    truth = run_float64(graph, weights, known[INPUT], (INPUT, *names))
    if other is not None:
        their_weights = other.state_dict()
    arrays: tuple[ArrayComparison, ...] = ()
    if their_weights is not None:
        arrays = compare_arrays(weights, their_weights, graph, None if other is None else other.graph)
    layers, first = [], None
    for name in names:
        suspect = dataclasses.replace(isolate(graph, weights, name, known), grid=found[name].grid)
        alibi = None
        if other is not None and any(node.name == name for node in other.graph.nodes):
            alibi = isolate(other.graph, other.state_dict(), name, known)
        judged = _judge(suspect, ours[name], truth, alibi)
        layers.append(_compare(name, ours[name], theirs[name], truth[name], judged))
        if judged.agrees is False and first is None:
            first = name, dataclasses.replace(suspect, deviation=judged.deviation)
    differing = next((layer.name for layer in layers if layer.agrees is False), None)
    diagnosis, worst = None, None
    if first is not None:
        diagnosis = _blame(first[1], arrays) or diagnose(first[1])
        worst = find_worst(model, *first, pixels, known, their_weights)
    return Report(
        against, tuple(layers), arrays, worst=worst, environment=describe_environment(), first_difference=differing,
        diagnosis=diagnosis, doubt=_doubt(graph, layers),
    )  # fmt: skip


class _Judgement(NamedTuple):
    """What came of one layer; `deviation` is that of float32's error along it."""

    agrees: bool | None
    excess: float
    deviation: Array | None = None


def _judge(suspect: Suspect, ours: Array, truth: Mapping[str, Array], alibi: Suspect | None) -> _Judgement:
    """Judge what the other side found. `alibi` is the layer with the other side's own weights.

    Shapes: ours, truth (N, H, W, C).
    """
    if any(x.value.shape != truth[name].shape for name, x in suspect.inputs.items()):
        return _Judgement(False, math.inf)
    estimated = suspect.estimate()
    if estimated.value.shape != suspect.found.shape:
        return _Judgement(False, math.inf, estimated.deviation)
    excess = largest_excess(quantise(estimated, suspect.grid), suspect.found)
    if excess > 1 and alibi is not None:
        own = alibi.estimate()
        if own.error.shape == estimated.error.shape:
            error, deviation = np.maximum(estimated.error, own.error), np.hypot(estimated.deviation, own.deviation)
            wider = dataclasses.replace(estimated, error=error, deviation=deviation)
            excess = largest_excess(quantise(wider, suspect.grid), suspect.found)
    if excess > 1:
        return _Judgement(False, excess, estimated.deviation)
    # The same integers need no limits: there is nothing to be explained.
    is_same = suspect.grid is not None and bool(ours.any()) and np.array_equal(ours, suspect.found)
    return _Judgement(True if is_same or suspect.would_see_narrower_weights(estimated) else None, excess)


def _doubt(graph: Graph, layers: Sequence[LayerComparison]) -> str | None:
    """Say which part of the network has not been examined, or not sharply enough."""
    examined = {node.name for node in needed_nodes(graph, [layer.name for layer in layers])}
    missing = [name for name in compared_layers(graph) if name not in examined]
    if missing:
        others = f" and {len(missing) - 1} others" if len(missing) > 1 else ""
        return f"no values were shown of {missing[0]}{others}, nor of what depends on them"
    vague = [layer.name for layer in layers if layer.agrees is None]
    if vague:
        others = f" and {len(vague) - 1} others" if len(vague) > 1 else ""
        return f"at {vague[0]}{others} rounding alone may move the values by more than weights of fewer bits would"
    return None


def _blame(suspect: Suspect, arrays: Sequence[ArrayComparison]) -> str | None:
    """Name the arrays of a layer that differ on the other side, unless they come to the same once they are folded."""
    used = {name for node in suspect.nodes for name in node.weights.values()}
    guilty = [array for array in arrays if array.name in used and array.differs and not array.is_same_folded]
    if not guilty:
        return None
    others = f"; and {len(guilty) - NAMED} arrays more" if len(guilty) > NAMED else ""
    return f"weights: {'; '.join(map(str, guilty[:NAMED]))}{others}"


def _compare(name: str, ours: Array, theirs: Array, truth: Array, judged: _Judgement) -> LayerComparison:
    shape, their_shape = ((x.shape[0], x.shape[3], *x.shape[1:3]) for x in (ours, theirs))
    layer = LayerComparison(name, shape, their_shape, judged.agrees, judged.excess)
    if shape != their_shape:
        return layer
    with np.errstate(all="ignore"):
        wide, their_wide = ours.astype(np.float64), theirs.astype(np.float64)
        difference = np.abs(wide - their_wide)
        distances = count_ulps(ours.astype(np.float32), theirs.astype(np.float32))
        norms = math.sqrt(float(np.sum(wide**2)) * float(np.sum(their_wide**2)))
        return dataclasses.replace(
            layer,
            max_difference=float(difference.max()),
            rms_difference=_rms(difference),
            our_error=_relative(_rms(wide - truth), _rms(truth)),
            their_error=_relative(_rms(their_wide - truth), _rms(truth)),
            max_ulps=int(distances.max()),
            median_ulps=float(np.median(distances)),
            cosine=float(np.sum(wide * their_wide)) / norms if norms else float(not difference.any()),
        )


def _rms(values: Array) -> float:
    return math.sqrt(float(np.mean(np.square(values))))


def _relative(error: float, scale: float) -> float:
    return error / scale if scale else (math.inf if error else 0.0)


def _channels_last(values: Array) -> Array:
    return np.ascontiguousarray(values.transpose(0, 2, 3, 1))
