"""Faults that users meet, planted one by one: each is found at its layer and called by its name."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from planted import draw_pixels, make_network, with_changed, with_weights

from minimobile.comparison.crosscheck import check
from minimobile.comparison.diagnosis import diagnose
from minimobile.comparison.float32_bounds import exact
from minimobile.comparison.peers import compared_layers
from minimobile.comparison.report import Report
from minimobile.comparison.suspect import Suspect
from minimobile.comparison.weight_hypotheses import PRECISIONS
from minimobile.models.classes import MobileNetModel
from minimobile.networks.graph import INPUT, Node
from minimobile_kernels import reference

STEMS = {"v1": "conv_stem", "v2": "conv_stem.first_conv", "deeplab": "conv_stem.first_conv"}


def compare(model: MobileNetModel, other: MobileNetModel, *, layers: int = 3, size: int = 32) -> Report:
    """Compare the first few layers: what comes after the fault would only take time."""

    def run(pixels: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        return other.features(pixels, compared_layers(other.graph)[:layers])

    return check(model, against=run, pixel_values=draw_pixels(size))


@pytest.mark.parametrize("kind", STEMS)
def test_symmetric_padding_for_same(kind: str) -> None:
    model = make_network(kind)
    report = compare(model, with_weights(model, {}, tf_padding=False))
    assert not report.agrees
    assert report.first_difference == STEMS[kind]
    assert report.diagnosis == "padding: symmetric, as PyTorch's; ours is SAME"


def test_same_for_symmetric_padding_and_keras_own() -> None:
    model = make_network("v1", tf_padding=False)
    report = compare(model, with_weights(model, {}, tf_padding=True))
    assert report.first_difference == "conv_stem"
    assert report.diagnosis == "padding: SAME, as TensorFlow's; ours is ((1, 1), (1, 1))"
    keras = compare(model, with_weights(model, {}, bottom_right_padding="depthwise"), layers=5, size=33)
    assert keras.first_difference == "layer.2"  # the first depthwise convolution with stride 2, on 17 x 17 pixels
    assert keras.diagnosis == "padding: below and on the right only, as Keras'; ours is ((1, 1), (1, 1))"


@pytest.mark.parametrize("kind", ["v1", "v2"])
def test_another_epsilon(kind: str) -> None:
    model = make_network(kind)
    report = compare(model, with_weights(model, {}, layer_norm_eps=1e-5))
    assert (report.first_difference, report.diagnosis) == (STEMS[kind], "batch norm: epsilon 1e-05; ours is 0.001")


@pytest.mark.parametrize("kind", ["v1", "v2"])
def test_relu_for_relu6(kind: str) -> None:
    model = make_network(kind)
    brighter = with_changed(model, f"{STEMS[kind]}.normalization.bias", lambda shift: shift + 5)
    report = compare(brighter, with_weights(brighter, {}, hidden_act="relu"))
    assert (report.first_difference, report.diagnosis) == (STEMS[kind], "activation: relu; ours is relu6")


def test_relu6_shows_only_where_something_is_above_6() -> None:
    """The other side's ReLU is no difference where no value reaches 6: the first layer is where one does."""
    model = make_network("v2")
    quiet = with_changed(model, "conv_stem.first_conv.normalization.weight", lambda scale: scale / 100)
    report = compare(quiet, with_weights(quiet, {}, hidden_act="relu"), layers=9)
    assert report.first_difference not in (None, "conv_stem.first_conv")
    assert report.diagnosis == "activation: relu; ours is relu6"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda weight: weight.swapaxes(2, 3), "transposed, rows for columns"),
        (lambda weight: weight[..., ::-1, ::-1], "turned by 180 degrees, a true convolution"),
        (lambda weight: weight[..., ::-1], "flipped left to right"),
        (lambda weight: weight[..., ::-1, :], "flipped top to bottom"),
        (
            lambda weight: weight.transpose(2, 3, 0, 1).reshape(weight.shape),
            "in TensorFlow's layout, reshaped where they should be transposed",
        ),
    ],
)
def test_depthwise_kernels_in_another_layout(change, words) -> None:
    model = make_network("v1")
    report = compare(model, with_changed(model, "layer.4.convolution.weight", change), layers=7)
    assert (report.first_difference, report.diagnosis) == ("layer.4", f"weights: depthwise kernels {words}")


def test_a_square_matrix_transposed() -> None:
    model = make_network("v1")  # layer.3 has as many outputs as inputs
    report = compare(
        model, with_changed(model, "layer.13.convolution.weight", lambda weight: weight.swapaxes(0, 1)), layers=15
    )
    assert (report.first_difference, report.diagnosis) == ("layer.13", "weights: 1x1 kernels with inputs for outputs")


@pytest.mark.parametrize("kind", ["v1", "v2"])
def test_bgr_for_rgb(kind: str) -> None:
    model = make_network(kind)
    other = with_changed(model, f"{STEMS[kind]}.convolution.weight", lambda weight: weight[:, ::-1])
    report = compare(model, other)
    assert report.first_difference == STEMS[kind]
    assert report.diagnosis == "channel order: BGR for RGB, or the reverse"


@pytest.mark.parametrize(
    ("words", "mean", "std"),
    [
        ("[0, 1]", (0, 0, 0), (1, 1, 1)),
        ("[0, 255]", (0, 0, 0), (1 / 255, 1 / 255, 1 / 255)),
        ("ImageNet's mean and deviation", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ],
)
def test_another_normalisation_of_the_pixels(words, mean, std) -> None:
    model = make_network("v1")
    colours = np.random.default_rng(2).integers(0, 256, (1, 3, 32, 32)) / 255

    def other(pixels):
        theirs = (colours - np.reshape(mean, (3, 1, 1))) / np.reshape(std, (3, 1, 1))
        return model.features(theirs.astype(np.float32), ["conv_stem", "layer.0", "layer.1"])

    report = check(model, against=other, pixel_values=(colours / 0.5 - 1).astype(np.float32))
    assert report.first_difference == "conv_stem" and len(report.layers) == 3
    assert report.diagnosis == f"normalisation: pixels as {words}; ours are [-1, 1]"
    assert [layer.agrees for layer in report.layers] == [False, True, True]


def test_two_faults_of_the_pixels_at_once() -> None:
    model = make_network("v2")

    def other(pixels):
        return model.features((pixels[:, ::-1] + 1) / 2, ["conv_stem.first_conv"])

    diagnosis = check(model, against=other, pixel_values=draw_pixels()).diagnosis
    assert diagnosis == "normalisation: pixels as [0, 1]; ours are [-1, 1]; and BGR for RGB, or the reverse"


@pytest.mark.parametrize(
    ("ours", "theirs", "words"),
    [
        (11, slice(1, None), "10 for our 11; missing is our first, the background"),
        (11, slice(0, -1), "10 for our 11; missing is our last"),
        (11, np.roll(np.arange(11), 1), "11 as ours, but each one place later, as if after a background"),
        (11, np.roll(np.arange(11), -1), "11 as ours, but each one place earlier, as if without a background"),
        (11, np.r_[0, :11], "12 for our 11; one more in front, as for a background"),
    ],
)
def test_classes_with_and_without_background(ours, theirs, words) -> None:
    model = make_network("v1", num_labels=ours)
    weights = {name: values[theirs] for name, values in model.state_dict().items() if name.startswith("classifier.")}
    other = with_weights(model, weights, num_labels=len(weights["classifier.bias"]))
    report = compare(model, other, layers=29)
    assert (report.first_difference, report.diagnosis) == ("classifier", f"classes: {words}")


@pytest.mark.parametrize("rule", [True, False])
def test_align_corners_of_upsampled_logits(rule: bool) -> None:
    model = make_network("deeplab")

    def other(pixels):
        found = model.features(pixels, ["segmentation_head.conv_projection", "segmentation_head.classifier"])
        logits = found["segmentation_head.classifier"].transpose(0, 2, 3, 1)
        upsampled = reference.resize_bilinear(logits, 33, 33, rule).transpose(0, 3, 1, 2)
        return {**found, "segmentation_head.classifier": upsampled}

    report = check(model, against=other, pixel_values=draw_pixels(33))
    assert report.first_difference == "segmentation_head.classifier"
    assert report.diagnosis == f"resize: upsampled to 33x33 with align_corners={rule}"


def test_align_corners_inside_a_network() -> None:
    random = np.random.default_rng(0)
    x, like = random.normal(size=(1, 3, 4, 2)), np.zeros((1, 7, 9, 1))
    node = Node("upsample", "resize_bilinear", (INPUT, "like"), {"align_corners": True})
    found = reference.resize_bilinear(x.astype(np.float32), 7, 9, False)
    suspect = Suspect((node,), {}, {INPUT: exact(x.astype(np.float32)), "like": exact(like)}, found)
    assert diagnose(suspect) == "resize: align_corners=False; ours is True"


def test_another_output_stride() -> None:
    model = make_network("deeplab")
    report = compare(model, with_weights(model, {}, output_stride=16), layers=24, size=33)
    assert report.first_difference == "layer.5.conv_3x3"
    assert report.diagnosis == "output stride: stride 2 and dilation 1; ours are 1 and 1"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda x: x * np.nan, "values: 459 of 459 are no numbers (459 NaN, 0 infinite)"),
        (
            lambda x: np.where(np.arange(x.size).reshape(x.shape) == 7, np.inf, x),
            "values: 1 of 459 are no numbers (0 NaN, 1 infinite); the others are right",
        ),
        (lambda x: x.transpose(0, 2, 3, 1), "layout: the values are (N, H, W, C); expected were (N, C, H, W)"),
        (lambda x: x.astype(np.float16), "precision: values rounded to float16"),
        (lambda x: np.float32(PRECISIONS["bfloat16"](x)), "precision: values rounded to bfloat16"),
        (lambda x: x[:, :5], "shape: (N, C, H, W) is (1, 5, 3, 3); ours is (1, 51, 3, 3)"),
        (lambda x: np.repeat(x, 2, axis=0), "shape: (N, C, H, W) is (2, 51, 3, 3); ours is (1, 51, 3, 3)"),
    ],
)
def test_what_is_wrong_with_values_themselves(change, words) -> None:
    model = make_network("v1")

    def other(pixels):
        found = model.features(pixels, ["layer.10", "layer.11"])
        return {**found, "layer.11": change(found["layer.11"])}

    report = check(model, against=other, pixel_values=draw_pixels(40))
    assert report.layers[0].name == "layer.10" and report.layers[0].agrees is not False
    assert (report.first_difference, report.diagnosis) == ("layer.11", words)


def test_a_runtime_that_computes_in_bfloat16_is_named() -> None:
    """Weights and values: what comes before a layer is its own, so every layer is judged on rounded inputs."""
    model, rounding = make_network("v1"), PRECISIONS["bfloat16"]
    rounded = with_weights(model, {name: np.float32(rounding(x)) for name, x in model.state_dict().items()})

    def other(pixels):
        return {name: np.float32(rounding(x)) for name, x in rounded.features(pixels, ["conv_stem"]).items()}

    report = check(model, against=other, pixel_values=draw_pixels())
    assert report.diagnosis == "precision: values and weights rounded to bfloat16"


def test_what_is_no_known_fault_gets_no_name() -> None:
    model = make_network("v1")
    noise = np.random.default_rng(3).normal(1, 0.01, (12, 1, 3, 3)).astype(np.float32)
    report = compare(model, with_changed(model, "layer.4.convolution.weight", lambda weight: weight * noise), layers=7)
    assert (report.first_difference, report.diagnosis) == ("layer.4", None)
