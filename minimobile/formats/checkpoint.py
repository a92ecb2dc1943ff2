"""What every reader returns: configuration, weights by canonical name, processor settings and provenance."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from minimobile.networks.config import Config
from minimobile.operations.fake_quantization import Ranges
from minimobile.quantized.network import Network

ARCHITECTURES = (
    "MobileNetV1Model",
    "MobileNetV1ForImageClassification",
    "MobileNetV2Model",
    "MobileNetV2ForImageClassification",
    "MobileNetV2ForSemanticSegmentation",
    "MobileNetV1ForObjectDetection",
    "MobileNetV2ForObjectDetection",
)

HEADS = ("classifier.", "segmentation_head.", "detection_head.")
"""What the names of weights outside the backbone begin with."""


def name_class(stem: str, names: Iterable[str]) -> str:
    """Return the class of a "MobileNetV1" or "MobileNetV2" with the head that has weights of these names."""
    names = set(names)
    if stem == "MobileNetV2" and any(name.startswith("segmentation_head.") for name in names):
        return f"{stem}ForSemanticSegmentation"
    if any(name.startswith("detection_head.") for name in names):
        return f"{stem}ForObjectDetection"
    return f"{stem}ForImageClassification" if "classifier.weight" in names else f"{stem}Model"


@dataclass(frozen=True)
class Obstacle:
    """Why a source's integers cannot be run, in one sentence: they are odd, or the config is that of another graph."""

    sentence: str
    is_of_config: bool = False


@dataclass(frozen=True)
class Checkpoint:
    """A trained network as data.

    `weights` maps transformers' state-dict names, always with the prefix `mobilenet_v1.` or `mobilenet_v2.` on the
    backbone (`mobilenet_v1.layer.3.convolution.weight`, `classifier.weight`), to float arrays in PyTorch's layouts, and
    those of batch norm's counters (`...num_batches_tracked`) to int64 scalars, where the source has any above zero.
    `architecture` is one of `ARCHITECTURES`. `processor` is the content of `preprocessor_config.json`, where known.
    `provenance` says where it comes from (keys such as format, source, producer). `dialect` is a row of
    `dialects.DIALECTS`, the school whose conventions the numbers follow.

    What became of the source's own arrays: `mapped` is {name there: canonical name}, `ignored` {name there: why it is
    not needed}. `endpoints` is {name of a node of our graph: name of the tensor in the source that holds the same
    values}, for sources that are graphs.

    `quantized` is the network of integers whose numbers `weights` are, for sources that hold one; where that cannot be
    run, it is None and `obstacle` says why. `ranges` are those of a float network that was trained for
    quantisation: it rounds its weights and values.
    """

    config: Config
    weights: Mapping[str, NDArray[Any]]
    architecture: str
    processor: Mapping[str, Any] | None = None
    provenance: Mapping[str, str] = field(default_factory=dict)
    dialect: str = "huggingface"
    mapped: Mapping[str, str] = field(default_factory=dict)
    ignored: Mapping[str, str] = field(default_factory=dict)
    endpoints: Mapping[str, str] = field(default_factory=dict)
    quantized: Network | None = None
    obstacle: Obstacle | None = None
    ranges: Ranges = field(default_factory=dict)

    @property
    def is_quantized(self) -> bool:
        """Whether the source holds integers, be it that they can be run or not."""
        return self.quantized is not None or self.obstacle is not None
