"""The address of the explorer's page says what is open: links, Back, a reload, and one that is wrong."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import page_checks
import pytest
from page_values import DEMO, click_value, open_layer

import minimobile as mm

pytestmark = pytest.mark.browser
NAMES = "() => [...document.querySelectorAll('button.layer')].map((button) => button.title)"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return the pages of a classifier, and of a detector of bytes, whose last maps have one row."""
    folder = tmp_path_factory.mktemp("pages")
    pages = {
        "digits": mm.explore("demo:digits", DEMO / "digit_7.png"),
        "boxes": mm.explore(mm.quantize("demo:boxes"), DEMO / "scene.png"),
        "scenes": mm.explore("demo:scenes", DEMO / "scene.png"),
    }
    return {name: made.save(folder / f"{name}.html") for name, made in pages.items()}


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    page = browser.new_page(viewport={"width": 1280, "height": 900}, reduced_motion="reduce")
    page.set_default_timeout(page_checks.PATIENCE)
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    yield page
    page.close()
    assert complaints == []


def wait_for_value(page: Any, layer: str, row: int, column: int, channel: int) -> None:
    page.wait_for_selector(f'#layer-body[data-layer="{layer}"]')
    page.wait_for_selector(f'#value-body[data-at="{layer} {row} {column} {channel}"]')
    assert page.inner_text("#layer-title") == f"4. A layer: {layer}"
    assert page.get_attribute("button.layer[aria-pressed=true]", "title") == layer


def test_a_link_opens_a_value_and_survives_a_reload_and_back(page: Any, files: dict[str, Path]) -> None:
    page.goto(f"{files['digits'].as_uri()}#layer=layer.4&channel=5&row=2&column=3")
    wait_for_value(page, "layer.4", 2, 3, 5)
    written = page.inner_text("#result")
    page.click("text=Down to layer.5")
    wait_for_value(page, "layer.5", 2, 3, 5)
    assert page.evaluate("() => location.hash") == "#layer=layer.5&channel=5&row=2&column=3"
    assert page.evaluate("() => document.activeElement.textContent") == "Down to layer.6"
    page.click("nav a[href='#network']")  # a part of the page: what is open stays in the address
    page.reload()
    wait_for_value(page, "layer.5", 2, 3, 5)
    page.go_back()
    wait_for_value(page, "layer.4", 2, 3, 5)
    assert page.inner_text("#result") == written
    open_layer(page, page.evaluate(NAMES).index("layer.9"))
    page.wait_for_selector("#value-body:not([data-at])")  # no value of another layer beside it
    assert page.evaluate("() => location.hash") == "#layer=layer.9"
    page.go_back()
    wait_for_value(page, "layer.4", 2, 3, 5)


# From here on an answer of the worker, a value written out, comes late, and how many came is counted.
SLOWLY = """() => {
  const post = Worker.prototype.postMessage;
  window.answered = 0;
  Worker.prototype.postMessage = function (message) {
    const isValue = message.call === "explain";
    if (isValue) this.addEventListener("message", ({ data }) => { window.answered += data.id === message.id; });
    setTimeout(() => post.call(this, message), isValue ? 300 : 0);
  };
}"""


def test_a_late_answer_moves_nothing(page: Any, files: dict[str, Path]) -> None:
    """What is written out is told when it is there, and a value that is no longer wanted does not scroll the page."""
    page.goto(files["digits"].as_uri())
    page.wait_for_selector("#status[data-state=same]")
    open_layer(page, 2)
    name, other = (page.evaluate(NAMES)[index] for index in (2, 5))
    click_value(page, name, (0, 0, 0))
    wait_for_value(page, name, 0, 0, 0)
    page.evaluate(SLOWLY)
    page.focus("canvas.grid")
    page.keyboard.press("Enter")  # the same value again
    assert page.get_attribute("#value-body", "data-at") is None
    page.wait_for_selector(f"#value-body[data-at='{name} 0 0 0']")
    page.keyboard.press("Enter")
    open_layer(page, 5)
    stood = page.evaluate("() => scrollY")
    page.wait_for_function("() => window.answered === 2")
    assert page.evaluate("() => scrollY") == stood
    assert page.inner_text("#announcer") == f"Layer {other} is open."


def test_back_from_the_first_layer_closes_it(page: Any, files: dict[str, Path]) -> None:
    page.goto(files["digits"].as_uri())
    page.wait_for_selector("#status[data-state=same]")
    open_layer(page, 2)
    page.go_back()
    page.wait_for_selector("#layer-body:not([data-layer])")
    assert page.inner_text("#layer-body") == "No layer is open."
    assert page.locator("button.layer[aria-pressed=true]").count() == 0


def test_a_link_leads_to_a_channel_of_another_page_of_channels(page: Any, files: dict[str, Path]) -> None:
    page.goto(f"{files['digits'].as_uri()}#layer=layer.25&channel=130")
    page.wait_for_selector("#layer-body[data-layer='layer.25']")
    assert page.inner_text("#layer-body .row .note") == "channels 128 to 191 of 256"
    page.click("text=Next channels")
    page.focus("canvas.grid")
    page.keyboard.press("Enter")  # the cursor went along
    wait_for_value(page, "layer.25", 0, 0, 192)


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("layer=layer.99", 'The address: expected a layer of this network, such as layer=conv_stem, got "layer.99".'),
        ("layer=layer.4&channel=32", 'The address\'s channel: expected a whole number from 0 to 31, got "32".'),
        ("layer=layer.4&row=-1&column=0", 'The address\'s row: expected a whole number from 0 to 15, got "-1".'),
        ("layer=layer.4&row=1", "The address: expected a row and a column, got one of them alone."),
        ("layer=a&layer=b", 'The address: expected layer, channel, row and column, each once, got "layer".'),
        ("chapter", 'The address: expected layer, channel, row and column, each once, got "chapter".'),
        ("%E0%A4%A", 'The address: expected layer, channel, row and column, each once, got "\ufffd%A".'),
    ],
)
def test_a_wrong_link_is_told_in_one_sentence(page: Any, files: dict[str, Path], address: str, said: str) -> None:
    page.goto(f"{files['digits'].as_uri()}#{address}")
    page.wait_for_selector("#address:not(:empty)")
    assert page.inner_text("#address") == said
    assert page.inner_text("#layer-body") == "No layer is open."
    open_layer(page, 0)
    assert page.inner_text("#address") == ""


def test_maps_of_one_row_go_on_in_lines_that_can_be_hit(page: Any, files: dict[str, Path]) -> None:
    """Strips of 1 to 7 pixels otherwise, on a phone's screen less than one."""
    for width in (360, 1280):
        page.set_viewport_size({"width": width, "height": 900})
        page.goto(files["boxes"].as_uri())
        page.wait_for_selector("#status[data-state=same]")
        names = page.evaluate(NAMES)
        for layer, shape in (
            ("class_scores.float32", (1, 280, 11)),
            ("detection_head.boxes.2.projection.rows", (1, 18, 4)),
        ):
            open_layer(page, names.index(layer))
            plan = json.loads(page.get_attribute("canvas.grid", "data-plan"))
            assert plan["zoom"] >= 8 and plan["shown"] == shape[2]
            assert page.evaluate("() => document.querySelector('canvas.grid').getBoundingClientRect().width") <= width
            for at in ((0, 0, 0), (0, plan["line"] - 1, 1), (0, shape[1] - 1, 3), (0, shape[1] // 2, 2)):
                click_value(page, layer, at)


def test_down_leads_to_a_value_that_reads_this_one(page: Any, files: dict[str, Path]) -> None:
    """Through strides, dilated windows, joins and resizing alike; and back up by the terms."""
    page.goto(files["scenes"].as_uri())
    page.wait_for_selector("#status[data-state=same]")
    layers = page.evaluate("() => JSON.parse(document.getElementById('document').textContent).layers")
    kinds: set[str] = set()
    for layer in layers:
        channels, height, width = layer["shape"]
        for reader in (other for other in layers if layer["name"] in other["inputs"]):
            node = reader["nodes"][0]
            dilation = node["attributes"].get("dilation", 1)
            kind = f"{node['op']} {dilation} {reader['inputs'].index(layer['name'])}"
            if kind in kinds or (node["op"] == "resize_bilinear" and reader["inputs"].index(layer["name"])):
                continue  # of the second map a resize reads the size alone
            kinds.add(kind)
            row, column = height // 2, width // 2
            address = f"#layer={layer['name']}&channel={channels - 1}&row={row}&column={column}"
            page.evaluate("(hash) => { location.hash = hash; }", address)
            wait_for_value(page, layer["name"], row, column, channels - 1)
            page.click(f"button:text-is('Down to {reader['name']}')")
            page.wait_for_selector(f'#value-body[data-at^="{reader["name"]} "]')
            if node["op"] == "add" and reader["inputs"][0] != layer["name"]:
                continue  # the second map of a sum stands among the steps
            reads = page.locator("#terms-table td:nth-child(3)").all_inner_texts()
            assert any(read.startswith(f"{row}, {column}, ") for read in reads), f"{layer['name']} of {kind}: {reads}"
    assert any(kind.startswith("depthwise_conv2d 2") for kind in kinds) and "concatenate 1 1" in kinds


def test_a_padding_that_leaves_nothing_is_refused(page: Any, files: dict[str, Path]) -> None:
    page.goto(files["digits"].as_uri())
    page.wait_for_selector("#status[data-state=same]")
    page.select_option("select[name=padding]", "VALID")
    page.wait_for_selector("#network .complaint:not(:empty)")
    assert page.inner_text("#network .complaint") == (
        "With this padding no pixel is left of layer.12: a larger picture, or another padding, is needed."
    )
    assert page.input_value("select[name=padding]") == "file"
    assert page.locator("#status[data-state=same]:not([data-busy])").count() == 1


PICTURE = "() => document.querySelector('canvas.weights').toDataURL()"


def test_weights_are_read_with_the_keyboard(page: Any, files: dict[str, Path]) -> None:
    page.goto(f"{files['boxes'].as_uri()}#layer=conv_stem.first_conv")
    page.wait_for_function("() => document.getElementById('announcer').textContent.endsWith(' is open.')")
    page.focus("canvas.weights")
    for key in ("ArrowDown", "ArrowRight", "ArrowRight", "ArrowLeft"):
        page.keyboard.press(key)
    said = page.inner_text("canvas.weights + .readout")
    assert said.startswith("output 1, term 1: ") and page.inner_text("#announcer") == said
    framed = page.evaluate(PICTURE)
    page.keyboard.press("ArrowRight")
    assert page.evaluate(PICTURE) != framed
    page.keyboard.press("ArrowLeft")
    assert page.evaluate(PICTURE) == framed  # the weight that is read, and no other


IN_FOCUS = "() => document.activeElement.matches('canvas.weights')"


def test_a_place_among_the_weights_stays_when_they_change(page: Any, files: dict[str, Path]) -> None:
    page.goto(files["digits"].as_uri())
    page.wait_for_selector("#status[data-state=same]")
    open_layer(page, 0)
    page.focus("canvas.weights")
    page.keyboard.press("ArrowDown")
    readout = page.locator("canvas.weights + .readout")
    said = readout.inner_text()
    assert said.startswith("output 1, term 0: ")
    page.evaluate("""() => {
      const input = (name) => document.querySelector(`[name="${name}"]`);
      input("weight output").value = 1;
      input("weight value").value = 3;
      input("Set the weight").click(); // as a script does, so that the focus stays where it is
    }""")
    page.wait_for_selector("#status[data-state=changed]:not([data-busy])")
    assert page.evaluate(IN_FOCUS)
    changed = readout.inner_text()
    assert changed.startswith("output 1, term 0: ") and changed != said
    page.evaluate("() => document.querySelector('select[name=padding]').closest('div').querySelector('button').click()")
    page.wait_for_selector("#status[data-state=same]:not([data-busy])")
    assert page.evaluate(IN_FOCUS) and readout.inner_text() == said


def test_a_layer_that_opens_late_takes_no_focus(page: Any, files: dict[str, Path]) -> None:
    page.goto(files["digits"].as_uri())
    page.wait_for_selector("#status[data-state=same]")
    page.evaluate(SLOWLY.replace("explain", "map"))
    page.evaluate("() => { location.hash = '#layer=layer.4'; }")
    page.focus("#theme")
    stood = page.evaluate("() => scrollY")
    assert page.get_attribute("#layer-body", "data-layer") is None
    page.wait_for_function("() => document.getElementById('announcer').textContent === 'Layer layer.4 is open.'")
    assert page.evaluate("() => document.activeElement.id") == "theme"
    assert page.evaluate("() => scrollY") == stood
