"""`minimobile classify`: the library's answers as a table and as JSON; bad pictures are rows and stop nothing."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import minimobile
from minimobile import MinimobileError
from minimobile_kernels import entries
from tests.conftest import Run


def test_json_says_what_the_library_says(run: Run, classifier: Path, photos: Path) -> None:
    paths = [photos / "a.png", photos / "b.jpg"]
    code, out, err = run("classify", *paths, "--model", classifier, "--top", 2, "--format", "json")
    assert code == 0
    assert err == "" or err.startswith("note: compiling")
    assert json.loads(out) == [
        {"image": str(path), "predictions": minimobile.classify(path, model=classifier, top=2)} for path in paths
    ]
    assert list(json.loads(out)[0]["predictions"][0]) == ["index", "label", "probability", "logit"]


def test_the_table_names_each_picture_once(run: Run, classifier: Path, photos: Path) -> None:
    code, out, _ = run("classify", photos / "a.png", "--model", classifier)
    assert code == 0
    lines = out.splitlines()
    assert lines[0].split() == ["picture", "label", "probability", "class"]
    assert len(lines) >= 2 + 3
    assert max(map(len, lines)) <= 80
    assert {"cat", "dog", "emu"} <= set(out.split())


def test_folders_expand_to_their_pictures_in_order(run: Run, classifier: Path, photos: Path) -> None:
    (photos / ".hidden.png").write_bytes((photos / "a.png").read_bytes())
    code, out, _ = run("classify", photos, "--model", classifier, "--format", "json")
    assert code == 0
    assert [Path(row["image"]).name for row in json.loads(out)] == ["a.png", "b.jpg"]


def make_bad_pictures(folder: Path) -> dict[str, tuple[Path, str]]:
    """Return name -> (path, a part of the sentence it must give)."""
    text = folder / "text.png"
    text.write_text("hello")
    empty = folder / "empty.png"
    empty.write_bytes(b"")
    good = folder / "good.jpg"
    Image.new("RGB", (64, 64), "red").save(good)
    truncated = folder / "truncated.jpg"
    truncated.write_bytes(good.read_bytes()[:-100])
    good.unlink()
    bomb = folder / "bomb.png"
    Image.new("1", (12000, 12000)).save(bomb)
    postscript = folder / "postscript.jpg"
    postscript.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n")
    bare = folder / "bare"
    bare.mkdir()
    paths = {
        "text": (text, "expected a picture"),
        "empty": (empty, "empty"),
        "truncated": (truncated, "truncated"),
        "bomb": (bomb, "pixels"),
        "postscript": (postscript, "expected a picture"),
        "missing": (folder / "missing.png", "no such file"),
        "folder": (bare, "a folder with none"),
    }
    if os.name == "posix":
        os.mkfifo(folder / "pipe.png")
        paths["pipe"] = (folder / "pipe.png", "expected a regular file")
    return paths


@pytest.fixture
def bad(tmp_path: Path) -> dict[str, tuple[Path, str]]:
    folder = tmp_path / "bad"
    folder.mkdir()
    return make_bad_pictures(folder)


def test_bad_pictures_do_not_stop_the_others(
    run: Run, classifier: Path, photos: Path, bad: dict[str, tuple[Path, str]]
) -> None:
    paths = [photos / "a.png", *(path for path, _ in bad.values()), photos / "b.jpg"]
    code, out, err = run("classify", *paths, "--model", classifier, "--format", "json")
    assert code == 1
    assert f"error: {len(bad)} of {len(bad) + 2} pictures failed" in err
    rows: list[dict[str, Any]] = json.loads(out)
    assert [row["image"] for row in rows] == [str(path) for path in paths]
    assert [set(row) for row in rows] == [
        {"image", "predictions"}, *({"image", "error"} for _ in bad), {"image", "predictions"}
    ]  # fmt: skip
    for row, (path, sentence) in zip(rows[1:-1], bad.values(), strict=True):
        assert sentence in row["error"]
        assert row["error"].startswith(str(path))
        assert "\n" not in row["error"]


def test_the_table_shows_bad_pictures_as_rows(run: Run, classifier: Path, photos: Path) -> None:
    code, out, err = run("classify", photos / "a.png", photos / "notes.txt", "--model", classifier)
    assert code == 1
    assert "error: expected a picture" in " ".join(out.split())
    assert err.endswith("error: 1 of 2 pictures failed\n")


def test_where_nothing_worked_there_is_no_table(run: Run, classifier: Path, photos: Path) -> None:
    code, out, err = run("classify", photos / "none.png", photos / "notes.txt", "--model", classifier)
    assert code == 1
    assert out == ""
    assert [line.startswith(f"error: {photos}") for line in err.splitlines()] == [True, True]


def test_a_segmentation_model_is_refused_with_the_way_out(run: Run, segmenter: Path, photos: Path) -> None:
    code, out, err = run("classify", photos / "a.png", "--model", segmenter)
    assert code == 1
    assert out == ""
    assert "got a MobileNetV2ForSemanticSegmentation" in err
    assert "minimobile segment" in err


def test_a_model_without_a_processor_is_refused(run: Run, classifier: Path, photos: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    minimobile.load(classifier).save_pretrained(bare)
    (bare / "preprocessor_config.json").unlink()
    code, out, err = run("classify", photos / "a.png", "--model", bare)
    assert code == 1
    assert out == ""
    assert "image-processor settings" in err


@pytest.mark.crosscheck
def test_real_networks_know_the_cat_and_the_parrot(run: Run, test_data: Path) -> None:
    images = [test_data / "images" / "cat.bmp", test_data / "images" / "parrot.jpg"]
    model = test_data / "models" / "huggingface" / "mobilenet_v2_1.0_224"
    code, out, _ = run("classify", *images, "--model", model, "--format", "json")
    assert code == 0
    cat, parrot = (row["predictions"] for row in json.loads(out))
    assert [found["label"] for found in cat[:3]] == ["Egyptian cat", "tabby, tabby cat", "tiger cat"]
    assert [round(found["probability"], 3) for found in cat[:3]] == [0.947, 0.027, 0.020]
    assert (parrot[0]["label"], round(parrot[0]["probability"], 3)) == ("macaw", 0.997)


@pytest.mark.skipif(os.name != "posix", reason="links and pipes as POSIX has them")
def test_a_folder_s_links_to_nowhere_and_pipes_are_rows(run: Run, classifier: Path, photos: Path) -> None:
    (photos / "c.png").symlink_to("nowhere")
    (photos / "d.png").symlink_to("d.png")
    os.mkfifo(photos / "e.png")
    (photos / "f.png").mkdir()  # a folder is called a picture: not one of the folder's pictures
    (photos / "g.png").symlink_to("a.png")
    code, out, err = run("classify", photos, "--model", classifier, "--format", "json")
    rows = {Path(row["image"]).name: row for row in json.loads(out)}
    assert list(rows) == ["a.png", "b.jpg", "c.png", "d.png", "e.png", "g.png"]
    assert (code, err) == (1, "error: 3 of 6 pictures failed\n")
    for name, sentence in {
        "c.png": "the link points to a file that is not there",
        "d.png": "cannot be read (",
        "e.png": "expected a regular file, found a pipe",
    }.items():
        assert rows[name]["error"].startswith(f"{photos / name}: ") and sentence in rows[name]["error"]


def test_what_may_not_be_read_is_a_row(
    run: Run, classifier: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "locked").mkdir()
    iterdir, opened = Path.iterdir, Path.open

    def list_folder(path: Path) -> Any:
        if path.name == "locked":
            raise PermissionError(errno.EACCES, "Permission denied")
        return iterdir(path)

    def open_file(path: Path, *given: Any, **named: Any) -> Any:
        if path.name == "b.jpg":
            raise PermissionError(errno.EACCES, "Permission denied")
        return opened(path, *given, **named)

    monkeypatch.setattr(Path, "iterdir", list_folder)
    monkeypatch.setattr(Path, "open", open_file)
    code, out, _ = run("classify", photos, tmp_path / "locked", "--model", classifier, "--format", "json")
    rows = json.loads(out)
    assert code == 1
    assert [row.get("error") for row in rows] == [
        None,
        f"{photos / 'b.jpg'}: cannot be read (Permission denied)",
        f"{tmp_path / 'locked'}: expected a picture or a folder of pictures, got a folder that cannot be read "
        "(Permission denied)",
    ]


def test_whoever_waits_for_the_compiler_is_told(
    run: Run, classifier: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(entries.run, "is_ready", lambda: False)
    code, out, err = run("classify", photos / "a.png", "--model", classifier, "--format", "json")
    assert code == 0
    assert json.loads(out)[0]["image"] == str(photos / "a.png")
    assert err == "note: compiling the kernels for this processor, which takes about ten seconds\n"
    monkeypatch.undo()
    assert run("classify", photos / "a.png", "--model", classifier).err == ""


def test_errors_of_the_library_are_what_the_command_prints(run: Run, classifier: Path, photos: Path) -> None:
    path = photos / "notes.txt"
    with pytest.raises(MinimobileError) as caught:
        minimobile.classify(path, model=classifier)
    assert run("classify", path, "--model", classifier).err == f"error: {caught.value}\n"
