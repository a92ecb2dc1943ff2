"""Say which of the answers to the lesson's exercises are right, and of a wrong one for which input, with a hint.

`python docs/lesson/check.py` looks at all answers in exercises.py, `check.py 2` at those of chapter 2, and `check.py
mine.py` at another file. The exit code is 0 when all are right.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import checks_of_computing
import checks_of_layers
from judging import WrongAnswerError

CHAPTERS = (*checks_of_layers.CHAPTERS, *checks_of_computing.CHAPTERS)


class Verdict(NamedTuple):
    """What became of one exercise."""

    number: str
    name: str
    is_right: bool
    sentence: str


def judge(answers: object, chapters: list[int]) -> Iterator[Verdict]:
    """Yield a verdict for every exercise of the chapters; `answers` has a function of each one's name."""
    for chapter in chapters:
        for index, check in enumerate(CHAPTERS[chapter - 1], 1):
            name = check.__name__.removeprefix("check_")
            try:
                check(getattr(answers, name))
                sentence = "right"
            except NotImplementedError:
                sentence = "not done yet"
            except WrongAnswerError as wrong:
                sentence = f"wrong: {wrong}"
            except Exception as error:  # the answer is somebody's first try: anything may happen in it
                sentence = f"stops with {type(error).__name__}: {error}"
            yield Verdict(f"{chapter}.{index}", name, sentence == "right", sentence)


def read_answers(path: Path) -> object:
    """Run a file of answers and return it as a module."""
    spec = importlib.util.spec_from_file_location("answers", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def read_word(word: str) -> int | Path:
    """Return the chapter or the file of answers that a word names."""
    if word.isdecimal() and 1 <= int(word) <= len(CHAPTERS):
        return int(word)
    if word.endswith(".py") and Path(word).is_file():
        return Path(word)
    raise argparse.ArgumentTypeError(f"expected a chapter from 1 to {len(CHAPTERS)} or a .py file, got {word!r}")


def main(words: list[str]) -> int:
    """Print the verdicts on the chapters and the file given; the exit code is 0 if all are right."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", type=read_word, nargs="*", metavar="CHAPTER|FILE")
    found = parser.parse_args(words).words
    chapters = [word for word in found if isinstance(word, int)] or list(range(1, len(CHAPTERS) + 1))
    files = [word for word in found if isinstance(word, Path)] or [Path(__file__).with_name("exercises.py")]
    verdicts = list(judge(read_answers(files[-1]), chapters))
    for verdict in verdicts:
        print(f"{verdict.number}  {verdict.name:20} {verdict.sentence}")
    return 0 if all(verdict.is_right for verdict in verdicts) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
