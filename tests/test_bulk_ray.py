"""Runs on Ray and Dask: the same bytes as here, whatever is killed, and the class for pipelines of Ray Data."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from bulk_runs import digit_run, make_pictures, make_trouble

from tools import soak
from tools.soak import hash_tables

SCALE = Path(__file__).resolve().parent.parent / "docs" / "scale.md"
ENVIRONMENT = {
    **os.environ, "RAY_ADDRESS": "local", "RAY_DEDUP_LOGS": "0", "RAY_USAGE_STATS_ENABLED": "0",
    "PYTHONWARNINGS": "ignore",
}  # fmt: skip
RUN = """
import os, signal, sys, threading, time
from pathlib import Path
sys.path[:0] = [{tests!r}, {project!r}]
from bulk_runs import digit_run
from tools import soak
import ray
ray.init(num_cpus=2, log_to_driver=False, include_dashboard=False)

def kill_one():
    while not (workers := soak.find_workers(os.getpid())):  # of this run alone: others may be under way beside it
        time.sleep(0.05)
    time.sleep(0.5)
    os.kill(workers[0], signal.SIGKILL)

threading.Thread(target=kill_one, daemon=True).start()
summary = digit_run([{pictures!r}], Path({out!r}), engine="ray", rows_per_part=2)
print("rows", summary.rows, summary.is_complete)
"""


def run_script(code: str, folder: Path, **environment: str) -> str:
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=folder, env=ENVIRONMENT | environment, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.crosscheck
def test_actors_make_the_same_table_and_one_that_is_killed_is_replaced(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    pictures = make_trouble(make_pictures(tmp_path / "pictures", 12))
    digit_run([pictures], tmp_path / "here", rows_per_part=2)
    here = Path(__file__).parent
    code = RUN.format(tests=str(here), project=str(here.parent), pictures=str(pictures), out=str(tmp_path / "there"))
    assert "rows 21 True" in run_script(code, tmp_path)
    assert hash_tables(tmp_path / "there") == hash_tables(tmp_path / "here")


@pytest.mark.crosscheck
def test_a_cluster_that_is_gone_is_not_waited_for(tmp_path: Path) -> None:
    """Ray notes the last cluster that began on a machine, and joins it where nobody says otherwise."""
    pytest.importorskip("ray")
    pictures = make_pictures(tmp_path / "pictures", 3)
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); from pathlib import Path\n"
    code += f"from bulk_runs import digit_run\nprint(digit_run([{str(pictures)!r}], Path('out'), engine='ray').rows)"
    with tempfile.TemporaryDirectory() as folder:  # for the paths of sockets are short
        (Path(folder) / "ray").mkdir()
        (Path(folder) / "ray/ray_current_cluster").write_text("127.0.0.1:9")
        assert run_script(code, tmp_path, RAY_TMPDIR=folder, RAY_ADDRESS="").split() == ["3"]


CLUSTER = """
import sys, threading, time
from pathlib import Path
sys.path.insert(0, {tests!r})
from bulk_runs import digit_run
import ray
from ray.cluster_utils import Cluster

cluster = Cluster(initialize_head=True, head_node_args={{"num_cpus": 1, "include_dashboard": False}})
other = cluster.add_node(num_cpus=1)
ray.init(address=cluster.address, log_to_driver=False)
print("nodes", sum(node["Alive"] for node in ray.nodes()))
out = Path({out!r})

def lose_one():
    while not list(out.glob("part-*")):
        time.sleep(0.05)
    cluster.remove_node(other, allow_graceful=False)

loss = threading.Thread(target=lose_one)
loss.start()
summary = digit_run([{pictures!r}], out, engine="ray", rows_per_part=2, jobs=2)
loss.join()
print("rows", summary.rows, summary.is_complete)
while (left := sum(node["Alive"] for node in ray.nodes())) > 1:
    time.sleep(0.1)
print("left", left)
ray.shutdown()
cluster.shutdown()
"""


@pytest.mark.crosscheck
def test_a_cluster_of_two_nodes_loses_one_and_makes_the_same_table(tmp_path: Path) -> None:
    """Each node has one processor and so one actor; the lost one's goes on where the other's gave its processor up."""
    pytest.importorskip("ray")
    pictures = make_trouble(make_pictures(tmp_path / "pictures", 24))
    digit_run([pictures], tmp_path / "here", rows_per_part=2)
    code = CLUSTER.format(tests=str(Path(__file__).parent), pictures=str(pictures), out=str(tmp_path / "there"))
    said = run_script(code, tmp_path).splitlines()
    facts = [line for line in said if line.startswith(("nodes", "rows", "left"))]
    assert facts == ["nodes 2", "rows 33 True", "left 1"]
    found = hash_tables(tmp_path / "there")
    # What a machine that is lost was writing stays there, under a name that readers pass over.
    table = {name: content for name, content in found.items() if not name.endswith(".tmp")}
    assert table == hash_tables(tmp_path / "here")


@pytest.mark.crosscheck
def test_the_recipe_for_dask_makes_the_same_table(tmp_path: Path) -> None:
    pytest.importorskip("dask")
    pictures = make_trouble(make_pictures(tmp_path / "pictures", 6))
    digit_run([pictures], tmp_path / "here")
    (recipe,) = re.findall(r"```python\n(import dask.bag\n.*?)made = ", SCALE.read_text(encoding="utf-8"), re.DOTALL)
    call = "import sys; sys.path.insert(0, {!r}); from pathlib import Path; from bulk_runs import digit_run\n"
    call += "digit_run([{!r}], Path({!r}), engine=on_dask)\n"
    paths = (str(Path(__file__).parent), str(pictures), str(tmp_path / "there"))
    run_script(recipe + call.format(*paths), tmp_path)
    assert hash_tables(tmp_path / "there") == hash_tables(tmp_path / "here")


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["local", "ray"])
def test_a_minute_of_kills(engine: str, tmp_path: Path) -> None:
    if engine == "ray":
        pytest.importorskip("ray")
    pictures = make_trouble(make_pictures(tmp_path / "pictures", 30))
    words = [str(pictures), "--model", "demo:digits", "--rows-per-part", "3", "--minutes", "1", "--engine", engine]
    assert soak.main([*words, "--longest", "3" if engine == "local" else "15"]) == 0


@pytest.mark.crosscheck
def test_the_cluster_s_description_is_one_that_ray_takes(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    (description,) = re.findall(r"```yaml\n(.*?)```", SCALE.read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "cluster.yaml").write_text(description)
    code = """
import yaml
from pathlib import Path
from ray.autoscaler._private.util import prepare_config, validate_config
given = prepare_config(yaml.safe_load(Path("cluster.yaml").read_text()))
validate_config(given)
try:
    validate_config({**given, "max_worker": 1})
except Exception as error:
    print(type(error).__name__)
print(len(given["available_node_types"]))
"""
    assert run_script(code, tmp_path).split() == ["ValidationError", "1"]


@pytest.mark.crosscheck
def test_the_example_for_pipelines_runs_and_a_bad_picture_is_a_row(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    demo = tmp_path / "minimobile/demo"
    (make_pictures(demo, 1) / "000.png").rename(demo / "digit_0.png")
    (demo / "digit_7.png").write_bytes(b"")
    (example,) = re.findall(r"```python\n(import ray\n.*?)```", SCALE.read_text(encoding="utf-8"), re.DOTALL)
    example = example.rpartition("print(")[0]
    rows = "\nimport json\nprint('ROWS', json.dumps([[r['path'], r['error'], r['label']] for r in found.take_all()]))\n"
    (line,) = [line for line in run_script(example + rows, tmp_path).splitlines() if line.startswith("ROWS")]
    first, second = sorted(json.loads(line.removeprefix("ROWS")))
    assert (first[0], first[1], len(first[2])) == ("minimobile/demo/digit_0.png", None, 5)
    assert second[0] == "minimobile/demo/digit_7.png"
    assert "empty file" in second[1]
