"""What is printed of models, configs, reports and traces: a line or two, and in notebooks the command line's tables."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import minimobile as mm
from minimobile.tables import Table, facts_table
from tests.conftest import Run

HOSTILE = "<script>alert('&\x1b[2J')</script>"


class Cells(HTMLParser):
    """Reads the rows of a table back, and every tag that there is."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.rows: list[list[str]] = []
        self.is_in_cell = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.add(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
            self.is_in_cell = True

    def handle_endtag(self, tag: str) -> None:
        self.is_in_cell = False

    def handle_data(self, data: str) -> None:
        if self.is_in_cell:
            self.rows[-1][-1] += data


def test_every_text_of_a_table_is_escaped() -> None:
    table = Table(("layer", HOSTILE + "#"), [(HOSTILE, 3)], f"{HOSTILE}\nsecond", (HOSTILE,))
    found = Cells(table.to_html())
    assert found.tags == {"div", "table", "thead", "tbody", "tr", "th", "td"}
    assert found.rows[1][0] == "<script>alert('&\\x1b[2J')</script>" and "\x1b" not in table.to_html()
    assert 'style="text-align: right">3</td>' in table.to_html()
    assert Cells(facts_table([("a", "b")]).to_html()).rows[1] == ["a", "b"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> mm.MobileNetV1ForImageClassification:
    labels = {0: HOSTILE, **{index: f"a class of some length, number {index}" for index in range(1, 1001)}}
    config = mm.MobileNetV1Config(depth_multiplier=0.25, image_size=64, id2label=labels)
    return mm.MobileNetV1ForImageClassification(config)


def test_one_fits_a_screen(model: mm.MobileNetV1ForImageClassification, tmp_path: Path) -> None:
    image = np.random.default_rng(0).normal(size=(1, 3, 64, 64)).astype(np.float32)
    model.save_pretrained(tmp_path / "saved")
    model.save(tmp_path / "saved.h5")
    shown = (
        model, model.config, model(image), model(image, output_hidden_states=True), model.trace(image),
        model.explain(image, "layer.3", (0, 0, 0)), mm.convert(tmp_path / "saved", tmp_path / "native.h5"),
        mm.MobileNetV1ImageProcessor(), mm.check(model, pixel_values=image, against="reference"),
    )  # fmt: skip
    for each in shown:
        text = repr(each)
        assert text.startswith(type(each).__name__), text
        assert len(text) <= 1200 and text.count("\n") <= 40, text
        if isinstance(each, mm.MobileNetV1ImageProcessor | type(model(image))):
            continue
        assert len(text) <= 400
        if hasattr(each, "_repr_html_"):
            assert Cells(each._repr_html_()).tags <= {"div", "table", "thead", "tbody", "tr", "th", "td"}
    assert repr(model) == f"MobileNetV1ForImageClassification({model.num_parameters():,} parameters)"
    assert "float32 (1, 1001)" in repr(shown[2]) and "hidden_states: 26 arrays" in repr(shown[3])
    assert all(hasattr(shown[i], "_repr_html_") for i in (0, 1, 4, 6, 8))


def test_a_notebook_shows_the_tables_of_the_commands(run: Run, classifier: Path, segmenter: Path, photos: Path) -> None:
    model = mm.load(classifier)
    layers = Cells(model._repr_html_())
    inspected = run("inspect", classifier, "--size", "224", "--table", "layers").out
    for row in layers.rows:
        assert set(" ".join(row).split()) <= set(inspected.split()), row
    pixel_values = model.processor(photos / "a.png", return_tensors="np")["pixel_values"]
    traced = Cells(model.trace(pixel_values)._repr_html_())
    printed = run("trace", classifier, photos / "a.png").out
    for row in traced.rows:
        assert set(" ".join(row[:-1]).split()) <= set(printed.split()), row  # the last is a time
    found = mm.segment(photos / "a.png", segmenter)
    for row, share in zip(Cells(found._repr_html_()).rows[1:], found.shares, strict=True):
        assert row == [share["label"], f"{100 * share['share']:.2f} %", str(share["index"])]


def test_a_conversion_is_shown_as_the_command_shows_it(run: Run, classifier: Path, tmp_path: Path) -> None:
    report = mm.convert(classifier, tmp_path / "one.h5")
    printed = run("convert", classifier, tmp_path / "two.h5").out.replace("two.h5", "one.h5")
    for word, text in Cells(report._repr_html_()).rows[1:]:
        assert word in printed and "".join(text.split()) in "".join(printed.split())  # long paths are wrapped


def test_verdicts_are_shown_as_the_command_shows_them(run: Run, classifier: Path, photos: Path) -> None:
    report = mm.check(classifier, photos / "a.png", against="reference")
    printed = run("check", classifier, photos / "a.png", "--against", "reference").out
    for row in Cells(report._repr_html_()).rows:
        assert set(" ".join(row).split()) <= set(printed.split()), row
    assert report.table().notes[0] in printed and f"against reference: {report.table().notes[0]}" in repr(report)


def test_pixels_are_shown_as_the_command_shows_them() -> None:
    other = mm.MobileNetV1ImageProcessor(size=40, crop_size=20)
    photo = np.random.default_rng(0).integers(0, 256, (50, 60, 3), np.uint8)
    report = mm.compare_pixels(mm.MobileNetV1ImageProcessor(size=40, crop_size=32), Image.fromarray(photo), other)
    found = Cells(report._repr_html_()).rows
    assert found[1][0] == "the other's processor" and found[0] == ["way", "max", "levels", "differing", "first"]
    assert repr(report).startswith("PixelReport(") and "differs: the other's processor" in repr(report)
    assert len(repr(report)) < 200


def test_a_value_is_written_out_as_the_command_writes_it(run: Run, classifier: Path, photos: Path) -> None:
    model = mm.load(classifier)
    pixel_values = model.processor(photos / "a.png", return_tensors="np")["pixel_values"]
    explanation = model.explain(pixel_values, "layer.1", (2, 3, 4))
    printed = run("trace", classifier, photos / "a.png", "--layer", "layer.1", "--at", "2,3,4").out
    shown = explanation._repr_html_()
    for row in Cells(shown).rows:
        assert set(" ".join(row).split()) <= set(printed.split()), row
    assert explanation.verdict in printed and explanation.verdict in shown


@pytest.mark.crosscheck
def test_results_are_tables_of_pandas(classifier: Path, segmenter: Path, photos: Path) -> None:
    import pandas as pd

    named = pd.DataFrame(mm.classify(photos / "a.png", model=classifier, top=3))
    assert list(named.columns) == ["index", "label", "probability", "logit"] and len(named) == 3
    assert named["probability"].dtype == "float64" and named["index"].dtype == "int64"
    shares = pd.DataFrame(mm.segment(photos / "a.png", segmenter).shares)
    assert shares["share"].sum() == pytest.approx(1)
    scene = Path(mm.__file__).parent / "demo" / "scene.png"
    boxes = mm.detect(scene, model="demo:boxes")
    assert list(pd.DataFrame(boxes).columns) == ["score", "label", "index", "box"]
    assert {"box.xmin", "box.ymax"} <= set(pd.json_normalize(boxes).columns)
    piped = mm.pipeline("image-classification", model=str(classifier))(photos / "a.png")
    assert list(pd.DataFrame(piped).columns) == ["label", "score"]
