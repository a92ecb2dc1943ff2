"""The build backend: setuptools', but for editable installations, which name their folders in a .pth file.

setuptools finds a layout of two folders by an import hook, and a hook comes after the folders of `sys.path`: where
Python starts beside a clone called `minimobile`, that folder is then imported, as a package that holds nothing. A
package on the path goes before such a folder, wherever each of them stands; and type checkers and editors, which run no
hooks, find it too.
"""

from __future__ import annotations

import base64
import hashlib
import zipfile
from pathlib import Path

from setuptools import build_meta
from setuptools.build_meta import (  # noqa: F401  # what else a build backend has (PEP 517, PEP 660)
    build_sdist,
    build_wheel,
    get_requires_for_build_editable,
    get_requires_for_build_sdist,
    get_requires_for_build_wheel,
    prepare_metadata_for_build_editable,
    prepare_metadata_for_build_wheel,
)

ROOT = Path(__file__).resolve().parent.parent
SOURCES = (ROOT, ROOT / "kernels")
POINTER = "minimobile-sources.pth"


def build_editable(
    wheel_directory: str, config_settings: dict[str, object] | None = None, metadata_directory: str | None = None
) -> str:
    """Build a wheel that leads to this tree, and return its file name (PEP 660)."""
    name: str = build_meta.build_editable(wheel_directory, config_settings, metadata_directory)
    point_to_sources(Path(wheel_directory) / name)
    return name


def point_to_sources(wheel: Path) -> None:
    """Replace the import hook in an editable wheel by a .pth file, and its RECORD likewise."""
    with zipfile.ZipFile(wheel) as archive:
        files = {name: archive.read(name) for name in archive.namelist() if "__editable__" not in name}
    files[POINTER] = "".join(f"{folder}\n" for folder in SOURCES).encode()
    (record,) = (name for name in files if name.endswith(".dist-info/RECORD"))
    del files[record]
    lines = [f"{name},sha256={_hash(content)},{len(content)}\n" for name, content in files.items()]
    files[record] = "".join([*lines, f"{record},,\n"]).encode()
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)


def _hash(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
