"""The tool that times calls which come one by one: its table, and what it refuses."""

import pytest

from tools.two_threads import Cell, heading, main, row


def test_the_ratio_is_that_of_means():
    cell = Cell("V1 0.25 96, bytes", "sleep 5", 1, [[0.1, 0.1, 0.4], [0.1, 0.2, 0.6], [0.2, 0.2, 0.2]])
    assert row(cell) == "| V1 0.25 96, bytes | sleep 5 | 1 | 0.200 | 0.300 | 0.100 | 0.200 | 1.50 | 1.00 |"
    assert {line.count("|") for line in [*heading(2).splitlines(), row(cell)]} == {10}


@pytest.mark.parametrize(
    "words", [["--gaps", "sleep"], ["--gaps", "nap 5"], ["--gaps", "work -1"], ["--threads", "1"], ["--loads", "-1"]]
)
def test_what_cannot_be_timed_is_refused(words, capsys):
    with pytest.raises(SystemExit) as refusal:
        main(words)
    assert refusal.value.code == 2 and "error:" in capsys.readouterr().err
