"""The figures of the page on quantisation are those that the tool draws."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.quantization_figures import FIGURES, draw

ROOT = Path(__file__).resolve().parent.parent


def test_the_figures_are_those_of_the_tool(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(ROOT)
    page = (ROOT / "docs" / "quantisation.md").read_text(encoding="utf-8")
    kept = ROOT / "docs" / "quantisation"
    for path in draw(tmp_path / "figures"):
        assert path.read_text(encoding="utf-8") == (kept / path.name).read_text(encoding="utf-8"), path.name
        assert f"(quantisation/{path.name})" in page
    assert {path.name for path in kept.iterdir()} == set(FIGURES)
