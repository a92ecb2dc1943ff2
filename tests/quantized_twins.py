"""Networks of one operation of bytes, run by the compiled kernels and by their definitions, compared by equality."""

from __future__ import annotations

import numpy as np
import pytest

from minimobile.execution.runner import RunOptions
from minimobile.quantized import builder
from minimobile.quantized.engine import QuantizedEngine
from minimobile.quantized.network import Network, Operation, Tensor


def tensor(name, shape, dtype="uint8", scale=1.0, zero=0, values=None, axis=0):
    scales, zeros = np.atleast_1d(np.float32(scale)), np.atleast_1d(np.int64(zero))
    if len(scales) > 1:
        zeros = np.zeros(len(scales), np.int64)
    return Tensor(name, tuple(shape), np.dtype(dtype), scales, zeros, axis, values)


def one_operation(op, tensors, attributes):
    """Return the network of one operation; the first tensors are read, the last is written."""
    names = tuple(t.name for t in tensors)
    images = tuple(dict.fromkeys(t.name for t in tensors[:-1] if t.values is None))
    operation = Operation(op, names[:-1], names[-1], attributes)
    return Network({t.name: t for t in tensors}, (operation,), images, (names[-1],))


def random_bytes(rng, shape, dtype):
    limits = np.iinfo(dtype)
    kind = rng.integers(4)
    if kind == 0:
        return np.full(shape, rng.choice([limits.min, limits.max]), dtype)
    return rng.integers(limits.min, limits.max + 1, shape).astype(dtype)


def assert_same(network, inputs, bytes_of="litert", threads=1):
    defined = QuantizedEngine(network, RunOptions(engine="reference", bytes_of=bytes_of))
    compiled = QuantizedEngine(network, RunOptions(bytes_of=bytes_of, num_threads=threads))
    assert defined.bytes_of == compiled.bytes_of == bytes_of
    name = network.outputs[0]
    with pytest.MonkeyPatch.context() as patch:  # cut even the smallest step into parts
        patch.setattr(builder, "LEAST_PART", 1)
        expected, found = defined.run(inputs)[name], compiled.run(inputs)[name]
    assert found.dtype == expected.dtype and found.shape == expected.shape
    differs = np.argwhere(found != expected)
    assert not len(differs), f"{len(differs)} of {found.size} differ, first at {differs[0]}: {network.operations[0]}"
