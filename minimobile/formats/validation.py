"""Whether a checkpoint's weights are those that a network needs, and whether a file of another school can hold it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minimobile.arguments import check_choice
from minimobile.errors import FormatError
from minimobile.formats.checkpoint import Checkpoint

WRITTEN_DTYPES = ("float32", "float16")


def check_weights(
    weights: Mapping[str, NDArray[Any]],
    shapes: Mapping[str, tuple[int, ...]],
    where: str,
    strict: bool = True,
) -> None:
    """Compare `weights` with the expected {canonical name: shape}; name everything that is wrong in one FormatError.

    Missing weights and wrong shapes are always refused (random or reshaped weights would give silently wrong numbers),
    unexpected ones unless `strict` is False: the network to be built may be a part of the checkpoint. NaN or infinity
    in a weight is a UserWarning. `where` names the checkpoint in the messages.
    """
    missing = [name for name in shapes if name not in weights]
    unexpected = [name for name in weights if name not in shapes] if strict else []
    wrong = [
        f"{name} is {weights[name].shape} instead of {tuple(shape)}"
        for name, shape in shapes.items()
        if name in weights and weights[name].shape != tuple(shape)
    ]
    findings = [
        f"{len(names)} {what}: {', '.join(names)}"
        for what, names in (("missing", missing), ("unexpected", unexpected), ("of another shape", wrong))
        if names
    ]
    if findings:
        raise FormatError(
            f"{where}: expected the {len(shapes)} weights of the network that the config describes, found "
            f"{'; '.join(findings)}; check that config and weights belong together"
        )
    spoilt = [name for name in shapes if not np.isfinite(weights[name]).all()]
    if spoilt:
        warnings.warn(f"{where}: {len(spoilt)} weights hold NaN or infinity: {', '.join(spoilt)}", stacklevel=3)


def check_exportable(path: Path, checkpoint: Checkpoint, dtype: str) -> None:
    """Raise InputError for a type of weights, FormatError for a network, that no file of a runtime has a form for."""
    check_choice(dtype, f"{path}: dtype", WRITTEN_DTYPES)
    if checkpoint.config.hidden_act == "linear":
        raise FormatError(
            f"{path}: expected an activation, got hidden_act 'linear', which a file of operators does not tell from "
            "one that is left out; save it as NAME.h5 or in a directory"
        )
    if checkpoint.ranges:
        raise FormatError(
            f"{path}: expected a network of floats or integers, got one that rounds as in training for quantisation; "
            "load it with quantized=True, and what is saved has the integers that it was trained for"
        )
