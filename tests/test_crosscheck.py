"""Comparing layer by layer: what agrees, where the first difference is, and what the report says of both sides."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import frameworks
import numpy as np
import pytest
import twins
from planted import CLASSES, draw_pixels, make_network, with_changed, with_weights

import minimobile as mm
from minimobile.comparison import bench
from minimobile.comparison.crosscheck import check
from minimobile.comparison.peers import compared_layers
from minimobile.errors import InputError
from minimobile.execution.threads import default_thread_count
from minimobile.models.classes import MobileNetModel
from minimobile.operations.fake_quantization import FakeQuantization, needed_ranges


@pytest.mark.parametrize("kind", CLASSES)
def test_a_network_agrees_with_its_own_definition(kind: str) -> None:
    model = make_network(kind)
    report = check(model, against="reference", pixel_values=draw_pixels())
    assert report.agrees and report.first_difference is None and report.diagnosis is None
    assert [layer.name for layer in report.layers] == compared_layers(model.graph)
    for layer in report.layers:
        assert layer.agrees and layer.excess <= 1 and layer.shape == layer.their_shape
        assert layer.max_difference == layer.rms_difference == layer.max_ulps == layer.median_ulps == 0
        assert layer.our_error == layer.their_error < 1e-5
        assert layer.cosine == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("kind", CLASSES)
def test_one_variance_too_large_is_caught_at_its_layer(kind: str) -> None:
    model = make_network(kind)
    name = "layer.9" if kind == "v1" else "layer.9.reduce_1x1"

    def enlarge(variance):
        variance = variance.copy()
        variance[3] *= 1.3
        return variance

    other = with_changed(model, f"{name}.normalization.running_var", enlarge)
    report = check(model, against="reference", other=other, pixel_values=draw_pixels())
    assert report.first_difference == name
    assert [layer.name for layer in report.layers if not layer.agrees] == [name]  # later ones do right by their input
    (layer,) = [layer for layer in report.layers if layer.name == name]
    assert layer.their_error > 100 * layer.our_error
    (array,) = report.differing_arrays
    assert (array.name.rpartition(".")[2], array.count) == ("running_var", 1)
    assert report.diagnosis == f"weights: {array}"
    assert array.how.startswith(f"1 of {array.size} values differ: at [3] it has ")
    assert array.how.endswith(", 1.3 times ours")


@pytest.mark.parametrize("kind", CLASSES)
def test_what_was_trained_for_quantisation_agrees_with_its_own_definition(kind: str) -> None:
    model = make_network(kind)
    rounded = _train_for_quantisation(model)
    report = check(rounded, against="reference", pixel_values=draw_pixels())
    assert report.agrees and report.diagnosis is None
    plain = check(rounded, against="reference", other=model, pixel_values=draw_pixels())
    assert plain.first_difference == report.layers[0].name


def test_a_function_may_be_the_other_side_and_use_any_name_of_a_layer() -> None:
    model = make_network("v2")
    names = {"layer_15/expansion_output": "layer.12.expand_1x1", "layer_19": "conv_1x1", "classifier": "classifier"}

    def theirs(pixels):
        return model.features(pixels, list(names))

    report = check(model, against=theirs, pixel_values=draw_pixels())
    assert report.agrees and report.against == "theirs"
    assert [layer.name for layer in report.layers] == list(names.values())


def test_layers_that_a_side_does_not_show_are_bridged() -> None:
    """From layer.7 to layer.11 in one step: the bound grows on the way, and a wrong variance still does not fit."""
    model, shown = make_network("v1"), ["layer.7", "layer.11", "classifier"]
    assert check(model, against=lambda x: model.features(x, shown), pixel_values=draw_pixels()).agrees
    other = with_changed(model, "layer.9.normalization.running_var", lambda variance: variance * 1.3)
    report = check(model, against=lambda x: other.features(x, shown), pixel_values=draw_pixels())
    assert [layer.agrees for layer in report.layers] == [True, False, True]


def test_another_shape_is_a_difference_and_has_no_figures() -> None:
    model, other = make_network("v1"), make_network("v1", depth_multiplier=0.5)
    report = check(model, against="reference", other=other, pixel_values=draw_pixels())
    first = report.layers[0]
    assert report.first_difference == first.name == "conv_stem"
    assert (first.shape, first.their_shape) == ((1, 8, 16, 16), (1, 16, 16, 16))
    assert first.max_difference is None and first.cosine is None and first.excess == np.inf
    assert not any(layer.agrees for layer in report.layers if layer.name.startswith("layer."))


def test_not_a_number_is_no_difference_where_both_have_it() -> None:
    model, pixels = make_network("v1"), draw_pixels()
    pixels[0, 0, 5, 5] = np.nan
    report = check(model, against="reference", pixel_values=pixels)
    assert report.first_difference is None and report.layers[0].agrees
    assert report.agrees is report.layers[-1].agrees is None, "where nothing is a number, nothing is examined"
    report = check(model, against=lambda x: {"conv_stem": np.nan_to_num(model.features(x, ["conv_stem"])["conv_stem"])},
                   pixel_values=pixels)  # fmt: skip
    assert report.first_difference == "conv_stem"


class Unreadable:
    """As a tensor that wants gradients."""

    def __array__(self, *arguments: object, **options: object) -> None:
        raise RuntimeError("use tensor.detach().numpy() instead")


def test_misuse_is_one_sentence() -> None:
    model, pixels = make_network("v1"), draw_pixels()
    for words, arguments in (
        (
            "against: expected one of transformers, tensorflow, litert, onnxruntime, openvino, reference, got 'jax'",
            {"against": "jax"},
        ),
        (
            "expected values of some of our layers (conv_stem, layer.0, layer.1, ...), got none",
            {"against": lambda x: {}},
        ),
        ("expected values (N, C, H, W) or (N, C), got shape (3,)", {"against": lambda x: {"layer.0": np.zeros(3)}}),
        ("got shape (1, 0, 1, 1)", {"against": lambda x: {"classifier": np.zeros((1, 0), "f4")}}),
        ("expected values that NumPy can read, got Unreadable", {"against": lambda x: {"layer.0": Unreadable()}}),
        ("expected it to return {layer name: values}, got ndarray; for logits alone", {"against": lambda x: x}),
        ("it failed on (1, 3, 32, 32) (KeyError: 'sesame')", {"against": lambda x: {}["sesame"]}),
        ("InferenceSession or a function, got int", {"against": 5}),
        ("expected `other` with a framework's name", {"against": lambda x: {}, "other": model}),
        (
            "expected a MobileNetV1, as the source is, to compare layers of the same names, got a MobileNetV2For",
            {"other": make_network("v2")},
        ),
        ("got both or neither", {"pixel_values": None}),
        ("expected a model with image-processor settings", {"pixel_values": None, "image": "a.png"}),
    ):
        with pytest.raises(mm.InputError) as caught:
            check(model, **{"pixel_values": pixels, "against": "reference", **arguments})
        assert words in str(caught.value)
    with pytest.raises(mm.UnknownLayerError, match=r"did you mean layer\.1"):
        check(model, against=lambda x: {"layer.01": x}, pixel_values=pixels)


def test_a_missing_framework_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("minimobile.storage.extras.import_module", _missing)
    model = make_network("v1")
    for name in ("transformers", "tensorflow", "litert", "onnxruntime"):
        with pytest.raises(mm.UnavailableError, match=r"not installed; .*minimobile\[crosscheck\]"):
            check(model, against=name, pixel_values=draw_pixels())


def _missing(name: str) -> None:
    raise ImportError(name)


def _train_for_quantisation(model: MobileNetModel) -> MobileNetModel:
    kernels, values = FakeQuantization(-2.0, 2.0, 8, True), FakeQuantization(-6.0, 6.0)
    ranges = {key: kernels if key.endswith(".weight") else values for key in needed_ranges(model.graph)}
    return type(model).from_checkpoint(dataclasses.replace(model.to_checkpoint(), ranges=ranges))


def test_fake_quantisation_is_not_left_out_by_who_does_not_know_it() -> None:
    with pytest.raises(InputError, match="transformers: expected a network of plain floats"):
        check(_train_for_quantisation(make_network("v1")), pixel_values=draw_pixels())


# Against the frameworks themselves.


@pytest.mark.crosscheck
@pytest.mark.parametrize("kind", CLASSES)
def test_tensorflow_rounds_as_in_training_for_quantisation(kind: str) -> None:
    frameworks.tensorflow()
    model = make_network(kind)
    rounded = _train_for_quantisation(model)
    report = check(rounded, against="tensorflow", pixel_values=draw_pixels())
    assert report.agrees, (report.first_difference, report.diagnosis)
    plain = check(rounded, against="tensorflow", other=model, pixel_values=draw_pixels())
    assert plain.first_difference == report.layers[0].name


@pytest.mark.crosscheck
@pytest.mark.parametrize("function", ["leaky_relu", "hardswish", "silu", "gelu", "linear"])
def test_tensorflow_computes_activations_as_they_are_defined(function: str) -> None:
    """Its leaky ReLU has a slope of 0.2 unless it is told another, and it has no hard swish."""
    frameworks.tensorflow()
    report = check(make_network("v1", hidden_act=function), against="tensorflow", pixel_values=draw_pixels())
    assert report.agrees is not False, (report.first_difference, report.diagnosis)


@pytest.mark.crosscheck
@pytest.mark.parametrize("fields", [{"hidden_act": "linear"}, {"hidden_act": "leaky_relu"}, {"pool_size": 1}], ids=str)
@pytest.mark.parametrize("rival", ["torch", "tensorflow"])
def test_rivals_compute_what_a_config_can_ask_for(rival: str, fields: dict[str, object]) -> None:
    pytest.importorskip(rival)
    model = make_network("v1", **fields)
    timings = bench.compare(model.graph, model.state_dict(), (1, 3, 32, 32), [rival], default_thread_count(), 0)
    assert timings[1].difference < bench.AGREEMENT


@pytest.mark.crosscheck
@pytest.mark.parametrize(
    ("kind", "against"),
    [
        *((kind, against) for against in ("transformers", "tensorflow", "onnxruntime") for kind in CLASSES),
        ("deeplab", "litert"),  # converting for it takes seconds
    ],
)
def test_frameworks_agree_and_a_planted_fault_is_found(kind: str, against: str) -> None:
    pytest.importorskip(
        {"transformers": "torch", "litert": "ai_edge_litert"}.get(against, against), reason=f"needs {against}"
    )
    model = make_network(kind)
    report = check(model, against=against, pixel_values=draw_pixels())
    assert report.agrees, (report.first_difference, report.diagnosis)
    assert len(report.layers) > 25
    layer = "layer.8" if kind == "v1" else "layer.9.conv_3x3"
    other = with_changed(model, f"{layer}.convolution.weight", lambda weight: weight.swapaxes(2, 3))
    report = check(model, against=against, other=other, pixel_values=draw_pixels())
    assert report.first_difference == layer
    expected = f"weights: mobilenet_{kind if kind == 'v1' else 'v2'}.{layer}.convolution.weight: kernels transposed"
    assert report.diagnosis == f"{expected}, rows for columns"


@pytest.mark.crosscheck
@pytest.mark.parametrize(
    ("fault", "layer", "diagnosis"),
    [
        ("epsilon", "conv_stem", "batch norm: epsilon 1e-05; ours is 0.001"),
        ("padding", "conv_stem", "padding: symmetric, as PyTorch's; ours is SAME"),
        ("relu", "layer.2", "activation: relu; ours is relu6"),
        ("variance", "layer.9", "batch norm: in channel 3 as if the variance were 1.3 times ours"),
        ("bgr", "conv_stem", "channel order: BGR for RGB, or the reverse"),
    ],
)
def test_pytorch_modules_that_were_tampered_with(fault: str, layer: str, diagnosis: str) -> None:
    """The fault is made in PyTorch, in a transformers model, and nothing of ours takes part in it."""
    torch, transformers = twins.import_torch()
    ours = with_changed(make_network("v1"), "layer.2.normalization.bias", lambda shift: shift + 5)
    network = transformers.MobileNetV1ForImageClassification(twins.twin_config(ours.config)).eval()
    network.load_state_dict({name: torch.tensor(values) for name, values in ours.state_dict().items()}, strict=False)
    modules = dict(network.named_modules())
    if fault == "epsilon":
        for module in modules.values():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.eps = 1e-5
    elif fault == "padding":
        network.config.tf_padding = False
        for module in modules.values():
            if isinstance(module, torch.nn.Conv2d):
                module.padding = ((module.kernel_size[0] - 1) // 2,) * 2
    elif fault == "relu":
        modules["mobilenet_v1.layer.2"].activation = torch.nn.ReLU()
    elif fault == "variance":
        modules["mobilenet_v1.layer.9"].normalization.running_var[3] *= 1.3
    found = {}
    for name, module in modules.items():
        if name.endswith("conv_stem") or name.rpartition(".")[0].endswith("layer"):
            module.register_forward_hook(lambda _, __, y, name=name: found.update({name: y.numpy()}))

    def run(pixels):
        with torch.no_grad():
            network(torch.from_numpy(pixels[:, ::-1].copy() if fault == "bgr" else pixels))
        return found

    report = check(ours, against=run, pixel_values=draw_pixels())
    assert (report.first_difference, report.diagnosis) == (layer, diagnosis)


OWN_FRAMEWORKS = {
    "huggingface/deeplabv3_mobilenet_v2_0.5_257": "transformers",
    "huggingface/deeplabv3_mobilenet_v2_0.5_513_portrait": "transformers",
    "huggingface/mobilenet_v1_0.25_128": "transformers",
    "huggingface/mobilenet_v2_1.0_224": "transformers",
    "keras/mobilenet_v1_0.25_224.h5": "tensorflow",
    "keras/mobilenet_v1_0.25_224.keras": "tensorflow",
    "keras/mobilenet_v1_0.25_224.weights.h5": "tensorflow",
    "tensorflow/deeplabv3_mobilenet_v2_0.5_513_portrait_quant.ckpt": "tensorflow",
    "tensorflow/deeplabv3_mobilenet_v2_0.5_513_portrait_quant_frozen.pb": "tensorflow",
    "tensorflow/mobilenet_v1_0.25_128.ckpt": "tensorflow",
    "tensorflow/mobilenet_v1_0.25_128_frozen.pb": "tensorflow",
    "tflite/deeplabv3_mobilenet_v2_0.5_257_float.tflite": "litert",
    "tflite/deeplabv3_mnv2_dm05_pascal_quant.tflite": "litert",
    "tflite/mobilenet_v1_0.25_128_quant.tflite": "litert",
    "tflite/mobilenet_v1_0.25_96_vww_int8.tflite": "litert",
    "tflite/mobilenet_v2_1.0_224_quant.tflite": "litert",
    "tflite/mobilenet_v1_0.25_224_float.tflite": "litert",
}


@pytest.mark.crosscheck
@pytest.mark.slow
@pytest.mark.parametrize("name", OWN_FRAMEWORKS)
def test_a_real_checkpoint_agrees_with_its_own_framework(name: str, test_data: Path) -> None:
    needed = {"transformers": twins.import_torch, "tensorflow": frameworks.tensorflow, "litert": frameworks.litert}
    needed[OWN_FRAMEWORKS[name]]()
    report = check(test_data / "models" / name, test_data / "images" / "cat.bmp", OWN_FRAMEWORKS[name])
    assert report.agrees, (report.first_difference, report.diagnosis)
    assert len(report.layers) >= 29
    is_quantized = "quant" in name or "int8" in name
    assert all(layer.our_error < (1 if is_quantized else 1e-5) for layer in report.layers)
    if is_quantized and name.startswith("tflite"):  # in integers there is nothing to explain: the same bytes
        assert all(layer.max_difference == 0 for layer in report.layers)


CONVERSIONS = [
    ("huggingface/mobilenet_v1_0.25_128", "tensorflow", "tensorflow/mobilenet_v1_0.25_128_frozen.pb"),
    ("keras/mobilenet_v1_0.25_224.keras", "tensorflow", "keras/mobilenet_v1_0.25_224.h5"),
    (
        "tflite/deeplabv3_mobilenet_v2_0.5_257_float.tflite",
        "transformers",
        "huggingface/deeplabv3_mobilenet_v2_0.5_257",  # whose batch norms fold to the others' weights, but for rounding
    ),
]


@pytest.mark.crosscheck
@pytest.mark.slow
@pytest.mark.parametrize(("name", "against", "other"), CONVERSIONS)
def test_a_conversion_agrees_with_its_original(name: str, against: str, other: str, test_data: Path) -> None:
    (twins.import_torch if against == "transformers" else frameworks.tensorflow)()
    models = test_data / "models"
    report = check(models / name, test_data / "images" / "cat.bmp", against, models / other)
    assert report.agrees, (report.first_difference, report.diagnosis)


@pytest.mark.crosscheck
@pytest.mark.slow
def test_a_conversion_with_the_padding_of_pytorch_is_caught(test_data: Path) -> None:
    frameworks.tensorflow()
    original = test_data / "models" / "tensorflow" / "mobilenet_v1_0.25_128_frozen.pb"
    wrong = with_weights(mm.load(original), {}, tf_padding=False)
    report = check(wrong, test_data / "images" / "cat.bmp", "tensorflow", original)
    assert report.first_difference == "conv_stem"
    assert report.diagnosis == "padding: SAME, as TensorFlow's; ours is ((1, 1), (1, 1))"
