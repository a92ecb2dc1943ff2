"""Helpers: asked once each, never waited for, and gone with their crew."""

import queue
import threading

import pytest

from minimobile.errors import InputError
from minimobile.execution.threads import Crew, check_thread_count, default_thread_count


def test_every_helper_is_asked_once_and_is_a_thread_of_its_own():
    seen = queue.SimpleQueue()
    crew = Crew(3)
    crew.invite(lambda thread: seen.put((thread, threading.get_ident())))
    found = [seen.get(timeout=10) for _ in range(3)]
    assert sorted(thread for thread, _ in found) == [1, 2, 3]
    assert len({ident for _, ident in found} | {threading.get_ident()}) == 4


def test_a_crew_of_none_does_nothing():
    Crew(0).invite(lambda thread: pytest.fail("nobody is there"))


def test_a_busy_helper_comes_late_and_nobody_waits():
    crew, may_go_on, seen = Crew(1), threading.Event(), queue.SimpleQueue()
    crew.invite(lambda thread: may_go_on.wait(10))
    crew.invite(seen.put)
    assert seen.empty()
    may_go_on.set()
    assert seen.get(timeout=10) == 1


def test_calls_do_not_pile_up_before_a_helper_that_does_not_run():
    crew, may_go_on, calls = Crew(1), threading.Event(), []
    crew.invite(lambda thread: may_go_on.wait(10))
    for _ in range(100):
        crew.invite(calls.append)
    may_go_on.set()
    done = threading.Event()
    while not done.is_set():
        crew.invite(lambda thread: done.set())
    assert len(calls) <= 5


def test_helpers_end_with_their_crew():
    crew, seen = Crew(2), queue.SimpleQueue()
    crew.invite(lambda thread: seen.put(threading.current_thread()))
    helpers = [seen.get(timeout=10) for _ in range(2)]
    del crew
    for helper in helpers:
        helper.join(10)
    assert not any(helper.is_alive() for helper in helpers)


def test_thread_count_from_the_environment(monkeypatch):
    monkeypatch.setenv("MINIMOBILE_NUM_THREADS", "3")
    assert default_thread_count() == 3
    monkeypatch.setenv("MINIMOBILE_NUM_THREADS", "all")
    with pytest.raises(InputError, match="expected a whole number from 1 to 1024, got 'all'"):
        default_thread_count()
    monkeypatch.delenv("MINIMOBILE_NUM_THREADS")
    assert default_thread_count() >= 1
    assert check_thread_count(2) == 2
