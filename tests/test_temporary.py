"""What a process that was killed leaves behind goes, and what a living one writes stays."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from minimobile.storage.directories import write_directory
from minimobile.storage.files import write_together, write_whole, write_whole_bytes
from minimobile.storage.temporary import BEGUN, host_name, temporary_file, temporary_folder

fcntl = pytest.importorskip("fcntl", reason="locks as POSIX has them")

KILLED = """
import os, signal, sys
from pathlib import Path
from minimobile.storage.directories import write_directory
from minimobile.storage.files import write_whole
folder = Path(sys.argv[1])
with write_whole(folder / "file") as file, write_directory(folder / "new", "key", ()) as new:
    with write_directory(folder / "old", "key", ()) as old:
        for path in (file, new / "key", old / "key"):
            path.write_text("half")
        os.kill(os.getpid(), signal.SIGKILL)
"""


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def write_all(folder: Path) -> None:
    write_whole_bytes(folder / "file", b"whole")
    for name in ("new", "old"):
        with write_directory(folder / name, "key", ()) as staging:
            (staging / "key").write_text("whole")


def test_the_next_one_to_write_removes_what_a_killed_process_left(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False)
    assert done.returncode == -signal.SIGKILL
    host = host_name()[:30]
    left = [f".file.{host}-0.tmp", f".minimobile-new-{host}-0", f"old/.minimobile-old-{host}-0"]
    assert set(left) < set(names(tmp_path))
    write_all(tmp_path)
    assert names(tmp_path) == ["file", "new", "new/key", "old", "old/key"]


def test_what_is_being_written_stays_however_many_write_the_same(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    with contextlib.ExitStack() as stack:
        living = []
        for number in range(10):  # more than there are places
            file = stack.enter_context(temporary_file(tmp_path / "file"))
            folder = stack.enter_context(temporary_folder(tmp_path / "old", tmp_path / "old"))
            living += [file, folder / "key"]
            for path in living[-2:]:
                path.write_text(str(number))
        write_all(tmp_path)
        write_together({tmp_path / "file": b"another"}, overwrite=True)
        assert [path.read_text() for path in living] == [str(number) for number in range(10) for _ in range(2)]
        assert len(set(living)) == 20
    assert names(tmp_path) == ["file", "new", "new/key", "old", "old/key"]


def test_a_name_that_was_given_up_by_a_rename_is_anothers(tmp_path: Path) -> None:
    with temporary_file(tmp_path / "file") as first:
        first.rename(tmp_path / "file")
        second = tmp_path / first.name
        second.write_text("another process's")
    assert second.exists()


def remove_as_another(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    path.unlink()
    os.close(handle)


def hold_as_another(path: Path) -> None:
    fcntl.flock(os.open(path, os.O_RDONLY), fcntl.LOCK_EX)  # until this process ends


@pytest.mark.parametrize("act", [remove_as_another, hold_as_another])
@pytest.mark.parametrize("before", ["open", "flock"])
def test_one_that_takes_a_new_file_for_left_behind_is_evaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, act: object, before: str
) -> None:
    """Between the making of a file and its lock somebody else may find it without one."""
    first = tmp_path / f".file.{host_name()[:30]}-0.tmp"
    flock, original = fcntl.flock, os.open

    def meet() -> None:
        if first.exists():
            monkeypatch.undo()
            act(first)  # type: ignore[operator]

    def lock(handle: int, how: int) -> None:
        meet()
        flock(handle, how)

    def open_later(path: Path, flags: int, *mode: int) -> int:
        if not flags & os.O_CREAT:
            meet()
        return original(path, flags, *mode)

    monkeypatch.setattr(*((fcntl, "flock", lock) if before == "flock" else (os, "open", open_later)))
    with temporary_file(tmp_path / "file") as path:
        assert path.name == f".file.{host_name()[:30]}-1.tmp"
        assert first.exists() == (act is hold_as_another)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EBADF, errno.EOPNOTSUPP])
def test_without_locks_names_are_of_chance_and_nothing_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(handle: int, how: int) -> None:
        raise OSError(number, os.strerror(number))

    left = tmp_path / f".file.{host_name()[:30]}-0.tmp"
    left.write_text("somebody's")
    monkeypatch.setattr(fcntl, "flock", refuse)
    with temporary_file(tmp_path / "file") as path, temporary_file(tmp_path / "file") as other:
        assert re.fullmatch(r"\.file\.[0-9a-f]{12}\.tmp", path.name)
        assert names(tmp_path) == sorted([path.name, other.name, left.name])
    assert names(tmp_path) == [left.name]


@contextlib.contextmanager
def link(path: Path) -> Iterator[None]:
    path.symlink_to("precious")
    yield
    assert path.is_symlink()


@contextlib.contextmanager
def folder_to_finish(path: Path) -> Iterator[None]:
    path.mkdir()
    (path / BEGUN).touch()
    yield
    assert (path / BEGUN).exists()


@pytest.mark.parametrize("plant", [link, folder_to_finish])
def test_what_is_no_rubbish_is_left_alone(tmp_path: Path, plant: object) -> None:
    (tmp_path / "precious").write_text("precious")
    places = (tmp_path / f".file.{host_name()[:30]}-0.tmp", tmp_path / f".minimobile-file-{host_name()[:30]}-0")
    with contextlib.ExitStack() as stack:
        for place in places:
            stack.enter_context(plant(place))  # type: ignore[operator]
        with temporary_file(tmp_path / "file") as file, temporary_folder(tmp_path, tmp_path / "file") as folder:
            assert file.exists() and folder.exists()
    assert (tmp_path / "precious").read_text() == "precious"


def test_names_are_short_enough_for_any_target(tmp_path: Path) -> None:
    target = tmp_path / ("\N{SNOWMAN}" * 80 + ".h5")
    write_whole_bytes(target, b"")
    with write_whole(target) as file, temporary_folder(tmp_path, target) as folder:
        assert len(os.fsencode(file.name)) < 256 and len(os.fsencode(folder.name)) < 256
        file.write_bytes(b"whole")
