"""Zip archives of stored (uncompressed) members, as torch.save writes them; nothing is inflated, ever.

The standard library's zipfile reads the directory of any archive whole and inflates what it is told to. Here every
entry is judged first. Source: PKWARE's APPNOTE 6.3.9, sections 4.3.7, 4.3.12 and 4.3.14-16.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import BinaryIO

from minimobile.errors import FormatError

ENTRY_LIMIT = 10_000
_END = struct.Struct("<4s4H2LH")  # end of central directory
_END64_LOCATOR = struct.Struct("<4sLQL")
_END64 = struct.Struct("<4sQ2H2L4Q")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")


@dataclass(frozen=True)
class Member:
    """One file of an archive: where its bytes are, their CRC-32, and whether they are as they were."""

    name: str
    offset: int
    size: int
    crc: int
    is_stored: bool = True


def read_directory(where: str, file: BinaryIO, size: int, unread: str = "") -> dict[str, Member]:
    """Return the members of the archive of `size` bytes by name; anything but plain stored members is refused.

    Members of the folder `unread`, within the archive's own one, may be compressed. They are listed as they lie there,
    and `read_member` refuses them.
    """
    start, length, count = _find_directory(where, file, size)
    if count > ENTRY_LIMIT:
        raise FormatError(f"{where}: expected at most {ENTRY_LIMIT} members in this archive, found {count}")
    directory = _read_at(where, file, start, length)
    members: dict[str, Member] = {}
    position = 0
    for _ in range(count):
        if position + _CENTRAL.size > length or directory[position : position + 4] != b"PK\x01\x02":
            raise FormatError(f"{where}: the directory of this archive is damaged; download the file again")
        member, position = _read_entry(where, file, directory, position, unread)
        if member.name in members:
            raise FormatError(f"{where}: expected every member once, found two of the name {member.name!r}")
        members[member.name] = member
    if position != length:
        raise FormatError(f"{where}: expected {count} members in the archive's directory, found more data there")
    _check_ranges(where, members, start)
    return members


def read_member(where: str, file: BinaryIO, member: Member) -> bytes:
    """Return a member's bytes, with their checksum compared."""
    if not member.is_stored:
        raise FormatError(f"{where}: {member.name[:200]!r}: expected a stored member, found a compressed one")
    content = _read_at(where, file, member.offset, member.size)
    if zlib.crc32(content) != member.crc:
        raise FormatError(f"{where}: {member.name}: the checksum does not fit; the file is damaged, download it again")
    return content


def _find_directory(where: str, file: BinaryIO, size: int) -> tuple[int, int, int]:
    """Return the central directory's offset, length and number of entries."""
    tail_size = min(size, _END.size + 65535)
    tail = _read_at(where, file, size - tail_size, tail_size)
    place = tail.rfind(b"PK\x05\x06")
    if place < 0 or len(tail) - place < _END.size:
        raise FormatError(f"{where}: this archive has no directory at its end: truncated; download it again")
    _, disk, start_disk, here, count, length, start, comment = _END.unpack_from(tail, place)
    end = size - tail_size + place
    if end + _END.size + comment != size:
        raise FormatError(f"{where}: expected the archive's directory at its end, found other data behind it")
    if disk or start_disk or here != count:
        raise FormatError(f"{where}: expected an archive in one part, found part {disk} of several")
    locator = end - _END64_LOCATOR.size
    if locator >= 0 and (found := _read_at(where, file, locator, _END64_LOCATOR.size))[:4] == b"PK\x06\x07":
        _, _, end, _ = _END64_LOCATOR.unpack(found)
        if end + _END64.size > locator:
            raise FormatError(f"{where}: the directory of this archive is damaged; download the file again")
        record = _END64.unpack(_read_at(where, file, end, _END64.size))
        if record[0] != b"PK\x06\x06":
            raise FormatError(f"{where}: the directory of this archive is damaged; download the file again")
        count, length, start = record[7], record[8], record[9]
    if start + length != end:
        raise FormatError(f"{where}: expected the archive's directory right before its end record, found it elsewhere")
    return start, length, count


def _read_entry(where: str, file: BinaryIO, directory: bytes, position: int, unread: str = "") -> tuple[Member, int]:
    (_, _, _, flags, method, _, _, crc, packed, size, name_length, extra_length, comment_length, disk, _, _, start) = (
        _CENTRAL.unpack_from(directory, position)
    )
    position += _CENTRAL.size
    raw_name = directory[position : position + name_length]
    extra = directory[position + name_length : position + name_length + extra_length]
    position += name_length + extra_length + comment_length
    name = raw_name.decode("utf-8", "backslashreplace")
    what = f"{where}: {name[:200]!r}"
    size, packed, start = _widen(what, extra, size, packed, start)
    parts = name.replace("\\", "/").split("/")
    if not name or ".." in parts or "" in parts or "\\" in name or ":" in name or "\0" in name:
        raise FormatError(f"{what}: expected a plain relative name in this archive")
    if flags & 0x2041:  # encrypted, strongly encrypted, directory encrypted
        raise FormatError(f"{what}: expected plain members, found an encrypted one")
    is_stored = method == 0 and packed == size
    if not is_stored and parts[1:2] != [unread]:
        raise FormatError(f"{what}: expected stored members, as torch.save writes them, found a compressed one")
    if disk:
        raise FormatError(f"{what}: expected an archive in one part, found a member in part {disk}")
    local = _read_at(where, file, start, _LOCAL.size)
    signature, _, local_flags, local_method, *_, local_name, local_extra = _LOCAL.unpack(local)
    offset = start + _LOCAL.size + local_name + local_extra
    same_name = _read_at(where, file, start + _LOCAL.size, local_name) == raw_name
    if signature != b"PK\x03\x04" or local_method != method or local_flags & 0x2041 or not same_name:
        raise FormatError(f"{what}: the member's own header contradicts the archive's directory")
    return Member(name, offset, packed, crc, is_stored), position


def _widen(what: str, extra: bytes, size: int, packed: int, start: int) -> tuple[int, int, int]:
    """Replace the sizes and offset that are 2^32-1 by those of the zip64 field, where there is one."""
    values = [size, packed, start]
    position = 0
    while position + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, position)
        if kind == 1:
            field = extra[position + 4 : position + 4 + length]
            for index, value in enumerate(values):
                if value == 0xFFFFFFFF:
                    if len(field) < 8:
                        raise FormatError(f"{what}: the zip64 field of this member is damaged")
                    values[index], field = int.from_bytes(field[:8], "little"), field[8:]
        position += 4 + length
    return values[0], values[1], values[2]


def _check_ranges(where: str, members: dict[str, Member], end: int) -> None:
    """Members lie before the directory and do not overlap: overlapping ones multiply what a small file yields."""
    position = 0
    for member in sorted(members.values(), key=lambda member: (member.offset, member.size)):
        if member.offset < position or member.offset + member.size > end:
            raise FormatError(
                f"{where}: {member.name!r}: expected its {member.size} bytes inside the archive and apart from others"
            )
        position = member.offset + member.size


def _read_at(where: str, file: BinaryIO, offset: int, count: int) -> bytes:
    """Read exactly `count` bytes at `offset`; the sizes of a hostile archive are compared with the file's first."""
    size = file.seek(0, 2)
    if offset < 0 or offset + count > size:
        raise FormatError(
            f"{where}: this archive is truncated or damaged: expected {count} bytes at {offset}, found {size} in all"
        )
    file.seek(offset)
    content = file.read(count)
    if len(content) != count:
        raise FormatError(f"{where}: expected {count} bytes at {offset}, the file ended after {len(content)}")
    return content
