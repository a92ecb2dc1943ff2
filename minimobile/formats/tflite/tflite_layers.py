"""TFLite's operators as layers in `network.Layer`'s words, with layouts turned to PyTorch's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minimobile.errors import FormatError
from minimobile.formats.matching.network import PICTURE, Layer
from minimobile.formats.tflite.tflite_model import ABSENT, Model, Operator, Tensor
from minimobile.networks.graph import sweep_back

Array = NDArray[Any]


def translate(model: Model, where: str) -> list[Layer]:
    """Return the layers that the outputs depend on.

    A layer has the name of the tensor that it computes. What has no counterpart becomes a layer "other", for whoever
    looks for a network to name. Raises FormatError where the model has not one float picture as its input, or an
    operator lacks a constant that it needs.
    """
    return _Translator(model, where).run()


def translate_with_outputs(model: Model, where: str) -> tuple[list[Layer], tuple[str, ...]]:
    """Return the layers that the outputs depend on, and the name of the layer that computes each output."""
    translator = _Translator(model, where)
    layers = translator.run()
    missing = [number for number in model.outputs if number not in translator.values]
    if missing:
        raise FormatError(f"{where}: expected outputs that an operator computes, found {translator.name(missing[0])!r}")
    return layers, tuple(translator.values[number] for number in model.outputs)


class _Translator:
    def __init__(self, model: Model, where: str) -> None:
        self.where = where
        self.tensors = model.tensors
        self.model = model
        self.layers: dict[str, Layer] = {}
        self.constants = {number: tensor.data for number, tensor in enumerate(model.tensors) if tensor.data is not None}
        self.widened: dict[int, Array] = {}  # number of a float16 constant -> the same in float32
        self.origins: dict[int, int] = {}  # a constant that was widened -> the one in the file
        self.values: dict[int, str] = {}  # number of a tensor -> name of the layer that computes it

    def run(self) -> list[Layer]:
        source = self.tensors[self.model.inputs[0]]
        if len(self.model.inputs) != 1 or source.dtype != "float32" or len(source.shape) != 4:
            found = ", ".join(f"{self.tensors[n].dtype} {self.tensors[n].shape}" for n in self.model.inputs[:9])
            raise FormatError(f"{self.where}: expected one input of float32 (1, H, W, C), found {found}")
        self.values[self.model.inputs[0]] = PICTURE
        for operator in self.model.operators:
            _TRANSLATIONS.get(operator.kind, _Translator.add_other)(self, operator)
        return self.needed()

    def needed(self) -> list[Layer]:
        wanted = [self.values[number] for number in self.model.outputs if number in self.values]
        layers = list(self.layers.values())
        return list(sweep_back(layers, wanted, lambda layer: (layer.name,), lambda layer: layer.inputs))

    def add(
        self, operator: Operator, op: str, arrays: Mapping[str, tuple[Array, int]] | None = None, **attributes: Any
    ) -> None:
        """Append a layer that reads the operator's computed inputs, and one for its activation.

        `arrays`: role -> array, and the number of the tensor that it comes from.
        """
        number = operator.outputs[0]
        tensor = self.tensors[number].name or self.name(number)
        name = self.find_free_name(self.name(number), number)
        inputs = tuple(self.values[n] for n in operator.inputs if n in self.values)
        if op in ("reshape", "resize_bilinear"):
            inputs = inputs[:1]  # the second one is a size
        arrays = arrays or {}
        values = {role: array for role, (array, _) in arrays.items()}
        names = {role: self.name(self.origins.get(n, n)) for role, (_, n) in arrays.items()}
        self.layers[name] = Layer(name, op, inputs, values, attributes, names, tensor)
        activation = operator.options.get("activation", "none")
        if activation != "none":
            source, name = name, self.find_free_name(f"{self.name(number)}/{activation}", number)
            self.layers[name] = Layer(name, "activation", (source,), {}, {"function": activation}, tensor=tensor)
        for output in operator.outputs:
            self.values[output] = name

    def find_free_name(self, name: str, number: int) -> str:
        """Return a name that no layer has yet: tensors may share one."""
        while name in self.layers or name == PICTURE:
            name = f"{name}#{number}"
        return name

    def name(self, number: int) -> str:
        """Return the name of a tensor, short enough for a message."""
        return self.tensors[number].name[:200] or f"tensor {number}"

    def add_other(self, operator: Operator, why: str = "") -> None:
        self.add(operator, "other", kind=f"{operator.kind}{why}")

    def constant(self, operator: Operator, index: int, what: str, *ranks: int) -> Array:
        """Return a constant input, of one of the ranks."""
        number = operator.inputs[index] if index < len(operator.inputs) else ABSENT
        array = self.constants.get(number)
        if array is None or array.ndim not in ranks:
            found = "none" if array is None else f"one of shape {array.shape}"
            self.fail(operator, f"a constant as its {what}, of rank {' or '.join(map(str, ranks))}", found)
        assert array is not None
        return array

    def whole_numbers(self, operator: Operator, index: int, what: str, *ranks: int) -> Array:
        """Return a constant input of whole numbers, at least one, of one of the ranks."""
        array = self.constant(operator, index, what, *ranks)
        if array.dtype.kind != "i" or array.size == 0:
            self.fail(operator, f"whole numbers as its {what}", f"{array.dtype} {array.shape}")
        return array

    def fail(self, operator: Operator, expected: str, found: str) -> None:
        name = self.name(operator.outputs[0])
        raise FormatError(f"{self.where}: {operator.kind} {name!r}: expected {expected}, found {found}")

    def source(self, operator: Operator) -> Tensor:
        return self.tensors[operator.inputs[0]]

    def add_convolution(self, operator: Operator) -> None:
        options = operator.options
        weight = self.constant(operator, 1, "weight", 4)
        arrays = {"weight": (weight.transpose(0, 3, 1, 2), operator.inputs[1])}  # OHWI -> OIHW
        op = "conv2d"
        if operator.kind == "DEPTHWISE_CONV_2D":
            arrays["weight"] = (weight.transpose(3, 0, 1, 2), operator.inputs[1])  # 1HWC -> C1HW
            channels = self.source(operator).shape[-1:]
            is_full = channels == (1,) and weight.shape[3] > 1  # of a single channel both are the same
            op = "conv2d" if is_full else "depthwise_conv2d"
            if not (is_full or channels == weight.shape[3:]) or weight.shape[0] != 1:
                return self.add_other(operator, f" of {channels} channels with a weight of {weight.shape}")
        self.take_bias(operator, arrays)
        for name in ("stride", "dilation"):
            if options[f"{name}_w"] != options[f"{name}_h"]:
                return self.add_other(operator, f" with the {name} {options[f'{name}_h']} x {options[f'{name}_w']}")
        self.add(
            operator, op, arrays,
            stride=options["stride_h"], dilation=options["dilation_h"], padding=options["padding"],
        )  # fmt: skip
        return None

    def take_bias(self, operator: Operator, arrays: dict[str, tuple[Array, int]]) -> None:
        if len(operator.inputs) > 2 and operator.inputs[2] != ABSENT:
            arrays["bias"] = (self.constant(operator, 2, "bias", 1), operator.inputs[2])

    def add_dense(self, operator: Operator) -> None:
        arrays = {"weight": (self.constant(operator, 1, "weight", 2), operator.inputs[1])}
        self.take_bias(operator, arrays)
        if operator.options["weights_format"]:
            return self.add_other(operator, " with shuffled weights")
        return self.add(operator, "dense", arrays)

    def add_average_pool(self, operator: Operator) -> None:
        options = operator.options
        strides = (options["stride_h"], options["stride_w"])
        self.add(
            operator, "average_pool2d",
            kernel_size=(options["filter_h"], options["filter_w"]),
            stride=strides[0] if strides[0] == strides[1] else strides,
            padding=options["padding"],
        )  # fmt: skip

    def add_mean(self, operator: Operator) -> None:
        axes = sorted(int(axis) % 4 for axis in self.whole_numbers(operator, 1, "axes", 0, 1).reshape(-1))
        if axes != [1, 2] or len(self.source(operator).shape) != 4:
            return self.add_other(operator, f" over the axes {axes}")
        return self.add(operator, "average_pool2d", kernel_size=None)

    def add_sum(self, operator: Operator) -> None:
        if set(operator.inputs) <= self.values.keys():
            return self.add(operator, "add")
        return self.add_rescale(operator)

    def add_rescale(self, operator: Operator) -> None:
        """Append x + c, x - c, x * c or x / c, where c is one number or one per channel."""
        left, right = operator.inputs
        if operator.kind in ("ADD", "MUL") and left in self.constants:
            left, right = right, left
        constant = self.constants.get(right)
        if left not in self.values or constant is None or constant.size not in (1, *constant.shape[-1:]):
            return self.add_other(operator)
        numbers = constant.reshape(-1).astype(np.float64)
        with np.errstate(divide="ignore"):
            scale, offset = {
                "ADD": (1.0, numbers),
                "SUB": (1.0, -numbers),
                "MUL": (numbers, 0.0),
                "DIV": (1 / numbers, 0.0),
            }[operator.kind]
        return self.add(operator, "rescale", scale=scale, offset=offset)

    def add_pad(self, operator: Operator) -> None:
        amounts = self.pairs(operator, 1, "paddings", 4)
        fill = self.constant(operator, 2, "value", 0, 1).reshape(-1) if operator.kind == "PADV2" else np.zeros(1)
        if amounts[0] != (0, 0) or amounts[3] != (0, 0) or fill.size != 1 or fill[0] != 0:
            return self.add_other(operator, f" of {amounts} with {fill}")
        return self.add(operator, "pad", padding=amounts[1:3])

    def add_blocks(self, operator: Operator) -> None:
        block = self.whole_numbers(operator, 1, "block", 1)
        if block.size != 2 or block.min() < 1:
            self.fail(operator, "a block of two sizes above zero", f"{block[:9]}")
        sizes = tuple(int(size) for size in block)
        margin = self.pairs(operator, 2, "margins", 2)
        if operator.kind == "SPACE_TO_BATCH_ND":
            return self.add(operator, "space_to_batch", block=sizes, padding=margin)
        return self.add(operator, "batch_to_space", block=sizes, crop=margin)

    def pairs(self, operator: Operator, index: int, what: str, count: int) -> tuple[tuple[int, int], ...]:
        """Return a constant of `count` pairs (before, after)."""
        array = self.whole_numbers(operator, index, what, 2)
        if array.shape != (count, 2) or array.min() < 0:
            self.fail(operator, f"{count} pairs of {what}, none below zero", f"{array.tolist()[:9]}")
        return tuple((int(before), int(after)) for before, after in array)

    def add_resize(self, operator: Operator) -> None:
        size = None
        if operator.inputs[1] in self.constants:  # else it is computed
            sides = self.whole_numbers(operator, 1, "size", 1)
            if sides.size != 2 or sides.min() < 1:
                self.fail(operator, "a size of height and width above zero", f"{sides[:9].tolist()}")
            size = (int(sides[0]), int(sides[1]))
        self.add(operator, "resize_bilinear", **operator.options, size=size)

    def add_concatenation(self, operator: Operator) -> None:
        rank = len(self.source(operator).shape)
        if rank != 4 or operator.options["axis"] % rank != 3 or not set(operator.inputs) <= self.values.keys():
            return self.add_other(operator, f" along the axis {operator.options['axis']}")
        return self.add(operator, "concatenate")

    def add_widened(self, operator: Operator) -> None:
        """Widen a float16 constant, which is one still; what else is dequantised is not read."""
        array = self.constants.get(operator.inputs[0])
        if array is None or array.dtype != np.float16:
            return self.add_other(operator, f" of {self.source(operator).dtype}")
        origin = operator.inputs[0]
        if origin not in self.widened:
            self.widened[origin] = array.astype(np.float32)
        self.constants[operator.outputs[0]] = self.widened[origin]
        self.origins[operator.outputs[0]] = origin
        return None

    def add_softmax(self, operator: Operator) -> None:
        if operator.options["beta"] != 1:
            return self.add_other(operator, f" with beta {operator.options['beta']:g}")
        return self.add(operator, "activation", function="softmax")


def _activation(function: str) -> Callable[[_Translator, Operator], None]:
    return lambda self, operator: self.add(operator, "activation", function=function)


def _plain(op: str) -> Callable[[_Translator, Operator], None]:
    return lambda self, operator: self.add(operator, op)


_TRANSLATIONS: Mapping[str, Callable[[_Translator, Operator], None]] = {
    "ADD": _Translator.add_sum,
    "SUB": _Translator.add_rescale,
    "MUL": _Translator.add_rescale,
    "DIV": _Translator.add_rescale,
    "CONV_2D": _Translator.add_convolution,
    "DEPTHWISE_CONV_2D": _Translator.add_convolution,
    "FULLY_CONNECTED": _Translator.add_dense,
    "AVERAGE_POOL_2D": _Translator.add_average_pool,
    "MEAN": _Translator.add_mean,
    "PAD": _Translator.add_pad,
    "PADV2": _Translator.add_pad,
    "SPACE_TO_BATCH_ND": _Translator.add_blocks,
    "BATCH_TO_SPACE_ND": _Translator.add_blocks,
    "RESIZE_BILINEAR": _Translator.add_resize,
    "CONCATENATION": _Translator.add_concatenation,
    "DEQUANTIZE": _Translator.add_widened,
    "SOFTMAX": _Translator.add_softmax,
    "RELU": _activation("relu"),
    "RELU6": _activation("relu6"),
    "LOGISTIC": _activation("sigmoid"),
    "RESHAPE": _plain("reshape"),
    "SQUEEZE": _plain("reshape"),
    "ARG_MAX": _plain("argmax"),
}
