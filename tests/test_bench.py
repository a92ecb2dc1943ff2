"""Benchmarks: what may disturb a turn is waited for, and steps are compared with the same ones."""

import itertools

import pytest
from cases import random_weights

from minimobile.comparison import bench
from minimobile.errors import InputError
from minimobile.execution.timing import SteppedProgram
from minimobile.networks import mobilenet_v1
from minimobile.networks.config import MobileNetV1Config
from minimobile.operations.passes import lower


class Clock:
    """A machine on which another thread spins until `end`, and whose system counts its time at ticks."""

    def __init__(self, end, ticks):
        self.now, self.end, self.ticks = 0.0, end, ticks

    def perf_counter(self):
        return self.now

    def process_time(self):
        return int(min(self.now, self.end) * self.ticks + 1e-9) / self.ticks

    def sleep(self, seconds):
        self.now += seconds


@pytest.mark.parametrize("ticks", [100, 250, 1000])
@pytest.mark.parametrize("end", [0.0, 0.003, 0.05, 0.1])
def test_a_turn_waits_for_threads_that_spin(monkeypatch, end, ticks):
    clock = Clock(end, ticks)
    monkeypatch.setattr(bench, "time", clock)
    bench._settle()
    assert end - 1 / ticks <= clock.now <= end + 2 * bench.LOOK


def test_a_thread_that_always_spins_is_waited_for_no_longer_than_a_moment(monkeypatch):
    clock = Clock(float("inf"), 250)
    monkeypatch.setattr(bench, "time", clock)
    bench._settle()
    assert clock.now == pytest.approx(bench.LOOKS * bench.LOOK)


@pytest.mark.parametrize(("pause", "calls"), [(0.0, 15), (20.0, 8)])
def test_calls_of_a_turn_come_in_a_row_or_apart(monkeypatch, pause, calls):
    clock, begun = Clock(0.0, 250), []

    def run():
        begun.append(clock.now)
        clock.now += 1e-3

    monkeypatch.setattr(bench, "time", clock)
    (times,) = bench.take_turns({"ours": run}, 0.0, 1, pause).values()
    assert times == pytest.approx([1.0] * calls, rel=1e-6)
    apart = {round(1e3 * (later - earlier), 6) for earlier, later in itertools.pairwise(begun)}
    assert apart == {1.0 + pause}


def test_of_calls_apart_the_median_counts():
    assert bench.Timing("ours", 1, 0.5, 0.7, 0.0).time == 0.5
    assert bench.Timing("ours", 1, 0.5, 0.7, 0.0, pause=20.0).time == 0.7


@pytest.mark.parametrize("pause", [-1.0, 10_001.0, float("nan")])
def test_what_is_no_pause_is_refused(pause):
    with pytest.raises(InputError, match="pause: expected 0 to 10000 milliseconds"):
        bench.compare(None, {}, (1, 3, 32, 32), [], 1, 0.0, pause)
    with pytest.raises(InputError, match="pause: expected 0 to 10000 milliseconds"):
        bench.compare_quantized("none.tflite", [], 1, 0.0, pause)


def test_who_is_no_rival_is_refused():
    with pytest.raises(InputError, match=r"against: expected some of .*, got 'abacus'"):
        bench.compare(None, {}, (1, 3, 32, 32), ["abacus"], 1, 0.0)


def test_one_thread_and_two_are_timed_at_the_same_steps(monkeypatch):
    graph = mobilenet_v1.build(MobileNetV1Config(depth_multiplier=0.25), "classification")
    timed = []

    def run_together(program, part, pixels, times):
        timed.append(program.names(part))
        return float(len(timed))

    monkeypatch.setattr(SteppedProgram, "run_together", run_together)
    rows = bench.time_steps(graph, random_weights(graph), (1, 3, 96, 96), rounds=1, num_threads=2)
    names = [node.name for node in lower(graph, graph.outputs).nodes]
    ones, several = timed[:: 2 * bench.CALLS], timed[1 :: 2 * bench.CALLS]
    assert ones == several and sum(ones, ()) == tuple(names)
    assert [row["name"] for row in rows] == [" + ".join(names) for names in ones]
    # The two of 3 x 3 pixels are done together by one thread, and one after the other by two.
    assert {len(row["parts"]) for row in rows} == {1, 2}
