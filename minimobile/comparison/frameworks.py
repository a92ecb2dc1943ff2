"""Frameworks imported when they are asked for, quietly, and what they say put into one sentence."""

from __future__ import annotations

import contextlib
import logging
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from minimobile.errors import FormatError
from minimobile.storage.extras import import_extra

QUIET = {"TF_CPP_MIN_LOG_LEVEL": "3", "TF_ENABLE_ONEDNN_OPTS": "0", "CUDA_VISIBLE_DEVICES": "-1"}


def import_framework(name: str) -> Any:
    """Import a framework quietly, or raise UnavailableError that names the extra."""
    for variable, value in QUIET.items():
        os.environ.setdefault(variable, value)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return import_extra(name, "crosscheck", "to compare with")


@contextlib.contextmanager
def explaining(path: Path, framework: str) -> Iterator[None]:
    """Turn whatever a framework says of a file that it cannot load into one sentence."""
    try:
        yield
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise FormatError(f"{path}: {framework} cannot load it ({reason[:200]})") from None


@contextlib.contextmanager
def hushed(logger_name: str) -> Iterator[None]:
    """Keep a logger's warnings to itself."""
    logger = logging.getLogger(logger_name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
