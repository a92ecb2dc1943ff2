"""The lesson keeps its word: its code prints what it says, draws what it shows, and tells right answers from wrong."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from lesson_answers import Official
from lesson_mistakes import WRONG
from PIL import Image

LESSON = Path(__file__).resolve().parent.parent / "docs" / "lesson"
CHAPTERS = sorted(path.name for path in LESSON.glob("[0-9]_*.md"))


@pytest.fixture(autouse=True)
def lesson_modules(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let the lesson's own modules be imported as they are when a reader starts Python in its folder."""
    names = ("canvas", "check", "checks_of_computing", "checks_of_layers", "exercises", "judging", "run")
    monkeypatch.syspath_prepend(str(LESSON))
    for name in names:
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield
    for name in names:
        sys.modules.pop(name, None)


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_a_chapter_prints_what_it_says_and_draws_what_it_shows(
    chapter: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = importlib.import_module("run")
    text = (LESSON / chapter).read_text(encoding="utf-8")
    blocks = run.read_blocks(text)
    assert len(blocks) == text.count("```python") > 3
    assert sum(bool(block.output) for block in blocks) == text.count("```text")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MINIMOBILE_NUM_THREADS", "1")  # no bit depends on it, and a busy machine may have no second one
    for block, printed in zip(blocks, run.run_blocks(chapter, blocks), strict=True):
        assert printed == block.output, f"{chapter}, line {block.line}"
    shown = re.findall(r"!\[[^]]+\]\((\w+\.png)\)", text)
    assert sorted(shown) == sorted(path.name for path in tmp_path.iterdir())
    assert shown
    for name in shown:
        with Image.open(tmp_path / name) as drawn, Image.open(LESSON / name) as kept:
            assert np.array_equal(drawn.convert("RGB"), kept.convert("RGB")), f"{name}: python docs/lesson/run.py"


def test_every_picture_and_every_link_has_its_place() -> None:
    texts = {path.name: path.read_text(encoding="utf-8") for path in LESSON.glob("*.md")}
    for name, text in texts.items():
        for target in re.findall(r"\]\(([^)#]+)\)", text):
            assert target.startswith("https:") or (LESSON / target).exists(), f"{name} links to {target}"
    pictures = list(LESSON.glob("*.png"))
    shown = {name for text in texts.values() for name in re.findall(r"\]\((\w+\.png)\)", text)}
    assert {path.name for path in pictures} == shown
    assert sum(path.stat().st_size for path in pictures) < 300_000


def test_the_readers_commands_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check = importlib.import_module("check")
    assert check.main(["2"]) == 1
    assert capsys.readouterr().out.splitlines()[0] == "2.1  same_padding         not done yet"
    mine = tmp_path / "mine.py"
    mine.write_text("def fewest_channels(kernel_size, saving):\n    return 9\n")
    assert check.main(["1", str(mine)]) == 1
    lines = capsys.readouterr().out.splitlines()
    wrong = "wrong: for kernel_size=3, saving=8 expected 72, got 9; 9 do 0.2222 of the work, 0.1250 is the most"
    assert lines[1] == f"1.2  fewest_channels      {wrong}"
    assert lines[0].startswith("1.1  count_multiply_adds  stops with AttributeError")


@pytest.mark.parametrize("words", [["9"], ["0"], ["mine.txt"], ["nowhere.py"], ["2", "--all"]])
def test_a_command_that_was_not_meant_says_what_is(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("check", "run"):
        with pytest.raises(SystemExit) as stop:
            importlib.import_module(name).main(words)
        assert stop.value.code == 2
        assert words[-1] in capsys.readouterr().err


def test_a_changed_output_is_noticed_and_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = importlib.import_module("run")
    chapter = tmp_path / "1_small.md"
    monkeypatch.setattr(run, "FOLDER", tmp_path)
    monkeypatch.chdir(tmp_path)
    chapter.write_text("One.\n\n```python\nprint(1 + 1)\n```\n\n```text\n3\n```\n\n```python\nx = 1\n```\n\nEnd.\n")
    assert run.main(["1"]) == 1
    assert run.main(["1", "--write"]) == 0
    assert "```text\n2\n```\n\n```python\nx = 1\n```\n\nEnd." in chapter.read_text()
    assert run.main(["1"]) == 0
    assert "line 4\n2\n" in capsys.readouterr().out


def test_every_exercise_has_a_text_a_stub_a_check_and_an_official_answer() -> None:
    check, exercises = importlib.import_module("check"), importlib.import_module("exercises")
    for number, (chapter, checks) in enumerate(zip(CHAPTERS, check.CHAPTERS, strict=True), 1):
        section = (LESSON / chapter).read_text(encoding="utf-8").partition("## Exercises")[2]
        named = re.findall(r"^\d\. `(\w+)`", section, re.MULTILINE)
        assert named == [one.__name__.removeprefix("check_") for one in checks]
        assert f"check.py {number}`" in section
        for name in named:
            assert callable(getattr(exercises, name))
            assert callable(getattr(Official, name))
            assert WRONG[name], f"{name}: no wrong answer is known to be refused"


def test_the_official_answers_are_right() -> None:
    check = importlib.import_module("check")
    verdicts = list(check.judge(Official, list(range(1, len(CHAPTERS) + 1))))
    assert len(verdicts) == 4 * len(CHAPTERS) == 28
    assert [verdict for verdict in verdicts if not verdict.is_right] == []


@pytest.mark.parametrize(
    ("name", "index"), [(name, index) for name, answers in WRONG.items() for index in range(len(answers))]
)
def test_a_wrong_answer_is_told_so_with_what_helps(name: str, index: int) -> None:
    check = importlib.import_module("check")
    (chapter,) = [number for number, checks in enumerate(check.CHAPTERS, 1) if f"check_{name}" in map(name_of, checks)]
    answer, hint = WRONG[name][index]
    (verdict,) = [
        verdict for verdict in check.judge(SimpleNamespace(**{name: answer}), [chapter]) if verdict.name == name
    ]
    assert verdict.sentence.startswith("wrong: ")
    assert hint in verdict.sentence
    assert len(verdict.sentence) < 240


def name_of(function: object) -> str:
    return function.__name__  # type: ignore[attr-defined]


def test_an_answer_that_stops_is_told_why() -> None:
    check = importlib.import_module("check")
    verdicts = list(check.judge(SimpleNamespace(find_peak=lambda lives: lives[0]), [5]))
    assert verdicts[3].sentence.startswith("wrong: ")
    verdicts = list(check.judge(SimpleNamespace(find_peak=lambda lives: lives["size"]), [5]))
    assert verdicts[3].sentence == "stops with TypeError: list indices must be integers or slices, not str"
