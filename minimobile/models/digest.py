"""What a model computes with, as one hash: the same for the same network, whatever file it was read from."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np

from minimobile.formats.checkpoint import Checkpoint


def digest(checkpoint: Checkpoint) -> str:
    """Return the SHA-256 of config, weights and ranges by name, and of the tensors of a network of integers."""
    config: Any = checkpoint.config
    total = hashlib.sha256(json.dumps(config.to_dict(), sort_keys=True, default=str).encode())
    ranges = sorted((name, [float(number) for number in range_]) for name, range_ in checkpoint.ranges.items())
    total.update(json.dumps(ranges).encode())
    arrays: list[tuple[str, Any]] = sorted(checkpoint.weights.items())
    if checkpoint.quantized is not None:
        tensors = sorted(checkpoint.quantized.tensors.items())
        arrays += [(f"tensor {name}", tensor.values) for name, tensor in tensors if tensor.values is not None]
        arrays += [(f"scales of {name}", tensor.scales) for name, tensor in tensors]
        arrays += [(f"zero points of {name}", tensor.zero_points) for name, tensor in tensors]
    for name, values in arrays:
        array = np.ascontiguousarray(values)
        total.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        total.update(array.tobytes())
    return total.hexdigest()
