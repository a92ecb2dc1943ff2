"""What several test files share: the real checkpoints, small random networks, pictures, and the command line."""

from __future__ import annotations

import gc
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings, strategies
from PIL import Image

if importlib.util.find_spec("huggingface_hub"):
    import huggingface_hub.constants  # noqa: F401  # reads HF_HUB_OFFLINE once: before any test sets it

# No example is too slow: the machine may be busy.
settings.register_profile(
    "repeatable", deadline=None, derandomize=True, max_examples=50, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("repeatable")


# Files that read and write, and run no network: they come first, while two other processes compile the kernels.
WITHOUT_KERNELS = (
    "cli_convert", "cli_ends", "config", "conversion_failures", "crc32c", "deduction", "description", "flatbuffer",
    "geometry", "graph", "hdf5", "hdf5_extents", "hdf5_index", "hdf5_process", "hdf5_refused", "house_rules",
    "keras_config", "keras_graph", "keras_layers", "keras_refused", "kernel_cache", "labels", "matching",
    "paper_tables", "pictures", "profile", "protobuf", "pytorch", "pytorch_refused", "receptive_field", "reference",
    "safetensors_file", "slim_names", "sorted_table", "tensor_bundle", "tensor_proto", "tensorflow_graph",
    "tensorflow_graph_refused", "tflite_model", "torch_programs",
)  # fmt: skip
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
COMPILING_SECONDS = 300  # after that a test compiles what it needs by itself
_may_be_compiling = pytest.StashKey[bool]()
_compiler = pytest.StashKey[subprocess.Popen[bytes]]()


def pytest_collection(session: pytest.Session) -> None:
    """Look for no circles among what collecting makes: all of it stays, and to look takes a quarter of the time."""
    gc.disable()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is slow, unless it is asked for by that name, and put the tests first that need no kernels."""
    if "slow" not in config.option.markexpr and not any("::" in argument for argument in config.args):
        slow = [item for item in items if item.get_closest_marker("slow")]
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if item not in slow]
    items.sort(key=lambda item: item.path.stem.removeprefix("test_") not in WITHOUT_KERNELS)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Compile the kernels beside the first tests, where they are needed and not there; the first worker sees to it.

    What is there by now is never looked through for circles again: at 5000 tests that takes half a second each time.
    """
    _let_hypothesis_find_generators()
    gc.freeze()
    gc.enable()
    if len(session.items) <= 200 or session.config.option.collectonly or _are_ready():
        return
    session.stash[_may_be_compiling] = True
    if os.environ.get("PYTEST_XDIST_WORKER", "gw0") == "gw0":
        command = [sys.executable, "-m", "minimobile", "warmup"]
        session.stash[_compiler] = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@settings(max_examples=1)
@given(strategies.none())
def _let_hypothesis_find_generators(nothing: None) -> None:
    """Make Hypothesis look now who holds the random numbers of NumPy: of what is frozen older releases see no owner."""


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Wait for the kernels before the first test that may need them."""
    stash = item.session.stash
    if stash.get(_may_be_compiling, False) and item.path.stem.removeprefix("test_") not in WITHOUT_KERNELS:
        end = time.monotonic() + COMPILING_SECONDS
        while not _are_ready() and time.monotonic() < end:
            time.sleep(0.2)
        stash[_may_be_compiling] = False


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Leave no process behind."""
    if _compiler in session.stash:
        session.stash[_compiler].wait()


def _are_ready() -> bool:
    from minimobile.execution import detection, engine
    from minimobile.imaging import resampling
    from minimobile.quantized import engine as quantized_engine

    return all([engine.is_compiled(), quantized_engine.is_ready(), detection.is_ready(), resampling.is_ready()])


@pytest.fixture(scope="session", autouse=True)
def helpers_for_every_call() -> Iterator[None]:
    """Have every call shared, however small and slow, so that every kernel is tested in parts."""
    from minimobile.execution import engine
    from minimobile.execution.account import Account
    from minimobile.quantized import engine as quantized_engine

    class Sharing(Account):
        def note(self, seconds: float, was_shared: bool) -> None:
            pass

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "Account", Sharing)
        patch.setattr(quantized_engine, "Account", Sharing)
        yield


@pytest.fixture(scope="session", autouse=True)
def no_waiting_for_the_disk() -> Iterator[None]:
    """Let `os.fsync` see that it gets an open file, and not wait: no test cuts the power, and 2700 waits are long."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", os.fstat)
        yield


@pytest.fixture(scope="session")
def test_data() -> Path:
    """Return the folder of real checkpoints and pictures, or skip the test where there is none."""
    folder = os.environ.get("MINIMOBILE_TEST_DATA")
    if not folder:
        pytest.skip("MINIMOBILE_TEST_DATA is not set: no real checkpoints and pictures")
    if not Path(folder).is_dir():
        pytest.skip(f"MINIMOBILE_TEST_DATA names {folder}, which is not a folder")
    return Path(folder).resolve()


class Outcome(NamedTuple):
    """What a run of the command line gave."""

    code: int
    out: str
    err: str


Run = Callable[..., Outcome]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the command line in this process, 80 columns wide: `run("classify", path, "--top", 3)`."""
    from minimobile.cli import main

    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("MINIMOBILE_MODEL", raising=False)

    def run_once(*words: object) -> Outcome:
        capsys.readouterr()
        code = main([str(word) for word in words])
        outcome = Outcome(code, *capsys.readouterr())
        assert "Traceback" not in outcome.out + outcome.err
        return outcome

    return run_once


@pytest.fixture
def pixels() -> np.ndarray:
    """Return pixel values of two pictures, neither square nor a multiple of a stride. Shape: (2, 3, 33, 40)."""
    return np.random.default_rng(0).uniform(-1, 1, (2, 3, 33, 40)).astype(np.float32)


@pytest.fixture
def hdf5_in_this_process(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read HDF5 without a child process, which takes a fifth of a second for each file.

    Except in tests whose names hold one of the words that their module lists as IN_A_CHILD.
    """
    from hostile import fetch_here

    from minimobile.formats import guarded_hdf5

    if not any(word in request.node.name for word in request.module.IN_A_CHILD):
        monkeypatch.setattr(guarded_hdf5, "fetch_contents", fetch_here)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Return a browser that runs, or skip the test where none is installed."""
    from page_checks import PATIENCE

    sync_api = pytest.importorskip("playwright.sync_api", reason="no browser: playwright is not installed")
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        pytest.skip(f"no browser: none of {', '.join(BROWSERS)} is installed")
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"], timeout=PATIENCE)
        yield started
        started.close()


PROCESSOR = {"size": {"shortest_edge": 40}, "crop_size": {"height": 32, "width": 48}}


@pytest.fixture(scope="session")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the directory of a random V1 classifier with the classes cat, dog and emu."""
    from minimobile import MobileNetV1Config, MobileNetV1ForImageClassification

    config = MobileNetV1Config(depth_multiplier=0.25, id2label={0: "cat", 1: "dog", 2: "emu"})
    folder = tmp_path_factory.mktemp("classifier")
    MobileNetV1ForImageClassification(config, seed=1).save_pretrained(folder)
    values = {"image_processor_type": "MobileNetV1ImageProcessor", **PROCESSOR}
    (folder / "preprocessor_config.json").write_text(json.dumps(values))
    return folder


@pytest.fixture(scope="session")
def segmenter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the directory of a random V2 DeepLab with the classes background, cat, dog and emu."""
    from minimobile import MobileNetV2Config, MobileNetV2ForSemanticSegmentation

    labels = {0: "background", 1: "cat", 2: "dog", 3: "emu"}
    config = MobileNetV2Config(depth_multiplier=0.1, output_stride=8, id2label=labels, initializer_range=0.3)
    folder = tmp_path_factory.mktemp("segmenter")
    MobileNetV2ForSemanticSegmentation(config, seed=2).save_pretrained(folder)
    values = {"image_processor_type": "MobileNetV2ImageProcessor", **PROCESSOR}
    (folder / "preprocessor_config.json").write_text(json.dumps(values))
    return folder


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Return a folder with a.png (50 x 40), b.jpg (30 x 60, height first) and notes.txt."""
    folder = tmp_path / "photos"
    folder.mkdir()
    random = np.random.default_rng(3)
    for name, size in {"a.png": (50, 40), "b.jpg": (30, 60)}.items():
        colours = random.integers(0, 256, (3, 4, 3), dtype=np.uint8)
        Image.fromarray(colours).resize(size[::-1]).save(folder / name)
    (folder / "notes.txt").write_text("not a picture")
    return folder
