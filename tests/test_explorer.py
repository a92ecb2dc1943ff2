"""`explore`: one page that needs nothing else, holds hostile names as text, and is written as every other file."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import minimobile as mm
from minimobile.explorer import page
from minimobile.explorer.payload import Payload, find_checksum
from tests.conftest import Run

DEMO = Path(mm.__file__).parent / "demo"
DOCS = Path(__file__).parent.parent / "docs"
HOSTILE = "</script><script>alert(1)</script> \" ' \u202e\u2028 ]]> <!--"


@pytest.fixture(scope="module")
def digits() -> mm.Exploration:
    return mm.explore("demo:digits", DEMO / "digit_7.png")


class Elements(HTMLParser):
    """Collects start tags with attributes, and the texts of script and style elements."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, str] = {}
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        tag, attributes = self.tags[-1] if self.tags else ("", {})
        if self.cdata_elem is not None:
            name = attributes.get("id") or tag
            self.texts[name] = self.texts.get(name, "") + data


def test_the_page_needs_nothing_else(digits: mm.Exploration) -> None:
    elements = Elements(digits.html)
    links = [value for _, attributes in elements.tags for name, value in attributes.items() if name in ("src", "href")]
    assert links and all(str(link).startswith(("#", "data:")) for link in links)
    code = elements.texts["script"] + elements.texts["worker"] + elements.texts["style"]
    assert not re.search(r"https?://|@import|\bfetch\(|XMLHttpRequest|WebSocket|importScripts|\beval\(|innerHTML", code)


def test_the_policy_lets_in_this_script_and_style_alone(digits: mm.Exploration) -> None:
    elements = Elements(digits.html)
    (policy,) = (
        str(attributes["content"]) for tag, attributes in elements.tags if attributes.get("http-equiv") is not None
    )
    assert policy.startswith("default-src 'none'; ") and "connect-src" not in policy and "unsafe" not in policy
    for name in ("script", "style"):
        digest = base64.b64encode(hashlib.sha256(elements.texts[name].encode()).digest()).decode()
        assert f"{name}-src 'sha256-{digest}'" in policy


@pytest.mark.parametrize(("model", "photo"), [("digits", "digit_7"), ("scenes", "scene"), ("boxes", "scene")])
def test_pages_of_the_embedded_models_are_as_small_as_the_docs_say(model: str, photo: str) -> None:
    size = len(mm.explore(f"demo:{model}", DEMO / f"{photo}.png").html.encode())
    row = re.search(r"^\| (`demo:.*?) \| (.*?) \|", (DOCS / "explorer.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert row is not None
    said = dict(zip(row[1].split(", "), row[2].split(", "), strict=True))
    assert size <= 2_000_000 and size / 1e6 == pytest.approx(float(said[f"`demo:{model}`"]), abs=0.06)


def test_modules_do_not_share_names() -> None:
    """They are joined in one scope."""
    for entry in ("main.js", "worker.js"):
        names = re.findall(r"^(?:async )?(?:function|const|let|class) (\w+)", page.join_modules(entry), re.MULTILINE)
        assert len(names) > 30 and len(names) == len(set(names))
        assert not re.search(r"^(?:import|export)\b", page.join_modules(entry), re.MULTILINE)


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    model = mm.load("demo:digits")
    config = model.config.replace(id2label={**model.config.id2label, 7: HOSTILE})
    model.save_pretrained(tmp_path / "model")
    config.save_pretrained(tmp_path / "model")
    photo = tmp_path / "<img src=x onerror=alert(1)>\u202e.png"
    photo.write_bytes((DEMO / "digit_7.png").read_bytes())
    made = mm.explore(tmp_path / "model", photo)
    elements = Elements(made.html)
    assert [tag for tag, _ in elements.tags].count("script") == 5
    assert "img" not in [tag for tag, _ in elements.tags]
    labels = json.loads(elements.texts["document"])["answer"]["labels"]
    assert labels["7"] == HOSTILE.replace("\u202e", r"\u202e").replace("\u2028", r"\u2028")
    assert "\u202e" not in made.html and "\u2028" not in made.html
    assert not re.search(r"<(?!/)", elements.texts["document"])
    assert str(tmp_path) not in made.html  # a path is nobody else's business


def test_payloads_hold_arrays_as_planes_of_bytes() -> None:
    payload = Payload()
    first, second = np.arange(6, dtype=np.uint8).reshape(2, 3), np.array([1.5, -2.0], np.float32)
    assert payload.add(first) == {"at": 0, "shape": [2, 3], "type": "uint8"}
    assert payload.add(second) == {"at": 6, "shape": [2], "type": "float32"}
    assert find_checksum(np.array([0.0, np.nan], np.float32)) == find_checksum(np.array([-0.0, -np.nan], np.float32))


def test_the_command_writes_the_page(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    code, out, err = run("explore", "demo:digits", DEMO / "digit_7.png", "--out", path)
    assert (code, err) == (0, "") and out.startswith(f"wrote {path}")
    assert path.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert mm.explore("demo:digits", DEMO / "digit_7.png").save(tmp_path / "again.html").is_file()


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["demo:digits", DEMO / "digit_7.png", "--out", "page.txt"], 2, "ending in .html or .htm"),
        (["demo:digits", DEMO / "digit_7.png", "--out", "nowhere/page.html"], 1, "expected an existing folder"),
        (["demo:digits", DEMO / "digit_7.png", "--out", "there.html"], 1, "--force"),
        (["demo:digits", DEMO, "--out", "page.html"], 1, "expected one picture to explore, got a folder"),
        (["demo:digits", "absent.png", "--out", "page.html"], 1, "absent.png"),
        (["demo:digits", DEMO / "digits.h5", "--out", "page.html"], 1, "digits.h5"),
        (["absent", DEMO / "digit_7.png", "--out", "page.html"], 1, "absent"),
    ],
)
def test_what_cannot_be_explored_is_one_sentence(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str | Path], code: int, sentence: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.html").write_text("mine")
    found, out, err = run("explore", *words)
    assert (found, out) == (code, "") and sentence in err and len(err.splitlines()) == 1
    assert (tmp_path / "there.html").read_text() == "mine" and len(list(tmp_path.iterdir())) == 1


def test_a_model_without_a_processor_is_refused() -> None:
    model = mm.MobileNetV1ForImageClassification(mm.MobileNetV1Config(num_labels=3, image_size=32))
    with pytest.raises(mm.InputError, match="image-processor settings"):
        mm.explore(model, Image.new("RGB", (40, 40)))


def test_a_notebook_shows_the_page_in_a_frame_that_may_do_nothing_but_compute(digits: mm.Exploration) -> None:
    ((tag, attributes),) = Elements(digits._repr_html_()).tags
    assert tag == "iframe" and attributes["sandbox"] == "allow-scripts"
    assert attributes["srcdoc"] == digits.html


@pytest.fixture(scope="module")
def integers() -> mm.MobileNetModel:
    return mm.quantize("demo:digits")


def test_a_quantised_network_is_shown_in_its_integers(integers: mm.MobileNetModel) -> None:
    document = json.loads(Elements(mm.explore(integers, DEMO / "digit_7.png").html).texts["document"])
    assert document["arithmetic"] == "integers"
    layers = {layer["name"]: layer for layer in document["layers"]}
    assert layers["layer.3"]["kind"] == "Conv 1x1" and layers["layer.3"]["stands"]["scale"] > 0
    assert layers["layer.3"]["multiplyAdds"] == 131072
    assert document["answer"]["top"][0]["label"] == "7"


def test_what_no_page_computes_is_refused(integers: mm.MobileNetModel, tmp_path: Path) -> None:
    with pytest.raises(mm.InputError, match="float32 or in integers, got one in float64"):
        mm.explore(mm.load("demo:digits", engine="reference", dtype="float64"), DEMO / "digit_7.png")
    integers.save(tmp_path / "integers.h5")
    with pytest.raises(mm.InputError, match=r"bytes_of='xnnpack'; load it with .*convert"):
        mm.explore(mm.load(tmp_path / "integers.h5", bytes_of="xnnpack"), DEMO / "digit_7.png")


def test_a_network_without_a_head_is_shown_too() -> None:
    model = mm.MobileNetV1Model.from_pretrained("demo:digits")
    document = json.loads(Elements(mm.explore(model, DEMO / "digit_7.png").html).texts["document"])
    assert document["answer"] == {"task": "features"} and document["outputs"] == ["layer.25", "pooler"]


def test_costs_stand_beside_those_of_a_standard_convolution(digits: mm.Exploration) -> None:
    pairs = json.loads(Elements(digits.html).texts["document"])["separable"]
    assert len(pairs) == 13 and pairs[0]["depthwise"] == "layer.0"
    for pair in pairs:
        ratio = pair["separable"]["multiplyAdds"] / pair["standard"]["multiplyAdds"]
        assert ratio == pytest.approx(pair["separable"]["parameters"] / pair["standard"]["parameters"])
        assert pair["standard"]["microseconds"] > 0 and pair["separable"]["microseconds"] > 0
    assert pairs[0]["standard"]["parameters"] == 9 * 8 * 16 and pairs[0]["separable"]["parameters"] == 9 * 8 + 8 * 16


def test_photographs_are_shown_step_by_step(digits: mm.Exploration) -> None:
    stages = json.loads(Elements(digits.html).texts["document"])["photo"]["stages"]
    assert [stage["title"] for stage in stages] == ["As taken", "Resized", "Cropped", "What the network reads"]
    assert stages[1]["text"] == "shortest edge to 64 (bilinear)" and stages[3]["text"] == "scale to [-1, 1]"
