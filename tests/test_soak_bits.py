"""The soak of bits: it notices what differs, and finds nothing."""

import random

import pytest

from tools import soak_bits


def test_a_result_that_differs_is_noticed():
    def open_one(num_threads=1, engine="compiled"):
        return lambda picture: "wrong" if num_threads == 2 else "right"

    with pytest.raises(AssertionError, match="picture 0 on 2 threads differs"):
        soak_bits.check(soak_bits.Subject("planted", open_one, [None]), random.Random(0), is_defined=True)


def test_a_definition_that_differs_is_noticed():
    def open_one(num_threads=1, engine="compiled"):
        return lambda picture: engine

    with pytest.raises(AssertionError, match="the definitions differ"):
        soak_bits.check(soak_bits.Subject("planted", open_one, [None]), random.Random(0), is_defined=True)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
@pytest.mark.parametrize("seed", [100, 200])
def test_no_bit_differs(seed, capsys):
    assert soak_bits.soak(seed, minutes=0.2) == 0, capsys.readouterr().out
