"""Files that Keras itself writes, and published ones, against what Keras computes from them (cross-checks)."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import frameworks
import h5py
import numpy as np
import pytest
from judgement import assert_agrees
from numpy.typing import NDArray
from PIL import Image

import minimobile as mm
from minimobile.formats.keras import keras as keras_format
from minimobile.networks.mobilenet_v1 import SEPARABLE_LAYERS

pytestmark = pytest.mark.crosscheck

PUBLISHED = "keras/mobilenet_v1_0.25_224"


class Network(NamedTuple):
    """A Keras model to be saved, and the same up to its logits."""

    model: Any
    to_logits: Any


def randomise(model: Any, seed: int = 0) -> Any:
    """Give every weight and statistic a value of its own, such that pictures matter at the far end."""
    rng = np.random.default_rng(seed)
    for variable in model.variables:
        shape, name = tuple(variable.shape), variable.path.rpartition("/")[2]
        if name == "kernel":
            is_depthwise = len(shape) == 4 and shape[3] == 1 and shape[0] == 3
            fan_in = 9 if is_depthwise else np.prod(shape[:-1])
            values = rng.normal(0, np.sqrt(2 / fan_in), shape)
        elif name in ("gamma", "moving_variance", "variance"):
            values = rng.uniform(0.8, 1.4, shape)
        elif name == "moving_mean" or "bias" in name or name == "beta":
            values = rng.normal(0, 0.2, shape)
        else:
            continue  # counters and seeds
        variable.assign(values)
    return model


def save(model: Any, path: Path, form: str) -> Path:
    """Write one of the four forms that Keras 3 writes."""
    path = path / f"model{form}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # HDF5 is called legacy
        if form == ".weights.h5":
            model.save_weights(path)
        elif form == "_tf.h5":  # as Applications publishes weights; Keras 3 writes them from inside only
            from keras.src.legacy.saving import legacy_h5_format

            with h5py.File(path, "w") as file:
                legacy_h5_format.save_weights_to_hdf5_group(file, model)
        else:
            model.save(path)
    return path


def run(model: Any, pixels: NDArray[Any]) -> NDArray[Any]:
    """Return what Keras computes from (N, H, W, C) pixels, as (N, everything else)."""
    return np.asarray(model(pixels, training=False)).reshape(len(pixels), -1)


def assert_close(model: Any, pixels: NDArray[Any], theirs: NDArray[Any], output: str | None = None) -> None:
    """Assert that our model's output (its first one, if no name is given) is theirs for pixels (N, C, H, W)."""
    spread = np.linalg.norm(theirs[0] - theirs[1]) / np.linalg.norm(theirs)
    assert spread > 1e-3, "the pictures make no difference to this network: it proves nothing"
    output = model.graph.outputs[0] if output is None else output
    shape = model.features(pixels, [output])[output].shape
    if len(shape) == 4 and theirs.size == np.prod(shape):
        theirs = theirs.reshape(shape[0], *shape[2:], shape[1]).transpose(0, 3, 1, 2)
    assert_agrees(model, pixels, {output: theirs})


def undo_softmax(probabilities: NDArray[Any], logits: NDArray[Any]) -> NDArray[Any]:
    """Return the logits (N, C) that have these probabilities and the mean of `logits`: softmax loses it."""
    logarithms = np.log(probabilities.astype(np.float64))
    centred: NDArray[Any] = logarithms - logarithms.mean(1, keepdims=True) + logits.mean(1, keepdims=True)
    return centred


APPLICATIONS: dict[str, tuple[str, dict[str, Any], tuple[str, ...]]] = {
    "V1 0.35, odd": (
        "MobileNet",
        {"input_shape": (97, 97, 3), "alpha": 0.35, "classes": 7},
        (".keras", ".h5", ".weights.h5", "_tf.h5"),
    ),
    "V1 0.25, 225": ("MobileNet", {"input_shape": (225, 225, 3), "alpha": 0.25, "include_top": False}, (".keras",)),
    "V1 0.5, pooled": (
        "MobileNet",
        {"input_shape": (64, 96, 3), "alpha": 0.5, "include_top": False, "pooling": "avg"},
        (".h5",),
    ),
    "V2 0.35, odd": (
        "MobileNetV2",
        {"input_shape": (97, 97, 3), "alpha": 0.35, "classes": 7},
        (".keras", ".h5", ".weights.h5", "_tf.h5"),
    ),
    "V2 1.4": ("MobileNetV2", {"input_shape": (64, 64, 3), "alpha": 1.4, "include_top": False}, (".keras",)),
    "V2 0.5, logits": (
        "MobileNetV2",
        {"input_shape": (65, 96, 3), "alpha": 0.5, "classes": 5, "classifier_activation": None},
        (".keras",),
    ),
}


@pytest.mark.parametrize("case", APPLICATIONS)
def test_applications_in_every_form(tmp_path: Path, case: str) -> None:
    keras = frameworks.keras()
    builder, arguments, forms = APPLICATIONS[case]
    model = randomise(getattr(keras.applications, builder)(weights=None, **arguments))
    pixels = np.random.default_rng(1).uniform(-1, 1, (2, *arguments["input_shape"])).astype(np.float32)
    theirs = run(model, pixels)
    has_softmax = "classes" in arguments and "classifier_activation" not in arguments
    answers = []
    for form in forms:
        ours = mm.load(save(model, tmp_path, form))
        assert ours.config.width_multiplier == arguments["alpha"]
        out = ours(pixels.transpose(0, 3, 1, 2))
        if "classes" in arguments:
            answer = out.logits
        elif "pooling" in arguments:
            answer = out.pooler_output
        else:
            answer = out.last_hidden_state.transpose(0, 2, 3, 1)
        answers.append(answer)
        expected = undo_softmax(theirs, answer) if has_softmax else theirs
        assert_close(ours, pixels.transpose(0, 3, 1, 2), expected, "pooler" if "pooling" in arguments else None)
        if form in (".keras", ".h5"):
            height, width = arguments["input_shape"][:2]
            assert ours.config.image_size == (height if height == width else (height, width))
    assert all(np.array_equal(answer, answers[0]) for answer in answers)


def test_the_three_published_files_give_the_same_bits_and_keras_numbers(test_data: Path) -> None:
    keras = frameworks.keras()
    theirs = keras.models.load_model(test_data / f"models/{PUBLISHED}.keras")
    to_logits = keras.Model(theirs.inputs[0], theirs.get_layer("conv_preds").output)
    ours = [mm.load(test_data / f"models/{PUBLISHED}{form}") for form in (".keras", ".h5", ".weights.h5")]
    pictures = [Image.open(test_data / "images" / name) for name in ("cat.bmp", "parrot.jpg", "grace_hopper.bmp")]
    pixels = ours[0].processor(pictures, return_tensors="np")["pixel_values"]
    assert pixels.shape == (3, 3, 224, 224)
    logits = [model(pixels).logits for model in ours]
    assert np.array_equal(logits[0], logits[1])
    assert np.array_equal(logits[0], logits[2])
    assert_close(ours[0], pixels, run(to_logits, pixels.transpose(0, 2, 3, 1)))
    assert logits[0].argmax(axis=1).tolist()[:2] == [281, 88]  # tabby, macaw


def test_the_published_legacy_file_against_keras_with_its_weights(test_data: Path) -> None:
    """Keras 3 refuses the file as a model (Keras 2.8 wrote it), and takes its weights."""
    keras = frameworks.keras()
    path = test_data / f"models/{PUBLISHED}.h5"
    with pytest.raises(Exception, match="DepthwiseConv2D"):
        keras.models.load_model(path)
    theirs = keras.applications.MobileNet(alpha=0.25, weights=None, classifier_activation=None)
    theirs.load_weights(path)
    pixels = np.random.default_rng(2).uniform(-1, 1, (2, 224, 224, 3)).astype(np.float32)
    assert_close(mm.load(path), pixels.transpose(0, 3, 1, 2), run(theirs, pixels))


def hand_written(keras: Any, activate: Callable[[], Any], head: str, has_zeros: bool = False) -> Network:
    """Return a V1 under generic names for grey pictures, with biased convolutions before batch norm.

    `has_zeros`: with padding layers before all layers of stride 2, as in keras-applications 1.0.
    """
    layers = keras.layers

    def pad(value: Any, stride: int) -> tuple[Any, str]:
        if stride == 1 or not has_zeros:
            return value, "same"
        return layers.ZeroPadding2D(((0, 1), (0, 1)))(value), "valid"

    picture = keras.Input((49, 48, 1))
    x, padding = pad(picture, 2)
    x = activate()(layers.BatchNormalization(epsilon=1e-4)(layers.Conv2D(8, 3, 2, padding=padding)(x)))
    for base, stride in SEPARABLE_LAYERS:
        x, padding = pad(x, stride)
        x = layers.DepthwiseConv2D(3, stride, padding=padding)(x)
        x = activate()(layers.BatchNormalization(epsilon=1e-4, scale=False)(x))
        x = activate()(layers.BatchNormalization(epsilon=1e-4)(layers.Conv2D(base // 4, 1)(x)))
    if head == "convolution":
        x = layers.Reshape((1, 1, 256))(layers.AveragePooling2D(x.shape[1:3])(x))
        logits = layers.Flatten()(layers.Conv2D(4, 1)(x))
        return Network(keras.Model(picture, layers.Softmax()(logits)), keras.Model(picture, logits))
    x = layers.Dropout(0.5)(layers.Flatten()(layers.GlobalAveragePooling2D()(x)))
    dense = layers.Dense(1, activation="sigmoid")
    model = keras.Model(picture, dense(x))
    return Network(model, (keras.Model(picture, x), dense))


@pytest.mark.parametrize("case", ["ReLU and a sigmoid", "relu6 by name, a convolution and zeros"])
def test_a_hand_written_model_with_generic_names(tmp_path: Path, case: str) -> None:
    keras = frameworks.keras()
    layers = keras.layers
    if case == "ReLU and a sigmoid":
        network = hand_written(keras, layers.ReLU, "dense")
    else:
        network = hand_written(keras, lambda: layers.Activation("relu6"), "convolution", has_zeros=True)
    randomise(network.model)
    pixels = np.random.default_rng(3).uniform(-1, 1, (2, 49, 48, 1)).astype(np.float32)
    if isinstance(network.to_logits, tuple):
        features, dense = network.to_logits
        theirs = run(features, pixels) @ np.asarray(dense.kernel) + np.asarray(dense.bias)
    else:
        theirs = run(network.to_logits, pixels)
    for form in (".keras", ".h5"):
        ours = mm.load(save(network.model, tmp_path, form))
        assert ours.config.num_channels == 1
        assert ours.config.hidden_act == ("relu" if "ReLU" in case else "relu6")
        assert ours.config.layer_norm_eps == 1e-4
        assert ours.config.bottom_right_padding == ("all" if "zeros" in case else None)
        assert (ours.config.problem_type == "multi_label_classification") == ("sigmoid" in case)
        assert_close(ours, pixels.transpose(0, 3, 1, 2), theirs)
    with pytest.raises(mm.MinimobileError, match="save the whole model in Keras"):
        mm.load(save(network.model, tmp_path, ".weights.h5"))


def transfer(keras: Any, case: str) -> Any:
    """Return a MobileNetV2 used as a layer, in the ways of Keras' guides to transfer learning."""
    layers = keras.layers
    base = keras.applications.MobileNetV2((64, 64, 3), alpha=0.35, weights=None, include_top=False)
    if case == "Rescaling":
        parts = [layers.Rescaling(1 / 127.5, -1), base, layers.GlobalAveragePooling2D(), layers.Dropout(0.2)]
        return keras.Sequential([keras.Input((64, 64, 3)), *parts, layers.Dense(3)])
    picture = keras.Input((64, 64, 3))
    if case == "Normalization":
        scaled = layers.Normalization(mean=[110.12345, 120.7, 130.3], variance=[3001.0, 4001.7, 5003.3])(picture)
    elif case == "adapted":
        normalization = layers.Normalization()
        normalization.adapt(np.random.default_rng(4).integers(0, 256, (9, 64, 64, 3)).astype(np.float32))
        scaled = normalization(picture)
    else:
        scaled = keras.applications.mobilenet_v2.preprocess_input(layers.RandomFlip("horizontal")(picture))
    x = layers.GlobalAveragePooling2D()(base(scaled, training=False))
    return keras.Model(picture, layers.Dense(3)(x))


@pytest.mark.parametrize("case", ["Rescaling", "Normalization", "adapted", "preprocess_input"])
def test_a_mobilenet_as_a_layer_with_scaling_before_it(tmp_path: Path, case: str) -> None:
    """Keras gets pixels from 0 to 255, and we the picture: the processor has to do what the first layers do."""
    keras = frameworks.keras()
    model = transfer(keras, case)
    statistics = [layer.get_weights() for layer in model.layers if "normalization" in layer.name]
    randomise(model)
    for layer, values in zip(
        (layer for layer in model.layers if "normalization" in layer.name), statistics, strict=True
    ):
        layer.set_weights(values)
    colours = np.random.default_rng(5).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    colours[1] //= 2
    for form in (".keras", ".h5") if case in ("Rescaling", "adapted") else (".keras",):
        path = save(model, tmp_path, form)
        ours = mm.load(path)
        pixels = ours.processor([Image.fromarray(picture) for picture in colours], return_tensors="np")
        assert_close(ours, pixels["pixel_values"], run(model, colours.astype(np.float32)))
        assert "Conv2D 35" in keras_format.describe(path).facts["layers"]


def test_other_networks_are_described_and_refused_by_name(tmp_path: Path) -> None:
    keras = frameworks.keras()
    path = save(keras.applications.MobileNetV3Small((64, 64, 3), alpha=0.75, weights=None), tmp_path, ".keras")
    described = keras_format.describe(path)
    assert described.producer == f"Keras {keras.__version__}"
    assert "BatchNormalization 34" in described.facts["layers"]
    assert len(described.entries) > 100
    with pytest.raises(mm.MinimobileError, match=r"layer '\w+': expected a"):
        mm.load(path)
