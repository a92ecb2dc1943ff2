"""The page of `explore` in a real browser: values are clicked, and their sums added again from the page's own text."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import page_checks
import pytest
import quantized_models
from page_values import DATA, DEMO, Array, add_again, click_value, find_values, open_layer

import minimobile as mm
from minimobile.costs.receptive_field import receptive_fields
from minimobile_kernels import reference

pytestmark = pytest.mark.browser
CLICKS, LAYERS = 160, 20  # together fewer than the 200 addresses in ten seconds that a browser takes


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
        context.set_default_timeout(page_checks.PATIENCE)
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


def make_labels(folder: Path) -> mm.MobileNetModel:
    """Return a DeepLab of bytes that ends in an argmax: its classes are integers of 64 bits."""
    architecture, dtype, tail, fields = quantized_models.FORMS["DeepLab"]
    folder.mkdir()
    return mm.load(
        quantized_models.save(folder, quantized_models.build(architecture, dtype=dtype, tail=tail, **fields))
    )


EMBEDDED: dict[str, tuple[Callable[[Path], Any], Path]] = {
    "v1": (lambda _: mm.load("demo:digits"), DEMO / "digit_7.png"),
    "unfolded": (lambda _: mm.load("demo:digits", folds_batch_norm=False), DEMO / "digit_3.png"),
    "halfway": (make_halfway, DEMO / "digit_5.png"),
    "v2": (make_v2, DEMO / "scene.png"),
    "deeplab": (lambda _: mm.load("demo:scenes"), DEMO / "scene.png"),
    "detection": (lambda _: mm.load("demo:boxes"), DEMO / "scene.png"),
    "quantized": (lambda _: mm.quantize("demo:digits"), DEMO / "digit_3.png"),
    "quantized detection": (lambda _: mm.quantize("demo:boxes"), DEMO / "scene.png"),
    "quantized deeplab": (lambda _: mm.quantize("demo:scenes"), DEMO / "scene.png"),
    "quantized classes": (make_labels, DEMO / "scene.png"),
}
REAL = {
    "real v1": ("huggingface/mobilenet_v1_0.25_128", "cat.bmp"),
    "real v2": ("huggingface/mobilenet_v2_1.0_224", "cat.bmp"),
    "real deeplab": ("huggingface/deeplabv3_mobilenet_v2_0.5_257", "bird_segmentation.bmp"),
    "real detection": ("detection/ssdlite_mobilenet_v2_coco_float32.tflite", "cats_and_dogs.jpg"),
    "real quantized v2": ("tflite/mobilenet_v2_1.0_224_quant.tflite", "cat.bmp"),
    "real quantized deeplab": ("tflite/deeplabv3_mnv2_dm05_pascal_quant.tflite", "cat.bmp"),
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
        shown = json.loads(page.get_attribute("canvas.grid", "data-plan"))["shown"]
        for _ in range(-(-CLICKS // len(chosen))):
            height, width, _ = shapes[layer]
            at = int(rng.integers(height)), int(rng.integers(width)), int(rng.integers(shown))
            click_value(page, layer, at)
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


def check_field(model: Any, page: Any, layer: str) -> None:
    """The page's receptive field is that of `inspect`."""
    if model.is_quantized:
        return
    facts = page.inner_text("#layer-body dl.facts")
    size = page.evaluate("() => JSON.parse(document.getElementById('document').textContent).input.shape")
    field = receptive_fields(model.graph, size[1:])[layer]
    expected = "the whole picture" if field is None else f"{field.height.size}×{field.width.size} pixels"
    assert expected in facts


CUT = """() => [...document.querySelectorAll('.facts dt, .facts dd, button, input[step=any]')]
  .filter((element) => element.scrollWidth > element.clientWidth)
  .map((element) => element.textContent || `${element.name} ${element.value}`)"""


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
        assert page.evaluate(CUT) == []
        if width == 1280:
            assert page_checks.check_keyboard(page) > 30
        if "EXPLORER_SHOTS" in os.environ:
            shot = Path(os.environ["EXPLORER_SHOTS"], f"{name}-{width}-{scheme}.png")
            page.screenshot(path=shot, full_page=True)
        assert opened.complaints == []


def read_value(page: Any, layer: str, at: tuple[int, int, int]) -> np.float32:
    """Have a value written out by its address, another one than is open, and return it."""
    row, column, channel = at
    address = f"#layer={layer}&channel={channel}&row={row}&column={column}"
    page.evaluate("(hash) => { location.hash = hash; }", address)
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


def complain(page: Any, name: str, value: str, button: str) -> str:
    """Fill one field with what it cannot take, press the button, and return what is said below; then as it was."""
    field = page.locator(f"input[name='{name}']")
    before = field.input_value()
    field.fill(value)
    page.click(f"text={button}")
    assert page.evaluate("() => document.activeElement.name") == name
    said: str = page.locator(f".row:has([name='{name}']) + .complaint").inner_text()
    field.fill(before)
    return said


def test_wrong_numbers_are_told_in_one_sentence(open_page: Callable[..., Opened]) -> None:
    opened = open_page(mm.explore("demo:digits", DEMO / "digit_7.png"))
    page = opened.page
    page.wait_for_selector("#status[data-state=same]")
    open_layer(page, 3)
    page.locator("canvas.grid").focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("#value-body[data-at]")
    page.click("text=Change a weight of the file")
    expected = "row: expected a whole number from 0 to 15, got 16."
    assert complain(page, "value row", "16", "Write it out") == expected
    assert complain(page, "value channel", "0.5", "Write it out").endswith(" from 0 to 15, got 0.5.")
    assert complain(page, "pixel row", "64", "Set the pixel").endswith(" from 0 to 63, got 64.")
    assert complain(page, "channel 1", "", "Set the pixel").startswith("green: expected a number from -3.4")
    assert complain(page, "weight output", "-1", "Set the weight").endswith(" from 0 to 15, got -1.")
    assert complain(page, "weight value", "4e38", "Set the weight").endswith("e+38, got 4e38.")
    page.keyboard.press("Enter")  # as the button does
    wait_until_changed(page)
    # The editor stays as it was, open and with the focus, but for the complaint.
    page.wait_for_selector("details[open] .complaint:empty", state="attached")
    assert page.evaluate("() => document.activeElement.name") == "weight value"
    assert opened.complaints == []


def test_a_tall_photograph_is_read_under_the_pointer(open_page: Callable[..., Opened]) -> None:
    """And it is no taller than a screen, which a picture of 900 x 3 would be by hundreds."""
    tall = np.arange(90 * 30 * 3, dtype=np.uint8).reshape(90, 30, 3)
    for photo in (tall, np.zeros((900, 3, 3), np.uint8)):
        page = open_page(mm.explore("demo:boxes", photo)).page
        page.wait_for_selector("#status[data-state=same]")
        heights = page.evaluate("() => [...document.querySelectorAll('canvas')].map((each) => each.clientHeight)")
        assert max(heights) <= 800
        box = page.locator("figure canvas").first.bounding_box()
        page.mouse.move(box["x"] + 0.95 * box["width"], box["y"] + 0.95 * box["height"])
        row, column = int(photo.shape[0] * 0.95), int(photo.shape[1] * 0.95)
        said = page.locator("figure .readout").first.inner_text()
        if photo is tall:
            assert said == f"row {row}, column {column}: {', '.join(map(str, tall[row, column]))}"


def test_the_colour_bar_of_bytes_ends_in_bytes(open_page: Callable[..., Opened]) -> None:
    model = mm.quantize("demo:digits")
    page = open_page(mm.explore(model, DEMO / "digit_3.png")).page
    page.wait_for_selector("#status[data-state=same]")
    values = find_values(model, page)["layer.3"]
    assert values.min() == -128  # the zero point: what follows is a ReLU
    names = page.locator("button.layer").evaluate_all("(all) => all.map((button) => button.title)")
    open_layer(page, names.index("layer.3"))
    assert page.inner_text("#layer-body .ends").split() == ["-128", str(values.max())]


def test_what_goes_wrong_in_a_run_is_told(open_page: Callable[..., Opened]) -> None:
    made = mm.explore("demo:digits", DEMO / "digit_7.png")
    known = '"op":"global_average_pool2d"'
    assert made.html.count(known) == 1
    broken = made.html.replace(known, '"op":"an operation that no page knows"')
    page = open_page(type(made)(broken, "broken")).page
    page.wait_for_selector("#status[data-state=other]")
    assert page.inner_text("#status") == (
        "The network cannot be computed here, please report this: Error: no such operation: "
        "an operation that no page knows"
    )


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
    inner = opened.page.frame_locator("iframe")
    inner.locator("#status[data-state=same]").wait_for()
    inner.locator("nav a", has_text="Network").click()  # not to that part of the notebook
    inner.locator("button.layer").nth(3).click()
    inner.locator("#layer-body[data-layer]").wait_for()
    inner.locator("canvas.grid").focus()
    opened.page.keyboard.press("Enter")
    inner.locator("#value-body[data-at='layer.2 0 0 0']").wait_for()
    inner.locator("input[name='value row']").fill("5")
    inner.locator("text=Write it out").click()
    inner.locator("#value-body[data-at='layer.2 5 0 0']").wait_for()
    assert opened.complaints == []
