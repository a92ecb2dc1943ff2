"""Reading an HDF5 file in a child process, this side of it: a file that crashes the HDF5 library is one sentence here.

What the child says is data like a file's, and judged as such. Where no child can be started nothing is read: a way that
is safe is never left for one that is not.
"""

from __future__ import annotations

import importlib.util
import json
import math
import os
import re
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray

from minimobile.errors import FormatError, UnavailableError
from minimobile.storage.files import SPARE_BYTES

MEMORY = 2**30  # bytes of address space for the child beside four times the file; Python and its libraries take 150 MB
SECONDS = 5  # of processor time for a file of less than 1 MB, of which reading it takes 0.05
PATIENCE = 12  # how many times as long it may take by the clock, on a busy machine
MESSAGE_LIMIT = 64 * 2**20
ARRAY_LIMIT = 2**30  # bytes of all arrays; a MobileNet trained with two moments for each weight has 75 MB
NUMBERS = ("<f4", "<f2", "<f8", "<i8", "<i4", "<i2", "|i1", "<u8", "<u4", "<u2", "|u1")

Table = dict[str, tuple[np.dtype[Any], tuple[int, ...]]]


class Contents(NamedTuple):
    """What a file holds, by the path of an object: attributes (the root's is ""), types and shapes, and arrays."""

    attributes: dict[str, dict[str, Any]]
    table: Table
    arrays: dict[str, NDArray[Any]]


def fetch_contents(where: str, source: BinaryIO | bytes, size: int, has_numbers: bool = True) -> Contents:
    """Return what the HDF5 file `source` of `size` bytes holds: an open file of the system's, or an image of one.

    Without `has_numbers` the only arrays are those of texts. `where` names the file in messages. Raises FormatError for
    a file that is damaged or hostile, UnavailableError where no child process can be started.
    """
    seconds = SECONDS + (size >> 20)
    with _start(where, source, [str(int(has_numbers)), str(MEMORY + 4 * size), str(seconds)]) as process:
        child = _Child(where, process, size, seconds)
        clock = threading.Timer(seconds * PATIENCE, child.stop)
        clock.start()
        try:
            if isinstance(source, bytes):
                for act in (lambda: process.stdin.write(source), process.stdin.close):
                    with suppress(OSError):  # a child that has ended says why below
                        act()
            return child.receive(has_numbers)
        finally:
            clock.cancel()


def parse_table(values: Any, size: int, where: str) -> Table:
    """Return {path: [type, shape]} of JSON as dtypes and shapes; refuse more data than `size` bytes can hold."""
    table: Table = {}
    total = 0
    for name, (kind, shape) in values.items():
        is_known = kind in NUMBERS or (isinstance(kind, str) and re.fullmatch(r"\|S[1-9][0-9]{0,8}", kind))
        if not is_known or not all(type(length) is int and length >= 0 for length in shape):
            raise FormatError(f"{where}: {name[:100]}: expected the type and shape of an array, found others")
        table[name] = np.dtype(kind), tuple(shape)
        total += math.prod(shape) * table[name][0].itemsize  # Python integers: no overflow
    if total > size + SPARE_BYTES:
        raise FormatError(f"{where}: expected no more data than the file can hold, found {total} bytes")
    return table


@contextmanager
def _start(where: str, source: BinaryIO | bytes, arguments: list[str]) -> Iterator[Any]:
    """Start the child, with no handle of this process but its three streams, and see to it that it ends."""
    if not sys.executable or getattr(sys, "frozen", False):
        _refuse_to_start(where, "there is no Python interpreter to start")
    found = {name: importlib.util.find_spec(name) for name in ("numpy", "h5py")}
    folders = [str(Path(spec.origin).parents[1]) for spec in found.values() if spec is not None and spec.origin]
    if len(folders) < len(found):
        _refuse_to_start(where, "h5py is not installed")
    # Isolated from PYTHONPATH, the user's folder and the site's hooks: only these two libraries are looked for.
    program = str(Path(__file__).parent / "hdf5_child" / "__main__.py")
    threads = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL")}  # their stacks take address space
    try:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-B", program, *folders, *arguments],
            stdin=subprocess.PIPE if isinstance(source, bytes) else source,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, **threads, "HDF5_PLUGIN_PRELOAD": "::"},  # no plugin is ever looked for
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
        )
    except (OSError, ValueError) as error:
        _refuse_to_start(where, str(getattr(error, "strerror", None) or error))
    with process:
        try:
            yield process
        finally:
            process.kill()


def _refuse_to_start(where: str, reason: str) -> NoReturn:
    raise UnavailableError(
        f"{where}: HDF5 files are read in a child process, because damaged ones crash the HDF5 library, and none could "
        f"be started here ({' '.join(reason.split())[-200:]}); convert the file elsewhere: minimobile convert"
    )


class _SilenceError(Exception):
    """The child said no more."""


class _Child:
    """The answer of a running child, message by message."""

    def __init__(self, where: str, process: Any, size: int, seconds: int) -> None:
        self.where = where
        self.process = process
        self.size = size
        self.seconds = seconds
        self.is_ready = False
        self.is_late = False

    def stop(self) -> None:
        """End a child that takes too long."""
        self.is_late = True
        self.process.kill()

    def receive(self, has_numbers: bool) -> Contents:
        try:
            self.is_ready = self.read_message().get("ready") is True
            head = self.read_message()
            table = parse_table(head["arrays"], self.size, self.where)
            total = sum(math.prod(shape) * kind.itemsize for kind, shape in table.values())
            if has_numbers and total > ARRAY_LIMIT:
                raise FormatError(f"{self.where}: expected at most {ARRAY_LIMIT} bytes of arrays, found {total}")
            arrays = {}
            for name, (kind, shape) in table.items():
                if has_numbers or kind.kind == "S":
                    self.read_message()
                    arrays[name] = np.empty(shape, kind)
                    self.read_into(arrays[name].reshape(-1).view(np.uint8).data)
            self.read_message()
            return Contents(head["attributes"], table, arrays)
        except _SilenceError:
            raise self.explain_end() from None
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            if isinstance(error, FormatError):
                raise
            raise FormatError(f"{self.where}: this HDF5 file is damaged (reading it gave no meaning)") from error

    def read_message(self) -> dict[str, Any]:
        head = bytearray(8)
        self.read_into(memoryview(head))
        (length,) = struct.unpack("<Q", head)
        if length > MESSAGE_LIMIT:
            raise ValueError(length)
        text = bytearray(length)
        self.read_into(memoryview(text))
        message: dict[str, Any] = json.loads(text)
        if "refused" in message:
            raise FormatError(f"{self.where}: {message['refused']}")
        if "damaged" in message:
            raise FormatError(f"{self.where}: this HDF5 file is damaged or truncated ({message['damaged']})")
        return message

    def read_into(self, target: memoryview) -> None:
        while target:
            count = self.process.stdout.readinto(target)
            if not count:
                raise _SilenceError
            target = target[count:]

    def explain_end(self) -> FormatError:
        """Say how the child ended that did not answer in full."""
        code = self.process.wait()
        said = self.process.stderr.read().decode("utf-8", "replace").strip()
        if not self.is_ready:
            _refuse_to_start(self.where, said.rpartition("\n")[2] or f"it ended with exit code {code}")
        if self.is_late or code == -getattr(signal, "SIGXCPU", 0):
            return FormatError(
                f"{self.where}: this HDF5 file is damaged (reading it did not end within {self.seconds} seconds)"
            )
        how = f"exit code {code}"
        if code < 0:
            with suppress(ValueError):
                how = signal.Signals(-code).name
        return FormatError(
            f"{self.where}: this HDF5 file is damaged, it crashes the HDF5 library ({how}); copy it again"
        )
