"""What an installation consists of: its packages, the oldest releases that it may meet, and where Python finds it."""

from __future__ import annotations

import configparser
import importlib.util
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def setup_cfg() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    return parser


@pytest.fixture
def backend() -> ModuleType:
    """Return the build backend, which needs setuptools."""
    pytest.importorskip("setuptools.build_meta", reason="needs setuptools, which built this installation elsewhere")
    specification = importlib.util.spec_from_file_location("build_backend", ROOT / "tools" / "build_backend.py")
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_every_package_of_the_tree_is_installed(setup_cfg: configparser.ConfigParser) -> None:
    found = set()
    for base, package in ((ROOT, "minimobile"), (ROOT / "kernels", "minimobile_kernels")):
        for path in (base / package).rglob("__init__.py"):
            found.add(".".join(path.parent.relative_to(base).parts))
    assert set(setup_cfg["options"]["packages"].split()) == found


def test_the_lowest_releases_are_those_that_are_tested(setup_cfg: configparser.ConfigParser) -> None:
    """`.ci/run` runs the default tests with the constraints."""
    needed = (setup_cfg["options"]["install_requires"] + setup_cfg["options.extras_require"]["test"]).split()
    lowest = dict(requirement.split(">=") for requirement in needed)
    lines = (ROOT / "tests" / "constraints-lowest.txt").read_text(encoding="utf-8").splitlines()
    tested = dict(line.split("==") for line in lines if not line.startswith("#"))
    assert tested.pop("click"), "which typer depends on"
    assert tested.keys() == lowest.keys()
    for name, release in lowest.items():
        assert re.fullmatch(rf"{re.escape(release)}(\.0)*", tested[name]), name


def test_a_clone_s_folder_is_not_taken_for_the_package(tmp_path: Path, backend: ModuleType) -> None:
    """From beside a clone called minimobile, Python sees a folder of that name before it runs any import hook."""
    wheel = tmp_path / "minimobile.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("__editable__.minimobile.pth", "import __editable___minimobile_finder")
        archive.writestr("__editable___minimobile_finder.py", "raise AssertionError")
        archive.writestr("minimobile-0.1.0.dist-info/METADATA", "Name: minimobile\n")
        archive.writestr("minimobile-0.1.0.dist-info/RECORD", "")
    backend.point_to_sources(wheel)
    site, parent = tmp_path / "site", tmp_path / "parent"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
        record = archive.read("minimobile-0.1.0.dist-info/RECORD").decode()
        assert [line.split(",")[0] for line in record.splitlines()] == archive.namelist()
    (parent / "minimobile").mkdir(parents=True)
    program = (
        "import site, sys; site.addsitedir(sys.argv[1]); import minimobile, minimobile_kernels; "
        "print(minimobile.__file__, minimobile_kernels.__path__)"
    )
    command = [sys.executable, "-S", "-c", program, site]
    done = subprocess.run(command, cwd=parent, env={}, capture_output=True, text=True, check=True)
    folder = ROOT / "kernels" / "minimobile_kernels"
    assert done.stdout.split() == [str(ROOT / "minimobile" / "__init__.py"), f"['{folder}']"]
