"""MobileNets as TF-slim and DeepLab build them, from TensorFlow's own operations, with random numbers in constants.

Written from the papers' tables and slim's names, not from this project's networks: a reference to compare with.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

# t, c, n, s of the V2 paper's table 2.
V2_STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
V1_LAYERS = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *5 * ((512, 1),), (1024, 2), (1024, 1))


@dataclass
class Slim:
    """A graph under construction. `norm` is "arithmetic", "fused" or "folded"; `atrous` "blocks" or "dilations"."""

    tf: Any
    norm: str = "arithmetic"
    atrous: str = "blocks"
    has_explicit_padding: bool = False
    epsilon: float = 1e-3
    activation: str = "Relu6"
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))

    def variable(self, name: str, values: Any) -> Any:
        """Return a variable that is frozen into a constant."""
        constant = self.tf.constant(np.asarray(values, np.float32), name=name)
        return self.tf.identity(constant, name=f"{name}/read")

    def draw_norm(self, channels: int) -> dict[str, Any]:
        """Return gamma, beta, mean, variance."""
        draw = self.rng.uniform
        return {
            "gamma": draw(0.5, 1.5, channels),
            "beta": draw(-0.5, 1.5, channels),
            "moving_mean": draw(-0.5, 0.5, channels),
            "moving_variance": draw(0.5, 2.0, channels),
        }

    def conv(
        self,
        x: Any,
        scope: str,
        channels: int,
        kernel: int = 1,
        stride: int = 1,
        rate: int = 1,
        *,
        is_depthwise: bool = False,
        activation: str | None = "",
        epsilon: float | None = None,
    ) -> Any:
        """Add convolution, batch norm and activation; `activation=None` leaves the last out."""
        tf = self.tf
        fan = kernel * kernel * (1 if is_depthwise else x.shape[3])
        shape = (kernel, kernel, x.shape[3], 1 if is_depthwise else channels)
        weight = self.rng.standard_normal(shape) * np.sqrt(2 / fan)
        channels = x.shape[3] if is_depthwise else channels
        norm = self.draw_norm(channels)
        epsilon = self.epsilon if epsilon is None else epsilon
        if self.norm == "folded":
            scale = norm["gamma"] / np.sqrt(norm["moving_variance"] + epsilon)
            weight = weight * (scale.reshape(-1, 1) if is_depthwise else scale)
        weight = self.variable(f"{scope}/{'depthwise_weights' if is_depthwise else 'weights'}", weight)
        padding = "SAME"
        if self.has_explicit_padding and kernel > 1:
            side = (kernel - 1) // 2 * rate
            x = tf.pad(x, [[0, 0], [side, side], [side, side], [0, 0]], name=f"{scope}/Pad")
            padding = "VALID"
        steps = [1, stride, stride, 1]
        if is_depthwise and rate > 1 and self.atrous == "dilations":
            x = tf.raw_ops.DepthwiseConv2dNative(
                input=x, filter=weight, strides=steps, padding=padding, dilations=[1, rate, rate, 1],
                name=f"{scope}/depthwise",
            )  # fmt: skip
        elif is_depthwise:
            x = tf.compat.v1.nn.depthwise_conv2d(x, weight, steps, padding, [rate, rate], name=f"{scope}/depthwise")
        else:
            x = tf.compat.v1.nn.conv2d(x, weight, steps, padding, name=f"{scope}/convolution")
        x = self.add_norm(x, scope, norm, epsilon)
        activation = self.activation if activation == "" else activation
        return x if activation is None else getattr(tf.raw_ops, activation)(features=x, name=f"{scope}/{activation}")

    def add_norm(self, x: Any, scope: str, norm: dict[str, Any], epsilon: float) -> Any:
        """Add batch norm, or the bias into which it is folded."""
        tf = self.tf
        if self.norm == "folded":
            scale = norm["gamma"] / np.sqrt(norm["moving_variance"] + epsilon)
            bias = self.variable(f"{scope}/biases", norm["beta"] - norm["moving_mean"] * scale)
            return tf.nn.bias_add(x, bias, name=f"{scope}/BiasAdd")
        parts = {name: self.variable(f"{scope}/BatchNorm/{name}", values) for name, values in norm.items()}
        mean, variance, beta, gamma = (parts[name] for name in ("moving_mean", "moving_variance", "beta", "gamma"))
        if self.norm == "arithmetic":
            name = f"{scope}/BatchNorm/batchnorm"
            return tf.nn.batch_normalization(x, mean, variance, beta, gamma, epsilon, name=name)
        name = f"{scope}/BatchNorm/FusedBatchNormV3"
        return tf.raw_ops.FusedBatchNormV3(
            x=x, scale=gamma, offset=beta, mean=mean, variance=variance, epsilon=epsilon, is_training=False, name=name
        )[0]

    def v1(self, x: Any, width: float, output_stride: int = 32) -> Any:
        """Add the backbone of MobileNet V1."""
        scope = "MobilenetV1/MobilenetV1"
        x = self.conv(x, f"{scope}/Conv2d_0", max(int(32 * width), 8), 3, 2)
        rows = zip(V1_LAYERS, _strides((s for _, s in V1_LAYERS), 2, output_stride), strict=True)
        for index, ((channels, _), (stride, rate)) in enumerate(rows, 1):
            x = self.conv(x, f"{scope}/Conv2d_{index}_depthwise", 0, 3, stride, rate, is_depthwise=True)
            x = self.conv(x, f"{scope}/Conv2d_{index}_pointwise", max(int(channels * width), 8))
        return x

    def v2(self, x: Any, width: float, output_stride: int = 32, *, has_last: bool = True) -> Any:
        """Add the backbone of MobileNet V2, with or without the last convolution."""
        x = self.conv(x, "MobilenetV2/Conv", _divisible(32 * width), 3, 2)
        blocks = [(t, c, s if repeat == 0 else 1) for t, c, n, s in V2_STAGES for repeat in range(n)]
        steps = _strides((s for _, _, s in blocks), 2, output_stride)
        for index, ((t, c, _), (stride, rate)) in enumerate(zip(blocks, steps, strict=True)):
            scope = f"MobilenetV2/expanded_conv{f'_{index}' if index else ''}"
            y = self.conv(x, f"{scope}/expand", _divisible(x.shape[3] * t)) if t > 1 else x
            y = self.conv(y, f"{scope}/depthwise", 0, 3, stride, rate, is_depthwise=True)
            y = self.conv(y, f"{scope}/project", _divisible(c * width), activation=None)
            x = self.tf.add(y, x, name=f"{scope}/add") if stride == 1 and y.shape[3] == x.shape[3] else y
        return self.conv(x, "MobilenetV2/Conv_1", max(1280, _divisible(1280 * width))) if has_last else x

    def classify(self, x: Any, scope: str, classes: int, *, has_window: bool = False) -> Any:
        """Add pool, 1x1 convolution and softmax; returns the logits."""
        tf = self.tf
        if has_window:
            side = min(7, x.shape[1])
            x = tf.nn.avg_pool2d(x, [side, side], [2, 2], "VALID", name=f"{scope}/Logits/AvgPool_1a/AvgPool")
        else:
            x = tf.reduce_mean(x, [1, 2], keepdims=True, name=f"{scope}/Logits/global_pool")
        x = tf.identity(x, name=f"{scope}/Logits/Dropout_1b/Identity")
        x = self.logits(x, f"{scope}/Logits/Conv2d_1c_1x1", classes)
        x = tf.squeeze(x, [1, 2], name=f"{scope}/Logits/SpatialSqueeze")
        flat = tf.reshape(x, [-1, classes], name=f"{scope}/Predictions/Reshape")
        tf.reshape(tf.nn.softmax(flat), tf.shape(x), name=f"{scope}/Predictions/Reshape_1")
        return x

    def logits(self, x: Any, scope: str, classes: int) -> Any:
        """Add a 1x1 convolution with bias."""
        weight = self.variable(f"{scope}/weights", self.rng.standard_normal((1, 1, x.shape[3], classes)) * 0.1)
        bias = self.variable(f"{scope}/biases", self.rng.standard_normal(classes))
        x = self.tf.compat.v1.nn.conv2d(x, weight, [1, 1, 1, 1], "SAME", name=f"{scope}/convolution")
        return self.tf.nn.bias_add(x, bias, name=f"{scope}/BiasAdd")

    def deeplab_input(self, crop: int) -> Any:
        """Add what DeepLab's export does first: pad a picture with 127.5 to the crop, scale it to [-1, 1]."""
        tf = self.tf
        picture = tf.compat.v1.placeholder(tf.uint8, [1, None, None, 3], name="ImageTensor")
        image = tf.cast(tf.squeeze(picture, 0), tf.float32)
        height, width = tf.shape(image)[0], tf.shape(image)[1]
        mean = tf.reshape(tf.constant([127.5, 127.5, 127.5]), [1, 1, 3])
        rows = height + tf.maximum(crop - height, 0)
        columns = width + tf.maximum(crop - width, 0)
        image = tf.image.pad_to_bounding_box(image - mean, 0, 0, rows, columns) + mean
        image.set_shape([crop, crop, 3])
        return tf.identity((2.0 / 255.0) * tf.expand_dims(image, 0) - 1.0, name="MobilenetV2/MobilenetV2/input")

    def deeplab_head(self, x: Any, classes: int, crop: int) -> Any:
        """Add DeepLab's reduced head and what its export does with the logits; returns the logits."""
        tf = self.tf
        height, width = x.shape[1:3]
        style = {"activation": "Relu", "epsilon": 1e-5}
        pooled = tf.nn.avg_pool2d(x, [height, width], [1, 1], "VALID", name="AvgPool2D/AvgPool")
        pooled = self.conv(pooled, "image_pooling", 256, **style)
        pooled = tf.compat.v1.image.resize_bilinear(pooled, [height, width], align_corners=True)
        y = tf.concat([pooled, self.conv(x, "aspp0", 256, **style)], 3, name="concat")
        y = tf.identity(self.conv(y, "concat_projection", 256, **style), name="concat_projection_dropout/Identity")
        logits = self.logits(y, "logits/semantic", classes)
        y = tf.compat.v1.image.resize_bilinear(logits, [crop, crop], align_corners=True)
        labels = tf.argmax(y, 3, name="SemanticPredictions")
        tf.cast(labels[:, :crop, :crop], tf.int32)
        return logits


def _strides(strides: Iterable[int], current: int, wanted: int) -> Iterable[tuple[int, int]]:
    """Yield stride and atrous rate: once the output stride is reached, strides become rates of the layers after."""
    rate = 1
    for stride in strides:
        if current == wanted:
            yield 1, rate
            rate *= stride
        else:
            yield stride, 1
            current *= stride


def _divisible(value: float) -> int:
    rounded = max(8, int(value + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * value else rounded
