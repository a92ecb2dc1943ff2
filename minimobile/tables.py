"""Tables that people read: titled rows of text, for the command line to draw and for notebooks as HTML."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from minimobile.errors import printable


@dataclass(frozen=True)
class Table:
    """Rows under the names of their columns. A name that ends in "#" is that of numbers, which are set flush right.

    `title` may have several lines; `notes` are what is said below the table, a line each.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[object]]
    title: str = ""
    notes: Sequence[str] = ()

    def to_html(self) -> str:
        """Return the table as HTML in which every text is escaped.

        >>> Table(["layer", "size#"], [["<b>", 3]]).to_html().count("&lt;b&gt;")
        1
        """
        sides = ["right" if name.endswith("#") else "left" for name in self.columns]
        head = _row("th", [name.removesuffix("#") for name in self.columns], sides)
        body = "".join(_row("td", row, sides) for row in self.rows)
        caption = "".join(f"<div>{escape(line)}</div>" for line in self.title.splitlines())
        notes = "".join(f"<div>{escape(line)}</div>" for line in self.notes)
        return f"<div>{caption}<table><thead>{head}</thead><tbody>{body}</tbody></table>{notes}</div>"


def facts_table(facts: Sequence[tuple[str, object]], title: str = "") -> Table:
    """Return pairs of a word and what there is to say of it as a table."""
    return Table(("", ""), facts, title)


def _row(kind: str, cells: Sequence[object], sides: Sequence[str]) -> str:
    texts = (
        f'<{kind} style="text-align: {side}">{escape(cell)}</{kind}>' for cell, side in zip(cells, sides, strict=True)
    )
    return f"<tr>{''.join(texts)}</tr>"


def escape(text: object) -> str:
    """Return printable text in which nothing is HTML."""
    import html  # a terminal needs none

    return html.escape(printable(text))
