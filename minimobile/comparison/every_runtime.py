"""Which runtime is right? One network on one picture in every runtime that is installed, each beside a float64 run."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from numpy.typing import ArrayLike, NDArray

from minimobile.comparison.bench import compare
from minimobile.comparison.crosscheck import open_source, read_pixels
from minimobile.comparison.environment import describe_environment
from minimobile.comparison.figures import shorten
from minimobile.comparison.frameworks import import_framework
from minimobile.comparison.layer_comparison import compare_layers
from minimobile.comparison.peers import Peer, run_peer, runs_file
from minimobile.comparison.report import Report
from minimobile.comparison.report_page import write_page, write_sections, write_verdict
from minimobile.comparison.verdict import Verdict
from minimobile.errors import InputError, MinimobileError, UnavailableError
from minimobile.execution.threads import default_thread_count
from minimobile.models.classes import MobileNetModel
from minimobile.tables import Table, facts_table

Array = NDArray[Any]
RUNTIMES = {
    "transformers": ("transformers", "torch"),
    "tensorflow": ("tensorflow",),
    "litert": ("ai_edge_litert",),
    "onnxruntime": ("onnxruntime",),
    "openvino": ("openvino",),
}
"""The packages that each needs."""
_SECONDS = 1.0  # of each runtime's inferences


@dataclass(frozen=True)
class RuntimeResult:
    """What one runtime made of the network.

    `error` is the rms distance of its last layer from the float64 run, relative to that run's rms; `first_difference`
    the first layer that rounding does not explain, `diagnosis` what it looks like. `milliseconds` is the least time of
    one inference of the same network on all processors, from array to array. `runs_file`: it ran the file itself, not
    our reading of it. `note` says why it could not be run.
    """

    name: str
    runs_file: bool = False
    agrees: bool | None = None
    error: float | None = None
    first_difference: str | None = None
    diagnosis: str | None = None
    milliseconds: float | None = None
    note: str | None = None


@dataclass(frozen=True, repr=False)
class RuntimesReport(Verdict):
    """What every runtime made of one network; `first_difference` is the first runtime that differs.

    `reports` has the comparison of layers of each runtime that ran, by its name.
    """

    runtimes: tuple[RuntimeResult, ...]
    reports: Mapping[str, Report] = dataclasses.field(default_factory=dict)
    environment: dict[str, str] = dataclasses.field(default_factory=dict)

    def __repr__(self) -> str:
        return f"RuntimesReport({len(self.runtimes)} runtimes: {self.sentences()[0]})"

    def _repr_html_(self) -> str:
        """Return the table of the command `check --against all`, for notebooks."""
        return self.table().to_html()

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON, the layers of every runtime among them."""
        plain = dataclasses.asdict(dataclasses.replace(self, reports={}))
        reports = {name: report.to_dict() for name, report in self.reports.items()}
        return {"agrees": self.agrees, **plain, "reports": reports}

    def to_page(self, compared: Mapping[str, object] | None = None) -> str:
        """Return all of it as one HTML page: the runtimes side by side, then the layers in each.

        `compared` says by names what ran.
        """
        table = self.table()
        sections = {"Runtimes": [Table(table.columns, table.rows).to_html()]}
        for name, report in self.reports.items():
            parts = write_verdict(report.sentences()) + write_sections(report.sections(), 3)
            sections[f"Against {name}"] = [parts]
        sections["Versions"] = [facts_table(list(self.environment.items())).to_html()]
        return write_page("minimobile check, against all", self.sentences(), sections, compared)

    def table(self) -> Table:
        """Return each runtime's error, first difference and time, and the verdict in words below."""
        rows = []
        for row in self.runtimes:
            verdict = {True: "agrees", False: "differs", None: "cannot tell"}[row.agrees]
            what = "the file itself" if row.runs_file else "our reading of it"
            error = "" if row.error is None else f"{row.error:.2g}"
            time = shorten(row.milliseconds, 2)
            rows.append((row.name, what, error, verdict, row.first_difference or row.note or "", time))
        columns = ("runtime", "runs", "error to float64#", "verdict", "first beyond rounding", "ms#")
        return Table(columns, rows, "one network, one picture", self.sentences())

    def sentences(self) -> tuple[str, ...]:
        """Return the verdict in words."""
        ran = [row for row in self.runtimes if row.note is None]
        wrong = [row for row in ran if row.agrees is False]
        right = [row for row in ran if row.agrees]
        if len(ran) < 2:
            return ("cannot tell: no other runtime could run the network",)
        if not wrong:
            exact = min((row for row in ran if row.error is not None), key=lambda row: row.error or 0.0, default=None)
            doubt = [row.name for row in ran if row.agrees is None]
            yes = f"all {len(right)} agree: rounding explains every difference"
            yes += "" if exact is None else f"; nearest to float64 is {exact.name}"
            return (yes,) if not doubt else (yes, f"cannot tell of {', '.join(doubt)}: too little is shown of them")
        lines = [
            f"{row.name} differs first at {row.first_difference}: {row.diagnosis or 'no known fault explains it'}"
            for row in wrong
        ]
        if all(row.runs_file for row in wrong) and any(not row.runs_file for row in right):
            lines.append(
                "only what runs the file itself differs: the runtimes agree on the network as we read it, so either "
                "the file says something else than we read, or its runtime computes it otherwise"
            )
        elif len(right) > 1:
            names = ", ".join(row.name for row in right)
            lines.append(f"{names} agree with the float64 run: the difference lies with {wrong[0].name}")
        return tuple(lines)


def check_all(
    source: MobileNetModel | str | Path, image: Any = None, *, pixel_values: ArrayLike | None = None
) -> RuntimesReport:
    """Run a network on the same pixels here and in every runtime that is installed, and say which of them is right.

    A runtime that reads the source's own format runs the file itself, every other one our reading of it. Judged is as
    in `check`; the reference are our definitions in float64.

    Args:
        source: a model, or what `load` takes.
        image: one picture, in any form that the model's image processor takes.
        pixel_values: (N, C, H, W), in place of a picture.

    Raises:
        InputError: neither or both of image and pixel_values, or a network of integers.
        FormatError: a source cannot be read.
        UnavailableError: no runtime is installed.
    """
    installed = [name for name, packages in RUNTIMES.items() if all(find_spec(package) for package in packages)]
    if not installed:
        raise UnavailableError(
            f"check: expected one of {', '.join(RUNTIMES)}, none is installed; "
            "python -m pip install 'minimobile[crosscheck]'"
        )
    model, peer = open_source(source)
    if model.is_quantized:
        raise InputError("check: expected a network of floats to compare all runtimes, got one of integers")
    pixels = read_pixels(model, image, pixel_values)
    times = _time(model, pixels, installed)
    results = [_run(name, model, peer, pixels, times.get(_rival(name))) for name in installed]
    rows = (_ours(results, times.get("minimobile")), *(row for row, _ in results))
    differing = next((row for row in rows if row.agrees is False), None)
    doubt = next((row.name for row in rows if row.agrees is None), None)
    return RuntimesReport(
        runtimes=rows,
        reports={row.name: report for row, report in results if report is not None},
        environment=describe_environment(),
        first_difference=None if differing is None else differing.name,
        diagnosis=None if differing is None else differing.diagnosis,
        doubt=None if doubt is None else f"{doubt} could not be judged",
    )


def _run(
    name: str, model: MobileNetModel, peer: Peer, pixels: Array, milliseconds: float | None
) -> tuple[RuntimeResult, Report | None]:
    try:
        report = compare_layers(model, pixels, run_peer(name, peer, pixels), name)
    except MinimobileError as error:
        return RuntimeResult(name, note=str(error)), None
    row = RuntimeResult(
        name,
        runs_file(name, peer),
        report.agrees,
        report.layers[-1].their_error,
        report.first_difference,
        report.diagnosis,
        milliseconds,
    )
    return row, report


def _ours(results: Sequence[tuple[RuntimeResult, Report | None]], milliseconds: float | None) -> RuntimeResult:
    """Return our own row: our error is the same beside every runtime that shows the last layer."""
    errors = [report.layers[-1].our_error for _, report in results if report is not None]
    error = next((error for error in errors if error is not None), None)
    return RuntimeResult("minimobile", error is not None, True, error, milliseconds=milliseconds)


def _time(model: MobileNetModel, pixels: Array, names: Sequence[str]) -> dict[str, float]:
    """Return the least milliseconds of one inference by rival; what refuses the network is left out.

    On as many threads as each takes by default: TensorFlow's number belongs to the process.
    """
    times: dict[str, float] = {}
    n, c, h, w = pixels.shape
    for rival in map(_rival, names):
        try:
            with _keeping_threads(rival):
                found = compare(
                    model.graph, model.state_dict(), (n, c, h, w), [rival], default_thread_count(), _SECONDS
                )
        except MinimobileError:  # its row says why it cannot be run, or in what it differs
            continue
        for timing in found:
            times[timing.name] = min(times.get(timing.name, math.inf), timing.minimum)
    return times


def _rival(name: str) -> str:
    """Return what a runtime is called where it is timed."""
    return "torch" if name == "transformers" else name


@contextmanager
def _keeping_threads(rival: str) -> Iterator[None]:
    """Leave PyTorch the number of threads that it has: it is the process's, and the others' are their own."""
    if rival != "torch":
        yield
        return
    torch = import_framework("torch")
    count = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(count)
