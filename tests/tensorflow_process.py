"""A frozen graph in TensorFlow as it is installed, which is with oneDNN, in a process of its own.

The tests' own processes switch oneDNN off, once and for all; it sums in another order.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

INVERSE_ROOT_OF_2 = np.float32(0.7071067)  # on an Intel processor; correct is 0.70710677
NEEDS_INTEL = (
    "a live comparison needs TensorFlow on an Intel processor: here it folds batch norm with another table of inverse "
    "roots"
)
"""Why a test is skipped on other makers' processors. `.ci/run` allows this very sentence: a recorded run is compared
everywhere."""


def run_frozen_graph(path: Path, picture: Path, side: int, names: Iterable[str], folder: Path) -> dict[str, Any]:
    """Return what operations compute of a picture, shrunk to fit `side`. The results rest in `folder` on their way.

    Skips the test where this processor's inverse roots are not Intel's.
    """
    if importlib.util.find_spec("tensorflow") is None:
        pytest.skip("tensorflow is not installed")
    task, values = folder / "task.json", folder / "values.npz"
    task.write_text(json.dumps({"path": str(path), "picture": str(picture), "side": side, "names": sorted(set(names))}))
    environment = {**os.environ, "TF_ENABLE_ONEDNN_OPTS": "1", "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
    subprocess.run([sys.executable, __file__, task, values], env=environment, check=True)
    with np.load(values) as found:
        results = {name.replace("|", "/"): found[name] for name in found.files}
    values.unlink()
    if results.pop("inverse root of 2") != INVERSE_ROOT_OF_2:
        pytest.skip(NEEDS_INTEL)
    return results


def main() -> None:
    """Do the task of one file, and write the values to another."""
    import tensorflow as tf

    task = json.loads(Path(sys.argv[1]).read_text())
    definition = tf.compat.v1.GraphDef()
    definition.ParseFromString(Path(task["path"]).read_bytes())
    with tf.Graph().as_default() as graph:
        tf.compat.v1.import_graph_def(definition, name="")
    image = Image.open(task["picture"]).convert("RGB")
    image.thumbnail((task["side"], task["side"]))
    with tf.compat.v1.Session(graph=graph) as session:
        found = session.run([f"{name}:0" for name in task["names"]], {"ImageTensor:0": np.asarray(image)[None]})
    values = dict(zip((name.replace("/", "|") for name in task["names"]), found, strict=True))
    values["inverse root of 2"] = tf.math.rsqrt(np.full(8, 2, np.float32)).numpy()[0]
    np.savez(sys.argv[2], **values)


if __name__ == "__main__":
    main()
