"""The page of `explore` in a real browser: values are clicked, and their sums added again from the page's own text."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import page_checks
import pytest
from numpy.typing import NDArray

import minimobile as mm
from minimobile.costs.receptive_field import receptive_fields
from minimobile.operations.written_out import sum_in_blocks
from minimobile_kernels import reference
from minimobile_kernels.reference import requantize

pytestmark = pytest.mark.browser
DEMO = Path(mm.__file__).parent / "demo"
DATA = os.environ.get("MINIMOBILE_TEST_DATA")
PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
SECONDS = 60_000  # milliseconds, after which anything that is waited for has failed
CLICKS, LAYERS = 200, 20
Array = NDArray[Any]


# Where to click: at the first whole pixel of the screen inside the value's square, scrolled to where no bar covers it.
FIND_PLACE = """(canvas, [row, column, channel]) => {
  const plan = JSON.parse(canvas.dataset.plan);
  const x = (channel % plan.columns) * plan.cell + column * plan.zoom;
  const y = Math.floor(channel / plan.columns) * plan.tall + row * plan.zoom;
  const at = (box) => [box.left + (x * box.width) / canvas.width, box.top + (y * box.height) / canvas.height];
  scrollBy(0, at(canvas.getBoundingClientRect())[1] - innerHeight / 2);
  return at(canvas.getBoundingClientRect()).map((place) => Math.ceil(place));
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="no browser: playwright is not installed")
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        pytest.skip(f"no browser: none of {', '.join(PROGRAMS)} is installed")
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"], timeout=SECONDS)
        yield started
        started.close()


class Opened(NamedTuple):
    """A page with what it said and asked for."""

    page: Any
    complaints: list[str]
    requests: list[str]


@pytest.fixture
def open_page(browser: Any, tmp_path: Path) -> Iterator[Callable[..., Opened]]:
    contexts = []

    def open_one(exploration: mm.Exploration, width: int = 1280, scheme: str = "light") -> Opened:
        path = exploration.save(tmp_path / "page.html", overwrite=True)
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, reduced_motion="reduce", offline=True
        )
        contexts.append(context)
        context.set_default_timeout(SECONDS)
        opened = Opened(context.new_page(), [], [])
        opened.page.on("console", lambda message: opened.complaints.append(message.text))
        opened.page.on("pageerror", lambda error: opened.complaints.append(str(error)))
        opened.page.on("dialog", lambda dialog: opened.complaints.append(f"dialog {dialog.message}"))
        opened.page.on("request", lambda request: opened.requests.append(request.url))
        opened.page.goto(path.as_uri())
        return opened

    yield open_one
    for context in contexts:
        context.close()


def make_v2(folder: Path) -> mm.MobileNetV2ForImageClassification:
    """Return a small V2 with random weights, residuals among them."""
    config = mm.MobileNetV2Config(
        image_size=64, depth_multiplier=0.35, num_labels=11, initializer_range=0.2, tf_padding=False
    )
    mm.MobileNetV2ForImageClassification(config, seed=5).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(
        '{"image_processor_type": "MobileNetV2ImageProcessor", "size": {"shortest_edge": 70}, '
        '"crop_size": {"height": 64, "width": 64}}'
    )
    return mm.MobileNetV2ForImageClassification.from_pretrained(folder)


def make_halfway(folder: Path) -> mm.MobileNetV1ForImageClassification:
    """Return a V1 whose sums often fall next to halfway between two float32, where rounding twice goes wrong."""
    config = mm.MobileNetV1Config(image_size=32, depth_multiplier=0.25, num_labels=5, hidden_act="relu")
    model = mm.MobileNetV1ForImageClassification(config)
    rng, weights = np.random.default_rng(11), {}
    for name, values in model.state_dict().items():
        drawn = rng.choice(HALFWAY, values.shape).astype(np.float32)
        if name.endswith("running_var"):
            weights[name] = np.full_like(values, 0.999)  # and epsilon is 0.001: nothing changes by folding
        elif name.startswith("mobilenet_v1.conv_stem"):
            is_shift = name.endswith("normalization.bias")  # alone what the stem gives, whatever the photograph
            weights[name] = np.abs(drawn) if is_shift else np.zeros_like(values)
        else:
            weights[name] = drawn if values.ndim > 1 else values
    processor = {"image_processor_type": "MobileNetV1ImageProcessor", "size": {"shortest_edge": 32}}
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(
        json.dumps({**processor, "crop_size": {"height": 32, "width": 32}})
    )
    return mm.MobileNetV1ForImageClassification.from_pretrained(folder, state_dict=weights)


# A product of the first two is 2**-24 less 2**-70: beside a number from 1 to 2 that is next to halfway.
HALFWAY = (1 + 2.0**-23, (1 - 2.0**-23) * 2.0**-24, -(1 - 2.0**-23) * 2.0**-24, 1, -1)


def test_rounding_twice_would_be_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the network of `make_halfway` float64, rounded to float32, is another number than the fused multiply-add."""
    model = make_halfway(tmp_path / "model")
    image, weights = np.zeros((1, 3, 32, 32), np.float32), model.state_dict()
    expected = model.features(image, ["layer.1"])["layer.1"]

    def round_twice(x: Array, w: Array, accumulator: Array) -> Array:
        return (x.astype(np.float64) * w.astype(np.float64) + accumulator).astype(np.float32)

    monkeypatch.setattr(reference, "fma", round_twice)
    careless = type(model).from_pretrained(tmp_path / "model", state_dict=weights, engine="reference")
    assert (careless.features(image, ["layer.1"])["layer.1"] != expected).any()


EMBEDDED: dict[str, tuple[Callable[[Path], Any], Path]] = {
    "v1": (lambda _: mm.load("demo:digits"), DEMO / "digit_7.png"),
    "unfolded": (lambda _: mm.load("demo:digits", folds_batch_norm=False), DEMO / "digit_3.png"),
    "halfway": (make_halfway, DEMO / "digit_5.png"),
    "v2": (make_v2, DEMO / "scene.png"),
    "deeplab": (lambda _: mm.load("demo:scenes"), DEMO / "scene.png"),
    "detection": (lambda _: mm.load("demo:boxes"), DEMO / "scene.png"),
    "quantized": (lambda _: mm.quantize("demo:digits"), DEMO / "digit_3.png"),
    "quantized deeplab": (lambda _: mm.quantize("demo:scenes"), DEMO / "scene.png"),
}
REAL = {
    "real v1": ("huggingface/mobilenet_v1_0.25_128", "cat.bmp"),
    "real v2": ("huggingface/mobilenet_v2_1.0_224", "cat.bmp"),
    "real deeplab": ("huggingface/deeplabv3_mobilenet_v2_0.5_257", "bird_segmentation.bmp"),
    "real detection": ("detection/ssdlite_mobilenet_v2_coco_float32.tflite", "cats_and_dogs.jpg"),
    "real quantized v2": ("tflite/mobilenet_v2_1.0_224_quant.tflite", "cat.bmp"),
    "real fake-quantized": ("tensorflow/deeplabv3_mobilenet_v2_0.5_513_portrait_quant_frozen.pb", "grace_hopper.bmp"),
}


@pytest.mark.parametrize("name", [*EMBEDDED, *(REAL if DATA else ())])
def test_clicked_values_are_the_engine_s_to_the_bit(
    name: str, open_page: Callable[..., Opened], tmp_path: Path
) -> None:
    if name in EMBEDDED:
        make, photo = EMBEDDED[name]
        model = make(tmp_path / "model")
    else:
        source, picture = REAL[name]
        model, photo = mm.load(Path(str(DATA), "models", source)), Path(str(DATA), "images", picture)
    exploration = mm.explore(model, photo)
    assert len(exploration.html.encode()) <= 24_000_000
    opened = open_page(exploration)
    page = opened.page
    page.wait_for_selector("#status[data-state]")
    assert page.get_attribute("#status", "data-state") == "same", page.inner_text("#status")
    values = find_values(model, page)
    shapes = {layer: array.shape for layer, array in values.items()}
    rng = np.random.default_rng(7)
    layers = list(values)
    chosen = rng.choice(len(layers), min(LAYERS, len(layers)), replace=False)
    count = 0
    for layer in (layers[index] for index in chosen):
        open_layer(page, layers.index(layer))
        check_field(model, page, layer)
        for _ in range(-(-CLICKS // len(chosen))):
            height, width, channels = shapes[layer]
            at = int(rng.integers(height)), int(rng.integers(width)), int(rng.integers(min(channels, 64)))
            click_value(page, layer, at, shapes[layer])
            again = add_again(page, model.is_quantized)
            expected = values[layer][at]
            where = f"{name}: {layer} at {at}: {again!r} from the page, {expected!r} in the engine"
            assert again == expected and again.dtype == (np.float64 if model.is_quantized else expected.dtype), where
            assert np.float64(expected) == np.float64(np.float32(page.inner_text("#result"))), f"{layer} {at}"
            count += 1
    assert count >= CLICKS
    assert opened.complaints == []
    assert all(url.startswith(("file://", "blob:", "data:")) for url in opened.requests)
    assert len([url for url in opened.requests if url.startswith("file://")]) == 1


def find_values(model: Any, page: Any) -> dict[str, Array]:
    """Return the engine's values (H, W, C) of every layer that the page has and computes, in its order."""
    document = page.evaluate("() => JSON.parse(document.getElementById('document').textContent)")
    names = [layer["name"] for layer in document["layers"]]
    pixel_values = rebuild_pixels(model, document)
    if model.is_quantized:
        runner = model.runner
        tensors = [operation.output for operation in runner.network.operations]
        found = runner.run_tensors(runner.store(pixel_values), tensors)
        inverse = {tensor: node for node, tensor in runner.endpoints.items()}
        values = {inverse.get(tensor, tensor): as_map(array) for tensor, array in found.items()}
    else:
        traced = model.trace(pixel_values).tensors
        values = {layer: y[0].transpose(1, 2, 0) if y.ndim == 4 else y[0][None, None] for layer, y in traced.items()}
    return {layer: values[layer] for layer in names if layer in values}


def rebuild_pixels(model: Any, document: dict[str, Any]) -> Array:
    """Return what the network reads, from the processor, as the tasks do."""
    photo = document["photo"]["name"]
    folder = DEMO if (DEMO / photo).is_file() else Path(str(DATA), "images")
    settings: dict[str, Any] = {}
    if type(model).__name__.endswith("Segmentation"):
        settings = {"central_fraction": None, "do_center_crop": False}
        if model.processor.canvas_size is None:
            height, width = document["input"]["shape"][1:]
            settings |= {"do_resize": True, "size": {"height": height, "width": width}}
    pixels: Array = model.processor(folder / photo, **settings, return_tensors="np")["pixel_values"]
    return pixels


def as_map(array: Array) -> Array:
    """Return a tensor of one picture as (H, W, C); what has no pixels is a row of them."""
    if array.ndim == 4:
        return array[0]
    return array.reshape(1, -1, array.shape[-1] if array.ndim > 1 else 1)


def open_layer(page: Any, index: int) -> None:
    page.locator("button.layer").nth(index).click()
    page.wait_for_selector("#layer-body[data-layer]")


def click_value(page: Any, layer: str, at: tuple[int, int, int], shape: tuple[int, ...]) -> None:
    """Click the middle of a value's square in the picture of its channel."""
    box = page.locator("canvas.grid").evaluate(FIND_PLACE, list(at))
    page.mouse.click(*box)
    page.wait_for_selector(f'#value-body[data-at="{layer} {" ".join(map(str, at))}"]')


def read_rows(page: Any, table: str) -> list[list[str]]:
    rows: list[list[str]] = page.evaluate(
        """(id) => [...document.querySelectorAll(`#${id} tbody tr`)]
          .map((row) => [...row.cells].map((cell) => cell.textContent))""",
        table,
    )
    return rows


def add_again(page: Any, is_quantized: bool) -> Any:
    """Return the value that the page's text gives: terms, blocks, and every step after them, added here."""
    terms, stages = read_rows(page, "terms-table"), read_rows(page, "stages-table")
    return add_integers(terms, stages) if is_quantized else add_floats(terms, stages)


def add_floats(terms: list[list[str]], stages: list[list[str]]) -> Any:
    names = [name for name, *_ in stages]
    pixels = np.array([0 if row[3] == "outside" else row[3] for row in terms], np.float32)
    if names == ["copied"]:
        return pixels[0]
    if names[0] == "sum in float64" or names[0] == "sum in float32":
        precision = np.dtype(names[0].split()[-1]).type
        total = precision(0)
        for pixel in pixels:
            total = precision(total + precision(pixel))
        value: Any = np.float32(total / precision(len(pixels)))
    elif names[0] == "upper row, times":
        products = [float(pixel) * float(row[4]) for pixel, row in zip(pixels, terms, strict=True)]
        above, below = products[0] + products[1], products[2] + products[3]
        value = np.float32(above * float(stages[0][1]) + below * float(stages[1][1]))
    elif names[0] == "the second map's value":
        value = pixels[0] + np.float32(stages[0][1])
    else:
        weights = np.array([row[4] for row in terms], np.float32)
        inside = np.array([row[3] != "outside" for row in terms])
        blocks = [int(row[0]) for row in terms]
        running, sums = sum_in_blocks(pixels, weights, inside, blocks.count(0))
        np.testing.assert_array_equal(running, np.array([row[6] for row in terms], np.float32))
        operands = {name: np.array([operand], np.float32) for name, operand, _ in stages if operand}
        factor = operands.get("times batch norm's factor", np.ones(1, np.float32))
        value = reference.fma(np.array([sums[-1].value]), factor, operands["bias"])[0]
    for name, operand, _ in stages[1:]:
        if name in ("relu", "relu6", "linear"):
            value = reference.activation(np.array([value]), name)[0]
        elif name == "rounded to steps of":
            value = round_to(value, np.float32(operand), stages)
    return value


def round_to(value: Any, step: np.float32, stages: list[list[str]]) -> Any:
    """Return the page's own rounded value where it is within half a step; the grid's ends are not in the text."""
    rounded = np.float32(next(result for name, _, result in stages if name == "rounded to steps of"))
    is_cut = abs(rounded / step - np.rint(rounded / step)) < 1e-3
    assert is_cut and (abs(rounded - value) <= step * np.float32(0.5001) or abs(rounded) < abs(value))
    return rounded


def add_integers(terms: list[list[str]], stages: list[list[str]]) -> Any:
    named = {name: (operand, value) for name, operand, value in stages}
    if "as the engine has it" in named:
        return np.float64(named["as the engine has it"][1])
    if "sum" not in named:  # the sum of two maps: its steps have no terms
        return np.float64(stages[-1][2])
    total = sum(int(row[3]) * int(row[4]) for row in terms if row[3] != "outside")
    assert total == int(named["sum"][1])
    if "divided, to the nearest" in named:
        count = int(named["divided, to the nearest"][0])
        return np.float64((abs(total) + count // 2) // count * (1 if total >= 0 else -1))
    total += int(named["bias"][0]) if "bias" in named else 0
    multiplier, shift = (
        int(named["times multiplier / 2³¹, times 2^shift, rounded"][0]),
        int(named["what rounding added, in steps"][0]),
    )
    steps = requantize(np.array([total]), np.array([multiplier]), np.array([shift]))[0]
    low, high = (int(part) for part in stages[-1][0].removeprefix("kept within ").split(" and "))
    return np.float64(min(high, max(low, steps + int(named["plus the zero point"][0]))))


def check_field(model: Any, page: Any, layer: str) -> None:
    """The page's receptive field is that of `inspect`."""
    if model.is_quantized:
        return
    facts = page.inner_text("#layer-body dl.facts")
    size = page.evaluate("() => JSON.parse(document.getElementById('document').textContent).input.shape")
    field = receptive_fields(model.graph, size[1:])[layer]
    expected = "the whole picture" if field is None else f"{field.height.size}×{field.width.size} pixels"
    assert expected in facts


@pytest.mark.parametrize(("width", "scheme"), [(360, "light"), (1280, "light"), (1280, "dark"), (3840, "dark")])
def test_everyone_can_use_the_page(width: int, scheme: str, open_page: Callable[..., Opened], tmp_path: Path) -> None:
    """Contrast, names and the keyboard, from a phone to 4k; pictures of it are kept where EXPLORER_SHOTS says."""
    for name in ("v1", "deeplab", "detection", "quantized"):
        make, photo = EMBEDDED[name]
        opened = open_page(mm.explore(make(tmp_path / "model"), photo), width, scheme)
        page = opened.page
        page.wait_for_selector("#status[data-state]")
        open_layer(page, 3)
        page.locator("canvas.grid").focus()
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowDown")
        page.keyboard.press("Enter")  # no pointer is needed to have a value written out
        page.wait_for_selector("#value-body[data-at$=' 1 1 0']")
        for summary in page.locator("summary").all():
            summary.click()
        assert page_checks.check_everyone(page) > 100
        if width == 1280:
            assert page_checks.check_keyboard(page) > 30
        if "EXPLORER_SHOTS" in os.environ:
            shot = Path(os.environ["EXPLORER_SHOTS"], f"{name}-{width}-{scheme}.png")
            page.screenshot(path=shot, full_page=True)
        assert opened.complaints == []


def read_value(page: Any, layer: str, at: tuple[int, int, int]) -> np.float32:
    """Write a value out by the form for its place, and return it."""
    names: list[str] = page.evaluate(
        "() => [...document.querySelectorAll('button.layer')].map((button) => button.title)"
    )
    open_layer(page, names.index(layer))
    page.locator("canvas.grid").focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("#value-body[data-at]")
    for axis, place in zip(("row", "column", "channel"), at, strict=True):
        page.fill(f"input[name='value {axis}']", str(place))
    page.click("text=Write it out")
    page.wait_for_selector(f'#value-body[data-at="{layer} {" ".join(map(str, at))}"]')
    return np.float32(page.inner_text("#result"))


def wait_until_changed(page: Any) -> None:
    page.wait_for_selector("#status[data-state=changed]:not([data-busy])")


def test_changes_are_followed_as_the_engine_would(open_page: Callable[..., Opened], tmp_path: Path) -> None:
    model = make_v2(tmp_path / "model")
    page = open_page(mm.explore(model, DEMO / "scene.png")).page
    page.wait_for_selector("#status[data-state=same]")
    pixels = model.processor(DEMO / "scene.png", return_tensors="np")["pixel_values"].copy()
    before = [read_value(page, "classifier", (0, 0, index)) for index in range(3)]
    assert before == model(pixels).logits[0, :3].tolist()

    page.fill("input[name='pixel row']", "30")
    page.fill("input[name='pixel column']", "31")
    page.keyboard.press("Tab")
    for channel, value in enumerate((3.5, -2.25, 0.125)):
        page.fill(f"input[name='channel {channel}']", str(value))
        pixels[0, channel, 30, 31] = value
    page.click("text=Set the pixel")
    wait_until_changed(page)
    changed = [read_value(page, "classifier", (0, 0, index)) for index in range(3)]
    assert changed == model(pixels).logits[0, :3].tolist() != before

    read_value(page, "layer.1.conv_3x3", (0, 0, 0))
    page.click("text=Change a weight of the file")
    for axis, place in zip(("output", "ky", "kx"), (2, 1, 0), strict=True):
        page.fill(f"input[name='weight {axis}']", str(place))
    page.fill("input[name='weight value']", "0.75")
    page.click("text=Set the weight")
    wait_until_changed(page)
    weights = {name: values.copy() for name, values in model.state_dict().items()}
    weights["mobilenet_v2.layer.1.conv_3x3.convolution.weight"][2, 0, 1, 0] = 0.75
    other = type(model).from_pretrained(tmp_path / "model", state_dict=weights)
    reweighted = [read_value(page, "classifier", (0, 0, index)) for index in range(3)]
    assert reweighted == other(pixels).logits[0, :3].tolist() != changed

    page.select_option("select[name=padding]", "SAME")
    wait_until_changed(page)
    padded = type(model).from_pretrained(tmp_path / "model", state_dict=weights, tf_padding=True)
    repadded = [read_value(page, "classifier", (0, 0, index)) for index in range(3)]
    assert repadded == padded(pixels).logits[0, :3].tolist() != reweighted

    page.click("text=Undo all changes")
    page.wait_for_selector("#status[data-state=same]:not([data-busy])")
    assert [read_value(page, "classifier", (0, 0, index)) for index in range(3)] == before


def test_hostile_names_are_shown_as_text(open_page: Callable[..., Opened], tmp_path: Path) -> None:
    hostile = "<img src=x onerror=alert(1)> </script><script>alert(2)</script> \" ' \u202e"
    model = mm.load("demo:digits")
    model.save_pretrained(tmp_path / "model")
    model.config.replace(id2label=dict.fromkeys(range(10), hostile)).save_pretrained(tmp_path / "model")
    photo = tmp_path / "<b>' \u202e.png"
    photo.write_bytes((DEMO / "digit_7.png").read_bytes())
    opened = open_page(mm.explore(tmp_path / "model", photo))
    opened.page.wait_for_selector("#status[data-state=same]")
    assert opened.page.inner_text("#labels bdi >> nth=0") == hostile.replace("\u202e", "\\u202e")
    assert opened.page.inner_text("#title").endswith(" on <b>' \\u202e.png")
    assert opened.complaints == [] and opened.page.locator("img, b").count() == 0


def test_a_notebook_s_frame_computes(open_page: Callable[..., Opened], tmp_path: Path) -> None:
    exploration = mm.explore("demo:digits", DEMO / "digit_7.png")
    frame = type(exploration)(f"<!DOCTYPE html><title>a notebook</title>{exploration._repr_html_()}", "a notebook")
    opened = open_page(frame)
    opened.page.frame_locator("iframe").locator("#status[data-state=same]").wait_for()
    assert opened.complaints == []
