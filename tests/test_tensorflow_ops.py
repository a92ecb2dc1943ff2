"""Frozen graphs against TensorFlow itself, run live: published, built here in slim's ways, and from Keras."""

from __future__ import annotations

import tracemalloc

import frameworks
import numpy as np
import pytest
from judgement import assert_agrees
from PIL import Image
from slim_graphs import Slim

import minimobile as mm
from minimobile import formats

pytestmark = [pytest.mark.crosscheck, pytest.mark.filterwarnings("ignore::DeprecationWarning")]

PUBLISHED = "tensorflow/mobilenet_v1_0.25_128_frozen.pb"


def run(graph_def, outputs, feed):
    """Return tensors, named as nodes are, as TensorFlow computes them."""
    tf = frameworks.tensorflow()
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(graph_def, name="")
        with tf.compat.v1.Session(graph=graph) as session:
            return session.run([f"{name}:0" for name in outputs], {f"{name}:0": x for name, x in feed.items()})


def channels_first(x):
    return x.transpose(0, 3, 1, 2) if x.ndim == 4 else x


def parse(path):
    graph_def = frameworks.tensorflow().compat.v1.GraphDef()
    graph_def.ParseFromString(path.read_bytes())
    return graph_def


@pytest.mark.parametrize("name", ["cat.bmp", "parrot.jpg"])
def test_the_published_graph_gives_tensorflows_numbers_at_every_layer(test_data, name):
    path = test_data / "models" / PUBLISHED
    checkpoint = formats.read(path)
    model = mm.load(path)
    x = model.processor(Image.open(test_data / "images" / name), return_tensors="np")["pixel_values"]
    expected = run(parse(path), checkpoint.endpoints.values(), {"input": x.transpose(0, 2, 3, 1)})
    assert len(expected) == 29
    assert_agrees(model, x, dict(zip(checkpoint.endpoints, map(channels_first, expected), strict=True)))
    assert checkpoint.endpoints["conv_stem"] == "MobilenetV1/MobilenetV1/Conv2d_0/Relu6"


@pytest.mark.parametrize("other", ["tensorflow/mobilenet_v1_0.25_128.ckpt", "huggingface/mobilenet_v1_0.25_128"])
def test_graph_checkpoint_and_directory_are_the_same_bits(test_data, other):
    graph, twin = (formats.read(test_data / "models" / name) for name in (PUBLISHED, other))
    counters = {name for name in twin.weights if name.endswith("num_batches_tracked")}
    assert set(graph.weights) == set(twin.weights) - counters
    for name, values in graph.weights.items():
        assert values.dtype == twin.weights[name].dtype == np.float32
        assert values.tobytes() == twin.weights[name].tobytes(), name
    for name in ("depth_multiplier", "layer_norm_eps", "tf_padding", "num_labels", "output_stride", "hidden_act"):
        assert getattr(graph.config, name) == getattr(twin.config, name), name


def test_reading_takes_little_more_memory_than_the_weights(test_data):
    path = test_data / "models" / PUBLISHED
    formats.read(path)
    tracemalloc.start()
    try:
        formats.read(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 * path.stat().st_size


# name: (network, width, size, output stride, how it is built, what the config has to say)
VARIANTS = {
    "V1 0.5": ("v1", 0.5, (64, 64), 32, {}, {"layer_norm_eps": 0.001}),
    "V1 0.5 fused": ("v1", 0.5, (64, 64), 32, {"norm": "fused"}, {"layer_norm_eps": 0.001}),
    "V1 0.5 folded": ("v1", 0.5, (64, 64), 32, {"norm": "folded"}, {}),
    "V1 0.35 odd": ("v1", 0.35, (65, 97), 32, {}, {"tf_padding": True, "image_size": (65, 97)}),
    "V1 0.75 relu": ("v1", 0.75, (32, 32), 32, {"activation": "Relu"}, {"hidden_act": "relu"}),
    "V1 padded": ("v1", 0.25, (64, 64), 32, {"has_explicit_padding": True}, {"tf_padding": False}),
    "V1 stride 16": ("v1", 0.25, (64, 65), 16, {}, {}),
    "V1 stride 8 padded": ("v1", 0.25, (64, 65), 8, {"has_explicit_padding": True}, {"tf_padding": False}),
    "V2 0.35": ("v2", 0.35, (64, 64), 32, {}, {"finegrained_output": True}),
    "V2 0.35 fused odd": ("v2", 0.35, (65, 97), 32, {"norm": "fused"}, {"tf_padding": True}),
    "V2 0.5 folded": ("v2", 0.5, (64, 64), 32, {"norm": "folded"}, {}),
    "V2 1.4": ("v2", 1.4, (64, 64), 32, {}, {}),
    "V2 epsilon": ("v2", 0.35, (64, 64), 32, {"epsilon": 1e-5}, {"layer_norm_eps": 1e-5}),
    "V2 padded": ("v2", 0.35, (64, 64), 32, {"has_explicit_padding": True}, {"tf_padding": False}),
    "V2 stride 16": ("v2", 0.35, (64, 65), 16, {"norm": "fused"}, {}),
    "V2 stride 8 folded": ("v2", 0.35, (65, 65), 8, {"norm": "folded"}, {}),
}


def build_classifier(network, width, size, output_stride, options):
    """Return a graph of random numbers with 11 classes."""
    tf = frameworks.tensorflow()
    with tf.Graph().as_default() as graph:
        slim = Slim(tf, **options)
        x = tf.compat.v1.placeholder(tf.float32, [None, *size, 3], name="input")
        scope = {"v1": "MobilenetV1", "v2": "MobilenetV2"}[network]
        x = getattr(slim, network)(x, width, output_stride)
        slim.classify(x, scope, 11, has_window=network == "v1" and size == (64, 64) and output_stride == 32)
        return graph.as_graph_def()


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_graph_of_slims_kind_gives_tensorflows_logits(tmp_path, variant):
    network, width, size, output_stride, options, fields = VARIANTS[variant]
    graph_def = build_classifier(network, width, size, output_stride, options)
    path = tmp_path / "frozen.pb"
    path.write_bytes(graph_def.SerializeToString())
    checkpoint = formats.read(path)
    assert checkpoint.dialect == "slim"
    assert checkpoint.config.depth_multiplier == width
    assert checkpoint.config.output_stride == output_stride
    assert checkpoint.config.pool_size is None
    assert {name: getattr(checkpoint.config, name) for name in fields} == fields
    x = np.random.default_rng(1).uniform(-1, 1, (2, *size, 3)).astype(np.float32)
    last = "conv_1x1" if network == "v2" else "layer.25"
    names = [checkpoint.endpoints[name] for name in (last, "classifier")]
    expected = run(graph_def, names, {"input": x})
    model = mm.load(path)
    assert_agrees(model, channels_first(x), dict(zip((last, "classifier"), map(channels_first, expected), strict=True)))


@pytest.mark.parametrize("network", ["v1", "v2"])
def test_dilations_and_blocks_are_the_same_network(tmp_path, network):
    """TensorFlow does not run dilated depthwise convolutions on CPUs, so its blocks have to vouch for them."""
    checkpoints = []
    for atrous in ("blocks", "dilations"):
        graph_def = build_classifier(network, 0.35, (64, 64), 8, {"atrous": atrous})
        counts = {node.op for node in graph_def.node}
        assert ("SpaceToBatchND" in counts) == (atrous == "blocks")
        path = tmp_path / f"{atrous}.pb"
        path.write_bytes(graph_def.SerializeToString())
        checkpoints.append(formats.read(path))
    assert checkpoints[0].config == checkpoints[1].config
    for name, values in checkpoints[0].weights.items():
        assert np.array_equal(values, checkpoints[1].weights[name]), name


@pytest.mark.parametrize("options", [{}, {"norm": "fused"}, {"norm": "folded"}], ids=str)
@pytest.mark.parametrize("output_stride", [8, 16])
def test_deeplabs_export_gives_tensorflows_logits(tmp_path, output_stride, options):
    """From uint8 pixels, padded and scaled by the graph or by the processor, to logits before they are resized."""
    tf = frameworks.tensorflow()
    crop = 65
    with tf.Graph().as_default() as graph:
        slim = Slim(tf, **options)
        x = slim.v2(slim.deeplab_input(crop), 0.5, output_stride, has_last=False)
        slim.deeplab_head(x, 4, crop)
        graph_def = graph.as_graph_def()
    path = tmp_path / "frozen.pb"
    path.write_bytes(graph_def.SerializeToString())
    checkpoint = formats.read(path)
    assert checkpoint.dialect == "deeplab"
    assert checkpoint.config.image_size == crop
    assert checkpoint.config.output_stride == output_stride
    assert checkpoint.config.num_labels == 4
    assert checkpoint.endpoints["segmentation_head.classifier"] == "logits/semantic/BiasAdd"
    picture = np.random.default_rng(1).integers(0, 256, (crop - 20, crop, 3), dtype=np.uint8)
    model = mm.load(path)
    x = model.processor(Image.fromarray(picture), return_tensors="np")["pixel_values"]
    assert x.shape == (1, 3, crop, crop)
    (expected,) = run(graph_def, ["logits/semantic/BiasAdd"], {"ImageTensor": picture[None]})
    assert_agrees(model, x, {"segmentation_head.classifier": channels_first(expected)})


def test_the_published_deeplab_gives_tensorflows_logits_without_its_rounding(test_data, tmp_path):
    """Fake quantisation taken out on both sides; its folding of batch norm, blocks, padding and head are what is left.

    The batch norms come out of the folding as they were: with the bits of the same network as a directory.
    """
    graph_def = parse(test_data / "models/tensorflow/deeplabv3_mobilenet_v2_0.5_513_portrait_quant_frozen.pb")
    for node in graph_def.node:
        if node.op == "FakeQuantWithMinMaxVars":
            node.op = "Identity"
            del node.input[1:]
            node.attr.clear()
            node.attr["T"].type = 1
    path = tmp_path / "frozen.pb"
    path.write_bytes(graph_def.SerializeToString())
    model = mm.load(path)
    assert (model.config.depth_multiplier, model.config.depth_divisible_by) == (0.5, 1)
    assert (model.config.output_stride, model.config.image_size, model.config.num_labels) == (8, 513, 2)
    image = Image.open(test_data / "images" / "grace_hopper.bmp").convert("RGB").resize((513, 513))
    x = np.asarray(image)[None]
    (expected,) = run(graph_def, ["logits/semantic/BiasAdd"], {"ImageTensor": x})
    pixels = channels_first(x) / np.float32(127.5) - 1
    assert_agrees(model, pixels, {"segmentation_head.classifier": channels_first(expected)})
    weights = formats.read(path).weights
    twin = formats.read(test_data / "models/huggingface/deeplabv3_mobilenet_v2_0.5_513_portrait").weights
    assert set(weights) == {name for name in twin if "conv_1x1" not in name and "num_batches" not in name}
    for name, values in weights.items():
        if name.startswith("segmentation_head.") and name.endswith("running_var"):
            # tf.nn.fused_batch_norm has made 1.001e-5 of the head's epsilon: the graph says so, the directory does not
            np.testing.assert_allclose(values, twin[name], rtol=0, atol=2e-8)
        else:
            assert values.tobytes() == twin[name].tobytes(), name


# name: (class, alpha, size, options, what the config has to say)
KERAS = {
    "V1 odd, no top": ("MobileNet", 0.5, (97, 65), {"include_top": False}, {"bottom_right_padding": "depthwise"}),
    "V2": ("MobileNetV2", 0.35, (64, 96), {"classes": 7}, {"bottom_right_padding": None, "tf_padding": True}),
    "V2 odd sigmoid": (
        "MobileNetV2",
        0.5,
        (65, 64),
        {"classes": 7, "classifier_activation": "sigmoid"},
        {"problem_type": "multi_label_classification", "tf_padding": True},
    ),
}


@pytest.mark.parametrize("variant", KERAS)
def test_a_keras_model_frozen_by_tensorflow_2_gives_its_numbers(tmp_path, variant):
    """Its nodes have other names than slim's; the order of the graph is enough."""
    kind, alpha, size, options, fields = KERAS[variant]
    tf, keras = frameworks.tensorflow(), frameworks.keras()
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    keras.utils.set_random_seed(0)
    random = np.random.default_rng(0)
    network = getattr(keras.applications, kind)(input_shape=(*size, 3), alpha=alpha, weights=None, **options)
    for layer in network.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            channels = layer.get_weights()[0].shape
            layer.set_weights([random.uniform(low, low + 1, channels) for low in (0.5, -0.2, -0.5, 0.5)])
    function = tf.function(lambda x: network(x, training=False))
    signature = tf.TensorSpec([None, *size, 3], tf.float32)
    frozen = convert_variables_to_constants_v2(function.get_concrete_function(signature))
    path = tmp_path / "frozen.pb"
    path.write_bytes(frozen.graph.as_graph_def().SerializeToString())

    model = mm.load(path)
    assert formats.read(path).dialect == ("slim" if variant == "V2 odd sigmoid" else "keras")
    assert model.config.depth_multiplier == alpha
    assert {name: getattr(model.config, name) for name in fields} == fields
    x = random.uniform(-1, 1, (2, *size, 3)).astype(np.float32)
    endpoints, last = formats.read(path).endpoints, model.graph.outputs[0]  # before any softmax, and before the mean
    (expected,) = run(frozen.graph.as_graph_def(), [endpoints[last]], {"x": x})
    assert_agrees(model, channels_first(x), {last: channels_first(expected)})
