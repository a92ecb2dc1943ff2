"""Turns of a benchmark: what may disturb one is waited for."""

import pytest

from minimobile.comparison import bench


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
