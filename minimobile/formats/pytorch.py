"""PyTorch weights files (being written): recognised by no content yet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from minimobile.errors import FormatError


def recognise(path: Path) -> bool:
    """Say whether the file is one of torch.save."""
    return False


def read_tensors(path: Path) -> dict[str, NDArray[Any]]:
    """Read a state dict."""
    raise FormatError(f"{path}: PyTorch files cannot be read yet")
