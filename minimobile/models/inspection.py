"""What a file holds and what its network costs: everything that `minimobile inspect` shows."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from minimobile.costs.activation_memory import LayerMemory, activation_memory
from minimobile.costs.paper_tables import paper_table
from minimobile.costs.profile import Profile, layer_names, profile, read_size
from minimobile.costs.published_accuracy import published_accuracy
from minimobile.costs.receptive_field import ReceptiveField, receptive_fields
from minimobile.errors import FormatError, InputError, MinimobileError
from minimobile.formats.checkpoint import Checkpoint
from minimobile.formats.description import Description
from minimobile.imaging.summary import describe_settings, find_size
from minimobile.models.sources import examine
from minimobile.models.weights import fit_weights
from minimobile.networks import ssd
from minimobile.networks.build_graph import build_graph
from minimobile.networks.config import Config
from minimobile.quantized.own_head import OwnOutput, own_outputs

_VARIANT = re.compile(
    r"(?=.)(?P<width>\d+(?:\.\d*)?|\.\d+)?(?:@(?P<height>\d{1,5})(?:x(?P<columns>\d{1,5}))?)?", re.ASCII
)


@dataclass(frozen=True)
class NetworkCosts:
    """A network at one size of image, (height, width), and what it costs."""

    config: Config
    architecture: str
    image_size: tuple[int, int]

    @property
    def title(self) -> str:
        """Such as "V2 0.5 at 224 x 224"."""
        height, width = self.image_size
        name = "DeepLab V2" if self.architecture.endswith("Segmentation") else f"V{self.architecture[10]}"
        if self.architecture.endswith("Detection"):
            name = f"{'SSDLite' if ssd.settings(self.config).use_depthwise else 'SSD'} {name}"
        return f"{name} {self.config.width_multiplier} at {height} x {width}"

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of the classes; none for a network without a head."""
        return () if self.architecture.endswith("Model") else tuple(self.config.labels.values())

    @cached_property
    def profile(self) -> Profile:
        """Parameters and multiply-adds by layer."""
        return profile(self._graph, self.image_size)

    @cached_property
    def memory(self) -> Mapping[str, LayerMemory]:
        """The memory of activations by layer, of those that the outputs need."""
        return activation_memory(self._graph, self.image_size)

    @cached_property
    def receptive_fields(self) -> Mapping[str, ReceptiveField | None]:
        """The receptive field by layer; None is the whole picture."""
        fields = receptive_fields(self._graph, self.image_size)
        return {layer: fields[node] for node, layer in layer_names(self._graph).items() if node == layer}

    @cached_property
    def peak(self) -> tuple[str, int]:
        """The layer that needs most memory, and how many bytes are live while it is computed."""
        name = max(self.memory, key=lambda layer: self.memory[layer].live)
        return name, self.memory[name].live

    @cached_property
    def paper_table(self) -> Mapping[str, Any]:
        """The table of its paper: {"table": its name, "rows": [{...}]}."""
        return paper_table(self._graph, self.image_size)

    @cached_property
    def features(self) -> str:
        """The name of the last layer before the head, that with the largest receptive field short of the picture."""
        return [layer for layer, field in self.receptive_fields.items() if field is not None][-1]

    @cached_property
    def _graph(self) -> Any:
        return build_graph(self.config, self.architecture)

    @property
    def accuracy(self) -> float | None:
        """The published top-1 accuracy on ImageNet of a classifier like this one, in percent; None without one."""
        if not self.architecture.endswith("ImageClassification") or len(self.labels) not in (1000, 1001):
            return None
        config = self.config
        return published_accuracy(config.model_type, config.width_multiplier, self.image_size)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON: those of the profile, each layer with its memory and receptive field."""
        values = self.profile.to_dict()
        for layer in values["layers"]:
            memory, field = self.memory.get(layer["name"]), self.receptive_fields[layer["name"]]
            layer["output_bytes"], layer["live_bytes"] = memory or (None, None)
            layer["receptive_field"] = None if field is None else [reach._asdict() for reach in field]
        layer_name, size = self.peak
        return {
            "architecture": self.architecture,
            "width_multiplier": self.config.width_multiplier,
            "output_stride": self.config.output_stride,
            "classes": len(self.labels),
            "image_size": list(self.image_size),
            "published_accuracy": self.accuracy,
            "peak_memory": {"layer": layer_name, "bytes": size},
            "paper": dict(self.paper_table),
            **values,
        }


@dataclass(frozen=True)
class Inspection:
    """What `source` holds. `network` is None where it cannot be loaded, for the reason in `description.problem`.

    `others` are the networks to compare it with.
    """

    source: str
    description: Description
    checkpoint: Checkpoint | None
    network: NetworkCosts | None
    others: tuple[NetworkCosts, ...] = ()

    @property
    def preprocessing(self) -> str | None:
        """What the image processor does, in one line; None where the source says nothing of it."""
        settings = None if self.checkpoint is None else self.checkpoint.processor
        return None if settings is None else describe_settings(settings)

    @property
    def notes(self) -> dict[str, str]:
        """What the reader says of a file that would surprise: of its zeros at other sizes, its numbers, its anchors."""
        known = {} if self.checkpoint is None else self.checkpoint.provenance
        return {name: known[name] for name in ("padding", "numbers", "anchors") if name in known}

    @property
    def own_outputs(self) -> tuple[OwnOutput, ...]:
        """The raw outputs of a quantised file whose head is its own; () for others."""
        is_body = self.checkpoint is not None and self.checkpoint.architecture.endswith("Model")
        return own_outputs(self.checkpoint.quantized) if self.checkpoint is not None and is_body else ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; without a network "layers" is empty and the totals are None."""
        description = self.description.to_dict()
        network = {"layers": [], "totals": {"parameters": None, "multiply_adds": None}}
        return {
            "source": self.source,
            **{name: value for name, value in description.items() if name != "entries"},
            "dialect": self.checkpoint.dialect if self.checkpoint else self.description.dialect,
            "preprocessing": self.preprocessing,
            "notes": self.notes,
            "own_outputs": [{**output._asdict(), "shape": list(output.shape)} for output in self.own_outputs],
            **(network if self.network is None else self.network.to_dict()),
            "compare": [other.to_dict() for other in self.others],
            "arrays": description["entries"],
        }


def inspect(
    source: str | Path, image_size: int | Sequence[int] | None = None, compare: Sequence[str] = ()
) -> Inspection:
    """Say what a source holds and what its network costs for images of `image_size`, an integer or (height, width).

    None takes the size that the source's image processor gives to pictures, or else its config's.
    `source` is what `load` takes, or a file of a known format that cannot be loaded. Each item of `compare` is a width
    multiplier ("0.5"), an image size ("@160", "@160x192"), both ("0.5@160"), or another source. Raises FormatError for
    a source that is missing, of no known format or so damaged that there is nothing to say of it, and for one that
    cannot be loaded where `compare` needs its network, InputError for an item of `compare` that is none of these.
    """
    asked = None if image_size is None else read_size(image_size)
    description, checkpoint = examine(source)
    network = None
    if checkpoint is not None:
        try:
            network = _network(checkpoint, asked or picture_size(checkpoint.config, checkpoint.processor), str(source))
        except MinimobileError as error:
            description = dataclasses.replace(description, problem=str(error))
    is_silent = not (description.entries or description.facts or description.producer)
    if network is None and (compare or is_silent):
        raise FormatError(str(description.problem))
    others = tuple(_vary(network, text) for text in compare) if network else ()
    return Inspection(str(source), description, checkpoint if network else None, network, others)


def picture_size(config: Config, settings: Mapping[str, Any] | None) -> tuple[int, int]:
    """Return (height, width) that an image processor's settings give to pictures, or else that of the config."""
    return (None if settings is None else find_size(settings)) or read_size(config.image_size)


def _network(checkpoint: Checkpoint, size: tuple[int, int], where: str) -> NetworkCosts:
    """Return the network of a checkpoint, whose weights must be those that it needs."""
    fit_weights(checkpoint.weights, build_graph(checkpoint.config, checkpoint.architecture), where)
    return NetworkCosts(checkpoint.config, checkpoint.architecture, size)


def _vary(network: NetworkCosts, text: str) -> NetworkCosts:
    found = None if Path(text).exists() else _VARIANT.fullmatch(text)
    if found is None:
        try:
            description, checkpoint = examine(text)
        except FormatError as error:
            if Path(text).exists():
                raise
            raise InputError(
                f"compare: expected a width (0.5), a size (@160), both (0.5@160) or another source, got {text!r} "
                f"({error})"
            ) from None
        if checkpoint is None:
            raise FormatError(str(description.problem))
        return _network(checkpoint, network.image_size, text)
    config, size = network.config, network.image_size
    if found["width"]:
        config = config.replace(depth_multiplier=float(found["width"]))
    if found["height"]:
        size = read_size([int(found["height"]), int(found["columns"] or found["height"])])
    return NetworkCosts(config, network.architecture, size)
