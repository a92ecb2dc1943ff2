"""A run: sources to a table in parts, begun, gone on with and finished by any number of processes on any machines."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from minimobile.arguments import check_choice, read_whole, show
from minimobile.bulk.entries import Entry, Sources, leave_out, list_entries, read_sources
from minimobile.bulk.files import clear_leftovers, create_once, naming
from minimobile.bulk.options import BulkOptions, fingerprint, require_same_run
from minimobile.bulk.part_runner import PartReport
from minimobile.bulk.plan import Part, Plan, freeze_plan, read_plans
from minimobile.bulk.tables import ERROR_COUNTERS
from minimobile.bulk.tasks import require_task
from minimobile.bulk.workers import StoppedError, Worker
from minimobile.errors import InputError
from minimobile.execution.threads import count_processors
from minimobile.models.auto import load
from minimobile.models.inputs import read_layers
from minimobile.storage.files import user_path

SUCCESS = "_SUCCESS"
THREADS_PER_WORKER = 4  # beyond, Python's lock is what they wait for
ROWS_PER_PART = 1000

Heard = Callable[["Progress"], None]


class Engine(Protocol):
    """What computes parts: here by processes of this machine, elsewhere by others."""

    def __call__(
        self, options: BulkOptions, parts: Sequence[Part], folder: Path, jobs: int, hear: Callable[[Part, int], None]
    ) -> Iterable[PartReport]:
        """Compute the parts, in any order, and yield what became of each.

        `hear(part, rows)` may be told how far a part is. Where it is a generator, closing it ends all work.
        """
        ...


@dataclass(frozen=True)
class Progress:
    """How far a run is: rows done of all that are to be done now, and how many of them have an error."""

    rows: int
    of_rows: int
    errors: int


@dataclass(frozen=True)
class Summary:
    """What a run's folder holds when `run` returns.

    `rows` and `errors` are those of all parts that exist, `computed` the rows of this call; `is_complete` says that no
    part is missing (with a shard, parts of others may be).
    """

    folder: Path
    parts: int
    rows: int
    errors: int
    computed: int
    is_complete: bool


def run(
    sources: Sources,
    out: str | Path,
    *,
    task: str,
    model: str | Path,
    layers: Sequence[str] = (),
    top: int = 5,
    threshold: float = 0.5,
    overlay: bool = False,
    draft: bool = False,
    jobs: int | None = None,
    rows_per_part: int = ROWS_PER_PART,
    shard: tuple[int, int] = (0, 1),
    table_format: str = "parquet",
    column: str | None = None,
    engine: str | Engine = "local",
    progress: Heard | None = None,
    **overrides: Any,
) -> Summary:
    """Compute a task for all pictures that the sources name, into a table in parts.

    A folder in which a run was begun goes on where it was: parts that exist are left as they are. The bytes of a part
    depend on the pictures, the model, the options and the versions of the libraries, and on nothing else. Once all
    parts are there, pictures that have appeared since make parts of their own when the run is called again.

    Args:
        sources: folders (all below them), pictures, globs, lists (.txt), tables (.csv, .parquet), addresses of buckets,
            or "-" for a list on standard input.
        out: the folder of the table; made where it is not there.
        task: "classify", "features", "segment" or "detect".
        model: what `load` takes.
        layers: for `features`.
        top: how many classes `classify` lists.
        threshold: what the objects of `detect` must score more than.
        overlay: for `segment`, a picture for people beside each mask.
        draft: decode large JPEGs at a fraction of their size: faster, with other pixels.
        jobs: how many pictures are computed at the same time (None: as many as there are processors).
        rows_per_part: how many pictures make a part.
        shard: (index, count): compute only parts whose number modulo count is index.
        table_format: "parquet" (extra `bulk`), "csv" or "jsonl".
        column: the column of tables that holds paths or pictures.
        engine: "local", "ray" (extra `ray`), or an `Engine` of one's own, which computes the parts that are missing.
        progress: called as the run goes on.
        overrides: fields of the model's config, and other arguments of `load`.

    Raises:
        InputError: sources that name nothing, options that do not fit, or a folder that holds another run.
        FormatError: a model that cannot be loaded, a folder that cannot be written.
        UnavailableError: a package of an extra is missing.
    """
    sources, layers = read_sources(sources), tuple(map(str, read_layers(layers, "layers")))
    options = BulkOptions(str(model), task, table_format, layers, top, threshold, overlay, draft, overrides)
    jobs = count_processors() if jobs is None else read_whole(jobs, "jobs", 1)
    rows_per_part = read_whole(rows_per_part, "rows_per_part", 1)
    _check_shard(shard)
    opened = load(str(model), num_threads=1, **overrides)
    require_task(opened, options, str(model))
    compute = _find_engine(engine)
    folder, identity = user_path(out, "out"), fingerprint(opened, options)
    listed = None if folder.exists() else _list_some(sources, column)  # what names nothing leaves no folder behind
    with naming(folder):
        folder.mkdir(parents=True, exist_ok=True)
    if not folder.is_dir():
        raise InputError(f"{folder}: expected a folder for the table, found a file")
    require_same_run(folder, identity)
    clear_leftovers(folder)
    plans = _plan(folder, lambda: listed or list_entries(sources, column), rows_per_part, options)
    missing = [part for plan in plans for part in _missing(plan, folder, options, shard)]
    done = _Count(sum(part.count for part in missing), progress)
    for report in compute(options, missing, folder, jobs, done.hear) if missing else ():
        done.finish(report)
    clear_leftovers(folder)  # of workers that ended while they were writing, whoever has done their parts since
    return _settle(plans, folder, options, done.rows)


def _list_some(sources: Sequence[str], column: str | None) -> list[Entry]:
    entries = list_entries(sources, column)
    if not entries:  # an empty list on standard input, which may go on with a run but not begin one
        raise InputError("sources: expected pictures, found none")
    return entries


class _Count:
    """Rows and errors so far, told to whoever listens."""

    def __init__(self, of_rows: int, progress: Heard | None) -> None:
        self._of_rows = of_rows
        self._progress = progress
        self._running: dict[str, int] = {}
        self._lock = threading.Lock()
        self.rows = self.errors = 0

    def hear(self, part: Part, rows: int) -> None:
        with self._lock:
            self._running[part.name] = max(rows, self._running.get(part.name, 0))
        self._tell()

    def finish(self, report: PartReport) -> None:
        with self._lock:
            self._running.pop(report.name, None)
            self.rows += report.rows
            self.errors += report.errors
        self._tell()

    def _tell(self) -> None:
        if self._progress is not None:
            self._progress(Progress(self.rows + sum(self._running.values()), self._of_rows, self.errors))


def run_locally(
    options: BulkOptions, parts: Sequence[Part], folder: Path, jobs: int, hear: Callable[[Part, int], None]
) -> Iterator[PartReport]:
    """Compute parts by processes of this machine; an `Engine`."""
    processes = max(1, min(-(-jobs // THREADS_PER_WORKER), len(parts)))
    shares = [jobs // processes + (index < jobs % processes) for index in range(processes)]
    workers = [Worker(options, max(1, threads), folder) for threads in shares]
    left = iter(parts)
    lock = threading.Lock()
    answers: queue.SimpleQueue[PartReport | BaseException | None] = queue.SimpleQueue()

    def serve(worker: Worker) -> None:
        try:
            while True:
                with lock:
                    part = next(left, None)
                if part is None:
                    break
                answers.put(worker.run(part, hear))
            answers.put(None)
        except StoppedError:
            answers.put(None)
        except BaseException as error:
            answers.put(error)
        finally:
            worker.stop()

    threads = [threading.Thread(target=serve, args=(worker,), daemon=True) for worker in workers if parts]
    for thread in threads:
        thread.start()
    try:
        for _ in threads:
            yield from _until_none(answers)
    finally:
        for worker in workers:
            worker.stop()
        for thread in threads:
            thread.join()


def _until_none(answers: queue.SimpleQueue[PartReport | BaseException | None]) -> Iterator[PartReport]:
    while (answer := answers.get()) is not None:
        if isinstance(answer, BaseException):
            raise answer
        yield answer


def _plan(folder: Path, list_all: Callable[[], list[Entry]], rows_per_part: int, options: BulkOptions) -> list[Plan]:
    """Return the frozen plans; one more for what has appeared since, where all the others are done."""
    plans = read_plans(folder)
    if any(True for plan in plans for _ in _missing(plan, folder, options, (0, 1))):
        return plans
    entries = list(leave_out(list_all(), [plan.entries() for plan in plans])) if plans else list_all()
    if entries:
        (folder / SUCCESS).unlink(missing_ok=True)
        plans.append(freeze_plan(folder, entries, rows_per_part, len(plans) + 1))
    elif not plans:
        raise InputError("sources: expected pictures, found none")
    return plans


def _missing(plan: Plan, folder: Path, options: BulkOptions, shard: tuple[int, int]) -> Iterator[Part]:
    index, count = shard
    for number, part in enumerate(plan.parts()):
        if number % count == index and not _file(part, folder, options).exists():
            yield part


def _file(part: Part, folder: Path, options: BulkOptions) -> Path:
    return folder / f"{part.name}.{options.format}"


def _settle(plans: Sequence[Plan], folder: Path, options: BulkOptions, computed: int) -> Summary:
    """Say what is there, and mark the folder where nothing is missing."""
    there = [(part, _file(part, folder, options)) for plan in plans for part in plan.parts()]
    there = [(part, path) for part, path in there if path.exists()]
    is_complete = len(there) == sum(len(plan.offsets) for plan in plans)
    if is_complete:
        create_once(folder / SUCCESS, [])
    count = ERROR_COUNTERS[options.format]
    errors = sum(count(path) for _, path in there)
    return Summary(folder, len(there), sum(part.count for part, _ in there), errors, computed, is_complete)


def _find_engine(engine: str | Engine) -> Engine:
    if callable(engine):
        return engine
    check_choice(engine, "engine", ("local", "ray"))
    if engine == "ray":
        from minimobile.bulk.ray_engine import import_ray, run_on_ray

        import_ray()  # where it is missing, nothing is begun
        return run_on_ray
    return run_locally


def _check_shard(shard: tuple[int, int]) -> None:
    is_pair = isinstance(shard, list | tuple) and len(shard) == 2 and all(type(each) is int for each in shard)
    if not is_pair or not 0 <= shard[0] < shard[1]:
        raise InputError(f"shard: expected two whole numbers (I, N) with 0 <= I < N, got {show(shard)}")
