"""The model classes: calls, outputs, loading, saving; as cross-checks, transformers with the same weights."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
import threading

import numpy as np
import pytest
import twins
from hypothesis import HealthCheck, given, settings
from judgement import assert_agrees
from quantized_files import write_quantized
from spelling import random_weights, spell

import minimobile as mm
from minimobile.execution.runner import FloatRunner
from minimobile.formats.checkpoint import Checkpoint
from minimobile.networks.build_graph import build_graph
from minimobile.networks.graph import Node
from minimobile_kernels import elf

TINY = {"depth_multiplier": 0.1, "min_depth": 4}
V1 = mm.MobileNetV1Config(**TINY, num_labels=5)
V2 = mm.MobileNetV2Config(**TINY, depth_divisible_by=4, finegrained_output=False, num_labels=5)
CLASSES = [
    (mm.MobileNetV1Model, V1),
    (mm.MobileNetV1ForImageClassification, V1),
    (mm.MobileNetV2Model, V2),
    (mm.MobileNetV2ForImageClassification, V2),
    (mm.MobileNetV2ForSemanticSegmentation, V2),
]


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(0).uniform(-1, 1, (2, 3, 33, 40)).astype(np.float32)


def make(model_class, config, seed=0, **options):
    return model_class(config.replace(initializer_range=0.3), seed=seed, **options)


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


def test_random_weights_follow_the_seed():
    one, same, other = (mm.MobileNetV1Model(V1, seed=seed).state_dict() for seed in (1, 1, 2))
    name = "mobilenet_v1.layer.3.convolution.weight"
    assert np.array_equal(one[name], same[name]) and not np.array_equal(one[name], other[name])
    assert np.std(one["mobilenet_v1.layer.25.convolution.weight"]) == pytest.approx(0.02, rel=0.05)
    assert set(np.unique(one["mobilenet_v1.layer.3.normalization.running_var"])) == {1.0}


def test_weights_are_shared_and_cannot_be_changed(pixels):
    model = make(mm.MobileNetV1ForImageClassification, V1)
    twin = mm.MobileNetV1Model.from_checkpoint(model.to_checkpoint())
    name = "mobilenet_v1.conv_stem.convolution.weight"
    assert np.shares_memory(model.state_dict()[name], twin.state_dict()[name])
    with pytest.raises(ValueError, match="read-only"):
        model.state_dict()[name][0] = 1
    assert np.array_equal(twin(pixels).pooler_output, model.features(pixels, ["pooler"])["pooler"])


@pytest.mark.parametrize(("model_class", "config"), CLASSES)
def test_saving_and_loading_keeps_every_bit(model_class, config, pixels, tmp_path):
    model = make(model_class, config.replace(id2label={i: f"name {i}" for i in range(5)}))
    model.save_pretrained(tmp_path / "directory")
    model.save(tmp_path / "native.h5")
    expected = model(pixels)[0]
    for name in ("directory", "native.h5"):
        loaded = mm.load(tmp_path / name)
        assert type(loaded) is model_class and loaded.id2label[3] == "name 3" and loaded.processor is None
        assert np.array_equal(loaded(pixels)[0], expected)
        assert loaded.config == model.config.replace(architectures=(model_class.__name__,))
    auto = mm.AutoConfig.from_pretrained(tmp_path / "directory", output_stride=8)
    assert auto == mm.AutoConfig.from_pretrained(tmp_path / "native.h5", output_stride=8) and auto.output_stride == 8


def test_config_overrides(pixels, tmp_path):
    make(mm.MobileNetV2ForImageClassification, V2).save_pretrained(tmp_path)
    plain = mm.load(tmp_path)
    for loaded in (
        mm.load(tmp_path, tf_padding=False, output_stride=8),
        mm.MobileNetV2ForImageClassification.from_pretrained(tmp_path, tf_padding=False, output_stride=8),
        mm.AutoModelForImageClassification.from_pretrained(
            tmp_path, config=plain.config.replace(tf_padding=False, output_stride=8)
        ),
        mm.MobileNetV2ForImageClassification.from_pretrained(
            tmp_path, config={**plain.config.to_dict(), "tf_padding": False}, output_stride=8
        ),
    ):
        assert (loaded.config.tf_padding, loaded.config.output_stride) == (False, 8)
        assert loaded.features(pixels, [-1])[-1].shape[2:] == (5, 5)
    with pytest.raises(mm.ConfigError, match="output_strides"):
        mm.load(tmp_path, output_strides=8)
    with pytest.raises(mm.FormatError, match=r"classifier\.weight"):
        mm.load(tmp_path, num_labels=7)


def test_a_head_may_be_left_out_but_not_made_up(tmp_path):
    make(mm.MobileNetV1ForImageClassification, V1).save_pretrained(tmp_path / "full")
    bare = mm.MobileNetV1Model.from_pretrained(tmp_path / "full")
    assert "classifier.weight" not in bare.state_dict()
    bare.save_pretrained(tmp_path / "bare")
    with pytest.raises(mm.FormatError, match=r"expected the head classifier\.weight, classifier\.bias"):
        mm.MobileNetV1ForImageClassification.from_pretrained(tmp_path / "bare")


def test_missing_unexpected_and_misshapen_weights_are_all_named():
    weights = make(mm.MobileNetV1ForImageClassification, V1).state_dict()
    del weights["mobilenet_v1.layer.3.convolution.weight"], weights["mobilenet_v1.layer.4.normalization.bias"]
    weights["mobilenet_v1.layer.26.convolution.weight"] = np.zeros((1, 1, 3, 3), np.float32)
    weights["classifier.bias"] = np.zeros(7, np.float32)
    with pytest.raises(mm.FormatError) as caught:
        mm.MobileNetV1ForImageClassification.from_checkpoint(
            Checkpoint(V1, weights, "MobileNetV1ForImageClassification")
        )
    for name in (
        "layer.3.convolution.weight",
        "layer.4.normalization.bias",
        "layer.26.convolution.weight",
        "(7,)",
        "(5,)",
    ):
        assert name in str(caught.value)


def test_segmentation_does_without_the_last_convolution(pixels):
    model = make(mm.MobileNetV2ForSemanticSegmentation, V2)
    weights = {name: values for name, values in model.state_dict().items() if ".conv_1x1." not in name}
    lean = mm.MobileNetV2ForSemanticSegmentation.from_checkpoint(
        Checkpoint(V2, weights, "MobileNetV2ForSemanticSegmentation")
    )
    assert np.array_equal(lean(pixels).logits, model(pixels).logits)
    with pytest.raises(mm.UnknownLayerError):
        lean.features(pixels, ["conv_1x1"])


def test_a_model_of_another_generation(tmp_path):
    make(mm.MobileNetV1Model, V1).save_pretrained(tmp_path)
    with pytest.raises(mm.ConfigError, match="expected a MobileNetV2Config, got MobileNetV1Config"):
        mm.MobileNetV2Model.from_pretrained(tmp_path)
    with pytest.raises(mm.ConfigError, match="AutoModelForSemanticSegmentation: expected a model_type of mobilenet_v2"):
        mm.AutoModelForSemanticSegmentation.from_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "model_type": "resnet"}))
    with pytest.raises(mm.ConfigError, match="resnet"):
        mm.load(tmp_path)
    shutil.rmtree(tmp_path)
    with pytest.raises(mm.FormatError, match="no such file"):
        mm.load(tmp_path)


@pytest.mark.parametrize(
    ("source", "message"),
    [("", "expected a path, a hub id"), (None, "got None"), ("demo:letters", "demo:digits, demo:scenes")],
)
def test_sources_that_are_none(source, message):
    with pytest.raises(mm.FormatError, match=message):
        mm.load(source)


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
        ([np.zeros((3, 8, 8)), np.zeros((3, 9, 8))], {}, "NumPy cannot read it"),
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


def test_classify_names_the_likeliest_first(tmp_path):
    model = make(mm.MobileNetV1ForImageClassification, V1.replace(id2label=dict(enumerate("abcde"))))
    settings_ = {"size": {"shortest_edge": 36}, "crop_size": {"height": 32, "width": 32}}
    settings_["image_processor_type"] = "MobileNetV1ImageProcessor"
    model = type(model).from_checkpoint(dataclasses.replace(model.to_checkpoint(), processor=settings_))
    model.save_pretrained(tmp_path)
    image = np.random.default_rng(0).integers(0, 256, (50, 60, 3), np.uint8)
    found = mm.classify(image, tmp_path, top=3)
    logits = model(model.processor(image, return_tensors="np")["pixel_values"]).logits[0]
    assert [item["index"] for item in found] == np.argsort(-logits, kind="stable")[:3].tolist()
    assert [item["label"] for item in found] == ["abcde"[item["index"]] for item in found]
    everything = mm.classify(image, model, top=50)
    assert len(everything) == 5 and sum(item["probability"] for item in everything) == pytest.approx(1, abs=1e-12)
    json.dumps(everything)
    with pytest.raises(mm.InputError, match="top"):
        mm.classify(image, model, top=0)
    with pytest.raises(mm.InputError, match="image-processor settings"):
        mm.classify(image, make(mm.MobileNetV1ForImageClassification, V1))
    with pytest.raises(mm.InputError, match="expected one for image classification"):
        mm.classify(image, make(mm.MobileNetV1Model, V1))


def test_auto_classes_from_a_config():
    assert type(mm.AutoModel.from_config(V2)) is mm.MobileNetV2Model
    assert type(mm.AutoModelForImageClassification.from_config(V1)) is mm.MobileNetV1ForImageClassification
    assert type(mm.AutoModelForSemanticSegmentation.from_config(V2)) is mm.MobileNetV2ForSemanticSegmentation
    assert mm.AutoConfig.for_model("mobilenet_v1", num_labels=3).num_labels == 3
    with pytest.raises(mm.ConfigError):
        mm.AutoConfig.for_model("bert")


def test_every_public_name_is_there():
    assert all(hasattr(mm, name) for name in mm.__all__) and sorted(mm.__all__) == mm.__all__
    assert set(mm.__all__) <= set(dir(mm))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        mm.nothing  # noqa: B018


def test_importing_the_package_loads_no_compiler():
    code = "import sys, minimobile; sys.exit('numba' in sys.modules or 'PIL' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("kind", ["floats", "bytes"])
def test_a_network_runs_without_the_compiler_once_its_machine_code_is_on_disk(tmp_path, kind):
    path = tmp_path / "model.tflite"
    if kind == "bytes":
        graph = build_graph(mm.MobileNetV1Config(depth_multiplier=0.25), "MobileNetV1ForImageClassification")
        path.write_bytes(write_quantized(spell(graph, random_weights(graph), folded=True), (64, 64)).write())
    source = str(path) if kind == "bytes" else "demo:digits"
    code = (
        "import sys, numpy as np, minimobile as mm\n"
        f"model = mm.load({source!r})\n"
        "print(len(model(np.zeros((1, 3, 64, 64), 'f4')).logits), sorted({'numba', 'h5py'} & set(sys.modules)))\n"
        "print('llvmlite' in sys.modules)"
    )
    mm.load(source)(np.zeros((1, 3, 64, 64), np.float32))  # on disk from now on
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == f"1 []\n{not elf.is_for_this_system()}\n", done.stderr


# --- against transformers ---


@pytest.mark.crosscheck
def test_random_networks_are_at_least_as_exact_as_pytorch():
    torch, _ = twins.import_torch()
    ratios = []

    @settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), database=None)
    @given(twins.cases())
    def compare(case):
        class_name, config, shape = case
        twin = twins.make_twin(class_name, config, seed=len(ratios))
        image = np.random.default_rng(len(ratios)).normal(size=shape).astype(np.float32)
        with torch.no_grad():
            theirs = twin.float32(torch.from_numpy(image), output_hidden_states=True)
            truth = twin.float64(torch.from_numpy(image.astype(np.float64)), output_hidden_states=True)
        ours = twin.ours(image, output_hidden_states=True)
        assert list(ours) == list(theirs)
        for name in ours:
            if name != "hidden_states":
                ratios.append(_compare(ours[name], theirs[name], truth[name]))
            else:
                assert len(ours[name]) == len(theirs[name])
                for triple in zip(ours[name], theirs[name], truth[name], strict=True):
                    ratios.append(_compare(*triple))

    compare()
    known = [ratio for ratio in ratios if ratio is not None]
    mean = np.exp(np.mean(np.log(known)))
    print(f"rms error over PyTorch's: {mean:.3f} (geometric mean of {len(known)} outputs)")
    assert len(known) > 500 and mean <= 1


def _compare(ours, theirs, truth):
    """Return our rms error over PyTorch's; None where neither says anything (both exact)."""
    theirs, truth = theirs.numpy(), truth.numpy()
    assert ours.shape == truth.shape and ours.dtype == np.float32
    scale = max(twins.rms(truth), 1e-30)
    assert twins.rms(ours - truth) <= 2e-5 * scale + 1e-7, (twins.rms(ours - truth), scale)
    error, other = twins.rms(ours - truth), twins.rms(theirs - truth)
    return error / other if error > 1e-7 * 1e-3 * scale and other > 1e-7 * 1e-3 * scale else None


@pytest.mark.crosscheck
@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("mobilenet_v1_0.25_128", 128),
        ("mobilenet_v2_1.0_224", 224),
        ("deeplabv3_mobilenet_v2_0.5_257", 257),
        ("deeplabv3_mobilenet_v2_0.5_513_portrait", 257),
    ],
)
def test_real_checkpoints_against_transformers(name, size):
    torch, transformers = twins.import_torch()
    image_file = twins.test_data() / "images" / "cat.bmp"
    directory = twins.test_data() / "models" / "huggingface" / name
    ours = mm.load(directory)
    theirs = getattr(transformers, type(ours).__name__).from_pretrained(directory).eval()
    processor = ours.processor
    picture = _open(image_file)
    image = processor(picture, size={"shortest_edge": size}, crop_size={"height": size, "width": size},
                      return_tensors="np")["pixel_values"]  # fmt: skip
    labels = np.array([282]) if "deeplab" not in name else np.arange(99 * 80).reshape(1, 99, 80) % 2
    found = ours(image, labels=labels, output_hidden_states=True)
    with torch.no_grad():
        tensors = {"labels": torch.from_numpy(labels), "output_hidden_states": True}
        expected = theirs(torch.from_numpy(image), **tensors)
        truth = theirs.double()(torch.from_numpy(image.astype(np.float64)), **tensors)
    assert list(found) == list(expected)
    ratios = [_compare(found.logits, expected.logits, truth.logits)]
    ratios += [
        _compare(*triple)
        for triple in zip(found.hidden_states, expected.hidden_states, truth.hidden_states, strict=True)
    ]
    ratios = [ratio for ratio in ratios if ratio is not None]
    mean = np.exp(np.mean(np.log(ratios)))
    print(f"{name}: rms error over PyTorch's {mean:.3f}, loss {found.loss} against {float(truth.loss)}")
    # One network on one picture can go either way: the rounding of folded weights is the same error at every pixel,
    # and layers hand it on. The mean over many networks is the test above.
    assert_agrees(ours, image, {ours.graph.outputs[0]: expected.logits.numpy()})
    assert found.loss == pytest.approx(float(truth.loss), rel=2e-5)
    features = mm.AutoModel.from_pretrained(directory)
    bare = (
        getattr(transformers, type(mm.AutoModel.from_pretrained(directory)).__name__).from_pretrained(directory).eval()
    )
    with torch.no_grad():
        pooled = bare(torch.from_numpy(image)).pooler_output.numpy()
    assert_agrees(features, image, {"pooler": pooled})


def _open(path):
    from PIL import Image

    return Image.open(path).convert("RGB")


@pytest.mark.crosscheck
@pytest.mark.parametrize(("model_class", "config"), CLASSES)
def test_transformers_reads_back_what_we_save(model_class, config, pixels, tmp_path):
    torch, transformers = twins.import_torch()
    model = make(model_class, config)
    model.save_pretrained(tmp_path)
    theirs, report = getattr(transformers, model_class.__name__).from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    with torch.no_grad():
        expected = theirs.eval()(torch.from_numpy(pixels))[0].numpy()
    assert_agrees(model, pixels, {model.graph.outputs[0]: expected})
    theirs.save_pretrained(tmp_path / "again")
    assert np.array_equal(mm.load(tmp_path / "again")(pixels)[0], model(pixels)[0])


@pytest.mark.crosscheck
@pytest.mark.parametrize("asks_states", [True, False])
@pytest.mark.parametrize("has_labels", [True, False])
@pytest.mark.parametrize(("model_class", "config"), CLASSES)
def test_records_and_tuples_are_those_of_transformers(model_class, config, has_labels, asks_states, pixels):
    torch, _ = twins.import_torch()
    twin = twins.make_twin(model_class.__name__, config)
    labels = {"labels": np.zeros((2, 9, 9) if "Segmentation" in model_class.__name__ else 2, np.int64)}
    labels = labels if has_labels and not issubclass(model_class, mm.models.classes._Backbone) else {}
    for return_dict in (True, False):
        options = {"output_hidden_states": asks_states, "return_dict": return_dict}
        ours = twin.ours(pixels, **labels, **options)
        with torch.no_grad():
            tensors = {name: torch.from_numpy(values) for name, values in labels.items()}
            theirs = twin.float32(torch.from_numpy(pixels), **tensors, **options)
        assert type(ours).__name__ == type(theirs).__name__ and list(map(_outline, ours)) == list(map(_outline, theirs))
        if return_dict:
            assert [_outline(item) for item in ours.to_tuple()] == [_outline(item) for item in theirs.to_tuple()]


def _outline(item):
    return list(map(_outline, item)) if isinstance(item, tuple) else getattr(item, "shape", item)


@pytest.mark.crosscheck
def test_tensors_are_taken_like_arrays(pixels):
    torch, _ = twins.import_torch()
    model = make(mm.MobileNetV1ForImageClassification, V1)
    out = model(torch.from_numpy(pixels), labels=torch.tensor([1, 2]))
    assert np.array_equal(out.logits, model(pixels).logits) and out.loss == model(pixels, labels=[1, 2]).loss
    with pytest.raises(mm.InputError, match="NumPy cannot read it"):
        model(torch.from_numpy(pixels).requires_grad_())


def test_node_names_do_not_clash_with_aliases():
    for model_class, config in CLASSES:
        graph = model_class.build(config)
        names = {node.name for node in graph.nodes if isinstance(node, Node)}
        clashes = {alias for alias, name in graph.aliases.items() if alias in names and alias != name}
        assert not clashes
