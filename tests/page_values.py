"""A value that the explorer's page writes out, computed again from the page's own text; and the engine's for it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import minimobile as mm
from minimobile.operations.written_out import sum_in_blocks
from minimobile_kernels import reference
from minimobile_kernels.reference import requantize

DEMO = Path(mm.__file__).parent / "demo"
DATA = os.environ.get("MINIMOBILE_TEST_DATA")
Array = NDArray[Any]
# Where to click: at the first whole pixel of the screen inside the value's square, scrolled to where no bar covers it.
FIND_PLACE = """(canvas, [row, column, channel]) => {
  const plan = JSON.parse(canvas.dataset.plan);
  const down = row + Math.floor(column / plan.line); // a map of one row goes on in further lines
  const x = (channel % plan.columns) * plan.cell + (column % plan.line) * plan.zoom;
  const y = Math.floor(channel / plan.columns) * plan.tall + down * plan.zoom;
  const at = (box) => [box.left + (x * box.width) / canvas.width, box.top + (y * box.height) / canvas.height];
  scrollBy(0, at(canvas.getBoundingClientRect())[1] - innerHeight / 2);
  return at(canvas.getBoundingClientRect()).map((place) => Math.ceil(place));
}"""


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
    """Return a tensor of one picture as (H, W, C); what has no pixels is a row; classes have no channels."""
    if array.ndim == 4:
        return array[0]
    if array.ndim == 3 and array.dtype == np.int64:
        return array[0][..., None]
    return array.reshape(1, -1, array.shape[-1] if array.ndim > 1 else 1)


def open_layer(page: Any, index: int) -> None:
    button = page.locator("button.layer").nth(index)
    button.click()
    page.wait_for_selector(f'#layer-body[data-layer="{button.get_attribute("title")}"]')


def click_value(page: Any, layer: str, at: tuple[int, int, int]) -> None:
    """Click the corner of a value's square in the picture of its channel."""
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
