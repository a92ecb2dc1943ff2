"""`minimobile features`: one array per layer in .npz and HDF5, and what is refused before any picture is read."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest

import minimobile
from tests.conftest import Run

LAYERS = ("Conv2d_3_pointwise", "layer.9", "-1")


@pytest.fixture
def asked(photos: Path) -> list[object]:
    layers = [word for layer in LAYERS for word in ("--layer", layer)]
    return ["features", photos / "a.png", photos / "b.jpg", *layers]


def expect(classifier: Path, photos: Path) -> dict[str, np.ndarray]:
    model = minimobile.load(classifier, engine="reference")
    inputs = model.processor([photos / "a.png", photos / "b.jpg"], return_tensors="np")
    found = model.features(inputs["pixel_values"], layers=[*LAYERS[:2], -1])
    return dict(zip(LAYERS, found.values(), strict=True))


def test_npz_holds_one_array_per_layer_and_the_names(
    run: Run, classifier: Path, photos: Path, tmp_path: Path, asked: list[object]
) -> None:
    out_file = tmp_path / "x.npz"
    code, out, _ = run(*asked, "--model", classifier, "--out", out_file)
    assert code == 0
    assert out.splitlines()[0] == f"{out_file}: 2 of 2 pictures"
    assert "2x32x8x12" in out  # a 32 x 48 picture, stride 4, 128 channels times 0.25
    with np.load(out_file) as saved:
        assert list(saved) == [*LAYERS, "images"]
        assert saved["images"].tolist() == [str(photos / "a.png"), str(photos / "b.jpg")]
        for name, values in expect(classifier, photos).items():
            assert saved[name].dtype == np.float32
            np.testing.assert_array_equal(saved[name], values)


def test_hdf5_holds_the_same(run: Run, classifier: Path, photos: Path, tmp_path: Path, asked: list[object]) -> None:
    out_file = tmp_path / "x.h5"
    code, out, _ = run(*asked, "--model", classifier, "--out", out_file, "--format", "json")
    assert code == 0
    rows = json.loads(out)
    assert rows[0] == {
        "image": str(photos / "a.png"),
        "shapes": {"Conv2d_3_pointwise": [32, 8, 12], "layer.9": [64, 4, 6], "-1": [256, 1, 2]},
        "out": str(out_file),
    }
    with h5py.File(out_file) as saved:
        assert [name.decode() for name in saved["images"]] == [str(photos / "a.png"), str(photos / "b.jpg")]
        for name, values in expect(classifier, photos).items():
            np.testing.assert_array_equal(saved[name][()], values)


def test_a_slash_in_a_name_makes_a_group_and_two_uses_of_it_are_refused(
    run: Run, segmenter: Path, photos: Path, tmp_path: Path
) -> None:
    words = ["features", photos / "a.png", "--model", segmenter]
    code, _, _ = run(*words, "--layer", "layer_15/expansion_output", "--out", tmp_path / "x.h5")
    assert code == 0
    with h5py.File(tmp_path / "x.h5") as saved:
        assert saved["layer_15/expansion_output"].ndim == 4
    words += ["--layer", "layer_15", "--layer", "layer_15/expansion_output"]
    code, _, err = run(*words, "--out", tmp_path / "y.h5")
    assert code == 1
    assert "HDF5 cannot hold the array 'layer_15' beside a group of that name; write an .npz file" in err
    assert not (tmp_path / "y.h5").exists()
    assert run(*words, "--out", tmp_path / "y.npz").code == 0


def test_an_unknown_layer_is_one_error_before_any_picture(
    run: Run, classifier: Path, photos: Path, tmp_path: Path
) -> None:
    code, out, err = run(
        "features", photos, "--model", classifier, "--layer", "Conv2d_3_pointwize", "--out", tmp_path / "x.npz"
    )
    assert code == 1
    assert out == ""
    assert err.count("error: ") == 1
    assert "did you mean Conv2d_3_pointwise" in err
    assert not (tmp_path / "x.npz").exists()


def test_bad_pictures_are_left_out_and_reported(run: Run, classifier: Path, photos: Path, tmp_path: Path) -> None:
    out_file = tmp_path / "x.npz"
    code, out, err = run(
        "features", photos / "notes.txt", photos / "b.jpg", "--model", classifier, "--layer", "0", "--out", out_file,
        "--format", "json",
    )  # fmt: skip
    assert code == 1
    assert ["error" in row for row in json.loads(out)] == [True, False]
    assert err.endswith("error: 1 of 2 pictures failed\n")
    with np.load(out_file) as saved:
        assert saved["images"].tolist() == [str(photos / "b.jpg")]
        assert len(saved["0"]) == 1


def test_pictures_that_give_other_shapes_are_reported(run: Run, classifier: Path, photos: Path, tmp_path: Path) -> None:
    uncropped = tmp_path / "uncropped"
    minimobile.load(classifier).save_pretrained(uncropped)
    settings = json.loads((uncropped / "preprocessor_config.json").read_text())
    (uncropped / "preprocessor_config.json").write_text(json.dumps({**settings, "do_center_crop": False}))
    code, out, _ = run(
        "features", photos, "--model", uncropped, "--layer", "0", "--out", tmp_path / "x.npz", "--format", "json"
    )
    assert code == 1
    rows = json.loads(out)
    assert "error" not in rows[0]
    assert "expected 0 to have the first picture's shape" in rows[1]["error"]


def test_where_no_picture_works_nothing_is_written(run: Run, classifier: Path, photos: Path, tmp_path: Path) -> None:
    words = ["features", photos / "notes.txt", "--model", classifier, "--layer", "0"]
    code, out, err = run(*words, "--out", tmp_path / "x.npz")
    assert (code, out) == (1, "")
    assert err.startswith(f"error: {photos / 'notes.txt'}")
    assert not (tmp_path / "x.npz").exists()


def test_an_out_in_no_folder(run: Run, classifier: Path, photos: Path, tmp_path: Path) -> None:
    out_file = tmp_path / "no" / "x.npz"
    code, out, err = run("features", photos, "--model", classifier, "--layer", "0", "--out", out_file)
    assert (code, out) == (1, "")
    assert f"{out_file}: expected an existing folder" in err
