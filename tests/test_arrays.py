"""Arrays as callers hand them in: what NumPy reads is taken, and what cannot be meant is one sentence."""

from __future__ import annotations

import re

import numpy as np
import pytest

import minimobile as mm
from minimobile.arrays import read_array


class OfAFramework:
    """A tensor of a framework that raises what it likes."""

    def __array__(self, dtype: object = None, copy: object = None) -> object:
        raise NotImplementedError("it lies on a GPU\nand more lines")


def test_what_numpy_reads_is_taken_as_it_is() -> None:
    given = np.arange(6.0).reshape(2, 3)
    assert read_array(given, "x") is given
    assert read_array([[1, 2], [3, 4]], "x").tolist() == [[1, 2], [3, 4]]
    assert type(read_array(np.ma.masked_array([1, 2]), "x")) is np.ndarray


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (OfAFramework(), "x: expected numbers, got an OfAFramework that NumPy cannot read (it lies on a GPU)"),
        ([[1], [1, 2]], "x: expected numbers, got a list that NumPy cannot read ("),
        (np.ma.masked_array([1, 2], [True, False]), "x: expected an array whose entries all count, got a masked one"),
        ([[np.ma.masked_array([1], [True])]], "x: expected an array whose entries all count, got a masked one"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_one_sentence(given: object, sentence: str) -> None:
    with pytest.raises(mm.InputError, match=re.escape(sentence)) as caught:
        read_array(given, "x", "numbers")
    assert "\n" not in str(caught.value)


def test_a_want_of_memory_stays_one() -> None:
    class Large:
        def __array__(self, dtype: object = None, copy: object = None) -> object:
            raise MemoryError

    with pytest.raises(MemoryError):
        read_array(Large(), "x")


def test_lists_that_no_quantised_file_takes() -> None:
    with pytest.raises(mm.InputError, match="run_quantized: expected an array, got a list that NumPy cannot read"):
        mm.load("demo:digits").run_quantized([[1], [1, 2]])
