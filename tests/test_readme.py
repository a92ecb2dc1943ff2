"""The README and the pages keep their word: the code runs and prints what it says, and what they name exists."""

from __future__ import annotations

import contextlib
import io
import math
import re
from pathlib import Path

import pytest

from minimobile import formats
from minimobile.cli import COMMANDS

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
SPEED = (ROOT / "docs" / "speed.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").rglob("*.md"))]
EXAMPLES = re.findall(r"```python\n(.*?)```\n\n```text\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("example", range(len(EXAMPLES)))
def test_an_example_prints_what_the_readme_says(example: int, monkeypatch: pytest.MonkeyPatch) -> None:
    code, expected = EXAMPLES[example]
    monkeypatch.chdir(ROOT)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, f"README.md, example {example + 1}", "exec"), {})
    assert printed.getvalue() == expected


def test_every_example_is_run() -> None:
    assert len(EXAMPLES) == README.count("```python") > 0


def test_the_two_lines_that_set_it_up_stand_word_for_word() -> None:
    lines = README.splitlines()
    assert "python -m pip install . && minimobile demo" in lines
    assert "python -m pip install -e '.[test]' && python -m pytest" in lines


def test_code_begins_by_line_20() -> None:
    assert README.splitlines().index("```python") < 20


def test_the_tree_and_the_data_flow_are_short_and_true() -> None:
    blocks = re.findall(r"```text\n(.*?)```", README, re.DOTALL)
    (flow,) = [block for block in blocks if block.startswith("photo")]
    (tree,) = [block for block in blocks if block.startswith("kernels/")]
    assert len(flow.splitlines()) == 6
    assert len(tree.splitlines()) <= 12
    for name in re.findall(r"\w+\.py", tree + README):
        assert (
            list(ROOT.glob(f"kernels/**/{name}"))
            + list(ROOT.glob(f"minimobile/**/{name}"))
            + list(ROOT.glob(f"tools/**/{name}"))
        ), f"{name} is gone"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_what_a_page_names_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for path in re.findall(r"`((?:minimobile|kernels|tests|tools|\.ci)/[\w./]*)`", text):
        assert (ROOT / path).exists(), f"{page.name} names {path}"
    for link in re.findall(r"\]\((?!https?:)([^)#]+)\)", text):
        assert (page.parent / link).exists(), f"{page.name} links to {link}"


def test_the_readme_leads_to_every_page() -> None:
    links = {(ROOT / link).resolve() for link in re.findall(r"\]\((?!https?:)([^)#]+\.md)\)", README)}
    folders = (ROOT, ROOT / "docs")  # those below are in the site's navigation
    assert {page for page in PAGES if page.parent in folders} <= {*links, ROOT / "README.md"}


def test_the_readme_is_short_and_its_tables_can_be_read() -> None:
    assert len(README.splitlines()) < 120
    for page in PAGES:
        rows = [row for row in page.read_text(encoding="utf-8").splitlines() if row.startswith("|")]
        assert max(map(len, rows), default=0) <= 200, page.name


def test_every_command_is_in_the_readme() -> None:
    for command in COMMANDS:
        assert f"`minimobile {command}" in README


def test_the_ratios_of_the_tables_of_speed_follow_from_their_times() -> None:
    counted = 0
    for head, rows in tables_of(SPEED):
        columns = [name for name in ("ratio", "of LiteRT", "of the fastest") if name in head]
        found: dict[tuple[str, str], list[float]] = {}
        for row in rows:
            cells = dict(zip(head, row, strict=True))
            rivals = {
                name.lower(): float(cell) for name, cell in cells.items()
                if cell and name.lower() in ("litert", "onnxruntime", "openvino", "torch")
            }  # fmt: skip
            for column in columns:
                expected = float(cells["minimobile"]) / (
                    rivals["litert"] if "LiteRT" in column else min(rivals.values())
                )
                assert abs(float(cells[column]) - expected) <= 0.005 + 0.03 * expected, row
                found.setdefault((column, cells["threads"]), []).append(float(cells[column]))
                counted += 1
        for (column, threads), ratios in found.items():
            for mean, largest in re.findall(
                rf"Geometric mean, {column}, threads {threads}: ([\d.]+); largest (.+)", SPEED
            ):
                if abs(float(largest) - max(ratios)) < 0.001:  # of this table
                    assert abs(float(mean) - math.prod(ratios) ** (1 / len(ratios))) <= 0.006
    assert counted >= 24


def tables_of(page: str) -> list[tuple[list[str], list[list[str]]]]:
    """Return the tables of a page whose first column is of networks or files: the head and the rows."""
    tables = re.findall(r"^\| (?:network|file) \|.*\n\|[-|]+\|\n((?:\|.*\n)+)", page, re.MULTILINE)
    heads = re.findall(r"^(\| (?:network|file) \|.*)\n\|[-|]+\|\n", page, re.MULTILINE)
    split = [[[cell.strip() for cell in line[1:-1].split("|")] for line in table.splitlines()] for table in tables]
    return [([cell.strip() for cell in head[1:-1].split("|")], rows) for head, rows in zip(heads, split, strict=True)]


def test_the_held_out_figures_are_those_in_the_files() -> None:
    text = " ".join((ROOT / "docs" / "licences.md").read_text(encoding="utf-8").split())
    for name, pattern in (("digits", r"reads ([\d.]+) % of 359"), ("scenes", r"mean IoU of ([\d.]+) %")):
        found = re.search(pattern, text)
        stated = re.search(r"0\.\d+", formats.read(ROOT / "minimobile" / "demo" / f"{name}.h5").provenance["held_out"])
        assert found
        assert stated
        assert float(found[1]) == pytest.approx(100 * float(stated[0]))


def test_the_reading_order_states_how_long_each_file_is() -> None:
    (order,) = re.findall(r"^Read it in this order.*?(?:\n\n|\Z)", README, re.MULTILINE | re.DOTALL)
    steps = re.findall(r"\[`(\w+\.py)`\]\(([\w/]+\.py)\)\s\((\d+)\)", order)
    assert len(steps) == order.count("`") // 2 == 5
    for name, path, stated in steps:
        assert Path(path).name == name
        lines = len((ROOT / path).read_text(encoding="utf-8").splitlines())
        assert abs(lines - int(stated)) <= 15, f"README.md: {path} has {lines} lines, not about {stated}"
