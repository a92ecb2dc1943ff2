"""Parts computed by a Ray cluster: actors that load the model once, and are replaced when they or their machine die."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from minimobile.bulk.options import BulkOptions
from minimobile.bulk.part_runner import PartReport, PartRunner
from minimobile.bulk.plan import Part
from minimobile.errors import FormatError, MinimobileError
from minimobile.storage.extras import import_extra

RETRIES = 5  # of a part whose actor or machine has died
PATIENCE = 300.0  # seconds for an actor that does not answer: Ray takes up to a minute to find that a machine is gone


def run_on_ray(
    options: BulkOptions, parts: Sequence[Part], folder: Path, jobs: int, hear: Callable[[Part, int], None]
) -> Iterator[PartReport]:
    """Compute parts by `jobs` actors of one processor each; an `Engine`. The folder must be common to all machines.

    Joins the cluster that RAY_ADDRESS names, or the one that this process has joined already, or begins one here.
    """
    ray = import_ray()
    if not ray.is_initialized():
        # Without an address Ray follows traces of the last cluster that began here, and waits for it if it is gone.
        address = os.environ.get("RAY_ADDRESS") or "local"
        ray.init(address, log_to_driver=False, configure_logging=False, include_dashboard=False)
    actor_class = ray.remote(num_cpus=1, max_restarts=-1, max_task_retries=RETRIES)(_PartActor)
    actors = [actor_class.remote(options, str(folder.absolute())) for _ in range(min(jobs, len(parts)))]
    pool = list(actors)
    left = iter(parts)
    under_way: dict[Any, tuple[Any, Part]] = {}
    silent_since: dict[str, float] = {}
    try:
        while True:
            while pool and (part := next(left, None)) is not None:
                actor = pool.pop()
                under_way[actor.run.remote(part)] = (actor, part)
            while pool:  # nothing is left for it: where a machine was lost, another actor waits for its processor
                ray.kill(pool.pop())
            if not under_way:
                return
            (ready,), _ = ray.wait(list(under_way), num_returns=1)
            actor, part = under_way.pop(ready)
            try:
                report, sentence = ray.get(ready)
            except ray.exceptions.ActorUnavailableError:
                # It does not answer, and Ray does not know yet whether it, or its machine, has ended: that is no death.
                now = time.monotonic()
                if now - silent_since.setdefault(part.name, now) > PATIENCE:
                    raise FormatError(
                        f"{part.name}: expected an actor that answers, found none for {PATIENCE:.0f} seconds"
                    ) from None
                time.sleep(1)
                under_way[actor.run.remote(part)] = (actor, part)
                continue
            except ray.exceptions.RayError as error:
                reason = str(error).strip().splitlines()[0][:200]
                raise FormatError(
                    f"{part.name}: expected an actor to compute it, but each of them ended ({reason})"
                ) from None
            if sentence is not None:
                raise FormatError(sentence)
            hear(part, report.rows)
            pool.append(actor)
            yield report
    finally:
        for actor in actors:
            ray.kill(actor)


def import_ray() -> Any:
    """Return Ray. Raises UnavailableError where it is not installed."""
    return import_extra("ray", "ray", "to run on a cluster")


class _PartActor:
    """One process of a cluster."""

    def __init__(self, options: BulkOptions, folder: str) -> None:
        self._options = options
        self._folder = folder
        self._runner: PartRunner | None = None

    def run(self, part: Part) -> tuple[PartReport | None, str | None]:
        """Compute one part; what is wrong comes back as a sentence, because an exception would be tried again."""
        try:
            if self._runner is None:
                self._runner = PartRunner(self._options)
            return self._runner.run(part, self._folder), None
        except MinimobileError as error:
            return None, str(error)


class RayBatches:
    """For pipelines of Ray Data: `dataset.map_batches(RayBatches, fn_constructor_args=(options,), ...)`.

    Takes batches with a column "path" (text) or "bytes" and adds the task's columns and "error"; a bad picture is a row
    with its error and fails nothing. Use `compute=ActorPoolStrategy(size=n)`, so that each actor loads the model once.
    """

    def __init__(self, options: BulkOptions, threads: int = 1) -> None:
        self._runner = PartRunner(options, threads)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Return the batch with the task's columns."""
        rows = self._runner.compute(list(batch["bytes"] if "bytes" in batch else batch["path"]))
        names = [column.name for column in self._runner.columns]
        return {**batch, **{name: [row.get(name) for row in rows] for name in names}}
