"""What is said of two arrays: every relation planted, found, and named with what it leaves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from planted import draw_pixels, make_network, with_changed

from minimobile.comparison.array_differences import compare_arrays, tabulate
from minimobile.comparison.array_relations import relate
from minimobile.comparison.crosscheck import check
from minimobile.comparison.integer_grids import find_grid
from minimobile.comparison.weight_hypotheses import PRECISIONS
from minimobile.operations.folding import fold_weights
from minimobile.operations.passes import fold_nodes
from minimobile.tables import escape

Array = NDArray[Any]
KERNEL = np.random.default_rng(0).normal(size=(12, 6, 3, 3)).astype(np.float32)
SQUARE = np.random.default_rng(1).normal(size=(7, 7, 1, 1)).astype(np.float32)
SHUFFLED = np.random.default_rng(2).permutation(12)
FACTORS = np.random.default_rng(3).uniform(0.5, 2, 12).astype(np.float32)[:, None, None, None]


def quantise(values: Array, step: Any, least: int = -127, most: int = 127) -> Array:
    return (np.clip(np.rint(values / step), least, most) * step).astype(np.float32)


PLANTED: dict[str, tuple[Array, Callable[[Array], Array], str, str]] = {
    "equal": (KERNEL, lambda x: x.copy(), "equal", "equal"),
    "one rounding": (KERNEL, lambda x: np.nextafter(x, np.float32(9)), "rounded", "equal but for float32's rounding"),
    "float16": (KERNEL, lambda x: x.astype(np.float16), "rounded to float16", "ours rounded to float16"),
    "bfloat16": (KERNEL, PRECISIONS["bfloat16"], "rounded to bfloat16", "ours rounded to bfloat16"),
    "forgotten": (KERNEL, np.zeros_like, "constant", "all 0"),
    "idle": (KERNEL, lambda x: np.full_like(x, 0.999), "constant", "all 0.999"),
    "transposed": (SQUARE, lambda x: x.swapaxes(0, 1), "transposed", "kernels with inputs for outputs"),
    "TensorFlow's layout": (KERNEL, lambda x: x.transpose(2, 3, 1, 0), "transposed",
                            "transposed, axes (2, 3, 1, 0) of ours"),
    "flipped": (KERNEL, lambda x: x[..., ::-1], "transposed", "kernels flipped left to right"),
    "reshaped": (KERNEL, lambda x: x.reshape(12, 54), "transposed", "reshaped to (12, 54)"),
    "BGR": (KERNEL[:, :3], lambda x: x[:, ::-1], "permuted", "the input channels in reverse, as for BGR"),
    "inputs in another order": (KERNEL[:, :3], lambda x: x[:, [1, 2, 0]], "permuted",
                                "the input channels permuted: 1, 2, 0 of ours"),
    "background": (KERNEL, lambda x: np.roll(x, 1, axis=0), "permuted", "each output channel one place later"),
    "outputs in another order": (KERNEL, lambda x: x[SHUFFLED], "permuted",
                                 f"the output channels permuted: {(np.arange(12) != SHUFFLED).sum()} of 12, their "),
    "BGR in float16": (KERNEL, lambda x: x[:, ::-1].astype(np.float16), "permuted",
                       "ours rounded to float16, the input channels in reverse, as for BGR"),
    "a pixel's range": (KERNEL, lambda x: x / np.float32(127.5), "scaled", "0.00784314 times ours"),
    "a sign": (KERNEL, lambda x: -x, "scaled", "-1 times ours"),
    "a factor per output": (KERNEL, lambda x: x * FACTORS, "scaled by channel",
                            f"scaled per output channel, by {FACTORS.min():.4g} to {FACTORS.max():.4g}"),
    "a factor per input": (KERNEL[:, :3], lambda x: x * np.float32([[[0.229]], [[0.224]], [[0.225]]]),
                           "scaled by channel", "scaled per input channel, by 0.224 to 0.229"),
    "int8 per tensor": (KERNEL, lambda x: quantise(x, np.abs(x).max() / 127), "quantised",
                        f"quantised per tensor: at most 255 steps of {np.abs(KERNEL).max() / 127:.4g}, off by "),
    "uint8 per tensor": (KERNEL, lambda x: quantise(x, np.ptp(x) / 255, -255, 255), "quantised",
                         f"quantised per tensor: at most 255 steps of {np.ptp(KERNEL) / 255:.4g}, off by at most "),
    "int8 per channel": (KERNEL, lambda x: quantise(x, np.abs(x).max((1, 2, 3), keepdims=True) / 127), "quantised",
                         "quantised per channel: at most 255 steps of "),
}  # fmt: skip
"""What is done to an array, and kind and words (their beginning) of what has to be said."""


@pytest.mark.parametrize("name", PLANTED)
def test_what_was_done_to_an_array_is_named(name: str) -> None:
    ours, change, kind, words = PLANTED[name]
    found = relate(ours, change(ours))
    assert found is not None and found.kind == kind and found.words.startswith(words), found
    assert found.left <= (0.5001 if kind == "quantised" else 4 * 2.0**-24)


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x * np.random.default_rng(4).normal(1, 1e-3, x.shape),
        lambda x: np.random.default_rng(4).permutation(x.ravel()).reshape(x.shape),
        lambda x: np.where(np.arange(x.size).reshape(x.shape) == 50, x * 1.01, x),
        lambda x: quantise(x, np.abs(x).max() / 127) + np.float32(0.05),
        lambda x: x[:, :5],
        lambda x: np.full_like(x, np.nan),
    ],
    ids=["noise", "shuffled values", "one value", "a grid elsewhere", "another size", "NaN"],
)
def test_what_has_no_relation_gets_none(change: Callable[[Array], Array]) -> None:
    assert relate(KERNEL, change(KERNEL)) is None


def test_a_grid_is_found_from_its_values_alone() -> None:
    random = np.random.default_rng(5)
    steps = random.uniform(1e-3, 1, 40)
    integers = random.integers(-127, 128, (40, 9))
    integers[:, 0] = 127  # so that no larger step serves as well
    integers[:, 1] = 1
    rows = (steps[:, None] * integers).astype(np.float32).astype(np.float64)
    np.testing.assert_allclose(find_grid(rows), steps, rtol=1e-6)
    assert find_grid(random.normal(size=(2, 9))) is None
    assert find_grid(np.array([[-200.0, 1.0, 200.0]])) is None, "401 steps"


def test_arrays_are_counted_by_what_they_are_to_ours() -> None:
    model = make_network("v1")
    ours = model.state_dict()
    first, second, third = (f"mobilenet_v1.layer.{index}.convolution.weight" for index in (1, 3, 5))
    theirs = {**ours, first: ours[first].astype(np.float16), second: ours[second][::-1], "extra": ours[third]}
    del theirs[third]
    table = tabulate(compare_arrays(ours, theirs))
    assert [row[:2] for row in table.rows] == [
        ("equal", len(ours) - 3), ("rounded to float16", 1), ("permuted", 1), ("ours alone", 1), ("theirs alone", 1),
    ]  # fmt: skip
    assert table.rows[2][2] == f"{second}: the output channels in reverse"


def test_a_folded_batch_norm_is_said_to_be_one() -> None:
    """As a converter leaves it: the batch norm's factor in the kernel, an idle batch norm that adds the rest."""
    model = make_network("v1")
    ours = model.state_dict()
    node = next(node for node in fold_nodes(model.graph.nodes) if node.name == "layer.3.normalization")
    kernel, shift = fold_weights(node, ours)
    names, ones = node.weights, np.ones(len(shift), np.float32)
    folded = {
        names["weight"]: kernel.astype(np.float32), names["scale"]: ones, names["shift"]: shift.astype(np.float32),
        names["mean"]: 0 * ones, names["variance"]: ones - np.float32(node.attributes["epsilon"]),
    }  # fmt: skip
    found = {array.name: array for array in compare_arrays(ours, {**ours, **folded}, model.graph)}
    assert all(found[name].is_same_folded for name in folded) and not any(
        array.differs for name, array in found.items() if name not in folded
    )
    assert found[names["weight"]].kind == "scaled by channel" and found[names["shift"]].kind == "folded"
    assert found[names["weight"]].how.endswith("; with batch norm folded in, both sides are the same")
    step = np.abs(kernel).max(axis=(1, 2, 3), keepdims=True) / 127
    folded[names["weight"]] = quantise(kernel, step)
    found = {array.name: array for array in compare_arrays(ours, {**ours, **folded}, model.graph)}
    assert found[names["weight"]].kind == "quantised" and not found[names["weight"]].is_same_folded
    assert (
        "with batch norm folded in, the kernel is quantised per channel: at most 255 steps of "
        in found[names["weight"]].how
    )


def test_table_json_and_page_tell_each_relation() -> None:
    """Every kind in a layer of its own of one network, as `check` reports two files."""
    model = make_network("v1")
    shift = "normalization.bias"
    faults: dict[str, tuple[str, Callable[[Array], Array]]] = {
        "rounded": (f"layer.0.{shift}", lambda x: np.nextafter(x, np.float32(9))),
        "rounded to float16": ("layer.1.convolution.weight", lambda x: x.astype(np.float16).astype(np.float32)),
        "rounded to bfloat16": ("layer.3.convolution.weight", lambda x: np.float32(PRECISIONS["bfloat16"](x))),
        "constant": (f"layer.2.{shift}", np.zeros_like),
        "transposed": ("layer.4.convolution.weight", lambda x: x.swapaxes(2, 3)),
        "permuted": ("conv_stem.convolution.weight", lambda x: x[:, ::-1]),
        "scaled": ("layer.6.convolution.weight", lambda x: x * np.float32(2.5)),
        "scaled by channel": ("layer.5.convolution.weight", lambda x: x * np.linspace(1, 2, len(x), dtype=np.float32)
                              .reshape(-1, 1, 1, 1)),
        "quantised": ("layer.7.convolution.weight", lambda x: quantise(x, np.abs(x).max() / 127)),
        "unrelated": ("layer.9.convolution.weight", lambda x: x + np.linspace(0, 1, x.size, dtype=np.float32)
                      .reshape(x.shape)),
    }  # fmt: skip
    other = model
    for name, change in faults.values():
        other = with_changed(other, name, change)
    report = check(model, against="reference", other=other, pixel_values=draw_pixels())
    listed = {array["name"].removeprefix("mobilenet_v1."): array for array in report.to_dict()["arrays"]}
    rows, page = {row[0]: row for row in report.tables()[0].rows}, report.to_page()
    for kind, (name, _) in faults.items():
        array = listed[name]
        assert array["kind"] == kind and (array["count"] > 0) == (kind != "rounded")
        assert rows[kind][1] == 1 and str(rows[kind][2]) == f"{array['name']}: {array['how']}"
        assert escape(array["how"]) in page
    assert rows["equal"][1] == len(listed) - len(faults) and len(rows) == len(faults) + 1
    assert page.index("<h2>Arrays</h2>") < page.index("<h2>Layers</h2>")


def test_a_few_values_are_named_each_by_its_place() -> None:
    model = make_network("v1")

    def change(weight: Array) -> Array:
        weight = weight.copy()
        weight[3, 0, 1, 2] *= np.float32(1.01)
        return weight

    other = with_changed(model, "layer.4.convolution.weight", change)
    (array,) = (array for array in compare_arrays(model.state_dict(), other.state_dict()) if array.differs)
    assert (array.kind, array.count) == ("a few values", 1)
    assert array.how.startswith("1 of 108 values differ: at [3, 0, 1, 2] it has ") and array.how.endswith(
        ", 1.01 times ours"
    )
