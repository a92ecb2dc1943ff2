"""Run notebooks without Jupyter: cells in order, what they print, and what their last expressions show.

`python -m tools.notebooks docs/notebooks/*.ipynb` says where a cell prints something else than is stored; `--write`
stores what it prints. Tables and pages that a cell shows are not stored: they are made when the notebook is run.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

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
    """Return a notebook as a page of the site: its texts, its code, and what that prints."""
    parts = []
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
        if cell["cell_type"] == "code" and stored_output(cell):
            parts.append(f"```text\n{stored_output(cell)}```")
    return "\n\n".join([*parts, f"[The notebook itself]({path.name}), to be opened in Jupyter.\n"])


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
