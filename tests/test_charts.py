"""Charts: lengths and places are those of the figures, and names are never written over one another."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import minimobile
from minimobile.costs.published_accuracy import PUBLISHED, published_accuracy
from minimobile.imaging.charts import ACCENT, BAR_WIDTH, DARK, LIGHT, Bar, Point, draw_bars, draw_points
from tests.conftest import Run


def test_a_bar_is_as_long_as_its_value_and_dark_up_to_its_limit() -> None:
    picture = np.asarray(draw_bars([Bar("one", 100, 25, ""), Bar("two", 50, 80, "")], "title", "note"))
    dark, light = ((picture == colour).all(axis=2).sum(axis=1) for colour in (DARK, LIGHT))
    rows = np.flatnonzero(dark)
    first, second = rows[0], rows[-1]
    assert abs(dark[first] - BAR_WIDTH // 4) <= 1 and abs(dark[first] + light[first] - BAR_WIDTH) <= 1
    assert abs(dark[second] - BAR_WIDTH // 2) <= 1 and light[second] == 0, "a limit beyond the value is the value"
    assert draw_bars([], "nothing", "").width > 0


def test_points_stand_where_their_figures_say_in_their_own_shapes() -> None:
    points = [Point(10, 50, "circle", "a"), Point(100, 70, "square", "b"), Point(30, None, "circle", "no value")]
    picture = np.asarray(draw_points(points, "title", ("x", "y"), "note"))
    rows, columns = np.nonzero((picture == ACCENT).all(axis=2))
    assert rows.min() < 80 and columns.min() < 80
    hollow = np.asarray(draw_points(points[2:], "title", ("x", "y"), "note"))
    assert (hollow == ACCENT).all(axis=2).any()


def test_names_at_one_place_are_written_above_one_another() -> None:
    twice = [Point(10, 50, "circle", "mm"), Point(10, 50, "circle", "mm")]
    once = (np.asarray(draw_points(twice[:1], "", ("", ""), "")) == ACCENT).all(axis=2).sum()
    both = (np.asarray(draw_points(twice, "", ("", ""), "")) == ACCENT).all(axis=2).sum()
    assert both > once


def test_the_published_accuracies_are_those_of_their_tables() -> None:
    assert sum(len(sizes) for sizes in PUBLISHED["mobilenet_v1"].values()) == 16
    assert sum(len(sizes) for sizes in PUBLISHED["mobilenet_v2"].values()) == 22
    assert published_accuracy("mobilenet_v1", 0.25, (128, 128)) == 41.5
    assert published_accuracy("mobilenet_v1", 0.3, (128, 128)) is None
    for widths in PUBLISHED.values():  # a misread figure would stand out: more pixels see more
        for by_size in widths.values():
            assert list(by_size.values()) == sorted(by_size.values(), reverse=True)


def test_bench_draws_each_step_s_time(run: Run, classifier: Path, tmp_path: Path) -> None:
    picture = tmp_path / "steps.png"
    code, out, _ = run("bench", classifier, "--size", "32", "--layers", "--picture", picture, "--format", "json")
    assert code == 0 and json.loads(out)["picture"] == str(picture)
    with Image.open(picture) as drawn:
        assert drawn.height > 18 * len(json.loads(out)["steps"])
    assert run("bench", classifier, "--picture", picture).code == 2
    code, _, err = run("bench", classifier, "--size", "32", "--layers", "--picture", picture)
    assert code == 1 and "--force" in err


def test_inspect_draws_accuracy_against_cost(run: Run, classifier: Path, tmp_path: Path) -> None:
    config = minimobile.MobileNetV2Config(depth_multiplier=0.35, num_labels=1001)
    source, picture = tmp_path / "v2", tmp_path / "costs.png"
    minimobile.MobileNetV2ForImageClassification(config).save_pretrained(source)
    words = ("--compare", "0.5@96", "--compare", "0.6", "--compare", classifier)
    code, out, _ = run("inspect", source, *words, "--picture", picture, "--format", "json")
    assert code == 0
    document = json.loads(out)
    assert [row["published_accuracy"] for row in (document, *document["compare"])] == [60.3, 51.2, None, None]
    with Image.open(picture) as drawn:
        assert drawn.width > 500
    assert run("inspect", source, "--picture", picture).code == 2


@pytest.mark.parametrize("scale", ["layer", "channel"])
def test_trace_draws_with_either_scale(run: Run, classifier: Path, photos: Path, tmp_path: Path, scale: str) -> None:
    picture = tmp_path / "channels.png"
    words = ("trace", classifier, photos / "a.png", "--layer", "layer.2", "--picture", picture, "--scale", scale)
    assert run(*words).code == 0
    assert picture.exists()
    assert run(*words[:-1], "pixel").code == 2
