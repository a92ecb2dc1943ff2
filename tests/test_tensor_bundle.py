"""TensorFlow's tensor bundles: types, shards, checksums, and the hostile ones (H31)."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundles import Message, table, write_bundle
from hostile import assert_refused, flip_bytes, truncations

from minimobile.errors import FormatError, MinimobileError
from minimobile.formats.tensorflow.sorted_table import read_table
from minimobile.formats.tensorflow.tensor_bundle import Bundle

RNG = np.random.default_rng(0)
ARRAYS = {
    "a/weights": RNG.standard_normal((3, 3, 2, 4)).astype(np.float32),
    "b/biases": RNG.standard_normal(4).astype(np.float64),
    "c/half": RNG.standard_normal((2, 3)).astype(np.float16),
    "d/empty": np.zeros((0, 4), np.float32),
    "global_step": np.array(7, np.int64),
    "käse": np.arange(5, dtype=np.uint8),
}


def load(path: Path) -> dict[str, Any]:
    return dict(Bundle(path.with_name(path.name.removesuffix(".index"))))


def check(found: dict[str, Any]) -> None:
    assert set(found) == set(ARRAYS)
    for name, values in ARRAYS.items():
        assert found[name].shape == values.shape
        assert found[name].dtype == (np.float32 if values.dtype == np.float16 else values.dtype)
        assert np.array_equal(found[name], values), name


@pytest.mark.parametrize("shards", [1, 3])
def test_arrays_of_every_type_are_read_from_their_shards(tmp_path: Path, shards: int) -> None:
    write_bundle(tmp_path / "x.ckpt", ARRAYS, shards=shards)
    check(load(tmp_path / "x.ckpt.index"))


def test_bfloat16_is_the_upper_half_of_a_float32(tmp_path: Path) -> None:
    values = np.arange(4, dtype=np.float32)
    bits = (values.view("<u4") >> 16).astype("<u2")
    write_bundle(tmp_path / "x", {"a": bits.view(np.uint8)}, change=lambda n, e: {**e, 1: 14, 2: {2: [{1: 4}]}})
    assert np.array_equal(Bundle(tmp_path / "x")["a"], values)


def test_big_endian_numbers_are_turned(tmp_path: Path) -> None:
    values = np.arange(4, dtype=np.float32)
    write_bundle(tmp_path / "x", {"a": values.byteswap()}, header={1: 1, 2: 1})
    assert np.array_equal(Bundle(tmp_path / "x")["a"], values)


def test_only_what_is_asked_for_is_read(tmp_path: Path) -> None:
    write_bundle(tmp_path / "x", {"good": np.ones(3, np.float32), "zebra": np.ones(3, np.float32)})
    data = tmp_path / "x.data-00000-of-00001"
    content = bytearray(data.read_bytes())
    content[-1] ^= 1
    data.write_bytes(content)
    bundle = Bundle(tmp_path / "x")
    assert bundle["good"].all()
    with pytest.raises(FormatError, match="zebra: damaged: the checksum of its data is wrong"):
        bundle["zebra"]


def entry(**changes: Any) -> dict[str, Any]:
    """Return what makes the index lie about a/weights: fields by the names of tensor_bundle.proto."""
    numbers = {"dtype": 1, "shape": 2, "shard": 3, "offset": 4, "size": 5, "checksum": 6, "slices": 7}
    fields: Message = {numbers[name]: value for name, value in changes.items()}
    return {"change": lambda name, given: {**given, **fields} if name == "a/weights" else given}


def sizes(*dims: int) -> Message:
    return {2: [{1: size} for size in dims]}


HOSTILE: dict[str, tuple[dict[str, Any], str]] = {
    "H31-negative-dim": (entry(shape=sizes(-3, 3, 2, 4)), "found a negative one"),
    "H31-product-overflow": (entry(shape=sizes(2**32, 2**32, 2**32)), "at most 1099511627776 elements"),
    "H31-huge-dim": (entry(shape=sizes(2**62)), "at most 1099511627776 elements"),
    "H31-empty-and-huge": (entry(shape=sizes(0, 2**40, 2**40), size=0), "at most 1099511627776 elements"),
    "H31-rank": (entry(shape=sizes(*[1] * 9)), "at most 8 dimensions"),
    "H31-size": (entry(size=287), "expected 288 bytes for shape .* of float32, found 287"),
    "H31-string-huge": (entry(dtype=7, size=2**62), "found them at bytes 0 to 4611686018427387904"),
    "H31-string": (entry(dtype=7), "expected numbers, found string"),
    "H31-unknown-type": (entry(dtype=99), "expected numbers, found type 99"),
    "H31-offset-beyond": (entry(offset=10**6), "found them at bytes 1000000 to"),
    "H31-offset-2^63": (entry(offset=2**63), "found a negative one"),
    "H31-overlap": (entry(offset=8), "overlap another variable's"),
    "H31-shard-id": (entry(shard=10**6), "expected one of 1 shards, found number 1000000"),
    "H31-checksum": (entry(checksum=("fixed32", 1)), "the checksum of its data is wrong"),
    "H31-shape-a-number": (entry(shape=5), "expected a message, found the number 5"),
    "H31-sliced": (entry(slices={1: {1: 0}}), "one piece, found a partitioned one"),
    "H31-no-shards": ({"header": {1: 0}}, "expected 1 to 1000 shards, found 0"),
    "H31-million-shards": ({"header": {1: 10**6}}, "expected 1 to 1000 shards"),
    "H31-missing-shard": ({"header": {1: 2}}, "expected its shard x.data-00000-of-00002 beside it, found none"),
    "H31-later-version": ({"header": {1: 1, 3: {1: 9, 2: 9}}}, "later readers"),
    "H31-header-cut": ({"more": {b"": b"\x08"}}, "has no end"),
    "H31-name-no-text": ({"more": {b"\xff\xfe": b""}}, "names in UTF-8"),
    "H31-name-of-two-lines": ({"more": {b"a\nb": b""}}, "names in UTF-8 that can be printed"),
    "H31-entry-cut": ({"more": {b"z": b"\x12\x05"}}, "claims 5 bytes"),
    "H31-entry-empty": ({"more": {b"z": b""}}, "expected numbers, found type 0"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_index_is_refused(tmp_path: Path, case: str) -> None:
    options, match = HOSTILE[case]
    write_bundle(tmp_path / "x", ARRAYS, **options)
    assert_refused(load, tmp_path / "x.index", match)


def test_a_table_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.index").write_bytes(table([(b"a", b"b")]))
    assert_refused(load, tmp_path / "x.index", "expected a header under the empty name")


def test_every_truncation_of_index_and_data_is_refused(tmp_path: Path) -> None:
    write_bundle(tmp_path / "x", ARRAYS)
    for path in (tmp_path / "x.index", tmp_path / "x.data-00000-of-00001"):
        whole = path.read_bytes()
        for content in truncations(whole):
            path.write_bytes(content)
            with pytest.raises(MinimobileError):
                load(tmp_path / "x.index")
        path.write_bytes(whole)


@pytest.mark.parametrize("name", ["x.index", "x.data-00000-of-00001"])
def test_a_flipped_bit_is_refused_or_changes_nothing(tmp_path: Path, name: str) -> None:
    write_bundle(tmp_path / "x", ARRAYS)
    for _ in flip_bytes(tmp_path / name, 300):
        with contextlib.suppress(MinimobileError):
            check(load(tmp_path / "x.index"))


def test_a_flipped_bit_under_a_right_checksum_is_refused_or_read(tmp_path: Path) -> None:
    """Past the checksums, every field of the index is a claim: what is read must be within the files."""
    flip_entries(tmp_path, 0, 300)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 110))
def test_many_flipped_bits_under_right_checksums_are_refused_or_read(tmp_path: Path, seed: int) -> None:
    flip_entries(tmp_path, seed, 2_000)


def flip_entries(folder: Path, seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    write_bundle(folder / "x", ARRAYS)
    index = folder / "x.index"
    good = {key: bytes(value) for key, value in read_table(index).items()}
    for _ in range(count):
        keys = sorted(good)
        key = keys[rng.integers(len(keys))]
        value = bytearray(good[key])
        value[rng.integers(len(value))] ^= 1 << int(rng.integers(8))
        index.write_bytes(table(sorted((good | {key: bytes(value)}).items())))
        with contextlib.suppress(MinimobileError):
            found = load(index)
            data = (folder / "x.data-00000-of-00001").stat().st_size
            assert sum(values.nbytes for values in found.values()) <= 2 * data  # float16 becomes float32
