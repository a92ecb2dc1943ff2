"""Many items through one function, by a few threads: results in the order of the input, and few of them at a time."""

from __future__ import annotations

from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from minimobile.arguments import show
from minimobile.errors import InputError, MinimobileError
from minimobile.execution.threads import check_thread_count, default_thread_count
from minimobile.imaging.pictures import bring_upright

if TYPE_CHECKING:
    from concurrent.futures import Future

Item = TypeVar("Item")
Made = TypeVar("Made")

WINDOW = 4  # items under way or waiting for their turn, per thread


def in_order(work: Callable[[Item], Made], items: Iterable[Item], threads: int) -> Iterator[Made]:
    """Yield `work(item)` for each item, in their order, computed by `threads` threads (1: by the caller's own).

    At most `WINDOW` items per thread are taken before their results are asked for, so that memory does not grow with
    their number. An exception of `work` ends the stream where its item stands.
    """
    if threads <= 1:
        for item in items:
            yield work(item)
        return
    from concurrent.futures import ThreadPoolExecutor

    pending: deque[Future[Made]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="minimobile") as pool:
        try:
            for item in items:
                pending.append(pool.submit(work, item))
                if len(pending) >= WINDOW * threads:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


class StreamedPicture(NamedTuple):
    """One picture of a stream: what it was given as, and what the model returned, or why it could not be read."""

    source: Any
    outputs: Any
    error: str | None


class Streaming:
    """What models can do with more pictures than fit the memory."""

    processor: Any

    @abstractmethod
    def __call__(self, pixel_values: Any = None, *, return_dict: bool | None = None) -> Any:
        """Run the model."""

    def stream(self, sources: Iterable[Any], threads: int | None = None) -> Iterator[StreamedPicture]:
        """Yield what the model returns for each picture by itself, in the order of the input.

        A few pictures per thread are under way at any time, however many there are; the bits do not depend on the
        number of `threads` (None: one per processor, or MINIMOBILE_NUM_THREADS). A picture that cannot be read has its
        sentence in `error`, and stops no other. Raises InputError for a model without image-processor settings, for one
        picture in place of several, and for no such number of threads.
        """
        process = self.processor
        if process is None:
            raise InputError(f"{type(self).__name__}.stream: expected a model with image-processor settings, got none")
        if isinstance(sources, str | bytes | Path) or not isinstance(sources, Iterable):
            raise InputError(f"stream: expected several pictures, such as a list of paths, got {show(sources)}")
        count = default_thread_count() if threads is None else check_thread_count(threads, "threads")

        def compute(source: Any) -> StreamedPicture:
            try:
                return StreamedPicture(source, self(process.prepare(bring_upright(source)), return_dict=True), None)
            except MinimobileError as error:
                return StreamedPicture(source, None, str(error))

        return in_order(compute, sources, count)
