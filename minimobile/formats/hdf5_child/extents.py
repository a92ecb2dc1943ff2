"""No byte of a file belongs to two things, and no array lies in free space while its bytes lie in another one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import BinaryIO

from . import RefusalError
from .classic_metadata import Extent, find_metadata, find_text_heaps, read_superblock

WAY_OUT = "the file is damaged; copy it again"


def check_extents(file: BinaryIO, size: int, headers: Iterable[tuple[int, str]], arrays: Sequence[Extent]) -> None:
    """Refuse a file of `size` bytes in which anything overlaps or, in the oldest format, an array has left its place.

    `headers` are the addresses and names of all objects, `arrays` the extents of their data. The oldest format has no
    checksums: that an array's address is wrong shows in nothing else.
    """
    arrays = [extent for extent in arrays if extent.end > extent.start]
    metadata, is_complete = find_metadata(file, read_superblock(file), headers)
    extents = sorted([*arrays, *metadata, *find_text_heaps(file, size)])
    before = Extent(0, 0, "")
    for extent in extents:
        if extent.end > size:
            raise RefusalError(
                f"{extent.what}: expected an end within the {size} bytes of the file, found {extent.end}"
            )
        if extent.start < before.end:
            raise RefusalError(f"{extent.what}: found at {extent.start}, where {before.what} is, too; {WAY_OUT}")
        before = extent
    if is_complete:
        _check_holes(file, size, extents, set(arrays))


def _check_holes(file: BinaryIO, size: int, extents: Sequence[Extent], arrays: set[Extent]) -> None:
    """Refuse an array beside free space whose address, but for one byte, is that of bytes that are nobody's.

    Holes as such are no damage: whoever deletes an array leaves one. Those that HDF5 itself leaves are zero.
    """
    around = [Extent(0, 0, ""), *extents, Extent(size, size, "")]
    holes = [(left.end, right.start) for left, right in pairwise(around) if left.end < right.start]
    for array in arrays:
        beside = [hole for hole in holes if hole[0] == array.end or hole[1] == array.start]
        if not beside:
            continue
        joined = min(array.start, beside[0][0]), max(array.end, beside[-1][1])
        for hole in (joined, *(hole for hole in holes if hole not in beside)):
            place = _find_place(file, hole, array)
            if place is not None:
                raise RefusalError(
                    f"{array.what}: found in free space at {array.start}, its bytes seem to be at {place}; {WAY_OUT}"
                )


def _find_place(file: BinaryIO, hole: tuple[int, int], array: Extent) -> int | None:
    """Return where in a hole, of which it may be a part, an array has been that is now elsewhere; None if nowhere.

    All in the hole that is not zero has to be the array's.
    """
    start, end = hole
    length = array.end - array.start
    if end - start < length:
        return None
    file.seek(start)
    content = file.read(end - start)
    first = start + len(content) - len(content.lstrip(b"\0"))
    last = start + len(content.rstrip(b"\0"))
    if first >= last or array.start <= first <= last <= array.end:
        return None
    for place in range(max(start, last - length), min(first, end - length) + 1):
        changed = place ^ array.start
        if any(changed & ~(255 << bits) == 0 for bits in range(0, 64, 8)):
            return place
    return None
