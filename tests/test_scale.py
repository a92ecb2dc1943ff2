"""What many pictures cost: computed from what was measured, and memory that does not grow with their number."""

from __future__ import annotations

from pathlib import Path

import pytest
from bulk_runs import make_pictures

from tools import scale


def test_costs_are_the_measured_figures_times_the_count() -> None:
    lines = scale.cost_table(scale.Measured(0.0036, 500, 40, 1e-5)).splitlines()
    assert lines[2:] == [
        "| hours of one core | 1.0 | 1,000.0 |",
        "| table (JSON lines) | 500 MB | 500.0 GB |",
        "| plan | 40 MB | 40.0 GB |",
        "| parts | 1,000 | 1,000,000 |",
        "| listing a local disk | 10 s | 10,000 s |",
        "| listing an object store | 1,000 requests | 1,000,000 requests |",
        "| reading from it | 2,000,000 requests | 2,000,000,000 requests |",
    ]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc to read a process's memory")
def test_memory_of_a_plan_and_of_a_run(tmp_path: Path) -> None:
    assert scale.measure_plan(10**6) - scale.measure_plan(1000) <= 150
    pictures = sorted(make_pictures(tmp_path / "pictures", 5).rglob("*.png"))
    peaks = []
    for count in (1000, 5000):
        folder = scale.link_pictures(pictures, tmp_path / str(count), count)
        peaks.append(scale.measure_run(folder, tmp_path / f"out{count}", "demo:digits", "classify")[1])
    assert peaks[0] > 50
    assert peaks[1] <= min(350, peaks[0] + 25)
