"""Run the code of the pages in `docs/` as a reader types it, and say where it prints something else than they say.

`python -m tools.pages docs/tasks/classify.md ...` runs the blocks of each page in order, as one program, in a folder of
its own that has the checkout's `minimobile/`; `--write` puts what was printed into the page. Blocks of Python are run,
and in blocks of sh the commands of minimobile; a block of text behind one is what it prints.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import re
import shlex
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from minimobile.cli import main as run_command

ROOT = Path(__file__).resolve().parent.parent
BLOCK = re.compile(
    r"^```(?P<kind>python|sh)\n(?P<code>.*?)^```\n(?:\n```text\n(?P<output>.*?)^```\n)?", re.MULTILINE | re.DOTALL
)


class Block(NamedTuple):
    """A block of code: its line, "python" or "sh", what the text says that it prints, and where it stands."""

    line: int
    kind: str
    code: str
    output: str
    start: int
    end: int


def read_blocks(text: str) -> list[Block]:
    """Return the blocks of a page; one without a block of text after it prints nothing that is compared."""
    return [
        Block(text.count("\n", 0, m.start()) + 2, m["kind"], m["code"], m["output"] or "", m.start(), m.end())
        for m in BLOCK.finditer(text)
    ]


def run_blocks(name: str, blocks: list[Block], words: Mapping[str, str] | None = None) -> Iterator[str]:
    """Run the blocks in order in the current folder, and yield what each prints.

    `words` are what stands on a page for something of the reader's own, such as a folder, and what it is here. A
    command that fails raises RuntimeError.
    """
    variables: dict[str, Any] = {"__name__": "__main__"}
    for block in blocks:
        code = block.code
        for shown, meant in (words or {}).items():
            code = code.replace(shown, meant)
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            if block.kind == "python":
                lines = "\n" * (block.line - 1)  # so that a traceback names the page's own line
                exec(compile(lines + code, name, "exec"), variables)
            else:
                _run_commands(code, f"{name}, line {block.line}")
        yield printed.getvalue()


def _run_commands(code: str, where: str) -> None:
    for line in code.splitlines():
        program, *words = shlex.split(line, comments=True) or [""]
        if program == "minimobile":
            exit_code = run_command(words)
            if exit_code:
                raise RuntimeError(f"{where}: {line} ended with {exit_code}")
        elif program:
            raise RuntimeError(f"{where}: {line} is no command of minimobile")


def write_outputs(text: str, blocks: list[Block], printed: list[str]) -> str:
    """Return a page with what its blocks print, where it says that they print something."""
    for block, output in reversed(list(zip(blocks, printed, strict=True))):
        if block.output:
            text = f"{text[: block.start]}```{block.kind}\n{block.code}```\n\n```text\n{output}```\n{text[block.end :]}"
    return text


@contextlib.contextmanager
def folder_of_a_reader() -> Iterator[Path]:
    """Stand in an empty folder with a link to the checkout's `minimobile/`, as a reader does in the checkout."""
    before, columns = Path.cwd(), os.environ.pop("COLUMNS", None)
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "minimobile").symlink_to(ROOT / "minimobile")
        os.chdir(folder)
        try:
            yield Path(folder)
        finally:
            os.chdir(before)
            if columns is not None:
                os.environ["COLUMNS"] = columns


def main(words: list[str]) -> int:
    """Run pages; the exit code is 1 where one prints something else."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pages", type=Path, nargs="+", metavar="PAGE")
    parser.add_argument("--write", action="store_true", help="put what is printed into the page")
    arguments = parser.parse_args(words)
    differences = 0
    for path in (given.resolve() for given in arguments.pages):
        text = path.read_text(encoding="utf-8")
        blocks = read_blocks(text)
        with folder_of_a_reader():
            printed = list(run_blocks(path.name, blocks))
        if arguments.write:
            path.write_text(write_outputs(text, blocks, printed), encoding="utf-8")
        for block, output in zip(blocks, printed, strict=True):
            if output != block.output and block.output and not arguments.write:
                differences += 1
                print(f"--- {path.name}, line {block.line}\n{output}--- the text says\n{block.output}", end="")
    return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
