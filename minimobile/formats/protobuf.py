"""The wire format of protocol buffers: fields as they lie in the bytes; what they mean is the caller's.

Source: protobuf.dev/programming-guides/encoding. Groups (wire types 3 and 4), which no format here has, are refused.
"""

from __future__ import annotations

from collections.abc import Iterator

from minimobile.errors import FormatError

VARINT, FIXED64, LENGTH_DELIMITED, FIXED32 = 0, 1, 2, 5
DEPTH_LIMIT = 100  # protobuf's own
VARINT_BYTES = 10
_FIXED_SIZES = {FIXED64: 8, FIXED32: 4}


def fields(data: memoryview, where: str, depth: int = 0) -> Iterator[tuple[int, int, int | memoryview]]:
    """Yield (field number, wire type, value) of one message, as they lie there.

    A length-delimited value (text, bytes, message, packed numbers) is a view into `data`, any other one an unsigned
    integer. Whoever goes down into a nested message passes its `depth`. Raises FormatError, which begins with `where`,
    at the first byte that cannot be a field.
    """
    if depth > DEPTH_LIMIT:
        raise FormatError(f"{where}: expected messages nested at most {DEPTH_LIMIT} deep, found more")
    position = 0
    while position < len(data):
        key, position = read_varint(data, position, where)
        number, wire_type = key >> 3, key & 7
        if not 0 < number < 2**29:
            raise FormatError(f"{where}: expected a protobuf field number of 1 to {2**29 - 1}, found {number}")
        value: int | memoryview
        if wire_type == VARINT:
            value, position = read_varint(data, position, where)
            yield number, wire_type, value
            continue
        if wire_type == LENGTH_DELIMITED:
            size, position = read_varint(data, position, where)
        elif wire_type in _FIXED_SIZES:
            size = _FIXED_SIZES[wire_type]
        else:
            raise FormatError(f"{where}: expected a protobuf wire type of 0, 1, 2 or 5, found {wire_type}")
        if size > len(data) - position:
            rest = len(data) - position
            raise FormatError(f"{where}: truncated or damaged: field {number} claims {size} bytes of the {rest} left")
        value = data[position : position + size]
        position += size
        yield number, wire_type, value if wire_type == LENGTH_DELIMITED else int.from_bytes(value, "little")


def read_varint(data: memoryview, position: int, where: str) -> tuple[int, int]:
    """Return the unsigned 64-bit number that begins at `position`, and the position behind it."""
    number = 0
    for index in range(VARINT_BYTES):
        if position + index >= len(data):
            raise FormatError(f"{where}: truncated or damaged: a variable-length number has no end")
        byte = data[position + index]
        number |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            if number >= 2**64:
                break
            return number, position + index + 1
    raise FormatError(f"{where}: expected a variable-length number of at most 64 bits, found a longer one")


def read_varints(data: memoryview, where: str) -> Iterator[int]:
    """Yield the numbers of a packed field."""
    position = 0
    while position < len(data):
        number, position = read_varint(data, position, where)
        yield number


def signed(number: int) -> int:
    """Return the int64 or int32 that a varint stands for: two's complement in 64 bits.

    >>> signed(2**64 - 1)
    -1
    """
    return number - 2**64 if number >= 2**63 else number


def read_text(value: int | memoryview, where: str) -> str:
    """Return a length-delimited field as text."""
    if isinstance(value, int):
        raise FormatError(f"{where}: expected a text, found a number")
    try:
        return bytes(value).decode()
    except UnicodeDecodeError:
        raise FormatError(f"{where}: expected text in UTF-8, found {bytes(value[:40])!r}") from None


def as_view(value: int | memoryview, where: str) -> memoryview:
    """Return a field that has to be a message or bytes."""
    if isinstance(value, int):
        raise FormatError(f"{where}: expected a message, found the number {value}")
    return value


def as_number(value: int | memoryview, where: str) -> int:
    """Return a field that has to be a number."""
    if not isinstance(value, int):
        raise FormatError(f"{where}: expected a number, found {len(value)} bytes")
    return value
