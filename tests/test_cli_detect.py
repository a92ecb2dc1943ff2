"""`minimobile detect`: the table, the JSON, the drawn pictures, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
from detection_files import write_detector
from PIL import Image
from test_tflite_detection import DENSE


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("detector")
    (folder / "detector.tflite").write_bytes(write_detector(DENSE, "uint8")[0].write())
    for name in ("a", "b"):
        pixels = np.random.default_rng(ord(name)).integers(0, 256, (60, 90, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{name}.png")
    return folder


def test_a_table_and_a_picture_with_boxes(run, source, tmp_path):
    out = tmp_path / "boxes"
    result = run("detect", source / "a.png", "--model", source / "detector.tflite", "--threshold", "0", "--out", out)
    assert result.code == 0
    assert "LABEL_" in result.out
    assert f"wrote pictures with boxes of 1 of 1 to {out}" in result.out
    with Image.open(out / "a.detections.png") as drawn:
        assert drawn.size == (90, 60)


def test_json_and_no_more_objects_than_asked_for(run, source, tmp_path):
    arguments = ("--model", source / "detector.tflite", "--threshold", "0", "--format", "json")
    result = run("detect", source / "a.png", source / "b.png", source / "none.png", *arguments, "--top", "2")
    assert result.code == 1
    rows = json.loads(result.out)
    assert [len(row.get("detections", ())) for row in rows] == [2, 2, 0]
    assert list(rows[0]["detections"][0]["box"]) == ["xmin", "ymin", "xmax", "ymax"]
    assert "none.png" in rows[2]["error"]


def test_nothing_found_is_said_so_and_other_models_and_thresholds_are_refused(run, source):
    model = ("--model", source / "detector.tflite")
    result = run("detect", source / "a.png", *model, "--threshold", "1")
    assert result.code == 0
    assert "nothing above" in result.out
    result = run("detect", source / "a.png", *model, "--threshold", "1.5")
    assert result.code == 2
    assert "'--threshold'" in result.err and "1" in result.err
    result = run("detect", source / "a.png", *model, "--threshold", "nan")
    assert result.code in (1, 2), "as typer's own check of the range goes"
    assert "--threshold" in result.err
    result = run("detect", source / "a.png", "--model", "demo:digits")
    assert result.code == 1
    assert "expected a model for object detection" in result.err


def test_the_other_commands_know_detectors(run, source, tmp_path):
    model, picture = source / "detector.tflite", source / "a.png"
    result = run("inspect", model, "--format", "json")
    assert json.loads(result.out)["architecture"] == "MobileNetV1ForObjectDetection"
    result = run("bench", model, "--threads", "1", "--seconds", "0.01", "--format", "json")
    assert result.code == 0
    result = run("bench", "demo:boxes", "--threads", "1", "--seconds", "0.01")
    assert "at 160x160" in result.out
    result = run("trace", model, picture, "--layer", "BoxPredictor_0/ClassPredictor")
    assert "detection_head.classes.0" in result.out
    result = run("check", model, picture, "--against", "reference")
    assert result.code == 0
    assert "agrees" in result.out
    result = run("convert", model, tmp_path / "copy.h5")
    assert result.code == 0
    result = run("convert", tmp_path / "copy.h5", tmp_path / "copy.tflite")
    assert result.code == 0, result.err
    assert run("detect", picture, "--model", tmp_path / "copy.tflite").code == 0


def test_a_box_is_traced_step_by_step(run, source):
    result = run("trace", source / "detector.tflite", source / "a.png", "--box", "1")
    assert result.code == 0
    assert "detection 1: LABEL_" in result.out
    assert "picture: ymin" in result.out
    result = run("trace", source / "detector.tflite", source / "a.png", "--box", "0", "--format", "json")
    assert json.loads(result.out)["box"]["agrees"] is True
    result = run("trace", "demo:digits", source / "a.png", "--box", "0")
    assert result.code == 1
    assert "--box 0: expected a model for object detection" in result.err
