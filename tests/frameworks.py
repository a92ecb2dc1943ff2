"""The frameworks that cross-checks run live, imported quietly when a test asks for one; without it, it is skipped."""

from __future__ import annotations

import functools
import os
import warnings
from importlib import import_module
from typing import Any

import pytest

QUIET = {"TF_CPP_MIN_LOG_LEVEL": "3", "TF_ENABLE_ONEDNN_OPTS": "0", "CUDA_VISIBLE_DEVICES": "-1"}


def tensorflow() -> Any:
    """Return TensorFlow (`tf.keras` is Keras 3), or skip the test."""
    return _import("tensorflow")


def keras() -> Any:
    """Return Keras 3 on TensorFlow, or skip the test."""
    tensorflow()
    return _import("keras")


def litert() -> Any:
    """Return the module with LiteRT's `Interpreter` and `OpResolverType`, or skip the test."""
    return _import("ai_edge_litert.interpreter")


@functools.cache
def _import(name: str) -> Any:
    for variable, value in QUIET.items():
        os.environ.setdefault(variable, value)
    with warnings.catch_warnings():  # frameworks warn of their own dependencies
        warnings.simplefilter("ignore")
        try:
            return import_module(name)
        except ModuleNotFoundError:
            pytest.skip(f"{name.partition('.')[0]} is not installed")
