"""Every block of code on every page runs and prints what the page says; so does every cell of the notebooks.

The README's blocks are in `test_readme.py`, the lesson's in `test_lesson.py`.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tools import notebooks, pages

DOCS = Path(__file__).resolve().parent.parent / "docs"
WITH_FRAMEWORKS = ("exactness.md", "scale.md")  # which show other frameworks: run where those are installed
PAGES = sorted(
    path.relative_to(DOCS).as_posix()
    for path in DOCS.rglob("*.md")
    if path.parent.name != "lesson" and re.search(r"^```(python|sh)", path.read_text(encoding="utf-8"), re.MULTILINE)
)
NOTEBOOKS = sorted(path.name for path in (DOCS / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("page", [page for page in PAGES if page not in WITH_FRAMEWORKS])
def test_a_page_prints_what_it_says(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MINIMOBILE_MODEL", raising=False)
    text = (DOCS / page).read_text(encoding="utf-8")
    blocks = pages.read_blocks(text)
    assert len(blocks) == len(re.findall(r"^```(?:python|sh)$", text, re.MULTILINE))
    with pages.folder_of_a_reader():
        for block, printed in zip(blocks, pages.run_blocks(page, blocks), strict=True):
            if block.output or block.kind == "python":
                assert printed == block.output, f"{page}, line {block.line}: python -m tools.pages docs/{page} --write"


@pytest.mark.crosscheck
@pytest.mark.parametrize("page", WITH_FRAMEWORKS)
def test_a_page_with_frameworks_prints_what_it_says(page: str) -> None:
    """In a process of its own, where their warnings are theirs."""
    settings = {"PYTHONWARNINGS": "ignore", "RAY_USAGE_STATS_ENABLED": "0", "RAY_ADDRESS": "local"}
    command = [sys.executable, "-m", "tools.pages", str(DOCS / page)]
    ran = subprocess.run(
        command, cwd=DOCS.parent, env=os.environ | settings, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_no_block_is_left_out() -> None:
    """Of a language that nothing runs, only what belongs to another program, and trees and outputs."""
    for path in DOCS.rglob("*.md"):
        kinds = set(re.findall(r"^```(\w*)$", path.read_text(encoding="utf-8"), re.MULTILINE)) - {""}
        allowed = {"python", "sh", "text"} | ({"yaml"} if path.name == "scale.md" else set())
        assert kinds <= allowed, path.name


@pytest.mark.crosscheck
def test_the_description_of_a_cluster_is_yaml() -> None:
    import yaml

    (block,) = re.findall(r"^```yaml\n(.*?)^```", (DOCS / "scale.md").read_text(encoding="utf-8"), re.M | re.S)
    assert {"cluster_name", "provider", "head_start_ray_commands"} <= yaml.safe_load(block).keys()


@pytest.mark.parametrize(
    ("name", "tables", "pictures", "words"),
    [
        ("export.ipynb", 1, 0, "padding: symmetric, as PyTorch's; ours is SAME"),
        ("photograph.ipynb", 6, 1, "# A photograph in ten lines\n"),
    ],
)
def test_a_notebook_prints_what_is_stored_and_its_page_shows_the_rest(
    name: str, tables: int, pictures: int, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MINIMOBILE_MODEL", raising=False)
    cells = json.loads((DOCS / "notebooks" / name).read_text(encoding="utf-8"))["cells"]
    results = []
    with pages.folder_of_a_reader():
        for cell, ran in notebooks.run_cells(name, cells):
            assert ran.printed == notebooks.stored_output(cell), "python -m tools.notebooks ... --write"
            results.append(ran)
    page = notebooks.write_page(name, cells, results)
    assert words in page and "```python\nimport minimobile as mm\n" in page.replace("import numpy as np\n\n", "")
    assert (page.count("<table>"), page.count("<img ")) == (tables, pictures)
    assert page.count("explore/index.md") == page.count("mm.explore(")


def test_there_are_two_notebooks_of_which_the_site_makes_pages() -> None:
    assert NOTEBOOKS == ["export.ipynb", "photograph.ipynb"]


def test_a_block_that_prints_something_else_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.md"
    page.write_text("```python\nprint(1)\n```\n\n```text\n2\n```\n", encoding="utf-8")
    assert pages.main([str(page)]) == 1
    assert "page.md, line 2\n1\n--- the text says\n2\n" in capsys.readouterr().out
    assert pages.main([str(page), "--write"]) == 0 and pages.main([str(page)]) == 0
    page.write_text("```sh\nminimobile classify nothing.png --model demo:digits\n```\n", encoding="utf-8")
    with pytest.raises(RuntimeError, match="ended with 1"):
        pages.main([str(page)])
    page.write_text("```sh\nrm -r everything\n```\n", encoding="utf-8")
    with pytest.raises(RuntimeError, match="no command of minimobile"):
        pages.main([str(page)])
