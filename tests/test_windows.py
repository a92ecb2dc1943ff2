"""What needs POSIX is asked for nowhere else: the library without locks, without POSIX's functions, with open files.

Windows has no `fcntl`, renames nothing over a directory, and replaces no file that somebody has open. All of that is
imitated here; what a real Windows does beyond it is not.
"""

from __future__ import annotations

import errno
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conversions import make_checkpoint, write

import minimobile as mm
from minimobile import formats
from minimobile.bulk.files import create_once, replace_whole
from minimobile.bulk.options import BulkOptions
from minimobile.bulk.plan import freeze_plan
from minimobile.formats import safetensors_file
from minimobile.storage import directories, files, temporary
from minimobile.storage.directories import write_directory

ABSENT = {
    "fork", "getuid", "geteuid", "getgid", "setsid", "killpg", "sync", "register_at_fork", "sched_getaffinity",
    "sched_setaffinity", "mkfifo", "nice", "uname", "statvfs", "sysconf", "pread", "getloadavg", "wait", "WNOHANG",
    "O_NOFOLLOW", "O_NONBLOCK", "O_DIRECTORY", "O_CLOEXEC", "chown", "fchmod", "posix_fadvise", "memfd_create",
}  # fmt: skip
"""Of `os`, what Windows has not."""
ABSENT_MODULES = {"fcntl", "resource", "pwd", "grp", "termios", "syslog"}
GUARDED = {
    "minimobile_kernels/elf.py": "Linux alone",
    "minimobile_kernels/forks.py": "hasattr",
    "minimobile_kernels/kernel_cache.py": "sys.platform",
    "minimobile_kernels/preparation.py": "hasattr",
    "minimobile/bulk/files.py": "hasattr",
    "minimobile/comparison/memory.py": "sys.platform",
    "minimobile/execution/processors.py": "hasattr",
    "minimobile/execution/threads.py": "hasattr",
    "minimobile/formats/hdf5_child/serve.py": "os.name",
    "minimobile/storage/directories.py": "os.name",
    "minimobile/storage/temporary.py": "reached by os.name alone",
}
"""Modules that name any of that, and what they ask first. Whoever adds one makes a test below that goes through it."""


class WindowsOs:
    """`os` with another name, and without what Windows has not."""

    name = "nt"

    def __getattr__(self, name: str) -> Any:
        if name in ABSENT:
            raise AttributeError(f"module 'os' has no attribute {name!r}")
        return getattr(os, name)


@pytest.fixture
def windows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Imitate Windows for our own modules but the kernels, which ask `sys.platform`."""
    for name in ABSENT_MODULES:
        monkeypatch.setitem(sys.modules, name, None)
    for name, module in list(sys.modules.items()):
        if name.startswith("minimobile.") and getattr(module, "os", None) is os:
            monkeypatch.setattr(module, "os", WindowsOs())
    assert isinstance(temporary.os, WindowsOs) and isinstance(directories.os, WindowsOs)
    rename, replace = Path.rename, Path.replace

    def rename_to_nothing(old: Path, new: Path) -> Path:
        if os.path.lexists(new):
            raise FileExistsError(errno.EEXIST, "Cannot create a file when that file already exists")
        return move(rename, old, new)

    def move(act: Callable[[Path, Path], Path], old: Path, new: Path) -> Path:
        if new.is_dir():
            raise PermissionError(errno.EACCES, "Access is denied")
        for path in find_open():
            if path in (old, new) or old in path.parents:
                raise PermissionError(errno.EACCES, "The process cannot access the file", str(path))
        return act(old, new)

    monkeypatch.setattr(Path, "rename", rename_to_nothing)
    monkeypatch.setattr(Path, "replace", lambda old, new: move(replace, old, Path(new)))


def find_open() -> list[Path]:
    """Return what this process has open or mapped, where the system (Linux) tells."""
    handles, maps = Path("/proc/self/fd"), Path("/proc/self/maps")
    if not maps.exists():
        return []
    found = [str(handle.readlink()) for handle in handles.iterdir() if os.path.lexists(handle)]
    found += [line.split(maxsplit=5)[5] for line in maps.read_text().splitlines() if line.count(" /")]
    return [Path(name) for name in found if name.startswith("/")]


def test_what_posix_alone_has_is_named_where_it_is_asked_for_first() -> None:
    attributes, modules = "|".join(sorted(ABSENT)), "|".join(sorted(ABSENT_MODULES))
    pattern = re.compile(rf"\bos\.({attributes})\b|\bmmap\.(PROT|MAP)_|^ *(import|from) ({modules})\b", re.MULTILINE)
    root = Path(mm.__file__).parents[1]
    packages = (root / "minimobile", root / "kernels" / "minimobile_kernels")
    texts = {
        path.relative_to(package.parent).as_posix(): path.read_text("utf-8")
        for package in packages
        for path in package.rglob("*.py")
    }
    naming = {name for name, text in texts.items() if pattern.search(text)}
    assert naming == set(GUARDED)


@pytest.mark.usefixtures("windows")
@pytest.mark.parametrize("name", ["x", "x.h5", "x.tflite", "x.onnx"])
def test_a_model_that_is_loaded_holds_no_file_that_is_replaced(tmp_path: Path, name: str) -> None:
    source = write(tmp_path / "source", make_checkpoint("MobileNetV1ForImageClassification", image_size=32))
    mm.convert(source, tmp_path / name)
    model = mm.load(tmp_path / name)
    mm.convert(source, tmp_path / name, overwrite=True)
    save = model.save_pretrained if name == "x" else model.save
    save(tmp_path / name)
    assert formats.read(tmp_path / name).architecture == "MobileNetV1ForImageClassification"
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["source", name])


@pytest.mark.usefixtures("windows")
def test_of_two_that_make_one_new_directory_the_second_replaces_the_firsts_without_locks(tmp_path: Path) -> None:
    for text in ("third", "first"):
        with write_directory(tmp_path / "new", "key", ("one",)) as staging:
            for name in ("key", "one"):
                (staging / name).write_text(text)
            if text == "third":
                with write_directory(tmp_path / "new", "key", ("one",)) as other:
                    (other / "key").write_text("second")
        assert {path.name: path.read_text() for path in (tmp_path / "new").iterdir()} == {"key": text, "one": text}
    assert [path.name for path in tmp_path.iterdir()] == ["new"]


@pytest.mark.usefixtures("windows")
def test_an_open_file_is_one_sentence_and_stays(tmp_path: Path) -> None:
    if not find_open():
        pytest.skip("nobody tells which files are open")
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with path.open("rb"), pytest.raises(mm.MinimobileError, match=r"file: cannot be written \(.*; nothing was changed"):
        files.write_whole_bytes(path, b"new")
    assert [(each.name, each.read_bytes()) for each in tmp_path.iterdir()] == [("file", b"old")]


@pytest.mark.usefixtures("windows")
def test_a_run_of_many_pictures_writes_its_table_and_what_lies_beside_it(tmp_path: Path) -> None:
    photo = Path(mm.__file__).parent / "demo" / "scene.png"
    options = BulkOptions("demo:scenes", "segment", "csv", overlay=True)
    (part,) = freeze_plan(tmp_path, [str(photo)], 4, 1).parts()
    for _ in range(2):
        assert mm.PartRunner(options).run(part, tmp_path).errors == 0
    assert [path.name for path in (tmp_path / "_mask" / part.name).iterdir()] == ["000000.png"]
    with replace_whole(tmp_path / "_mask" / part.name) as folder:
        folder.mkdir()
        (folder / "1.png").write_bytes(b"another")
    assert [path.name for path in (tmp_path / "_mask" / part.name).iterdir()] == ["1.png"]


@pytest.mark.usefixtures("windows")
def test_a_disk_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(errno.EINVAL, "Incorrect function")

    monkeypatch.setattr(os, "link", refuse)
    assert create_once(tmp_path / "plan", [b"one", b"two"])
    assert not create_once(tmp_path / "plan", [b"three"])
    assert (tmp_path / "plan").read_bytes() == b"onetwo"


@pytest.mark.usefixtures("windows")
def test_weights_are_read_into_memory_of_their_own(tmp_path: Path) -> None:
    source = write(tmp_path / "source", make_checkpoint())
    arrays = safetensors_file.read_tensors(source / "model.safetensors")
    assert arrays and not [path for path in find_open() if source in path.parents]
