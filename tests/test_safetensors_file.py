"""safetensors: what is read, and every row of hostile headers (H01 to H10)."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hostile import FOREIGN, assert_refused, flip_bytes, truncations
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from minimobile.errors import MinimobileError
from minimobile.formats.safetensors_file import HEADER_LIMIT, read_header, read_tensors, recognise, write_tensors


def pack(header: object, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(dtype: str, shape: Any, begin: Any, end: Any) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def test_read_returns_what_safetensors_wrote(tmp_path: Path) -> None:
    path = tmp_path / "mit Leerzeichen é.safetensors"
    rng = np.random.default_rng(0)
    tensors = {"a": rng.standard_normal((2, 3)).astype(np.float32), "b": rng.standard_normal(4), "c": np.float32(7)}
    safetensors.numpy.save_file({name: np.asarray(values) for name, values in tensors.items()}, path)
    read = read_tensors(path)
    assert recognise(path)
    assert set(read) == set(tensors)
    for name, values in tensors.items():
        assert read[name].dtype == values.dtype
        assert np.array_equal(read[name], values)


def test_write_is_read_by_safetensors_with_the_metadata_that_transformers_demands(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    values = np.arange(12, dtype=np.float32).reshape(3, 4).T  # not contiguous
    write_tensors(path, {"a": values, "n.num_batches_tracked": np.zeros((), np.int64)})
    assert np.array_equal(safetensors.numpy.load_file(path)["a"], values)
    with safetensors.safe_open(path, "numpy") as file:
        assert file.metadata() == {"format": "pt"}
    assert set(read_tensors(path)) == {"a"}
    assert [item.name for item in tmp_path.iterdir()] == ["x.safetensors"]


def test_float16_and_bfloat16_are_widened_exactly(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    bits = np.arange(2**16, dtype="<u2")
    path.write_bytes(
        pack({"h": entry("F16", [2**16], 0, 2**17), "b": entry("BF16", [2**16], 2**17, 2**18)}, bits.tobytes() * 2)
    )
    read = read_tensors(path)
    assert read["h"].dtype == read["b"].dtype == np.float32
    assert np.array_equal(read["h"], bits.view("<f2").astype(np.float32), equal_nan=True)
    expected = np.array([struct.unpack("<f", bytes([0, 0]) + bit.tobytes())[0] for bit in bits], np.float32)
    assert np.array_equal(read["b"], expected, equal_nan=True)


@pytest.mark.parametrize("shape", [[], [1], [1, 1, 1, 1]], ids=str)
def test_h09_a_tensor_without_dimensions_is_one_number(tmp_path: Path, shape: list[int]) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(pack({"a": entry("F32", shape, 0, 4)}, struct.pack("<f", 2.5)))
    assert read_tensors(path)["a"].shape == tuple(shape)
    assert float(read_tensors(path)["a"].reshape(())) == 2.5


ONE = entry("F32", [2], 0, 8)
DATA = bytes(8)
HOSTILE: dict[str, tuple[bytes, str]] = {
    "H01-length-2^63-1": (
        struct.pack("<Q", 2**63 - 1) + b'{"a":1}' + DATA,
        "at most 1048576 bytes, found one of 9223372036854775807",
    ),
    "H01-length-2^64-1": (b"\xff" * 8 + b"{" + DATA, "at most 1048576 bytes"),
    "H01-length-beyond-file": (struct.pack("<Q", 1000) + b'{"a":1}', "truncated"),
    "H01-length-0": (pack(b"", DATA), "nothing but zeros"),
    **{
        f"H01-{n}-bytes": (b"\x08\0\0\0\0\0\0\0"[:n], "expected a safetensors file .* found an (unknown|empty)")
        for n in range(9)
    },
    "H02-header-of-spaces": (pack(b"{" + b" " * HEADER_LIMIT + b"}"), "at most 1048576 bytes"),
    "H02-10-GB-header": (struct.pack("<Q", 10 * 2**30) + b"{}", "at most 1048576 bytes, found one of 10737418240"),
    "H03-all-on-one-place": (pack({str(i): ONE for i in range(10_000)}, DATA), "an overlap"),
    "H04-hole": (pack({"a": ONE, "b": entry("F32", [2], 12, 20)}, bytes(20)), "a hole"),
    "H04-hole-first": (pack({"a": entry("F32", [2], 4, 12)}, bytes(12)), "a hole"),
    "H04-trailing-zip": (pack({"a": ONE}, DATA + b"PK\x03\x04" + bytes(30)), "34 bytes belong to nothing"),
    "H05-duplicate": (pack(b'{"a":%s,"a":%s}' % ((json.dumps(ONE).encode(),) * 2), DATA), "'a' is there twice"),
    "H05-duplicate-field": (
        pack(b'{"a":{"dtype":"F32","shape":[2],"shape":[2],"data_offsets":[0,8]}}', DATA),
        "'shape' is there twice",
    ),
    "H06-overflow": (pack({"a": entry("F32", [4194305, 4194305, 211106198978564], 0, 8)}, DATA), "for shape"),
    "H06-overflow-2": (pack({"a": entry("F32", [2**31, 2**31, 4], 0, 8)}, DATA), "for shape"),
    "H06-overflow-to-0": (pack({"a": entry("F32", [2**32, 2**32], 0, 0)}), "for shape"),
    "H06-negative": (pack({"a": entry("F32", [-1, -2], 0, 8)}, DATA), "whole numbers"),
    "H06-float": (pack({"a": entry("F32", [2.0], 0, 8)}, DATA), "whole numbers"),
    "H06-true": (pack({"a": entry("F32", [True, 2], 0, 8)}, DATA), "whole numbers"),
    "H06-text": (pack({"a": entry("F32", ["2"], 0, 8)}, DATA), "whole numbers"),
    "H06-null": (pack({"a": entry("F32", None, 0, 8)}, DATA), "whole numbers"),
    "H06-rank-100": (pack({"a": entry("F32", [1] * 100, 0, 4)}, bytes(4)), "at most 8"),
    "H07-reversed": (pack({"a": entry("F32", [2], 8, 0)}, DATA), "a begin and an end"),
    "H07-negative": (pack({"a": entry("F32", [2], -8, 0)}, DATA), "whole numbers"),
    "H07-beyond-file": (pack({"a": entry("F32", [4], 0, 16)}, DATA), "truncated: expected"),
    "H07-10-GB": (pack({"a": entry("F32", [2_684_354_560], 0, 10_737_418_240)}, DATA), "truncated: expected"),
    "H07-wrong-size": (pack({"a": entry("F32", [3], 0, 8)}, DATA), "expected 12 bytes"),
    "H07-three-offsets": (pack({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8, 8]}}, DATA), "at most 2"),
    "H07-float-offset": (pack({"a": entry("F32", [2], 0.0, 8)}, DATA), "whole numbers"),
    "H08-space-first": (pack(b" " + json.dumps({"a": ONE}).encode(), DATA), "a header that begins with"),
    "H08-byte-order-mark": (pack(b"\xef\xbb\xbf{}", DATA), "begins with"),
    "H08-array": (pack(b"[]", DATA), "begins with"),
    "H08-bad-utf8": (pack(b'{"\xff":1}', DATA), "UTF-8"),
    "H08-NaN": (pack(b'{"a":{"dtype":"F32","shape":[NaN],"data_offsets":[0,8]}}', DATA), "NaN is no JSON number"),
    "H08-nested": (pack(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", DATA), "nested too deeply"),
    "H08-million-digits": (pack(b'{"a":' + b"1" * 1_000_000 + b"}", DATA), "valid JSON"),
    "H08-metadata-number": (pack({"__metadata__": {"n": 1}, "a": ONE}, DATA), "__metadata__"),
    "H08-metadata-list": (pack({"__metadata__": [], "a": ONE}, DATA), "__metadata__"),
    "H08-unfinished": (pack(b'{"a":', DATA), "valid JSON"),
    "H08-two-objects": (pack(b"{}{}", DATA), "valid JSON"),
    "H09-no-elements": (pack({"z": entry("F32", [0], 0, 0), "a": ONE}, DATA), "at least one element"),
    "H10-truncated-data": (pack({"a": ONE}, DATA[:5]), "truncated: expected"),
    "type-I32": (pack({"a": entry("I32", [2], 0, 8)}, DATA), "found 'I32'"),
    "type-I64": (pack({"a": entry("I64", [1], 0, 8)}, DATA), "found 'I64'"),
    "type-counter-of-floats": (pack({"x.num_batches_tracked": ONE}, DATA), "expected I64"),
    "type-list": (pack({"a": entry(["F32"], [2], 0, 8)}, DATA), "expected F16"),  # type: ignore[arg-type]
    "entry-more-keys": (pack({"a": {**ONE, "more": 1}}, DATA), "dtype, shape and data_offsets"),
    "entry-a-number": (pack({"a": 3}, DATA), "dtype, shape and data_offsets"),
    **{f"foreign-{name}": (content, what) for name, (content, what) in FOREIGN.items()},
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_file_is_refused(tmp_path: Path, case: str) -> None:
    content, match = HOSTILE[case]
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    assert_refused(read_tensors, path, match)


@pytest.mark.parametrize("case", [case for case in HOSTILE if case.startswith(("H01", "H04", "H05", "H06", "H07"))])
def test_we_are_never_laxer_than_safetensors(tmp_path: Path, case: str) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(HOSTILE[case][0])
    if "H05" not in case and "rank" not in case:  # these two points are ours
        with pytest.raises(safetensors.SafetensorError):
            safetensors.safe_open(path, "numpy").__enter__()


def test_numbers_that_no_file_aligns_are_aligned_in_memory(tmp_path: Path) -> None:
    """A float16, then a float32 two bytes behind it: kernels read vectors where arrays say that numbers lie."""
    path = tmp_path / "model.safetensors"
    data = np.float16([3]).tobytes() + np.float32([1, 2]).tobytes()
    path.write_bytes(pack({"a": entry("F16", [1], 0, 2), "b": entry("F32", [2], 2, 10)}, data))
    read = read_tensors(path)
    assert [values.tolist() for values in read.values()] == [[3], [1, 2]]
    assert all(values.flags.aligned and values.flags.c_contiguous for values in read.values())


def test_h10_a_file_that_shrinks_while_it_is_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.safetensors"
    content = pack({"a": ONE}, DATA)
    path.write_bytes(content[:-3])
    monkeypatch.setattr("minimobile.formats.safetensors_file.regular_file_size", lambda _: len(content))
    assert_refused(read_tensors, path, f"expected {len(content)} bytes, the file ended after {len(content) - 3}")


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    write_tensors(path, {"a": np.ones((40, 10), np.float32), "b": np.ones(3, np.float32)})
    for content in truncations(path.read_bytes()):
        path.write_bytes(content)
        with pytest.raises(MinimobileError):
            read_tensors(path)


def test_a_flipped_byte_gives_an_error_or_a_whole_result(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    write_tensors(path, {"a": np.ones((4, 5), np.float32), "b": np.ones(3, np.float32)})
    loaded = 0
    for _ in flip_bytes(path, 2000):
        try:
            tensors = read_tensors(path)
        except MinimobileError:
            continue
        loaded += 1
        assert len(tensors) == 2
        assert all(values.dtype in (np.float32, np.float64) and values.size for values in tensors.values())
    assert 0 < loaded < 2000


def test_header_positions_count_from_the_start_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(pack({"a": ONE}, struct.pack("<2f", 1, 2)))
    found = read_header(path)["a"]
    assert path.read_bytes()[found.begin : found.end] == struct.pack("<2f", 1, 2)


NUMBERS = st.one_of(st.integers(-1, 3), st.sampled_from([0, 4, 8, 12, 16, 20, 2**31, 2**63, 1.0, True, None, "1"]))
ENTRIES = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "F16", "BF16", "F64", "I64", "F8"]),
        "shape": st.lists(NUMBERS, max_size=3),
        "data_offsets": st.lists(NUMBERS, min_size=2, max_size=2),
    }
)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(header=st.dictionaries(st.sampled_from("abc"), ENTRIES, max_size=3), size=st.integers(0, 24))
def test_any_header_that_we_accept_is_one_that_safetensors_accepts(
    tmp_path: Path, header: dict[str, dict[str, Any]], size: int
) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(pack(header, bytes(size)))
    try:
        read = read_tensors(path)
    except MinimobileError:
        return
    with safetensors.safe_open(path, "numpy") as file:
        assert set(file.keys()) == set(read)
    assert sum(np.dtype(np.float32).itemsize * values.size for values in read.values()) <= 2 * size
