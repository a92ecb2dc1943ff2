"""What calls share: what is made once and kept, arenas and locks; beside other threads, and in a forked child."""

import os
import signal
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest

from minimobile.execution.arena import ArenaPool
from minimobile.execution.recent import MOST, Recent
from minimobile.imaging import pictures
from minimobile_kernels import entries, kernel_cache, native

PATIENCE = 60  # seconds; a lock that nobody opens is a failure, and no test that never ends
forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
quietly = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")


def test_the_last_ones_asked_for_are_kept():
    recent, made = Recent(), []
    for key in [*range(MOST), 0, MOST, 0, 1]:  # 1 is the one that was asked for longest ago, and goes for MOST
        assert recent.find(key, lambda key=key: made.append(key) or f"made of {key}") == f"made of {key}"
    assert made == [*range(MOST + 1), 1]


def test_what_is_made_already_is_found_while_another_thing_is_made():
    recent, has_begun, may_end = Recent(), threading.Event(), threading.Event()
    recent.find("small", lambda: "small")

    def make():
        has_begun.set()
        assert may_end.wait(PATIENCE)
        return "large"

    with ThreadPoolExecutor(2) as pool:
        large = pool.submit(recent.find, "large", make)
        has_begun.wait(PATIENCE)
        again = pool.submit(recent.find, "small", lambda: "made twice")
        try:
            assert again.result(PATIENCE) == "small"
        finally:
            may_end.set()
        assert large.result(PATIENCE) == "large"


def exit_code_of_child(check):
    """Fork, and return the child's exit code: 0 where `check` is true, that of SIGALRM where it waits for ever."""
    process = os.fork()
    if process == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(PATIENCE)
        is_right = False
        try:
            is_right = check()
        finally:
            os._exit(0 if is_right else 1)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def test_one_thread_at_a_time_makes_and_nobody_what_another_has_made_meanwhile():
    recent = Recent()
    assert recent.find("mine", lambda: recent._lock.here().locked())
    look_up = recent._look_up

    def look_before_another_makes_it(key):
        recent._look_up = look_up
        recent._made[key] = "theirs"

    recent._look_up = look_before_another_makes_it
    assert recent.find("both", lambda: "mine") == "theirs"


@forks
@quietly
def test_a_child_does_not_wait_for_what_a_thread_of_its_parent_makes():
    recent, has_begun, may_end = Recent(), threading.Event(), threading.Event()

    def make():
        has_begun.set()
        assert may_end.wait(2 * PATIENCE)
        return "the parent's"

    with ThreadPoolExecutor(1) as pool:
        made = pool.submit(recent.find, "program", make)
        has_begun.wait(PATIENCE)
        try:
            assert exit_code_of_child(lambda: recent.find("program", lambda: "the child's") == "the child's") == 0
        finally:
            may_end.set()
        assert made.result(PATIENCE) == "the parent's"


@forks
@quietly
def test_a_process_is_forked_after_what_is_loading_is_loaded(monkeypatch):
    entry = entries.softmax
    fresh = native.Entry(entry.module, entry.name, *entry.parameters)
    has_begun, may_end, read = threading.Event(), threading.Event(), kernel_cache.read

    def read_slowly(name):
        has_begun.set()
        may_end.wait(0.05)  # so long has the other thread for beginning to fork; the test holds if it does so later
        return read(name)

    monkeypatch.setattr(kernel_cache, "read", read_slowly)
    loading = threading.Thread(target=fresh.load)
    loading.start()
    has_begun.wait(PATIENCE)
    assert exit_code_of_child(lambda: fresh.load() or fresh.address != 0) == 0
    loading.join(PATIENCE)


@forks
@quietly
def test_a_process_is_forked_after_warnings_of_pictures_are_back_in_place(photos):
    has_begun, may_end, own = threading.Event(), threading.Event(), list(warnings.filters)

    def look_at_a_header():
        with pictures._naming_warnings("a.png"):
            has_begun.set()
            may_end.wait(0.05)

    looking = threading.Thread(target=look_at_a_header)
    looking.start()
    has_begun.wait(PATIENCE)

    def opens():
        return pictures.open_image(photos / "a.png").size == (40, 50) and warnings.filters == own

    assert exit_code_of_child(opens) == 0
    looking.join(PATIENCE)


def test_arenas_that_do_not_fit_are_kept_for_those_whom_they_fit():
    pool, small, large = ArenaPool(), ArenaPool().take(100), ArenaPool().take(1000)
    pool.give_back(small)
    pool.give_back(large)
    assert pool.take(90) is small
    assert pool.take(1000) is large
    assert pool.take(90) is not small  # nobody gave it back
    pool.give_back(large)
    assert pool.take(249).size == 249  # and the memory of much larger calls is not held for it
    for size in range(100, 110):
        pool.give_back(ArenaPool().take(size))
    assert len(pool._arenas) == ArenaPool.KEPT
    pool.take(10_000)
    assert not pool._arenas  # a network of another size came, and what none of its calls can use is not kept
