"""Every layer of fifteen networks has the bits that it has always had, on whatever machine this runs."""

from __future__ import annotations

import pytest

from tools import bits

EXPECTED = bits.read_expected()


@pytest.mark.parametrize("name", EXPECTED)
def test_the_bits_are_those_of_every_machine(name: str) -> None:
    assert list(bits.compare(name, EXPECTED[name])) == []


def test_every_network_is_held_to_the_file() -> None:
    assert list(EXPECTED) == [*bits.DEMOS, *bits.CASES]
    assert min(map(len, EXPECTED.values())) > 25


def test_another_bit_is_found_and_its_layer_named() -> None:
    expected = {**EXPECTED["demo:digits"], "layer.3": "0" * 16}
    (first, *_) = bits.compare("demo:digits", expected)
    assert first == f"demo:digits, compiled: 1 of {len(expected)} layers have other bits, first layer.3"
