"""Cross-checking: the same pixels through us and through another framework, layer by layer, and what differs first."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from minimobile.comparison.diagnosis import Suspect, Verdict, diagnose
from minimobile.comparison.float32_bounds import exact, excess, quantise, run_float64
from minimobile.comparison.peers import (
    Observed,
    Peer,
    as_map,
    compared_layers,
    run_peer,
)
from minimobile.errors import InputError
from minimobile.imaging.pictures import bring_upright
from minimobile.models import classes
from minimobile.models.classes import MobileNetModel
from minimobile.models.inputs import read_pixel_values
from minimobile.models.sources import read_checkpoint
from minimobile.networks.graph import INPUT, Graph, Node, sweep_back
from minimobile.tracing.explanation import count_ulps

Array = NDArray[Any]
OtherSide = Callable[[Array], Mapping[str, ArrayLike]]


@dataclass(frozen=True)
class LayerComparison:
    """One layer on both sides. Shapes are (N, C, H, W); what cannot be told, because they differ, is None.

    `max_difference` and `rms_difference` are between the sides; `our_error` and `their_error` are the rms distance of
    each from the float64 run, relative to that run's rms; `max_ulps` and `median_ulps` count the float32 numbers from
    one side's value to the other's; `cosine` is that of the angle between them. `excess` is how many times larger than
    what float32 (or, in a quantised file, a step of the tensor's grid) explains their worst value is off, on their own
    inputs: above 1 the layer differs.
    """

    name: str
    shape: tuple[int, ...]
    their_shape: tuple[int, ...]
    agrees: bool
    excess: float
    max_difference: float | None = None
    rms_difference: float | None = None
    our_error: float | None = None
    their_error: float | None = None
    max_ulps: int | None = None
    median_ulps: float | None = None
    cosine: float | None = None


@dataclass(frozen=True)
class Report(Verdict):
    """What a comparison of layers found; `first_difference` names a layer.

    `agrees` is whether rounding explains every difference: that of float32, or of a tensor's integers.
    """

    against: str
    layers: tuple[LayerComparison, ...]


def check(
    source: MobileNetModel | str | Path,
    image: Any = None,
    against: str | OtherSide = "transformers",
    other: MobileNetModel | str | Path | None = None,
    *,
    pixel_values: ArrayLike | None = None,
) -> Report:
    """Run a network here and elsewhere on the same pixels, and name the first layer that differs.

    A layer differs where the other side's value is farther from the float64 definition, evaluated on the other side's
    own input of that layer, than any order of float32 arithmetic can bring it (`rounding.estimate`). Errors of earlier
    layers do not count, and no tolerance is chosen. Where the other side runs weights of its own, it may also err by as
    much as those allow: two batch norms that fold to the same convolution need not round alike.

    Args:
        source: a model, or what `load` takes.
        image: one picture, in any form that the model's image processor takes.
        against: "transformers", "tensorflow", "litert", "onnxruntime", "reference" (our definitions in NumPy), or a
            function from pixel values (N, C, H, W) to {layer name: values (N, C, H, W) or (N, C)}.
        other: what the other side runs; None: the same source.
        pixel_values: (N, C, H, W), in place of a picture.

    Raises:
        InputError: an argument has no meaning, or the sides have no layer in common.
        FormatError: a source cannot be read.
        UnavailableError: the framework is not installed.
    """
    model, peer = _open(source)
    if other is not None:
        peer = _open(other)[1]
    pixels = _read_pixels(model, image, pixel_values)
    if callable(against):
        name = getattr(against, "__name__", "the function given")
        found = {layer: _read_values(name, layer, values) for layer, values in against(pixels).items()}
    else:
        name, found = against, run_peer(against, peer, pixels)
    return compare_layers(model, pixels, found, name, None if other is None else peer.model)


def compare_layers(
    model: MobileNetModel,
    pixels: Array,
    found: Mapping[str, Observed],
    against: str,
    other: MobileNetModel | None = None,
) -> Report:
    """Compare a model's layers with values found elsewhere, by layer name; `other` is what was run there, if not this.

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
    layers, first = [], None
    for name in names:
        suspect = dataclasses.replace(isolate(graph, weights, name, known), grid=found[name].grid)
        alibi = None
        if other is not None and any(node.name == name for node in other.graph.nodes):
            alibi = isolate(other.graph, other.state_dict(), name, known)
        multiple = _judge(suspect, truth, alibi)
        layers.append(_compare(name, ours[name], theirs[name], truth[name], multiple))
        if multiple > 1 and first is None:
            first = suspect
    differing = next((layer.name for layer in layers if not layer.agrees), None)
    diagnosis = None if first is None else diagnose(first)
    return Report(against, tuple(layers), first_difference=differing, diagnosis=diagnosis)


def isolate(graph: Graph, weights: Mapping[str, Array], layer: str, known: Mapping[str, Array]) -> Suspect:
    """Return one layer as a suspect: the nodes back to the nearest known values (`pixel_values` must be among them).

    Shapes: known (N, H, W, C).
    """

    def reads(node: Node) -> list[str]:
        return [name for name in node.inputs if name not in known]

    nodes = sweep_back(graph.nodes, [layer], lambda node: (node.name,), reads)
    inputs = sorted({name for node in nodes for name in node.inputs if name in known})
    return Suspect(nodes, weights, {name: exact(known[name]) for name in inputs}, known[layer])


def _judge(suspect: Suspect, truth: Mapping[str, Array], alibi: Suspect | None) -> float:
    """Return the largest excess of what the other side found, infinite where shapes differ.

    `alibi` is the layer with the other side's own weights.
    """
    if any(x.value.shape != truth[name].shape for name, x in suspect.inputs.items()):
        return math.inf
    expected = quantise(suspect.estimate(), suspect.grid)
    if expected.value.shape != suspect.found.shape:
        return math.inf
    multiple = float(excess(expected, suspect.found).max())
    if multiple > 1 and alibi is not None:
        own = alibi.estimate()
        if own.error.shape == expected.error.shape:
            wider = dataclasses.replace(expected, error=np.maximum(expected.error, own.error))
            multiple = float(excess(wider, suspect.found).max())
    return multiple


def _compare(name: str, ours: Array, theirs: Array, truth: Array, multiple: float) -> LayerComparison:
    shape, their_shape = ((x.shape[0], x.shape[3], *x.shape[1:3]) for x in (ours, theirs))
    layer = LayerComparison(name, shape, their_shape, multiple <= 1, multiple)
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


def _open(source: MobileNetModel | str | Path) -> tuple[MobileNetModel, Peer]:
    if isinstance(source, MobileNetModel):
        return source, Peer(source)
    checkpoint = read_checkpoint(source)
    model_class: type[MobileNetModel] = getattr(classes, checkpoint.architecture)
    model = model_class.from_checkpoint(checkpoint)
    path = Path(source).expanduser()
    return model, Peer(model, path if path.exists() else None, checkpoint.endpoints)


def _read_values(against: str, layer: str, values: ArrayLike) -> Observed:
    found = as_map(np.asarray(values))
    if found.ndim != 4 or found.dtype.kind != "f":
        raise InputError(
            f"{against}: {layer}: expected values (N, C, H, W) or (N, C), got shape {found.shape} of {found.dtype}"
        )
    return Observed(found)


def _read_pixels(model: MobileNetModel, image: Any, pixel_values: ArrayLike | None) -> Array:
    if (image is None) == (pixel_values is None):
        raise InputError("check: expected either a picture or pixel_values, got both or neither")
    if image is not None:
        if model.processor is None:
            raise InputError("check: expected a model with image-processor settings, got none; give pixel_values")
        pixel_values = model.processor(bring_upright(image), return_tensors="np")["pixel_values"]
    return read_pixel_values(pixel_values, model.graph.input_channels, "channels_first")


def _channels_last(values: Array) -> Array:
    return np.ascontiguousarray(values.transpose(0, 2, 3, 1))


def _rms(values: Array) -> float:
    return math.sqrt(float(np.mean(np.square(values))))


def _relative(error: float, scale: float) -> float:
    return error / scale if scale else (math.inf if error else 0.0)
