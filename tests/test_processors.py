"""What the system says of its processors, where it says anything."""

import os

import pytest

from minimobile.execution import processors


@pytest.mark.parametrize(("running", "are_taken"), [(1, False), (2, True), (3, True)])
def test_processors_are_taken_by_as_many_threads_that_run(running, are_taken, tmp_path, monkeypatch):
    load = tmp_path / "loadavg"
    load.write_text(f"0.42 0.70 1.91 {running}/141 22021\n", "ascii")
    monkeypatch.setattr(processors, "LOAD", load)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    assert processors.are_all_taken() is are_taken


def test_nobody_knows_without_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(processors, "LOAD", tmp_path / "loadavg")
    assert not processors.are_all_taken()
