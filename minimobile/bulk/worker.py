"""A worker: `python -m minimobile.bulk.worker` reads parts from standard input and says on standard output what it did.

One JSON object a line, both ways. First comes what to compute, then a part at a time:

    in   {"options": {...}, "threads": 4, "folder": "..."}
    out  {"ready": true} | {"failed": sentence}
    in   {"part": {...}, "is_careful": bool, "killers": {row: sentence}}
    out  {"at": row}      before each picture, where `is_careful`
    out  {"rows": count}  now and then
    out  {"done": {"name": ..., "rows": ..., "errors": ...}} | {"failed": sentence}

It ends when its standard input does, in the middle of a part as well: then whoever asked is no more.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import sys
import threading
import time
from typing import Any, TextIO

from minimobile.bulk.options import BulkOptions
from minimobile.bulk.part_runner import PartRunner
from minimobile.bulk.plan import Part
from minimobile.errors import MinimobileError

PAUSE = 0.25  # seconds between two words on how far a part is


class _Voice:
    """What the worker says; lines of one thread each, whole."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._spoken = 0.0

    def say(self, **words: Any) -> None:
        self._stream.write(json.dumps(words) + "\n")
        self._stream.flush()

    def say_rows(self, count: int) -> None:
        now = time.monotonic()
        if now - self._spoken > PAUSE:
            self._spoken = now
            self.say(rows=count)


def main() -> None:
    """Work until standard input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever started this one decides
    voice = _Voice(os.fdopen(os.dup(1), "w", encoding="utf-8"))
    os.dup2(2, 1)  # a decoder that prints must not be taken for the worker
    orders: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(orders,), daemon=True).start()
    first = orders.get()
    try:
        runner = PartRunner(BulkOptions.from_dict(first["options"]), first["threads"])
    except MinimobileError as error:
        voice.say(failed=str(error))
        return
    voice.say(ready=True)
    while True:
        order = orders.get()
        killers = {int(row): sentence for row, sentence in order["killers"].items()}
        before = (lambda row: voice.say(at=row)) if order["is_careful"] else None
        part = Part(**order["part"])
        try:
            report = runner.run(part, first["folder"], killers=killers, before=before, after=voice.say_rows)
        except MinimobileError as error:
            voice.say(failed=str(error))
        else:
            voice.say(done={"name": report.name, "rows": report.rows, "errors": report.errors})


def _listen(orders: queue.SimpleQueue[dict[str, Any]]) -> None:
    with contextlib.suppress(ValueError, OSError):
        for line in sys.stdin:
            orders.put(json.loads(line))
    os._exit(0)


if __name__ == "__main__":
    main()
