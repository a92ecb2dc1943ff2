"""`minimobile segment`: masks and overlays at the picture's own size, under names that never collide."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import minimobile
from minimobile.cli.segment import choose_names
from minimobile.imaging.drawing import palette
from tests.conftest import Run


def test_mask_and_overlay_cover_the_whole_picture(run: Run, segmenter: Path, photos: Path, tmp_path: Path) -> None:
    out_folder = tmp_path / "made on the way"
    code, out, _ = run("segment", photos, "--model", segmenter, "--out", out_folder, "--format", "json")
    assert code == 0
    rows = json.loads(out)
    assert [Path(row["mask"]).name for row in rows] == ["a.mask.png", "b.mask.png"]
    assert sorted(path.name for path in out_folder.iterdir()) == [
        "a.mask.png", "a.overlay.png", "b.mask.png", "b.overlay.png"
    ]  # fmt: skip
    for row, size in zip(rows, [(40, 50), (60, 30)], strict=True):
        with Image.open(row["mask"]) as mask, Image.open(row["overlay"]) as overlay:
            assert mask.mode == "P"
            assert mask.size == size
            assert overlay.size == size, "too narrow for a legend"
            ids = np.asarray(mask)
            assert mask.getpalette()[: 3 * 21] == palette()[:21].ravel().tolist()
        counts = np.bincount(ids.ravel(), minlength=4)
        assert {found["index"]: round(found["share"] * ids.size) for found in row["classes"]} == {
            index: count for index, count in enumerate(counts) if count
        }
        shares = [found["share"] for found in row["classes"]]
        assert shares == sorted(shares, reverse=True)
        assert sum(shares) == pytest.approx(1)
        assert all(found["label"] == ["background", "cat", "dog", "emu"][found["index"]] for found in row["classes"])


def test_the_mask_is_the_library_s_answer_for_the_resized_whole(
    run: Run, segmenter: Path, photos: Path, tmp_path: Path
) -> None:
    run("segment", photos / "a.png", "--model", segmenter, "--out", tmp_path)
    model = minimobile.load(segmenter, engine="reference")
    size = {"height": 32, "width": 48}  # the processor's crop
    with Image.open(photos / "a.png") as photo:
        inputs = model.processor(photo, size=size, do_center_crop=False, return_tensors="np")
    assert inputs["pixel_values"].shape == (1, 3, 32, 48)
    (expected,) = model.processor.post_process_semantic_segmentation(model(**inputs), target_sizes=[(50, 40)])
    with Image.open(tmp_path / "a.mask.png") as mask:
        np.testing.assert_array_equal(np.asarray(mask), expected)
    assert len(np.unique(expected)) > 1, "a mask of one class would prove little"


def test_overlays_as_jpeg_lighter_or_not_at_all(run: Run, segmenter: Path, photos: Path, tmp_path: Path) -> None:
    words = ("segment", photos / "a.png", "--model", segmenter, "--format", "json")
    code, out, _ = run(*words, "--out", tmp_path / "jpeg", "--overlay-format", "jpeg", "--alpha", "0")
    assert code == 0 and json.loads(out)[0]["overlay"] == str(tmp_path / "jpeg" / "a.overlay.jpg")
    with Image.open(tmp_path / "jpeg" / "a.overlay.jpg") as overlay:
        assert overlay.format == "JPEG"
    code, out, _ = run(*words[:-2], "--out", tmp_path / "masks", "--no-overlay")
    assert code == 0 and out.endswith(f"wrote masks of 1 of 1 pictures to {tmp_path / 'masks'}\n")
    assert [path.name for path in (tmp_path / "masks").iterdir()] == ["a.mask.png"]
    assert run(*words, "--out", tmp_path / "x", "--alpha", "1.5").code == 2
    assert run(*words, "--out", tmp_path / "x", "--overlay-format", "gif").code == 2


def test_pictures_of_one_name_get_files_of_their_own(run: Run, segmenter: Path, photos: Path, tmp_path: Path) -> None:
    paths = []
    for name in ("one/cat.png", "two/cat.png", "two/Cat.bmp", "two/cat-2.png"):
        paths.append(tmp_path / name)
        paths[-1].parent.mkdir(exist_ok=True)
        Image.open(photos / "a.png").save(paths[-1])
    code, out, _ = run("segment", *paths, "--model", segmenter, "--out", tmp_path / "out", "--format", "json")
    assert code == 0
    masks = [Path(row["mask"]).name for row in json.loads(out)]
    assert masks == ["cat.mask.png", "cat-3.mask.png", "Cat-4.mask.png", "cat-2.mask.png"]
    assert len(list((tmp_path / "out").iterdir())) == 8


def test_names_never_collide() -> None:
    names = choose_names([Path(name) for name in ("a.png", "a.jpg", "A.gif", "a-2.png", "x/a.png", "a-2-2.png")])
    assert len({name.casefold() for name in names}) == 6
    assert names[0] == "a" and names[3] == "a-2" and names[5] == "a-2-2"


def test_a_picture_is_never_overwritten_by_a_result(run: Run, segmenter: Path, photos: Path) -> None:
    precious = photos / "a.mask.png"
    Image.open(photos / "a.png").save(precious)
    before = precious.read_bytes()
    code, out, _ = run("segment", photos, "--model", segmenter, "--out", photos, "--format", "json")
    assert code == 1
    rows = json.loads(out)
    assert [Path(row["image"]).name for row in rows] == ["a.mask.png", "a.png", "b.jpg"]
    assert ["error" in row for row in rows] == [False, True, False]
    assert "would overwrite" in rows[1]["error"] and "choose another --out" in rows[1]["error"]
    assert precious.read_bytes() == before
    assert not (photos / "a.overlay.png").exists()


def test_bad_pictures_and_a_table_for_people(run: Run, segmenter: Path, photos: Path, tmp_path: Path) -> None:
    code, out, err = run(
        "segment", photos / "a.png", photos / "notes.txt", "--model", segmenter, "--out", tmp_path / "x"
    )
    assert code == 1
    assert out.splitlines()[0].split() == ["picture", "label", "share", "class"]
    assert "error: expected a picture" in " ".join(out.split())
    assert out.endswith(f"wrote masks and overlays of 1 of 2 pictures to {tmp_path / 'x'}\n")
    assert err.endswith("error: 1 of 2 pictures failed\n")
    assert len(list((tmp_path / "x").iterdir())) == 2


def test_an_out_that_is_no_folder(run: Run, segmenter: Path, photos: Path) -> None:
    code, out, err = run("segment", photos / "a.png", "--model", segmenter, "--out", photos / "notes.txt")
    assert code == 1
    assert out == ""
    assert err.startswith(f"error: --out {photos / 'notes.txt'}: expected a folder to write into")


def test_a_failed_write_leaves_nothing_behind(
    run: Run, segmenter: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither half a file nor, where the overlay failed, the mask: it is as it was, or not there."""
    write, out_folder = Path.write_bytes, tmp_path / "x"
    words = ("segment", photos / "a.png", "--model", segmenter, "--out", out_folder)

    def fill_up(path: Path, content: bytes) -> None:
        write(path, content[:10] if "overlay" in path.name else content)
        if "overlay" in path.name:
            raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", fill_up)
        code, out, err = run(*words)
    assert (code, out) == (1, "")
    assert "a.mask.png" in err and "No space left on device" in err
    assert list(out_folder.iterdir()) == []

    replace = Path.replace

    def fail_to_replace(path: Path, target: Path) -> Path:
        if target.name == "a.overlay.png":
            raise OSError(28, "No space left on device")
        return replace(path, target)

    (out_folder / "a.mask.png").write_text("of yesterday")
    monkeypatch.setattr(Path, "replace", fail_to_replace)
    assert run(*words, "--force").code == 1
    assert [(path.name, path.read_text()) for path in out_folder.iterdir()] == [("a.mask.png", "of yesterday")]


def test_a_classifier_is_refused_with_the_way_out(run: Run, classifier: Path, photos: Path, tmp_path: Path) -> None:
    code, _, err = run("segment", photos / "a.png", "--model", classifier, "--out", tmp_path / "x")
    assert code == 1
    assert "got a MobileNetV1ForImageClassification" in err and "minimobile classify" in err
    assert not (tmp_path / "x").exists()


@pytest.mark.crosscheck
def test_a_real_network_finds_the_bird(run: Run, test_data: Path, tmp_path: Path) -> None:
    image = test_data / "images" / "bird_segmentation.bmp"
    model = test_data / "models" / "huggingface" / "deeplabv3_mobilenet_v2_0.5_257"
    code, out, _ = run("segment", image, "--model", model, "--out", tmp_path, "--format", "json")
    assert code == 0
    assert [found["label"] for found in json.loads(out)[0]["classes"]] == ["background", "bird"]
    with Image.open(test_data / "images" / "bird_segmentation_mask.bmp") as truth:
        bird = np.asarray(truth.convert("P")) if truth.mode != "P" else np.asarray(truth)
    with Image.open(json.loads(out)[0]["mask"]) as mask:
        found = np.asarray(mask)
    assert found.shape == bird.shape
    overlap = ((found == 3) & (bird == 3)).sum() / ((found == 3) | (bird == 3)).sum()
    assert overlap > 0.8
