"""TensorFlow.js models: graphs and layers come back bit for bit; nothing outside the model's folder is ever opened."""

from __future__ import annotations

import base64
import json
import shutil

import frameworks
import numpy as np
import pytest
from detection_graphs import build_detector, write_graph
from graph_writer import tiny_v1
from judgement import assert_agrees
from keras_files import chain_config, v1_layers
from PIL import Image
from tensorflow_js_files import graph_topology, write_model

import minimobile as mm
from minimobile import formats
from minimobile.errors import FormatError

LITE = mm.MobileNetV2Config(depth_multiplier=0.35, num_labels=3, image_size=32)


@pytest.fixture
def folder(tmp_path):
    return write_model(tmp_path / "net", *graph_topology(tiny_v1()[0]))


def assert_same_weights(found, expected):
    assert found.architecture == expected.architecture
    assert found.config.to_dict() == expected.config.to_dict()
    assert set(found.weights) == set(expected.weights)
    for name, values in expected.weights.items():
        assert found.weights[name].tobytes() == values.tobytes(), name


@pytest.mark.parametrize("old", [False, True])
def test_a_classifier_comes_back_as_from_its_frozen_graph(old, tmp_path):
    content, _ = tiny_v1()
    (tmp_path / "frozen.pb").write_bytes(content)
    folder = write_model(tmp_path / "net", *graph_topology(content, old), format="graph-model", generatedBy="2.21.0")
    expected = formats.read(tmp_path / "frozen.pb")
    for source in (folder, folder / "model.json"):
        found = formats.read(source)
        assert_same_weights(found, expected)
        assert (found.provenance["format"], found.provenance["producer"]) == ("tensorflow-js", "2.21.0")
    description = formats.describe(folder)
    assert (description.format, description.dialect) == ("TensorFlow.js graph model", "slim")


def test_a_detector_comes_back_and_converting_keeps_every_bit(tmp_path):
    entries, weights = build_detector(LITE)
    folder = write_model(tmp_path / "net", *graph_topology(write_graph(entries)))
    found = formats.read(folder)
    assert found.architecture == "MobileNetV2ForObjectDetection"
    ssd = found.config.ssd
    assert (ssd.post_processing, ssd.iou_threshold, ssd.max_detections) == ("tflite", 0.5, 20)
    name = "detection_head.boxes.2.projection.convolution.weight"
    np.testing.assert_array_equal(found.weights[name], weights[name])
    mm.convert(folder, tmp_path / "copy.h5")
    assert_same_weights(formats.read(tmp_path / "copy.h5"), found)


def test_fused_operations_are_the_plain_ones_that_they_stand_for(folder):
    path = folder / "model.json"
    values = json.loads(path.read_text())
    expected = formats.read(folder)
    nodes = values["modelTopology"]["node"]
    scores = next(node for node in nodes if node["name"] == "scores")
    logits = next(node for node in nodes if node["name"] == "logits")
    scores.update(op="_FusedConv2D", input=[*logits["input"], "logits/b"])
    scores["attr"] = {**logits["attr"], "fused_ops": {"list": {"s": ["Qmlhc0FkZA=="]}}}
    nodes.remove(logits)
    path.write_text(json.dumps(values))
    assert_same_weights(formats.read(folder), expected)
    scores["input"].pop()
    path.write_text(json.dumps(values))
    with pytest.raises(FormatError, match=r"node scores \(_FusedConv2D\): expected the parts of it, found 2 inputs"):
        formats.read(folder)


def fuse(nodes):
    """Join every convolution with its bias and relu6, as TensorFlow.js's converter does."""
    by_name, fused = {node["name"]: node for node in nodes}, []
    words = {"Conv2D": "_FusedConv2D", "DepthwiseConv2dNative": "FusedDepthwiseConv2dNative"}
    gone = set()
    for node in nodes:
        bias = by_name.get(node["input"][0]) if node["op"] == "Relu6" else None
        if bias is None:
            continue
        convolution = by_name[bias["input"][0]]
        parts = {"list": {"s": [base64.b64encode(part).decode() for part in (b"BiasAdd", b"Relu6")]}}
        node["input"] = [*convolution["input"], bias["input"][1]]
        node.update(op=words[convolution["op"]], attr={**convolution["attr"], "fused_ops": parts})
        gone |= {bias["name"], convolution["name"]}
        fused.append(node["op"])
    nodes[:] = [node for node in nodes if node["name"] not in gone]
    return fused


def test_every_convolution_may_be_fused_with_its_bias_and_relu6(tmp_path):
    topology, weights = graph_topology(tiny_v1("none")[0])
    expected = formats.read(write_model(tmp_path / "plain", topology, weights))
    fused = fuse(topology["node"])
    assert {op: fused.count(op) for op in set(fused)} == {"_FusedConv2D": 14, "FusedDepthwiseConv2dNative": 13}
    assert_same_weights(formats.read(write_model(tmp_path / "fused", topology, weights)), expected)


def test_a_product_of_matrices_with_its_bias_is_the_classifier(tmp_path):
    topology, weights = graph_topology(tiny_v1("none")[0])
    expected = formats.read(write_model(tmp_path / "plain", topology, weights))
    nodes = {node["name"]: node for node in topology["node"]}
    nodes["pool"]["attr"]["keep_dims"] = {"b": False}
    weights["logits/weights"] = weights["logits/weights"][0, 0]
    bias = {"fused_ops": {"list": {"s": [base64.b64encode(b"BiasAdd").decode()]}}}
    nodes["scores"].update(op="_FusedMatMul", input=["pool", "logits/weights", "logits/b"], attr=bias)
    nodes["probabilities"]["input"] = ["scores"]
    topology["node"] = [node for name, node in nodes.items() if name not in ("logits", "flat")]
    assert_same_weights(formats.read(write_model(tmp_path / "fused", topology, weights)), expected)


def test_a_model_of_features_has_no_head(tmp_path):
    topology, weights = graph_topology(tiny_v1("none")[0])
    expected = formats.read(write_model(tmp_path / "whole", topology, weights))
    gone = ("axes", "pool", "logits", "logits/weights", "logits/b", "scores", "flat", "probabilities")
    topology["node"] = [node for node in topology["node"] if node["name"] not in gone]
    kept = {name: values for name, values in weights.items() if name not in gone}
    found = formats.read(write_model(tmp_path / "features", topology, kept))
    assert found.architecture == "MobileNetV1Model"
    for name, values in found.weights.items():
        np.testing.assert_array_equal(values, expected.weights[name])


def test_layers_of_keras_come_back_bit_for_bit(tmp_path):
    specs = v1_layers()
    weights = {f"{spec.name}/{role}": values for spec in specs for role, values in spec.arrays.items()}
    topology = {"keras_version": "2.15.0", "backend": "tensorflow", "model_config": chain_config(specs, "keras2")}
    folder = write_model(tmp_path / "net", topology, weights, format="layers-model")
    found = formats.read(folder)
    assert found.architecture == "MobileNetV1ForImageClassification"
    for spec in specs:
        for name, values in spec.ours.items():
            assert found.weights[name].tobytes() == np.ascontiguousarray(values).tobytes(), name
    assert found.dialect == "keras"
    assert formats.describe(folder).format == "TensorFlow.js layers model"
    mm.convert(folder, tmp_path / "copy.h5")
    assert_same_weights(formats.read(tmp_path / "copy.h5"), found)


@pytest.mark.parametrize("form", ["uint8", "uint16", "float16"])
def test_quantised_shards_give_the_numbers_that_they_stand_for(form, tmp_path):
    topology, weights = graph_topology(tiny_v1("none")[0])
    folder = write_model(tmp_path / "net", topology, weights, form)
    found = formats.read(folder).weights["classifier.weight"]
    values = weights["logits/weights"]
    if form == "float16":
        expected = values.astype(np.float16).astype(np.float32)
    else:
        entries = json.loads((folder / "model.json").read_text())["weightsManifest"][0]["weights"]
        by = next(entry["quantization"] for entry in entries if entry["name"] == "logits/weights")
        steps = np.rint((values - by["min"]) / by["scale"]).astype(np.float64)
        expected = (steps * by["scale"] + by["min"]).astype(np.float32)
    np.testing.assert_array_equal(found, expected[0, 0].T)


def entry_of(values, name="logits/weights"):
    return next(entry for entry in values["weightsManifest"][0]["weights"] if entry["name"] == name)


def rename(name):
    def spoil(values):
        values["weightsManifest"][0]["paths"][1] = name

    return spoil


def set_entry(**changes):
    return lambda values: entry_of(values).update(changes)


def set_values(**changes):
    return lambda values: values.update(changes)


OUTSIDE = "shard: expected the name of a file in the model's own folder"
HOSTILE = {
    "a shard above the folder": (rename("../secret.bin"), OUTSIDE),
    "a shard above a folder below": (rename("a/../../secret.bin"), OUTSIDE),
    "an absolute shard": (rename("/etc/passwd"), OUTSIDE),
    "a shard with a drive": (rename("C:\\secret.bin"), OUTSIDE),
    "a shard from the net": (rename("https://host/secret.bin"), OUTSIDE),
    "a shard with NUL": (rename("a\0b"), OUTSIDE),
    "a shard that is a number": (rename(7), OUTSIDE),
    "the folder as a shard": (rename("."), OUTSIDE),
    "a missing shard": (rename("group1-shard99of99.bin"), "group1-shard99of99.bin: no such file"),
    "a shard twice": (rename("group1-shard1of"), None),
    "a larger shape": (set_entry(shape=[1, 1, 8, 6]), r"expected \d+ bytes for \d+ weights in the shards .*, found"),
    "an immense shape": (set_entry(shape=[2**30, 2**30]), r"expected \d+ bytes for \d+ weights"),
    "a negative size": (set_entry(shape=[1, 1, -8, -5]), "to have a shape of up to 8 sizes"),
    "no shape": (set_entry(shape=None), "to have a shape of up to 8 sizes"),
    "another type": (set_entry(dtype="string"), "to be of float32, int32, bool, uint8, float16, found 'string'"),
    "a type of half the size": (set_entry(dtype="float16"), r"expected \d+ bytes for"),
    "quantised to nothing": (set_entry(quantization={"dtype": "int4"}), "to be quantised to uint8, uint16, float16"),
    "quantised without scale": (set_entry(quantization={"dtype": "uint8"}), "with numbers scale and min"),
    "no name": (set_entry(name=""), "expected a name for every weight"),
    "another name": (set_entry(name="else"), "node logits/weights: expected its values in weightsManifest"),
    "no manifest": (set_values(weightsManifest=None), "expected weightsManifest to be a list of groups"),
    "groups of nothing": (set_values(weightsManifest=[{}]), "with lists of paths and weights"),
    "no topology": (set_values(modelTopology=None), "expected a model with its modelTopology"),
    "another topology": (set_values(modelTopology={"a": 1}), "expected a graph of nodes or a Keras model"),
    "no nodes": (set_values(modelTopology={"node": []}), "expected a graph of 1 to 20000 nodes"),
    "a node of nothing": (set_values(modelTopology={"node": [7]}), "expected each node to have a name"),
    "a node twice": (
        lambda values: values["modelTopology"]["node"].append(values["modelTopology"]["node"][0]), "found two of"
    ),
    "an input of nothing": (
        lambda values: values["modelTopology"]["node"][-1].update(input=["nowhere"]), "is no node of the graph"
    ),
    "an attribute of another kind": (
        lambda values: values["modelTopology"]["node"][-1].update(attr={"a": {"s": 7}}), "expected texts in base64"
    ),
    "a text that is no base64": (
        lambda values: values["modelTopology"]["node"][-1].update(attr={"a": {"s": "?"}}), "expected texts in base64"
    ),
    "functions": (
        lambda values: values["modelTopology"].update(library={"function": [1]}), "found a library of 1 functions"
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_what_is_damaged_or_hostile_is_refused_in_one_sentence(case, folder):
    spoil, sentence = HOSTILE[case]
    (folder.parent / "secret.bin").write_bytes(bytes(1000))
    path = folder / "model.json"
    values = json.loads(path.read_text())
    if sentence is None:
        values["weightsManifest"][0]["paths"][1] = values["weightsManifest"][0]["paths"][0]
        sentence = "expected each shard to be named once"
    else:
        spoil(values)
    path.write_text(json.dumps(values))
    with pytest.raises(FormatError, match=sentence) as refusal:
        formats.read(folder)
    assert "most likely damaged" not in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_links_are_not_followed(folder):
    shard = next(folder.glob("group1-shard2of*.bin"))
    outside = folder.parent / "outside.bin"
    shutil.move(shard, outside)
    shard.symlink_to(outside)
    with pytest.raises(FormatError, match=r"expected group1-shard2of.* own folder, found a link"):
        formats.read(folder)


def test_links_of_the_hub_cache_are_followed(folder, tmp_path):
    snapshot, blobs = tmp_path / "snapshots" / "1234", tmp_path / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for item in folder.iterdir():
        shutil.copy(item, blobs / item.name)
        (snapshot / item.name).symlink_to(f"../../blobs/{item.name}")
    read, expected = formats.read(snapshot).weights, formats.read(folder).weights
    assert all(np.array_equal(read[name], values) for name, values in expected.items())


def test_short_and_long_shards_are_refused_before_they_are_read(folder):
    shard = next(folder.glob("group1-shard2of*.bin"))
    content = shard.read_bytes()
    for spoilt in (content[:-1], content + b"\0", b""):
        shard.write_bytes(spoilt)
        with pytest.raises(FormatError, match=r"expected \d+ bytes for \d+ weights in the shards group1-shard1of"):
            formats.read(folder)


@pytest.fixture(scope="module")
def coco(test_data):
    return test_data / "models" / "detection" / "tfjs_coco_ssdlite_mobilenet_v2"


def open_in_tensorflow(folder):
    """Return a session with the graph of an old model, whose texts are lists of bytes; constants read here anew."""
    tf = frameworks.tensorflow()
    values = json.loads((folder / "model.json").read_text())
    (group,) = values["weightsManifest"]
    content = b"".join((folder / name).read_bytes() for name in group["paths"])
    constants, position = {}, 0
    for entry in group["weights"]:
        count = int(np.prod(entry["shape"], dtype=np.int64))
        array = np.frombuffer(content, entry["dtype"], count, position).reshape(entry["shape"])
        constants[entry["name"]], position = array, position + array.nbytes
    definition = tf.compat.v1.GraphDef()
    for node in values["modelTopology"]["node"]:
        made = definition.node.add(name=node["name"], op=node["op"])
        made.input.extend(node.get("input", []))
        for key, value in node["attr"].items():
            ((kind, found),) = value.items()
            target = made.attr[key]
            if kind == "tensor":
                target.tensor.CopyFrom(tf.make_tensor_proto(constants[node["name"]]))
            elif kind == "s":
                target.s = bytes(found)
            elif kind == "shape":
                target.shape.unknown_rank = found.get("unknownRank", False)
                for size in found.get("dim", []):
                    target.shape.dim.add(size=int(size["size"]))
            elif kind == "list":
                target.list.i.extend(int(number) for number in found.get("i", []))
            else:
                setattr(target, kind, int(found) if kind == "i" else found)
    with tf.Graph().as_default() as graph:
        tf.compat.v1.import_graph_def(definition, name="")
    return tf, tf.compat.v1.Session(graph=graph)


@pytest.mark.crosscheck
def test_a_published_detector_finds_what_tensorflow_finds(coco, test_data):
    tf, session = open_in_tensorflow(coco)
    model = mm.load(coco)
    assert model.config.ssd.stored_anchors == 0  # the file's are those of the formula
    names = ["Preprocessor/sub:0", "Squeeze:0", "Postprocessor/ExpandDims_1:0", "Postprocessor/Slice:0"]
    found = 0
    for path in sorted((test_data / "images").glob("*.*"))[:8]:
        if path.suffix not in (".jpg", ".bmp", ".png"):
            continue
        with Image.open(path) as photo:
            picture = np.asarray(photo.convert("RGB"))
        pixels, encodings, boxes, scores = session.run(names, {"image_tensor:0": picture[None]})
        ours = model.processor(Image.fromarray(picture), return_tensors="np")["pixel_values"]
        np.testing.assert_array_equal(ours, pixels.transpose(0, 3, 1, 2))
        out = model(ours)
        np.testing.assert_allclose(out.box_encodings, encodings, atol=5e-4, err_msg=path.name)
        best = scores[0].max(1)
        kept = tf.image.non_max_suppression(boxes[0, :, 0], best, 20, 0.5, 0.3).numpy()
        rows = slice(0, len(kept))
        assert (out.detection_scores[0] > 0.3).sum() == len(kept)
        np.testing.assert_array_equal(out.detection_classes[0, rows], scores[0, kept].argmax(1))
        np.testing.assert_allclose(out.detection_scores[0, rows], best[kept], atol=2e-5)
        np.testing.assert_allclose(out.detection_boxes[0, rows], boxes[0, kept, 0], atol=2e-4)
        found += len(kept)
    assert found >= 5


@pytest.mark.crosscheck
@pytest.mark.slow
def test_layers_of_a_published_detector_are_tensorflow_s_but_for_what_float32_explains(coco, test_data):
    _, session = open_in_tensorflow(coco)
    model, endpoints = mm.load(coco), formats.read(coco).endpoints
    layers = {name: endpoints[name] for name in ("layer.12.expand_1x1", "conv_1x1", *model.graph.outputs[:6:5])}
    with Image.open(test_data / "images" / "cats_and_dogs.jpg") as photo:
        picture = np.asarray(photo.convert("RGB"))
    names = ["Preprocessor/sub:0", *(f"{name}:0" for name in layers.values())]
    pixels, *theirs = (values.transpose(0, 3, 1, 2) for values in session.run(names, {"image_tensor:0": picture[None]}))
    assert_agrees(model, pixels, dict(zip(layers, theirs, strict=True)))


@pytest.mark.crosscheck
def test_converting_a_published_detector_keeps_every_bit(coco, tmp_path):
    mm.convert(coco, tmp_path / "copy.h5")
    assert_same_weights(formats.read(tmp_path / "copy.h5"), formats.read(coco))


@pytest.mark.crosscheck
@pytest.mark.parametrize(
    "name", ["mobilenet_v1_0.25_128_frozen", "deeplabv3_mobilenet_v2_0.5_513_portrait_quant_frozen"]
)
def test_published_graphs_come_back_from_shards(name, test_data, tmp_path):
    path = test_data / "models" / "tensorflow" / f"{name}.pb"
    folder = write_model(tmp_path / "net", *graph_topology(path.read_bytes()))
    found, expected = formats.read(folder), formats.read(path)
    assert_same_weights(found, expected)
    assert found.ranges == expected.ranges
