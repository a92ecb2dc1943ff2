"""Exports of a network with one fault each, as a careless converter makes them; and what each is called."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from planted import with_weights

from minimobile.models.classes import MobileNetModel

Array = NDArray[Any]
Weights = Mapping[str, Array]


class Fault(NamedTuple):
    """What is done to the weights, to the config and to the pixels of the other side."""

    weights: Callable[[Weights], dict[str, Array]] = lambda weights: {}
    fields: Mapping[str, Any] = {}
    pixels: Callable[[Array], Array] = lambda pixels: pixels
    words: str = ""
    """What the diagnosis says where all layers are given; nothing where it is not known by name."""


def _kernels(kind: str) -> Callable[[Weights], list[str]]:
    def find(weights: Weights) -> list[str]:
        by_kind = {"depthwise": lambda s: s[1] == 1 and s[2] > 1, "1x1": lambda s: s[2] == 1}
        return [name for name, values in weights.items() if values.ndim == 4 and by_kind[kind](values.shape)]

    return find


def _each(role: str, change: Callable[[Array], Array]) -> Callable[[Weights], dict[str, Array]]:
    """Change every array of a role."""

    def apply(weights: Weights) -> dict[str, Array]:
        return {name: change(values) for name, values in weights.items() if name.endswith(f".normalization.{role}")}

    return apply


def _middle(kind: str, change: Callable[[Array], Array]) -> Callable[[Weights], dict[str, Array]]:
    """Change the kernel in the middle of those of a kind."""

    def apply(weights: Weights) -> dict[str, Array]:
        names = _kernels(kind)(weights)
        name = names[len(names) // 2]
        return {name: np.ascontiguousarray(change(weights[name]))}

    return apply


def _one_normalization(**roles: float) -> Callable[[Weights], dict[str, Array]]:
    """Set arrays of the batch norm in the middle of the network to a constant."""

    def apply(weights: Weights) -> dict[str, Array]:
        names = [name for name in weights if name.endswith(".normalization.running_var")]
        stem = names[len(names) // 2].removesuffix("running_var")
        return {stem + role: np.full_like(weights[stem + role], value) for role, value in roles.items()}

    return apply


def _leave_out(weights: Weights) -> dict[str, Array]:
    """Leave a batch norm out, for which an epsilon of 0.001 is compensated."""
    return _one_normalization(running_mean=0, bias=0, weight=1, running_var=1 - 1e-3)(weights)


def _head(role: str, change: Callable[[Array], Array]) -> Callable[[Weights], dict[str, Array]]:
    def apply(weights: Weights) -> dict[str, Array]:
        name = next(name for name in reversed(weights) if "classifier" in name and name.endswith(role))
        return {name: change(weights[name])}

    return apply


def _classes(weights: Weights) -> dict[str, Array]:
    names = [name for name in weights if "classifier" in name]
    return {name: np.roll(weights[name], 1, axis=0) for name in names}


def _exchange(weights: Weights) -> dict[str, Array]:
    """Exchange two layers of the same shape, batch norms and all."""
    shapes: dict[tuple[int, ...], str] = {}
    for name in _kernels("depthwise")(weights):
        if weights[name].shape in shapes and len(weights[name]) > 16:
            one, other = (full.removesuffix("convolution.weight") for full in (shapes[weights[name].shape], name))
            pairs = {full: other + full.removeprefix(one) for full in weights if full.startswith(one)}
            return {a: weights[b] for x, y in pairs.items() for a, b in ((x, y), (y, x))}
        shapes[weights[name].shape] = name
    raise AssertionError("no two layers of one shape")


def _one_weight(kernel: Array) -> Array:
    """Make the largest weight 1 % larger."""
    changed = kernel.copy()
    changed.flat[np.abs(kernel).argmax()] *= 1.01
    return changed


def _to(dtype: str) -> Callable[[Weights], dict[str, Array]]:
    def apply(weights: Weights) -> dict[str, Array]:
        return {
            name: values.astype(dtype).astype(np.float32)
            for name, values in weights.items()
            if values.dtype.kind == "f"
        }

    return apply


def _stem(change: Callable[[Array], Array]) -> Callable[[Weights], dict[str, Array]]:
    return lambda weights: {
        next(iter(weights)): np.ascontiguousarray(change(weights[next(iter(weights))])),
    }


FAULTS: Mapping[str, Fault] = {
    "epsilon": Fault(fields={"layer_norm_eps": 1e-5}, words="batch norm: epsilon 1e-05"),
    "padding": Fault(fields={"tf_padding": False}, words="padding: symmetric, as PyTorch's"),
    "BGR": Fault(pixels=lambda x: x[:, ::-1], words="channel order: BGR for RGB"),
    "pixels in [0, 1]": Fault(pixels=lambda x: (x + 1) / 2, words="normalisation: pixels as [0, 1]"),
    "ImageNet's mean and deviation": Fault(
        pixels=lambda x: (
            ((x + 1) / 2 - np.reshape([0.485, 0.456, 0.406], (3, 1, 1))) / np.reshape([0.229, 0.224, 0.225], (3, 1, 1))
        ),
        words="normalisation: pixels as ImageNet's mean and deviation",
    ),
    "pixels in [0, 255]": Fault(pixels=lambda x: (x + 1) * 127.5, words="normalisation: pixels as [0, 255]"),
    "1x1 transposed": Fault(_middle("1x1", lambda w: w.swapaxes(0, 1).reshape(w.shape)), words="weights: 1x1 kernels "),
    "depthwise transposed": Fault(
        _middle("depthwise", lambda w: w.swapaxes(2, 3)), words="weights: depthwise kernels transposed"
    ),
    "depthwise turned": Fault(
        _middle("depthwise", lambda w: w[..., ::-1, ::-1]), words="weights: depthwise kernels turned by 180 degrees"
    ),
    "relu": Fault(fields={"hidden_act": "relu"}, words="activation: relu; ours is relu6"),
    "no activation": Fault(fields={"hidden_act": "linear"}, words="activation: none"),
    "shifted classes": Fault(_classes, words="classes:"),
    "batch norm left out": Fault(_leave_out, words="batch norm: left out"),
    "mean forgotten": Fault(_one_normalization(running_mean=0), words="batch norm: its mean forgotten"),
    "shift forgotten": Fault(_one_normalization(bias=0), words="batch norm: its shift (beta) forgotten"),
    "scale forgotten": Fault(_one_normalization(weight=1), words="batch norm: its scale (gamma) forgotten"),
    "variance forgotten": Fault(_one_normalization(running_var=1), words="batch norm: its variance forgotten"),
    "bias zeroed": Fault(_head("bias", np.zeros_like), words="weights: "),
    "layers exchanged": Fault(_exchange, words="layers exchanged: the weights of"),
    "float16 weights": Fault(_to("float16"), words="weights: rounded to float16"),
    "one weight off by 1 %": Fault(_middle("1x1", _one_weight)),
    "one bias off by 1 %": Fault(
        _head("bias", lambda b: np.where(np.arange(len(b)) == np.abs(b).argmax(), b * 1.01, b))
    ),
    "all means 1 % off": Fault(_each("running_mean", lambda mean: mean * np.float32(1.01))),
    "first kernel flipped": Fault(_stem(lambda w: w[..., ::-1]), words="weights: convolution kernels flipped"),
}


def plant(model: MobileNetModel, fault: Fault) -> Callable[[Array, list[str]], dict[str, Array]]:
    """Return a function of pixels and layers' names that runs the network with the fault in it."""
    other = with_weights(model, fault.weights(model.state_dict()), **fault.fields)

    def run(pixels: Array, layers: list[str]) -> dict[str, Array]:
        return other.features(np.ascontiguousarray(fault.pixels(pixels), np.float32), layers)

    return run
