"""Products of bytes in matrix registers: which processors have them, and the same bytes with them as without."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from quantized_twins import assert_same, one_operation, random_bytes, tensor

from minimobile.quantized import builder
from minimobile.quantized.builder import LEAST_CHANNELS
from minimobile_kernels import amx
from minimobile_kernels.quantized.step import BYTES_OF

AMX = ["amxint8", "amxtile", "avx512bw", "avx512f", "avx512vnni"]
WITHOUT = "this processor has no matrix registers (AMX), or the system does not let this process use them"
needs_tiles = pytest.mark.skipif(not amx.may_use_tiles(), reason=WITHOUT)


@pytest.mark.parametrize(
    ("name", "features", "machine", "expected"),
    [
        (None, AMX, "x86_64", True),
        (None, AMX, "AMD64", True),
        (None, AMX[1:], "x86_64", False),
        (None, [*AMX[:4]], "x86_64", False),
        (None, AMX, "aarch64", False),
        ("sapphirerapids", [], "x86_64", True),
        ("icelake-server", AMX, "x86_64", False),
    ],
)
def test_tiles_follow_the_cpu(name, features, machine, expected):
    assert amx.host_tiles(name, features, machine) is expected


@pytest.mark.parametrize(
    ("told", "expected"),
    [(None, True), ("", False), ("+avx512f,+avx512vnni", False), ("+amx-tile,+avx512f,+amx-int8", True)],
)
def test_features_that_numba_is_told_may_leave_them_out(told, expected):
    assert amx.leaves_tiles(told) is expected


def product(rng, pixels, c_in, c_out, dtype, activation="linear"):
    """Return the network of a pointwise convolution, and an image for it."""
    height = next(side for side in range(int(pixels**0.5), 0, -1) if pixels % side == 0)
    zero = int(rng.integers(*((0, 256) if dtype == "uint8" else (-128, 128))))
    x = tensor("x", (1, height, pixels // height, c_in), dtype, 0.01, zero)
    weight = random_bytes(rng, (c_out, 1, 1, c_in), dtype)
    scale = rng.uniform(0.001, 0.01, c_out if dtype == "int8" else 1)
    weight_zero = int(rng.integers(0, 256)) if dtype == "uint8" else 0
    bias = rng.integers(-(2**15), 2**15, c_out).astype(np.int32)
    out_scale = np.float32(np.exp(rng.uniform(-4, 1)))
    tensors = [
        x,
        tensor("w", weight.shape, dtype, scale, weight_zero, weight),
        tensor("b", (c_out,), "int32", 1, 0, bias),
        tensor("out", (1, height, pixels // height, c_out), dtype, out_scale, zero),
    ]
    attributes = {"stride": 1, "dilation": 1, "padding": "SAME", "activation": activation}
    return one_operation("conv2d", tensors, attributes), random_bytes(rng, x.shape, dtype)


@settings(max_examples=120)
@given(
    seed=st.integers(0, 2**32 - 1),
    pixels=st.integers(1, 200),
    c_in=st.integers(LEAST_CHANNELS, 300),
    c_out=st.integers(1, 100),
    dtype=st.sampled_from(["uint8", "int8"]),
    activation=st.sampled_from(["linear", "relu6"]),
    bytes_of=st.sampled_from(BYTES_OF),
    threads=st.sampled_from([1, 2, 3]),
)
def test_products(seed, pixels, c_in, c_out, dtype, activation, bytes_of, threads):
    assert_same(*product(np.random.default_rng(seed), pixels, c_in, c_out, dtype, activation), bytes_of, threads)


@pytest.mark.parametrize(
    ("pixels", "c_in", "c_out"), [(1600, 200, 200), (49, 1040, 160), (196, 512, 33), (3000, 64, 8)]
)
@pytest.mark.parametrize("threads", [1, 2, 5])
def test_more_pixels_than_are_gathered_at_once(pixels, c_in, c_out, threads):
    assert_same(*product(np.random.default_rng(0), pixels, c_in, c_out, "uint8"), threads=threads)


@needs_tiles
def test_the_builder_takes_tiles_where_they_pay(monkeypatch):
    take = builder.Builder.tile_terms
    assert take(None, LEAST_CHANNELS, 49) == 64 and take(None, 65, 49) == 128
    assert take(None, LEAST_CHANNELS - 1, 49) == take(None, 64, 1) == take(None, 10**6, 49) == 0
    monkeypatch.setattr(builder, "may_use_tiles", lambda: False)
    assert take(None, 64, 49) == 0
