"""The sorted tables of TensorFlow's checkpoints, and the hostile ones (H30)."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from bundles import MAGIC, block, closed, sealed, table, varint
from hostile import FOREIGN, assert_refused, flip_bytes, truncations
from hypothesis import given
from hypothesis import strategies as st

from minimobile.errors import MinimobileError
from minimobile.formats.tensorflow import sorted_table

ENTRIES = [(f"layer_{index:03d}/weights".encode(), bytes([index]) * index) for index in range(20)]
GOOD = table(ENTRIES)


def read(path: Path, content: bytes) -> list[tuple[bytes, bytes]]:
    path.write_bytes(content)
    return [(key, bytes(value)) for key, value in sorted_table.read_table(path).items()]


def test_keys_with_shared_beginnings_in_several_blocks_are_read(tmp_path: Path) -> None:
    for per_block in (1, 3, 100):
        assert read(tmp_path / "x.index", table(ENTRIES, per_block)) == ENTRIES
    assert sorted_table.recognise(tmp_path / "x.index")
    assert read(tmp_path / "x.index", table([])) == []


@given(st.dictionaries(st.binary(max_size=40), st.binary(max_size=40), max_size=30), st.integers(1, 9))
def test_any_table_is_read_as_it_was_written(
    tmp_path_factory: pytest.TempPathFactory, entries: dict[bytes, bytes], per_block: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.index"
    assert dict(read(path, table(sorted(entries.items()), per_block))) == entries


def with_one_block(content: bytes, compression: int = 0) -> bytes:
    return closed(sealed(content, compression), [(b"z", varint(0) + varint(len(content)))])


def with_footer(handles: bytes) -> bytes:
    return GOOD[:-48] + handles.ljust(40, b"\0") + MAGIC


def changed(content: bytes, place: int, new: int) -> bytes:
    return content[:place] + bytes([new]) + content[place + 1 :]


NO_ENTRY = bytes(2**20 - 4) + (2**18 - 1).to_bytes(4, "little")  # restart points alone
TAIL = bytes(4) + (1).to_bytes(4, "little")
HOSTILE = {
    "H30-magic": (GOOD[:-1] + b"\0", "without the mark at its end"),
    "H30-47-bytes": (GOOD[-47:], "a file of 47 bytes without the mark"),
    "H30-footer-alone": (GOOD[-48:], "expected blocks within 48 bytes"),
    "H30-handle-beyond-the-file": (with_footer(b"\0\0" + varint(10**6) + varint(8)), "expected blocks within"),
    "H30-handle-of-2^64": (with_footer(b"\0\0" + varint(2**64 - 1) + varint(2**64 - 1)), "expected blocks within"),
    "H30-long-varint": (with_footer(b"\x80" * 11), "at most 64 bits"),
    "H30-endless-varint": (with_footer(b"\0\0" + b"\x80" * 38), "at most 64 bits"),
    "H30-data-block-beyond": (closed(b"", [(b"z", varint(10**9) + varint(8))]), "expected blocks within"),
    "H30-no-handle": (closed(b"", [(b"z", b"")]), "has no end"),
    "H30-restart-count": (with_one_block(block(ENTRIES, restarts=2**32 - 1)), "claims 4294967295 restart points"),
    "H30-empty-block": (with_one_block(b""), "claims 0 restart points in 0 bytes"),
    "H30-checksum": (changed(GOOD, 30, GOOD[30] ^ 1), "the checksum of the block at byte 0 is wrong"),
    "H30-snappy-of-4-GB": (with_one_block(b"\xff\xff\xff\xff\x0f", 1), "uncompressed blocks.*found Snappy"),
    "H30-compression-7": (with_one_block(block(ENTRIES), 7), "found compression 7"),
    "H30-shared-too-long": (with_one_block(b"\x05\x01\x00a" + TAIL), "an entry of the block at byte 0 does not fit"),
    "H30-key-too-long": (with_one_block(b"\x00\x7f\x00a" + TAIL), "does not fit"),
    "H30-value-of-4-GB": (with_one_block(b"\x00\x01" + varint(2**32 - 1) + b"a" + TAIL), "does not fit"),
    "H30-lengths-of-2^64": (with_one_block(b"\x00" + varint(2**64 - 1) * 2 + b"a" + TAIL), "does not fit"),
    "H30-cut-entry": (with_one_block(b"\x00\x01" + TAIL), "has no end"),
    "H31-key-order": (table(ENTRIES[::-1]), "ascending order"),
    "H31-key-twice": (table([ENTRIES[0], ENTRIES[0]], 1), "ascending order"),
    "H30-long-key": (table([(b"k" * 1001, b"")]), "does not fit"),
    "H30-one-block-under-many-names": (  # to sum it up each time would take minutes
        closed(sealed(NO_ENTRY), [(b"%04d" % n, varint(0) + varint(len(NO_ENTRY))) for n in range(2000)]),
        "one block after the other, found one at byte 0 once more",
    ),
    "H30-2-MB-of-keys-from-4-kB": (
        with_one_block(b"\x00" + varint(1000) + b"\x00" + b"k" * 1000 + b"\xe8\x07\x00\x00" * 1000 + TAIL),
        "ascending order",
    ),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_table_is_refused(tmp_path: Path, case: str) -> None:
    content, match = HOSTILE[case]
    (tmp_path / "x.index").write_bytes(content)
    assert_refused(sorted_table.read_table, tmp_path / "x.index", match)


def test_too_many_entries_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sorted_table, "ENTRY_LIMIT", len(ENTRIES) - 1)
    (tmp_path / "x.index").write_bytes(GOOD)
    assert_refused(sorted_table.read_table, tmp_path / "x.index", "at most 19 entries, found more")


def test_a_large_index_is_refused_unread(tmp_path: Path) -> None:
    with (tmp_path / "x.index").open("wb") as file:
        file.truncate(10**12)
    assert_refused(sorted_table.read_table, tmp_path / "x.index", "expected at most 4194304 bytes")


@pytest.mark.parametrize("name", FOREIGN)
def test_a_foreign_file_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "x.index").write_bytes(FOREIGN[name][0])
    assert not sorted_table.recognise(tmp_path / "x.index")
    assert_refused(sorted_table.read_table, tmp_path / "x.index", "without the mark at its end")


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    for content in truncations(GOOD, 7):
        with pytest.raises(MinimobileError):
            read(tmp_path / "x.index", content)


def test_a_flipped_bit_is_an_error_or_leaves_every_entry(tmp_path: Path) -> None:
    path = tmp_path / "x.index"
    path.write_bytes(GOOD)
    for _ in flip_bytes(path, 300):
        with contextlib.suppress(MinimobileError):
            assert {key: bytes(value) for key, value in sorted_table.read_table(path).items()} == dict(ENTRIES)


@given(st.binary(max_size=60), st.integers(0, 8))
def test_any_block_with_a_right_checksum_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, restarts: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.index"
    with contextlib.suppress(MinimobileError):
        read(path, with_one_block(content + restarts.to_bytes(4, "little")))
