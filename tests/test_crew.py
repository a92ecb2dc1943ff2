"""Helpers: they join calls, are never waited for, and are gone with their crew; no bit depends on them."""

import gc
import itertools
import os
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
from cases import assert_same_bits, open_runner, random_image, random_weights

import minimobile as mm
from minimobile.execution import crew, engine
from minimobile.execution.account import Account
from minimobile.execution.crew import Crew
from minimobile.networks import mobilenet_v1, mobilenet_v2
from minimobile.networks.config import MobileNetV1Config, MobileNetV2Config
from minimobile_kernels import entries
from minimobile_kernels.mailbox import CALL, FUNCTION, HAZARD, IS_OVER, SERVED, TABLE, make_mailbox
from minimobile_kernels.step import ENTRIES, LINE, STEP

LONGEST = 300  # seconds until something that must happen has happened, on the busiest machine
NETWORKS = [
    mobilenet_v1.build(MobileNetV1Config(depth_multiplier=0.25), "classification"),
    mobilenet_v2.build(MobileNetV2Config(depth_multiplier=0.35), "classification"),
]
SIZES = [(1, 3, 48, 33), (2, 3, 64, 64), (1, 3, 96, 65)]


@pytest.fixture(scope="module")
def expected():
    """Return graph, weights, images and what one thread computes from them, for every network and size."""
    cases = []
    for graph in NETWORKS:
        weights = random_weights(graph)
        alone = open_runner(graph, weights, num_threads=1)
        for seed, size in enumerate(SIZES):
            image = random_image(size, seed=seed)
            cases.append((graph, weights, image, alone.run(image, graph.outputs)["classifier"]))
    return cases


def nothing_to_do():
    """Return the arguments of `entries.run` for a program without steps."""
    nothing = np.zeros(16, np.float32)
    return np.zeros(0, STEP), nothing, nothing, nothing, np.zeros(1, np.int64)


def served(station):
    """Return the number of the last call that each helper of a station was at."""
    return [station._fields[SERVED + index * LINE] for index in range(len(station._helpers))]


def helpers_at_work():
    return [thread for thread in threading.enumerate() if thread.name == "minimobile-helper"]


def wait_for(condition):
    end = time.monotonic() + LONGEST
    while not condition():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.001)


def test_every_helper_joins(expected):
    graph, weights, image, values = expected[0]
    runner = open_runner(graph, weights, num_threads=4)

    def run():
        assert_same_bits(runner.run(image, graph.outputs)["classifier"], values, "four threads")
        return all(served(runner._crew._station))

    wait_for(run)
    assert runner._crew._station._fields[CALL] % 2 == 0


def test_a_crew_of_none_starts_nobody():
    before = len(helpers_at_work())
    Crew(0).run(entries.run, nothing_to_do())
    assert len(helpers_at_work()) == before


class WrittenAccount(Account):
    """An account that answers what is written down, and keeps what is noted."""

    def __init__(self, answers):
        self.answers, self.noted, self.counted = answers, [], []

    @property
    def rest(self):
        return int(self.answers[0] == "rest")

    @rest.setter
    def rest(self, calls):
        self.counted.append(calls)

    @property
    def to_share(self):
        return int(self.answers[0] == "share")

    def note(self, seconds, was_shared):
        self.noted.append((seconds, was_shared))


def test_calls_go_alone_where_their_account_says_so(monkeypatch):
    ticks = iter(range(100))
    monkeypatch.setattr(crew, "time", SimpleNamespace(perf_counter=lambda: float(next(ticks))))
    ours, account, begun = Crew(1), WrittenAccount(["share", "look", "rest"]), []
    while account.answers:
        ours.run(entries.run, nothing_to_do(), account)
        begun.append(ours._station._fields[CALL] // 2)
        account.answers.pop(0)
    ours.run(entries.run, nothing_to_do())  # helpers in any case
    assert begun == [1, 1, 1] and ours._station._fields[CALL] // 2 == 2
    assert account.noted == [(1.0, True), (1.0, False)] and account.counted == [0]


def test_a_program_for_one_thread_is_never_shared():
    ours, account = Crew(1), WrittenAccount(["share"])
    ours.run(entries.run, nothing_to_do(), account, is_for_all=False)
    assert ours._station._fields[CALL] == 0 and [shared for _, shared in account.noted] == [False]


def test_calls_alone_have_a_program_for_one_thread(expected, monkeypatch):
    class Turns(Account):
        """Says another thing each time it is asked, so that the engine and the crew hear different things."""

        def __init__(self):
            self.rest, self.asked, self.noted = 0, itertools.count(), []

        @property
        def to_share(self):
            return random.Random(next(self.asked)).randrange(2)

        def note(self, seconds, was_shared):
            self.noted.append(was_shared)

    monkeypatch.setattr(engine, "Account", Turns)
    for graph, weights, image, values in expected:
        runner = open_runner(graph, weights, num_threads=3)
        with ThreadPoolExecutor(2) as callers:
            for outcome in callers.map(lambda _: runner.run(image, graph.outputs), range(20)):  # noqa: B023
                assert_same_bits(outcome["classifier"], values, "alone or not")
        (plan,) = runner._plans._made.values()
        wait_for(lambda: runner.run(image, graph.outputs) and set(plan.account.noted) == {False, True})  # noqa: B023
        assert plan.shared.num_threads == 3 and plan.alone.num_threads == 1
        assert plan.arena_size >= max(plan.shared.arena_size, plan.alone.arena_size)


def test_helpers_are_roused_before_a_call_only_if_they_had_the_last_one(monkeypatch):
    roused = []
    monkeypatch.setattr(crew._Station, "rouse", lambda _: roused.append(1))
    ours, account = Crew(1), WrittenAccount(["share", "rest", "look"])
    ours.rouse()
    assert roused == []
    ours.run(entries.run, nothing_to_do(), account)  # which rouses them itself
    ours.rouse()
    assert len(roused) == 2
    while len(account.answers) > 1:
        account.answers.pop(0)
        ours.run(entries.run, nothing_to_do(), account)
        ours.rouse()
    assert len(roused) == 2


def test_helpers_are_kept_off_the_processor_of_their_caller(monkeypatch):
    asked = []
    monkeypatch.setattr(crew.processors, "find_current", lambda: 7)
    monkeypatch.setattr(crew.processors, "keep_off", lambda *given: asked.append(given))
    ours = Crew(1)
    wait_for(lambda: ours.run(entries.run, nothing_to_do()) or asked)  # not before the helper has said who it is
    assert asked == [(ours._station._helpers[0]._identifier, 7)]


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system keeps no thread off a processor")
def test_a_thread_that_is_gone_is_kept_off_nothing():
    crew.processors.keep_off(2**31 - 1, crew.processors.find_current() or 0)


def test_a_model_rouses_the_helpers_before_it_reads_pixel_values(monkeypatch):
    model, order = mm.load("demo:digits", num_threads=2), []
    monkeypatch.setattr(type(model.runner), "rouse", lambda runner: order.append("rouse"))

    class Pixels:
        def __array__(self, dtype=None, copy=None):
            order.append("read")
            return np.zeros((1, 3, 32, 32), np.float32)

    model(Pixels())
    assert order == ["rouse", "read"]


def test_helpers_end_with_their_crew(expected):
    graph, weights, image, _ = expected[0]
    before = set(helpers_at_work())
    runner = open_runner(graph, weights, num_threads=3)
    runner.run(image, graph.outputs)
    helpers = set(helpers_at_work()) - before
    assert len(helpers) == 2
    del runner
    gc.collect()
    for helper in helpers:
        helper.join(LONGEST)
    assert not any(helper.is_alive() for helper in helpers)


def test_a_helper_joins_an_open_call_once_and_no_other():
    mailbox, control = make_mailbox(2), np.zeros(16 * ENTRIES, np.int64)
    call = entries.run.bind(*nothing_to_do(), control, mailbox, 1)
    mailbox[FUNCTION], mailbox[TABLE] = call.places()
    entries.serve(mailbox, 10, 2)  # no call is open
    assert mailbox[SERVED + LINE] == 0
    mailbox[CALL] = 7
    entries.serve(mailbox, 10, 2)
    assert mailbox[SERVED + LINE] == 7 and mailbox[HAZARD + LINE] == 0 and mailbox[SERVED] == 0
    mailbox[FUNCTION] = 0  # were it called again, that would be the end
    entries.serve(mailbox, 10, 2)
    mailbox[CALL], mailbox[IS_OVER] = 9, 1
    entries.serve(mailbox, 1 << 60, 2)  # leaves at once
    assert mailbox[SERVED + LINE] == 7


def test_a_call_is_kept_while_a_helper_may_be_at_it():
    ours = Crew(1)
    ours.run(entries.run, nothing_to_do())
    station = ours._station
    wait_for(lambda: not station._helpers[0].is_awake)
    first = station._fields[CALL] + 1
    station._fields[HAZARD] = first  # as if the helper were still at the next call
    entry, arguments = entries.run, nothing_to_do()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(crew._Helper, "rouse", lambda helper: None)  # it is no helper that comes
        ours.run(entry, arguments)
        assert [number for number, _ in station._calls] == [first]
        ours.run(entry, arguments)
        assert [number for number, _ in station._calls] == [first]
        station._fields[HAZARD] = 0
        ours.run(entry, arguments)
        assert not station._calls


def hammer(cases, seed, calls, callers):
    """Make calls of random networks and sizes from several threads on a few engines that come and go."""
    chance = random.Random(seed)
    engines = {}

    def call(pick):
        which, threads, renew = pick
        graph, weights, image, values = cases[which]
        key = which // len(SIZES), threads
        if renew or key not in engines:
            engines[key] = open_runner(graph, weights, num_threads=threads)  # and the one before is garbage
        found = engines[key].run(image, graph.outputs)["classifier"]
        assert_same_bits(found, values, f"seed {seed}, case {which}, {threads} threads")

    picks = [(chance.randrange(len(cases)), chance.choice([2, 2, 3]), chance.random() < 0.1) for _ in range(calls)]
    with ThreadPoolExecutor(callers) as pool:
        list(pool.map(call, picks))


def test_callers_and_engines_that_come_and_go(expected):
    hammer(expected, seed=0, calls=60, callers=3)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 9))
def test_callers_and_engines_that_come_and_go_for_long(expected, seed):
    hammer(expected, seed, calls=3000, callers=1 + seed % 5)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_child_has_helpers_of_its_own(expected):
    graph, weights, image, values = expected[1]
    runner = open_runner(graph, weights, num_threads=2)
    runner.run(image, graph.outputs)
    process = os.fork()
    if process == 0:
        is_same = False
        try:
            wait_for(lambda: runner.run(image, graph.outputs) and all(served(runner._crew._station)))
            found = runner.run(image, graph.outputs)["classifier"]
            is_same = runner._crew._station.process == os.getpid() and bool((found == values).all())
        finally:
            os._exit(0 if is_same else 1)
    assert_same_bits(runner.run(image, graph.outputs)["classifier"], values, "the parent")
    _, status = os.waitpid(process, 0)
    assert os.waitstatus_to_exitcode(status) == 0
