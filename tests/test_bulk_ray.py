"""Runs on Ray: the same bytes as here, also where an actor is killed, and the class for pipelines of Ray Data."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from bulk_runs import digit_run, make_pictures, make_trouble

from tools.soak import hash_tables

SCALE = Path(__file__).resolve().parent.parent / "docs" / "scale.md"
ENVIRONMENT = {**os.environ, "RAY_DEDUP_LOGS": "0", "RAY_USAGE_STATS_ENABLED": "0", "PYTHONWARNINGS": "ignore"}
RUN = """
import os, signal, sys, threading, time
from pathlib import Path
sys.path.insert(0, {tests!r})
from bulk_runs import digit_run
import ray
ray.init(num_cpus=2, log_to_driver=False, include_dashboard=False)

def kill_one():
    while True:
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                if path.read_bytes().startswith(b"ray::_PartActor"):
                    time.sleep(0.5)
                    os.kill(int(path.parent.name), signal.SIGKILL)
                    return
            except OSError:
                pass
        time.sleep(0.05)

threading.Thread(target=kill_one, daemon=True).start()
summary = digit_run([{pictures!r}], Path({out!r}), engine="ray", rows_per_part=2)
print("rows", summary.rows, summary.is_complete)
"""


def run_script(code: str, folder: Path) -> str:
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=folder, env=ENVIRONMENT, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.crosscheck
def test_actors_make_the_same_table_and_one_that_is_killed_is_replaced(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    pictures = make_trouble(make_pictures(tmp_path / "pictures", 12))
    digit_run([pictures], tmp_path / "here", rows_per_part=2)
    code = RUN.format(tests=str(Path(__file__).parent), pictures=str(pictures), out=str(tmp_path / "there"))
    assert "rows 21 True" in run_script(code, tmp_path)
    assert hash_tables(tmp_path / "there") == hash_tables(tmp_path / "here")


@pytest.mark.crosscheck
def test_the_example_for_pipelines_runs_and_a_bad_picture_is_a_row(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    make_pictures(tmp_path, 1)
    (tmp_path / "000.png").rename(tmp_path / "a.jpg")
    (tmp_path / "b.jpg").write_bytes(b"")
    (example,) = re.findall(r"```python\n(import ray\n.*?)```", SCALE.read_text(encoding="utf-8"), re.DOTALL)
    rows = "\nimport json\nprint('ROWS', json.dumps([[r['path'], r['error'], r['label']] for r in found.take_all()]))\n"
    (line,) = [line for line in run_script(example + rows, tmp_path).splitlines() if line.startswith("ROWS")]
    first, second = sorted(json.loads(line.removeprefix("ROWS")))
    assert (first[0], first[1], len(first[2])) == ("a.jpg", None, 5)
    assert second[0] == "b.jpg"
    assert "empty file" in second[1]
