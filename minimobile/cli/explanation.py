"""A value written out as its sum, as `minimobile trace --at` prints it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from minimobile.cli import console

if TYPE_CHECKING:
    from minimobile.tracing.explanation import Explanation


def write_explanation(explanation: Explanation, every_term: bool) -> None:
    """Write terms, stages and the value before folding to stdout; of long blocks the ends, or `every_term`."""
    for table in explanation.tables(every_term):
        console.write_rows(table)
        console.write_text("")
    console.write_text(explanation.verdict)
