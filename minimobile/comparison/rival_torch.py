"""The network in PyTorch, each operation by the entry of one table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from numpy.typing import NDArray

from minimobile.comparison.sized_network import SizedNetwork
from minimobile.networks.graph import INPUT, Node
from minimobile.operations.shapes import sliding_window
from minimobile.operations.table import is_convolution


def run_torch(network: SizedNetwork, num_threads: int) -> Callable[[NDArray[Any]], list[NDArray[Any]]]:
    """Return a function that computes the network's outputs, channels last, in PyTorch's own kernels."""
    torch = import_module("torch")
    torch.set_num_threads(num_threads)
    layers = _Layers(torch, network)

    def run(x: NDArray[Any]) -> list[NDArray[Any]]:
        with torch.inference_mode():
            values = {INPUT: torch.from_numpy(x).contiguous(memory_format=torch.channels_last)}
            for node in network.graph.nodes:
                values[node.name] = _LAYERS[node.op](layers, node, *(values[name] for name in node.inputs))
            return [values[name].numpy() for name in network.graph.outputs]

    return run


class _Layers:
    """What the entries of the table work with: PyTorch, and each convolution's tensors, padding and geometry."""

    def __init__(self, torch: Any, network: SizedNetwork) -> None:
        self.torch, self.functional = torch, torch.nn.functional
        self.convolutions: dict[str, Callable[[Any], Any]] = {
            node.name: self.prepare(network, node) for node in network.graph.nodes if is_convolution(node)
        }

    def prepare(self, network: SizedNetwork, node: Node) -> Callable[[Any], Any]:
        """Return the convolution of a node; PyTorch pads by itself only where both sides are alike."""
        torch, functional = self.torch, self.functional
        weight, bias, groups = network.convolution(node)
        weight = torch.from_numpy(weight.copy()).contiguous(memory_format=torch.channels_last)
        bias = torch.from_numpy(bias)
        top, left, bottom, right = network.pads(node, *network.shapes[node.inputs[0]][1:])
        stride, dilation = node.attributes.get("stride", 1), node.attributes.get("dilation", 1)
        if (top, left) == (bottom, right):
            return lambda x: functional.conv2d(x, weight, bias, stride, (top, left), dilation, groups)
        sides = (left, right, top, bottom)
        return lambda x: functional.conv2d(functional.pad(x, sides), weight, bias, stride, 0, dilation, groups)

    def pool(self, node: Node, x: Any) -> Any:
        """Average over windows."""
        slide = sliding_window(node, *x.shape[2:])
        return self.functional.avg_pool2d(x, (slide.kernel_height, slide.kernel_width), slide.stride)

    def activate(self, node: Node, x: Any) -> Any:
        """Apply an activation; PyTorch has all of them by our names, but for the one that does nothing."""
        function = node.attributes["function"]
        return x if function == "linear" else getattr(self.functional, function)(x)


_LAYERS: Mapping[str, Callable[..., Any]] = {
    **dict.fromkeys(
        ("conv2d", "depthwise_conv2d", "pointwise_conv2d"), lambda layers, node, x: layers.convolutions[node.name](x)
    ),
    "activation": _Layers.activate,
    "add": lambda layers, node, x, y: x + y,
    "concatenate": lambda layers, node, *inputs: layers.torch.cat(inputs, 1),
    "average_pool2d": _Layers.pool,
    "global_average_pool2d": lambda layers, node, x: layers.functional.adaptive_avg_pool2d(x, 1),
    "resize_bilinear": lambda layers, node, x, like: layers.functional.interpolate(
        x, like.shape[2:], mode="bilinear", align_corners=True
    ),
}
