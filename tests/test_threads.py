import threading

import pytest

from minimobile.errors import InputError
from minimobile.threads import Crew, check_thread_count, default_thread_count


def test_every_part_runs_once_and_on_its_own_thread():
    seen = []
    Crew(3).run(lambda thread, threads: seen.append((thread, threads, threading.get_ident())), lambda: None)
    assert sorted(part[:2] for part in seen) == [(0, 4), (1, 4), (2, 4), (3, 4)]
    assert len({part[2] for part in seen}) == 4


def test_who_finds_the_crew_busy_works_alone():
    crew, inner = Crew(1), []

    def outer(thread, threads):
        if thread == 0:
            crew.run(lambda thread, threads: inner.append((thread, threads)), lambda: None)

    crew.run(outer, lambda: None)
    assert inner == [(0, 1)]


def test_an_interrupted_caller_tells_the_others_and_waits_for_them():
    crew, gave_up, left = Crew(1), threading.Event(), []

    def work(thread, threads):
        if thread == 0:
            raise KeyboardInterrupt
        assert gave_up.wait(10)
        left.append(thread)

    with pytest.raises(KeyboardInterrupt):
        crew.run(work, gave_up.set)
    assert left == [1]
    again = []
    crew.run(lambda thread, threads: again.append(thread), lambda: None)
    assert sorted(again) == [0, 1]


def test_helpers_end_with_their_crew():
    crew = Crew(2)
    crew.run(lambda thread, threads: None, lambda: None)
    helpers = [thread for thread in threading.enumerate() if thread.name == "minimobile-helper"]
    assert len(helpers) >= 2
    before = len(helpers)
    del crew
    for helper in helpers:
        helper.join(0.5)
    assert sum(helper.is_alive() for helper in helpers) <= before - 2


def test_thread_count_from_the_environment(monkeypatch):
    monkeypatch.setenv("MINIMOBILE_NUM_THREADS", "3")
    assert default_thread_count() == 3
    monkeypatch.setenv("MINIMOBILE_NUM_THREADS", "all")
    with pytest.raises(InputError, match="expected a whole number from 1 to 1024, got 'all'"):
        default_thread_count()
    monkeypatch.delenv("MINIMOBILE_NUM_THREADS")
    assert default_thread_count() >= 1
    assert check_thread_count(2) == 2
