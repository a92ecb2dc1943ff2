"""The table of how much faster several threads are: what a network's size demands, and whether it is met."""

from __future__ import annotations

import pytest

from tools import scaling


@pytest.mark.parametrize(("million", "ratio"), [(100, 1.8), (99, 1.4), (15, 1.4), (14, 1.0), (0, 1.0)])
def test_what_is_demanded(million, ratio):
    assert scaling.demanded(million * 1_000_000) == ratio


def test_what_is_not_met_is_said_so():
    def row(million, several):
        return {
            "case": "some", "multiply_adds": million * 1_000_000, "one": {"minimum": 3.0, "median": 3.2},
            "several": {"minimum": several, "median": 2.0},
        }  # fmt: skip

    lines = scaling.table([row(300, 1.7), row(300, 1.6), row(20, 1.7)], 2).splitlines()[2:]
    assert [line.split("|")[-2].strip() for line in lines] == ["1.8, not met", "1.8", "1.4"]
    assert lines[0].split("|")[1:-2] == [" some ", " 300 ", " 3.000 ", " 1.700 ", " 1.76 ", " 1.60 "]
