"""HDF5 files of two makers, ours and Keras', told apart by what is in them, so that a file is opened once."""

from __future__ import annotations

from pathlib import Path

from minimobile.formats import hdf5
from minimobile.formats.checkpoint import Checkpoint
from minimobile.formats.description import Description
from minimobile.formats.guarded_hdf5 import read_hdf5
from minimobile.formats.keras import keras
from minimobile.networks.config import Config


def is_ours(path: Path) -> bool:
    """Tell whether an HDF5 file is the native one, which Keras does not read."""
    return hdf5.is_native(read_hdf5(path, has_numbers=False))


def read(path: str | Path, config: Config | None = None) -> Checkpoint:
    """Read a file that minimobile or Keras wrote; `config` replaces its own. Raises what those readers raise."""
    path = Path(path)
    file = read_hdf5(path)
    return hdf5.read_open(path, file, config) if hdf5.is_native(file) else keras.read_open(path, file, config)


def describe(path: str | Path) -> Description:
    """Say what an HDF5 file holds, without reading its numbers."""
    path = Path(path)
    file = read_hdf5(path, has_numbers=False)
    return hdf5.describe_open(path, file) if hdf5.is_native(file) else keras.describe_open(file)
