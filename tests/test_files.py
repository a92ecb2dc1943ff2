"""Where files may be written: one rule for the library and for every command."""

from __future__ import annotations

import errno
import os
import re
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

import minimobile as mm
from minimobile.errors import FormatError, InputError, MissingError, printable
from minimobile.storage.files import (
    check_destination,
    path_beside,
    regular_file_size,
    write_together,
    write_whole,
    write_whole_bytes,
)  # fmt: skip
from tests.conftest import Run

posix = pytest.mark.skipif(os.name != "posix", reason="links and pipes as POSIX has them")


def bind_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


NOT_FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "link": (lambda path: path.symlink_to(path.with_name("precious")), "is a link, which is never replaced"),
    "broken link": (lambda path: path.symlink_to("nowhere"), "is a link, which is never replaced"),
    "pipe": (os.mkfifo, "is a pipe, socket or device, which is never replaced"),
    "socket": (bind_socket, "is a pipe, socket or device, which is never replaced"),
    "folder": (Path.mkdir, "expected a file, found a directory"),
}


def test_a_file_system_that_is_read_only_is_one_sentence_with_the_files_own_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It refuses to remove even what is not there."""

    def refuse(path: Path, *given: object, **more: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    for name in ("write_bytes", "unlink"):
        monkeypatch.setattr(Path, name, refuse)
    path = tmp_path / "x.h5"
    for write in (lambda: write_whole_bytes(path, b"new"), lambda: write_together({path: b"new"}, overwrite=True)):
        with pytest.raises(
            FormatError, match=r"x\.h5: cannot be written \(Read-only file system\); nothing was changed$"
        ):
            write()


@posix
@pytest.mark.parametrize("kind", NOT_FILES)
def test_what_is_no_file_is_never_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    make, sentence = NOT_FILES[kind]
    monkeypatch.chdir(tmp_path)  # a socket's path has at most a hundred characters
    path = Path("x.h5")
    Path("precious").write_text("mine")
    make(path)
    before = path.lstat()
    with pytest.raises(InputError, match=sentence):
        write_whole_bytes(path, b"new")
    with pytest.raises(InputError, match=sentence):
        write_together({Path("other"): b"new", path: b"new"}, overwrite=True)
    with pytest.raises(InputError, match=sentence), write_whole(path):
        pass
    assert path.lstat() == before
    assert sorted(map(str, Path().iterdir())) == ["precious", "x.h5"]
    assert Path("precious").read_text() == "mine"


def test_a_file_is_replaced_only_where_that_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "x"
    write_whole_bytes(path, b"old", overwrite=False)
    write_whole_bytes(path, b"old", overwrite=False)  # it holds these very bytes
    with pytest.raises(InputError, match=r"but it exists; --force \(overwrite=True\) replaces it"):
        write_whole_bytes(path, b"new", overwrite=False)
    with pytest.raises(InputError, match="but it exists"):
        write_together({tmp_path / "y": b"new", path: b"new"}, overwrite=False)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"]
    write_whole_bytes(path, b"new")
    assert path.read_bytes() == b"new"


def test_a_file_that_comes_into_being_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "x"
    with pytest.raises(InputError, match="but it exists"), write_whole(path, overwrite=False) as temporary:
        temporary.write_bytes(b"ours")
        path.write_bytes(b"theirs")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"theirs"]


@pytest.mark.parametrize("name", ["x\0y", "x" * 300])
def test_names_that_no_file_can_have(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=re.escape(f"{printable(tmp_path / name)}: cannot be written (")):
        check_destination(tmp_path / name, overwrite=True)


@posix
def test_a_directory_of_files_replaces_no_link_either(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("mine")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.safetensors").symlink_to(tmp_path / "precious")
    with pytest.raises(InputError, match=r"model\.safetensors: is a link, which is never replaced"):
        mm.load("demo:digits").save_pretrained(tmp_path / "model")
    assert [path.name for path in (tmp_path / "model").iterdir()] == ["model.safetensors"]
    assert (tmp_path / "precious").read_text() == "mine"


@posix
def test_every_command_keeps_the_rule(run: Run, segmenter: Path, photos: Path, tmp_path: Path) -> None:
    photo, folder = photos / "a.png", tmp_path / "out"
    folder.mkdir()
    commands = {
        "x.png": ["demo", "--out", folder / "x.png"],
        "x.npz": ["features", photo, "--model", segmenter, "--layer", "0", "--out", folder / "x.npz"],
        "x.h5": ["convert", segmenter, folder / "x.h5"],
        "y.h5": ["trace", segmenter, photo, "--save", folder / "y.h5"],
        "y.png": ["trace", segmenter, photo, "--layer", "layer.3", "--picture", folder / "y.png"],
        "x.html": ["check", segmenter, photo, "--html", folder / "x.html"],
        "a.mask.png": ["segment", photo, "--model", segmenter, "--out", folder],
        "a.overlay.png": ["segment", photo, "--model", segmenter, "--out", folder],
    }
    for name, words in commands.items():
        path = folder / name
        path.write_text("precious")
        code, out, err = run(*words)
        assert (code, out) == (1, ""), name
        assert err.splitlines()[-1] == (
            f"error: {path}: expected the name of a new file, but it exists; --force (overwrite=True) replaces it"
        )
        assert path.read_text() == "precious"
        path.unlink()
        os.mkfifo(path)
        code, _, err = run(*words, "--force")
        assert code == 1
        assert err == f"error: {path}: is a pipe, socket or device, which is never replaced; name a file\n"
        assert path.is_fifo()
        path.unlink()
    assert list(folder.iterdir()) == []


def test_every_command_wants_a_folder_that_exists_and_says_so(
    run: Run, segmenter: Path, photos: Path, tmp_path: Path
) -> None:
    photo, missing = photos / "a.png", tmp_path / "no"
    for words in (
        ["demo", "--out", missing / "x.png"],
        ["features", photo, "--model", segmenter, "--layer", "0", "--out", missing / "x.npz"],
        ["convert", segmenter, missing / "x.h5"],
        ["convert", segmenter, missing / "x"],
        ["trace", segmenter, photo, "--save", missing / "x.h5"],
        ["segment", photo, "--model", segmenter, "--out", missing / "x"],
        ["detect", photo, "--model", "demo:boxes", "--out", missing / "x"],
        ["quantize", segmenter, missing / "x.tflite"],
        ["check", segmenter, photo, "--html", missing / "x.html"],
        ["run", photo, "--task", "segment", "--model", segmenter, "--out", missing / "x"],
    ):
        code, out, err = run(*words)
        assert (code, out) == (1, ""), words
        assert err == f"error: {words[-1]}: expected an existing folder to write into, but {missing} is none\n"
        assert "must exist." in " ".join(run(words[0], "--help").out.split())
    assert not missing.exists()


def test_a_failure_in_the_middle_brings_everything_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new, replace = tmp_path / "old", tmp_path / "new", Path.replace
    old.write_text("precious")

    def fail(path: Path, target: Path) -> Path:
        if target.name == "new":
            raise OSError(28, "No space left on device")
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(FormatError, match=r"cannot be written \(No space left on device\); nothing was changed"):
        write_together({old: b"other", new: b"other"}, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["old"]
    assert old.read_text() == "precious"


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """The hub's cache of one repository and another one, with a file beside them."""
    for name in ("models--a--b", "models--a--c"):
        (tmp_path / name / "blobs").mkdir(parents=True)
        (tmp_path / name / "blobs" / "f00d").write_bytes(b"data")
        (tmp_path / name / "snapshots" / "1234" / "sub").mkdir(parents=True)
    (tmp_path / "precious").write_bytes(b"x")
    return tmp_path


@posix
@pytest.mark.parametrize("is_absolute", [True, False])
@pytest.mark.parametrize("name", ["data.bin", "sub/data.bin"])
def test_links_of_a_snapshot_into_its_own_blobs_are_followed(cache: Path, name: str, is_absolute: bool) -> None:
    snapshot = cache / "models--a--b" / "snapshots" / "1234"
    blob = cache / "models--a--b" / "blobs" / "f00d"
    link = snapshot / name
    link.symlink_to(blob if is_absolute else os.path.relpath(blob, link.parent))
    (cache / "mine").symlink_to(snapshot)
    for folder in (snapshot, cache / "mine"):  # what a user names may be a link itself
        assert path_beside(folder, name, "x").read_bytes() == b"data"


@pytest.mark.parametrize("name", ["модель (1).data", "./data, größte.bin", "a/./b~1'.bin", "x" * 255])
def test_files_of_a_model_may_have_any_name(tmp_path: Path, name: str) -> None:
    assert path_beside(tmp_path, name, "x") == tmp_path / name


@pytest.mark.parametrize(
    "name", ["", ".", "/", "..", "a/..", "a//b", "/a", "a\\b", "C:a", "a\0b", "a\nb", "con*", "x" * 256, None, 3]
)
def test_what_names_no_file_of_a_model_is_refused(tmp_path: Path, name: object) -> None:
    with pytest.raises(FormatError, match=r"^x: expected the name of a file in the model's own folder"):
        path_beside(tmp_path, name, "x")


@posix
@pytest.mark.parametrize(
    "target",
    ["../../../precious", "../../../models--a--c/blobs/f00d", "../../blobs/around", "data.bin", "sub/file",
     "../../blobs", "../../blobs/../../precious", "/etc/hostname"],
)  # fmt: skip
def test_links_elsewhere_are_refused(cache: Path, target: str) -> None:
    snapshot = cache / "models--a--b" / "snapshots" / "1234"
    (snapshot / "sub" / "file").write_bytes(b"x")
    (snapshot.parents[1] / "blobs" / "around").symlink_to(cache / "precious")
    (snapshot / "data.bin").symlink_to(target)
    with pytest.raises(FormatError, match=r"^x: expected data\.bin to be a file in .* own folder, found a link"):
        path_beside(snapshot, "data.bin", "x")


@posix
def test_a_folder_of_a_snapshot_that_is_a_link_is_refused(cache: Path) -> None:
    snapshot = cache / "models--a--b" / "snapshots" / "1234"
    (snapshot / "data").symlink_to("../../blobs")
    with pytest.raises(FormatError, match="found a link"):
        path_beside(snapshot, "data/f00d", "x")


@posix
def test_a_blob_that_is_missing_is_named_when_it_is_opened(cache: Path) -> None:
    link = cache / "models--a--b" / "snapshots" / "1234" / "data.bin"
    link.symlink_to("../../blobs/beef")
    with pytest.raises(MissingError, match="the link points to a file that is not there"):
        regular_file_size(path_beside(link.parent, "data.bin", "x"))


def test_a_folder_that_cannot_be_read_is_called_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FormatError, match=r"expected a file, found a directory$"):
        regular_file_size(tmp_path)
    monkeypatch.setattr("os.access", lambda path, mode: False)  # root may read whatever its mode is
    with pytest.raises(FormatError, match=r"expected a file, found a directory that cannot be read$"):
        regular_file_size(tmp_path)
