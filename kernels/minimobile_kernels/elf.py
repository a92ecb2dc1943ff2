"""Puts relocatable ELF files into memory, so that their code can be called, without LLVM, which takes 53 MB for that.

LLVM writes these files (`_jit.py`): functions, and constants that are only read. Whatever else a file holds, and every
relocation that has no row in `_VALUES`, is an `UnknownObjectError`, and nothing can be called.

Sources: System V Application Binary Interface, chapter 4, object files; its AMD64 supplement, 4.4, relocation.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import platform
import struct
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from minimobile_kernels.abi import SYSTEM_CALLS

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_RELOCATION = struct.Struct("<QQq")
_IDENTITY = b"\x7fELF\x02\x01\x01"  # of 64 bits, the least significant byte first, version 1
_RELOCATABLE, _X86_64 = 1, 62
_PROGRAM, _SYMBOLS, _WITH_ADDENDS, _WITHOUT_ADDENDS, _UNWINDING = 1, 2, 4, 9, 0x70000001  # types of sections
_WRITABLE, _IN_MEMORY, _THREAD_LOCAL = 0x1, 0x2, 0x400  # flags of sections
_UNDEFINED = 0  # the section of a symbol that is elsewhere
_LOCAL, _WEAK = 0, 2  # symbols that other files do not see, and those that several files may have

# What is written by each relocation: S is the symbol's address, A the addend, P the place's own address.
_VALUES: dict[int, tuple[str, Callable[[int, int, int], int]]] = {
    1: ("<Q", lambda s, a, p: s + a),  # R_X86_64_64
    2: ("<i", lambda s, a, p: s + a - p),  # R_X86_64_PC32
    4: ("<i", lambda s, a, p: s + a - p),  # R_X86_64_PLT32: no table is needed, for every address is known
    24: ("<q", lambda s, a, p: s + a - p),  # R_X86_64_PC64
}

Places = Mapping[int, int]  # where in the image each section of a file begins


class UnknownObjectError(Exception):
    """An object file that holds what is not loaded here."""


class _Section(NamedTuple):
    """A section header, but for its name, its address (none yet) and the size of its entries."""

    kind: int
    flags: int
    offset: int
    size: int
    link: int
    info: int
    alignment: int


class _Symbol(NamedTuple):
    name: str
    binding: int
    section: int
    value: int


class _Relocation(NamedTuple):
    section: int
    offset: int
    kind: int
    symbol: _Symbol
    addend: int


def is_for_this_system() -> bool:
    """Tell whether this is a system and a processor that this module knows."""
    return sys.platform == "linux" and platform.machine() == "x86_64" and sys.maxsize > 2**32


def load(objects: Sequence[bytes], name: str) -> int:
    """Return the address of the function `name` of these files, which stay in memory as long as the process runs.

    A helper may still be in machine code when Python ends, so it is never taken away. It is never writable and
    executable at once. Raises UnknownObjectError for files of another kind, OSError where the system does not let the
    contents of memory be executed.
    """
    try:
        files = [_File(content) for content in objects]
        places, size = _lay_out(files)
        memory = _Memory(size)
    except (struct.error, IndexError, ValueError) as error:
        raise UnknownObjectError(f"not a sound object file: {error}") from error
    try:
        image, function = _link(files, places, size, memory.address, name)
        memory.fill(image)
    except (struct.error, IndexError, ValueError) as error:
        memory.release()
        raise UnknownObjectError(f"not a sound object file: {error}") from error
    except (UnknownObjectError, OSError):
        memory.release()
        raise
    return function


class _File:
    """An object file, read as far as its section headers and symbols."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        identity, kind, machine, _, _, _, table, _, _, _, _, entry_size, count, _ = _HEADER.unpack_from(content)
        if not identity.startswith(_IDENTITY) or (kind, machine) != (_RELOCATABLE, _X86_64):
            raise UnknownObjectError("expected a relocatable file for x86-64")
        if entry_size != _SECTION.size:
            raise UnknownObjectError(f"expected section headers of {_SECTION.size} bytes, got {entry_size}")
        headers = _SECTION.iter_unpack(self._cut(table, count * entry_size))
        self.sections = [_Section(*header[1:3], *header[4:9]) for header in headers]
        tables = [section for section in self.sections if section.kind == _SYMBOLS]
        self.symbols = [symbol for table in tables for symbol in self._symbols(table)]
        if len(tables) != 1 or any(section.kind == _WITHOUT_ADDENDS for section in self.sections):
            raise UnknownObjectError("expected one table of symbols, and relocations with addends")

    def contents(self) -> Iterator[tuple[int, _Section, bytes]]:
        """Yield number, header and content of the sections that are needed in memory.

        What unwinds the stack is not: compiled code raises nothing.
        """
        for number, section in enumerate(self.sections):
            if section.flags & _IN_MEMORY and section.kind != _UNWINDING:
                if section.kind != _PROGRAM or section.flags & (_WRITABLE | _THREAD_LOCAL):
                    raise UnknownObjectError(f"a section of type {section.kind} with flags {section.flags:#x}")
                yield number, section, self._cut(section.offset, section.size)

    def relocations(self, wanted: Places) -> Iterator[_Relocation]:
        """Yield the relocations of the wanted sections."""
        for section in self.sections:
            if section.kind == _WITH_ADDENDS and section.info in wanted:
                for offset, info, addend in _RELOCATION.iter_unpack(self._cut(section.offset, section.size)):
                    yield _Relocation(section.info, offset, info & 0xFFFFFFFF, self.symbols[info >> 32], addend)

    def _symbols(self, table: _Section) -> Iterator[_Symbol]:
        strings = self.sections[table.link]
        names = self._cut(strings.offset, strings.size)
        for start, info, _, section, value, _ in _SYMBOL.iter_unpack(self._cut(table.offset, table.size)):
            yield _Symbol(names[start : names.index(b"\0", start)].decode(), info >> 4, section, value)

    def _cut(self, offset: int, size: int) -> bytes:
        if offset + size > len(self._content):
            raise UnknownObjectError(f"{size} bytes at {offset} of a file of {len(self._content)}")
        return self._content[offset : offset + size]


class _Memory:
    """Pages of zeros that can be written, and, once they are filled, executed in place of that."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._system = ctypes.CDLL(None, use_errno=True)
        self._system.mmap.restype = ctypes.c_void_p
        self._system.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
        self._system.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
        self._system.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
        rights, kind = mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        address = self._system.mmap(None, size, rights, kind, -1, 0)
        if address in (None, ctypes.c_void_p(-1).value):
            raise self._failure()
        self.address = int(address)

    def fill(self, content: bytes | bytearray) -> None:
        """Write `content`, and have the pages executed from now on, and read, and no more written."""
        ctypes.memmove(self.address, bytes(content), self._size)
        if self._system.mprotect(self.address, self._size, mmap.PROT_READ | mmap.PROT_EXEC):
            raise self._failure()

    def release(self) -> None:
        """Give the pages back."""
        self._system.munmap(self.address, self._size)

    def _failure(self) -> OSError:
        number = ctypes.get_errno()
        return OSError(number, f"no memory for machine code ({os.strerror(number)})")


def _lay_out(files: Sequence[_File]) -> tuple[list[dict[int, int]], int]:
    """Return for each file where its sections begin in the image of all, and the size of the image."""
    end, places = 0, []
    for file in files:
        starts = {}
        for number, section, content in file.contents():
            alignment = max(section.alignment, 1)
            if alignment & (alignment - 1) or alignment > mmap.PAGESIZE:
                raise UnknownObjectError(f"a section that is aligned to {alignment} bytes")
            starts[number] = -(-end // alignment) * alignment
            end = starts[number] + len(content)
        places.append(starts)
    if end == 0:
        raise UnknownObjectError("nothing that belongs in memory")
    return places, end


def _link(
    files: Sequence[_File], places: Sequence[Places], size: int, base: int, name: str
) -> tuple[bytearray, int]:  # fmt: skip
    """Return what belongs at the address `base`, and the address of the function `name` in it."""
    image = bytearray(size)
    shared: dict[str, int] = {}  # what all files see; of a symbol that several have the first one counts
    for file, starts in zip(files, places, strict=True):
        for number, section, content in file.contents():
            image[starts[number] : starts[number] + section.size] = content
        for symbol in file.symbols:
            if symbol.binding != _LOCAL and symbol.section in starts:
                if symbol.name in shared and symbol.binding != _WEAK:
                    raise UnknownObjectError(f"the symbol {symbol.name!r} twice")
                shared.setdefault(symbol.name, base + starts[symbol.section] + symbol.value)
    for file, starts in zip(files, places, strict=True):
        for relocation in file.relocations(starts):
            symbol = relocation.symbol
            if symbol.binding == _LOCAL and symbol.section in starts:
                address = base + starts[symbol.section] + symbol.value
            elif symbol.binding != _LOCAL and symbol.name in shared:
                address = shared[symbol.name]
            elif symbol.section == _UNDEFINED and symbol.name in SYSTEM_CALLS:
                address = _system_address(symbol.name)
            else:
                raise UnknownObjectError(f"the symbol {symbol.name!r} of section {symbol.section}")
            room = file.sections[relocation.section].size - relocation.offset
            _write(image, starts[relocation.section] + relocation.offset, room, relocation, address, base)
    if name not in shared:
        raise UnknownObjectError(f"no function {name!r}")
    return image, shared[name]


def _write(image: bytearray, place: int, room: int, relocation: _Relocation, address: int, base: int) -> None:
    if relocation.kind not in _VALUES:
        raise UnknownObjectError(f"a relocation of type {relocation.kind}")
    form, value = _VALUES[relocation.kind]
    if struct.calcsize(form) > room:
        raise UnknownObjectError(f"a relocation {room} bytes before the end of its section")
    struct.pack_into(form, image, place, value(address, relocation.addend, base + place))


def _system_address(name: str) -> int:
    address = ctypes.cast(getattr(ctypes.CDLL(None), name), ctypes.c_void_p).value
    assert address is not None, "a function has an address"
    return address
