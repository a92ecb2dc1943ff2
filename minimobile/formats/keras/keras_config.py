"""The configuration of a Keras model as a tree of layers: data only, no class in it is ever looked up."""

from __future__ import annotations

import reprlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from minimobile.errors import FormatError

MODEL_CLASSES = ("Sequential", "Functional", "Model")
DEPTH_LIMIT = 16
LAYER_LIMIT = 5_000
NAME_LIMIT = 200
_MODULES = ("keras", "tf_keras", "tensorflow", "keras_applications")


@dataclass(frozen=True)
class KerasLayer:
    """One layer, or a model used as one: its name, class, settings and, as the file has them, the calls of it.

    `children` are a model's layers in the file's order, `ends` what a functional model names as its inputs and outputs.
    """

    name: str
    class_name: str
    config: Mapping[str, Any]
    inbound_nodes: tuple[Any, ...] = ()
    children: tuple[KerasLayer, ...] = ()
    ends: tuple[Any, Any] = (None, None)

    @property
    def is_model(self) -> bool:
        """Say whether this is a model, with layers of its own."""
        return self.class_name in MODEL_CLASSES


def parse_model(entry: Mapping[str, Any], where: str) -> KerasLayer:
    """Build the tree of the model that `config.json`, or the attribute `model_config`, describes.

    Unknown classes are kept by name. Raises FormatError for what no Keras writes.
    """
    model = _parse(entry, where, 0)
    if not model.is_model:
        raise FormatError(f"{where}: expected a Sequential or Functional model, found a {model.class_name[:80]}")
    if sum(1 for _ in walk(model)) > LAYER_LIMIT:
        raise FormatError(f"{where}: expected at most {LAYER_LIMIT} layers, found more")
    return model


def walk(model: KerasLayer) -> Iterator[KerasLayer]:
    """Yield the layers of a model and of the models in it, depth first, without the models themselves."""
    for layer in model.children:
        if layer.is_model:
            yield from walk(layer)
        else:
            yield layer


def count_classes(model: KerasLayer) -> str:
    """Return how many layers there are of each class, the most frequent first: "Conv2D 15, Dropout 1"."""
    counts = Counter(layer.class_name for layer in walk(model))
    return ", ".join(f"{name[:80]} {count}" for name, count in counts.most_common())


def expect(value: Any, kinds: type | tuple[type, ...], what: str) -> Any:
    """Return `value` if it is of one of the kinds (a bool is no number here), else raise FormatError."""
    kinds = kinds if isinstance(kinds, tuple) else (kinds,)
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        names = " or ".join(kind.__name__ for kind in kinds)
        raise FormatError(f"{what}: expected {names}, found {quote(value)}")
    return value


def quote(value: Any) -> str:
    """Return a value from the file for an error message, cut short however large it is."""
    short = reprlib.Repr()
    short.maxstring = short.maxother = short.maxlong = 80
    return short.repr(value)


def _parse(entry: Any, where: str, depth: int) -> KerasLayer:
    entry = expect(entry, dict, f"{where}: layer")
    class_name = expect(entry.get("class_name"), str, f"{where}: class_name")
    config = entry.get("config", {})
    if class_name == "Sequential" and isinstance(config, list):  # before Keras 2.2.3
        config = {"layers": config}
    config = expect(config, dict, f"{where}: config of a {class_name[:80]}")
    name = expect(config.get("name", entry.get("name", "")), str, f"{where}: name of a {class_name[:80]}")
    if len(name) > NAME_LIMIT:
        raise FormatError(f"{where}: expected names of at most {NAME_LIMIT} characters, found {quote(name)}")
    place = f"{where}: layer {name!r}" if depth else where
    module = entry.get("module")
    if module is not None and expect(module, str, f"{place}: module").split(".")[0] not in _MODULES:
        raise FormatError(
            f"{place}: expected a layer of Keras itself, found {class_name[:80]!r} of the module {module[:80]!r}; "
            "code from elsewhere is never run"
        )
    nodes = tuple(expect(entry.get("inbound_nodes") or [], list, f"{place}: inbound_nodes"))
    children: tuple[KerasLayer, ...] = ()
    if class_name in MODEL_CLASSES:
        if depth == DEPTH_LIMIT:
            raise FormatError(f"{place}: expected at most {DEPTH_LIMIT} models within each other, found more")
        layers = expect(config.get("layers"), list, f"{place}: layers")
        children = tuple(_parse(layer, where, depth + 1) for layer in layers)
        names = Counter(layer.name for layer in children)
        twice = [child for child, count in names.items() if count > 1]
        if twice:
            raise FormatError(f"{place}: expected every layer's name once, found {twice[0]!r} twice")
    return KerasLayer(
        name, class_name, config, nodes, children, (config.get("input_layers"), config.get("output_layers"))
    )
