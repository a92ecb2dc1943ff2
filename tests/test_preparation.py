"""Compiling in two processes: what each of them does, and that one is enough."""

import os
import subprocess
import sys

import numpy as np
import pytest

import minimobile as mm
from minimobile_kernels import entries, kernel_cache, preparation
from minimobile_kernels.native import Entry

SMALL = ("look_up", "sigmoid_scores")


@pytest.fixture
def directory(tmp_path, monkeypatch):
    """Return an empty folder for machine code, for entries that nobody has called yet."""
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    for name in SMALL:
        entry = getattr(entries, name)
        monkeypatch.setattr(entries, name, Entry(entry.module, entry.name, *entry.parameters))
    return tmp_path / "minimobile"


def kept(directory):
    return sorted(path.name.split("-")[0].rpartition(".")[2] for path in directory.glob("*.kernel"))


def are_loaded():
    return [getattr(entries, name)._function is not None for name in SMALL]


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="the test says how many processors there are")
def test_another_process_compiles_what_is_not_needed_at_once(directory, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1})
    preparation.load_on_two(["look_up"], ["sigmoid_scores"])
    assert kept(directory) == sorted(SMALL) and are_loaded() == [True, False]
    monkeypatch.setattr(subprocess, "Popen", None)  # nothing is left to start a process for
    preparation.load_on_two(["sigmoid_scores"], [])
    assert are_loaded() == [True, True]


def on_one_processor(monkeypatch, tmp_path):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0}, raising=False)


def with_no_place_to_keep(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "file"))
    assert not kernel_cache.can_write()


def without_python(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "executable", "")


@pytest.mark.parametrize("alone", [on_one_processor, with_no_place_to_keep, without_python])
@pytest.mark.filterwarnings("ignore:the compiled kernels cannot be kept")
def test_one_process_is_enough(directory, monkeypatch, alone):
    alone(monkeypatch, directory.parent)
    monkeypatch.setattr(subprocess, "Popen", None)
    preparation.load_on_two(["look_up"], ["sigmoid_scores"])
    assert are_loaded() == [True, False]


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="the test says how many processors there are")
def test_a_second_process_that_fails_is_no_failure(directory, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1})
    monkeypatch.setattr(preparation, "_PROGRAM", "raise SystemExit(1)")
    preparation.load_on_two(["look_up"], ["sigmoid_scores"])
    assert kept(directory) == ["look_up"]
    preparation.load_on_two(["sigmoid_scores"], [])
    assert kept(directory) == sorted(SMALL)


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="the test says how many processors there are")
def test_a_second_process_does_not_outlive_an_interruption(directory, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1})
    monkeypatch.setattr(preparation, "_PROGRAM", "import time; time.sleep(60)")
    started = []
    start = subprocess.Popen

    def watch(*arguments, **named):
        started.append(start(*arguments, **named))
        return started[0]

    def interrupt(names):
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess, "Popen", watch)
    monkeypatch.setattr(preparation, "load_entries", interrupt)
    with pytest.raises(KeyboardInterrupt):
        preparation.load_on_two(["look_up"], ["sigmoid_scores"])
    assert started[0].returncode not in (None, 0)


def test_what_is_compiled_is_not_compiled_again(monkeypatch):
    model = mm.load("demo:digits")
    model(np.zeros((1, 3, 64, 64), np.float32))
    monkeypatch.setattr(subprocess, "Popen", None)
    model.prepare()


def test_the_definitions_need_no_kernels(monkeypatch):
    monkeypatch.setattr(preparation, "prepare", None)
    mm.load("demo:digits", engine="reference").prepare()


def test_the_engines_are_entries_and_not_all_of_them():
    found = {name for name, entry in vars(entries).items() if isinstance(entry, Entry)}
    assert set(preparation.ENGINES) < found
