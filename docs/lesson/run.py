"""Run the lesson's code, block after block, and say where it prints something else than the text says.

`python docs/lesson/run.py 2` runs chapter 2 and draws its pictures anew; without a number it runs all chapters. The
exit code is 1 where something differs. `--write` puts what was printed into the text; `--time` measures the functions
in a chapter's `ladder` when it has run.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import re
import sys
import timeit
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

FOLDER = Path(__file__).resolve().parent
BLOCK = re.compile(r"^```python\n(?P<code>.*?)^```\n(?:\n```text\n(?P<output>.*?)^```\n)?", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """A block of code: the line on which it begins, what the text says that it prints, and where that stands."""

    line: int
    code: str
    output: str
    start: int
    end: int


def find_chapters() -> list[Path]:
    """Return the chapters' files in order."""
    return sorted(FOLDER.glob("[0-9]_*.md"))


def read_blocks(text: str) -> list[Block]:
    """Return the blocks of code of a chapter; one without a block of output after it prints nothing."""
    return [
        Block(text.count("\n", 0, found.start()) + 2, found["code"], found["output"] or "", found.start(), found.end())
        for found in BLOCK.finditer(text)
    ]


def run_blocks(name: str, blocks: list[Block], variables: dict[str, Any] | None = None) -> Iterator[str]:
    """Run the blocks in order, as one program, and yield what each prints. Pictures go into the current folder.

    `variables` are those that the program begins with, and ends with.
    """
    variables = {} if variables is None else variables
    variables["__name__"] = "__main__"
    for block in blocks:
        printed = io.StringIO()
        code = "\n" * (block.line - 1) + block.code  # so that a traceback names the chapter's own line
        with contextlib.redirect_stdout(printed):
            exec(compile(code, name, "exec"), variables)
        yield printed.getvalue()


def time_ladder(ladder: Mapping[str, Callable[[], object]]) -> Iterator[str]:
    """Yield rows of a table: the least time of each function, and how many times the fastest one's it is."""
    best = {name: min(timeit.repeat(function, number=1, repeat=20)) for name, function in ladder.items()}
    for name, seconds in best.items():
        yield f"| {name} | {seconds * 1000:.3g} ms | {seconds / min(best.values()):.3g} |"


def write_outputs(path: Path, printed: list[str]) -> None:
    """Put what the blocks print into the chapter."""
    text = path.read_text(encoding="utf-8")
    for block, output in reversed(list(zip(read_blocks(text), printed, strict=True))):
        shown = f"\n```text\n{output}```\n" if output else ""
        text = f"{text[: block.start]}```python\n{block.code}```\n{shown}{text[block.end :]}"
    path.write_text(text, encoding="utf-8")


def main(words: list[str]) -> int:
    """Run the chapters whose numbers are among `words`; the exit code is 1 where one prints something else."""
    chapters = {int(path.name[0]): path for path in find_chapters()}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("chapters", type=int, nargs="*", metavar="CHAPTER", help=f"of 1 to {len(chapters)}; none: all")
    parser.add_argument("--write", action="store_true", help="put what is printed into the text")
    parser.add_argument("--time", action="store_true", help="measure the functions in a chapter's `ladder`")
    arguments = parser.parse_args(words)
    unknown = [chapter for chapter in arguments.chapters if chapter not in chapters]
    if unknown:
        parser.error(f"expected chapters from 1 to {len(chapters)}, got {unknown[0]}")
    differences = 0
    os.chdir(FOLDER)
    for path in [chapters[chapter] for chapter in sorted(set(arguments.chapters or chapters))]:
        blocks, printed = read_blocks(path.read_text(encoding="utf-8")), []
        variables: dict[str, Any] = {}
        for block, output in zip(blocks, run_blocks(path.name, blocks, variables), strict=True):
            printed.append(output)
            print(f"--- {path.name}, line {block.line}\n{output}", end="")
            if output != block.output and not arguments.write:
                differences += 1
                print(f"--- the text says\n{block.output}", end="")
        if arguments.write:
            write_outputs(path, printed)
        if arguments.time:
            print("\n".join(time_ladder(variables.get("ladder", {}))))
    return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
