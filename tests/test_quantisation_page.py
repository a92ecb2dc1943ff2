"""The page on quantisation keeps its word: its code runs, block after block, and prints what it says."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "quantisation.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?", PAGE, re.MULTILINE | re.DOTALL)


def test_the_page_prints_what_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(BLOCKS) == PAGE.count("```python") > 5
    monkeypatch.chdir(ROOT)
    variables: dict[str, Any] = {"__name__": "__main__"}
    for number, (code, expected) in enumerate(BLOCKS):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(code, f"quantisation.md, block {number + 1}", "exec"), variables)
        assert printed.getvalue() == expected, f"block {number + 1}"
