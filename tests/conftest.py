"""What several test files share: where the real checkpoints and pictures are, and repeatable Hypothesis runs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.load_profile("repeatable")


@pytest.fixture(scope="session")
def test_data() -> Path:
    """Return the folder of real checkpoints and pictures, or skip the test where there is none."""
    folder = os.environ.get("MINIMOBILE_TEST_DATA")
    if not folder:
        pytest.skip("MINIMOBILE_TEST_DATA is not set: no real checkpoints and pictures")
    if not Path(folder).is_dir():
        pytest.skip(f"MINIMOBILE_TEST_DATA names {folder}, which is not a folder")
    return Path(folder).resolve()
