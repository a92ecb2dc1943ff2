"""Pictures a second, ours beside others': every runtime that was asked for has a figure."""

from __future__ import annotations

from pathlib import Path

import pytest
from bulk_runs import make_pictures


@pytest.mark.crosscheck
def test_each_runtime_classifies_the_pictures(tmp_path: Path) -> None:
    from minimobile.bulk.rates import compare_rates

    pictures = sorted(make_pictures(tmp_path, 4).rglob("*.png"))
    rates = compare_rates("demo:digits", pictures, ["onnxruntime"], threads=2, rounds=1)
    assert list(rates) == ["minimobile", "onnxruntime"]
    assert min(rates.values()) > 0
