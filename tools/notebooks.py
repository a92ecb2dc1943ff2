"""Run notebooks without Jupyter: cells in order, what they print, and what their last expressions show.

`python -m tools.notebooks docs/notebooks/*.ipynb` says where a cell prints something else than is stored; `--write`
stores what it prints. Tables and pages that a cell shows are not stored (some have times in them): they are made when
the notebook is run, and when the site is built.
"""

from __future__ import annotations

import argparse
import ast
import base64
import contextlib
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from minimobile import Exploration
from tools.pages import folder_of_a_reader


class Ran(NamedTuple):
    """What came of a cell: what it printed, and the value of its last expression, which a notebook would show."""

    printed: str
    shown: Any


def run_cells(name: str, cells: list[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], Ran]]:
    """Run the cells of code in order, as one program in the current folder, and yield each with what came of it."""
    variables: dict[str, Any] = {"__name__": "__main__"}
    for number, cell in enumerate(cells, 1):
        if cell["cell_type"] != "code":
            continue
        tree = ast.parse("".join(cell["source"]), f"{name}, cell {number}")
        last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
        printed, shown = io.StringIO(), None
        with contextlib.redirect_stdout(printed):
            exec(compile(tree, f"{name}, cell {number}", "exec"), variables)
            if isinstance(last, ast.Expr):
                shown = eval(compile(ast.Expression(last.value), f"{name}, cell {number}", "eval"), variables)
        yield cell, Ran(printed.getvalue(), shown)


def stored_output(cell: dict[str, Any]) -> str:
    """Return what a cell is stored to print."""
    return "".join("".join(output["text"]) for output in cell["outputs"] if output["output_type"] == "stream")


def describe(path: Path) -> str:
    """Return a notebook as a page of the site: its texts, its code, what that prints, and what it shows."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    with folder_of_a_reader():
        return write_page(path.name, cells, [ran for _, ran in run_cells(path.name, cells)])


def write_page(name: str, cells: list[dict[str, Any]], results: list[Ran]) -> str:
    """Return the page of the notebook `name`; `results` are those of its cells of code."""
    parts, rest = [], iter(results)
    for cell in cells:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
            continue
        ran = next(rest)
        parts.append(f"```python\n{source}\n```")
        parts += [f"```text\n{ran.printed}```"] if ran.printed else []
        parts += [show(ran.shown)] if ran.shown is not None else []
    return "\n\n".join([*parts, f"[The notebook itself]({name}), to be opened in Jupyter.\n"])


def show(value: Any) -> str:
    """Return what a notebook shows of a value, for a page: its table, its picture, or where such a page can be clicked.

    >>> from minimobile.tables import Table
    >>> class Shown:
    ...     _repr_html_ = Table(["layer"], [["conv_stem"]]).to_html
    >>> show(Shown()).count("<td")
    1
    """
    if isinstance(value, Exploration):
        return "It shows [a run to click](../explore/index.md)."
    if hasattr(value, "_repr_html_"):
        return f"<div>{value._repr_html_()}</div>"
    letters = base64.b64encode(value._repr_png_()).decode("ascii")
    return f'<img alt="What the cell above shows" src="data:image/png;base64,{letters}">'


def main(words: list[str]) -> int:
    """Run notebooks; the exit code is 1 where a cell prints something else than is stored."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("notebooks", type=Path, nargs="+", metavar="NOTEBOOK")
    parser.add_argument("--write", action="store_true", help="put what is printed into the notebook")
    arguments = parser.parse_args(words)
    differences = 0
    for path in (given.resolve() for given in arguments.notebooks):
        notebook = json.loads(path.read_text(encoding="utf-8"))
        with folder_of_a_reader():
            for cell, ran in run_cells(path.name, notebook["cells"]):
                if ran.printed != stored_output(cell) and not arguments.write:
                    differences += 1
                    print(f"--- {path.name}\n{ran.printed}--- stored is\n{stored_output(cell)}", end="")
                lines = ran.printed.splitlines(keepends=True)
                cell["outputs"] = [{"name": "stdout", "output_type": "stream", "text": lines}] if lines else []
        if arguments.write:
            path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
