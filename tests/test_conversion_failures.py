"""A conversion that fails or is killed, at any touch of the disk, leaves nothing half-written."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from conversions import make_checkpoint, write

from minimobile import formats
from minimobile.errors import FormatError, InputError, MinimobileError
from minimobile.formats import huggingface
from minimobile.models import conversion
from minimobile.models.conversion import convert
from minimobile.storage import directories
from minimobile.storage.directories import refusing_replacement, write_directory
from minimobile.storage.files import write_whole_bytes

FILES = ("model.safetensors", "preprocessor_config.json")


def test_destinations_that_are_refused(tmp_path: Path) -> None:
    source = write(tmp_path / "source", make_checkpoint())
    native = tmp_path / "native.h5"
    convert(source, native)
    (tmp_path / "folder.h5").mkdir()
    (tmp_path / "link.h5").symlink_to(native)
    (tmp_path / "file").write_text("mine")
    cases: list[tuple[Path, Path, dict[str, Any], str]] = [
        (source, native, {}, r"the name of a new file, but it exists; --force \(overwrite=True\) replaces it"),
        (source, source, {}, r"but it holds files; --force \(overwrite=True\) replaces them"),
        (source, source, {"overwrite": True}, "apart from the source"),
        (source / "model.safetensors", source, {"overwrite": True}, "apart from the source"),
        (native, native, {"overwrite": True}, "apart from the source"),
        (native, tmp_path / "link.h5", {"overwrite": True}, "is a link, which is never replaced; name what it points"),
        (source, tmp_path / "folder.h5", {"overwrite": True}, "expected a file, found a directory"),
        (source, tmp_path / "file", {"overwrite": True}, "expected a directory, found a file"),
        (source, tmp_path / "no" / "x.h5", {}, "expected an existing folder to write into"),
        (source, tmp_path / "file" / "x", {}, "expected an existing folder to write into"),
        (source, tmp_path / "x.pth", {}, "got the suffix '.pth'"),
        (source, tmp_path / "x", {"dtype": "float16"}, "expected dtype float32"),
    ]
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for first, second, options, match in cases:
        with pytest.raises(InputError, match=match) as caught:
            convert(first, second, **options)
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match=r"^dtype: expected one of float32, float16, got 'int8'"):
        convert(source, tmp_path / "x.h5", dtype="int8")
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
@pytest.mark.parametrize("name", ["x.h5", "x"])
def test_a_folder_that_is_read_only(tmp_path: Path, name: str) -> None:
    source = write(tmp_path / "source", make_checkpoint())
    (tmp_path / "closed").mkdir(mode=0o500)
    with pytest.raises(FormatError, match=r"cannot be written .Permission denied"):
        convert(source, tmp_path / "closed" / name)


# Everything through which a conversion touches the disk.
TOUCHES = ("os.fsync", "pathlib.Path.write_bytes", "pathlib.Path.replace", "pathlib.Path.rename", "pathlib.Path.mkdir")


def fail_at(monkeypatch: pytest.MonkeyPatch, number: int) -> list[str]:
    """Make the `number`th touch of the disk fail; the list names those that were reached."""
    reached: list[str] = []
    for touch in TOUCHES:
        module, _, name = touch.rpartition(".")
        owner: Any = Path if module.startswith("pathlib") else os
        original = getattr(owner, name)

        def wrapper(*given: Any, original: Any = original, touch: str = touch, **named: Any) -> Any:
            reached.append(touch)
            if len(reached) == number + 1:
                raise OSError(28, "No space left on device")
            return original(*given, **named)

        monkeypatch.setattr(owner, name, wrapper)
    return reached


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", ["x.h5", "x"])
def test_a_failure_at_any_write_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    source = write(tmp_path / "source", make_checkpoint())
    old = tmp_path / "old" / name
    old.parent.mkdir()
    convert(write(tmp_path / "other", make_checkpoint("MobileNetV1Model")), old)
    found = conversion.examine(source)
    monkeypatch.setattr(conversion, "examine", lambda source: found)  # read once
    failures = 0
    for number in range(100):
        home = tmp_path / str(number)
        if number % 2:
            home.mkdir()
        else:
            shutil.copytree(old.parent, home)
        before = contents(home)
        with monkeypatch.context() as patch:
            reached = fail_at(patch, number)
            try:
                convert(source, home / name, overwrite=True)
            except MinimobileError as error:
                assert str(home / name) in str(error)
                assert "No space left on device" in str(error)
                assert contents(home) == before, reached
                failures += 1
            else:
                assert formats.read(home / name).architecture == "MobileNetV1ForImageClassification"
        assert not [path for path in home.rglob(".*") if path not in before]
        if len(reached) <= number:
            break
    assert failures >= 3


KILLER = """
import os, signal, sys
from pathlib import Path
from minimobile.models import conversion

TOUCHES = {touches!r}
found = conversion.examine({source!r})
conversion.examine = lambda source: found  # read once

def run(number, suffix):
    count = 0
    def arm(owner, name):
        original = getattr(owner, name)
        def wrapper(*given, **named):
            nonlocal count
            count += 1
            if count == number + 1:
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*given, **named)
        setattr(owner, name, wrapper)
    for touch in TOUCHES:
        module, _, name = touch.rpartition(".")
        arm(Path if module.startswith("pathlib") else os, name)
    conversion.convert({source!r}, {destination!r} + str(number) + suffix, overwrite=True)
    os._exit(0)

for suffix in (".h5", ""):
    number = 0
    child = os.fork() or run(number, suffix)
    while os.waitpid(child, 0)[1] != 0:
        number += 1
        child = os.fork() or run(number, suffix)
    print(number)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_process_that_is_killed_leaves_the_old_the_new_or_nothing_that_loads(tmp_path: Path) -> None:
    source = write(tmp_path / "source", make_checkpoint())
    other = write(tmp_path / "other", make_checkpoint("MobileNetV1Model"))
    convert(other, tmp_path / "old.h5")
    for number in range(28):
        shutil.copy(tmp_path / "old.h5", tmp_path / f"x{number}.h5")
        if number % 2 or number >= 8:  # old files go when the new ones are there
            shutil.copytree(other, tmp_path / f"x{number}")
    script = KILLER.format(touches=TOUCHES, source=str(source), destination=str(tmp_path / "x"))
    result = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    halves: list[int] = []
    for suffix, survived in zip((".h5", ""), map(int, result.stdout.split()), strict=True):
        found = []
        for number in range(survived + 1):
            place = tmp_path / f"x{number}{suffix}"
            try:
                found.append(formats.read(place).architecture)
            except FormatError as error:
                assert suffix == ""
                if list(place.glob(".minimobile-*/begun")):
                    assert "replacement was cut short" in str(error)
                    halves.append(number)
                    continue
        assert survived >= 3
        assert found[-1] == "MobileNetV1ForImageClassification"
        assert set(found) == {"MobileNetV1ForImageClassification", "MobileNetV1Model"}
    assert len(halves) >= 3
    for number in halves:  # the next one to write there first finishes what was begun, even if it fails itself
        place = tmp_path / f"x{number}"
        with pytest.raises(ZeroDivisionError), write_directory(place, "config.json", FILES):
            raise ZeroDivisionError
        assert formats.read(place).architecture == "MobileNetV1ForImageClassification"
        assert not list(place.glob(".minimobile-*"))
    left = list(tmp_path.rglob(".*"))
    assert len([path for path in left if path.parent == tmp_path and path.is_dir()]) >= 3  # of new directories
    assert len([path for path in left if path.parent != tmp_path and path.is_dir()]) >= 3  # of those that were there
    assert len([path for path in left if path.suffix == ".tmp"]) >= 3
    for number in range(28):
        write_whole_bytes(tmp_path / f"x{number}.h5", b"another")
        write_files(tmp_path / f"x{number}", "another")
    assert not list(tmp_path.rglob(".*"))


@pytest.mark.skipif(os.name != "posix", reason="needs locks")
@pytest.mark.parametrize("what", ["fcntl.flock", "os.open"])
def test_without_locks_what_another_process_has_begun_is_left_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    original = os.open

    def refuse(path: Any, *given: Any, **named: Any) -> int:
        if what == "os.open" and path != tmp_path:
            return original(path, *given, **named)
        raise PermissionError

    (tmp_path / ".minimobile-1" / "new").mkdir(parents=True)
    for name in ("begun", "new/key"):
        (tmp_path / ".minimobile-1" / name).write_text("key")
    monkeypatch.setattr(what, refuse)
    write_files(tmp_path, "another")
    assert (tmp_path / ".minimobile-1" / "new" / "key").exists()
    assert (tmp_path / "key").read_text() == "another"


@pytest.mark.skipif(os.name != "posix", reason="needs locks")
def test_what_was_begun_before_another_wrote_a_whole_model_is_not_put_over_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process is killed half-way, the next one writes where it cannot hold the directory, the third one fails."""
    write_files(tmp_path, "old")
    folder = tmp_path / ".minimobile-1"
    for part in ("new", "old"):
        (folder / part).mkdir(parents=True)
    for name in ("key", "one", "two"):
        (folder / "new" / name).write_text("begun")
    (folder / "begun").write_text("key\none\ntwo")
    (tmp_path / "key").replace(folder / "old" / "key")
    (folder / "new" / "one").replace(tmp_path / "one")
    with monkeypatch.context() as patch:
        patch.setattr("fcntl.flock", lambda *_: os.open(tmp_path / "none", os.O_RDONLY))
        write_files(tmp_path, "newer")
    with pytest.raises(ZeroDivisionError), write_directory(tmp_path, "key", ("one", "two")):
        raise ZeroDivisionError
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == dict.fromkeys(("key", "one", "two"), "newer")


@pytest.mark.parametrize("what", ["read", "describe"])
@pytest.mark.parametrize("fails", [False, True])
def test_what_is_replaced_while_it_is_read_is_no_mixture_of_two_models(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, fails: bool
) -> None:
    place, other = write(tmp_path / "place", make_checkpoint()), write(tmp_path / "other", make_checkpoint())
    original = getattr(huggingface, what)

    def read(path: Path, **named: Any) -> Any:
        found = original(path, **named)
        with write_directory(place, "config.json", FILES) as staging:
            shutil.copytree(other, staging, dirs_exist_ok=True)
        if fails:
            raise FormatError("as of a file that is not there for a moment")
        return found

    monkeypatch.setattr(huggingface, what, read)
    with pytest.raises(FormatError, match=r"place: expected a model that stays .* replaced meanwhile; read it again$"):
        getattr(formats, what)(place)
    monkeypatch.undo()
    assert formats.read(place).architecture == "MobileNetV1ForImageClassification"


def test_what_has_no_key_at_either_sight_may_be_replaced_for_the_second_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One replacement ends while its folder is looked for, and another one begins while the model is read."""
    folder, find = tmp_path / ".minimobile-1", directories._find_begun

    def end(directory: Path) -> list[Path]:
        monkeypatch.setattr(directories, "_find_begun", find)
        (tmp_path / "key").write_text("first")
        return []

    monkeypatch.setattr(directories, "_find_begun", end)
    with pytest.raises(FormatError, match="replaced meanwhile"), refusing_replacement(tmp_path, "key"):
        folder.mkdir()
        (folder / "begun").write_text("key")
        (tmp_path / "key").rename(folder / "key")
    assert directories._is_replaced(tmp_path, "key", None)
    shutil.rmtree(folder)
    assert not directories._is_replaced(tmp_path, "key", None)


@pytest.mark.skipif(os.name != "posix", reason="needs locks")
def test_two_may_remove_what_was_begun_and_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a process that was killed when all its files were in their places."""
    write_files(tmp_path, "old")
    (tmp_path / ".minimobile-1" / "old").mkdir(parents=True)
    (tmp_path / ".minimobile-1" / "begun").write_text("key")
    remove_entry, late = os.rmdir, ["old"]

    def be_late(path: Any, **named: Any) -> None:
        remove_entry(path, **named)
        if path in late:
            raise FileNotFoundError(2, "No such file or directory", late.pop())

    with monkeypatch.context() as patch:
        patch.setattr(os, "rmdir", be_late)
        write_files(tmp_path, "new")
    assert {path.read_text() for path in tmp_path.iterdir() if path.is_file()} == {"new"}


def write_files(directory: Path, text: str) -> None:
    with write_directory(directory, "key", ("one", "two")) as staging:
        for name in ("key", "one", "two"):
            (staging / name).write_text(text)


@pytest.mark.skipif(os.name != "posix", reason="needs locks")
def test_whoever_finishes_what_was_begun_puts_the_key_to_its_place_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, replace = tmp_path / ".minimobile-1", Path.replace
    for part in ("new", "old"):
        (folder / part).mkdir(parents=True)
    for name in ("key", "one", "two"):
        (folder / "new" / name).write_text("begun")
    (folder / "begun").write_text("key\none\ntwo")

    def refuse_two(old: Path, new: Path) -> Path:
        if old == folder / "new" / "two":
            raise OSError(28, "No space left on device")
        return replace(old, new)

    with monkeypatch.context() as patch, pytest.raises(FormatError, match="No space left"):
        patch.setattr(Path, "replace", refuse_two)
        write_files(tmp_path, "another")
    assert not (tmp_path / "key").exists()
    with pytest.raises(ZeroDivisionError), write_directory(tmp_path, "key", ("one", "two")):
        raise ZeroDivisionError
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == dict.fromkeys(("key", "one", "two"), "begun")


@pytest.mark.skipif(os.name != "posix", reason="needs locks")
def test_two_that_replace_a_directory_at_once_do_it_one_after_the_other(tmp_path: Path) -> None:
    write_files(tmp_path, "old")
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: write_files(tmp_path, str(number)), range(60)))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["key", "one", "two"]
    assert len({path.read_text() for path in tmp_path.iterdir()}) == 1


def test_what_a_failed_replacement_leaves_for_a_moment_is_nobodys_to_finish(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_files(tmp_path, "old")
    found: list[str] = []
    replace, remove = Path.replace, shutil.rmtree

    def refuse_key(old: Path, new: Path) -> Path:
        if old.parent.name == "new" and old.name == "key":
            raise OSError(28, "No space left on device")
        return replace(old, new)

    def look(folder: Path) -> None:
        found.extend(path.name for path in folder.iterdir())
        remove(folder)

    monkeypatch.setattr(Path, "replace", refuse_key)
    monkeypatch.setattr(shutil, "rmtree", look)
    with pytest.raises(FormatError, match="No space left"):
        write_files(tmp_path, "new")
    assert sorted(found) == ["new", "old"]
    assert {path.read_text() for path in tmp_path.iterdir()} == {"old"}
