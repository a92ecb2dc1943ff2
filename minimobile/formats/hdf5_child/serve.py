"""One request: a file comes in on standard input, what it holds goes out on standard output, as messages of JSON.

A message is a length (8 bytes, little-endian) and that many bytes. First {"ready": true}; then {"attributes": {path:
{name: value}}, "arrays": {path: [dtype, shape]}}; then {"array": path} before each array's bytes; then {"done": true}.
Anywhere, {"refused": a sentence} or {"damaged": what h5py said} may stand instead and ends the answer.
"""

from __future__ import annotations

import codecs
import contextlib
import io
import json
import os
import stat
import struct
import time
import zlib
from typing import Any, BinaryIO

import h5py
import numpy as np

from . import RefusalError
from .arrays import read_array
from .objects import examine

_LIBRARY_ERRORS = (OSError, RuntimeError, LookupError, ValueError, TypeError, ArithmeticError, zlib.error, struct.error)


def main(has_numbers: bool, memory: int, seconds: int) -> None:
    """Answer with what the file holds, its texts, and its numbers where these are asked for, within limits.

    `memory` is in bytes of address space, `seconds` are of processor time.
    """
    with open(0, "rb", closefd=False) as source, open(1, "wb", closefd=False) as answer:
        _say(answer, {"ready": True})
        answer.flush()
        for name in ("ascii", "utf-8", "latin-1"):
            codecs.lookup(name)  # their modules are files
        is_file = stat.S_ISREG(os.fstat(0).st_mode)
        content = source if is_file else io.BytesIO(source.read())
        _limit_resources(memory, seconds)
        try:
            _answer(content, answer, has_numbers)
        except RefusalError as error:
            _say(answer, {"refused": str(error)})
        except MemoryError:
            _say(answer, {"refused": f"reading it takes more than {memory >> 20} MB of memory"})
        except _LIBRARY_ERRORS as error:
            _say(answer, {"damaged": f"{type(error).__name__}: {' '.join(str(error).split())}"})


def _answer(source: BinaryIO, answer: BinaryIO, has_numbers: bool) -> None:
    size = source.seek(0, io.SEEK_END)
    with h5py.File(source, "r") as root:
        contents = examine(root, source, size)
        types = {name: dataset.dtype.newbyteorder("<") for name, dataset in contents.datasets.items()}
        table = {name: [kind.str, list(map(int, contents.datasets[name].shape))] for name, kind in types.items()}
        _say(answer, {"attributes": contents.attributes, "arrays": table})
        for name, kind in types.items():
            if has_numbers or kind.kind == "S":
                values = read_array(contents.datasets[name], name).astype(kind, copy=False)
                _say(answer, {"array": name})
                answer.write(values.reshape(-1).view(np.uint8).data)
    _say(answer, {"done": True})


def _say(answer: BinaryIO, value: dict[str, Any]) -> None:
    text = json.dumps(value).encode("ascii")
    answer.write(struct.pack("<Q", len(text)) + text)


def _limit_resources(memory: int, seconds: int) -> None:
    """Limit what this process may take; it may open no file any more, so that no file leads to another one."""
    if os.name != "posix":
        return  # the parent's limit on time has to do
    import resource

    spent = int(time.process_time()) + 1
    for what, limit, most in (
        (resource.RLIMIT_CPU, spent + seconds, spent + seconds + 1),
        (resource.RLIMIT_AS, memory, memory),
        (resource.RLIMIT_CORE, 0, 0),
        (resource.RLIMIT_NOFILE, 0, 0),
    ):
        with contextlib.suppress(OSError, ValueError):  # a system that does not know this limit, or has a lower one
            resource.setrlimit(what, (limit, most))
