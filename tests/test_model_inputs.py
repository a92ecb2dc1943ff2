"""What a model takes as pixels and as the names of layers, and how it refuses the rest."""

from __future__ import annotations

import numpy as np
import pytest
import twins
from tiny_models import V1, make

import minimobile as mm


@pytest.mark.parametrize(
    ("values", "options", "message"),
    [
        (None, {}, "you have to specify pixel_values"),
        (np.zeros((3, 32, 32)), {}, r"expected \(N, C, H, W\), got shape \(3, 32, 32\); add an axis"),
        (np.zeros((1, 1, 3, 32, 32)), {}, r"got shape \(1, 1, 3, 32, 32\)$"),
        (np.zeros((1, 32, 32, 3)), {}, "say data_format='channels_last'"),
        (np.zeros((1, 3, 32, 32)), {"data_format": "channels_last"}, "say data_format='channels_first'"),
        (np.zeros((1, 4, 32, 32)), {}, r"expected 3 channels in \(N, C, H, W\), got shape \(1, 4, 32, 32\)$"),
        (np.zeros((1, 3, 0, 32)), {}, "at least 1x1 pixels"),
        (np.zeros((0, 3, 32, 32)), {}, "at least one image"),
        (np.zeros((1, 3, 8, 8), complex), {}, "got complex128"),
        (np.zeros((1, 3, 8, 8), bool), {}, "got bool"),
        (np.zeros((1, 3, 8, 8), object), {}, "got object"),
        (np.full((1, 3, 8, 8), "a"), {}, "got <U1"),
        ("photo.jpg", {}, "got <U9"),
        ([np.zeros((3, 8, 8)), np.zeros((3, 9, 8))], {}, "that NumPy cannot read"),
        (np.full((1, 3, 8, 8), 1e39), {}, "float32 can hold"),
        (np.full((1, 3, 8, 8), 2**24 + 1), {}, "expected integers up to 16777216"),
        (np.zeros((1, 3, 8, 8)), {"data_format": "NCHW"}, "channels_first or channels_last, got 'NCHW'"),
        (np.zeros((1, 3, 8, 8)), {"output_hidden_states": "layer.3"}, "expected a list of layer names"),
        (np.zeros((1, 3, 8, 8)), {"output_hidden_states": 3}, "expected a list of layer names"),
    ],
)  # fmt: skip
def test_inputs_that_do_not_fit(values, options, message):
    with pytest.raises(mm.InputError, match=message):
        make(mm.MobileNetV1Model, V1)(values, **options)


def test_what_a_mask_hides_is_not_computed_with(pixels):
    model = make(mm.MobileNetV1ForImageClassification, V1)
    hidden = np.ma.masked_array(pixels, mask=pixels > 0)
    ways = {
        "pixel_values": lambda: model(hidden),
        "pixel_values, one by one": lambda: model(list(hidden)),
        "pixel_values, channel by channel": lambda: model([list(picture) for picture in hidden]),
        "labels": lambda: model(pixels, labels=np.ma.masked_array([1] * len(pixels), mask=[True] * len(pixels))),
        "image": lambda: mm.load("demo:digits").processor(hidden[0]),
        "state_dict": lambda: mm.load("demo:digits", state_dict={"classifier.bias": hidden[0, 0, 0]}),
        "run_quantized": lambda: model.run_quantized(hidden),
    }
    for name, call in ways.items():
        with pytest.raises(mm.InputError, match=rf"{name.split(',')[0]}.*got a masked one; .*filled\(\)"):
            call()
    shown = np.ma.masked_array(pixels)  # hides nothing
    assert np.array_equal(model(shown).logits, model(pixels).logits)


@pytest.mark.parametrize("layer", ["Conv2d_14_pointwise", 26, -27, 1.5, None, True])
def test_layers_that_are_not_there(layer, pixels):
    with pytest.raises(mm.UnknownLayerError, match="layer"):
        make(mm.MobileNetV1Model, V1).features(pixels, ["layer.0", layer])


@pytest.mark.parametrize("dtype", ["float16", "float64", "uint8", "int64", ">f4"])
def test_other_number_types_are_converted(dtype):
    model = make(mm.MobileNetV1Model, V1)
    values = np.random.default_rng(0).integers(0, 5, (1, 3, 16, 16))
    expected = model(values.astype(np.float32)).pooler_output
    assert np.array_equal(model(values.astype(dtype)).pooler_output, expected)
    assert np.array_equal(model(list(values.astype(dtype))).pooler_output, expected)


def test_nan_and_infinity_pass_through():
    values = np.zeros((2, 3, 8, 8), np.float64)
    values[0, 0, 0, 0] = np.nan
    values[1, 0, 0, 0] = np.inf
    found = make(mm.MobileNetV1Model, V1.replace(hidden_act="linear"))(values).pooler_output
    assert np.isnan(found[0]).any() and not np.isfinite(found[1]).all()


@pytest.mark.crosscheck
def test_tensors_are_taken_like_arrays(pixels):
    torch, _ = twins.import_torch()
    model = make(mm.MobileNetV1ForImageClassification, V1)
    out = model(torch.from_numpy(pixels), labels=torch.tensor([1, 2]))
    assert np.array_equal(out.logits, model(pixels).logits) and out.loss == model(pixels, labels=[1, 2]).loss
    with pytest.raises(mm.InputError, match="that NumPy cannot read"):
        model(torch.from_numpy(pixels).requires_grad_())
