"""The model classes: what a call gives, by which names, from which engine."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from tiny_models import CLASSES, V1, V2, make

import minimobile as mm
from minimobile.execution.runner import FloatRunner
from minimobile.networks.graph import Node


def test_a_classifier_gives_logits_by_attribute_key_and_index(pixels):
    model = make(mm.MobileNetV1ForImageClassification, V1)
    out = model(pixels)
    assert out.logits.shape == (2, 5) and out.logits.dtype == np.float32
    assert out["logits"] is out.logits and out[0] is out.logits and out.to_tuple() == (out.logits,)
    assert out.loss is None and list(out) == ["logits"]


@pytest.mark.parametrize(("model_class", "config"), CLASSES)
def test_reference_and_compiled_engine_agree_to_the_bit(model_class, config, pixels):
    compiled = make(model_class, config)(pixels, output_hidden_states=True)
    reference = make(model_class, config, engine="reference")(pixels, output_hidden_states=True)
    for name in compiled:
        pairs = [(compiled[name], reference[name])]
        for ours, truth in zip(*pairs[0], strict=True) if name == "hidden_states" else pairs:
            assert np.array_equal(ours, truth), name


@pytest.mark.parametrize(("model_class", "config"), CLASSES)
def test_channels_last_is_the_same_transposed(model_class, config, pixels):
    model = make(model_class, config)
    first = model(pixels, output_hidden_states=[0, -1])
    last = model(pixels.transpose(0, 2, 3, 1), output_hidden_states=[0, -1], data_format="channels_last")
    assert list(first) == list(last)
    for ours, other in zip(first.hidden_states, last.hidden_states, strict=True):
        assert np.array_equal(ours.transpose(0, 2, 3, 1), other)
    name = "logits" if "logits" in first else "last_hidden_state"
    axes = (0, 2, 3, 1) if first[name].ndim == 4 else (0, 1)
    assert np.array_equal(first[name].transpose(axes), last[name])


def test_hidden_states_as_transformers_counts_them(pixels):
    v1 = make(mm.MobileNetV1Model, V1)(pixels, output_hidden_states=True)
    assert len(v1.hidden_states) == 26 and np.array_equal(v1.hidden_states[-1], v1.last_hidden_state)
    v2 = make(mm.MobileNetV2Model, V2)(pixels, output_hidden_states=True)
    assert len(v2.hidden_states) == 16 and v2.hidden_states[-1].shape[1] != v2.last_hidden_state.shape[1]
    assert make(mm.MobileNetV2Model, V2)(pixels).hidden_states is None
    assert len(make(mm.MobileNetV1Model, V1.replace(output_hidden_states=True))(pixels).hidden_states) == 26


def test_chosen_hidden_states_come_in_the_order_asked(pixels):
    model = make(mm.MobileNetV2ForImageClassification, V2)
    every = model(pixels, output_hidden_states=True).hidden_states
    chosen = model(pixels, output_hidden_states=["layer_15/expansion_output", 3, "layer.0", -1, 3]).hidden_states
    assert [state.shape[1] for state in chosen[:1]] == [
        model.graph.shapes["mobilenet_v2.layer.12.expand_1x1.convolution.weight"][0]
    ]
    for index, state in zip((3, 0, 15, 3), chosen[1:], strict=True):
        assert np.array_equal(state, every[index])
    assert model(pixels, output_hidden_states=[]).hidden_states == ()


def test_features_by_every_kind_of_name(pixels):
    model = make(mm.MobileNetV1ForImageClassification, V1)
    names = ["Conv2d_11_pointwise", "layer.21", 21, "mobilenet_v1.layer.21", "pooler_output", "logits"]
    found = model.features(pixels, names)
    assert list(found) == names
    for name in names[1:4]:
        assert np.array_equal(found[name], found["Conv2d_11_pointwise"])
    assert found["pooler_output"].shape == (2, model.graph.shapes["classifier.weight"][1])
    assert np.array_equal(found["logits"], model(pixels).logits)


class Recorder(FloatRunner):
    """A runner that notes what it is asked for."""

    dtype = np.dtype(np.float32)

    def __init__(self, graph):
        super().__init__(graph)
        self.asked = []

    def run(self, pixel_values, outputs, data_format):
        self.asked.append(outputs)
        return {name: np.zeros((len(pixel_values), 5, 2, 2), np.float32) for name in outputs}


def test_segmentation_never_asks_for_the_last_convolution(pixels):
    model = make(mm.MobileNetV2ForSemanticSegmentation, V2)
    model._runner = Recorder(model.graph)
    model(pixels, output_hidden_states=True)
    assert "conv_1x1" not in model._runner.asked[0] and "segmentation_head.classifier" in model._runner.asked[0]
    model.features(pixels, ["last_hidden_state"])
    assert model._runner.asked[1] == ("conv_1x1",)


def test_tuples_as_transformers_gives_them(pixels):
    labels = np.array([1, 2])
    v1 = make(mm.MobileNetV1Model, V1)
    assert [np.ndim(item) for item in v1(pixels, return_dict=False)] == [4, 2]
    assert isinstance(make(mm.MobileNetV1Model, V1.replace(return_dict=False))(pixels), tuple)
    classifier = make(mm.MobileNetV1ForImageClassification, V1)
    loss, logits, states = classifier(pixels, labels=labels, output_hidden_states=True, return_dict=False)
    assert loss.shape == () and logits.shape == (2, 5) and len(states) == 26
    segmenter = make(mm.MobileNetV2ForSemanticSegmentation, V2)
    assert len(segmenter(pixels, return_dict=False)) == 1


def test_without_a_pooling_layer(pixels, tmp_path):
    model = mm.MobileNetV2Model(V2, add_pooling_layer=False)
    assert model(pixels).pooler_output is None and len(model(pixels).to_tuple()) == 1
    model.save_pretrained(tmp_path)
    for loaded in (
        mm.MobileNetV2Model.from_pretrained(tmp_path, add_pooling_layer=False),
        mm.AutoModel.from_pretrained(tmp_path, add_pooling_layer=False),
    ):
        assert loaded(pixels).pooler_output is None
    assert mm.MobileNetV2Model.from_pretrained(tmp_path)(pixels).pooler_output.shape[0] == 2
    with pytest.raises(mm.InputError, match="only for a model without a head"):
        mm.MobileNetV1ForImageClassification(V1, add_pooling_layer=False)


def test_no_labels_means_pooled_features(pixels):
    model = make(mm.MobileNetV2ForImageClassification, V2.replace(num_labels=0))
    assert np.array_equal(model(pixels).logits, model.features(pixels, ["pooler"])["pooler"])


@pytest.mark.parametrize(("model_class", "config", "size"), [
    (mm.MobileNetV1ForImageClassification, V1, (2, 3)),
    (mm.MobileNetV2ForImageClassification, V2, (3, 5)),
])  # fmt: skip
def test_a_fixed_window_gives_a_map_of_logits(model_class, config, size):
    model = make(model_class, config.replace(pool_size=2, output_stride=8))
    height, width = (8 * (size[0] + 1), 8 * (size[1] + 1)) if config is V2 else (8 * 2 * size[0], 8 * 2 * size[1])
    image = np.random.default_rng(1).normal(size=(2, 3, height, width)).astype(np.float32)
    logits = model(image).logits
    assert logits.shape == (2, 5, *size)
    assert model(image[..., :9, :9]).logits.shape == (2, 5)  # a map of 2 x 2
    with pytest.raises(mm.InputError, match="a single pixel"):
        model(image, labels=[0, 1])


def test_float64_needs_the_reference_engine(pixels):
    truth = make(mm.MobileNetV1Model, V1, engine="reference", dtype="float64")(pixels).pooler_output
    assert truth.dtype == np.float64
    assert np.allclose(truth, make(mm.MobileNetV1Model, V1)(pixels).pooler_output, rtol=1e-4, atol=1e-5)
    with pytest.raises(mm.InputError, match="float64"):
        make(mm.MobileNetV1Model, V1, dtype="float64")


def test_many_threads_may_call_one_model(pixels):
    model = make(mm.MobileNetV2ForImageClassification, V2)
    expected, found = model(pixels).logits, [None] * 8

    def call(index):
        found[index] = model(pixels).logits

    threads = [threading.Thread(target=call, args=(index,)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(logits, expected) for logits in found)


def test_node_names_do_not_clash_with_aliases():
    for model_class, config in CLASSES:
        graph = model_class.build(config)
        names = {node.name for node in graph.nodes if isinstance(node, Node)}
        clashes = {alias for alias, name in graph.aliases.items() if alias in names and alias != name}
        assert not clashes
