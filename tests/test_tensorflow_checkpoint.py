"""TensorFlow checkpoints of MobileNets: found by any of their names, and equal to what TensorFlow computes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import frameworks
import numpy as np
import pytest
from bundles import table, write_bundle
from hostile import assert_refused
from judgement import assert_agrees
from slim import random_weights, slim_variables

import minimobile
from minimobile import formats
from minimobile.formats.tensorflow.checkpoint_files import is_checkpoint
from minimobile.formats.tensorflow.tensor_bundle import Bundle
from minimobile.networks.config import MobileNetV1Config, MobileNetV2Config

V1, V2 = "MobileNetV1ForImageClassification", "MobileNetV2ForImageClassification"
DEEPLAB = "MobileNetV2ForSemanticSegmentation"
SMALL = MobileNetV1Config(depth_multiplier=0.1, num_labels=3)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the common name of a small V1's checkpoint in two shards."""
    prefix = tmp_path_factory.mktemp("small") / "mobilenet_v1_0.1_96.ckpt"
    variables = slim_variables(random_weights(SMALL, V1)) | {"global_step": np.array(5, np.int64)}
    write_bundle(prefix, variables, shards=2)
    return prefix


@pytest.mark.parametrize("ending", ["", ".index", ".data-00000-of-00002", ".data-00001-of-00002", "/.."])
def test_a_checkpoint_is_found_by_any_of_its_names(small: Path, ending: str) -> None:
    path = small.parent if ending == "/.." else small.with_name(small.name + ending)
    checkpoint = formats.read(path)
    assert checkpoint.architecture == V1
    assert checkpoint.dialect == "slim"
    assert checkpoint.config.depth_multiplier == 0.1
    assert checkpoint.config.image_size == 96, "published names end with the image size"
    assert checkpoint.ignored == {"global_step": "number of training steps"}
    for name, values in random_weights(SMALL, V1).items():
        assert np.array_equal(checkpoint.weights[name], values), name
    assert minimobile.AutoConfig.from_pretrained(path) == checkpoint.config
    assert minimobile.AutoImageProcessor.from_pretrained(path).crop_size == {"height": 96, "width": 96}


def test_a_directory_says_which_checkpoint_is_its_newest(small: Path, tmp_path: Path) -> None:
    for step in (1, 2):
        variables = slim_variables(random_weights(SMALL, V1, seed=step))
        write_bundle(tmp_path / f"model.ckpt-{step}", variables)
    assert not is_checkpoint(tmp_path), "two, and neither is named"
    (tmp_path / "checkpoint").write_text(
        'model_checkpoint_path: "/elsewhere/train/model.ckpt-2"\nall_model_checkpoint_paths: "model.ckpt-1"\n'
    )
    checkpoint = formats.read(tmp_path)
    assert checkpoint.provenance["source"] == "model.ckpt-2"
    assert np.array_equal(checkpoint.weights["classifier.bias"], random_weights(SMALL, V1, seed=2)["classifier.bias"])


@pytest.mark.parametrize("text", ["", 'model_checkpoint_path: ""', 'model_checkpoint_path: "a/.."', "\0" * 100])
def test_a_directory_that_names_none_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "checkpoint").write_text(text)
    assert_refused(lambda _: formats.read(tmp_path), tmp_path / "checkpoint", "expected it to name the newest")


def test_deeplab_is_a_segmentation_model_of_output_stride_8(tmp_path: Path) -> None:
    config = MobileNetV2Config(depth_multiplier=0.3, depth_divisible_by=1, num_labels=4)
    weights = {n: v for n, v in random_weights(config, DEEPLAB).items() if ".conv_1x1." not in n}
    write_bundle(tmp_path / "model.ckpt", slim_variables(weights))
    checkpoint = formats.read(tmp_path / "model.ckpt")
    assert (checkpoint.architecture, checkpoint.dialect) == (DEEPLAB, "deeplab")
    assert checkpoint.config.image_size == 513
    model = minimobile.load(tmp_path / "model.ckpt")
    assert model.config.output_stride == 8
    assert model(np.zeros((1, 3, 33, 33), np.float32)).logits.shape == (1, 4, 5, 5)


def test_a_description_lists_what_is_there(small: Path) -> None:
    described = formats.describe(small)
    assert (described.format, described.dialect, described.facts) == ("TensorFlow checkpoint", "slim", {"shards": "2"})
    assert ("global_step", (), "int64") in described.entries
    assert ("MobilenetV1/Conv2d_0/weights", (3, 3, 3, 8), "float32") in described.entries


def test_what_is_no_slim_checkpoint_is_refused(tmp_path: Path) -> None:
    write_bundle(tmp_path / "a", {"_CHECKPOINTABLE_OBJECT_GRAPH": np.zeros(3, np.uint8)})
    assert_refused(formats.read, tmp_path / "a.index", "found an object-based checkpoint")
    assert formats.describe(tmp_path / "a.index").format == "object-based TensorFlow checkpoint"
    write_bundle(tmp_path / "b", {"dense/kernel": np.zeros((3, 4), np.float32)})
    assert_refused(formats.read, tmp_path / "b.index", "found also dense/kernel, which belongs to another network")
    assert formats.describe(tmp_path / "b.index").dialect is None
    write_bundle(tmp_path / "c", {"global_step": np.array(1)})
    assert_refused(formats.read, tmp_path / "c.index", "expected the first convolution of a MobileNet")
    (tmp_path / "old.ckpt").write_bytes(table([(b"", b"\x0a\x00")]))
    assert_refused(formats.read, tmp_path / "old.ckpt", "V1 format")
    (tmp_path / "c.index").unlink()
    assert_refused(formats.read, tmp_path / "c.data-00000-of-00001", "expected the index c.index beside it, found none")


# ---- against TensorFlow


def same_bits(left: Any, right: Any) -> bool:
    return np.ascontiguousarray(left).tobytes() == np.ascontiguousarray(right).tobytes()


@pytest.mark.crosscheck
def test_the_published_checkpoint_has_the_bits_of_its_transformers_twin(test_data: Path) -> None:
    ours = minimobile.load(test_data / "models" / "tensorflow" / "mobilenet_v1_0.25_128.ckpt")
    twin = minimobile.load(test_data / "models" / "huggingface" / "mobilenet_v1_0.25_128")
    weights = {name: v for name, v in twin.state_dict().items() if not name.endswith("num_batches_tracked")}
    assert set(ours.state_dict()) == set(weights)
    assert all(same_bits(values, ours.state_dict()[name]) for name, values in weights.items())
    pixels = np.random.default_rng(0).uniform(-1, 1, (2, 3, 128, 128)).astype(np.float32)
    assert same_bits(ours(pixels).logits, twin(pixels).logits)


@pytest.mark.crosscheck
def test_published_checkpoints_are_read_as_tensorflow_reads_them(test_data: Path) -> None:
    tf = frameworks.tensorflow()
    for index in sorted((test_data / "models" / "tensorflow").glob("*.index")):
        prefix = index.with_name(index.name.removesuffix(".index"))
        reader = tf.train.load_checkpoint(str(prefix))
        bundle = Bundle(prefix)
        assert set(bundle) == set(reader.get_variable_to_shape_map())
        assert all(same_bits(bundle[name], reader.get_tensor(name)) for name in bundle), prefix


def saved_by_tensorflow(tf: Any, prefix: Path, variables: dict[str, np.ndarray], **options: Any) -> None:
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        for name, values in variables.items():
            tf.compat.v1.get_variable(name, initializer=values, use_resource=False)
        session.run(tf.compat.v1.global_variables_initializer())
        saver = tf.compat.v1.train.Saver(**options)
        saver.save(session, str(prefix), write_meta_graph=False)


def tensorflow_logits(tf: Any, given: dict[str, np.ndarray], pixels: np.ndarray) -> np.ndarray:
    """Compute a network from TF-slim's variables with tf.nn in float64: V1, V2 or DeepLab at output stride 8."""
    values = {name: tf.constant(v, tf.float64) for name, v in given.items()}

    def layer(
        x: Any, scope: str, act: Callable[[Any], Any] | None, stride: int = 1, rate: int = 1, eps: float = 1e-3
    ) -> Any:
        if f"{scope}/depthwise_weights" in values:
            kernel = values[f"{scope}/depthwise_weights"]
            x = tf.nn.depthwise_conv2d(x, kernel, [1, stride, stride, 1], "SAME", dilations=[rate, rate])
        else:
            x = tf.nn.conv2d(x, values[f"{scope}/weights"], stride, "SAME")
        norm = [values[f"{scope}/BatchNorm/{name}"] for name in ("moving_mean", "moving_variance", "beta", "gamma")]
        x = tf.nn.batch_normalization(x, *norm, variance_epsilon=eps)
        return x if act is None else act(x)

    def bottleneck(x: Any, scope: str, stride: int, rate: int) -> Any:
        y = layer(x, f"{scope}/expand", tf.nn.relu6) if f"{scope}/expand/weights" in values else x
        y = layer(y, f"{scope}/depthwise", tf.nn.relu6, stride, rate)
        y = layer(y, f"{scope}/project", None)
        return y + x if stride == 1 and y.shape == x.shape and scope != "MobilenetV2/expanded_conv" else y

    def classify(x: Any, scope: str) -> Any:
        return tf.nn.conv2d(x, values[f"{scope}/weights"], 1, "SAME") + values[f"{scope}/biases"]

    x = tf.constant(pixels.transpose(0, 2, 3, 1), tf.float64)
    if "MobilenetV1/Conv2d_0/weights" in values:
        x = layer(x, "MobilenetV1/Conv2d_0", tf.nn.relu6, 2)
        for index, stride in enumerate((1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1), 1):
            x = layer(x, f"MobilenetV1/Conv2d_{index}_depthwise", tf.nn.relu6, stride)
            x = layer(x, f"MobilenetV1/Conv2d_{index}_pointwise", tf.nn.relu6)
        pooled = tf.reduce_mean(x, [1, 2], keepdims=True)
        return classify(pooled, "MobilenetV1/Logits/Conv2d_1c_1x1").numpy()[:, 0, 0]
    is_deeplab = "aspp0/weights" in values
    x = layer(x, "MobilenetV2/Conv", tf.nn.relu6, 2)
    x = bottleneck(x, "MobilenetV2/expanded_conv", 1, 1)
    strides = (2, 1, 2, 1, 1, 2, 1, 1, 1, 1, 1, 1, 2, 1, 1, 1)
    rates = (1,) * 6 + (2,) * 7 + (4,) * 3  # at output stride 8, from the sixth block on in place of the strides
    for index, (stride, rate) in enumerate(zip(strides, rates, strict=True)):
        place = (1 if index >= 5 else stride, rate) if is_deeplab else (stride, 1)
        x = bottleneck(x, f"MobilenetV2/expanded_conv_{index + 1}", *place)
    if is_deeplab:
        pooled = layer(tf.reduce_mean(x, [1, 2], keepdims=True), "image_pooling", tf.nn.relu, eps=1e-5)
        pooled = tf.broadcast_to(pooled, (*x.shape[:3], pooled.shape[3]))
        joined = tf.concat([pooled, layer(x, "aspp0", tf.nn.relu, eps=1e-5)], 3)
        logits = classify(layer(joined, "concat_projection", tf.nn.relu, eps=1e-5), "logits/semantic")
        return logits.numpy().transpose(0, 3, 1, 2)
    pooled = tf.reduce_mean(layer(x, "MobilenetV2/Conv_1", tf.nn.relu6), [1, 2], keepdims=True)
    return classify(pooled, "MobilenetV2/Logits/Conv2d_1c_1x1").numpy()[:, 0, 0]


@pytest.mark.crosscheck
@pytest.mark.parametrize("width", [0.35, 0.5, 1.4])
@pytest.mark.parametrize("architecture", [V1, V2, DEEPLAB])
def test_what_tensorflow_saves_gives_what_tensorflow_computes(tmp_path: Path, architecture: str, width: float) -> None:
    """Sharded and not, with slots of an optimiser; moving averages, whose variables themselves are off."""
    tf = frameworks.tensorflow()
    kind = MobileNetV1Config if architecture == V1 else MobileNetV2Config
    divisor = {"depth_divisible_by": 1} if architecture == DEEPLAB else {}
    weights = random_weights(kind(depth_multiplier=width, num_labels=11, **divisor), architecture)
    if architecture == DEEPLAB:
        weights = {name: values for name, values in weights.items() if ".conv_1x1." not in name}
    variables = slim_variables(weights)
    stored: dict[str, np.ndarray] = {"global_step": np.array(300, np.int64)}
    for name, values in variables.items():
        stored[name] = values
        if "Conv2d_3_" in name or "expanded_conv_2/" in name:
            stored[f"{name}/RMSProp"] = np.ones_like(values)
            if "moving_" not in name:
                stored[name] = values + 1
                stored[f"{name}/ExponentialMovingAverage"] = values
    saved_by_tensorflow(tf, tmp_path / "model.ckpt", stored, sharded=width != 0.5)
    model = minimobile.load(tmp_path / ("model.ckpt" if width == 1.4 else ""))
    assert model.config.width_multiplier == width
    pixels = np.random.default_rng(1).uniform(-1, 1, (1, 3, 65, 49)).astype(np.float32)
    expected = tensorflow_logits(tf, variables, pixels)
    assert_agrees(model, pixels, {model.graph.outputs[0]: expected})


@pytest.mark.crosscheck
def test_shards_types_and_partitions_of_tensorflow(tmp_path: Path) -> None:
    tf = frameworks.tensorflow()
    rng = np.random.default_rng(0)
    arrays = {
        f"v{kind}": (rng.standard_normal((5, 7)) * 50).astype(kind) for kind in ("f2", "f4", "f8", "i4", "u1", "i8")
    }
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        for name, values in arrays.items():
            tf.compat.v1.get_variable(name, initializer=values, use_resource=False)
        brain = tf.cast(tf.constant(arrays["vf4"]), tf.bfloat16)
        tf.compat.v1.get_variable("brain", initializer=brain, use_resource=False)
        parts = tf.compat.v1.fixed_size_partitioner(2)
        tf.compat.v1.get_variable("parted", shape=(4, 6), partitioner=parts, use_resource=False)
        session.run(tf.compat.v1.global_variables_initializer())
        tf.compat.v1.train.Saver(sharded=True).save(session, str(tmp_path / "x"), write_meta_graph=False)
        rounded = session.run(tf.cast(brain, tf.float32))
    bundle = Bundle(tmp_path / "x")
    assert set(bundle) == {*arrays, "brain", "parted"}
    for name, values in arrays.items():
        assert np.array_equal(bundle[name], values), name
    assert np.array_equal(bundle["brain"], rounded)
    with pytest.raises(minimobile.MinimobileError, match=r"parted: .*a partitioned one"):
        bundle["parted"]


@pytest.mark.crosscheck
def test_an_object_based_checkpoint_of_tensorflow_is_named(tmp_path: Path) -> None:
    tf = frameworks.tensorflow()
    tf.train.Checkpoint(a=tf.Variable(np.ones(3, np.float32))).write(str(tmp_path / "x"))
    with pytest.raises(minimobile.MinimobileError, match="object-based"):
        formats.read(tmp_path / "x.index")
