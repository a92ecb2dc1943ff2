"""How many threads a run has."""

from pathlib import Path

import pytest

from minimobile.cli.pictures import work_through
from minimobile.errors import InputError
from minimobile.execution.threads import check_thread_count, default_thread_count


def test_thread_count_from_the_environment(monkeypatch):
    monkeypatch.setenv("MINIMOBILE_NUM_THREADS", "3")
    assert default_thread_count() == 3
    monkeypatch.setenv("MINIMOBILE_NUM_THREADS", "all")
    with pytest.raises(InputError, match="MINIMOBILE_NUM_THREADS: expected a whole number from 1 to 1024, got 'all'"):
        default_thread_count()
    monkeypatch.delenv("MINIMOBILE_NUM_THREADS")
    assert default_thread_count() >= 1
    assert check_thread_count(2) == 2
    with pytest.raises(InputError, match="num_threads: expected a whole number from 1 to 1024"):
        check_thread_count("9" * 5000)  # more digits than Python reads


def test_pictures_at_once_obey_the_environment_too(monkeypatch):
    monkeypatch.setenv("MINIMOBILE_NUM_THREADS", "0")
    with pytest.raises(InputError, match="MINIMOBILE_NUM_THREADS: expected a whole number from 1 to 1024, got '0'"):
        list(work_through([Path("a.png"), Path("b.png")], "pictures", lambda path: {}))
