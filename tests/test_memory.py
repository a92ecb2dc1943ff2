"""Peak memory of a process per runtime."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from minimobile.comparison.memory import measure_memory
from minimobile.errors import InputError


def test_the_command_tells_the_peak_of_a_process_of_its_own(run, classifier: Path) -> None:
    ballast = bytearray(300 << 20)  # of this process, and so not to be counted
    ballast[:: 1 << 12] = b"x" * len(ballast[:: 1 << 12])
    code, out, _ = run("bench", classifier, "--size", 32, "--memory", "--format", "json")
    assert code == 0
    assert 40 < json.loads(out)["peak_mebibytes"]["minimobile"] < 300


def test_what_cannot_be_measured_is_refused() -> None:
    with pytest.raises(InputError, match="measured for onnxruntime, openvino, litert, got 'torch'"):
        measure_memory(None, (1, 3, 32, 32), ["torch"])  # type: ignore[arg-type]
