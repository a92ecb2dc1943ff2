"""A small interpreter for the pickles of torch.save. It builds plain values and never imports or calls a thing.

Only the opcodes below exist. A global is a name looked up in a table that the caller gives; a REDUCE calls the function
of that table, never anything from the file. Source: the standard library's pickletools, opcodes of protocols 2 to 5.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO, ClassVar

from minimobile.errors import FormatError

OPCODE_LIMIT = 200_000  # a state dict of V2 takes 15,000
TEXT_LIMIT = 2**20
NAME_LIMIT = 200


class OrderedDict(dict[Any, Any]):
    """Stands for collections.OrderedDict: a plain dict that may be told its (ignored) `_metadata`."""


@dataclass(frozen=True)
class Global:
    """A name the table allows. `build` makes a value from REDUCE's arguments; None: it can only be passed on."""

    name: str
    build: Callable[[tuple[Any, ...]], Any] | None = None


@dataclass
class PickleMachine:
    """Runs one pickle after the other from `file`; `where` begins every error message.

    `allowed` maps "module name" to what stands for it, `load_persistent` makes a value from a persistent id.
    """

    where: str
    file: BinaryIO
    allowed: Mapping[str, Global]
    load_persistent: Callable[[Any], Any]
    expected: ClassVar[str] = "a state dict"
    steps: ClassVar[dict[int, Callable[[Any], None]]]  # opcode -> what it does; every other is refused
    _stack: list[Any] = field(default_factory=list)
    _marks: list[int] = field(default_factory=list)
    _memo: dict[int, Any] = field(default_factory=dict)

    def run(self) -> Any:
        """Run the next pickle of the file and return its value."""
        self._stack, self._marks, self._memo = [], [], {}
        for _ in range(OPCODE_LIMIT):
            code = self._read(1)[0]
            if code == 0x2E:  # STOP
                value = self._pop()
                if self._stack or self._marks:
                    raise self._error("expected one value at the end of the pickle, found more")
                return value
            step = self.steps.get(code)
            if step is None:
                raise self._error(f"expected what torch.save writes, found the pickle opcode {bytes([code])!r}")
            step(self)
        raise self._error(f"expected at most {OPCODE_LIMIT} pickle opcodes, found more")

    def _error(self, text: str) -> FormatError:
        return FormatError(f"{self.where}: {text}; nothing in it was run")

    def _read(self, count: int) -> bytes:
        content = self.file.read(count)
        if len(content) != count:
            raise self._error("the pickle is truncated")
        return content

    def _number(self, count: int) -> int:
        return int.from_bytes(self._read(count), "little")

    def _push(self, value: Any) -> None:
        self._stack.append(value)

    def _pop(self) -> Any:
        if len(self._stack) <= (self._marks[-1] if self._marks else 0):
            raise self._error("the pickle takes a value from an empty stack")
        return self._stack.pop()

    def _pop_to_mark(self) -> list[Any]:
        if not self._marks:
            raise self._error("the pickle takes values up to a mark that it never set")
        mark = self._marks.pop()
        values = self._stack[mark:]
        del self._stack[mark:]
        return values

    def _text(self, count: int) -> None:
        if count > TEXT_LIMIT:
            raise self._error(f"expected texts of at most {TEXT_LIMIT} bytes, found one of {count}")
        try:
            self._push(self._read(count).decode())
        except UnicodeDecodeError:
            raise self._error("expected texts in UTF-8") from None

    def _bytes(self, count: int) -> None:
        if count > TEXT_LIMIT:
            raise self._error(f"expected byte strings of at most {TEXT_LIMIT} bytes, found one of {count}")
        self._push(self._read(count))

    def _line(self) -> str:
        line = self.file.readline(NAME_LIMIT)
        if not line.endswith(b"\n"):
            raise self._error("the pickle is truncated within a name")
        return line[:-1].decode("utf-8", "backslashreplace")

    def _find(self, module: Any, name: Any) -> None:
        if type(module) is not str or type(name) is not str:
            raise self._error(f"expected {self.expected}, found a pickle that asks for a nameless thing")
        wanted = f"{module} {name}"
        found = self.allowed.get(wanted)
        if found is None:
            shown = wanted[: 2 * NAME_LIMIT].replace(" ", ".")
            kind = "a whole module, pickled" if module.startswith("torch.nn.") else "a pickle"
            raise self._error(
                f"expected {self.expected}, found {kind} that asks for {shown!r}, which none needs; save the module's "
                "state_dict() instead"
            )
        self._push(found)

    def _find_by_lines(self) -> None:
        module = self._line()
        self._find(module, self._line())

    def _find_by_stack(self) -> None:
        name = self._pop()
        self._find(self._pop(), name)

    def _reduce(self) -> None:
        arguments, function = self._pop(), self._pop()
        if not isinstance(function, Global) or function.build is None or not isinstance(arguments, tuple):
            raise self._error(f"expected a call of a known function, found one of type {type(function).__name__}")
        self._push(function.build(arguments))

    def _set_state(self) -> None:
        """BUILD: torch gives a state dict its `_metadata` so. It is dropped; any other use is refused."""
        state, target = self._pop(), self._pop()
        if type(target) is not OrderedDict or type(state) is not dict or set(state) - {"_metadata"}:
            raise self._error(
                f"expected plain values, found one that sets the state of an object of type {type(target).__name__}"
            )
        self._push(target)

    def _put(self, index: int) -> None:
        value = self._pop()
        self._memo[index] = value
        self._push(value)

    def _get(self, index: int) -> None:
        if index not in self._memo:
            raise self._error(f"the pickle refers to value {index}, which it never stored")
        self._push(self._memo[index])

    def _set_items(self, values: list[Any]) -> None:
        target = self._pop()
        if len(values) % 2:
            raise self._error(f"expected keys and values for a dict in pairs, found {len(values)} of them")
        if type(target) not in (dict, OrderedDict):
            raise self._error(f"expected entries for a dict, found them for an object of type {type(target).__name__}")
        for key, value in zip(values[::2], values[1::2], strict=True):
            if type(key) not in (str, int):  # hashing a nested tuple may take for ever
                raise self._error(f"expected dict keys to be texts or numbers, found type {type(key).__name__}")
            target[key] = value
        self._push(target)

    def _set_one_item(self) -> None:
        value, key = self._pop(), self._pop()
        self._set_items([key, value])

    def _append(self, values: list[Any]) -> None:
        target = self._pop()
        if type(target) is not list:
            raise self._error(f"expected elements for a list, found them for an object of type {type(target).__name__}")
        target.extend(values)
        self._push(target)

    def _tuple(self, count: int) -> None:
        self._push(tuple([self._pop() for _ in range(count)][::-1]))

    def _check_protocol(self) -> None:
        protocol = self._number(1)
        if not 2 <= protocol <= 5:
            raise self._error(f"expected pickle protocol 2 to 5, found {protocol}")


STEPS: dict[int, Callable[[PickleMachine], None]] = {
    0x80: PickleMachine._check_protocol,  # PROTO
    0x95: lambda m: (m._read(8), None)[1],  # FRAME
    0x28: lambda m: m._marks.append(len(m._stack)),  # MARK
    0x4E: lambda m: m._push(None),  # NONE
    0x88: lambda m: m._push(True),  # NEWTRUE
    0x89: lambda m: m._push(False),  # NEWFALSE
    0x4B: lambda m: m._push(m._number(1)),  # BININT1
    0x4D: lambda m: m._push(m._number(2)),  # BININT2
    0x4A: lambda m: m._push(int.from_bytes(m._read(4), "little", signed=True)),  # BININT
    0x8A: lambda m: m._push(int.from_bytes(m._read(m._number(1)), "little", signed=True)),  # LONG1
    0x47: lambda m: m._push(struct.unpack(">d", m._read(8))[0]),  # BINFLOAT
    0x55: lambda m: m._text(m._number(1)),  # SHORT_BINSTRING, written by Python 2
    0x54: lambda m: m._text(m._number(4)),  # BINSTRING
    0x58: lambda m: m._text(m._number(4)),  # BINUNICODE
    0x8C: lambda m: m._text(m._number(1)),  # SHORT_BINUNICODE
    0x8D: lambda m: m._text(m._number(8)),  # BINUNICODE8
    0x43: lambda m: m._bytes(m._number(1)),  # SHORT_BINBYTES
    0x42: lambda m: m._bytes(m._number(4)),  # BINBYTES
    0x5D: lambda m: m._push([]),  # EMPTY_LIST
    0x7D: lambda m: m._push({}),  # EMPTY_DICT
    0x29: lambda m: m._push(()),  # EMPTY_TUPLE
    0x85: lambda m: m._tuple(1),  # TUPLE1
    0x86: lambda m: m._tuple(2),  # TUPLE2
    0x87: lambda m: m._tuple(3),  # TUPLE3
    0x74: lambda m: m._push(tuple(m._pop_to_mark())),  # TUPLE
    0x61: lambda m: m._append([m._pop()]),  # APPEND
    0x65: lambda m: m._append(m._pop_to_mark()),  # APPENDS
    0x73: PickleMachine._set_one_item,  # SETITEM
    0x75: lambda m: m._set_items(m._pop_to_mark()),  # SETITEMS
    0x71: lambda m: m._put(m._number(1)),  # BINPUT
    0x72: lambda m: m._put(m._number(4)),  # LONG_BINPUT
    0x94: lambda m: m._put(len(m._memo)),  # MEMOIZE
    0x68: lambda m: m._get(m._number(1)),  # BINGET
    0x6A: lambda m: m._get(m._number(4)),  # LONG_BINGET
    0x63: PickleMachine._find_by_lines,  # GLOBAL
    0x93: PickleMachine._find_by_stack,  # STACK_GLOBAL
    0x52: PickleMachine._reduce,  # REDUCE
    0x62: PickleMachine._set_state,  # BUILD
    0x51: lambda m: m._push(m.load_persistent(m._pop())),  # BINPERSID
}
PickleMachine.steps = STEPS
