"""The table of `docs/differs.md`: made by a real run, and each of its rows called by its name."""

from __future__ import annotations

import pytest

import minimobile as mm
from tools.differs import BEGIN, CAUSES, END, PAGE, PICTURE, SOURCE, make_rows, run_cause


def written_rows() -> list[str]:
    return PAGE.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0].strip().splitlines()


def test_the_page_has_a_row_for_each_of_ten_causes() -> None:
    rows = written_rows()[2:]
    assert len(rows) == len(CAUSES) == 10
    for row, cause in zip(rows, CAUSES, strict=True):
        assert row.startswith(f"| {cause.words} | `") and "None" not in row


@pytest.mark.slow
def test_a_row_is_what_check_says() -> None:
    model = mm.load(SOURCE)
    pixels = model.processor(PICTURE, return_tensors="np")["pixel_values"]
    (cause,) = (cause for cause in CAUSES if "BGR" in cause.words)
    report, _, _ = run_cause(model, cause, pixels)
    (row,) = (row for row in written_rows() if "BGR" in row.partition("|")[2].partition("|")[0])
    assert f"| `{report.first_difference}` |" in row and row.endswith(f"| {report.diagnosis} |")


@pytest.mark.slow
def test_the_table_is_that_of_a_real_run() -> None:
    assert list(make_rows()) == written_rows()
