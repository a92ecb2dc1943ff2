"""A directory or file that another process writes, too, or has begun to write: one model whole, or one sentence."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from conversions import make_checkpoint, write

import minimobile as mm
from minimobile import formats
from minimobile.errors import FormatError, InputError
from minimobile.formats import huggingface
from minimobile.models import conversion
from minimobile.models.conversion import convert
from minimobile.storage.directories import write_directory

FILES = ("key", "one", "two")


def write_files(directory: Path, text: str, during: Any = None, **options: Any) -> None:
    """Write three files into a directory; `during` is called when they are written and not in their places yet."""
    with write_directory(directory, "key", ("one", "two"), **options) as staging:
        for name in FILES:
            (staging / name).write_text(text)
        if during is not None:
            during()


def read_files(directory: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in directory.iterdir()}


def test_of_two_that_make_one_new_directory_the_second_replaces_the_firsts(tmp_path: Path) -> None:
    place = tmp_path / "new"
    write_files(place, "second", during=lambda: write_files(place, "first"))
    assert read_files(place) == dict.fromkeys(FILES, "second")
    assert [path.name for path in tmp_path.iterdir()] == ["new"]


@pytest.mark.parametrize("is_new", [True, False])
def test_or_is_refused_where_nothing_may_be_replaced(tmp_path: Path, is_new: bool) -> None:
    place = tmp_path / "x"
    if not is_new:
        place.mkdir()
    with pytest.raises(InputError, match=r"x: expected a new or empty directory, but it holds files; --force \(over"):
        write_files(place, "second", lambda: write_files(place, "first", overwrite=False), overwrite=False)
    assert read_files(place) == dict.fromkeys(FILES, "first")
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_a_second_that_cannot_replace_the_first_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, original = tmp_path / "new", Path.replace

    def fail_for_key(old: Path, new: Path) -> Path:
        if new == place / "key" and old.parent.name == "new":
            raise OSError(28, "No space left on device")
        return original(old, new)

    def write_first() -> None:
        write_files(place, "first")
        monkeypatch.setattr(Path, "replace", fail_for_key)

    with pytest.raises(FormatError, match=r"new: cannot be written .No space left on device.; nothing was changed"):
        write_files(place, "second", during=write_first)
    monkeypatch.undo()
    assert read_files(place) == dict.fromkeys(FILES, "first")
    assert [path.name for path in tmp_path.iterdir()] == ["new"]


def test_a_link_in_a_files_place_is_never_replaced(tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    (place / "one").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="one: is a link, which is never replaced"):
        write_files(place, "new")
    assert [path.name for path in place.iterdir()] == ["one"] and (place / "one").is_symlink()


@pytest.mark.parametrize("name", ["x", "x.h5", "x.tflite", "x.onnx"])
def test_a_destination_that_is_taken_while_the_source_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    first, second = (
        conversion.examine(write(tmp_path / "source", make_checkpoint(output_stride=stride))) for stride in (32, 16)
    )
    before: dict[Path, bytes] = {}

    def take(_: Any) -> Any:
        monkeypatch.setattr(conversion, "examine", lambda _: first)
        convert("first", tmp_path / name)
        before.update(contents(tmp_path))
        return second

    monkeypatch.setattr(conversion, "examine", take)
    with pytest.raises(InputError, match=r"x.* but it (exists|holds files); --force .overwrite=True. replaces"):
        convert("second", tmp_path / name)
    assert contents(tmp_path) == before


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("read", [formats.read, formats.examine, mm.load])
def test_a_file_of_weights_is_read_with_the_labels_of_its_own_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: Any
) -> None:
    """By its file's name, too: the config is read, then the directory is replaced, then the weights are read."""
    place, other = write(tmp_path / "place", make_checkpoint()), write(tmp_path / "other", make_checkpoint())
    find = huggingface.read_weights

    def replace_first(path: Path, **named: Any) -> Any:
        monkeypatch.undo()
        with write_directory(place, "config.json", ("model.safetensors",)) as staging:
            shutil.copytree(other, staging, dirs_exist_ok=True)
        return find(path, **named)

    monkeypatch.setattr(huggingface, "read_weights", replace_first)
    with pytest.raises(FormatError, match=r"place: expected a model that stays .* replaced meanwhile; read it again$"):
        read(place / "model.safetensors")
    assert mm.load(place / "model.safetensors").id2label == {0: "Käse", 1: "猫", 2: "emu"}


@pytest.mark.parametrize(
    ("read", "name"),
    [
        (mm.load, ""),
        (mm.load, "model.safetensors"),
        (mm.MobileNetV1Config.from_pretrained, ""),
        (mm.AutoConfig.from_pretrained, ""),
        (mm.AutoImageProcessor.from_pretrained, ""),
        (mm.MobileNetV1ImageProcessor.from_pretrained, ""),
    ],
)
def test_what_is_half_replaced_is_called_that_by_every_reader(tmp_path: Path, read: Any, name: str) -> None:
    place = write(tmp_path / "place", make_checkpoint())
    folder = place / ".minimobile-1"
    (folder / "old").mkdir(parents=True)
    (folder / "begun").write_text("config.json")
    (place / "config.json").rename(folder / "old" / "config.json")
    with pytest.raises(FormatError, match="place: expected a whole model, found one whose replacement was cut short"):
        read(place / name)
    write(place, make_checkpoint())
    read(place / name)
    (place / "config.json").unlink()
    with pytest.raises(FormatError, match=r"expected config\.json there, found none"):
        mm.MobileNetV1Config.from_pretrained(place)
