"""A graph under construction: the layers that all networks are made of, each adding nodes and its weights' shapes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from minimobile.networks.config import MobileNetConfig
from minimobile.networks.graph import INPUT, Graph, Node

Shape = tuple[int, ...]


@dataclass
class Draft:
    """Nodes so far, in order, and what a finished `Graph` needs besides.

    `channels` maps node names to channel counts. Weights of the backbone are named with `prefix`, as in the
    state-dict names of transformers.
    """

    config: MobileNetConfig
    prefix: str
    nodes: list[Node] = field(default_factory=list)
    shapes: dict[str, Shape] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)
    channels: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.channels[INPUT] = self.config.num_channels

    def add(
        self,
        name: str,
        op: str,
        inputs: tuple[str, ...],
        channels: int,
        attributes: Mapping[str, Any] | None = None,
        weights: Mapping[str, tuple[str, Shape]] | None = None,
    ) -> str:
        """Append a node; `weights` maps a role to (canonical name, shape). Returns the node's name."""
        weights = weights or {}
        self.shapes.update(weights.values())
        roles = {role: weight for role, (weight, _) in weights.items()}
        self.nodes.append(Node(name, op, inputs, attributes or {}, roles))
        self.channels[name] = channels
        return name

    def add_conv_layer(
        self,
        name: str,
        x: str,
        channels: int,
        *,
        kernel_size: int = 1,
        stride: int = 1,
        dilation: int = 1,
        is_depthwise: bool = False,
        has_normalization: bool = True,
        activation: str | None = None,
        epsilon: float | None = None,
        prefix: str | None = None,
    ) -> str:
        """Append convolution -> batch norm -> activation; the last of them carries the layer's name.

        `activation=None` is the config's, "linear" none at all; `epsilon=None` is the config's. Without batch norm the
        convolution has a bias. Returns the layer's name.
        """
        activation = self.config.hidden_act if activation is None else activation
        has_activation = activation != "linear"
        path = (self.prefix if prefix is None else prefix) + name

        def settle(step: str, is_last: bool) -> str:
            if is_last:
                self.aliases[f"{name}.{step}"] = name
            return name if is_last else f"{name}.{step}"

        is_last = not (has_normalization or has_activation)
        x = self._add_convolution(
            settle("convolution", is_last), path, x, channels, kernel_size, stride, dilation, is_depthwise,
            has_bias=not has_normalization,
        )  # fmt: skip
        if has_normalization:
            epsilon = self.config.layer_norm_eps if epsilon is None else epsilon
            roles = {"weight": "weight", "bias": "bias", "mean": "running_mean", "variance": "running_var"}
            weights = {role: (f"{path}.normalization.{file}", (channels,)) for role, file in roles.items()}
            node_name = settle("normalization", not has_activation)
            folding = {} if self.config.folds_batch_norm else {"folds_batch_norm": False}
            x = self.add(node_name, "batch_norm", (x,), channels, {"epsilon": epsilon, **folding}, weights)
        if has_activation:
            function = "silu" if activation == "swish" else activation
            x = self.add(settle("activation", True), "activation", (x,), channels, {"function": function})
        return x

    def _add_convolution(
        self,
        name: str,
        path: str,
        x: str,
        channels: int,
        kernel_size: int,
        stride: int,
        dilation: int,
        is_depthwise: bool,
        has_bias: bool,
    ) -> str:
        inputs_per_filter = 1 if is_depthwise else self.channels[x]
        shape = (channels, inputs_per_filter, kernel_size, kernel_size)
        weights: dict[str, tuple[str, Shape]] = {"weight": (f"{path}.convolution.weight", shape)}
        if has_bias:
            weights["bias"] = (f"{path}.convolution.bias", (channels,))
        if kernel_size == 1 and not is_depthwise:
            return self.add(name, "pointwise_conv2d", (x,), channels, {}, weights)
        padding: str | tuple[tuple[int, int], tuple[int, int]] = "SAME"
        if stride == 2 and (
            self.config.bottom_right_padding == "all" or (is_depthwise and self.config.bottom_right_padding)
        ):
            padding = ((0, 1), (0, 1))
        elif not self.config.tf_padding:  # PyTorch's habit: the same on all sides, whatever the image's size
            side = (kernel_size - 1) // 2 * dilation
            padding = ((side, side), (side, side))
        attributes = {"kernel_size": kernel_size, "stride": stride, "dilation": dilation, "padding": padding}
        return self.add(name, "depthwise_conv2d" if is_depthwise else "conv2d", (x,), channels, attributes, weights)

    def add_pooler(self, x: str, stride: int) -> str:
        """Append `pooler`: the mean of the whole map, or of the fixed window that `config.pool_size` asks for."""
        self.aliases.update(last_hidden_state=x, pooler_output="pooler", global_pool="pooler")
        if self.config.pool_size is None:
            return self.add("pooler", "global_average_pool2d", (x,), self.channels[x])
        attributes = {"kernel_size": self.config.pool_size, "stride": stride}
        return self.add("pooler", "average_pool2d", (x,), self.channels[x], attributes)

    def add_classifier(self, x: str) -> str:
        """Append `classifier`, a linear layer; without labels the features are the logits, as in transformers."""
        count = self.config.class_count
        if count > 0:
            weights = {
                "weight": ("classifier.weight", (count, self.channels[x])),
                "bias": ("classifier.bias", (count,)),
            }
            x = self.add("classifier", "pointwise_conv2d", (x,), count, {}, weights)
        self.aliases.update(logits=x, Logits=x)
        return x

    def finish(self, outputs: tuple[str, ...], hidden_states: Iterable[str]) -> Graph:
        """Return the graph that computes `outputs`; each name may be an alias."""
        settled = {alias: self.aliases.get(name, name) for alias, name in self.aliases.items()}
        return Graph(
            nodes=tuple(self.nodes),
            input_channels=self.config.num_channels,
            outputs=tuple(settled.get(name, name) for name in outputs),
            shapes=self.shapes,
            aliases=settled,
            hidden_states=tuple(settled.get(name, name) for name in hidden_states),
        )


def spread_strides(strides: Iterable[int], output_stride: int) -> Iterator[tuple[int, int]]:
    """Yield (stride, dilation) of each depthwise layer after a stem of stride 2, for the whole to have `output_stride`.

    Once the output stride is reached, the layer that would have strided keeps the old dilation, and the layers after it
    get the larger one. Source: TF-slim `mobilenet_v1_base` and transformers' MobileNetV2Model.

    >>> list(spread_strides([1, 2, 1, 2, 1], output_stride=4))
    [(1, 1), (2, 1), (1, 1), (1, 1), (1, 2)]
    """
    current_stride, dilation = 2, 1
    for stride in strides:
        if current_stride == output_stride:
            yield 1, dilation
            dilation *= stride
        else:
            yield stride, 1
            current_stride *= stride
