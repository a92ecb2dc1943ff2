"""TensorFlow's SavedModels: by hand with functions in functions, hostile ones, live ones of TensorFlow and Keras."""

from __future__ import annotations

import frameworks
import numpy as np
import pytest
from graph_writer import const, node, placeholder, tiny_v1
from planted import draw_pixels
from saved_models import call, function, saved_model, write_saved_model
from slim_graphs import Slim

import minimobile as mm
from minimobile import formats
from minimobile.errors import FormatError
from minimobile.formats.tensorflow import saved_model as saved_model_reader
from minimobile.formats.tensorflow.graph_def import GraphNode


def test_functions_are_followed_and_variables_found(tmp_path):
    write_saved_model(tmp_path / "saved")
    (tmp_path / "frozen.pb").write_bytes(tiny_v1()[0])
    expected = formats.read(tmp_path / "frozen.pb")
    for path in (tmp_path / "saved", tmp_path / "saved" / "saved_model.pb"):
        found = formats.read(path)
        assert found.config == expected.config and found.architecture == expected.architecture
        for name, values in expected.weights.items():
            assert found.weights[name].tobytes() == values.tobytes(), name
        assert found.endpoints["conv_stem"] == "StatefulPartitionedCall/call/stem/relu6"
        assert found.provenance["format"] == "saved-model"
    described, checkpoint = formats.examine(tmp_path / "saved")
    assert described.format == "TensorFlow SavedModel" and checkpoint is not None


def write_graph(folder, graph, library=b"", output="out", **options):
    folder.mkdir()
    (folder / "saved_model.pb").write_bytes(saved_model(graph, library, output, **options))
    return folder


HOSTILE = {
    "a function that calls itself": (
        call("out", "f", "x"), function("f", ["x"], {"y": "again:0"}, call("again", "f", "x")), "at most 64 deep",
    ),
    "functions that double": (
        call("out", "f0", "x"),
        b"".join(
            function(f"f{i}", ["x"], {"y": "b:0"}, call("a", f"f{i + 1}", "x") + call("b", f"f{i + 1}", "x"))
            for i in range(40)
        ) + function("f40", ["x"], {"y": "x"}, node("n", "Identity", "x")),
        "at most 20000",
    ),
    "functions without results that double": (
        node("out", "Relu", "x") + call("a", "f0"),
        b"".join(function(f"f{i}", [], {}, call("a", f"f{i + 1}") + call("b", f"f{i + 1}")) for i in range(40))
        + function("f40", [], {}, b""),
        "at most 20000 calls",
    ),
    "a function that is not there": (call("out", "missing", "x"), b"", "a function of 1 arguments .* found none"),
    "results in a circle": (
        call("out", "f", "x"), function("f", ["x"], {"y": "y"}, node("y2", "Identity", "x")), "no such node|cycle",
    ),
    "too few arguments": (call("out", "f", "x"), function("f", ["x", "y"], {"z": "x"}, b""), "of 1 arguments"),
    "an output that nothing computes": (const("other", 1.0), b"", "to compute 'out', found no such node"),
    "a variable that is nowhere": (node("out", "VarHandleOp"), b"", "variables"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_graph_is_one_sentence(name, tmp_path):
    graph, library, words = HOSTILE[name]
    folder = write_graph(tmp_path / "saved", placeholder("x") + graph, library)
    with pytest.raises(FormatError, match=words) as caught:
        formats.read(folder)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 1000


def test_copies_of_copies_are_followed_once(tmp_path):
    """What restores a variable may be a copy of a copy; each of many variables may ask for the same ones."""

    class Counting(dict):
        count = 0

        def get(self, *arguments):
            self.count += 1
            return super().get(*arguments)

    def at(name, op, *inputs):
        return GraphNode(name, op, inputs, {}, "x")

    length = 100
    nodes = [at("c0", "VarHandleOp"), *[at(f"c{n + 1}", "Identity", f"c{n}") for n in range(length)]]
    nodes += [at(f"v{n}", "VarHandleOp") for n in range(length)]
    nodes += [at(f"a{n}", "AssignVariableOp", f"v{n}", f"c{length}") for n in range(length)]
    nodes += [at("round", "Identity", "about"), at("about", "Identity", "round"), at("b", "Assign", "v0", "round")]
    named = Counting({each.name: each for each in nodes})
    assert saved_model_reader._find_restored(named, "x") == {}
    assert named.count < 10 * len(nodes)


def test_what_serves_nothing_is_said(tmp_path):
    folder = write_graph(tmp_path / "tags", placeholder("out"), tags="train")
    with pytest.raises(FormatError, match="tagged 'serve', found none"):
        formats.read(folder)
    folder = write_graph(tmp_path / "signature", placeholder("out"), signature="__saved_model_init_op")
    with pytest.raises(FormatError, match="expected a signature that says what is computed"):
        formats.read(folder)


def test_a_checkpoint_that_lacks_an_array_or_is_damaged_is_said(tmp_path):
    write_saved_model(tmp_path / "saved")
    data = next((tmp_path / "saved" / "variables").glob("*.data*"))
    content = bytearray(data.read_bytes())
    content[5] ^= 1
    data.write_bytes(content)
    with pytest.raises(FormatError, match="checksum"):
        formats.read(tmp_path / "saved")
    data.unlink()
    with pytest.raises(FormatError, match="expected its shard"):
        formats.read(tmp_path / "saved")


@pytest.fixture(scope="module")
def keras_model():
    keras = frameworks.keras()
    keras.utils.set_random_seed(0)
    model = keras.applications.MobileNet(weights=None, alpha=0.25, input_shape=(96, 96, 3), classes=7)
    random = np.random.default_rng(0)
    for layer in model.layers:
        if type(layer).__name__ == "BatchNormalization":
            layer.set_weights([random.uniform(0.5, 1.5, values.shape) for values in layer.get_weights()])
    return model


@pytest.mark.crosscheck
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("way", ["Keras' export", "tf.saved_model.save"])
def test_a_saved_model_of_keras_agrees_with_tensorflow_at_every_layer(way, keras_model, tmp_path):
    tensorflow = frameworks.tensorflow()
    if way == "Keras' export":
        keras_model.export(tmp_path / "saved", verbose=False)
    else:
        tensorflow.saved_model.save(keras_model, str(tmp_path / "saved"))
    report = mm.check(tmp_path / "saved", against="tensorflow", pixel_values=draw_pixels(96))
    assert report.agrees and len(report.layers) == 29, report
    keras_model.save(tmp_path / "model.keras")
    ours, theirs = (mm.load(tmp_path / name).state_dict() for name in ("saved", "model.keras"))
    for name, values in theirs.items():
        np.testing.assert_array_equal(ours[name], values, err_msg=name)


class Variables(Slim):
    """The same graph with variables of TensorFlow 1."""

    def variable(self, name, values):
        values = np.asarray(values, np.float32)
        return self.tf.compat.v1.get_variable(name, initializer=values, use_resource=self.uses_resources).read_value()


@pytest.mark.crosscheck
@pytest.mark.parametrize("uses_resources", [False, True])
def test_a_saved_model_of_tensorflow_1_agrees_with_tensorflow(uses_resources, tmp_path):
    tensorflow = frameworks.tensorflow()
    v1 = tensorflow.compat.v1
    with tensorflow.Graph().as_default(), v1.Session() as session:
        slim = Variables(tensorflow)
        slim.uses_resources = uses_resources
        picture = v1.placeholder("float32", (None, 64, 64, 3), "picture")
        scores = slim.classify(slim.v1(picture, 0.25), "MobilenetV1", 5)
        session.run(v1.global_variables_initializer())
        v1.saved_model.simple_save(session, str(tmp_path / "saved"), {"picture": picture}, {"scores": scores})
    report = mm.check(tmp_path / "saved", against="tensorflow", pixel_values=draw_pixels(64))
    assert report.agrees and len(report.layers) == 29, report
