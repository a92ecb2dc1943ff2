"""TFLite files: MobileNets in float load with the file's own numbers, whatever form the converter gave them."""

from __future__ import annotations

import dataclasses
import io
import zipfile

import frameworks
import numpy as np
import pytest
from flatbuffer_files import TFLiteWriter, write_layers
from hostile import assert_refused, flip_bytes, truncations
from judgement import assert_agrees
from PIL import Image
from spelling import random_weights, spell

import minimobile as mm
from minimobile import formats
from minimobile.errors import FormatError, MinimobileError
from minimobile.execution.definitions import run_reference
from minimobile.formats.signatures import is_tflite
from minimobile.formats.tflite import tflite
from minimobile.networks.build_graph import build_graph
from minimobile.networks.config import MobileNetV1Config, MobileNetV2Config
from minimobile.operations.passes import fold_batch_norm
from minimobile.operations.table import layout_weights

V1 = "MobileNetV1ForImageClassification"
V2 = "MobileNetV2ForImageClassification"
DEEPLAB = "MobileNetV2ForSemanticSegmentation"
TINY = {"depth_multiplier": 0.01, "min_depth": 1, "num_labels": 3}


def build(architecture, **fields):
    config = (MobileNetV1Config if "V1" in architecture else MobileNetV2Config)(**{**TINY, **fields})
    graph = build_graph(config, architecture)
    return graph, random_weights(graph)


def save(folder, content):
    path = folder / "model.tflite"
    path.write_bytes(content.write() if isinstance(content, TFLiteWriter) else content)
    return path


def assert_same_outputs(checkpoint, graph, weights, size=(17, 9), tolerance=0.0):
    x = np.random.default_rng(1).standard_normal((1, *size, graph.input_channels)).astype(np.float32)
    (name,) = graph.outputs
    expected = run_reference(graph, weights, x, [name])[name]
    found = run_reference(build_graph(checkpoint.config, checkpoint.architecture), checkpoint.weights, x, [name])[name]
    assert expected.std() > 1e-3
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * np.abs(expected).max())


def test_a_classifier_is_read_with_the_files_own_numbers(tmp_path):
    graph, weights = build(V1)
    path = save(tmp_path, write_layers(spell(graph, weights, folded=True)))
    assert is_tflite(path)
    checkpoint = formats.read(path)
    assert checkpoint.architecture == V1
    assert checkpoint.dialect == "tflite"
    assert checkpoint.config.image_size == 32
    assert checkpoint.provenance["format"] == "tflite"
    assert_same_outputs(checkpoint, graph, weights)
    for node in fold_batch_norm(build_graph(checkpoint.config, V1)).nodes:
        if "scale" in node.weights:
            original = next(other for other in fold_batch_norm(graph).nodes if other.name == node.name)
            for ours, theirs in zip(
                layout_weights(node, checkpoint.weights, np.float32), layout_weights(original, weights, np.float32),
                strict=True,
            ):  # fmt: skip
                assert ours.tobytes() == theirs.tobytes()


FORMS = {
    "V2": (V2, {}, {}, {}),
    "dense and mean": (V2, {}, {"dense": True}, {"mean": True}),
    "pads": (V1, {}, {"pads": "strided"}, {}),
    "sigmoid": (V1, {}, {"tail": ("sigmoid",)}, {}),
    "one channel": (V1, {"num_channels": 1}, {}, {}),
    "DeepLab": (DEEPLAB, {"output_stride": 8}, {"tail": ("resize_bilinear", "resize_bilinear")}, {"mean": True}),
    "DeepLab in blocks": (
        DEEPLAB,
        {"output_stride": 8},
        {"blocks": True, "tail": ("resize_bilinear", "argmax")},
        {"mean": True},
    ),
    "relu": (V1, {"hidden_act": "relu"}, {}, {}),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_network_gives_the_same_numbers(form, tmp_path):
    architecture, fields, spelling, writing = FORMS[form]
    graph, weights = build(architecture, **fields)
    checkpoint = tflite.read(save(tmp_path, write_layers(spell(graph, weights, folded=True, **spelling), **writing)))
    assert checkpoint.architecture == architecture
    assert {name: getattr(checkpoint.config, name) for name in fields} == fields
    size = (32, 32) if "pads" in form else (17, 9)
    assert_same_outputs(checkpoint, graph, weights, size)


def test_float16_weights_are_widened(tmp_path):
    graph, weights = build(V2)
    layers = spell(graph, weights, folded=True)

    def round_arrays(layer):
        rounded = {role: values.astype(np.float16).astype(np.float32) for role, values in layer.arrays.items()}
        return dataclasses.replace(layer, arrays=rounded)

    half = tflite.read(save(tmp_path, write_layers(layers, half=True)))
    whole = tflite.read(save(tmp_path, write_layers([round_arrays(layer) for layer in layers])))
    assert half.weights.keys() == whole.weights.keys()
    assert all(np.array_equal(half.weights[name], whole.weights[name]) for name in whole.weights)


def pack(content, files):
    archive = io.BytesIO(content)
    with zipfile.ZipFile(archive, "a") as packed:
        for name, text in files.items():
            packed.writestr(name, text)
    return archive.getvalue()


def test_packed_labels_name_the_classes_if_they_fit(tmp_path):
    graph, weights = build(V1)
    content = write_layers(spell(graph, weights, folded=True)).write()
    path = save(tmp_path, pack(content, {"labels.txt": "cat\ndog\n猫\n", "notes.md": "x"}))
    assert tflite.read(path).config.id2label == {0: "cat", 1: "dog", 2: "猫"}
    path = save(tmp_path, pack(content, {"labels.txt": "cat\ndog\n"}))
    checkpoint = tflite.read(path)
    assert checkpoint.config.id2label[0] == "LABEL_0"
    assert checkpoint.ignored["labels.txt"] == "a list of 2 lines, not of 3 labels"
    damaged = bytearray(pack(content, {"labels.txt": "cat\ndog\nemu\n"}))
    damaged[damaged.rindex(b"dog", 0, -60)] ^= 1
    assert "checksum" in tflite.read(save(tmp_path, bytes(damaged))).ignored["packed files"]


def test_a_config_given_stands_in_for_the_one_found(tmp_path):
    graph, weights = build(V1)
    path = save(tmp_path, write_layers(spell(graph, weights, folded=True)))
    config = tflite.read(path).config.replace(output_stride=8)
    assert formats.read(path, config=config).config == config


def test_a_file_is_described_whatever_it_holds(tmp_path):
    graph, weights = build(V1)
    path = save(tmp_path, write_layers(spell(graph, weights, folded=True)))
    description = tflite.describe(path)
    assert (description.format, description.producer) == ("TFLite", "a test")
    assert description.facts["operations"].startswith("CONV_2D 15, DEPTHWISE_CONV_2D 13, ")
    assert description.facts["input"] == "picture float32 (1, 32, 32, 3)"
    assert ("op_0/weight", (1, 3, 3, 3), "float32") in description.entries


def test_the_type_of_the_weights_is_told(tmp_path):
    writer = TFLiteWriter()
    weight = writer.add_constant("weight", np.ones((4, 3, 3, 3), np.uint8))
    writer.add_operator("CONV_2D", [writer.inputs[0], weight], (1, 16, 16, 4), padding="SAME")
    assert tflite.describe(save(tmp_path, writer)).facts["numbers"] == "uint8"


def layers_of(kind, *inputs, shape=(1, 16, 16, 4), **options):
    """A stem, and one operator after it."""
    writer = TFLiteWriter()
    weight = writer.add_constant("weight", np.ones((4, 3, 3, 3), np.float32))
    bias = writer.add_constant("bias", np.ones(4, np.float32))
    x = writer.add_operator(
        "CONV_2D", [writer.inputs[0], weight, bias], (1, 16, 16, 4), "stem", padding="SAME", activation="relu6",
        stride_w=2, stride_h=2,
    )  # fmt: skip
    numbers = [writer.add_constant(f"constant {index}", values) for index, values in enumerate(inputs)]
    writer.add_operator(kind, [x, *numbers], shape, "odd", **options)
    return writer


PADS = np.array([(0, 0), (0, 1), (0, 1), (0, 0)], np.int32)
ODD = {
    "pad of channels": (layers_of("PAD", PADS[::-1][[1, 0, 2, 3]]), "found PAD of "),
    "pad with ones": (layers_of("PADV2", PADS, np.ones(1, np.float32)), r"found PADV2 of .* with \[1.\]"),
    "pads below 0": (layers_of("PAD", -PADS), "'odd': expected 4 pairs of paddings, none below zero"),
    "pads of another shape": (layers_of("PAD", PADS[:2]), "expected 4 pairs of paddings"),
    "pads of infinity": (layers_of("PAD", np.full((4, 2), np.inf, np.float32)), "whole numbers as its paddings, found"),
    "block of NaN": (layers_of("SPACE_TO_BATCH_ND", np.full(2, np.nan, np.float32), PADS[:2]), "numbers as its block"),
    "margins of NaN": (layers_of("SPACE_TO_BATCH_ND", np.ones(2, np.int32), np.full((2, 2), np.nan, np.float32)),
                       "whole numbers as its margins"),
    "mean of NaN": (layers_of("MEAN", np.full(2, np.nan, np.float32)), "whole numbers as its axes, found float32"),
    "size of NaN": (layers_of("RESIZE_BILINEAR", np.full(2, np.nan, np.float32)), "whole numbers as its size"),
    "size of three": (layers_of("RESIZE_BILINEAR", np.ones(3, np.int32)), "a size of height and width above zero"),
    "block 0": (layers_of("SPACE_TO_BATCH_ND", np.zeros(2, np.int32), PADS[:2]), "two sizes above zero"),
    "mean of channels": (layers_of("MEAN", np.array([3], np.int32)), r"found MEAN over the axes \[3\]"),
    "product": (layers_of("MUL", np.full(4, 2, np.float32)), "found rescaling"),
    "division by zero": (layers_of("DIV", np.zeros(1, np.float32)), "found rescaling"),
    "product of another shape": (layers_of("MUL", np.ones((2, 4), np.float32)), "found MUL"),
    "weight of rank 2": (layers_of("DEPTHWISE_CONV_2D", np.ones((3, 3), np.float32)), "as its weight, of rank 4"),
    "weight for other channels": (layers_of("DEPTHWISE_CONV_2D", np.ones((1, 3, 3, 8), np.float32)),
                                  r"found DEPTHWISE_CONV_2D of \(4,\) channels"),
    "stride 1 x 2": (layers_of("DEPTHWISE_CONV_2D", np.ones((1, 3, 3, 4), np.float32), stride_w=2),
                     "DEPTHWISE_CONV_2D with the stride 1 x 2"),
    "beta": (layers_of("SOFTMAX", beta=2.0), "found SOFTMAX with beta 2"),
    "quantiser": (layers_of("QUANTIZE"), "found QUANTIZE"),
    "concatenation along rows": (layers_of("CONCATENATION", axis=1), "CONCATENATION along the axis 1"),
}  # fmt: skip


@pytest.mark.parametrize("case", ODD)
def test_what_no_mobilenet_has_is_refused_by_the_files_own_name(case, tmp_path):
    writer, message = ODD[case]
    assert_refused(tflite.read, save(tmp_path, writer), message)


def test_a_scaling_at_the_start_and_other_inputs(tmp_path):
    graph, weights = build(V1)
    writer = write_layers(spell(graph, weights, folded=True))
    plain = tflite.read(save(tmp_path, writer))
    writer.tensors[writer.inputs[0]][1] = ("int8", 3)
    assert_refused(tflite.read, save(tmp_path, writer), r"one input of float32 \(1, H, W, C\), found uint8")
    writer = write_layers(spell(graph, weights, folded=True))
    first = writer.operators[0]
    constants = [writer.add_constant(name, np.float32(value)) for name, value in (("s", 2 / 255), ("o", 1))]
    scaled = writer.add_operator("MUL", [writer.inputs[0], constants[0]], (1, 32, 32, 3), "scaled")
    shifted = writer.add_operator("SUB", [scaled, constants[1]], (1, 32, 32, 3), "shifted")
    first[1][0] = shifted
    writer.operators = writer.operators[-2:] + writer.operators[:-2]
    checkpoint = tflite.read(save(tmp_path, writer))
    assert checkpoint.processor == plain.processor
    assert checkpoint.provenance["input_scaling"].startswith("0.00784314 * x -1")


def test_truncations_and_flips_are_refused_or_load(tmp_path):
    graph, weights = build(V1)
    content = write_layers(spell(graph, weights, folded=True)).write()
    path = save(tmp_path, content)
    for part in truncations(content):
        path.write_bytes(part)
        with pytest.raises(FormatError, match=r"model\.tflite"):
            tflite.read(path)
    path.write_bytes(content)
    assert _count_loads(path, 60, V1) > 10


def _count_loads(path, count, architecture):
    """Read a file with one bit turned, `count` times: a whole network or one error."""
    loads = 0
    for _ in flip_bytes(path, count):
        try:
            checkpoint = tflite.read(path)
        except MinimobileError as error:
            assert "\n" not in str(error)
            continue
        assert checkpoint.architecture == architecture
        loads += 1
    return loads


@pytest.mark.slow
@pytest.mark.crosscheck
@pytest.mark.parametrize("name", ["mobilenet_v1_0.25_224_float", "deeplabv3_mobilenet_v2_0.5_257_float"])
def test_two_thousand_flips_of_a_real_file(name, test_data, tmp_path):
    path = save(tmp_path, (test_data / "models" / "tflite" / f"{name}.tflite").read_bytes())
    assert _count_loads(path, 2000, DEEPLAB if "deeplab" in name else V1) > 1000


def run_litert(path, x, names=()):
    """Return LiteRT's result for x (1, H, W, C), and those of the tensors of some names."""
    litert = frameworks.litert()
    interpreter = litert.Interpreter(
        str(path), experimental_op_resolver_type=litert.OpResolverType.BUILTIN_REF,
        experimental_preserve_all_tensors=bool(names),
    )  # fmt: skip
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x)
    interpreter.invoke()
    numbers = {found["name"]: found["index"] for found in interpreter.get_tensor_details()}
    result = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    return result, {name: interpreter.get_tensor(numbers[name]) for name in names}


def relative(found, expected):
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def pictures(test_data, size):
    yield np.random.default_rng(0).uniform(-1, 1, (1, *size, 3)).astype(np.float32)
    for name in ("cat.bmp", "grace_hopper.bmp", "parrot.jpg"):
        with Image.open(test_data / "images" / name) as image:
            pixels = np.asarray(image.convert("RGB").resize(size[::-1]), np.float32)
        yield pixels[None] / np.float32(127.5) - 1


REAL = {"mobilenet_v1_0.25_224_float": 224, "deeplabv3_mobilenet_v2_0.5_257_float": 257}


@pytest.mark.crosscheck
@pytest.mark.parametrize("name", REAL)
def test_real_files_give_what_litert_gives(name, test_data):
    side = REAL[name]
    path = test_data / "models" / "tflite" / f"{name}.tflite"
    checkpoint = tflite.read(path)
    model = mm.load(path)
    nodes = list(checkpoint.endpoints)
    for x in pictures(test_data, (side, side)):
        _, expected = run_litert(path, x, [checkpoint.endpoints[node] for node in nodes])
        theirs = {node: expected[checkpoint.endpoints[node]].transpose(0, 3, 1, 2) for node in nodes}
        assert_agrees(model, x.transpose(0, 3, 1, 2), theirs)


@pytest.mark.crosscheck
def test_the_float_deeplab_is_the_one_in_transformers_layout(test_data):
    name = "deeplabv3_mobilenet_v2_0.5_257"
    ours = mm.load(test_data / "models" / "tflite" / f"{name}_float.tflite")
    theirs = mm.load(test_data / "models" / "huggingface" / name)
    for x in pictures(test_data, (257, 257)):
        logits = [model(x.transpose(0, 3, 1, 2)).logits for model in (ours, theirs)]
        assert relative(*logits) < 2e-5
    assert ours.id2label[15] == "person"


KERAS = {
    "V1 0.5 at odd sizes": ("MobileNet", 0.5, (97, 113), {}),
    "V1 0.25 in float16": ("MobileNet", 0.25, (64, 64), {"float16": True}),
    "V2 0.35 at odd sizes": ("MobileNetV2", 0.35, (97, 75), {}),
    "V2 1.4": ("MobileNetV2", 1.4, (64, 64), {}),
    "V2 0.5 with sigmoid": ("MobileNetV2", 0.5, (96, 64), {"classifier_activation": "sigmoid"}),
}


@pytest.mark.slow  # TensorFlow's converter takes 20 seconds for each
@pytest.mark.crosscheck
@pytest.mark.parametrize("case", KERAS)
def test_what_tensorflow_converts_gives_what_litert_gives(case, tmp_path):
    name, alpha, size, options = KERAS[case]
    tf, keras = frameworks.tensorflow(), frameworks.keras()
    keras.utils.set_random_seed(0)
    activation = options.get("classifier_activation", "softmax")
    network = getattr(keras.applications, name)(
        (*size, 3), alpha=alpha, weights=None, classes=7, classifier_activation=activation
    )
    random = np.random.default_rng(0)
    for layer in network.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            count = layer.gamma.shape[0]
            gamma, variance = (random.uniform(0.5, 1.5, count) for _ in range(2))
            layer.set_weights([gamma, random.normal(0, 0.3, count), random.normal(0, 0.3, count), variance])
    converter = tf.lite.TFLiteConverter.from_keras_model(network)
    if "float16" in options:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.target_spec.supported_types = [tf.float16]
    path = save(tmp_path, converter.convert())
    checkpoint = tflite.read(path)
    assert checkpoint.config.problem_type == ("multi_label_classification" if activation == "sigmoid" else None)
    x = random.uniform(-1, 1, (1, *size, 3)).astype(np.float32)
    expected, _ = run_litert(path, x)
    model, pixels = mm.load(path), x.transpose(0, 3, 1, 2)
    logits, expected = model(pixels).logits, expected.astype(np.float64)
    theirs = np.log(expected) if activation == "softmax" else np.log(expected / (1 - expected))
    if activation == "softmax":  # which loses their mean
        theirs += logits.mean() - theirs.mean()
    assert_agrees(model, pixels, {"classifier": theirs})
    is_odd = any(side % 2 for side in size)  # on even sizes the converter itself makes SAME of Keras' zeros
    assert checkpoint.config.bottom_right_padding == ("depthwise" if name == "MobileNet" and is_odd else None)
